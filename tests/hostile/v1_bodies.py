"""Bodies of the original API that no client sends: a header with the caller, then commands."""

import json
from collections.abc import Iterator

from tests.hostile.bodies import NO_OBJECTS

COMMANDS = (
    b'{"type":"ExpectVersion","version":"999999"}',
    b"{type:'Insert',key:'YQ==',value:''}",
    b'{"type":"Remove","key":"ZA==","value":"NA=="}',
)


def header(customer_id: str, apikey: str, *members: str) -> bytes:
    authinfo = json.dumps({"customer_id": customer_id, "apikey": apikey})
    return (
        "{" + ", ".join([f'"authinfo": {authinfo}', '"logName": "visits"', *members]) + "}"
    ).encode()


def faults(header: bytes) -> Iterator[tuple[str, bytes]]:
    """(verb, body), each made of a good header."""
    inner = header[:-1]
    for value in NO_OBJECTS.values():
        for verb in ("create", "diff", "update"):
            yield verb, value
    for verb in ("create", "diff", "update"):
        yield verb, b"\0" + header
        yield verb, header.decode().encode("utf-16")
        yield verb, header[:-1] + b"\xff}"
        yield verb, inner + b', "surplus": 1}'
        yield verb, inner + b', "logName": ""}'
        yield verb, inner + b', "logName": "\\ud800"}'
        yield verb, inner + b', "logName": ' + b"[" * 100_000
        yield verb, b"{logName:" * 100_000
        yield verb, b" " * 40_000 + b"[" * 40_000
    for name in ("fromVersion", "toVersion"):
        for number in (
            b"1.0",
            b"true",
            b'"01"',
            b"1e0",
            b"-1",
            b"9007199254740992",
            b"18446744073709551616",
            b"+1",
            b"0x1",
            b"NaN",
            b"Infinity",
            b'" 1"',
            b'"\xd9\xa1"',
            b"[]",
        ):
            yield "diff", inner + b', "' + name.encode() + b'": ' + number + b"}"
    for member in (
        b'"waitSeconds": 61',
        b'"waitSeconds": -1',
        b'"limit": 51',
        b'"orderResultsBy": "x"',
        b'"paginationOptions": {"skipToKey": "YQ"}',
        b'"paginationOptions": {"skipToKey": 1}',
        b'"paginationOptions": []',
        b'"paginationOptions": {"skipToVersion": 1, "skipToKey": ""}',
    ):
        yield "diff", inner + b", " + member + b"}"
    for command in (
        b"{}",
        b"[]",
        b"1",
        b'"x"',
        b'{"type":"Upsert"}',
        b'{"type":"Upsert","key":"YQ","value":""}',
        b'{"type":"Upsert","key":"YQ==","value":"","surplus":1}',
        b'{"type":"ExpectVersion","version":1.0}',
        b'{"type":"ExpectVersion","version":9007199254740992}',
        b"{type:'Upsert',key:'YQ==',value:'\\ud800'}",
        b"{type:0x1}",
        b"{type:'Upsert'",
        b"/* no end",
        b"// " + b"x" * 9,
        b"'" * 3,
        b'{"type":"Insert","key":"","value":""}',
        b"[" * 100_000,
        b"{a:" * 100_000,
        b"\0",
    ):
        if not command.startswith(b"//"):
            yield "update", header + command
    yield "update", header + b'{"type":"Insert","key":"YQ==","value":""}' * 4_097


def large(header: bytes, size: int) -> Iterator[tuple[str, bytes]]:
    """(what, update of about `size` bytes) that could cost much to read."""
    for what, item in (
        ("lists", b"[],"),
        ("zeros", b"0,"),
        ("texts", b'"",'),
        ("texts in single quotes", b"'',"),
    ):
        for how, start in (("strictly", b'{"type":['), ("leniently", b"{type:[")):
            yield f"{what} {how}", header + start + item * (size // len(item)) + b"0]}"
    for what, start, item, end in (
        ("comments", b"{type:", b"/**/", b"0}"),
        ("open text", b'{type:"', b"'", b""),
        ("backslashes", b'{type:"', b"\\", b""),
        ("digits", b'{"type":', b"1", b"}"),
        ("members", b"{", b"a:0,", b"}"),
        ("commands", b"", COMMANDS[2], b""),
        ("lenient commands", b"", COMMANDS[1], b""),
        ("escapes", b"{type:'", b"\\x41", b"'}"),
        ("misleading comments", b"", b"{type:'Insert',key:'YQ==',value:''/*\"*/}", b""),
    ):
        yield what, header + start + item * (size // len(item)) + end

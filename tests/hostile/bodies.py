"""Bodies of the native API that no client of ours sends, each with what is wrong with it.

`CANARY` stands where a value stands.
"""

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import msgpack
from indelible_protocol.commands import Op
from indelible_protocol.ids import ChainId, to_base64url

from tests.support.writers import SealedWriter, sealed_command

CANARY = "canary-51b2c6"
JSON, MSGPACK = "application/json", "application/msgpack"


class Place(NamedTuple):
    """Where bodies go; `{log}` and `{sealed}` in the path stand for logs of the test."""

    method: str
    path: str
    good: Mapping[str, Any]
    form: str = ""

    def spelled(self) -> bytes:
        return as_json(self.good) if self.form == JSON else packed(self.good)


def packed(value: object) -> bytes:
    data: bytes = msgpack.packb(value)
    return data


def as_json(value: object) -> bytes:
    return json.dumps(value, default=lambda data: base64.b64encode(data).decode()).encode()


def _commit(commit: Any) -> dict[str, bytes]:
    return {"header": commit.header, "signature": commit.signature, "body": commit.body}


def _signed(writer: SealedWriter) -> dict[str, bytes]:
    command = sealed_command(Op.UPSERT, 1, 1)
    return _commit(writer.commit([command], chain=ChainId(b"c" * 16), seq=1, seen_size=1))


_KEY, _VALUE = b"key", CANARY.encode()


def places(writer: SealedWriter) -> dict[str, Place]:
    """Every place in both forms, for a sealed log of `writer`'s."""
    shapes = {
        "create": Place("PUT", "/v2/names/dmlzaXRz?kind=opaque", {"group": "visits"}),
        "upsert": Place(
            "POST",
            "/v2/logs/{log}/commits",
            {"commands": [{"type": "Upsert", "key": _KEY, "value": _VALUE}], "source": CANARY},
        ),
        "conditions": Place(
            "POST",
            "/v2/logs/{log}/commits",
            {
                "commands": [
                    {"type": "ExpectVersion", "version": 10**15},
                    {"type": "ExpectEntry", "key": _KEY, "version": 1},
                    {"type": "ExpectAbsent", "key": _KEY},
                    {"type": "Delete", "key": _KEY},
                ]
            },
        ),
        "removal": Place(
            "POST",
            "/v2/logs/{log}/commits",
            {
                "commands": [
                    {"type": "Insert", "key": b"k", "value": _VALUE},
                    {"type": "Update", "key": b"k", "value": _VALUE},
                    {"type": "Remove", "key": b"k", "value": _VALUE},
                ]
            },
        ),
        "keys": Place("POST", "/v2/logs/{log}/entries:batchGet", {"keys": [_KEY, b"k"], "at": 1}),
        "wait": Place(
            "POST", "/v2/wait", {"logs": [{"log_id": bytes(32), "version": 1}], "wait": 0.5}
        ),
        "sealed": Place("POST", "/v2/logs/{sealed}/commits", _signed(writer)),
        "genesis": Place(
            "PUT", f"/v2/names/{to_base64url(writer.token)}", {"genesis": _commit(writer.genesis)}
        ),
    }
    return {
        f"{name} {form[12:]}": place._replace(form=form)
        for name, place in shapes.items()
        for form in (JSON, MSGPACK)
    }


NO_OBJECTS = {
    "nothing": b"",
    "null": b"null",
    "true": b"true",
    "a number": b"0",
    "a string": b'"x"',
    "a list": b"[]",
    "an empty object": b'{"":{}}',
    "no end": b'{"a":',
    "an open string": b'"' * 7,
}


def json_faults(good: bytes) -> Iterator[tuple[str, bytes]]:
    """Faults of any JSON body, each made of a good one."""
    yield from NO_OBJECTS.items()
    inner = good[1:-1]
    yield "spaces only", b" " * 100_000
    for encoding in ("utf-8-sig", "utf-16", "utf-16-le", "utf-32"):
        yield encoding, good.decode().encode(encoding)
    yield "a NUL before", b"\0" + good
    yield "a NUL behind", good + b"\0"
    yield "two bodies", good + good
    yield "a bracket behind", good + b"]"
    yield "a comma at the end", b"{" + inner + b",}"
    yield "single quotes", good.replace(b'"', b"'")
    yield "a comment", b"/* */" + good
    yield "an unknown member", b"{" + inner + b',"surplus":1}'
    yield "a member twice", b"{" + inner + b"," + inner + b"}"
    yield (
        "a member spelled twice",
        b"{" + inner + b',"\\u00' + inner[1:2].hex().encode() + inner[2:] + b"}",
    )
    yield "a long unknown member", b"{" + inner + b',"' + b"s" * 100_000 + b'":1}'
    for number in (b"NaN", b"Infinity", b"-Infinity", b"1e400", b"01", b"+1", b"0x1", b".5", b"1."):
        yield f"the number {number.decode()}", b"{" + inner + b',"surplus":' + number + b"}"
    for name, text in (
        ("high surrogate", b"\\ud800"),
        ("low surrogate", b"\\udc00"),
        ("raw surrogate", b"\xed\xa0\x80"),
        ("invalid byte", b"\xff"),
        ("overlong NUL", b"\xc0\x80"),
        ("control character", b"\x01"),
        ("newline", b"\n"),
        ("bad escape", b"\\x41"),
        ("short escape", b"\\u00"),
    ):
        yield f"a {name} in a name", b"{" + inner + b',"' + text + b'":1}'
    for levels in (17, 1_000, 100_000):
        yield f"{levels} lists", b"[" * levels + b"]" * levels
        yield (
            f"{levels} lists within",
            b"{" + inner + b',"surplus":' + b"[" * levels + b"]" * levels + b"}",
        )
        yield f"{levels} objects", b'{"a":' * levels + b"0" + b"}" * levels
    yield "half a digit bomb", b'{"surplus":' + b"9" * 1_000_000 + b"}"


def msgpack_faults(good: bytes) -> Iterator[tuple[str, bytes]]:
    """Faults of any msgpack body; `good` begins with a fixmap of up to 14 members."""
    members, inner = good[0] & 15, good[1:]
    more = bytes((0x80 | members + 1,)) + inner
    yield "nothing", b""
    yield "the byte that means nothing", b"\xc1"
    for name, member in (
        ("nil", None),
        ("true", True),
        ("a list", []),
        ("a string", "x"),
        ("a double", 1.5),
    ):
        yield name, packed(member)
    yield "two bodies", good + good
    yield "a byte behind", good + b"\0"
    yield "an unknown member", more + packed("surplus") + packed(1)
    yield "a member twice", bytes((0x80 | 2 * members,)) + inner + inner
    yield "a number as name", more + packed(1) + packed(1)
    yield "bytes as name", more + packed(b"surplus") + packed(1)
    yield "a list as name", more + b"\x91\x01" + packed(1)
    for name, value in (
        ("array32", b"\xdd\xff\xff\xff\xff"),
        ("map32", b"\xdf\xff\xff\xff\xff"),
        ("bin32", b"\xc6\xff\xff\xff\xff"),
        ("str32", b"\xdb\xff\xff\xff\xff"),
        ("ext32", b"\xc9\xff\xff\xff\xff\x01"),
        ("array16", b"\xdc\xff\xff"),
        ("map16", b"\xde\xff\xff"),
        ("array of 2^27", b"\xdd\x08\x00\x00\x00"),
        ("extension", b"\xd4\x01\x00"),
        ("timestamp 32", b"\xd6\xff\x00\x00\x00\x01"),
        ("timestamp 64", b"\xd7\xff" + bytes(8)),
        ("timestamp 96", b"\xc7\x0c\xff" + bytes(12)),
        ("invalid text", b"\xa1\xff"),
        ("surrogate", b"\xa3\xed\xa0\x80"),
        ("NaN", b"\xcb\x7f\xf8" + bytes(6)),
        ("infinity", b"\xcb\x7f\xf0" + bytes(6)),
    ):
        yield f"{name} as a member", more + packed("surplus") + value
        yield f"{name} as all", value
        yield f"{name} as the first value", good[: 1 + _first_name(good)] + value
    for levels in (17, 1_000, 100_000):
        yield f"{levels} lists", b"\x91" * levels + b"\xc0"
        yield f"{levels} objects", (b"\x81\xa1a" * levels) + b"\xc0"
    yield "json", b'{"group": ""}'


def _first_name(good: bytes) -> int:
    return 1 + (good[1] & 31)


# What a version is not: as JSON, and as msgpack.
_NO_VERSIONS = {
    "1.0": (b"1.0", packed(1.0)),
    "true": (b"true", packed(True)),
    "text": (b'"1"', packed("1")),
    "1e0": (b"1e0", packed(1e0)),
    "null": (b"null", packed(None)),
    "-1": (b"-1", packed(-1)),
    "2^53": (b"9007199254740992", packed(2**53)),
    "2^53+1": (b"9007199254740993", packed(2**53 + 1)),
    "2^63": (b"9223372036854775808", packed(2**63)),
    "2^64-1": (b"18446744073709551615", packed(2**64 - 1)),
    "2^64": (b"18446744073709551616", b"\xcb\x43\xf0" + bytes(6)),
    "-2^63": (b"-9223372036854775808", packed(-(2**63))),
    "10^30": (b"1" + b"0" * 30, packed(1e30)),
    "-0.0": (b"-0.0", packed(-0.0)),
    "a list": (b"[1]", packed([1])),
}
_VERSIONS_IN: dict[str, Callable[[bytes], bytes]] = {
    "conditions json": lambda v: b'{"commands":[{"type":"ExpectVersion","version":' + v + b"}]}",
    "upsert json": lambda v: (
        b'{"commands":[{"type":"ExpectEntry","key":"aw==","version":' + v + b"}]}"
    ),
    "keys json": lambda v: b'{"keys":["aw=="],"at":' + v + b"}",
    "wait json": lambda v: b'{"logs":[{"log_id":"' + b"A" * 43 + b'=","version":' + v + b"}]}",
    "conditions msgpack": lambda v: (
        b"\x81\xa8commands\x91\x82\xa4type\xadExpectVersion\xa7version" + v
    ),
    "keys msgpack": lambda v: b"\x82\xa4keys\x91\xc4\x01k\xa2at" + v,
    "wait msgpack": lambda v: (
        b"\x81\xa4logs\x91\x82\xa6log_id\xc4\x20" + bytes(32) + b"\xa7version" + v
    ),
}


def version_faults() -> Iterator[tuple[str, str, bytes]]:
    """(where, what, body): a version that is none, in each place that takes one."""
    for where, body in _VERSIONS_IN.items():
        for what, (as_text, as_msgpack) in _NO_VERSIONS.items():
            yield where, f"version {what}", body(as_text if where.endswith("json") else as_msgpack)


def shape_faults(sealed: Mapping[str, bytes]) -> Iterator[tuple[str, str, bytes]]:
    """(where, what, body): well-formed, and no message; `sealed` is a good sealed commit."""
    commands: list[dict[str, Any]] = [
        {"type": "Upsert", "key": _KEY},
        {"type": "Upsert", "value": _VALUE},
        {"type": "Nothing"},
        {},
        {"type": "Delete", "key": _KEY, "value": _VALUE},
        {"type": "Upsert", "key": b"", "value": b""},
        {"type": "Upsert", "key": b"k" * 1_025, "value": b""},
        {"type": "ExpectVersion"},
        {"type": "ExpectVersion", "version": 1, "key": _KEY},
        {"type": "Control", "key": _KEY},
        {"type": "upsert", "key": _KEY, "value": _VALUE},
        {"type": 1},
        {"type": None},
    ]
    for index, command in enumerate(commands):
        for form, spell in (("json", as_json), ("msgpack", packed)):
            yield f"upsert {form}", f"command {index}", spell({"commands": [command]})
    for what, value in (
        ("no command", {"commands": []}),
        ("4,097 commands", {"commands": [commands[4] | {"type": "Upsert"}] * 4_097}),
        ("commands as object", {"commands": {}}),
        ("a long source", {"commands": [commands[4] | {"type": "Upsert"}], "source": "s" * 4_097}),
        ("a source of bytes", {"commands": [], "source": 1}),
    ):
        for form, spell in (("json", as_json), ("msgpack", packed)):
            yield f"upsert {form}", what, spell(value)
    for form, spell in (("json", as_json), ("msgpack", packed)):
        yield f"keys {form}", "no key", spell({"keys": []})
        yield f"keys {form}", "4,097 keys", spell({"keys": [b"k"] * 4_097})
        yield f"keys {form}", "an empty key", spell({"keys": [b""]})
        yield f"wait {form}", "no log", spell({"logs": []})
        yield f"wait {form}", "a short id", spell({"logs": [{"log_id": b"x", "version": 0}]})
        yield (
            f"wait {form}",
            "61 s",
            spell({"logs": [{"log_id": bytes(32), "version": 0}], "wait": 61}),
        )
        yield (
            f"wait {form}",
            "-1 s",
            spell({"logs": [{"log_id": bytes(32), "version": 0}], "wait": -1}),
        )
        yield f"create {form}", "a long group", spell({"group": "g" * 257})
        yield f"create {form}", "a group of NULs", spell({"group": "\0" * 257})
        yield f"sealed {form}", "empty parts", spell({"header": b"", "signature": b"", "body": b""})
        for part in ("header", "signature", "body"):
            yield f"sealed {form}", f"a long {part}", spell({**sealed, part: b"x" * 70_000})
    for text in (b"a", b"YQ", b"YQ=", b"Y Q=", b"YQ-_", b"====", b"Y\\u0000==", b"\xc3\xbc"):
        body = b'{"commands":[{"type":"Upsert","key":"' + text + b'","value":""}]}'
        yield "upsert json", f"base64 {text!r}", body


def large(size: int) -> Iterator[tuple[str, str, bytes]]:
    """(where, what, body of about `size` bytes): nonsense that could cost much to read."""

    def full(start: bytes, item: bytes, end: bytes) -> bytes:
        return start + item * ((size - len(start) - len(end)) // len(item)) + end

    for what, item in (("lists", b"[],"), ("objects", b"{},"), ("zeros", b"0,"), ("texts", b'"",')):
        yield "upsert json", f"bare {what}", full(b"[", item, b"0]")
        yield "upsert json", f"{what} as commands", full(b'{"commands":[', item, b"0]}")
    yield "upsert json", "short commands", full(b'{"commands":[{}', b',{"type":"Delete"}', b"]}")
    short = b'{"type":"Delete"}'
    yield "upsert json", "many commands", full(b'{"commands":[' + short, b"," + short, b"]}")
    yield "upsert json", "digits", full(b'{"source":', b"1", b"}")
    yield "upsert json", "escapes", full(b'{"source":"', b"\\u0041", b'"}')
    yield "upsert json", "open lists", full(b'{"commands":', b"[", b"")
    yield "keys json", "many keys", full(b'{"keys":[""', b',""', b"]}")
    yield "wait json", "many logs", full(b'{"logs":[0', b',{"log_id":"","version":0}', b"]}")
    yield (
        "upsert msgpack",
        "lists of lists",
        full(b"\xdd\x00\x00\x00\x40", b"\xdc\x40\x00" + b"\x90" * 16_384, b""),
    )
    yield "upsert msgpack", "open lists", full(b"", b"\x91", b"")
    many = (size - 12) // 13
    yield (
        "upsert msgpack",
        "many commands",
        (b"\x81\xa8commands\xdd" + many.to_bytes(4, "big") + b"\x81\xa4type\xa6Delete" * many),
    )
    yield (
        "keys msgpack",
        "many keys",
        b"\x81\xa4keys\xdd" + (size // 2).to_bytes(4, "big") + b"\xc4\x00" * (size // 2),
    )

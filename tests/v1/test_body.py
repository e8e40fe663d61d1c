"""What the v1 decoder reads, and what it refuses."""

import json
from contextlib import suppress
from functools import partial
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from indelible_protocol import limits
from indelible_protocol.commands import Command, Op
from indelible_protocol.encoding import u64
from indelible_protocol.errors import ErrorCode, ProtocolError
from indelible_server.api.v1 import body
from indelible_server.api.v1.body import (
    CreateRequest,
    DiffRequest,
    decode,
    decode_commands,
    decode_update,
)

decode_create = partial(decode, shape=CreateRequest)
decode_diff = partial(decode, shape=DiffRequest)
HEADER = '{"authinfo": {"customer_id": "c", "apikey": "k"}, "logName": "n"}'


def diff_with(members: str) -> body.DiffRequest:
    return decode_diff(f"{HEADER[:-1]}, {members}}}".encode())


def commands_of(text: str) -> list[Command]:
    _, rest = decode_update((HEADER + text).encode())
    return decode_commands(rest)


# What is read.


def test_tour_style_request_reads_like_strict_json() -> None:
    lenient = (
        "{ authinfo: { customer_id: 'c', apikey: \"k\" },\n  logName: 'it\\'s', logGroup: \"g\", }"
    )
    strict = '{"authinfo":{"customer_id":"c","apikey":"k"},"logName":"it\'s","logGroup":"g"}'
    assert decode_create(lenient.encode()) == decode_create(strict.encode())


@pytest.mark.parametrize("authinfo", ["authinfo", "authInfo"])
@pytest.mark.parametrize("customer", ["customer_id", "customerid"])
def test_caller_is_read_in_either_spelling(authinfo: str, customer: str) -> None:
    request = decode_create(f'{{{authinfo}:{{{customer}:"c",apikey:"k"}},logName:"n"}}'.encode())
    assert (request.customer_id, request.apikey) == ("c", "k")


@pytest.mark.parametrize("text", ["{logName:'n'}", '{"logName":"n","authinfo":null}'])
def test_request_without_authinfo_has_an_empty_caller(text: str) -> None:
    request = decode_create(text.encode())
    assert (request.customer_id, request.apikey) == ("", "")


def test_caller_never_shows_in_a_request_that_is_printed() -> None:
    request = decode_create(b'{authinfo:{customer_id:"cust0mer",apikey:"s3cret"},logName:"n"}')
    assert "s3cret" not in repr(request)
    assert "cust0mer" not in repr(request)


@pytest.mark.parametrize("gap", ["", " ", "\n", "\r\n\t "])
def test_commands_stand_back_to_back_with_or_without_space(gap: str) -> None:
    texts = [
        '{"type":"ExpectVersion","version":"7","key":null,"value":null}',
        '{"type":"Insert","key":"YQ==","value":"","version":null}',
        "{type:'Update',key:'Yg==',value:'Mg=='}",
        "{type:'Upsert',key:'Yw==',value:'Mw=='}",
        '{"type":"Remove","key":"ZA==","value":"NA=="}',
    ]
    assert commands_of(gap + gap.join(texts) + gap) == [
        Command(Op.EXPECT_VERSION, b"", b"", u64(7)),
        Command(Op.INSERT, b"a"),
        Command(Op.UPDATE, b"b", b"", b"2"),
        Command(Op.UPSERT, b"c", b"", b"3"),
        Command(Op.REMOVE, b"d", b"", sha256(b"4").digest()),
    ]


def test_update_without_commands_has_none() -> None:
    assert commands_of("  ") == []


@pytest.mark.parametrize(
    ("members", "field", "expected"),
    [
        ('"fromVersion": "1"', "from_version", 1),
        ('"fromVersion": null', "from_version", 0),
        ('"toVersion": 9007199254740991', "to_version", limits.MAX_VERSION),
        ('"waitSeconds": "60"', "wait_seconds", 60),
        ('"limit": 0', "limit", 0),
        ('"limit": null', "limit", 50),
        ('"limit": 1, "limit": 2', "limit", 2),
        ("limit: 1, 'limit': 2", "limit", 2),
    ],
)
def test_diff_members_are_read(members: str, field: str, expected: int) -> None:
    assert getattr(diff_with(members), field) == expected


@pytest.mark.parametrize(
    ("members", "by_key"),
    [
        ('"limit": 1', False),
        ('"orderResultsBy": "key"', True),
        ('"orderResultsBy": "command"', False),
        ('"paginationOptions": {"skipToKey": "YQ=="}', True),
        ('"paginationOptions": {"skipToKey": ""}', True),
        ('"paginationOptions": {"skipToVersion": 1, "skipToCommand": 0}', False),
        ('"paginationOptions": {"skipToKey": null, "removeAlreadySeen": false}', False),
    ],
)
def test_order_is_the_one_asked_for_or_that_of_the_options(members: str, by_key: bool) -> None:
    assert diff_with(members).order == ("key" if by_key else "command")


@pytest.mark.parametrize(
    ("spelling", "skips"),
    [("true", True), ('"true"', True), ("false", False), ('"false"', False), ("null", False)],
)
def test_remove_already_seen_is_read_as_boolean_or_string(spelling: str, skips: bool) -> None:
    options = f'"paginationOptions": {{"skipToKey": "YQ==", "removeAlreadySeen": {spelling}}}'
    assert diff_with(options).pagination_options.skips_remove is skips


def test_lenient_strings_may_hold_what_is_refused_as_a_number() -> None:
    request = decode_create(b"{logName: 'a+b: 0x10 // NaN', /* +1 */ logGroup: \"0XF\"}")
    assert (request.log_name, request.log_group) == ("a+b: 0x10 // NaN", "0XF")


def test_largest_update_is_read_strictly_and_leniently_alike() -> None:
    strict = '{"type":"Upsert","key":"YWFh","value":"%s"}' % ("A" * 400)
    lenient = "{type:'Upsert',key:'YWFh',value:'%s'}" % ("A" * 400)
    count = limits.MAX_COMMANDS
    assert commands_of(strict * count) == commands_of(lenient * count)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=4,
)
members = st.dictionaries(
    st.sampled_from(
        ["authinfo", "logName", "fromVersion", "toVersion", "limit", "paginationOptions", "type"]
    )
    | st.text(),
    json_values,
)


@settings(max_examples=50)
@given(members, st.lists(members, max_size=2))
def test_any_json_is_a_request_or_a_protocol_error(
    header: dict[str, Any], commands: list[dict[str, Any]]
) -> None:
    text = json.dumps({"logName": "n", **header}) + "".join(map(json.dumps, commands))
    for read in (decode_create, decode_diff, _decode_whole_update):
        _answer_or_protocol_error(read, text.encode())


@given(st.binary() | st.text(alphabet="{}[]:,'\"\\/*+-.0x1eNaIn \n").map(str.encode))
def test_any_bytes_are_a_request_or_a_protocol_error(data: bytes) -> None:
    for read in (decode_create, _decode_whole_update):
        _answer_or_protocol_error(read, data)
        _answer_or_protocol_error(read, HEADER.encode() + data)


def _decode_whole_update(data: bytes) -> None:
    decode_commands(decode_update(data)[1])


def _answer_or_protocol_error(read: Any, data: bytes) -> None:
    with suppress(ProtocolError):
        read(data)


# What is refused.

DEEP = 5_000
MALFORMED_CREATES: dict[str, tuple[str | bytes, str]] = {
    "nothing": ("", "empty"),
    "space": (" \n", "empty"),
    "cut off": (HEADER[:-1], "no JSON"),
    "a list": ("[]", "got `array`"),
    "a number": ("1", "got `int`"),
    "a string": ("'x'", "got `str`"),
    "not a number": ("NaN", "got `float`"),
    "a comma behind it": (HEADER + ",", "behind it"),
    "two documents": (HEADER + HEADER, "behind it"),
    "no log name": ("{}", "logName"),
    "a log name of null": ("{logName: null}", "logName"),
    "a log name that is a number": ('{"logName": 1}', "$.logName"),
    "an unknown key": ('{"logName": "n", "colour": 1}', "colour"),
    "an unknown unquoted key": ("{logName: 'n', colour: 1}", "colour"),
    "an unknown key of null": ('{"logName": "n", "limit": 1}', "limit"),
    "an unknown key in authinfo": ("{logName: 'n', authinfo: {token: 'x'}}", "token"),
    "an API key that is a number": ("{logName: 'n', authinfo: {apikey: 1}}", "$.authinfo.apikey"),
    "half a surrogate pair": ('{"logName": "\\ud800"}', "$.logName"),
    "half a surrogate pair, unquoted": ("{logName: '\\ud800'}", "no JSON"),
    "bytes that are not UTF-8": (b'{"logName": "\xff"}', "not UTF-8"),
    "UTF-16": ('{"logName": "n"}'.encode("utf-16"), "not UTF-8"),
    "deep lists": ('{"logName": ' + "[" * DEEP + "]" * DEEP + "}", "nesting"),
    "deep objects": ('{"logName": ' + '{"a":' * DEEP + "1" + "}" * (DEEP + 1), "nesting"),
    "objects that Python parses and v1 has not": (
        '{"logName": ' + '{"a":' * 20 + "1" + "}" * 21,
        "nested deeper",
    ),
    "a header that does not end": ("{logName: '" + "n" * body.MAX_HEADER_CHARS + "'}", "Unclosed"),
}


@pytest.mark.parametrize("case", MALFORMED_CREATES)
def test_malformed_request_is_refused_saying_why(case: str) -> None:
    text, reason = MALFORMED_CREATES[case]
    data = text if isinstance(text, bytes) else text.encode()
    with pytest.raises(ProtocolError) as refused:
        decode_create(data)
    assert refused.value.code is ErrorCode.BAD_REQUEST
    assert reason in str(refused.value)


@pytest.mark.parametrize(
    ("members", "named"),
    [
        ('"fromVersion": -1', "fromVersion"),
        ('"fromVersion": 1.0', "fromVersion"),
        ('"fromVersion": 1e2', "fromVersion"),
        ('"fromVersion": true', "fromVersion"),
        ('"fromVersion": ""', "fromVersion"),
        ('"fromVersion": "01"', "fromVersion"),
        ('"fromVersion": "+1"', "fromVersion"),
        ('"fromVersion": " 1"', "fromVersion"),
        ('"fromVersion": "1\\n"', "fromVersion"),
        ('"fromVersion": "1.0"', "fromVersion"),
        ('"fromVersion": "0x1"', "fromVersion"),
        ('"fromVersion": "\\u0661"', "fromVersion"),
        ('"fromVersion": "9007199254740992"', "fromVersion"),
        ('"fromVersion": "99999999999999999"', "fromVersion"),
        ('"toVersion": 9007199254740992', "toVersion"),
        ('"toVersion": "null"', "toVersion"),
        ('"toVersion": NaN', "toVersion"),
        ('"toVersion": -Infinity', "toVersion"),
        ('"toVersion": 1e999', "toVersion"),
        ('"toVersion": 0x10', "hexadecimal"),
        ('"toVersion": +1', "signed"),
        ('"toVersion": ' + "9" * 5_000, "no JSON"),
        ('"waitSeconds": 61', "waitSeconds"),
        ('"waitSeconds": 0.5', "waitSeconds"),
        ('"limit": 51', "limit"),
        ('"limit": -1', "limit"),
        ('"orderResultsBy": "value"', "orderResultsBy"),
        ('"paginationOptions": []', "paginationOptions"),
        ('"paginationOptions": {"skipToLine": 1}', "skipToLine"),
        ('"paginationOptions": {"skipToKey": "YQ"}', "skipToKey"),
        ('"paginationOptions": {"skipToKey": "YR=="}', "skipToKey"),
        ('"paginationOptions": {"removeAlreadySeen": "True"}', "removeAlreadySeen"),
        ('"paginationOptions": {"removeAlreadySeen": 1}', "removeAlreadySeen"),
        ('"orderResultsBy": "command", "paginationOptions": {"skipToKey": "YQ=="}', "skipToKey"),
        ('"orderResultsBy": "key", "paginationOptions": {"skipToVersion": 1}', "skipToVersion"),
        ('"paginationOptions": {"skipToKey": "YQ==", "skipToVersion": 1}', "skipToVersion"),
        ('"logGroup": "g"', "logGroup"),
    ],
)
def test_malformed_diff_is_refused_naming_the_member(members: str, named: str) -> None:
    with pytest.raises(ProtocolError) as refused:
        diff_with(members)
    assert refused.value.code is ErrorCode.BAD_REQUEST
    assert named in str(refused.value)


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("{}", "`type`"),
        ('{"type": null}', "`type`"),
        ('{"type": 1}', "$.type"),
        ('{"type": "Delete", "key": "YQ=="}', "Delete"),
        ('{"type": "upsert", "key": "YQ==", "value": "YQ=="}', "upsert"),
        ('{"type": "Upsert", "value": "YQ=="}', "key and value"),
        ('{"type": "Upsert", "key": "YQ=="}', "key and value"),
        ('{"type": "Upsert", "key": "YQ==", "value": null}', "key and value"),
        ('{"type": "Upsert", "key": "YQ==", "value": 1}', "$.value"),
        ('{"type": "Upsert", "key": "YQ==", "value": "Y Q="}', "$.value"),
        ('{"type": "Upsert", "key": "YQ==", "value": "YR=="}', "$.value"),
        ('{"type": "Upsert", "key": "_-==", "value": "YQ=="}', "$.key"),
        ('{"type": "Upsert", "key": "\\u00e9", "value": "YQ=="}', "$.key"),
        ('{"type": "Upsert", "key": "YQ==", "value": "YQ==", "version": 1}', "nothing else"),
        ('{"type": "Upsert", "key": "YQ==", "value": "YQ==", "ttl": 1}', "`ttl`"),
        ('{"type": "ExpectVersion"}', "takes version"),
        ('{"type": "ExpectVersion", "version": "x"}', "$.version"),
        ('{"type": "ExpectVersion", "version": 1, "key": "YQ=="}', "takes version"),
        ("[]", "array"),
        (",", "no JSON"),
        ("{type: 'Upsert', key: 'YQ==', value: 'YQ=='", "no JSON"),
    ],
)
def test_malformed_command_is_refused_saying_why(command: str, reason: str) -> None:
    with pytest.raises(ProtocolError) as refused:
        commands_of('{"type": "Upsert", "key": "YQ==", "value": "YQ=="}' + command)
    assert refused.value.code is ErrorCode.BAD_REQUEST
    assert reason in str(refused.value)
    if "no JSON" not in reason:
        assert "command 1" in str(refused.value)


def test_refusal_does_not_hold_on_to_the_api_key() -> None:
    with pytest.raises(ProtocolError) as refused:
        decode_create(b"{authinfo: {customer_id: 'c', apikey: 's3cret'}, logName: 'n', oops")
    assert "s3cret" not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__


def test_body_over_the_limit_is_too_large() -> None:
    with pytest.raises(ProtocolError) as refused:
        decode_update(HEADER.encode() + b" " * limits.MAX_V1_BODY_BYTES)
    assert refused.value.code is ErrorCode.TOO_LARGE


def test_one_command_more_than_allowed_is_too_large() -> None:
    command = '{"type":"Upsert","key":"YQ==","value":"YQ=="}'
    assert len(commands_of(command * limits.MAX_COMMANDS)) == limits.MAX_COMMANDS
    with pytest.raises(ProtocolError) as refused:
        commands_of(command * (limits.MAX_COMMANDS + 1))
    assert refused.value.code is ErrorCode.TOO_LARGE
    assert "max_commands" in str(refused.value)

"""Names and modes: one spelling each, and a clear refusal of what has none."""

import json
import math
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from indelible.codec import Codec
from indelible.errors import RequestError
from indelible.modes import Mode
from indelible.names import name_bytes, name_of
from indelible.sealing import LogKeys

from tests.client.test_sealing import LOG_ID, secrets_of

printable = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=30)


@given(printable)
def test_a_string_is_its_utf8(name: str) -> None:
    assert name_bytes(name) == name.encode()
    assert name_of(name_bytes(name)) == name


@given(st.lists(printable, min_size=1, max_size=5))
def test_a_list_comes_back_as_a_tuple_of_its_parts(name: list[str]) -> None:
    assert name_of(name_bytes(name)) == tuple(name)
    assert name_bytes(tuple(name)) == name_bytes(name)


@given(st.lists(printable | st.lists(printable, min_size=1, max_size=3), max_size=8))
def test_different_names_have_different_bytes(names: list[Any]) -> None:
    distinct = {tuple(name) if isinstance(name, list) else name for name in names}
    assert len({name_bytes(name) for name in names}) == len(distinct)


@pytest.mark.parametrize(
    "name",
    [
        *("", [], [""], ["a", ""], "a\x00", "\x01a", "a\n", "\x7f", "a\x85", ["a\x00b"]),
        *("\ud800", b"a", 1, None, ["a", 1], {"a": 1}, "é" * 513, ["a" * 1_023]),
    ],
)
def test_other_names_are_refused_with_a_sentence(name: Any) -> None:
    with pytest.raises(RequestError, match="a log's name"):
        name_bytes(name)


@pytest.mark.parametrize("data", [b"\x01", b"\x01a", b"\x01a\x00b", b"\xff"])
def test_bytes_that_are_no_name_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        name_of(data)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda values: (
        st.lists(values, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), values, max_size=4)
    ),
    max_leaves=12,
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary()
)
msgpack_values = st.recursive(
    scalars,
    lambda values: st.lists(values, max_size=4) | st.dictionaries(scalars, values, max_size=4),
    max_leaves=12,
)


def shuffled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: shuffled(value[key]) for key in reversed(value)}
    return [shuffled(item) for item in value] if isinstance(value, list) else value


@given(json_values)
def test_json_comes_back_and_the_order_of_keys_does_not_matter(value: Any) -> None:
    data = Mode.JSON.encode(value)
    assert Mode.JSON.decode(data) == value == json.loads(data)
    assert Mode.JSON.encode(shuffled(value)) == data


@given(msgpack_values)
def test_msgpack_comes_back_and_the_order_of_keys_does_not_matter(value: Any) -> None:
    data = Mode.MSGPACK.encode(value)
    assert Mode.MSGPACK.decode(data) == value
    assert Mode.MSGPACK.encode(shuffled(value)) == data
    assert len(data) == len(msgpack.packb(value))  # the same shortest forms, in another order


def test_msgpack_maps_are_sorted_by_the_bytes_of_their_keys() -> None:
    keys = ["b", "a", "aa", 1, 300, -1, None, True, b"a", 1.5]
    data = Mode.MSGPACK.encode(dict.fromkeys(keys, 0))
    found = list(msgpack.unpackb(data, strict_map_key=False))
    assert [msgpack.packb(key) for key in found] == sorted(msgpack.packb(key) for key in found)
    assert {repr(key) for key in found} == {repr(key) for key in dict.fromkeys(keys, 0)}


def test_numbers_that_python_calls_equal_are_kept_apart() -> None:
    for mode in (Mode.JSON, Mode.MSGPACK):
        assert len({mode.encode(value) for value in (1, 1.0, True)}) == 3
    assert Mode.JSON.encode(0.0) != Mode.JSON.encode(-0.0)


class Color(IntEnum):
    RED = 1


def _cycle() -> list[Any]:
    cycle: list[Any] = []
    cycle.append(cycle)
    return cycle


def _deep() -> Any:
    value: Any = 0
    for _ in range(200):
        value = [value]
    return value


BAD: list[tuple[str, Any, str]] = [
    ("string", b"bytes", "bytes"),
    ("string", 1, "int"),
    ("string", None, "NoneType"),
    ("string", "\ud800", "str"),
    ("binary", "text", "str"),
    ("binary", 3, "int"),
    ("binary", [1], "list"),
    ("json", math.nan, "float"),
    ("json", math.inf, "float"),
    ("json", [{"a": -math.inf}], "list"),
    ("json", b"bytes", "bytes"),
    ("json", {1: 2}, "dict"),
    ("json", {"a": [{None: 1}]}, "dict"),
    ("json", {1, 2}, "set"),
    ("json", datetime(2026, 1, 1, tzinfo=UTC), "datetime"),
    ("json", "\udfff", "str"),
    ("json", _cycle(), "list"),
    ("json", _deep(), "list"),
    ("msgpack", 2**64, "int"),
    ("msgpack", -(2**63) - 1, "int"),
    ("msgpack", datetime(2026, 1, 1, tzinfo=UTC), "datetime"),
    ("msgpack", msgpack.Timestamp(1, 2), "Timestamp"),
    ("msgpack", [msgpack.ExtType(1, b"x")], "list"),
    ("msgpack", {(1, 2): 3}, "dict"),
    ("msgpack", {1, 2}, "set"),
    ("msgpack", "\ud800", "str"),
    ("msgpack", _cycle(), "list"),
    ("msgpack", _deep(), "list"),
]


@pytest.mark.parametrize(("mode", "value", "kind"), BAD, ids=[f"{b[0]}-{b[2]}" for b in BAD])
def test_values_that_a_mode_cannot_hold_are_refused_by_type_and_mode(
    mode: str, value: Any, kind: str
) -> None:
    from indelible import Upsert

    codec = Codec(LogKeys(LOG_ID, [secrets_of()]), Mode.STRING, Mode.named(mode))
    with pytest.raises(RequestError) as caught:
        codec.sealed(Upsert("key", value))
    assert f"a value of type {kind} cannot be kept in mode {mode}" in str(caught.value)


def test_a_refusal_does_not_repeat_the_value() -> None:
    from indelible import Upsert

    codec = Codec(LogKeys(LOG_ID, [secrets_of()]), Mode.STRING, Mode.JSON)
    with pytest.raises(RequestError) as caught:
        codec.sealed(Upsert("secret-key", "secret-value\ud800"))
    assert "secret" not in str(caught.value)


def test_tuples_and_numbers_of_enumerations_are_kept_as_what_they_look_like() -> None:
    assert Mode.JSON.encode((1, Color.RED)) == b"[1,1]"
    assert Mode.MSGPACK.decode(Mode.MSGPACK.encode((1, (2,)))) == [1, [2]]
    assert Mode.BINARY.encode(bytearray(b"x")) == Mode.BINARY.encode(memoryview(b"x")) == b"x"


@pytest.mark.parametrize(
    ("mode", "data"),
    [
        (Mode.STRING, b"\xff"),
        (Mode.JSON, b"NaN"),
        (Mode.JSON, b"{"),
        (Mode.JSON, b"\xff"),
        (Mode.JSON, b"[" * 100_000),
        (Mode.MSGPACK, b""),
        (Mode.MSGPACK, b"\xc1"),
        (Mode.MSGPACK, b"\x01\x02"),
        (Mode.MSGPACK, b"\x91" * 100_000 + b"\x01"),
        (Mode.MSGPACK, b"\x81\x90\x01"),
        (Mode.MSGPACK, b"\xd4\x01\x00"),
        (Mode.MSGPACK, b"\xd6\xff\x00\x00\x00\x00"),
        (Mode.MSGPACK, b"\xa1\xff"),
    ],
)
def test_bytes_that_a_mode_does_not_write_are_a_value_error(mode: Mode, data: bytes) -> None:
    with pytest.raises(ValueError, match=f"not {mode.word}"):
        mode.decode(data)


def test_modes_have_names() -> None:
    for word in ("string", "json", "msgpack", "binary"):
        assert Mode.named(word).word == word
    unknown: list[Any] = ["text", "", "JSON", None, 1]
    for word in unknown:
        with pytest.raises(RequestError, match="no mode"):
            Mode.named(word)

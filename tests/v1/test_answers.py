"""Where pages begin, and the bytes of answers, without a service."""

import json
from itertools import product
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from indelible_protocol.diff import Change, by_key
from indelible_protocol.errors import ErrorCode
from indelible_server.api.v1.answers import (
    encode_diff,
    encode_error,
    next_page_options,
    page_start,
)
from indelible_server.api.v1.body import Base64, DiffRequest, Pagination, Whole, decode
from indelible_server.store.entries import ChangedEntry, EntryValue
from indelible_server.store.nets import Position
from indelible_server.store.places import place_of
from indelible_server.store.spooling import Listed, Row

Op = Literal["add", "remove"]
SIDES: list[tuple[Op, ...]] = [("remove",), ("add",), ("remove", "add")]


def change(op: Op, key: bytes, at: tuple[int, int]) -> Change:
    return Change(op, key, 1, 0, 0, *at)


@st.composite
def diffs(draw: st.DrawFn) -> list[Change]:
    """A diff in order of commands: each key once or twice, each at a command of its own."""
    keys = draw(st.lists(st.binary(min_size=1, max_size=3), unique=True, max_size=8))
    places = draw(st.permutations(list(product(range(1, 4), range(4)))))
    changes = []
    for key, place in sorted(zip(keys, places, strict=False), key=lambda pair: pair[1]):
        for op in draw(st.sampled_from(SIDES)):
            changes.append(change(op, key, place))
    return changes


def rows(changes: list[Change], *, keys: bool) -> list[Row]:
    return [
        Row(one.token if keys else place_of(one.last_version, one.last_index), one.op == "add", 0)
        for one in changes
    ]


def index_of(start: Position | None, changes: list[Change], *, keys: bool) -> int:
    """Of the first change of the page that begins at `start`."""
    page = Listed(rows(changes, keys=keys)).behind(start, len(changes))
    return len(changes) - len(page)


def read_back(options: dict[str, Any]) -> Pagination:
    """Options as a caller returns them."""
    request = {"logName": "n", "paginationOptions": options}
    return decode(json.dumps(request).encode(), DiffRequest).pagination_options


@given(diffs(), st.booleans())
def test_page_begins_at_the_change_that_the_options_told(changes: list[Change], keys: bool) -> None:
    ordered = by_key(changes) if keys else changes
    for index in range(len(ordered)):
        first = rows(ordered, keys=keys)[index]
        options = next_page_options(Position(first.at, first.adds))
        assert options is not None
        assert index_of(page_start(read_back(options)), ordered, keys=keys) == index
    assert next_page_options(None) is None


@pytest.mark.parametrize(
    ("key", "seen", "start"),
    [
        (b"a", False, 0),
        (b"b", False, 0),
        (b"b", True, 1),
        (b"bb", False, 2),
        (b"c", True, 2),
        (b"d", False, 3),
        (b"d", True, 4),
        (b"e", False, 4),
    ],
)
def test_made_up_key_starts_at_the_first_key_not_below_it(
    key: bytes, seen: bool, start: int
) -> None:
    changes = [
        change("remove", b"b", (3, 0)),
        change("add", b"b", (3, 0)),
        change("add", b"c", (2, 0)),
        change("remove", b"d", (1, 0)),
    ]
    options = Pagination(skip_to_key=Base64(key), remove_already_seen=seen)
    assert index_of(page_start(options), changes, keys=True) == start


@pytest.mark.parametrize(
    ("version", "command", "seen", "start"),
    [
        (0, 0, False, 0),
        (2, 0, True, 0),
        (2, 1, True, 1),
        (2, 2, False, 2),
        (2, 1 << 40, False, 2),
        (9, 0, True, 3),
        (1 << 52, 1 << 40, True, 3),
    ],
)
def test_made_up_command_starts_at_the_first_command_not_before_it(
    version: int, command: int, seen: bool, start: int
) -> None:
    changes = [
        change("remove", b"z", (2, 1)),
        change("add", b"z", (2, 1)),
        change("add", b"a", (3, 0)),
    ]
    options = Pagination(
        skip_to_version=Whole(version), skip_to_command=Whole(command), remove_already_seen=seen
    )
    assert index_of(page_start(options), changes, keys=False) == start


def test_diff_is_indented_in_the_documented_order() -> None:
    page = [ChangedEntry("remove", EntryValue(b"foo", b"", b"bar", 7))]
    following = next_page_options(Position(place_of(9, 3), True))
    assert encode_diff(8, 9, page, following).decode() == (
        """{
    "fromVersion": 8,
    "toVersion": 9,
    "page": [
        {
            "change": "Remove",
            "entry": {
                "key": "Zm9v",
                "value": "YmFy"
            },
            "version": 7
        }
    ],
    "nextPageOptions": {
        "skipToKey": null,
        "removeAlreadySeen": true,
        "skipToVersion": 9,
        "skipToCommand": 3
    }
}"""
    )


@pytest.mark.parametrize(
    ("code", "status", "told"),
    [
        (ErrorCode.UNEXPECTED_VERSION, 412, "UNEXPECTED_VERSION"),
        (ErrorCode.OVERLOADED, 503, "OVERLOADED"),
        (ErrorCode.FORGOTTEN_VERSION, 404, "NONEXISTENT_VERSION"),
        (ErrorCode.LOG_REPLACED, 404, "NONEXISTENT_LOG"),
    ],
)
def test_error_is_told_in_the_words_of_the_original(
    code: ErrorCode, status: int, told: str
) -> None:
    told_status, text = encode_error(code, "why", {"a": 1})
    assert told_status == status
    assert text.decode() == (
        f'{{"code": "{told}", "codeNumber": {ErrorCode[told].number}, "message": "why", '
        '"details": {"a": 1}}'
    )

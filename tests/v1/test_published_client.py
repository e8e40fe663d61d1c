"""The published client, unmodified, and ours in its place, against a running service.

Every script runs with both libraries; what one of them writes, the other reads.
"""

import json
import time
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.v1.libraries import Library, result_of

LIBRARIES = ("published", "ours")
Change = list[Any]


def change(kind: str, key: str, value: Any, version: int) -> dict[str, Any]:
    return {"change": kind, "entry": {"key": key, "value": value}, "version": version}


@pytest.mark.parametrize(("reader", "writer"), list(product(LIBRARIES, LIBRARIES)))
def test_tour_runs_with_reader_and_writer_of_either_library(
    reader: str, writer: str, profile: Path, log_name: str, request: pytest.FixtureRequest
) -> None:
    read_with: Library = request.getfixturevalue(reader)
    write_with: Library = request.getfixturevalue(writer)
    tour = read_with.start("tour", profile, log_name)
    assert tour.stdout is not None
    assert json.loads(tour.stdout.readline()) == {"version": 0, "entries": []}
    foo = change("Add", "foo", [1, 2, 3], 1)
    assert json.loads(tour.stdout.readline()) == {"entries": [foo], "version": "1", "since": []}
    assert json.loads(tour.stdout.readline()) == {"waiting": True}

    assert write_with.run("write", profile, log_name) == "written"
    written_at = time.monotonic()
    bar = change("Add", "bar", [4, 5, 6], 2)
    assert result_of(tour) == {
        "range": [1, 2],
        "changes": [foo | {"change": "Remove"}, bar],
        "before": [foo],
        "back": [foo, bar | {"change": "Remove"}],
    }
    assert time.monotonic() - written_at < 10, "the wait of 60 s did not end with the update"


def test_redundant_consumers_count_every_order_once(
    published: Library, ours: Library, profile: Path, log_name: str
) -> None:
    versions = 20
    published.run("orders", profile, log_name, 1, 1)
    consumers = [
        library.start("aggregate", profile, log_name, versions)
        for library in (published, ours, published)
    ]
    for consumer in consumers:
        assert consumer.stdout is not None
        assert json.loads(consumer.stdout.readline()) == "ready"
    sums = published.run("orders", profile, log_name, 2, versions)
    results = [result_of(consumer) for consumer in consumers]

    for result in results:
        assert result["contents"] == {"position": versions, **sums}
    # Nobody's work was counted twice, and the race that would do so took place.
    assert sum(result["counted"] for result in results) == results[0]["version"]
    assert sum(result["overtaken"] for result in results) > 0


@pytest.mark.parametrize(("writer", "reader"), [LIBRARIES, LIBRARIES[::-1]])
def test_each_library_reads_what_the_other_wrote_in_every_mode(
    writer: str, reader: str, profile: Path, log_name: str, request: pytest.FixtureRequest
) -> None:
    written = request.getfixturevalue(writer).run("modes", profile, log_name, "write")
    assert len(written) == 27 + 48
    assert request.getfixturevalue(reader).run("modes", profile, log_name, "read") == written


def test_diffs_of_many_pages_are_whole_in_both_orders(
    library: Library, profile: Path, log_name: str
) -> None:
    told = library.run("pages", profile, log_name)

    contents = [["Add", f"key {i}", i, 1] for i in range(130)]
    updated = [
        [side, f"key {i}", value, version]
        for i in range(1, 60)
        for side, value, version in (("Remove", i, 1), ("Add", -i, 2))
    ]
    removed = [["Remove", f"key {i}", i, 1] for i in range(60, 100)]
    inserted = [["Add", f"new {i}", i, 2] for i in range(10)]
    in_order_of_commands = updated + removed + inserted

    assert told["at 1"] == contents
    assert told["diff"] == told["by command"]["changes"] == in_order_of_commands
    assert told["by command"]["sizes"] == [50, 50, 50, 18]
    for way, sizes in (("by key", [50, 50, 50, 18]), ("by key, 7 at once", [7] * 24)):
        assert told[way]["sizes"] == sizes
        assert _pairs(told[way]["changes"]) == _pairs(in_order_of_commands)
    assert told["by key"]["changes"] == told["by key, 7 at once"]["changes"]
    unchanged = [contents[0], *contents[100:]]
    assert told["now"] == unchanged + [c for c in updated if c[0] == "Add"] + inserted
    assert told["default size"] == 50
    assert told["one key"] == [["Add", "key 7", -7, 2]]


def _pairs(changes: list[Change]) -> dict[str, list[Change]]:
    """Each key's changes, in their order."""
    pairs: dict[str, list[Change]] = {}
    for one in changes:
        pairs.setdefault(one[1], []).append(one)
    return pairs


def test_every_error_reaches_the_caller_with_its_code(
    library: Library, profile: Path, log_name: str
) -> None:
    codes = {
        "BAD_API_KEY": 1001,
        "UNEXPECTED_VERSION": 1003,
        "NONEXISTENT_VERSION": 1004,
        "NONEXISTENT_LOG": 1005,
        "UNEXPECTED_VALUE": 1008,
        "NONEXISTENT_VALUE": 1009,
        "LOG_EXISTS": 1010,
        "BAD_REQUEST": 1011,
        "TOO_LARGE": 1012,
    }
    expected = {
        "wrong apikey": "BAD_API_KEY",
        "wrong apikey, create": "BAD_API_KEY",
        "wrong apikey, diff": "BAD_API_KEY",
        "wrong customer": "BAD_API_KEY",
        "no apikey": "BAD_API_KEY",
        "other group": "LOG_EXISTS",
        "no group": "LOG_EXISTS",
        "absent update": "NONEXISTENT_LOG",
        "absent diff": "NONEXISTENT_LOG",
        "behind": "UNEXPECTED_VERSION",
        "ahead": "UNEXPECTED_VERSION",
        "another value": "UNEXPECTED_VALUE",
        "no value": "NONEXISTENT_VALUE",
        "from ahead": "NONEXISTENT_VERSION",
        "from ahead, waiting": "NONEXISTENT_VERSION",
        "to ahead": "NONEXISTENT_VERSION",
        "limit": "BAD_REQUEST",
        "wait": "BAD_REQUEST",
        "order": "BAD_REQUEST",
        "options": "BAD_REQUEST",
        "not base64": "BAD_REQUEST",
        "no key": "BAD_REQUEST",
        "no commands": "BAD_REQUEST",
        "large value": "TOO_LARGE",
        "large body": "TOO_LARGE",
        "many commands": "TOO_LARGE",
    }
    told = library.run("errors", profile, log_name)
    assert told == {case: [code, codes[code], True, "dict"] for case, code in expected.items()}

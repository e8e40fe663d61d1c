"""Reads of a sealed log with a known past: what its writer sealed comes back as it was."""

import itertools
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest

from tests.conformance.http import JSON, MSGPACK, Caller, Target, b64, blob, url64
from tests.conformance.model import COMMITS, CONTENTS, HEAD, HISTORIES, NAME, net
from tests.conformance.sealed import (
    TIME_MS,
    Commit,
    command,
    sealed_key,
    sealed_value,
    token,
    upserting,
)
from tests.conformance.writer import Writer

VERSIONS = range(HEAD + 1)
KEYS = {token(key): key for key in "abcd"}
VALUES = {sealed_value(value): value for value in ("1", "2")} | {b"": ""}
PAIRS = list(itertools.product(VERSIONS, VERSIONS))


@pytest.fixture(scope="module")
def past(caller: Caller) -> tuple[Writer, list[Commit]]:
    """A log with the model's past, and the commits that it was given."""
    writer = Writer(caller, f"{NAME} {time.time_ns()}")
    assert writer.found().status == 201
    sent = []
    for number, commands in enumerate(COMMITS):
        memo = f"memo {number}".encode()
        commit = writer.signed(*(command(*each) for each in commands), seq=number, memo_ct=memo)
        assert writer.send(commit).status == 201
        sent.append(commit)
    return writer, sent


@pytest.fixture(scope="module")
def log(past: tuple[Writer, list[Commit]]) -> Writer:
    return past[0]


def pages(log: Writer, what: str) -> Iterator[Any]:
    """Follows the cursor of `what`, which has a query."""
    cursor = ""
    while cursor is not None:
        page = log.read(what + (f"&cursor={cursor}" if cursor else "")).content
        yield page
        cursor = page["cursor"]


def opened(change: dict[str, Any]) -> tuple[str, str, int]:
    """(key, value, version) of an entry or a change, which were sealed here."""
    key = KEYS[blob(change["key"])]
    assert blob(change["sealed_key"]) == sealed_key(key)
    return key, VALUES[blob(change["value"])], change["version"]


def changes_of(page: Sequence[dict[str, Any]]) -> list[tuple[str, str, str, int]]:
    return [(change["op"], *opened(change)) for change in page]


@pytest.mark.parametrize("order", ["command", "key"])
@pytest.mark.parametrize(("first", "last"), PAIRS)
def test_diff_of_any_two_versions(log: Writer, first: int, last: int, order: str) -> None:
    answer = log.read(f"/diff?from={first}&to={last}&order={order}")
    assert (answer.status, answer.version, answer.content["cursor"]) == (200, HEAD, None)
    changes = changes_of(answer.content["changes"])
    assert set(changes) == net(first, last)
    assert len(changes) == len(set(changes))
    for one, other in itertools.pairwise(changes):
        assert one[1] != other[1] or (one[0], other[0]) == ("remove", "add")
    if order == "key":
        keys = [token(key) for _, key, _, _ in changes]
        assert keys == sorted(keys)


@pytest.mark.parametrize("limit", [1, 2])
@pytest.mark.parametrize(("first", "last"), [(0, 4), (4, 0), (1, 3)])
def test_pages_of_a_diff_are_the_diff(log: Writer, first: int, last: int, limit: int) -> None:
    whole = log.read(f"/diff?from={first}&to={last}").content["changes"]
    found = [page["changes"] for page in pages(log, f"/diff?from={first}&to={last}&limit={limit}")]
    assert list(itertools.chain(*found)) == whole
    assert all(len(page) == limit for page in found[:-1])


@pytest.mark.parametrize("key", ["a", "b", "c", "d"])
@pytest.mark.parametrize("at", VERSIONS)
def test_an_entry_at_any_version(log: Writer, key: str, at: int) -> None:
    answer = log.read(f"/entries/{url64(token(key))}?at={at}")
    held = CONTENTS[at].get(key)
    if held is None:
        assert answer.refusal == (404, "NONEXISTENT_KEY")
    else:
        assert opened(answer.content) == (key, *held)


@pytest.mark.parametrize("at", [*VERSIONS, None])
def test_many_entries_of_one_version(log: Writer, caller: Caller, at: int | None) -> None:
    body = {"keys": [token(key) for key in "cdab"]} | ({} if at is None else {"at": at})
    found = caller.ask("POST", f"{log.path}/entries:batchGet", body, form=log.form).content
    version = HEAD if at is None else at
    held = CONTENTS[version]
    assert found["version"] == version
    assert [opened(each) for each in found["entries"]] == [
        (key, *held[key]) for key in "cdab" if key in held
    ]


@pytest.mark.parametrize("limit", [1, 50])
@pytest.mark.parametrize("key", HISTORIES)
def test_a_history_page_by_page(log: Writer, key: str, limit: int) -> None:
    steps = [
        step
        for page in pages(log, f"/entries/{url64(token(key))}/history?limit={limit}")
        for step in page["changes"]
    ]
    told = [(each["op"], each["version"], VALUES[blob(each["value"])]) for each in steps]
    assert told == HISTORIES[key]
    for step in steps:
        assert blob(step["sealed_key"]) == (sealed_key(key) if step["op"] == "set" else b"")


@pytest.mark.parametrize("limit", [1, 3, 50])
def test_versions_tell_who_signed_what(
    log: Writer, past: tuple[Writer, list[Commit]], limit: int
) -> None:
    found = [each for page in pages(log, f"/versions?limit={limit}") for each in page["versions"]]
    assert [each["version"] for each in found] == [4, 3, 2, 1]
    for each, commit in zip(reversed(found), past[1], strict=True):
        number = each["version"] - 1
        assert blob(each["header"]) == commit.header
        assert blob(each["writer"]) == past[0].log.owner.pk_sign
        assert blob(each["source"]) == f"memo {number}".encode()
        assert each["commands"] == each["changes"] == len(COMMITS[number])
        assert each["time_ms"] > TIME_MS  # the service's clock, not the writer's


@pytest.mark.parametrize(("first", "last"), [(0, 4), (0, 1), (2, 4), (4, 4)])
def test_commits_are_the_bytes_that_were_sent(
    log: Writer, past: tuple[Writer, list[Commit]], first: int, last: int
) -> None:
    page = log.read(f"/commits?from={first}&to={last}").content
    assert page["to"] == last
    assert [each["version"] for each in page["commits"]] == list(range(first + 1, last + 1))
    for each, commit in zip(page["commits"], past[1][first:last], strict=True):
        assert {name: blob(each[name]) for name in commit.message} == commit.message


@pytest.mark.parametrize("length", [1, 31, 33, 64])
@pytest.mark.parametrize("what", ["", "/history"])
def test_a_key_is_a_token(log: Writer, caller: Caller, length: int, what: str) -> None:
    key = b"k" * length
    assert log.read(f"/entries/{url64(key)}{what}").refusal == (400, "BAD_REQUEST")
    many = caller.ask("POST", f"{log.path}/entries:batchGet", {"keys": [b64(key)]})
    assert many.refusal == (400, "BAD_REQUEST")


@pytest.mark.parametrize(
    "what", ["/diff?from=5", "/diff?to=5", "/commits?to=5", "/entries/{}?at=5"]
)
def test_a_version_to_come(log: Writer, what: str) -> None:
    answer = log.read(what.format(url64(token("a"))))
    assert answer.refusal == (404, "NONEXISTENT_VERSION")


@pytest.mark.parametrize("form", [JSON, MSGPACK])
def test_a_wait_ends_with_the_next_version(
    caller: Caller, target: Target, log_name: str, form: str
) -> None:
    writer = Writer(caller, log_name, form=form)
    writer.found()
    watched = {"logs": [{"log_id": writer.log.log_id, "version": 0}], "wait": 30}
    with (
        closing(Caller(target)) as asleep,
        closing(Caller(target)) as others,
        ThreadPoolExecutor(2) as threads,
    ):
        diff = threads.submit(asleep.ask, "GET", f"{writer.path}/diff?from=0&wait=30", form=form)
        moved = threads.submit(others.ask, "POST", "/v2/wait", watched, form=form)
        time.sleep(0.1)
        writer.commit(upserting("a", "1"))
        assert changes_of(diff.result(30).content["changes"]) == [("add", "a", "1", 1)]
        (log,) = moved.result(30).content["moved"]
    assert (blob(log["log_id"]), log["version"]) == (writer.log.log_id, 1)


def test_a_wait_without_news_ends_empty(caller: Caller, log_name: str) -> None:
    writer = Writer(caller, log_name)
    writer.found()
    answer = writer.read("/diff?from=0&wait=0.05")
    assert (answer.status, answer.body, answer.version) == (204, b"", 0)


def test_sealed_logs_are_listed_beside_opaque_ones(caller: Caller, log_name: str) -> None:
    writer = Writer(caller, log_name)
    opaque = caller.make_log(log_name, group=log_name[-40:])
    writer.found_by(writer.log.founding(), group=log_name[-40:])
    group = log_name[-40:].replace("[", "%5B").replace("]", "%5D").replace(" ", "%20")
    listed = caller.ask("GET", f"/v2/logs?group={group}").content["logs"]
    assert [each["kind"] for each in listed] == ["opaque", "sealed"]
    assert listed == [caller.ask("GET", path).content for path in (opaque, writer.path)]

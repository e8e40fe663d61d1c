"""Reads of a log with a known past, natively and through the original protocol."""

import itertools
import json
from typing import Any

import pytest

from tests.conformance.http import Caller, b64, blob, plain, url64
from tests.conformance.model import COMMITS, CONTENTS, HEAD, HISTORIES, NAME, net

VERSIONS = range(HEAD + 1)
PAIRS = list(itertools.product(VERSIONS, VERSIONS))
ORDERS = ("command", "key")


@pytest.fixture(scope="session")
def log(caller: Caller) -> str:
    path = caller.make_log(NAME)
    if caller.ask("GET", path).content["version"] == 0:
        for commands in COMMITS:
            made = caller.commit(path, *(plain(*each) for each in commands))
            assert made.status == 201
    return path


def changes_of(page: list[dict[str, Any]]) -> list[tuple[str, str, str, int]]:
    return [(c["op"], text(c["key"]), text(c["value"]), c["version"]) for c in page]


def text(held: str) -> str:
    return blob(held).decode()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("first", "last"), PAIRS)
def test_diff_of_any_two_versions(
    caller: Caller, log: str, first: int, last: int, order: str
) -> None:
    answer = caller.ask("GET", f"{log}/diff?from={first}&to={last}&order={order}")
    assert (answer.status, answer.headers["Indelible-Version"]) == (200, str(HEAD))
    assert (answer.content["from"], answer.content["to"], answer.content["cursor"]) == (
        first,
        last,
        None,
    )
    changes = changes_of(answer.content["changes"])
    assert set(changes) == net(first, last)
    assert len(changes) == len(set(changes))
    check_order(changes, order)


def check_order(changes: list[tuple[str, str, str, int]], order: str) -> None:
    keys = [key for _, key, _, _ in changes]
    assert len(list(itertools.groupby(keys))) == len(set(keys))  # a key's sides stand together
    for (op, key, _, _), (other_op, other_key, _, _) in itertools.pairwise(changes):
        if key == other_key:
            assert (op, other_op) == ("remove", "add")
    if order == "key":
        assert keys == sorted(keys)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("first", "last"), [(0, 4), (1, 3), (4, 0), (3, 3)])
def test_limit_0_gives_all_pages_of_a_diff_in_one_answer(
    caller: Caller, log: str, first: int, last: int, order: str
) -> None:
    query = f"from={first}&to={last}&order={order}"
    whole = caller.ask("GET", f"{log}/diff?{query}").content
    lines = caller.ask("GET", f"{log}/diff?{query}&limit=0")
    assert (lines.status, lines.content_type) == (200, "application/jsonl")
    assert lines.headers["Indelible-Version"] == str(HEAD)
    pages = [json.loads(line) for line in lines.body.decode().splitlines()]
    assert [c for page in pages for c in page["changes"]] == whole["changes"]
    assert {(page["from"], page["to"]) for page in pages} == {(first, last)}
    assert [page["cursor"] is None for page in pages] == [False] * (len(pages) - 1) + [True]


@pytest.mark.parametrize("limit", [1, 2, 3])
@pytest.mark.parametrize(("first", "last"), [(0, 4), (1, 3), (4, 0), (3, 1)])
def test_pages_of_a_diff_are_the_diff(
    caller: Caller, log: str, first: int, last: int, limit: int
) -> None:
    whole = caller.ask("GET", f"{log}/diff?from={first}&to={last}").content["changes"]
    query, pages = f"from={first}&to={last}&limit={limit}", []
    while True:
        page = caller.ask("GET", f"{log}/diff?{query}").content
        assert (page["from"], page["to"]) == (first, last)
        pages.append(page["changes"])
        if page["cursor"] is None:
            break
        query = f"cursor={page['cursor']}&limit={limit}"
    assert [change for page in pages for change in page] == whole
    assert all(len(page) == limit for page in pages[:-1])


SAME = ["", "from=1", "to=4", "order=key", "from=1&to=4&order=key&limit=1"]
OTHER = ["from=0", "to=3", "order=command", "from=4&to=1"]


@pytest.mark.parametrize(
    ("query", "taken"), [(q, True) for q in SAME] + [(q, False) for q in OTHER]
)
def test_a_cursor_stands_with_its_own_parameters(
    caller: Caller, log: str, query: str, taken: bool
) -> None:
    first = caller.ask("GET", f"{log}/diff?from=1&to=4&order=key&limit=1").content
    answer = caller.ask("GET", f"{log}/diff?cursor={first['cursor']}&{query}".rstrip("&"))
    assert answer.status == 200 if taken else answer.refusal == (400, "BAD_CURSOR")


@pytest.mark.parametrize("where", ["versions", "entries/YQ/history", "another log", "altered"])
def test_a_cursor_has_one_place(caller: Caller, log: str, log_name: str, where: str) -> None:
    cursor = caller.ask("GET", f"{log}/diff?limit=1").content["cursor"]
    path = f"{log}/{where}"
    if where == "another log":
        path = caller.make_log(log_name) + "/diff"
    elif where == "altered":
        path = f"{log}/diff"
        cursor = cursor[:-6] + ("A" if cursor[-6] != "A" else "B") + cursor[-5:]
    assert caller.ask("GET", f"{path}?cursor={cursor}").refusal == (400, "BAD_CURSOR")


@pytest.mark.parametrize("key", ["a", "b", "c", "d"])
@pytest.mark.parametrize("at", [*VERSIONS, None])
def test_an_entry_at_any_version(caller: Caller, log: str, key: str, at: int | None) -> None:
    query = "" if at is None else f"?at={at}"
    answer = caller.ask("GET", f"{log}/entries/{url64(key)}{query}")
    held = CONTENTS[HEAD if at is None else at].get(key)
    if held is None:
        assert answer.refusal == (404, "NONEXISTENT_KEY")
        return
    assert answer.content == {
        "key": b64(key),
        "sealed_key": "",
        "value": b64(held[0]),
        "version": held[1],
    }


@pytest.mark.parametrize("at", [*VERSIONS, None])
def test_many_entries_of_one_version(caller: Caller, log: str, at: int | None) -> None:
    asked = ["c", "d", "a", "b"]
    body: dict[str, Any] = {"keys": [b64(key) for key in asked]}
    if at is not None:
        body["at"] = at
    answer = caller.ask("POST", f"{log}/entries:batchGet", body)
    held = CONTENTS[HEAD if at is None else at]
    assert answer.content["version"] == (HEAD if at is None else at)
    assert [text(e["key"]) for e in answer.content["entries"]] == [k for k in asked if k in held]


@pytest.mark.parametrize("limit", [1, 2, 50])
@pytest.mark.parametrize("key", HISTORIES)
def test_a_history_page_by_page(caller: Caller, log: str, key: str, limit: int) -> None:
    steps, cursor = [], ""
    while True:
        query = f"limit={limit}" + (f"&cursor={cursor}" if cursor else "")
        page = caller.ask("GET", f"{log}/entries/{url64(key)}/history?{query}").content
        steps += [(c["op"], c["version"], text(c["value"])) for c in page["changes"]]
        cursor = page["cursor"]
        if cursor is None:
            break
    assert steps == HISTORIES[key]


@pytest.mark.parametrize("limit", [1, 3, 4, 5])
def test_versions_newest_first(caller: Caller, log: str, limit: int) -> None:
    found, cursor = [], ""
    while True:
        query = f"limit={limit}" + (f"&cursor={cursor}" if cursor else "")
        page = caller.ask("GET", f"{log}/versions?{query}").content
        found += page["versions"]
        cursor = page["cursor"]
        if cursor is None:
            break
    assert [v["version"] for v in found] == [4, 3, 2, 1]
    assert [v["changes"] for v in found] == [1, 2, 1, 2]
    assert [v["commands"] for v in found] == [1, 2, 1, 2]
    times = [v["time_ms"] for v in found]
    assert times == sorted(times, reverse=True)


@pytest.mark.parametrize(("first", "last"), [(0, 4), (0, 1), (2, 4), (4, 4), (3, 4)])
def test_commits_of_a_range(caller: Caller, log: str, first: int, last: int) -> None:
    page = caller.ask("GET", f"{log}/commits?from={first}&to={last}").content
    assert [commit["version"] for commit in page["commits"]] == list(range(first + 1, last + 1))
    assert page["to"] == last


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("first", "last"), [pair for pair in PAIRS if pair[0] <= pair[1]])
def test_v1_diff_of_any_two_versions(
    caller: Caller, log: str, first: int, last: int, order: str
) -> None:
    asked = {"logName": NAME, "fromVersion": first, "toVersion": last, "orderResultsBy": order}
    answer = caller.say("diff", asked)
    assert answer.status == 200, answer.body
    assert list(answer.content) == ["fromVersion", "toVersion", "page", "nextPageOptions"]
    assert (answer.content["fromVersion"], answer.content["toVersion"]) == (first, last)
    page = [
        (
            c["change"].lower(),
            text(c["entry"]["key"]),
            text(c["entry"]["value"]),
            c["version"],
        )
        for c in answer.content["page"]
    ]
    assert set(page) == net(first, last)
    check_order(page, order)
    assert answer.content["nextPageOptions"] is None


@pytest.mark.parametrize("limit", [1, 2, "3"])
@pytest.mark.parametrize("order", ORDERS)
def test_v1_pages_are_the_diff(caller: Caller, log: str, order: str, limit: int | str) -> None:
    asked = {"logName": NAME, "fromVersion": 1, "toVersion": 4, "orderResultsBy": order}
    whole = caller.say("diff", asked).content["page"]
    found: list[Any] = []
    options: Any = None
    while True:
        more = {"limit": limit} | ({"paginationOptions": options} if options else {})
        page = caller.say("diff", asked | more).content
        assert len(page["page"]) <= int(limit)
        found += page["page"]
        options = page["nextPageOptions"]
        if options is None:
            break
        assert list(options) == ["skipToKey", "removeAlreadySeen", "skipToVersion", "skipToCommand"]
    assert found == whole


@pytest.mark.parametrize("key", ["a", "c"])
def test_v1_looks_one_key_up_by_made_up_options(caller: Caller, log: str, key: str) -> None:
    options = {"skipToKey": b64(key), "removeAlreadySeen": True}
    asked = {"logName": NAME, "orderResultsBy": "key", "limit": 1, "paginationOptions": options}
    (found,) = caller.say("diff", asked).content["page"]
    assert found["entry"]["key"] == b64(key)
    assert found["version"] == CONTENTS[HEAD][key][1]

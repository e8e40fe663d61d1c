"""Waiting, naming, listing and deleting."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any
from urllib.parse import quote

import pytest

from tests.conformance.http import Caller, Target, b64, opaque_name, upsert, url64

NOTHING_NEW: dict[str, Any] = {"moved": [], "gone": [], "groups": [], "watch": None}


def test_a_wait_ends_with_the_next_version(caller: Caller, target: Target, log_name: str) -> None:
    log = caller.make_log(log_name)
    with closing(Caller(target)) as asleep, ThreadPoolExecutor(2) as threads:
        waiting = threads.submit(asleep.ask, "GET", f"{log}/diff?from=0&wait=30")
        time.sleep(0.1)
        started = time.monotonic()
        caller.commit(log, upsert("a", "1"))
        answer = waiting.result(30)
    assert time.monotonic() - started < 10
    assert (answer.status, answer.content["to"], len(answer.content["changes"])) == (200, 1, 1)


@pytest.mark.parametrize("wait", ["0", "0.05", "0.3"])
def test_a_wait_without_news_ends_empty(caller: Caller, log_name: str, wait: str) -> None:
    log = caller.make_log(log_name)
    answer = caller.ask("GET", f"{log}/diff?from=0&wait={wait}")
    if wait == "0":
        assert (answer.status, answer.content["changes"]) == (200, [])
    else:
        assert (answer.status, answer.body) == (204, b"")
    assert answer.version == 0


def test_a_wait_for_what_is_there_does_not_wait(caller: Caller, log_name: str) -> None:
    log = caller.make_log(log_name)
    caller.commit(log, upsert("a", "1"))
    started = time.monotonic()
    assert caller.ask("GET", f"{log}/diff?from=0&wait=60").content["to"] == 1
    assert time.monotonic() - started < 30


def test_v1_waits_alike(caller: Caller, target: Target, log_name: str) -> None:
    caller.say("create", {"logName": log_name})
    empty = caller.say("diff", {"logName": log_name, "waitSeconds": 1})
    assert (empty.content["page"], empty.content["toVersion"]) == ([], 0)
    with closing(Caller(target)) as asleep, ThreadPoolExecutor(2) as threads:
        waiting = threads.submit(asleep.say, "diff", {"logName": log_name, "waitSeconds": 30})
        time.sleep(0.1)
        log = caller.ask("GET", opaque_name(log_name)).headers["Location"]
        caller.commit(log, upsert("a", "1"))
        assert waiting.result(30).content["toVersion"] == 1


def test_one_wait_for_many_logs_tells_those_that_moved(
    caller: Caller, target: Target, log_name: str
) -> None:
    logs = [caller.make_log(f"{log_name} {n}") for n in range(3)]
    ids = [caller.ask("GET", log).content["log_id"] for log in logs]
    watched = [{"log_id": log_id, "version": 0} for log_id in ids]
    nothing = caller.ask("POST", "/v2/wait", {"logs": watched, "wait": 0.05})
    assert (nothing.status, nothing.content) == (200, NOTHING_NEW)
    with closing(Caller(target)) as asleep, ThreadPoolExecutor(2) as threads:
        waiting = threads.submit(asleep.ask, "POST", "/v2/wait", {"logs": watched, "wait": 30})
        time.sleep(0.1)
        caller.commit(logs[1], upsert("a", "1"))
        moved = waiting.result(30).content
    assert moved == NOTHING_NEW | {"moved": [{"log_id": ids[1], "version": 1, "diff": None}]}
    caller.ask("DELETE", logs[2])
    answer = caller.ask("POST", "/v2/wait", {"logs": watched[2:], "wait": 1}).content
    assert answer == NOTHING_NEW | {"gone": [ids[2]]}


def test_a_moved_log_comes_with_its_diff(caller: Caller, log_name: str) -> None:
    log = caller.make_log(log_name)
    log_id = caller.ask("GET", log).content["log_id"]
    for value in "12":
        caller.commit(log, upsert("a", value))
    body = {"logs": [{"log_id": log_id, "version": 1}], "diffs": True}
    (moved,) = caller.ask("POST", "/v2/wait", body).content["moved"]
    assert (moved["log_id"], moved["version"]) == (log_id, 2)
    assert moved["diff"] == caller.ask("GET", f"{log}/diff?from=1").content


def test_a_wait_ends_with_a_log_that_comes_into_a_group(
    caller: Caller, target: Target, log_name: str
) -> None:
    group = f"g{time.time_ns()}"
    caller.make_log(f"{log_name} 1", group=group)
    version = caller.ask("GET", f"/v2/logs?group={group}").content["version"]
    watched = {"groups": [{"group": group, "version": version}]}
    nothing = caller.ask("POST", "/v2/wait", watched | {"wait": 0.05}).content
    assert nothing == NOTHING_NEW
    with closing(Caller(target)) as asleep, ThreadPoolExecutor(2) as threads:
        waiting = threads.submit(asleep.ask, "POST", "/v2/wait", watched | {"wait": 30})
        time.sleep(0.1)
        caller.make_log(f"{log_name} 2", group=group)
        (moved,) = waiting.result(30).content["groups"]
    assert moved["group"] == group
    assert moved["version"] != version


@pytest.mark.parametrize("watch", ["", "nobody made this", "x" * 500])
def test_a_watch_that_is_not_kept(caller: Caller, watch: str) -> None:
    assert caller.ask("POST", "/v2/wait", {"watch": watch}).refusal == (400, "BAD_CURSOR")


def test_every_waiter_is_woken(caller: Caller, target: Target, log_name: str) -> None:
    log = caller.make_log(log_name)
    woken = []
    began = threading.Barrier(9)

    def wait() -> None:
        asleep = Caller(target)
        began.wait(20)
        woken.append(asleep.ask("GET", f"{log}/diff?from=0&wait=30").content["to"])
        asleep.close()

    threads = [threading.Thread(target=wait) for _ in range(8)]
    for thread in threads:
        thread.start()
    began.wait(20)
    caller.commit(log, upsert("a", "1"))
    for thread in threads:
        thread.join(30)
    assert woken == [1] * 8


def test_a_name_is_made_once_and_opened_again(caller: Caller, log_name: str) -> None:
    path = opaque_name(log_name)
    first, again = caller.ask("PUT", path, {}), caller.ask("PUT", path, {})
    assert (first.status, again.status) == (201, 200)
    assert first.content == again.content
    assert caller.ask("GET", path).content == first.content
    described = first.content["description"]
    assert (described["kind"], described["version"], described["name"]) == (
        "opaque",
        0,
        b64(log_name),
    )
    assert caller.ask("GET", first.headers["Location"]).content == described


def test_a_name_in_another_group_is_another_wish(caller: Caller, log_name: str) -> None:
    path = opaque_name(log_name)
    assert caller.ask("PUT", path, {"group": "one"}).status == 201
    refused = caller.ask("PUT", path, {"group": "two"})
    assert refused.refusal == (412, "LOG_EXISTS")
    assert refused.content["details"] == {"group": "one"}
    v1 = caller.say("create", {"logName": log_name, "logGroup": "two"})
    assert v1.refusal == (412, "LOG_EXISTS")
    assert caller.say("create", {"logName": log_name, "logGroup": "one"}).status == 200


@pytest.mark.parametrize("size", [1, 1_024, 1_025, 0])
def test_a_name_has_1_to_1024_bytes(caller: Caller, size: int) -> None:
    answer = caller.ask("PUT", opaque_name(b"n" * size), {})
    assert answer.status in ((200, 201) if 1 <= size <= 1_024 else (400, 404))


def test_a_dropped_log_is_gone_and_its_name_free(caller: Caller, log_name: str) -> None:
    log = caller.make_log(log_name)
    caller.commit(log, upsert("a", "1"))
    dropped = caller.ask("DELETE", log)
    assert (dropped.status, dropped.version) == (204, 1)
    for method, path in (("GET", log), ("GET", f"{log}/diff"), ("DELETE", log)):
        answer = caller.ask(method, path)
        assert answer.refusal == (410, "LOG_REPLACED")
        assert answer.content["details"] == {"last_version": 1}
    name = opaque_name(log_name)
    assert caller.ask("GET", name).code == "NONEXISTENT_LOG"
    again = caller.ask("PUT", name, {})
    assert (again.status, again.content["description"]["incarnation"]) == (201, 2)
    assert again.headers["Location"] != log


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_a_group_is_listed_page_by_page_in_the_order_of_making(
    caller: Caller, log_name: str, limit: int
) -> None:
    made = []
    for n in range(5):
        path = opaque_name(f"{log_name} {n}")
        made.append(caller.ask("PUT", path, {"group": log_name}).content["description"]["log_id"])
    found, query = [], f"limit={limit}"
    while True:
        page = caller.ask("GET", f"/v2/logs?group={url_quoted(log_name)}&{query}").content
        found += [each["log_id"] for each in page["logs"]]
        if page["cursor"] is None:
            break
        query = f"limit={limit}&cursor={page['cursor']}"
    assert sorted(found) == sorted(made)
    assert len(found) == 5


def url_quoted(text: str) -> str:
    return quote(text, safe="")


def test_a_sealed_and_an_opaque_log_may_have_the_same_name(caller: Caller) -> None:
    token = url64(b"t" * 32)
    caller.ask("PUT", opaque_name(b"t" * 32), {})
    assert caller.ask("GET", f"/v2/names/{token}").code == "NONEXISTENT_LOG"
    assert caller.ask("GET", f"/v2/names/{url64('short')}").status == 400

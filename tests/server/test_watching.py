"""Waiting on many logs and groups: what moved is told once known, and nothing else."""

import asyncio
import base64
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from indelible_protocol.ids import to_base64url

from tests.support.service import Service, make_tenant, store_of

Json = dict[str, Any]


class Caller:
    """One tenant."""

    def __init__(self, http: aiohttp.ClientSession, apikey: str) -> None:
        self._http = http
        self._headers = {"Authorization": f"Bearer {apikey}"}

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Json]:
        async with self._http.request(method, path, json=body, headers=self._headers) as answer:
            return answer.status, {} if answer.status == 204 else await answer.json(
                content_type=None
            )

    async def make(self, name: str, group: str = "") -> str:
        path = f"/v2/names/{to_base64url(name.encode())}?kind=opaque"
        _, opened = await self.ask("PUT", path, {"group": group})
        log_id: str = opened["description"]["log_id"]
        return log_id

    async def commit(self, log_id: str, value: str) -> int:
        encoded = base64.b64encode(value.encode()).decode()
        command = {"type": "Upsert", "key": "aw==", "value": encoded}
        _, told = await self.ask("POST", f"{path_of(log_id)}/commits", {"commands": [command]})
        version: int = told["version"]
        return version

    async def wait(self, *logs: tuple[str, int], **members: Any) -> Json:
        told = [{"log_id": log_id, "version": version} for log_id, version in logs]
        status, moved = await self.ask("POST", "/v2/wait", {"logs": told, "wait": 30, **members})
        assert status == 200, moved
        return moved

    async def refused(self, *logs: tuple[str, int], **members: Any) -> tuple[int, str]:
        told = [{"log_id": log_id, "version": version} for log_id, version in logs]
        status, problem = await self.ask("POST", "/v2/wait", {"logs": told, **members})
        return status, problem["code"]


def path_of(log_id: str) -> str:
    return "/v2/logs/" + to_base64url(base64.b64decode(log_id))


def moved_of(answer: Json) -> Iterable[tuple[str, int]]:
    return [(moved["log_id"], moved["version"]) for moved in answer["moved"]]


@pytest.fixture
async def caller(service: Service) -> AsyncIterator[Caller]:
    async with aiohttp.ClientSession(service.url) as http:
        yield Caller(http, service.apikey)


@asynccontextmanager
async def stranger_of(service: Service) -> AsyncIterator[Caller]:
    _, apikey = await make_tenant(*await store_of(service))
    async with aiohttp.ClientSession(service.url) as http:
        yield Caller(http, apikey)


async def test_only_what_moved_is_told(caller: Caller) -> None:
    logs = [await caller.make(f"log {n}") for n in range(50)]
    waiting = asyncio.ensure_future(caller.wait(*((log, 0) for log in logs)))
    await asyncio.sleep(0)
    assert await caller.commit(logs[7], "a") == 1
    answer = await waiting
    assert moved_of(answer) == [(logs[7], 1)]
    assert (answer["gone"], answer["groups"], answer["watch"]) == ([], [], None)
    assert moved_of(await caller.wait(*((log, 0) for log in logs), wait=0)) == [(logs[7], 1)]
    assert moved_of(await caller.wait((logs[7], 1), wait=0.05)) == []


async def test_a_kept_watch_is_told_only_what_is_new(caller: Caller) -> None:
    one, two, three = [await caller.make(name) for name in ("one", "two", "three")]
    first = await caller.wait((one, 0), (two, 0), wait=0, keep=True)
    assert first["watch"]

    waiting = asyncio.ensure_future(caller.wait((three, 0), watch=first["watch"], keep=True))
    await asyncio.sleep(0)
    await caller.commit(two, "a")
    second = await waiting
    assert moved_of(second) == [(two, 1)]

    # What was told but not taken note of is told again; what was, is not.
    again = await caller.wait(watch=second["watch"], keep=True)
    assert moved_of(again) == [(two, 1)]
    await caller.commit(three, "a")
    last = await caller.wait((two, 1), watch=again["watch"], keep=True)
    assert moved_of(last) == [(three, 1)]


async def test_what_moves_between_two_requests_of_a_watch_is_told_at_once(caller: Caller) -> None:
    log = await caller.make("one")
    kept = await caller.wait((log, 0), wait=0, keep=True)
    await caller.commit(log, "a")
    assert moved_of(await caller.wait(watch=kept["watch"])) == [(log, 1)]


async def test_a_watch_is_used_once_and_by_its_tenant_alone(
    caller: Caller, service: Service
) -> None:
    log = await caller.make("one")
    kept = (await caller.wait((log, 0), wait=0, keep=True))["watch"]
    async with stranger_of(service) as stranger:
        assert await stranger.refused(watch=kept) == (400, "BAD_CURSOR")
    await caller.wait(watch=kept, wait=0)
    assert await caller.refused(watch=kept) == (400, "BAD_CURSOR")
    assert await caller.refused(watch="x") == (400, "BAD_CURSOR")


async def test_diffs_come_along(caller: Caller) -> None:
    one, two = await caller.make("one"), await caller.make("two")
    await caller.commit(one, "a")
    await caller.commit(one, "b")
    (moved,) = (await caller.wait((one, 1), (two, 0), diffs=True))["moved"]
    assert (moved["version"], moved["diff"]["from"], moved["diff"]["to"]) == (2, 1, 2)
    changes = [(change["op"], change["value"]) for change in moved["diff"]["changes"]]
    assert changes == [("remove", "YQ=="), ("add", "Yg==")]
    (moved,) = (await caller.wait((one, 1)))["moved"]
    assert moved["diff"] is None


async def test_deleted_absent_and_foreign_logs_are_gone(caller: Caller, service: Service) -> None:
    mine, doomed = await caller.make("mine"), await caller.make("doomed")
    async with stranger_of(service) as stranger:
        foreign = await stranger.make("theirs")
    absent = base64.b64encode(bytes(32)).decode()
    answer = await caller.wait((mine, 0), (foreign, 0), (absent, 0))
    assert sorted(answer["gone"]) == sorted([foreign, absent])

    kept = await caller.wait((mine, 0), (doomed, 0), wait=0, keep=True)
    waiting = asyncio.ensure_future(caller.wait(watch=kept["watch"], keep=True))
    await asyncio.sleep(0)
    await caller.ask("DELETE", path_of(doomed))
    ended = await waiting
    assert (ended["gone"], ended["moved"]) == ([doomed], [])
    await caller.commit(mine, "a")
    assert moved_of(await caller.wait(watch=ended["watch"])) == [(mine, 1)]


async def test_a_group_moves_with_each_log_that_comes_and_goes(caller: Caller) -> None:
    _, listing = await caller.ask("GET", "/v2/logs?group=orders")
    groups = [{"group": "orders", "version": listing["version"]}]
    waiting = asyncio.ensure_future(caller.wait(groups=groups))
    await asyncio.sleep(0)
    await caller.make("elsewhere", "others")
    log = await caller.make("new", "orders")
    (moved,) = (await waiting)["groups"]
    assert moved["group"] == "orders"
    _, listing = await caller.ask("GET", "/v2/logs?group=orders")
    assert moved["version"] == listing["version"]

    await caller.make("new", "orders")  # opening it again changes nothing
    assert (await caller.wait(groups=[moved], wait=0.05))["groups"] == []
    await caller.ask("DELETE", path_of(log))
    assert (await caller.wait(groups=[moved]))["groups"][0]["version"] > moved["version"]


async def test_waiting_for_nothing_or_for_too_much_is_refused(caller: Caller) -> None:
    assert await caller.refused() == (400, "BAD_REQUEST")
    absent = base64.b64encode(bytes(32)).decode()
    assert await caller.refused(*[(absent, 0)] * 10_001) == (400, "BAD_REQUEST")
    status, _ = await caller.ask("POST", "/v2/wait", {"logs": [], "groups": [], "other": 1})
    assert status == 400

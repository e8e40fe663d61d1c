"""Following a log by server-sent events: every version once, in order, until there is a reason."""

import asyncio
import json
import re
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from indelible_server.store.connection import connect
from indelible_server.store.tenants import Tenants

from tests.server.test_service import code_of, make_log, session, upsert
from tests.support.event_stream import EventStream
from tests.support.polling import until
from tests.support.service import Service, make_tenant, store_of

PATIENT = aiohttp.ClientTimeout(total=60)


@pytest.fixture
async def http(service: Service) -> AsyncIterator[aiohttp.ClientSession]:
    async with session(service) as made:
        yield made


@asynccontextmanager
async def stream_of(
    http: aiohttp.ClientSession, log: str, last_id: str | None = None, **query: int
) -> AsyncIterator[EventStream]:
    headers = {"Accept": "text/event-stream"}
    if last_id is not None:
        headers["Last-Event-ID"] = last_id
    parameters = {name.removesuffix("_"): value for name, value in query.items()}
    async with http.get(
        f"{log}/events", params=parameters, headers=headers, timeout=PATIENT
    ) as response:
        assert response.status == 200, await response.text()
        assert response.content_type == "text/event-stream"
        yield EventStream(response, last_id or "")


async def next_of(stream: EventStream, within_seconds: float = 10.0) -> tuple[str, Any, str]:
    """The next event: its name, its data, and what to come back with after it."""
    async with asyncio.timeout(within_seconds):
        event = await stream.next()
    return event.name, json.loads(event.data), event.last_id


async def diff_of(http: aiohttp.ClientSession, log: str, query: str) -> Any:
    async with http.get(f"{log}/diff?{query}") as answer:
        assert answer.status == 200
        return await answer.json()


async def waiters_of(http: aiohttp.ClientSession) -> int:
    async with http.get("/metrics") as answer:
        gauge = re.search(r"^indelible_waiters (\S+)$", await answer.text(), re.MULTILINE)
    assert gauge
    return int(float(gauge[1]))


async def test_every_version_arrives_as_it_is_made_and_is_what_a_diff_says(
    http: aiohttp.ClientSession,
) -> None:
    log = await make_log(http)
    await upsert(http, log, "a", "1")
    async with stream_of(http, log) as stream:
        for version in range(1, 5):
            event = await next_of(stream)
            assert event == (
                "diff",
                await diff_of(http, log, f"from={version - 1}&to={version}"),
                str(version),
            )
            await upsert(http, log, "a", str(version + 1))


async def test_the_answer_says_that_it_is_a_stream_and_must_not_be_kept(
    http: aiohttp.ClientSession,
) -> None:
    log = await make_log(http)
    async with http.get(f"{log}/events") as response:
        assert response.headers["Cache-Control"] == "no-cache"
        assert response.headers["X-Accel-Buffering"] == "no"
        assert response.headers["Indelible-Version"] == "0"
        assert re.fullmatch("[0-9a-f]{16}", response.headers["Indelible-Request-Id"])
        first = await response.content.readline()
        assert re.fullmatch(rb"retry: [123]\d{3}\n", first)


async def test_the_last_event_id_wins_over_from(http: aiohttp.ClientSession) -> None:
    log = await make_log(http)
    for n in range(4):
        await upsert(http, log, "a", str(n))
    async with stream_of(http, log, "3", from_=1) as stream:
        _, diff, last_id = await next_of(stream)
        assert (diff["from"], diff["to"], last_id) == (3, 4, "4")
    async with stream_of(http, log, from_=1) as stream:
        _, diff, _ = await next_of(stream)
        assert (diff["from"], diff["to"]) == (1, 4)
    for wrong in ("", "x", "-1", "01", "9" * 30):
        asked = http.get(f"{log}/events", headers={"Last-Event-ID": wrong})
        assert await code_of(asked) == (400, "BAD_REQUEST")
    twice = [("Last-Event-ID", "1"), ("Last-Event-ID", "2")]
    assert await code_of(http.get(f"{log}/events", headers=twice)) == (400, "BAD_REQUEST")


async def test_only_the_last_page_of_a_diff_moves_the_place_to_come_back_to(
    http: aiohttp.ClientSession,
) -> None:
    log = await make_log(http)
    for n in range(5):
        await upsert(http, log, f"key-{n}", "v")
    async with stream_of(http, log, limit=2) as stream:
        pages = [await next_of(stream) for _ in range(3)]
        assert [last_id for _, _, last_id in pages] == ["", "", "5"]
        assert [len(page["changes"]) for _, page, _ in pages] == [2, 2, 1]
        first = await diff_of(http, log, "from=0&to=5&limit=2")
        assert pages[0][1] == first
        second = await diff_of(http, log, f"cursor={first['cursor']}&limit=2")
        assert [page for _, page, _ in pages[1:]] == [
            second,
            await diff_of(http, log, f"cursor={second['cursor']}&limit=2"),
        ]
        await upsert(http, log, "key-0", "w")
        _, diff, last_id = await next_of(stream)
        assert (diff["from"], diff["to"], last_id) == (5, 6, "6")


async def test_a_large_diff_arrives_whole(http: aiohttp.ClientSession) -> None:
    log = await make_log(http)
    for key in "abc":
        await upsert(http, log, key, key * 700_000)
    async with stream_of(http, log) as stream:
        event = await next_of(stream, 30)
        assert event == ("diff", await diff_of(http, log, "from=0&to=3"), "3")


async def test_a_stream_ends_with_its_log_and_says_why(http: aiohttp.ClientSession) -> None:
    log = await make_log(http)
    await upsert(http, log, "a", "1")
    async with stream_of(http, log, from_=1) as stream:
        async with http.delete(log) as answer:
            assert answer.status == 204
        name, problem, last_id = await next_of(stream)
        assert (name, problem["code"], last_id) == ("gone", "LOG_REPLACED", "")
        assert problem["details"] == {"last_version": 1}
        async with asyncio.timeout(5):
            assert [event async for event in stream] == []
    assert await code_of(http.get(f"{log}/events")) == (410, "LOG_REPLACED")


async def test_what_is_wrong_at_the_beginning_is_a_problem_as_everywhere(
    http: aiohttp.ClientSession,
) -> None:
    log = await make_log(http)
    for query, expected in {
        "from=1": (404, "NONEXISTENT_VERSION"),
        "from=x": (400, "BAD_REQUEST"),
        "limit=0": (400, "BAD_REQUEST"),
        "to=3": (400, "BAD_REQUEST"),
        "wait=3": (400, "BAD_REQUEST"),
    }.items():
        assert await code_of(http.get(f"{log}/events?{query}")) == expected, query
    no_key = {"Authorization": "Bearer nobody"}
    assert await code_of(http.get(f"{log}/events", headers=no_key)) == (401, "BAD_API_KEY")


async def test_a_stream_is_freed_when_its_client_leaves_and_is_logged_as_answered(
    http: aiohttp.ClientSession, service: Service
) -> None:
    log = await make_log(http)
    before = await waiters_of(http)
    offset = service.log_file.stat().st_size
    async with stream_of(http, log) as stream:
        await upsert(http, log, "a", "1")
        await next_of(stream)
        await until(lambda: has_waiters(http, before + 1))
    await until(lambda: has_waiters(http, before))

    def lines() -> list[Mapping[str, Any]]:
        told = service.events(offset)
        return [each for each in told if each.get("route", "").endswith("/events")]

    await until(lambda: bool(lines()))
    (line,) = lines()
    assert (line["event"], line["status"], line["waited"]) == ("request.answered", 200, True)


async def has_waiters(http: aiohttp.ClientSession, count: int) -> bool:
    return await waiters_of(http) == count


async def test_a_silent_stream_is_kept_alive_and_ends_with_its_key(
    http: aiohttp.ClientSession, service: Service
) -> None:
    _, apikey = await make_tenant(*await store_of(service))
    async with session(service, apikey) as theirs:
        foreign, mine = await make_log(theirs), await make_log(http)
        async with stream_of(theirs, foreign) as revoked, stream_of(http, mine) as kept:
            await revoke(service, apikey)
            async with asyncio.timeout(10.5):
                assert [event async for event in revoked] == []
            reading = asyncio.create_task(next_of(kept))
            await until(lambda: kept.comments > 0)
            await upsert(http, mine, "a", "1")
            assert (await reading)[2] == "1"
        assert await code_of(theirs.get(f"{foreign}/events")) == (401, "BAD_API_KEY")


async def test_a_stream_that_is_never_silent_ends_with_its_key_too(service: Service) -> None:
    _, apikey = await make_tenant(*await store_of(service))
    async with tenants_of(service) as tenants:
        other = await tenants.add_key(await name_of(tenants, apikey))
    async with session(service, apikey) as theirs, session(service, other) as writer:
        log = await make_log(writer)

        async def keep_writing() -> None:
            for n in range(10_000):
                await upsert(writer, log, "a", str(n))
                await asyncio.sleep(0.05)

        async with stream_of(theirs, log) as stream:
            writing = asyncio.create_task(keep_writing())
            await next_of(stream)
            await revoke(service, apikey)
            async with asyncio.timeout(10.5):
                assert len([event async for event in stream]) > 10
            assert not writing.done()
            writing.cancel()
            await asyncio.wait([writing])


@asynccontextmanager
async def tenants_of(service: Service) -> AsyncIterator[Tenants]:
    url, secret = await store_of(service)
    clients = connect(url, connections=1, timeout_seconds=5.0)
    try:
        yield Tenants(clients.commands, secret)
    finally:
        await clients.close()


async def name_of(tenants: Tenants, apikey: str) -> str:
    [name] = [each.name for each in await tenants.list() if apikey.split("_")[1] in each.key_ids]
    return name


async def revoke(service: Service, apikey: str) -> None:
    async with tenants_of(service) as tenants:
        await tenants.revoke_key(await name_of(tenants, apikey), apikey)


async def test_curl_follows_a_log_and_comes_back_where_it_was(
    http: aiohttp.ClientSession, service: Service
) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    log = await make_log(http)
    command = [
        *("curl", "-sN", "-H", f"Authorization: Bearer {service.apikey}"),
        *("-H", "Last-Event-ID: 1", f"{service.url}{log}/events"),
    ]
    await upsert(http, log, "a", "1")
    curl = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert curl.stdout is not None
    try:
        for version in (2, 3):
            await upsert(http, log, "a", str(version))
            async with asyncio.timeout(10):
                lines = [await curl.stdout.readline() for _ in range(5 if version == 2 else 3)]
                assert lines[-3:-1] == [b"event: diff\n", b"id: %d\n" % version]
                assert json.loads(lines[-1].removeprefix(b"data: "))["to"] == version
                assert await curl.stdout.readline() == b"\n"
    finally:
        curl.terminate()
        await curl.wait()

"""Event streams through what happens to processes: ends, outages, crowds, slow readers."""

import asyncio
import json
import random
import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import aiohttp
import psutil
import pytest
from indelible_protocol.ids import to_base64url

from tests.process.test_waiting import client_of, until_waiting, waiters_of
from tests.support.deployment import Deployment, StartDeployment
from tests.support.event_stream import EventStream
from tests.support.native_api import Committed, InDoubt, NotDone
from tests.support.operations import Command, Op
from tests.support.polling import until
from tests.support.service import Service

PATIENT = aiohttp.ClientTimeout(total=None)


class Follower:
    """A reader as the standard wants it: comes back after `retry`, with the last id.

    Goes to the processes in turn. `versions` are the ends of the diffs it was given; `cuts`
    counts answers that had begun and were not ended, `refusals` connections without an answer.
    """

    def __init__(self, http: aiohttp.ClientSession, urls: Sequence[str], path: str) -> None:
        self.versions: list[int] = [0]
        self.cuts = self.refusals = 0
        self.opened = 0
        self._http = http
        self._urls = urls
        self._path = path
        self._turn = random.randrange(len(urls))
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        last_id, retry_ms = "", 1_000
        while True:
            headers = {"Last-Event-ID": last_id} if last_id else {}
            self._turn += 1
            url = self._urls[self._turn % len(self._urls)] + self._path
            try:
                async with self._http.get(url, headers=headers, timeout=PATIENT) as response:
                    if response.status == 503:  # so many at once can be, on a busy machine
                        await asyncio.sleep(random.uniform(0, 0.5))
                        continue
                    assert response.status == 200, await response.text()
                    self.opened += 1
                    stream = EventStream(response, last_id)
                    try:
                        await self._take(stream)
                    finally:
                        last_id = stream.last_id
                        retry_ms = [retry_ms, *stream.retry_ms][-1]
            except aiohttp.ClientPayloadError:
                self.cuts += 1
            except aiohttp.ClientError:
                self.refusals += 1  # that process is down, or was at that moment
            await asyncio.sleep(retry_ms / 1_000)

    async def _take(self, stream: EventStream) -> None:
        async for event in stream:
            diff = json.loads(event.data)
            assert diff["from"] == self.versions[-1], "a gap, or twice"
            assert diff["to"] == int(event.last_id)
            told = [change["version"] for change in diff["changes"] if change["op"] == "add"]
            # Each version of these tests adds a key of its own.
            assert told == list(range(diff["from"] + 1, diff["to"] + 1))
            self.versions.append(diff["to"])
        assert stream.whole


@asynccontextmanager
async def followers_of(
    deployment: Deployment, log_id: bytes, count: int
) -> AsyncIterator[list[Follower]]:
    headers = {"Authorization": f"Bearer {deployment.apikey}"}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, headers=headers) as http:
        path = f"/v2/logs/{to_base64url(log_id)}/events"
        followers = [Follower(http, deployment.endpoints, path) for _ in range(count)]
        try:
            yield followers
        finally:
            for follower in followers:
                follower.task.cancel()
            ends = await asyncio.gather(*(f.task for f in followers), return_exceptions=True)
        assert {type(end) for end in ends} == {asyncio.CancelledError}, ends[0]


async def write(deployment: Deployment, log_id: bytes, version: int) -> None:
    """Makes `version`, by whichever process takes it."""
    while True:
        for service in deployment.services:
            async with client_of(deployment, service) as client:
                try:
                    done = await client.commit(
                        log_id,
                        [Command(Op.UPSERT, f"key-{version}", "v")],
                        idempotency_key=f"version-{version}",
                    )
                except (NotDone, InDoubt):
                    continue
            assert isinstance(done, Committed)
            assert done.outcome.version == version
            return


async def all_streaming(deployment: Deployment, count: int, within_seconds: float) -> None:
    async def as_many() -> bool:
        return sum([await waiters_of(service) for service in deployment.services]) == count

    await until(as_many, within_seconds=within_seconds, what=f"{count} streams")


async def rolling_restart(deployment: Deployment, count: int) -> None:
    first, _ = deployment.services
    async with client_of(deployment, first) as client:
        log_id = await client.create_log("followed")
    async with followers_of(deployment, log_id, count) as followers:
        await all_streaming(deployment, count, 60)
        version = 0
        restarting = asyncio.create_task(restart_each(deployment))
        while not restarting.done():
            version += 1
            await write(deployment, log_id, version)
            await asyncio.sleep(0.05)
        await restarting
        version += 1
        await write(deployment, log_id, version)

        def all_there() -> bool:
            for follower in followers:
                if follower.task.done():
                    follower.task.result()
            return all(follower.versions[-1] == version for follower in followers)

        await until(all_there, within_seconds=60, what=f"version {version} at all")
        assert sum(follower.cuts for follower in followers) == 0
        assert sum(follower.opened for follower in followers) >= 2 * count
        refusals = sum(follower.refusals for follower in followers)
        print(f"{count} streams, {version} versions, 2 restarts, {refusals} refused connections")


async def restart_each(deployment: Deployment) -> None:
    for service in deployment.services:
        assert await asyncio.to_thread(service.terminate) == 0
        await asyncio.to_thread(service.start)
        await asyncio.sleep(0.5)


async def test_a_hundred_streams_miss_nothing_and_see_no_reset_in_a_rolling_restart(
    deploy: StartDeployment,
) -> None:
    await rolling_restart(await deploy(), 100)


@pytest.mark.torture
async def test_a_thousand_streams_miss_nothing_and_see_no_reset_in_a_rolling_restart(
    deploy: StartDeployment,
) -> None:
    await rolling_restart(await deploy(), 1_000)


async def test_streams_go_on_when_the_engine_was_killed_and_is_back(
    deploy: StartDeployment,
) -> None:
    deployment = await deploy(processes=1)
    (service,) = deployment.services
    async with client_of(deployment, service) as client:
        log_id = await client.create_log("followed")
    async with followers_of(deployment, log_id, 20) as followers:
        await all_streaming(deployment, 20, 10)
        for version in range(1, 4):
            await write(deployment, log_id, version)
            await until(lambda: all(f.versions[-1] == version for f in followers))  # noqa: B023
            await deployment.kill_engine()
        await write(deployment, log_id, 4)
        await until(lambda: all(f.versions[-1] == 4 for f in followers), within_seconds=20)
        assert {(follower.opened, follower.cuts) for follower in followers} == {(1, 0)}


async def test_more_streams_than_allowed_are_refused_before_they_begin(
    deploy: StartDeployment,
) -> None:
    deployment = await deploy("--max-tenant-waiters", "3", "--max-waiters", "5", processes=1)
    (service,) = deployment.services
    async with client_of(deployment, service) as client:
        log_id = await client.create_log("followed")
    path = f"{service.url}/v2/logs/{to_base64url(log_id)}/events"
    headers = {"Authorization": f"Bearer {deployment.apikey}"}
    async with followers_of(deployment, log_id, 3):
        await all_streaming(deployment, 3, 10)
        async with aiohttp.ClientSession(headers=headers) as http, http.get(path) as answer:
            assert answer.status == 429
            assert (await answer.json())["code"] == "RATE_LIMITED"
            assert "Retry-After" in answer.headers
    await until_waiting(service, 0, within_seconds=5)
    async with followers_of(deployment, log_id, 1):
        await all_streaming(deployment, 1, 5)


async def test_a_reader_that_does_not_read_is_let_go_and_costs_little_meanwhile(
    deploy: StartDeployment,
) -> None:
    """Twenty of them, with pages of 4 MiB: one page is held for all, and not for long."""
    deployment = await deploy(processes=1)
    (service,) = deployment.services
    async with client_of(deployment, service) as client:
        log_id = await client.create_log("followed")
        for version in range(8):
            command = Command(Op.UPSERT, f"key-{version}", "v" * 700_000)
            await client.commit(log_id, [command], idempotency_key=None)
        await client.diff(log_id, 0)
    process = psutil.Process(service.pid)
    before = process.memory_info().rss
    sockets = [ask_and_read_nothing(service, deployment.apikey, log_id) for _ in range(20)]
    try:
        await until_waiting(service, 0, within_seconds=5)  # they do not sleep: they are written to
        began = time.monotonic()
        most = 0

        def let_go() -> bool:
            nonlocal most
            most = max(most, process.memory_info().rss - before)
            return streams_answered(service) == 20

        await until(let_go, within_seconds=25)
        print(f"let go after {time.monotonic() - began:.1f} s, {most / 2**20:.0f} MiB more at most")
        assert most < 40 << 20
    finally:
        for each in sockets:
            each.close()


def streams_answered(service: Service) -> int:
    return sum(1 for each in service.events() if str(each.get("route")).endswith("/events"))


def ask_and_read_nothing(service: Service, apikey: str, log_id: bytes) -> socket.socket:
    address = urlsplit(service.url)
    assert address.hostname is not None
    assert address.port is not None
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    made.connect((address.hostname, address.port))
    head = f"GET /v2/logs/{to_base64url(log_id)}/events?limit=10000 HTTP/1.1\r\n"
    made.sendall(f"{head}Host: x\r\nAuthorization: Bearer {apikey}\r\n\r\n".encode())
    return made

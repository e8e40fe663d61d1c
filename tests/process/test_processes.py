"""Several processes behind one port: connections shared out, each replaced without being missed."""

import asyncio
import os
import random
import re
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import aiohttp
import psutil
import pytest

from tests.support.native_api import Committed, InDoubt, NativeApi, NotDone
from tests.support.operations import Command, Op
from tests.support.polling import until
from tests.support.service import SERVER, Service, StartService, make_tenant, store_of

WRITERS = 8
WAITERS = 8
READY = "supervisor.ready"
T = TypeVar("T")


@dataclass(slots=True, kw_only=True)
class Load:
    """Writers and waiters that keep their connections and send no commit twice (aiohttp's client
    sends a GET again by itself, so it is commits that show an end).

    `missed` is every request that met an end: a connection that was refused or cut under it, an
    answer that says "not now". `versions` are those acknowledged.
    """

    api: NativeApi
    log_id: bytes
    missed: list[str] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    woken: int = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Load"]:
        stop = asyncio.Event()
        tasks = [asyncio.create_task(self._write(n, stop)) for n in range(WRITERS)]
        tasks += [asyncio.create_task(self._wait(stop)) for _ in range(WAITERS)]
        try:
            await self.goes_on()
            yield self
            await self.goes_on()
        finally:
            stop.set()
            await asyncio.gather(*tasks)

    async def goes_on(self) -> None:
        """Returns when every writer has had some more acknowledgements, on average."""
        enough = len(self.versions) + 5 * WRITERS
        await until(lambda: len(self.versions) >= enough, within_seconds=60.0)

    async def _write(self, number: int, stop: asyncio.Event) -> None:
        count = 0
        while not stop.is_set():
            count += 1
            commands = [Command(Op.UPSERT, f"{number}", f"{count}")]
            commit = self.api.commit(self.log_id, commands, idempotency_key=None)
            answer = await self._noted(commit)
            if answer is not None:
                assert isinstance(answer, Committed)
                self.versions.append(answer.outcome.version)

    async def _wait(self, stop: asyncio.Event) -> None:
        version = 0
        while not stop.is_set():
            answer = await self._noted(self.api.wait(self.log_id, version, wait_seconds=1.0))
            if answer is not None:
                version = answer.to_version
                self.woken += 1

    async def _noted(self, asked: Awaitable[T]) -> T | None:
        try:
            return await asked
        except (InDoubt, NotDone) as error:
            self.missed.append(repr(error))
            await asyncio.sleep(0.02)
            return None


@asynccontextmanager
async def load_on(service: Service) -> AsyncIterator[Load]:
    _, apikey = await make_tenant(*await store_of(service))
    # A client keeps a connection for less long than the service does, or meets its usual end.
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=0.5)
    async with aiohttp.ClientSession(connector=connector) as session:
        api = NativeApi(
            session,
            endpoints=[service.url],
            apikey=apikey,
            rng=random.Random(1),
            request_seconds=30.0,  # what is not answered soon has not met an end
        )
        load = Load(api=api, log_id=await api.create_log("orders"))
        async with load.running():
            yield load


def processes_of(service: Service) -> list[psutil.Process]:
    """Its API processes that are not about to end, by their start."""
    children = psutil.Process(service.pid).children()
    return sorted((p for p in children if "api" in p.cmdline()), key=lambda p: p.create_time())


def told(service: Service, event: str) -> int:
    return sum(each["event"] == event for each in service.events())


async def until_told(
    service: Service, event: str, times: int, within_seconds: float = 30.0
) -> None:
    await until(lambda: told(service, event) >= times, within_seconds=within_seconds, what=event)


@pytest.fixture
def pair(start_service: StartService, tmp_path: Path) -> Callable[..., Service]:
    def start(*arguments: str) -> Service:
        data = str(tmp_path / "data")
        # Idle connections come to their usual end soon, and so does a process that retires.
        few = ("--processes", "2", "--idle-seconds", "2")
        return start_service("all", "--data", data, *few, *arguments, until=READY)

    return start


async def test_connections_are_shared_out_and_processes_wake_each_others_waiters(
    pair: Callable[..., Service],
) -> None:
    service = pair("--operations-listen", "127.0.0.1:0")
    async with load_on(service) as load:
        pass
    assert not load.missed
    assert sorted(load.versions) == list(range(1, len(load.versions) + 1))
    assert load.woken
    told_at = [e["url"] for e in service.events() if e["event"] == "operations.listening"]
    assert len(told_at) == 2
    for url in told_at:
        assert await commits_counted(url) > 0, f"{url} was given no connection"
    await replacements(service, 1)
    for url in told_at:
        assert await commits_counted(url) == 0, f"{url} tells of who was replaced"


async def commits_counted(url: str) -> float:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{url}/metrics") as answer,
    ):
        counted = re.findall(
            r"^indelible_requests_total\{.*commits.*\} (\S+)$", await answer.text(), re.MULTILINE
        )
    return sum(map(float, counted))


async def replacements(service: Service, times: int) -> None:
    for number in range(1, times + 1):
        os.kill(service.pid, signal.SIGHUP)
        await until_told(service, "supervisor.replaced", number, within_seconds=120.0)


async def test_processes_are_replaced_under_load_and_nobody_notices(
    pair: Callable[..., Service],
) -> None:
    service = pair()
    before = {process.pid for process in processes_of(service)}
    async with load_on(service) as load:
        await replacements(service, 1)
    assert load.missed == []
    assert sorted(load.versions) == list(range(1, len(load.versions) + 1))
    after = {process.pid for process in processes_of(service)}
    assert len(after) == 2
    assert not before & after


@pytest.mark.torture
async def test_fifty_replacements_under_load_and_nobody_notices(
    pair: Callable[..., Service],
) -> None:
    service = pair()
    async with load_on(service) as load:
        await replacements(service, 50)
    assert load.missed == []
    assert sorted(load.versions) == list(range(1, len(load.versions) + 1))
    print(f"100 ends of processes, {len(load.versions)} commits, {load.woken} wakes, 0 missed")


async def test_one_process_that_is_stopped_and_started_is_noticed(
    start_service: StartService, tmp_path: Path
) -> None:
    """The control: without a second process and a socket that stays, requests meet an end."""
    service = start_service("all", "--data", str(tmp_path / "data"))
    async with load_on(service) as load:
        await asyncio.to_thread(service.terminate)
        await asyncio.to_thread(service.start)
    assert load.missed


async def test_a_process_that_is_killed_comes_back_and_new_connections_wait_for_it(
    pair: Callable[..., Service],
) -> None:
    service = pair()
    victims = processes_of(service)
    for victim in victims:
        victim.kill()
    async with load_on(service) as load:  # nobody is there: connections wait in the sockets
        pass
    assert load.missed == []
    assert told(service, "worker.ended") == len(victims)


async def test_a_process_takes_connections_once_it_knows_its_store(
    pair: Callable[..., Service],
) -> None:
    """Else who came first would be told that nothing is known of the store."""
    service = pair()
    children = psutil.Process(service.pid).children()
    [engine] = [child for child in children if "unixsocket" in " ".join(child.cmdline())]
    victims = processes_of(service)
    engine.suspend()
    try:
        for victim in victims:
            victim.kill()
        await until_told(service, "worker.ended", len(victims))
        async with aiohttp.ClientSession(service.url) as session:
            asking = asyncio.ensure_future(session.get("/livez"))
            done, _ = await asyncio.wait([asking], timeout=1.5)
            assert not done
            engine.resume()
            assert (await asking).status == 200
    finally:
        engine.resume()


async def test_processes_end_with_their_supervisor_however_it_ends(
    pair: Callable[..., Service],
) -> None:
    service = pair()
    children = psutil.Process(service.pid).children()
    ours = [process for process in children if "indelible_server" in process.cmdline()]
    assert len(ours) >= 3
    service.kill()
    _, alive = await asyncio.to_thread(psutil.wait_procs, ours, 20.0)
    assert alive == []
    await asyncio.to_thread(service.start, until=READY)  # on the engine that lives on


async def test_a_process_that_does_not_become_ready_takes_nobodys_place(
    pair: Callable[..., Service], tmp_path: Path
) -> None:
    service = pair()
    before = {process.pid for process in processes_of(service)}
    secret = tmp_path / "data" / "secret"
    kept = secret.read_bytes()
    secret.write_text("short")
    os.kill(service.pid, signal.SIGHUP)
    await until_told(service, "supervisor.replacement_failed", 1)
    assert {process.pid for process in processes_of(service)} == before
    secret.write_bytes(kept)
    async with load_on(service) as load:
        pass
    assert load.missed == []


@pytest.mark.torture
async def test_a_process_that_is_stuck_is_killed_and_replaced(
    pair: Callable[..., Service],
) -> None:
    service = pair()
    stuck = processes_of(service)[0]
    stuck.suspend()
    await until_told(service, "worker.stuck", 1, within_seconds=60.0)
    await until_told(service, "worker.started", 4)
    assert stuck.pid not in {process.pid for process in processes_of(service)}


def test_a_port_that_another_service_has_is_refused_with_a_sentence(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        ended = subprocess.run(
            [
                *SERVER,
                *("all", "--data", str(tmp_path / "data"), "--processes", "2"),
                *("--listen", f"127.0.0.1:{port}"),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert ended.returncode == 1
    assert f"error: cannot listen on 127.0.0.1:{port}" in ended.stderr

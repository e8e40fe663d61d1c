"""What a benchmark stands on: an engine, API processes, a tenant, its logs, workers, floors.

Owns their starts and ends. Everything is as an operator would start it, but for three SETTINGS.
Knows nothing of what is measured.
"""

import asyncio
import itertools
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self, TypeVar
from urllib.parse import urlsplit

import aiohttp
from indelible_protocol import limits, paths
from indelible_protocol.ids import LogId
from indelible_server.store import keys
from redis.asyncio import Redis

from tests.benchmarks import building, closed_loop
from tests.benchmarks.building import Growing, Making
from tests.benchmarks.closed_loop import Answers, Load
from tests.benchmarks.figures import CheckFailed, check
from tests.benchmarks.workers import ServerProcess, Worker
from tests.support.cluster import start_nodes
from tests.support.deployment import Deployment, Processes
from tests.support.engines import Engine, start_engine
from tests.support.native_api import NativeApi
from tests.support.service import Service
from tests.support.stored_log import store_at
from tests.support.writers import SealedWriter

A = TypeVar("A")
B = TypeVar("B")

# The tenant's rate would be what is measured. A neighbour that takes the processor for seconds
# must not turn updates into refusals, nor end connections between two waits: what things cost is
# asked for, not the server's patience.
SETTINGS = (
    *("--tenant-requests-per-second", "1000000"),
    *("--store-seconds", "30"),
    *("--idle-seconds", "300"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much is measured. `seconds` is that of one sample; a pair is two of them."""

    pairs: int
    seconds: float
    quick: bool

    def shorter(self, seconds: float) -> "Scale":
        """Samples of at most `seconds`, where their spread allows it."""
        return replace(self, seconds=min(seconds, self.seconds))

    def of(self, full: int, quick: int) -> int:
        """A count: `full`, or `quick` in a quick run."""
        return quick if self.quick else full

    async def in_turns(
        self,
        what: str,
        floor: Callable[[int], Awaitable[A]],
        ours: Callable[[int], Awaitable[B]],
        *,
        pairs: int | None = None,
    ) -> list[tuple[A, B]]:
        """Samples of both, one after the other, again and again; each is given its number."""
        found = []
        count = pairs or self.pairs
        for number in range(count):
            progress(f"  {what}: pair {number + 1} of {count}")
            found.append((await floor(number), await ours(number)))
        return found

    async def in_rounds(
        self, what: str, samplers: Sequence[Callable[[int], Awaitable[A]]]
    ) -> list[list[A]]:
        """The samples of each of them; all take turns, as two do in `in_turns`."""
        rounds = []
        for number in range(self.pairs):
            progress(f"  {what}: round {number + 1} of {self.pairs}")
            rounds.append([await sample(number) for sample in samplers])
        return [list(samples) for samples in zip(*rounds, strict=True)]


_SETTLE_SECONDS = 120.0
UNREFUSED = ("--max-commit-wait-seconds", "60")  # for a load that is to stay, however long it waits
FULL = Scale(pairs=5, seconds=2.0, quick=False)
QUICK = Scale(pairs=2, seconds=0.5, quick=True)


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@dataclass(kw_only=True)
class Stage:
    """`api` is the one API process unless more were asked for; `worker` makes the load.

    `aged` are logs that took long to make, by their versions: later benchmarks may write to them.
    """

    deployment: Processes
    engine: Engine
    worker: Worker
    folder: Path
    _leaving: AsyncExitStack = field(repr=False)
    aged: dict[int, LogId] = field(default_factory=dict)
    _second: Worker | None = field(default=None, repr=False)
    _floors: dict[str, ServerProcess] = field(default_factory=dict, repr=False)
    _names: Iterator[int] = field(default_factory=itertools.count, repr=False)

    @property
    def api(self) -> Service:
        return self.deployment.services[0]

    @property
    def apikey(self) -> str:
        return self.deployment.apikey

    @property
    def port(self) -> int:
        return port_of(self.api)

    @property
    def pids(self) -> Mapping[str, int]:
        return {"server": self.api.pid, "engine": self.engine.pid}

    async def second_worker(self) -> Worker:
        """For what must not share a process with `worker`; one for all who ask."""
        if self._second is None:
            self._second = await self.another_worker()
        return self._second

    async def another_worker(self) -> Worker:
        worker = await Worker.start()
        self._leaving.push_async_callback(worker.stop)
        return worker

    async def floor(self, name: str) -> ServerProcess:
        """One of `floors`, which ends with the stage; one for all who ask."""
        if name not in self._floors:
            server = await ServerProcess.start("tests.benchmarks.floors", name)
            self._leaving.push_async_callback(server.stop)
            self._floors[name] = server
        return self._floors[name]

    async def settle(self) -> None:
        """Until the engine rewrites no file: that work belongs to what was written before."""
        deadline = time.monotonic() + _SETTLE_SECONDS
        async with Redis.from_url(self.engine.url) as store:
            while True:
                told = await store.info("persistence")
                if not (told["aof_rewrite_in_progress"] or told["aof_rewrite_scheduled"]):
                    return
                check(time.monotonic() < deadline, "the engine still rewrites its file")
                await asyncio.sleep(0.05)

    async def load(self, load: Load) -> Answers:
        answers: Answers = await self.worker.run(closed_loop.run, load)
        return answers

    async def make_opaque_logs(self, count: int, prefix: str) -> list[LogId]:
        logs: list[LogId] = await self.worker.run(
            building.make_logs,
            Making(
                url=self.deployment.store_url,
                socket=str(self.engine.socket),
                tenant=self.deployment.tenant_id,
                prefix=f"{prefix}.{next(self._names)}",
                count=count,
            ),
        )
        return logs

    async def grow(
        self, log_id: LogId, commits: int, *, keys: int, value_bytes: int, batch: int = 1
    ) -> int:
        """The log's version, once it has that many commits more; see `building.Growing`."""
        engine = self.engine
        version: int = await self.worker.run(
            building.grow,
            Growing(
                url=engine.url,
                socket=str(engine.socket),
                tenant=self.deployment.tenant_id,
                log_id=log_id,
                commits=commits,
                keys=keys,
                value_bytes=value_bytes,
                batch=batch,
            ),
        )
        await self.settle()
        return version

    async def make_sealed_logs(self, count: int, prefix: str) -> list[SealedWriter]:
        """Writers, each the owner of a log of its own."""
        writers = []
        async with aiohttp.ClientSession() as session:
            api = NativeApi(
                session, endpoints=[self.api.url], apikey=self.apikey, rng=random.Random(0)
            )
            for i in range(count):
                seed = f"{prefix}-{i}".encode().ljust(32, b".")
                writer = SealedWriter(seed, max_lag=limits.MAX_LAG)
                await _create_sealed(api, writer)
                writers.append(writer)
        return writers

    async def versions_stored(self, logs: Sequence[LogId]) -> list[int]:
        """XLEN of each log's stream: how many versions the engine holds."""
        async with (
            store_at(self.deployment.store_url) as store,
            store.pipeline(transaction=False) as pipe,
        ):
            for log in logs:
                pipe.xlen(keys.of_log(log).commits)
            counts: list[int] = await pipe.execute()
            return counts

    async def metric(self, name: str) -> float:
        """A number that the API process tells of itself."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self.api.url}/metrics") as response,
        ):
            for line in (await response.text()).splitlines():
                if line.startswith(f"{name} "):
                    return float(line.split()[1])
        raise CheckFailed(f"the server tells no {name}")


async def _create_sealed(api: NativeApi, writer: SealedWriter) -> None:
    genesis = writer.genesis
    answer = await api.ask(
        "PUT",
        paths.name(writer.token),
        body={
            "genesis": {
                "header": genesis.header,
                "signature": genesis.signature,
                "body": genesis.body,
            }
        },
    )
    check(answer.status == 201, f"a sealed log was not made: {answer}")


def port_of(service: Service) -> int:
    port = urlsplit(service.url).port
    assert port is not None
    return port


class SharedStage:
    """The one stage of all who want no other, while it is open: nobody waits for starts.

    Each has logs of its own there. `close` ends what was started; the next to ask starts anew.
    """

    def __init__(self) -> None:
        self._leaving = AsyncExitStack()
        self._stage: Stage | None = None

    async def get(self) -> Stage:
        if self._stage is None:
            self._stage = await self._leaving.enter_async_context(_new_stage())
        await self._stage.settle()
        return self._stage

    async def close(self) -> None:
        self._stage = None
        await self._leaving.aclose()

    async def __aenter__(self) -> Self:
        self._was = _shared.set(self)
        return self

    async def __aexit__(self, *_: object) -> None:
        _shared.reset(self._was)
        await self.close()


_shared: ContextVar[SharedStage | None] = ContextVar("shared stage", default=None)


@asynccontextmanager
async def stage(
    processes: int = 1, *, alone: bool = False, arguments: Sequence[str] = ()
) -> AsyncIterator[Stage]:
    """An engine that syncs each write, and API processes on it, with `arguments`.

    Shared with others where it is a plain one and a `SharedStage` is open, unless `alone`.
    """
    shared = _shared.get()
    if shared is not None and processes == 1 and not arguments and not alone:
        yield await shared.get()
    else:
        async with _new_stage(processes, arguments) as made:
            yield made


@asynccontextmanager
async def _new_stage(processes: int = 1, arguments: Sequence[str] = ()) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as leaving:
        folder = Path(leaving.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        engine = await start_engine(folder / "data")
        deployment = Deployment(folder, engine, None)
        leaving.push_async_callback(deployment.stop)
        await deployment.make_tenant()
        await asyncio.gather(
            *(deployment.start_service(*SETTINGS, *arguments) for _ in range(processes))
        )
        worker = await Worker.start()
        leaving.push_async_callback(worker.stop)
        yield Stage(
            deployment=deployment, engine=engine, worker=worker, folder=folder, _leaving=leaving
        )


@asynccontextmanager
async def clustered_stage(*arguments: str) -> AsyncIterator[Stage]:
    """A cluster of 3 + 3 nodes that sync each write, and one API process on it.

    `engine` is one of its primaries, which serves about a third of the logs.
    """
    async with AsyncExitStack() as leaving:
        folder = Path(leaving.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        cluster = await start_nodes(folder / "nodes")
        leaving.push_async_callback(cluster.stop)
        processes = Processes(folder, cluster.url)
        leaving.push_async_callback(processes.stop)
        await processes.make_tenant()
        await processes.start_service(*SETTINGS, *arguments)
        worker = await Worker.start()
        leaving.push_async_callback(worker.stop)
        [primary, *_] = await cluster.primaries()
        yield Stage(
            deployment=processes,
            engine=primary.engine,
            worker=worker,
            folder=folder,
            _leaving=leaving,
        )

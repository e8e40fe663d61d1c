"""Real clusters for tests: primaries and replicas on loopback, to be killed, frozen and resharded.

Owns the nodes and their places. What forms them is what `deploy` gives to operators. Knows
nothing of the service.

Fixtures: `cluster` (3 + 3 nodes of the embedded engine, shared by a worker's tests, given out
empty) and `start_cluster`, a factory for tests that break theirs.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import pytest
import pytest_asyncio
from redis.asyncio import Redis
from redis.exceptions import RedisError

from deploy.cluster.forming import SLOTS, Address, form
from tests.support.engines import Engine, start_engine
from tests.support.polling import until
from tests.support.ports import free_port

NODE_TIMEOUT_SECONDS = 1.5
# Bounded memory; `min-replicas-to-write` is left out, so that tests see what WAIT alone does.
NODE_SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        "cluster-enabled": "yes",
        "cluster-node-timeout": str(int(NODE_TIMEOUT_SECONDS * 1_000)),
        "cluster-require-full-coverage": "no",
        "repl-backlog-size": "4mb",
        "repl-diskless-sync-delay": "0",
        "maxmemory": "256mb",
    }
)


@dataclass(slots=True, kw_only=True)
class Node:
    """One process of the cluster. `id` is the cluster's name for it."""

    engine: Engine
    port: int
    bus: int
    id: str = ""

    def client(self) -> Redis:
        """For what a test does to the node itself; a short deadline, text replies."""
        return Redis(port=self.port, socket_timeout=5.0, decode_responses=True)


class Cluster:
    """Primaries first, then their replicas, as they were formed."""

    def __init__(self, nodes: list[Node], primaries: int) -> None:
        self.nodes = nodes
        self._primaries = primaries

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        return f"redis://{hosts}/?cluster=true"

    async def form(self, replicas: int) -> None:
        addresses = [Address("127.0.0.1", node.port, node.bus) for node in self.nodes]
        await form(addresses, replicas=replicas)
        for node in self.nodes:
            async with node.client() as client:
                node.id = str(await client.execute_command("CLUSTER", "MYID"))

    async def primaries(self) -> list[Node]:
        """The nodes that serve slots now, by what a majority of living nodes would tell."""
        views = [view for node in self.nodes if (view := await self._view(node)) is not None]
        newest = max(views, key=lambda view: view[0])[1]
        by_port = {node.port: node for node in self.nodes}
        return [by_port[port] for port in dict.fromkeys(newest)]

    async def primary_of(self, slot: int) -> Node:
        for node in await self.primaries():
            async with node.client() as client:
                rows = await client.execute_command("CLUSTER", "SLOTS")
            for first, last, (_, port, *_rest), *_replicas in rows:
                if first <= slot <= last:
                    return next(each for each in self.nodes if each.port == port)
        raise AssertionError(f"slot {slot} is served by nobody")

    async def replicas_of(self, primary: Node) -> list[Node]:
        async with primary.client() as client:
            told = await client.info("replication")
        ports = {
            int(value["port"])
            for name, value in told.items()
            if name.startswith("slave") and isinstance(value, dict)
        }
        return [node for node in self.nodes if node.port in ports]

    async def _view(self, node: Node) -> tuple[int, list[int]] | None:
        """Epoch and the primaries' ports by slot range, as the node sees them."""
        try:
            async with node.client() as client:
                told = await client.execute_command("CLUSTER", "INFO")
                rows = await client.execute_command("CLUSTER", "SLOTS")
        except (RedisError, OSError):
            return None
        lines = dict(line.split(":", 1) for line in str(told).split("\r\n") if ":" in line)
        return int(lines["cluster_current_epoch"]), [row[2][1] for row in rows]

    async def until_whole(self, *, within_seconds: float = 30.0) -> None:
        """Returns when every living node sees every slot served."""

        async def is_whole() -> bool:
            for node in self.nodes:
                if not node.engine.alive:
                    continue
                try:
                    async with node.client() as client:
                        told = str(await client.execute_command("CLUSTER", "INFO"))
                except (RedisError, OSError):
                    return False
                if "cluster_state:ok" not in told or f"cluster_slots_ok:{SLOTS}" not in told:
                    return False
            return True

        await until(is_whole, within_seconds=within_seconds, what="the cluster is whole")

    async def stop_replicating(self, primary: Node, *, stopped: bool = True) -> None:
        """Its replicas are told another password than there is, and cut off; or the right one."""
        for replica in await self.replicas_of(primary):
            async with replica.client() as client:
                await client.config_set("masterauth", "another" if stopped else "")
                if stopped:
                    await client.execute_command("CLIENT", "KILL", "TYPE", "master")

    async def until_replaced(self, primary: Node, *, within_seconds: float = 20.0) -> None:
        """Returns when others see somebody else serve its slots."""

        async def is_replaced() -> bool:
            return primary not in await self.primaries()

        await until(is_replaced, within_seconds=within_seconds, what="a replica was promoted")

    async def move_slot(self, slot: int, target: Node) -> None:
        """Key by key, so that for a while some of a log's are here and some are there."""
        source = await self.primary_of(slot)
        if source is target:
            return
        async with source.client() as giving, target.client() as taking:
            await taking.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
            await giving.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
            while found := await giving.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100):
                for key in found:
                    await giving.execute_command(
                        *("MIGRATE", "127.0.0.1", target.port, key, 0, 30_000)
                    )
            for each in (taking, giving):
                await each.execute_command("CLUSTER", "SETSLOT", slot, "NODE", target.id)

    async def move_slot_whole(self, slot: int, target: Node) -> None:
        """By the engine itself, all at one moment: Valkey 9 and newer."""
        source = await self.primary_of(slot)
        if source is target:
            return
        async with source.client() as giving:
            await giving.execute_command(
                *("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", target.id)
            )

        async def is_there() -> bool:
            return await self.primary_of(slot) is target

        await until(is_there, what=f"slot {slot} has moved")

    async def flush(self) -> None:
        """No keys and no functions; slots and nodes stay."""
        for node in await self.primaries():
            async with node.client() as client:
                await client.flushall()
                await client.function_flush("SYNC")

    async def stop(self) -> None:
        await asyncio.gather(*(node.engine.stop() for node in self.nodes))


async def start_nodes(
    folder: Path,
    *,
    primaries: int = 3,
    replicas: int = 1,
    server: Path | None = None,
    settings: Mapping[str, str] = MappingProxyType({}),
) -> Cluster:
    """A formed cluster whose nodes keep their data in `folder`. The caller stops it."""

    async def start(number: int) -> Node:
        port, bus = free_port(), free_port()
        engine = await start_engine(
            folder / f"node-{number}",
            server=server,
            settings={**NODE_SETTINGS, "cluster-port": str(bus), **settings},
            tcp_port=port,
        )
        return Node(engine=engine, port=port, bus=bus)

    started = await asyncio.gather(*(start(n) for n in range(primaries * (replicas + 1))))
    cluster = Cluster(list(started), primaries)
    try:
        await cluster.form(replicas)
    except BaseException:
        await cluster.stop()
        raise
    return cluster


StartCluster = Callable[..., Awaitable[Cluster]]


@pytest_asyncio.fixture
async def start_cluster(tmp_path: Path) -> AsyncIterator[StartCluster]:
    """`await start_cluster(primaries=3, replicas=1)`: a cluster of the test's own."""
    started: list[Cluster] = []

    async def start(
        *,
        primaries: int = 3,
        replicas: int = 1,
        server: Path | None = None,
        settings: Mapping[str, str] = MappingProxyType({}),
    ) -> Cluster:
        folder = tmp_path / f"cluster-{len(started)}"
        cluster = await start_nodes(
            folder, primaries=primaries, replicas=replicas, server=server, settings=settings
        )
        started.append(cluster)
        return cluster

    yield start
    for cluster in started:
        await cluster.stop()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    cluster = await start_nodes(tmp_path_factory.mktemp("cluster"))
    yield cluster
    await cluster.stop()


@pytest_asyncio.fixture
async def cluster(shared_cluster: Cluster) -> Cluster:
    """An empty cluster; shared by a worker's tests, one after another, which leave it whole."""
    await shared_cluster.flush()
    return shared_cluster

"""A client of a cluster: each command goes to the node that serves its key.

Owns the map of slots, and what a node's "not here" means. Such an answer (MOVED, ASK, TRYAGAIN)
is certain to have done nothing, so the command is sent on; for a lost connection that is not
so, and nothing is ever sent twice. Knows nothing of what is stored.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, cast

import structlog
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import (
    AskError,
    ClusterDownError,
    ConnectionError,  # noqa: A004 - redis-py's own name
    MovedError,
    RedisError,
    ResponseError,
    TimeoutError,  # noqa: A004 - redis-py's own name
    TryAgainError,
)

from indelible_server.store.batching import Argument, Deliver
from indelible_server.store.replicas import NodeClient
from indelible_server.store.slots import Address, SlotMap, key_of, read_slot_map, slot_of
from indelible_server.store.subscription import ClusterSubscription

log = structlog.get_logger(__name__)

_VIEWS = 5
_PART_SLOTS = 512
_VIEW_SECONDS = 1.0
_REFRESH_PAUSE_SECONDS = 0.1
_PAUSES = (0.002, 0.05)
# What another map of the cluster might mend.
_DOUBTS = (ConnectionError, TimeoutError, ClusterDownError, OSError)
_Command = tuple[tuple[Any, ...], dict[str, Any]]


class SlotUnsettled(ResponseError):
    """A slot was between two nodes for too long; nothing was done."""

    def __init__(self) -> None:
        super().__init__("MOVING the key's slot is on its way between two nodes")


class Cluster(Redis):
    """Looks like a client of one node. `make_node` makes the bounded client of an address."""

    def __init__(
        self,
        seeds: Sequence[Address],
        make_node: Callable[[Address], NodeClient],
        *,
        timeout_seconds: float,
    ) -> None:
        self._seeds = tuple(seeds)
        self._make_node = make_node
        self._timeout_seconds = timeout_seconds
        self._nodes: dict[Address, NodeClient] = {}
        self._map: SlotMap | None = None
        self._refreshing: asyncio.Task[SlotMap] | None = None
        self._going_on: set[asyncio.Task[None]] = set()
        super().__init__(connection_pool=_ClusterPool(self))

    # What stands in for a client of one node.

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        key = key_of(args)
        if key is None:
            [node, *_] = await self.primaries()
            return await node.execute_command(*args, **options)

        async def send(node: NodeClient, asking: bool) -> Any:
            if asking:
                return await node.execute_asking(*args, **options)
            return await node.execute_command(*args, **options)

        return await self._settled(slot_of(key), send)

    def begin(self, command: Sequence[Argument], deliver: Deliver) -> None:
        """`execute_command` of a small command; without a task where nothing is in the way."""
        key = key_of(command)
        owner = self._map.owners[slot_of(key)] if self._map and key else None
        if owner is None:
            self._go_on(command, deliver)
        else:
            self.node(owner).begin(command, partial(self._begun, command, deliver))

    def _begun(self, command: Sequence[Argument], deliver: Deliver, reply: object) -> None:
        if _is_astray(reply):
            self._go_on(command, deliver)
            return
        if isinstance(reply, _DOUBTS):
            self.doubt()
        deliver(reply)

    def _go_on(self, command: Sequence[Argument], deliver: Deliver) -> None:
        task = asyncio.ensure_future(self._deliver(command, deliver))
        self._going_on.add(task)
        task.add_done_callback(self._going_on.discard)

    async def _deliver(self, command: Sequence[Argument], deliver: Deliver) -> None:
        try:
            reply = await self.execute_command(*command)
        except (RedisError, OSError) as error:
            reply = error
        deliver(reply)

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> "Pipeline":
        return _ClusterPipeline(self, transaction)

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        if self._refreshing is not None:
            self._refreshing.cancel()
            with suppress(asyncio.CancelledError, RedisError, OSError):
                await self._refreshing
        for node in self._nodes.values():
            await node.aclose(close_connection_pool=True)

    def abandon(self) -> None:
        """Trusts no connection any more that carries batches."""
        for node in self._nodes.values():
            node.abandon()

    # Nodes and slots.

    async def primaries(self) -> list[NodeClient]:
        found = self._map or await self.refresh()
        return [self.node(address) for address in found.primaries]

    def node(self, address: Address) -> NodeClient:
        node = self._nodes.get(address)
        if node is None:
            node = self._nodes[address] = self._make_node(address)
        return node

    async def owner_of(self, slot: int) -> Address:
        """
        Raises:
            ClusterDownError: nobody serves it.
            ConnectionError: no node can be asked.
        """
        found = self._map or await self.refresh()
        owner = found.owners[slot]
        if owner is None:
            owner = (await self.refresh()).owners[slot]
        if owner is None:
            raise ClusterDownError("CLUSTERDOWN the key's slot is served by no node")
        return owner

    def moved(self, slot: int, owner: Address) -> None:
        """A node has said who serves the slot now; the rest of the map may be old as well."""
        if self._map is not None:
            self._map.owners[slot] = owner
        self.doubt()

    def doubt(self) -> None:
        """Something failed that another map might mend: looks at the cluster again, soon."""
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.ensure_future(self._refresh())
            self._refreshing.add_done_callback(_retrieve)

    async def refresh(self) -> SlotMap:
        """The newest of several nodes' views, taken now; one taking for all who ask at once.

        Raises:
            ConnectionError: no node tells.
        """
        self.doubt()
        assert self._refreshing is not None
        return await asyncio.shield(self._refreshing)

    async def _refresh(self) -> SlotMap:
        known = self._map.nodes if self._map else ()
        asked = [*random.sample(known, min(len(known), _VIEWS)), *self._seeds]
        views = await asyncio.gather(*map(self._view, dict.fromkeys(asked)))
        newest = max(filter(None, views), key=lambda view: view.epoch, default=None)
        if newest is None:
            await asyncio.sleep(_REFRESH_PAUSE_SECONDS)
            raise ConnectionError("Error connecting to any node of the cluster")
        before, now = set(self._map.primaries if self._map else ()), set(newest.primaries)
        self._map = newest
        if before and before != now:
            log.info("cluster.changed", primaries=len(now), epoch=newest.epoch)
        for address in before - now:
            await self._let_go(address)
        for address in set(self._nodes) - {*newest.nodes, *self._seeds}:
            await self._nodes.pop(address).aclose(close_connection_pool=True)
        await asyncio.sleep(_REFRESH_PAUSE_SECONDS)  # many failures make one look
        return newest

    async def _let_go(self, address: Address) -> None:
        """A node that lost its rank is not listened to: what it answers may be of the past."""
        if address in self._nodes:
            node = self._nodes[address]
            node.abandon()
            await node.connection_pool.disconnect(inuse_connections=True)

    async def _view(self, address: Address) -> SlotMap | None:
        node = self.node(address)
        try:
            async with asyncio.timeout(_VIEW_SECONDS):
                info = await node.execute_command("CLUSTER", "INFO")
                rows = await node.execute_command("CLUSTER", "SLOTS")
        except (RedisError, OSError):
            return None
        return read_slot_map(info, rows, address) if rows else None

    # Sending.

    async def _settled(self, slot: int, send: Callable[[NodeClient, bool], Awaitable[Any]]) -> Any:
        """What `send` gives on the node that serves the slot, wherever it has gone meanwhile.

        Raises:
            SlotUnsettled: it was between two nodes until the time was up.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout_seconds
        address, asking = await self.owner_of(slot), False
        pause, most = _PAUSES
        while True:
            try:
                return await send(self.node(address), asking)
            except MovedError as told:
                address, asking = _told_by(address, told), False
                self.moved(slot, address)
            except AskError as told:
                address, asking = _told_by(address, told), True
            except TryAgainError:
                # Some of a log's keys are here, some there: the slot is as good as gone.
                await asyncio.sleep(random.uniform(pause / 2, pause))
                pause = min(2 * pause, most)
                address, asking = await self.owner_of(slot), False
            except _DOUBTS:
                self.doubt()
                raise
            if loop.time() > deadline:
                raise SlotUnsettled

    async def send_all(self, commands: Sequence[_Command]) -> list[Any]:
        """Each command's answer or error; one pipeline for each node that serves some of them."""
        places: dict[Address, list[int]] = defaultdict(list)
        for at, (args, _) in enumerate(commands):
            key = key_of(args)
            assert key is not None, "a pipeline's commands name keys"
            places[await self.owner_of(slot_of(key))].append(at)
        answers: list[Any] = [None] * len(commands)
        parts = await asyncio.gather(
            *(self._send_part(node, [commands[at] for at in ats]) for node, ats in places.items()),
            return_exceptions=True,
        )
        for part, ats in zip(parts, places.values(), strict=True):
            if isinstance(part, BaseException):
                raise part
            for at, answer in zip(ats, part, strict=True):
                answers[at] = answer
        astray = [at for at, answer in enumerate(answers) if _is_astray(answer)]
        again = (self.execute_command(*commands[at][0], **commands[at][1]) for at in astray)
        for at, answer in zip(
            astray, await asyncio.gather(*again, return_exceptions=True), strict=True
        ):
            answers[at] = answer
        return answers

    async def _send_part(self, address: Address, commands: Sequence[_Command]) -> list[Any]:
        try:
            return await _run(self.node(address), commands, transaction=False)
        except (ConnectionError, TimeoutError, OSError):
            self.doubt()
            raise

    async def transact(self, commands: Sequence[_Command]) -> list[Any]:
        """All of them at one moment, on keys of one slot."""

        async def send(node: NodeClient, asking: bool) -> list[Any]:
            # A transaction cannot ask: it waits until its slot has moved.
            if asking:
                raise TryAgainError("the slot is on its way")
            return await _run(node, commands, transaction=True)

        key = key_of(commands[0][0])
        assert key is not None, "a transaction's commands name keys"
        answers: list[Any] = await self._settled(slot_of(key), send)
        return answers


async def members(redis: Redis) -> dict[str, Redis]:
    """All nodes by name, from a new look at a cluster; an engine by itself has none."""
    if not isinstance(redis, Cluster):
        return {"": redis}
    seen = await redis.refresh()
    return {seen.names[address]: redis.node(address) for address in seen.nodes}


def part_of(redis: Redis, key: str) -> int:
    """A share of the slots, so small that few nodes serve it; an engine by itself has one."""
    return slot_of(key) // _PART_SLOTS if isinstance(redis, Cluster) else 0


async def primaries(redis: Redis) -> Sequence[Redis]:
    """The nodes that take writes: of a cluster its primaries, else the engine itself."""
    return await redis.primaries() if isinstance(redis, Cluster) else [redis]


async def _run(node: NodeClient, commands: Sequence[_Command], *, transaction: bool) -> list[Any]:
    async with node.pipeline(transaction=transaction) as pipe:
        for args, options in commands:
            pipe.execute_command(*args, **options)
        answers: list[Any] = await pipe.execute(raise_on_error=False)
    return answers


def _told_by(teller: Address, told: AskError) -> Address:
    return Address(told.host or teller.host, told.port)


def _is_astray(answer: object) -> bool:
    return isinstance(answer, (AskError, TryAgainError))


def _retrieve(task: "asyncio.Task[SlotMap]") -> None:
    if not task.cancelled():
        task.exception()  # nobody may be waiting for it; asyncio would complain otherwise


class _ClusterPipeline(Pipeline):
    """Collects commands as redis-py's does, and sends them where their keys live."""

    def __init__(self, cluster: Cluster, transaction: bool) -> None:
        super().__init__(cluster.connection_pool, cluster.response_callbacks, transaction, None)
        self._cluster = cluster

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        commands = cast("list[_Command]", self.command_stack)
        self.command_stack = []
        if not commands:
            return []
        if self.is_transaction:
            answers = await self._cluster.transact(commands)
        else:
            answers = await self._cluster.send_all(commands)
        if raise_on_error:
            for answer in answers:
                if isinstance(answer, Exception):
                    raise answer
        return answers


class _ClusterPool(ConnectionPool):
    """Where code of one node looks for connections: none of its own, but those of the nodes."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__()
        self._cluster = cluster

    def make_connection(self) -> AbstractConnection:
        """A connection that listens to all nodes."""
        return cast("AbstractConnection", ClusterSubscription(self._cluster))

    async def disconnect(self, inuse_connections: bool = True) -> None:
        for node in self._cluster._nodes.values():
            await node.connection_pool.disconnect(inuse_connections=inuse_connections)

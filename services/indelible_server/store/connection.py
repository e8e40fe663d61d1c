"""Clients of the store, and what their failures mean.

redis-py is told not to do what it does by default: send a command again by itself (a commit
would enter twice), wait for ever, or open connections without bound. Knows nothing of what
is stored.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from indelible_protocol.errors import ErrorCode
from msgspec import Struct
from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ConnectionError,  # noqa: A004 - redis-py's own name
    MaxConnectionsError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from indelible_server.store.addresses import read_address
from indelible_server.store.batching import AnswerLost, BatchingRedis, NotSent
from indelible_server.store.cluster import Cluster
from indelible_server.store.errors import (
    DamagedError,
    OutcomeUnknown,
    Refusal,
    StoreUnavailable,
)
from indelible_server.store.replicas import NodeClient
from indelible_server.store.slots import Address

_CANCELLED_AGAIN_SECONDS = 0.1
_WAIT_SHARE = 0.5  # of a write's time is for its replicas
_NOT_DONE = (
    "BUSY ",
    "ERR Function not found",
    "Function not found",
    "NOAUTH",
    "NOPERM",
    "WRONGPASS",
    "CLUSTERDOWN",
    "MASTERDOWN",
    "MOVING",
    "NOREPLICAS",
)
_DAMAGED = ("user_function:", "WRONGTYPE ")


class Clients(Struct, frozen=True):
    """Two clients of one store: for commands, and for the connection that listens.

    `replicas`: how many hold a write before it counts as done.
    """

    commands: Redis
    subscriber: Redis
    replicas: int = 0

    async def close(self) -> None:
        await self.commands.aclose(close_connection_pool=True)
        await self.subscriber.aclose(close_connection_pool=True)


def connect(
    url: str, *, connections: int, timeout_seconds: float, wait_replicas: int | None = None
) -> Clients:
    """Commands have deadlines, a bounded pool for each node and no hidden retries, and travel in
    batches where their answers are small; the subscriber may be silent for as long as it likes.

    `wait_replicas` must hold a write before it counts as done: by itself 1 in a cluster, else 0.

    Raises:
        ValueError: not a URL that the client understands.
    """
    address = read_address(url)
    replicas = int(address.is_cluster) if wait_replicas is None else wait_replicas
    wait_ms = max(1, int(timeout_seconds * 1_000 * _WAIT_SHARE))

    def commanding(node_url: str) -> NodeClient:
        pool = BlockingConnectionPool.from_url(
            node_url,
            max_connections=connections,
            timeout=timeout_seconds,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
            retry=Retry(NoBackoff(), 0),
            retry_on_error=[],
            protocol=2,
            health_check_interval=0,
            client_name="indelible-api",
        )
        return NodeClient(
            connection_pool=pool,
            timeout_seconds=timeout_seconds,
            replicas=replicas,
            wait_ms=wait_ms,
        )

    def listening(node_url: str) -> NodeClient:
        pool = ConnectionPool.from_url(
            node_url,
            socket_timeout=None,
            socket_connect_timeout=timeout_seconds,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            health_check_interval=0,
            client_name="indelible-wakeups",
        )
        return NodeClient(
            connection_pool=pool, timeout_seconds=timeout_seconds, replicas=0, wait_ms=0
        )

    def client(make: Callable[[str], NodeClient]) -> Redis:
        if not address.is_cluster:
            return make(address.url)

        def make_node(node: Address) -> NodeClient:
            return make(address.url_of(node))

        return Cluster(address.seeds, make_node, timeout_seconds=timeout_seconds)

    return Clients(commands=client(commanding), subscriber=client(listening), replicas=replicas)


async def end_tasks(*tasks: "asyncio.Task[Any]") -> None:
    """Cancels tasks that use the store until they end.

    Once may not be enough: redis-py sends under asyncio.wait_for, which before Python 3.12 loses
    a cancellation that comes when the sending has just ended (bpo-42130).
    """
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_CANCELLED_AGAIN_SECONDS)


@asynccontextmanager
async def store_answer() -> AsyncIterator[None]:
    """For reads: any failure of the store's client becomes what `read_refusal` says."""
    try:
        yield
    except (RedisError, OSError, TimeoutError) as error:
        raise read_refusal(error) from error


def read_refusal(error: Exception) -> Refusal:
    """DamagedError where a function of ours, or a command, finds what it cannot have written."""
    if isinstance(error, ResponseError) and str(error).startswith(_DAMAGED):
        return DamagedError("a function of the store fails on it")
    return StoreUnavailable(_reason(error))


@asynccontextmanager
async def write_outcome() -> AsyncIterator[None]:
    """For writes: any failure of the store's client becomes what `write_refusal` says."""
    try:
        yield
    except (RedisError, OSError, TimeoutError) as error:
        raise write_refusal(error) from error


def write_refusal(error: Exception) -> Refusal:
    """Tells what was certainly not done from what may have been.

    Full memory or disk is STORAGE_FULL; no connection or a refusal to start is
    StoreUnavailable; all else that comes after sending is OutcomeUnknown.
    """
    text = str(error)
    if isinstance(error, (NotSent, MaxConnectionsError, AuthenticationError)):
        return StoreUnavailable(_reason(error))
    if isinstance(error, OutOfMemoryError) or (isinstance(error, ResponseError) and "OOM" in text):
        return Refusal(ErrorCode.STORAGE_FULL, "the store's memory is full")
    if isinstance(error, ResponseError) and not isinstance(error, ReadOnlyError):
        if text.startswith("MISCONF"):
            return Refusal(ErrorCode.STORAGE_FULL, "the store cannot write to its disk")
        if text.startswith(_NOT_DONE):
            return StoreUnavailable(_reason(error))
    if isinstance(error, ConnectionError) and not isinstance(error, BusyLoadingError):
        if "Error connecting" in text:
            return StoreUnavailable("no connection")
        if "No connection available" in text:
            return StoreUnavailable("every connection is busy")
    return OutcomeUnknown(_reason(error))


async def distrust(redis: Redis) -> None:
    """An answer was another call's: no connection that is open is used again."""
    if isinstance(redis, (BatchingRedis, Cluster)):
        redis.abandon()
    await redis.connection_pool.disconnect(inuse_connections=False)


def _reason(error: BaseException) -> str:
    """A word for the operator; foreign text may hold addresses or arguments and is left out."""
    if isinstance(error, (NotSent, AnswerLost)):
        return str(error)
    text = str(error).split(" ", 1)[0]
    return text if text.isupper() and text.isalpha() else type(error).__name__

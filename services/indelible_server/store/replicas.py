"""Writes that are acknowledged once so many replicas hold them.

WAIT looks at its own connection, so it goes with the writes it is for, at the end of their batch.
A count that falls short leaves them in doubt: they are in the primary, and may be in some replica.
Reads have connections of their own: a replica that is slow holds up no reader. Knows nothing of
what is written.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError, RedisError  # noqa: A004

from indelible_server.store.batching import (
    BATCHED,
    Argument,
    Asked,
    Batcher,
    BatchingRedis,
    Deliver,
    NotSent,
    packed,
)

_READS = frozenset(
    {
        *("CLUSTER", "CONFIG", "FUNCTION", "INFO", "PING"),
        *("EXISTS", "FCALL_RO", "GET", "HGET", "HGETALL", "HMGET", "LRANGE", "SISMEMBER"),
        *("SMEMBERS", "XRANGE", "XREAD", "XREVRANGE", "ZCARD", "ZRANGE", "ZRANGEBYLEX"),
        *("ZRANGEBYSCORE", "ZREVRANGEBYSCORE"),
    }
)


class ShortOfReplicas(RedisError):
    """A write is in the primary, and in fewer replicas than an acknowledgement promises."""


def is_write(command: Sequence[Any]) -> bool:
    """What is not known as a read counts as a write: it costs a WAIT, and no promise."""
    return command[0].partition(" ")[0] not in _READS


class NodeClient(BatchingRedis):
    """A client of one node; `replicas` of it must have a write within `wait_ms`."""

    def __init__(
        self,
        *,
        connection_pool: ConnectionPool,
        timeout_seconds: float,
        replicas: int,
        wait_ms: int,
    ) -> None:
        super().__init__(connection_pool=connection_pool, timeout_seconds=timeout_seconds)
        self._replicas = replicas
        self._wait = ("WAIT", replicas, wait_ms)
        self._writes = self.batcher
        if replicas:
            self._writes = _WaitingBatcher(
                connection_pool.make_connection,
                timeout_seconds=timeout_seconds,
                wait=packed(self._wait),
                replicas=replicas,
            )

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        if not is_write(args):
            return await super().execute_command(*args, **options)
        if args[0] in BATCHED:
            return await self._writes.execute(*args)
        return await self._send(args, options)

    def begin(self, command: Sequence[Argument], deliver: Deliver) -> None:
        (self._writes if is_write(command) else self.batcher).ask(command, deliver)

    async def execute_asking(self, *args: Any, **options: Any) -> Any:
        """As `execute_command`, of a node that is only just taking over the key's slot."""
        return await self._send(args, options, before=("ASKING",))

    def abandon(self) -> None:
        super().abandon()
        self._writes.abandon()

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        await self._writes.close()
        await super().aclose(close_connection_pool)

    async def _send(
        self, args: Sequence[Any], options: dict[str, Any], before: Sequence[str] = ()
    ) -> Any:
        waits = self._replicas > 0 and is_write(args)
        async with self.pipeline(transaction=False) as pipe:
            for word in before:
                pipe.execute_command(word)
            pipe.execute_command(*args, **options)
            if waits:
                pipe.execute_command(*self._wait)
            answers = await pipe.execute(raise_on_error=False)
        answer = answers[len(before)]
        if isinstance(answer, Exception):
            raise answer
        if waits and (short := _shortfall(answers[-1], self._replicas)) is not None:
            raise short
        return answer


class _WaitingBatcher(Batcher):
    """Each batch ends in a WAIT; until its count is known no answer of the batch is given."""

    def __init__(
        self,
        make_connection: Callable[[], AbstractConnection],
        *,
        timeout_seconds: float,
        wait: bytes,
        replicas: int,
    ) -> None:
        super().__init__(make_connection, timeout_seconds=timeout_seconds)
        self._wait = wait
        self._replicas = replicas

    def ask(
        self,
        command: Sequence[Argument],
        deliver: Deliver,
        caller: "asyncio.Future[Any] | None" = None,
    ) -> None:
        super().ask(command, _Held(deliver), caller)

    def _next_batch(self) -> list[Asked]:
        batch = super()._next_batch()
        if batch:
            held = [asked[2] for asked in batch]
            batch.append((batch[0][0], self._wait, partial(self._waited, held), None))
        return batch

    def _waited(self, held: Sequence[Deliver], count: object) -> None:
        short = _shortfall(count, self._replicas)
        for each in held:
            assert isinstance(each, _Held)
            each.release(short)


class _Held:
    """An answer that is kept until it is known whether it may be given."""

    __slots__ = ("_answer", "_deliver")

    def __init__(self, deliver: Deliver) -> None:
        self._deliver = deliver
        self._answer: object = None

    def __call__(self, answer: object) -> None:
        if isinstance(answer, NotSent):  # no WAIT will follow
            self._deliver(answer)
        else:
            self._answer = answer

    def release(self, short: Exception | None) -> None:
        """A store's refusal is certain whoever has it; all else is in doubt if replicas lack it."""
        if short is None or isinstance(self._answer, Exception):
            self._deliver(self._answer)
        else:
            self._deliver(short)


def _shortfall(count: object, replicas: int) -> Exception | None:
    if isinstance(count, int):
        if count >= replicas:
            return None
        return ShortOfReplicas(f"{count} of {replicas} replicas have it")
    if isinstance(count, ConnectionError):
        return count
    # An error in the count's place: the node lost its rank while it waited.
    return ShortOfReplicas("the node could not wait for its replicas")

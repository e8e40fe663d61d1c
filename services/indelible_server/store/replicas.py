"""Writes that are acknowledged once so many replicas hold them.

WAIT looks at its own connection, so it goes with the writes, in one pipeline. A count that falls
short leaves them in doubt: they are in the primary, and may be in some replica. Knows nothing of
what is written.
"""

from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

_READS = frozenset(
    {
        *("CLUSTER", "CONFIG", "FUNCTION", "INFO", "PING"),
        *("EXISTS", "FCALL_RO", "GET", "HGET", "HGETALL", "HMGET", "LRANGE", "SISMEMBER"),
        *("SMEMBERS", "XRANGE", "XREAD", "XREVRANGE", "ZCARD", "ZRANGE", "ZRANGEBYLEX"),
    }
)


class ShortOfReplicas(RedisError):
    """A write is in the primary, and in fewer replicas than an acknowledgement promises."""


def is_write(command: Sequence[Any]) -> bool:
    """What is not known as a read counts as a write: it costs a WAIT, and no promise."""
    return command[0].partition(" ")[0] not in _READS


class NodeClient(Redis):
    """A client of one node; `replicas` of it must have a write within `wait_ms`."""

    def __init__(self, *, replicas: int, wait_ms: int, **settings: Any) -> None:
        super().__init__(**settings)
        self._replicas = replicas
        self._wait_ms = wait_ms

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        if not self._replicas or not is_write(args):
            return await Redis.execute_command(self, *args, **options)
        return await self._send(args, options)

    async def ask(self, *args: Any, **options: Any) -> Any:
        """As `execute_command`, of a node that is only just taking over the key's slot."""
        return await self._send(args, options, before=("ASKING",))

    async def _send(
        self, args: Sequence[Any], options: dict[str, Any], before: Sequence[str] = ()
    ) -> Any:
        waits = self._replicas > 0 and is_write(args)
        async with self.pipeline(transaction=False) as pipe:
            for word in before:
                pipe.execute_command(word)
            pipe.execute_command(*args, **options)
            if waits:
                pipe.execute_command("WAIT", self._replicas, self._wait_ms)
            answers = await pipe.execute(raise_on_error=False)
        answer = answers[len(before)]
        if isinstance(answer, Exception):
            raise answer
        # An error in the count's place: the node lost its rank while it waited.
        if waits and not (isinstance(answers[-1], int) and answers[-1] >= self._replicas):
            raise ShortOfReplicas(f"{answers[-1]} of {self._replicas} replicas have it")
        return answer

"""Whether the connection that listens lives: one PING for all who want to know it in one moment.

Its answer comes behind all that the store has sent before: who has it has missed nothing up to
then. Knows nothing of what is listened to, nor of who waits.
"""

import asyncio
from collections.abc import Callable
from itertools import count
from math import inf
from typing import NamedTuple

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

_FRESH_SECONDS = 0.5
_ANSWER_SECONDS = 1.0


class _Asked(NamedTuple):
    """A PING by its stamp; `answered` is False once no answer can come."""

    stamp: bytes
    answered: "asyncio.Future[bool]"


class Pulse:
    """`connection` gives the open one, or None; who reads from it hands over each answer."""

    def __init__(self, connection: Callable[[], AbstractConnection | None]) -> None:
        self._connection = connection
        self._stamps = count(1)
        self._asked: _Asked | None = None
        self._asking: asyncio.Task[bool] | None = None
        self._beat_at = -inf

    async def is_felt(self) -> bool:
        """Whether all that the store sent up to a second ago has come in."""
        if self._beat_at >= asyncio.get_running_loop().time() - _FRESH_SECONDS:
            return True
        if self._asking is None:
            self._asking = asyncio.ensure_future(self._ask())
        return await asyncio.shield(self._asking)

    async def _ask(self) -> bool:
        connection, loop = self._connection(), asyncio.get_running_loop()
        began = loop.time()
        asked = self._asked = _Asked(b"%d" % next(self._stamps), loop.create_future())
        try:
            if connection is None:
                return False
            async with asyncio.timeout(_ANSWER_SECONDS):
                await connection.send_command("PING", asked.stamp.decode(), check_health=False)
                if not await asked.answered:
                    return False
        except (TimeoutError, RedisError, OSError):
            return False
        finally:
            self._asking = None
        self._beat_at = began
        return True

    def take(self, stamp: bytes) -> None:
        """An answer to a PING, this one's or another's."""
        if self._asked is not None and stamp == self._asked.stamp:
            self._settle(answered=True)

    def stop(self) -> None:
        """The connection is lost."""
        self._beat_at = -inf
        self._settle(answered=False)

    def _settle(self, *, answered: bool) -> None:
        if self._asked is not None and not self._asked.answered.done():
            self._asked.answered.set_result(answered)

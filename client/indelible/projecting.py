"""Projections: a log derived from another one, each change counted once.

The derived log holds its own position in the source, under a key of its own, and every step
moves it in the very commit that holds what the step derived. So a step is in whole or not at
all, whoever dies when, and any number of instances may run: they race, one wins, the others
begin again behind it.
"""

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

from indelible.answers import Diff
from indelible.errors import NotFoundError, RequestError
from indelible.log import AsyncLog
from indelible.modes import Mode
from indelible.transacting import MAX_ATTEMPTS, AsyncTransaction

POSITION_KEY = "position"
MAX_VERSIONS = 100  # of the source, in one step

Derive = Callable[[Diff, AsyncTransaction], Awaitable[None]]


class AsyncProjection:
    """Derives `target` from `source`. `derive(diff, transaction)` reads and writes the target.

    `derive` gets the net changes of up to `max_versions` versions of the source, and may run
    again for the same ones if another instance was first: only what it does through the
    transaction counts once. The target's keys are strings or JSON, its values JSON or msgpack;
    `position_key` is the projection's own.
    """

    def __init__(
        self,
        source: AsyncLog,
        target: AsyncLog,
        derive: Derive,
        *,
        position_key: str = POSITION_KEY,
        max_versions: int = MAX_VERSIONS,
    ) -> None:
        check_projection(target.key_mode, target.value_mode, max_versions)
        self._source = source
        self._target = target
        self._derive = derive
        self._position_key = position_key
        self._max_versions = max_versions

    async def position(self) -> int:
        """The version of the source that the target has come to.

        Raises:
            NotFoundError: the target was derived from another log.
        """
        return self._read(await self._target.get(self._position_key))

    async def step(self) -> Diff | None:
        """Derives from the next versions; None if the target has come to the current one.

        Raises:
            NotFoundError: the target was derived from another log, or the source has forgotten
                versions that it has not come to.
            ConflictError: others were always first.
        """

        async def decide(transaction: AsyncTransaction) -> Diff | None:
            position = self._read(await transaction.get(self._position_key))
            current = await self._source.version
            if position == current:
                return None
            last = min(current, position + self._max_versions)
            changes = [change async for change in self._source.diff(position, last)]
            diff = Diff(position, last, tuple(changes))
            await self._derive(diff, transaction)
            transaction.set(self._position_key, self._spelled(last))
            return diff

        source = f"projection of {self._source.log_id[:16]}"
        done = await self._target.transact(decide, max_attempts=MAX_ATTEMPTS, source=source)
        return done.value

    async def run(self) -> None:
        """Steps for ever, as the source moves. Cancel it to end it."""
        while True:
            while await self.step() is not None:
                pass
            async with aclosing(self._source.follow(await self.position())) as diffs:
                await anext(diffs)

    def _read(self, held: Any) -> int:
        return read_position(held, self._source.log_id, self._position_key)

    def _spelled(self, version: int) -> dict[str, Any]:
        return {"source": self._source.log_id, "version": version}


def check_projection(key_mode: str, value_mode: str, max_versions: int) -> None:
    if key_mode == Mode.BINARY.word or value_mode not in (Mode.JSON.word, Mode.MSGPACK.word):
        raise RequestError(
            "a projection's target has keys that are no bytes and values of mode json or "
            f"msgpack: its own position is one; this one has {key_mode} and {value_mode}"
        )
    if max_versions < 1:
        raise RequestError(f"max_versions is {max_versions}, 1 or more expected")


def read_position(held: Any, source_id: str, key: str) -> int:
    if held is None:
        return 0
    try:
        origin, version = held["source"], int(held["version"])
    except (TypeError, KeyError, ValueError):
        raise RequestError(
            f"the target's key {key!r} holds no position: give the projection another position_key"
        ) from None
    if origin != source_id:
        raise NotFoundError(
            f"the target was derived from the log {origin}, not from {source_id}: a source that "
            "was dropped and made again is another log; derive into a new target"
        )
    return version

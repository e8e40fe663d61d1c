"""Finds logs that are larger than the store's budget, and has what is cold of them moved.

Looks at the sizes of all logs every few seconds, and never for more than a part of the time. An
archive that fails is left alone for a while. Knows nothing of what is moved, or of how.
"""

import asyncio
import time
from collections.abc import Callable

import structlog
from indelible_protocol.ids import LogId

from indelible_server.store.errors import Refusal
from indelible_server.store.materializing import Gone
from indelible_server.store.moving import Moving
from indelible_server.store.names import Names

log = structlog.get_logger("indelible_server.materializer")

OBJECTS_A_TURN = 64
_REST_FOR_WORK = 50  # looking takes at most one part in 50 of the time


class Mover:
    """`jitter` gives a number between two."""

    def __init__(
        self,
        moving: Moving,
        names: Names,
        *,
        sweep_seconds: float,
        jitter: Callable[[float, float], float],
    ) -> None:
        self._moving = moving
        self._names = names
        self._sweep_seconds = sweep_seconds
        self._jitter = jitter

    async def run(self) -> None:
        while True:
            began, looked_seconds = time.monotonic(), 0.0
            try:
                waiting = await self._look()
                looked_seconds = time.monotonic() - began
                await self._moving.end_deleted()
                while waiting:
                    log_id = waiting.pop(0)
                    if not await self._turn(log_id):
                        waiting.append(log_id)
            except Refusal as refusal:
                log.warning("mover.failed", reason=refusal.message)
            except Exception:
                log.exception("mover.crashed")
            pause = max(self._sweep_seconds, looked_seconds * _REST_FOR_WORK)
            await asyncio.sleep(pause * self._jitter(0.75, 1.25))

    async def _look(self) -> list[LogId]:
        oversized = []
        async for log_ids in self._names.every_log():
            oversized += await self._moving.oversized(log_ids)
        return oversized

    async def _turn(self, log_id: LogId) -> bool:
        """Some of what is too much; True if there is nothing to do now.

        Raises:
            Refusal: the archive or the store failed.
        """
        try:
            moved = await self._moving.move(log_id, most_objects=OBJECTS_A_TURN)
        except Gone:
            return True
        except Refusal as refusal:
            if refusal.code.retryable:
                raise  # the next log would fare no better
            log.error("mover.log_failed", log_id=log_id.hex(), reason=refusal.message)
            return True
        for segment in moved.segments:
            log.info(
                "segment.moved",
                log_id=log_id.hex(),
                first=segment.first,
                last=segment.last,
                size_bytes=segment.size_bytes,
            )
        for snapshot in moved.snapshots:
            log.info(
                "snapshot.moved",
                log_id=log_id.hex(),
                version=snapshot.version,
                size_bytes=snapshot.size_bytes,
            )
        return moved.is_done

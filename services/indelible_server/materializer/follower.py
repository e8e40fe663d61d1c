"""Finds logs that have grown, and has what is due written beside them.

Looks at the heads of all logs every few seconds, and never for more than a part of the time; a
log with a long way to go gets its turn beside the others. Knows nothing of what is written.
"""

import asyncio
import time
from collections.abc import Callable

import structlog
from indelible_protocol.ids import LogId

from indelible_server.store.errors import Refusal
from indelible_server.store.materializing import Gone, Materializing
from indelible_server.store.names import Names
from indelible_server.store.places import BLOCK_VERSIONS
from indelible_server.store.reading import Reader
from indelible_server.telemetry import Metrics

log = structlog.get_logger("indelible_server.materializer")

LOGS_AT_ONCE = 2
BLOCKS_A_TURN = 64
_REST_FOR_WORK = 50  # looking takes at most one part in 50 of the time
_STORE_PAUSE_SECONDS = 1.0


class Follower:
    """`jitter` gives a number between two."""

    def __init__(
        self,
        materializing: Materializing,
        names: Names,
        reader: Reader,
        metrics: Metrics,
        *,
        sweep_seconds: float,
        jitter: Callable[[float, float], float],
    ) -> None:
        self._materializing = materializing
        self._names = names
        self._reader = reader
        self._metrics = metrics
        self._sweep_seconds = sweep_seconds
        self._jitter = jitter
        # Blocks written, of the logs that are long enough to have one.
        self._written: dict[LogId, int] = {}

    async def run(self) -> None:
        while True:
            began, work_seconds = time.monotonic(), 0.0
            try:
                due = await self.look()
                looked = time.monotonic() - began
                await self._work_on(due)
                work_seconds = looked
            except Refusal as refusal:
                log.warning("materializer.sweep_failed", reason=refusal.message)
            except Exception:
                log.exception("materializer.sweep_crashed")
            pause = max(self._sweep_seconds, work_seconds * _REST_FOR_WORK)
            await asyncio.sleep(pause * self._jitter(0.75, 1.25))

    async def look(self) -> dict[LogId, int]:
        """Logs with more versions than what is written beside them tells of, and these versions.

        Raises:
            Refusal: the store failed.
        """
        due: dict[LogId, int] = {}
        there: set[LogId] = set()
        async for log_ids in self._names.every_log():
            versions = await self._reader.current_versions(log_ids)
            for log_id, version in zip(log_ids, versions, strict=True):
                blocks = (version or 0) // BLOCK_VERSIONS
                if blocks:
                    there.add(log_id)
                if version is not None and blocks > self._written.get(log_id, 0):
                    due[log_id] = version
        for log_id in self._written.keys() - there:
            del self._written[log_id]
        behind = [v - self._written.get(each, 0) * BLOCK_VERSIONS for each, v in due.items()]
        self._metrics.materializer_behind.set(max(behind, default=0))
        return due

    async def _work_on(self, due: dict[LogId, int]) -> None:
        waiting = list(due.items())

        async def work() -> None:
            while waiting:
                log_id, version = waiting.pop(0)
                if not await self._turn(log_id, version):
                    waiting.append((log_id, version))

        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(LOGS_AT_ONCE, len(waiting))):
                tasks.create_task(work())

    async def _turn(self, log_id: LogId, version: int) -> bool:
        """Some of what is due; True if there is nothing to do now."""
        try:
            advance = await self._materializing.advance(log_id, version, most_blocks=BLOCKS_A_TURN)
        except Gone:
            return True
        except Refusal as refusal:
            log.warning("materializer.store_failed", reason=refusal.message)
            await asyncio.sleep(_STORE_PAUSE_SECONDS)
            return True
        except Exception:
            log.exception("materializer.crashed", log_id=log_id.hex())
            return True
        self._written[log_id] = advance.progress.blocks
        self._metrics.materialized.labels("block").inc(advance.blocks)
        for snapshot in advance.snapshots:
            self._metrics.materialized.labels("snapshot").inc()
            log.info(
                "snapshot.written",
                log_id=log_id.hex(),
                version=snapshot.version,
                entries=snapshot.entries,
                size_bytes=snapshot.size_bytes,
            )
        return advance.progress.version + BLOCK_VERSIONS > version

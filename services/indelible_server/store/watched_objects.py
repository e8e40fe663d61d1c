"""The archive's objects as a process uses them: counted, and never waited for without an end.

Whatever an object store or a network folder does, who asks it has an answer in time. Knows nothing
of what objects hold.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from indelible_protocol.ids import LogId

from indelible_server.settings import SettingsError
from indelible_server.store.errors import Refusal, StoreUnavailable
from indelible_server.store.objects import LostObject, Objects, objects_at
from indelible_server.telemetry import Metrics

log = structlog.get_logger("indelible_server.archive")

GET_SECONDS = 5.0
PUT_SECONDS = 60.0


def watched_objects(where: str, metrics: Metrics) -> Objects | None:
    """Those at `where`; None if that is empty: nowhere.

    Raises:
        SettingsError: it is no address of an archive.
    """
    if not where:
        return None
    try:
        return WatchedObjects(objects_at(where), metrics)
    except ValueError as error:
        raise SettingsError(str(error)) from error


class WatchedObjects:
    def __init__(
        self,
        objects: Objects,
        metrics: Metrics,
        *,
        get_seconds: float = GET_SECONDS,
        put_seconds: float = PUT_SECONDS,
    ) -> None:
        self._objects = objects
        self._metrics = metrics
        self._get_seconds = get_seconds
        self._put_seconds = put_seconds

    async def put(self, log_id: LogId, data: bytes) -> str:
        async with self._done("put", log_id, self._put_seconds):
            name = await self._objects.put(log_id, data)
        self._metrics.archive_bytes.labels("put").inc(len(data))
        return name

    async def get(self, log_id: LogId, name: str) -> bytes:
        async with self._done("got", log_id, self._get_seconds):
            data = await self._objects.get(log_id, name)
        self._metrics.archive_bytes.labels("got").inc(len(data))
        return data

    async def delete(self, log_id: LogId, name: str) -> None:
        async with self._done("deleted", log_id, self._put_seconds):
            await self._objects.delete(log_id, name)

    async def delete_all(self, log_id: LogId) -> None:
        await self._objects.delete_all(log_id)

    @asynccontextmanager
    async def _done(self, what: str, log_id: LogId, seconds: float) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError:
            self._metrics.archive_objects.labels("failed").inc()
            raise StoreUnavailable("the archive did not answer in time") from None
        except LostObject as lost:
            self._metrics.archive_objects.labels("lost").inc()
            log.error("archive.object_lost", log_id=log_id.hex(), reason=lost.message)
            raise
        except Refusal:
            self._metrics.archive_objects.labels("failed").inc()
            raise
        self._metrics.archive_objects.labels(what).inc()

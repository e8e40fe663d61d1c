"""Which versions of logs enough replicas hold, so that they may be shown.

A version that is in the primary alone may be taken back when a replica takes its place; shown
before, it would live on in clients and caches. What this process's own calls waited for it knows;
beyond that it makes a tiny write of its own, and waits for that: replicas that have it have all
that came before. Knows nothing of what a version holds.
"""

import asyncio
from collections import OrderedDict

from indelible_protocol import limits
from indelible_protocol.ids import LogId
from redis.asyncio import Redis

from indelible_server.store import functions, keys
from indelible_server.store.errors import OutcomeUnknown, StoreUnavailable

_KNOWN = 20_000
_DELETED = limits.MAX_VERSION + 1


class Covering:
    """`replicas` is how many the store's client waits for; with none everything is covered."""

    def __init__(self, redis: Redis, replicas: int) -> None:
        self._redis = redis
        self._replicas = replicas
        self._known: OrderedDict[LogId, int] = OrderedDict()
        self._records: OrderedDict[str, bytes] = OrderedDict()
        self._covering: dict[LogId, asyncio.Task[int]] = {}
        self._settling: set[asyncio.Task[int]] = set()

    @property
    def is_needed(self) -> bool:
        return self._replicas > 0

    def told(self, log_id: LogId) -> str:
        """What a call that writes to the log tells the store to be safe; nothing if none waits."""
        return str(self._known.get(log_id, 0)) if self._replicas else ""

    def note(self, log_id: LogId, version: int) -> None:
        """A call that told this version, or made it, was waited for."""
        if not self._replicas or self._known.get(log_id, -1) >= version:
            return
        self._known[log_id] = version
        self._known.move_to_end(log_id)
        if len(self._known) > _KNOWN:
            self._known.popitem(last=False)

    def is_covered(self, log_id: LogId, version: int, stored: bytes | int | None) -> bool:
        """Whether `version` may be shown at once; `stored` as `cover` takes it."""
        return not self._replicas or version <= max(self._known.get(log_id, 0), int(stored or 0))

    async def cover(
        self, log_id: LogId, version: int, stored: bytes | int | None, *, deleted: bool = False
    ) -> None:
        """Returns once `version`, or the log's deletion, may be shown.

        `stored` is the log's safe version as the store holds it.

        Raises:
            StoreUnavailable: too few replicas hold it now.
        """
        shown = _DELETED if deleted else version
        if self.is_covered(log_id, shown, stored):
            return
        await self._shared(log_id)
        if self._known.get(log_id, 0) < shown:  # that one had begun before there was this version
            await self._shared(log_id)
        if self._known.get(log_id, 0) < shown:
            raise StoreUnavailable("a failover has taken back the log's newest version")
        if not deleted:
            self._settle(log_id)

    async def cover_record(self, key: str, data: bytes) -> None:
        """Returns once what was read at `key`, a string, may be shown.

        Raises:
            StoreUnavailable: too few replicas hold it now.
        """
        if not self._replicas or self._records.get(key) == data:
            return
        try:
            # In its own place, by comparing: it says nothing if another is there by now.
            await functions.call(self._redis, "bind", [key], [data, data])
        except OutcomeUnknown as unknown:
            raise StoreUnavailable("too few replicas hold what was read") from unknown
        self._records[key] = data
        self._records.move_to_end(key)
        if len(self._records) > _KNOWN:
            self._records.popitem(last=False)

    async def fence(self, log_id: LogId) -> None:
        """Returns once the node that answers reads of the log has shown that it may write: what
        is read from it afterwards is not older than what was acknowledged before.

        Raises:
            StoreUnavailable: it has too few replicas, or none that follow it any more.
        """
        if self._replicas:
            await self._write(log_id)

    async def _shared(self, log_id: LogId) -> None:
        """One tiny write for all who ask while it is under way; it may have begun too early."""
        task = self._covering.get(log_id)
        if task is None or task.done():  # done in this round of the loop: it began before this
            task = self._covering[log_id] = asyncio.ensure_future(self._write(log_id))
            task.add_done_callback(lambda done: self._written(log_id, done))
        await asyncio.shield(task)

    def _written(self, log_id: LogId, task: "asyncio.Task[int]") -> None:
        if self._covering.get(log_id) is task:
            del self._covering[log_id]
        if not task.cancelled():
            task.exception()  # everybody may have left; asyncio would complain otherwise

    async def _write(self, log_id: LogId) -> int:
        try:
            word, rest = await functions.call(
                self._redis, "cover", [keys.of_log(log_id).meta], [self.told(log_id) or 0]
            )
        except OutcomeUnknown as unknown:
            raise StoreUnavailable("too few replicas hold the log's newest version") from unknown
        version = int(rest[0]) if word == "covered" else _DELETED
        self.note(log_id, version)
        return version

    def _settle(self, log_id: LogId) -> None:
        """Tells the store, so that no other process need ask; nobody waits for it."""
        task = asyncio.ensure_future(self._write(log_id))
        self._settling.add(task)
        task.add_done_callback(self._settled)

    def _settled(self, task: "asyncio.Task[int]") -> None:
        self._settling.discard(task)
        if not task.cancelled():
            task.exception()

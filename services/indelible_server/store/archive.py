"""Reads back what was moved out of the store: versions, and pieces of old snapshots.

Asked only for what the store lacks. What is read is kept for a while, in bounded memory, so that
one object is read once for many versions. Knows nothing of how things come to be moved.
"""

import asyncio
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import Any

import structlog
from indelible_protocol.errors import ErrorCode
from indelible_protocol.ids import LogId
from redis.asyncio import Redis

from indelible_server.store import bundles, keys
from indelible_server.store.bundles import Bundle, CorruptBundle, Part, Segment
from indelible_server.store.caching import WeighedCache
from indelible_server.store.connection import store_answer
from indelible_server.store.errors import Refusal
from indelible_server.store.objects import LostObject, Objects
from indelible_server.store.snapshots import Snapshot

log = structlog.get_logger("indelible_server.archive")

_CACHED_BYTES = 32 << 20
_OBJECTS_AT_ONCE = 4
_REMEMBERED_LOGS = 10_000


class NoArchiveError(Refusal):
    """What is asked for is in an archive that this process was not told of."""

    def __init__(self) -> None:
        super().__init__(
            ErrorCode.OVERLOADED,
            "these versions are in the archive, and this process has none: start it with "
            "--archive, as the one that moved them",
        )


class Archive:
    """Without `objects` it finds out that something was moved, and says so."""

    def __init__(
        self, redis: Redis, objects: Objects | None = None, *, cached_bytes: int = _CACHED_BYTES
    ) -> None:
        self._redis = redis
        self._objects = objects
        self._bundles: WeighedCache[tuple[LogId, str], Bundle] = WeighedCache(
            cached_bytes, lambda bundle: bundle.size_bytes
        )
        self._turns = asyncio.Semaphore(_OBJECTS_AT_ONCE)
        self._first_in_stream: OrderedDict[LogId, int] = OrderedDict()

    @property
    def objects(self) -> Objects:
        """
        Raises:
            NoArchiveError: there are none.
        """
        if self._objects is None:
            raise NoArchiveError
        return self._objects

    async def first(self, log_id: LogId) -> Segment | None:
        """The one with the oldest versions."""
        async with store_answer():
            found = await self._redis.execute_command(
                "ZRANGE", keys.archived(log_id).segments, 0, 0
            )
        return Segment.decode(found[0]) if found else None

    def is_likely(self, log_id: LogId, version: int) -> bool:
        """Whether this version was already found to be out of the stream."""
        return version < self._first_in_stream.get(log_id, 0)

    async def rows(self, log_id: LogId, first: int, last: int, count: int) -> list[Any]:
        """The version `first` and those behind it in the same segment, at most `count` of them
        and none beyond `last`; nothing if no segment holds it.

        Raises:
            LostObject: it is listed, and absent or damaged.
            Refusal: OVERLOADED: the archive or the store cannot be asked.
        """
        found = await self._segment(log_id, first)
        if found is None:
            return []
        segment, bundle = found
        end = min(last, segment.last, first + count - 1)
        return [bundle.row(version) for version in range(first, end + 1)]

    async def rows_down(self, log_id: LogId, first: int, last: int, count: int) -> list[Any]:
        """As `rows`, from `last` downwards, none below `first`."""
        found = await self._segment(log_id, last)
        if found is None:
            return []
        segment, bundle = found
        end = max(first, segment.first, last - count + 1)
        return [bundle.row(version) for version in range(last, end - 1, -1)]

    async def some(self, log_id: LogId, versions: Sequence[int]) -> dict[int, Any]:
        """Rows of those of the `versions`, which ascend, that segments hold.

        Raises:
            Refusal: as `rows`.
        """
        rows: dict[int, Any] = {}
        listed = await self._listed(log_id, versions)
        pairs = zip(versions, listed, strict=True)
        for first, some in groupby(pairs, lambda pair: pair[1] and pair[1].first):
            if first is None:
                continue
            wanted = [version for version, _ in some]
            found = await self._segment(log_id, wanted[0])
            if found is not None:
                segment, bundle = found
                rows |= {v: bundle.row(v) for v in wanted if segment.first <= v <= segment.last}
        return rows

    async def pieces(
        self, log_id: LogId, snapshot: Snapshot, numbers: Sequence[int]
    ) -> Mapping[int, bytes]:
        """Pieces of a snapshot by their numbers; nothing if it was not moved.

        Raises:
            Refusal: as `rows`.
        """
        before = None
        while (parts := await self._parts(log_id, snapshot.version)) is not None:
            ends = [part.end for part in parts]
            try:
                found: dict[int, bytes] = {}
                for at, some in groupby(sorted(numbers), partial(bisect_right, ends)):
                    bundle = await self._bundle(log_id, parts[at].name, snapshot.version)
                    found |= {number: bundle.item(number - bundle.first) for number in some}
                return found
            except LostObject:
                if parts == before:
                    raise
                before = parts  # they may have been forgotten meanwhile
        return {}

    async def _segment(self, log_id: LogId, version: int) -> tuple[Segment, Bundle] | None:
        before = None
        while True:
            [segment] = await self._listed(log_id, [version])
            if segment is None:
                return None
            try:
                bundle = await self._bundle(log_id, segment.name, segment.first)
            except LostObject:
                if segment == before:
                    raise
                before = segment  # it may have been forgotten meanwhile, or a part of it
            else:
                self._note(log_id, segment.last + 1)
                return segment, bundle

    async def _listed(self, log_id: LogId, versions: Sequence[int]) -> list[Segment | None]:
        """The segment that holds each version."""
        key = keys.archived(log_id).segments
        asked = [("ZREVRANGEBYSCORE", key, version, "-inf", "LIMIT", 0, 1) for version in versions]
        async with store_answer():
            if len(asked) == 1:
                answers = [await self._redis.execute_command(*asked[0])]
            else:
                async with self._redis.pipeline(transaction=False) as pipe:
                    for command in asked:
                        pipe.execute_command(*command)
                    answers = await pipe.execute()
        found = [Segment.decode(answer[0]) if answer else None for answer in answers]
        return [
            segment if segment is not None and version <= segment.last else None
            for version, segment in zip(versions, found, strict=True)
        ]

    async def _parts(self, log_id: LogId, version: int) -> list[Part] | None:
        async with store_answer():
            data = await self._redis.execute_command("HGET", keys.archived(log_id).parts, version)
        return None if data is None else bundles.decode_parts(data)

    async def _bundle(self, log_id: LogId, name: str, version: int) -> Bundle:
        """The object of that name, which is listed as beginning with, or being of, a version."""
        bundle = await self._bundles.get((log_id, name), lambda: self._read(log_id, name))
        if bundle.version != version:
            raise LostObject("another than it is listed as")
        return bundle

    async def _read(self, log_id: LogId, name: str) -> Bundle:
        if self._objects is None:
            log.error("archive.not_given", log_id=log_id.hex())
        async with self._turns:
            data = await self.objects.get(log_id, name)
            try:
                return await asyncio.to_thread(bundles.decode, log_id, data)
            except CorruptBundle as error:
                raise LostObject("not what it should be") from error

    def _note(self, log_id: LogId, first_in_stream: int) -> None:
        """Versions never go back to the stream: who knows this need not look there."""
        known = self._first_in_stream
        known[log_id] = max(first_in_stream, known.get(log_id, 0))
        known.move_to_end(log_id)
        if len(known) > _REMEMBERED_LOGS:
            known.popitem(last=False)

"""Entries whose versions are gone from the stream, from a snapshot that holds them.

Every entry that is live at a version that can be read, and was introduced in one that cannot, is
in the base, the snapshot at the first version; what is live now and not of late is in the newest
one. Owns that look-up by place; knows nothing of who asks.
"""

from bisect import bisect_left
from collections.abc import Iterable

from indelible_protocol import limits, messages
from indelible_protocol.ids import LogId
from redis.asyncio import Redis

from indelible_server.store import keys
from indelible_server.store.archive import Archive
from indelible_server.store.caching import WeighedCache
from indelible_server.store.connection import store_answer
from indelible_server.store.contents import Contents
from indelible_server.store.places import first_place
from indelible_server.store.snapshots import Directory, Snapshot, entry_of
from indelible_server.store.versions import MissingError

_CHUNKS_AT_ONCE = 8
_CACHED_CHUNKS = 1 << 18  # numbers of eight bytes


class Bases:
    def __init__(self, redis: Redis, archive: Archive | None = None) -> None:
        self._redis = redis
        self._contents = Contents(redis, archive)
        self._directories: WeighedCache[tuple[LogId, int], Directory] = WeighedCache(
            _CACHED_CHUNKS, lambda directory: len(directory.places) + 16
        )

    async def entries(self, log_id: LogId, places: Iterable[int]) -> dict[int, messages.DiffChange]:
        """The entries at `places`, which the base holds.

        Raises:
            MissingError: it does not.
        """
        wanted = sorted(set(places))
        last = None
        while (base := await self.base(log_id)) is not None and base != last:
            try:
                found = await self._in(log_id, base, wanted)
                if len(found) == len(wanted):
                    return found
            except MissingError:
                pass
            last = base  # a later one may have come in its place
        raise MissingError("versions below its head")

    async def live(self, log_id: LogId, places: Iterable[int]) -> dict[int, messages.DiffChange]:
        """Those of the entries at `places`, which are live at the head, that the newest snapshot
        holds: it is never moved out of the store."""
        newest = await self._contents.snapshot_at(log_id, limits.MAX_VERSION)
        if newest is None:
            return {}
        end = first_place(newest.version + 1)
        try:
            return await self._in(log_id, newest, sorted({p for p in places if p < end}))
        except MissingError:
            return {}  # a later one came, and it was moved or forgotten

    async def base(self, log_id: LogId) -> Snapshot | None:
        async with store_answer():
            found = await self._redis.execute_command(
                "HMGET", keys.of_log(log_id).meta, "first_version"
            )
        first = int(found[0] or 0)
        return await self._contents.snapshot_at(log_id, first) if first else None

    async def _in(
        self, log_id: LogId, snapshot: Snapshot, wanted: list[int]
    ) -> dict[int, messages.DiffChange]:
        """Those of the places that the snapshot has."""
        if not snapshot.chunks or not wanted:
            return {}
        directory = await self._directories.get(
            (log_id, snapshot.version), lambda: self._contents.directory(log_id, snapshot)
        )
        by_chunk: dict[int, list[int]] = {}
        for place in wanted:
            by_chunk.setdefault(directory.chunk_with(place), []).append(place)
        numbers, found = sorted(by_chunk), {}
        for at in range(0, len(numbers), _CHUNKS_AT_ONCE):
            some = numbers[at : at + _CHUNKS_AT_ONCE]
            for number, chunk in zip(
                some, await self._contents.chunks(log_id, snapshot, some), strict=True
            ):
                for place in by_chunk[number]:
                    i = bisect_left(chunk.places, place)
                    if i == len(chunk.places) or chunk.places[i] != place:
                        continue
                    start = chunk.ends[i - 1] if i else 0
                    found[place] = entry_of(chunk.records[start : chunk.ends[i]])
        return found

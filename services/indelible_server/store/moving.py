"""Moving what is cold of a log to the archive: its oldest versions, and old snapshots.

A log whose bytes in the store pass a budget is brought down to half of it. In this order: a note of
the object's name; the object; then, in one function, its listing and the end of what it replaces in
the stream. Killed anywhere and called again it goes on, and two at once do no harm. Knows
nothing of which logs there are, or of how what was moved is read.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import NamedTuple, cast

from indelible_protocol.ids import LogId
from redis.asyncio import Redis

from indelible_server.store import bundles, functions, keys
from indelible_server.store.archive import Archive
from indelible_server.store.archiving import LATE_SECONDS, Archiving
from indelible_server.store.bundles import BUNDLE_BYTES, Part, Segment
from indelible_server.store.connection import store_answer
from indelible_server.store.contents import Contents
from indelible_server.store.kept import control_commits, stored_bytes
from indelible_server.store.materializing import Gone
from indelible_server.store.snapshots import Snapshot
from indelible_server.store.versions import MissingError, Page, Versions

_MOST_VERSIONS = 4_096  # in an object
_LOGS_AT_ONCE = 500
_PIECES_AT_ONCE = 8
_FIELDS_AT_ONCE = 500
_SIZES = (
    "version",
    "deleted",
    "first_version",
    "stored_bytes",
    "archived_bytes",
    "base_bytes",
    "kept_bytes",
)


class Moved(NamedTuple):
    """What went to the archive; `is_done`: the log is within its budget, or nothing is left that
    may be moved."""

    segments: list[Segment]
    snapshots: list[Snapshot]
    is_done: bool


class _Sizes(NamedTuple):
    """Of a log: bytes of the `versions` in the stream, and the `snapshots` that are in the store,
    oldest first; `first` is the first version that can be read."""

    first: int
    head: int
    versions: int
    snapshots: list[Snapshot]
    moved: frozenset[int]

    @property
    def in_store(self) -> int:
        return self.versions + sum(snapshot.size_bytes for snapshot in self.snapshots)


def _in_stream(numbers: Sequence[bytes | None]) -> int:
    """Bytes of the versions there, from a log's `_SIZES` behind the first two."""
    _, stored, *others = (int(number or 0) for number in numbers)
    return stored - sum(others)


class Moving:
    """`budget_bytes` of one log stay in the store; 0: all of them. `reach` is called with the name
    of each point at which a process may be lost; `pause_seconds` lie behind each write.
    """

    def __init__(
        self,
        redis: Redis,
        archive: Archive,
        *,
        budget_bytes: int,
        pause_seconds: float = 0.0,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        reach: Callable[[str], None] = lambda point: None,
    ) -> None:
        self._redis = redis
        self._archive = archive
        self._archiving = Archiving(redis, archive, reach=reach)
        self._contents = Contents(redis, archive)
        self._versions = Versions(redis, archive)
        self._budget_bytes = budget_bytes
        self._object_bytes = max(1, min(BUNDLE_BYTES, budget_bytes // 8))
        self._pause_seconds = pause_seconds
        self._now_ms = now_ms
        self._reach = reach
        self._ended: set[LogId] = set()

    async def oversized(self, log_ids: Sequence[LogId]) -> list[LogId]:
        """Those with so many bytes of versions in the store that they may be over the budget, and
        those that noted objects which nothing lists.

        Raises:
            Refusal: the store failed.
        """
        found = []
        for at in range(0, len(log_ids), _LOGS_AT_ONCE):
            some = log_ids[at : at + _LOGS_AT_ONCE]
            async with store_answer(), self._redis.pipeline(transaction=False) as pipe:
                for log_id in some:
                    pipe.hmget(keys.of_log(log_id).meta, *_SIZES)
                    pipe.exists(keys.archived(log_id).unlisted)
                rows = await pipe.execute()
            for log_id, (version, deleted, *numbers), noted in zip(
                some, rows[::2], rows[1::2], strict=True
            ):
                is_large = 0 < self._budget_bytes // 2 < _in_stream(numbers)
                if version is not None and deleted is None and (is_large or noted):
                    found.append(log_id)
        return found

    async def move(self, log_id: LogId, *, most_objects: int = 1 << 40) -> Moved:
        """Moves what is too much in the store, about `most_objects` at most.

        Raises:
            Gone: the log is deleted.
            Refusal: the archive or the store failed; the next call goes on where this one was.
        """
        moved = Moved([], [], is_done=False)
        try:
            await self._archiving.clear(log_id)
            sizes = await self._sizes(log_id)
            await self._drop_moved(log_id, sizes)
            if not self._budget_bytes or sizes.in_store <= self._budget_bytes:
                return moved._replace(is_done=True)
            while sizes.in_store > self._budget_bytes // 2:
                if len(moved.segments) + len(moved.snapshots) >= most_objects:
                    return moved
                old = [each for each in sizes.snapshots[:-1] if each.version > sizes.first]
                if old:
                    if await self._move_snapshot(log_id, old[0]):
                        moved.snapshots.append(old[0])
                else:
                    segment = await self._move_segment(log_id, sizes)
                    if segment is None:
                        break
                    moved.segments.append(segment)
                sizes = await self._sizes(log_id)
            return moved._replace(is_done=True)
        except MissingError:
            await self._sizes(log_id)  # which tells if it was deleted
            raise

    async def end_deleted(self) -> int:
        """Deletes the objects of deleted logs; how many logs that were.

        A log is done with when nothing can be on its way to the archive any more.

        Raises:
            Refusal: the archive or the store failed.
        """
        late_ms = self._now_ms() - LATE_SECONDS * 1_000
        async with store_answer():
            noted = await self._redis.zrange(
                keys.ARCHIVE_DELETED, 0, _LOGS_AT_ONCE - 1, withscores=True
            )
        pairs = cast("list[tuple[bytes, float]]", noted)
        for raw_id, noted_ms in pairs:
            log_id = LogId(raw_id)
            async with store_answer():
                version, deleted = await self._redis.execute_command(
                    "HMGET", keys.of_log(log_id).meta, "version", "deleted"
                )
            is_late = noted_ms < late_ms
            is_there = version is not None and deleted is None
            if not is_there and (is_late or log_id not in self._ended):
                await self._archive.objects.delete_all(log_id)
                self._ended.add(log_id)
            if is_late:
                self._ended.discard(log_id)
                async with store_answer():
                    await self._redis.execute_command("ZREM", keys.ARCHIVE_DELETED, log_id)
        return len(pairs)

    async def _sizes(self, log_id: LogId) -> _Sizes:
        listed = keys.materialized(log_id).snapshots
        async with store_answer(), self._redis.pipeline(transaction=True) as pipe:
            pipe.execute_command("HMGET", keys.of_log(log_id).meta, *_SIZES)
            pipe.execute_command("ZRANGE", listed, 0, -1)
            pipe.execute_command("HKEYS", keys.archived(log_id).parts)
            (version, deleted, *numbers), snapshots, parts = await pipe.execute()
        if version is None or deleted is not None:
            raise Gone
        moved = frozenset(map(int, parts))
        held = [Snapshot.decode(data) for data in snapshots]
        return _Sizes(
            int(numbers[0]),
            int(version),
            _in_stream(numbers),
            [each for each in held if each.version not in moved],
            moved,
        )

    async def _move_segment(self, log_id: LogId, sizes: _Sizes) -> Segment | None:
        """The oldest versions, as many as make an object; None if too few may be moved.

        A quarter of the budget stays, and the last version always.
        """
        first = await self._oldest(log_id)
        if first < sizes.first:
            return None  # somebody is forgetting it
        page = await self._cut(log_id, first, sizes.head - 1)
        if page is None or sizes.versions - stored_bytes(page) < self._budget_bytes // 4:
            return None
        items = [bundles.item_of(fields) for _, fields in page.rows]
        data = await asyncio.to_thread(bundles.encode, log_id, "versions", first, items)
        name = await self._archiving.put(log_id, "versions", first, data)
        if name is None:
            return None
        segment = Segment(first, page.last, stored_bytes(page), name)
        log_keys, archived = keys.of_log(log_id), keys.archived(log_id)
        word, _ = await functions.call(
            self._redis,
            "archive_segment",
            [
                *(log_keys.meta, log_keys.commits, archived.segments, archived.unlisted),
                keys.kept(log_id),
            ],
            [segment.encode(), *(part for pair in control_commits(page).items() for part in pair)],
        )
        if word == "gone":
            raise Gone
        assert word in ("moved", "done"), word
        self._reach("after_segment")
        await asyncio.sleep(self._pause_seconds)
        return segment if word == "moved" else None

    async def _cut(self, log_id: LogId, first: int, last: int) -> Page | None:
        """Versions from `first` on until they make an object: a function of the log, so that two
        cut alike. None if there are too few."""
        cut, size = Page(first, []), 0
        async with aclosing(self._versions.pages(log_id, first, last)) as pages:
            async for page in pages:
                for row in page.rows:
                    cut.rows.append(row)
                    size += stored_bytes(Page(0, [row]))
                    if size >= self._object_bytes or len(cut.rows) == _MOST_VERSIONS:
                        return cut
        return None

    async def _oldest(self, log_id: LogId) -> int:
        async with store_answer():
            rows = await self._redis.execute_command(
                "XRANGE", keys.of_log(log_id).commits, "-", "+", "COUNT", 1
            )
        if not rows:
            raise Gone
        return int(rows[0][0].partition(b"-")[0])

    async def _move_snapshot(self, log_id: LogId, snapshot: Snapshot) -> bool:
        parts = []
        async with aclosing(self._objects_of(log_id, snapshot)) as objects:
            async for end, data in objects:
                name = await self._archiving.put(log_id, "snapshot", snapshot.version, data)
                if name is None:
                    return False
                parts.append(Part(end, name))
                await asyncio.sleep(self._pause_seconds)
        archived = keys.archived(log_id)
        word, _ = await functions.call(
            self._redis,
            "archive_parts",
            [
                *(keys.of_log(log_id).meta, keys.materialized(log_id).snapshots),
                *(archived.parts, archived.unlisted),
            ],
            [snapshot.version, bundles.encode_parts(parts)],
        )
        if word == "gone":
            raise Gone
        self._reach("after_parts")
        if word == "moved":
            await self._drop(log_id, snapshot)
        return word == "moved"

    async def _objects_of(
        self, log_id: LogId, snapshot: Snapshot
    ) -> AsyncGenerator[tuple[int, bytes], None]:
        """Its pieces in order, as objects, each with the number of the piece behind it."""
        first, items = 0, list[bytes]()
        for at in range(0, snapshot.pieces, _PIECES_AT_ONCE):
            numbers = range(at, min(at + _PIECES_AT_ONCE, snapshot.pieces))
            for number, piece in zip(
                numbers, await self._contents.pieces(log_id, snapshot, numbers), strict=True
            ):
                items.append(piece)
                if sum(map(len, items)) < self._object_bytes and number + 1 < snapshot.pieces:
                    continue
                yield (
                    number + 1,
                    await asyncio.to_thread(
                        bundles.encode, log_id, "snapshot", snapshot.version, items, first=first
                    ),
                )
                first, items = number + 1, []

    async def _drop_moved(self, log_id: LogId, sizes: _Sizes) -> None:
        """What a lost process left in the store of snapshots that it had moved."""
        if not sizes.moved:
            return
        log_keys = keys.materialized(log_id)
        async with store_answer():
            listed = await self._redis.execute_command("ZRANGE", log_keys.snapshots, 0, -1)
        moved = [each for each in map(Snapshot.decode, listed) if each.version in sizes.moved]
        async with store_answer(), self._redis.pipeline(transaction=False) as pipe:
            for each in moved:
                pipe.hexists(log_keys.chunks, each.field(each.directory_number))
            left = await pipe.execute()
        for each, is_left in zip(moved, left, strict=True):
            if is_left:
                await self._drop(log_id, each)

    async def _drop(self, log_id: LogId, snapshot: Snapshot) -> None:
        """The directory last: it tells whether there is something left."""
        numbers = [n for n in range(snapshot.pieces) if n != snapshot.directory_number]
        fields = [snapshot.field(n) for n in (*numbers, snapshot.directory_number)]
        for at in range(0, len(fields), _FIELDS_AT_ONCE):
            self._reach("before_drop")
            word, _ = await functions.call(
                self._redis,
                "archive_drop",
                [
                    *(keys.of_log(log_id).meta, keys.archived(log_id).parts),
                    keys.materialized(log_id).chunks,
                ],
                [snapshot.version, *fields[at : at + _FIELDS_AT_ONCE]],
            )
            if word == "gone":
                raise Gone
            if word == "back":
                return
            await asyncio.sleep(self._pause_seconds)

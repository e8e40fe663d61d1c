"""What the materializer writes: blocks of 256 versions, and snapshots when they are due.

All of it is a function of the log and a version, so two who work on one log write the same;
what is not whole is not listed, and what is written is never changed. Reads and writes in
bounded pieces. Knows nothing of which logs there are, or of when to look at one.
"""

import asyncio
from array import array
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

from indelible_protocol.errors import ErrorCode
from indelible_protocol.ids import LogId
from redis.asyncio import Redis

from indelible_server.store import functions, keys
from indelible_server.store.archive import Archive
from indelible_server.store.blocks import Blocks, block_field
from indelible_server.store.connection import store_answer
from indelible_server.store.contents import Contents, Stretch
from indelible_server.store.errors import Refusal
from indelible_server.store.places import BLOCK_VERSIONS, SUMMED_BLOCKS, packed
from indelible_server.store.snapshots import (
    DIRECTORY,
    Buckets,
    Chunk,
    Chunks,
    Snapshot,
    bucket_count,
    bucket_fields,
)
from indelible_server.store.versions import MissingError, Versions

LEAST_CHANGES = 512
_WRITE_BYTES = 256 << 10
_INDEXED_AT_ONCE = 1 << 20
_FIELDS_AT_ONCE = 256


class Gone(Exception):
    """The log is deleted, or never was."""


class Passed(Refusal):
    """What was to be written is below the first version that can be read: nobody needs it."""

    def __init__(self) -> None:
        super().__init__(ErrorCode.FORGOTTEN_VERSION, "the log has forgotten that version")


class Progress(NamedTuple):
    """How many of a log's blocks are written, and the log's changes and entries at their end."""

    blocks: int
    changes: int
    entries: int

    @property
    def version(self) -> int:
        return self.blocks * BLOCK_VERSIONS


class Advance(NamedTuple):
    """Where a log is now, and what was written on the way."""

    progress: Progress
    blocks: int
    snapshots: list[Snapshot]


def is_due(progress: Progress, last: Snapshot | None) -> bool:
    """Whether contents where `progress` is would cost three times their size and more to read.

    A log that only grows never needs a snapshot: its stream is its contents. Each entry that is
    written again is paid for by one and a half changes at least.
    """
    entries, changes = (last.entries, last.changes) if last else (0, 0)
    cost = entries + progress.changes - changes
    return progress.changes > changes and cost > 3 * progress.entries + LEAST_CHANGES


class Materializing:
    """`reach` is called with the name of each point at which a process may be lost.

    `pause_seconds` lie behind each write.
    """

    def __init__(
        self,
        redis: Redis,
        archive: Archive | None = None,
        *,
        pause_seconds: float = 0.0,
        reach: Callable[[str], None] = lambda point: None,
    ) -> None:
        self._redis = redis
        self._contents = Contents(redis, archive)
        self._blocks = Blocks(redis, Versions(redis, archive))
        self._pause_seconds = pause_seconds
        self._reach = reach

    async def progress(self, log_id: LogId) -> Progress:
        async with store_answer():
            found = await self._redis.execute_command(
                "HMGET", keys.materialized(log_id).progress, "blocks", "changes", "entries"
            )
        return Progress(*(int(number or 0) for number in found))

    async def advance(self, log_id: LogId, version: int, *, most_blocks: int = 1 << 40) -> Advance:
        """Writes what is due up to `version`, or until `most_blocks` are written.

        Raises:
            Gone: the log is deleted.
            Refusal: the store failed; the next call goes on where this one was.
        """
        async with self._or_gone(log_id):
            return await self._advance(log_id, version, most_blocks)

    async def _advance(self, log_id: LogId, version: int, most_blocks: int) -> Advance:
        progress = await self.progress(log_id)
        floor = await self._first_version(log_id)
        last = await self._contents.snapshot_at(log_id, max(progress.version, floor))
        blocks, snapshots = 0, []
        while True:
            if is_due(progress, last):
                last = await self._write_snapshot(log_id, progress.version, progress.changes)
                snapshots.append(last)
            if progress.version + BLOCK_VERSIONS > version or blocks == most_blocks:
                return Advance(progress, blocks, snapshots)
            progress = await self._write_block(log_id, progress)
            blocks += 1

    async def _write_block(self, log_id: LogId, progress: Progress) -> Progress:
        begin, end = progress.version, progress.version + BLOCK_VERSIONS
        floor, low = await self._first_version(log_id), begin
        if begin < floor < end:  # what happened up to there, the base tells
            base = await self._contents.snapshot_at(log_id, floor)
            if base is None:
                raise MissingError("its base")  # there is a later one by now
            low, progress = floor, Progress(progress.blocks, base.changes, base.entries)
        block = await self._blocks.made(log_id, low, end, base=begin)
        following = Progress(
            progress.blocks + 1,
            progress.changes + block.changes,
            progress.entries + block.growth,
        )
        numbers, summed = range(following.blocks - SUMMED_BLOCKS, following.blocks), None
        if following.blocks % SUMMED_BLOCKS == 0:
            summed = await self._blocks.sum_with(log_id, block)
        self._reach("before_block")
        log_keys = keys.materialized(log_id)
        word, _ = await functions.call(
            self._redis,
            "materialize",
            [keys.of_log(log_id).meta, log_keys.blocks, log_keys.progress],
            [
                *(progress.blocks, block.encode(), following.changes, following.entries),
                *(() if summed is None else (block_field(numbers), summed.encode())),
            ],
        )
        if word == "gone":
            raise Gone
        self._reach("after_block")
        await asyncio.sleep(self._pause_seconds)
        return await self.progress(log_id) if word == "done" else following

    async def write_snapshot(self, log_id: LogId, version: int, changes: int) -> Snapshot:
        """The contents at a version, up to which the log has so many changes, listed once they
        are whole.

        Raises:
            Gone: the log is deleted.
            Passed: the version is below the first that can be read.
        """
        async with self._or_gone(log_id):
            return await self._write_snapshot(log_id, version, changes)

    async def changes_up_to(self, log_id: LogId, version: int) -> int:
        """How many changes the log has up to a version, counted from what is known nearby."""
        progress = await self.progress(log_id)
        if version < progress.version:
            whole = -(-version // BLOCK_VERSIONS) * BLOCK_VERSIONS
            changes = progress.changes - (await self._blocks.made(log_id, version, whole)).changes
            async for block in self._blocks.read(log_id, whole, progress.version):
                changes -= block.changes
            return changes
        last = await self._contents.snapshot_at(log_id, version)
        known = (progress.version, progress.changes)
        begin, changes = max(known, (last.version, last.changes)) if last else known
        for low in range(begin, version, BLOCK_VERSIONS):
            block = await self._blocks.made(log_id, low, min(low + BLOCK_VERSIONS, version))
            changes += block.changes
        return changes

    async def _first_version(self, log_id: LogId) -> int:
        async with store_answer():
            found = await self._redis.execute_command(
                "HMGET", keys.of_log(log_id).meta, "first_version"
            )
        return int(found[0] or 0)

    @asynccontextmanager
    async def _or_gone(self, log_id: LogId) -> AsyncIterator[None]:
        """What is missing is no damage if the log was deleted."""
        try:
            yield
        except MissingError:
            async with store_answer():
                found = await self._redis.execute_command(
                    "HMGET", keys.of_log(log_id).meta, "version", "deleted"
                )
            if found[0] is None or found[1] is not None:
                raise Gone from None
            raise

    async def _write_snapshot(self, log_id: LogId, version: int, changes: int) -> Snapshot:
        places, numbers, size, count = array("Q"), 0, 0, 0
        pieces: dict[str, bytes] = {}
        async for chunk in self._chunks_at(log_id, version):
            places.append(chunk.places[0])
            count += len(chunk.places)
            pieces[f"{version}:{numbers}"] = chunk.encode()
            numbers += 1
            if sum(map(len, pieces.values())) >= _WRITE_BYTES:
                size += await self._write(log_id, pieces)
        pieces[f"{version}:{DIRECTORY}"] = packed(places)
        size += await self._write(log_id, pieces)
        draft = Snapshot(version, count, changes, size, numbers, bucket_count(count))
        size += await self._write_index(log_id, draft)
        snapshot = draft._replace(size_bytes=size)
        self._reach("before_listing")
        log_keys, moved = keys.materialized(log_id), keys.archived(log_id)
        word, _ = await functions.call(
            self._redis,
            "snapshot_list",
            [
                *(keys.of_log(log_id).meta, log_keys.snapshots, log_keys.chunks),
                *(moved.parts, moved.unlisted),
            ],
            [version, snapshot.encode(), snapshot.chunks, snapshot.buckets],
        )
        if word == "gone":
            raise Gone
        if word == "forgotten":
            raise Passed
        assert word == "listed", word
        self._reach("after_listing")
        return snapshot

    async def _chunks_at(self, log_id: LogId, version: int) -> AsyncIterator[Chunk]:
        plan = await self._contents.plan(log_id, version)
        chunks = Chunks()
        async for stretch in self._contents.stretches(log_id, plan):
            for chunk in chunks.add(*stretch):
                yield chunk
        for chunk in chunks.rest():
            yield chunk

    async def _write_index(self, log_id: LogId, snapshot: Snapshot) -> int:
        """The index of tokens, from the chunks as written, a bounded part of it in each go."""
        size, names = 0, bucket_fields(snapshot.version, snapshot.buckets)
        at_once = max(1, _INDEXED_AT_ONCE * snapshot.buckets // max(1, snapshot.entries))
        for first in range(0, snapshot.buckets, at_once):
            some = names[first : first + at_once]
            buckets = Buckets(snapshot.buckets, first, first + len(some))
            async for stretch in self._written(log_id, snapshot):
                buckets.add(*stretch)
            encoded = buckets.encoded()
            for at in range(0, len(some), _FIELDS_AT_ONCE):
                end = at + _FIELDS_AT_ONCE
                pieces = dict(zip(some[at:end], encoded[at:end], strict=True))
                size += await self._write(log_id, pieces)
        return size

    async def _written(self, log_id: LogId, snapshot: Snapshot) -> AsyncIterator[Stretch]:
        for number in range(snapshot.chunks):
            for chunk in await self._contents.chunks(log_id, snapshot, range(number, number + 1)):
                yield Stretch(chunk.places, chunk.cut())

    async def _write(self, log_id: LogId, pieces: dict[str, bytes]) -> int:
        """Writes the pieces and empties them; how many bytes they were."""
        size = sum(map(len, pieces.values()))
        self._reach("before_pieces")
        word, _ = await functions.call(
            self._redis,
            "snapshot_write",
            [keys.of_log(log_id).meta, keys.materialized(log_id).chunks],
            [part for piece in pieces.items() for part in piece],
        )
        if word == "gone":
            raise Gone
        if word == "forgotten":
            raise Passed
        pieces.clear()
        await asyncio.sleep(self._pause_seconds)
        return size

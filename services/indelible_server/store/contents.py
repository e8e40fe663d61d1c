"""Contents at a version, in the order of places: a snapshot less what went since, then what came.

Reads what the materializer has made as far as it has, and the stream for the rest: without any
of it the answer is the same, only slower. Memory is bounded by a chunk, a page of the stream,
and eight bytes for each removal since the snapshot. Knows nothing of diffs or of HTTP.
"""

from array import array
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import NamedTuple

from indelible_protocol.commands import decode_at
from indelible_protocol.ids import LogId
from redis.asyncio import Redis

from indelible_server.store import keys, versions
from indelible_server.store.connection import store_answer
from indelible_server.store.places import (
    BLOCK_VERSIONS,
    INDEX_BITS,
    Block,
    Gone,
    block_of,
    first_place,
    steps_of,
    version_of,
)
from indelible_server.store.snapshots import Chunk, Directory, Snapshot, record

_BLOCKS_AT_ONCE = 128
_CHUNKS_AT_ONCE = 8


class Stretch(NamedTuple):
    """Some entries: their places, ascending, and their records."""

    places: Sequence[int]
    records: list[bytes]


Stretches = AsyncGenerator[Stretch, None]


class Plan(NamedTuple):
    """What one way through the contents at `version` needs to know, whatever it begins with."""

    version: int
    snapshot: Snapshot | None
    directory: Directory | None
    gone: Gone

    @property
    def since(self) -> int:
        """The version up to which the snapshot tells everything."""
        return self.snapshot.version if self.snapshot else 0

    @property
    def size_bytes(self) -> int:
        return self.gone.size_bytes + 8 * (self.snapshot.chunks if self.snapshot else 0)


class Contents:
    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def snapshot_at(self, log_id: LogId, version: int) -> Snapshot | None:
        """The last one at or below `version`."""
        async with store_answer():
            found = await self._redis.execute_command(
                "ZREVRANGEBYSCORE", keys.materialized(log_id).snapshots, version, "-inf",
                "LIMIT", 0, 1,
            )  # fmt: skip
        return Snapshot.decode(found[0]) if found else None

    async def plan(self, log_id: LogId, version: int) -> Plan:
        """
        Raises:
            Refusal: the store failed.
        """
        snapshot = await self.snapshot_at(log_id, version)
        since = snapshot.version if snapshot else 0
        directory = None
        if snapshot is not None:
            async with store_answer():
                data = await self._redis.execute_command(
                    "HGET", keys.materialized(log_id).chunks, snapshot.directory_field
                )
            if data is None:
                raise versions.MissingError("a piece of a snapshot")
            directory = Directory(data)
        gone = Gone()
        async with aclosing(self.removals(log_id, since, version)) as found:
            async for block in found:
                gone.add(block.removed)
        return Plan(version, snapshot, directory, gone)

    async def removals(self, log_id: LogId, low: int, high: int) -> AsyncGenerator[Block, None]:
        """What the versions in (low, high] removed, block by block; from the stream what no
        block tells yet."""
        if low >= high:
            return
        first, last = block_of(low + 1), block_of(high)
        for at in range(first, last + 1, _BLOCKS_AT_ONCE):
            numbers = range(at, min(at + _BLOCKS_AT_ONCE, last + 1))
            async with store_answer():
                found = await self._redis.execute_command(
                    "HMGET", keys.materialized(log_id).removals, *numbers
                )
            for number, data in zip(numbers, found, strict=True):
                begin, end = number * BLOCK_VERSIONS, (number + 1) * BLOCK_VERSIONS
                if data is None:
                    yield await self.block_of(log_id, max(low, begin), min(high, end))
                elif low <= begin and end <= high:
                    yield Block.decode(data)
                else:
                    yield Block.decode(data).within(low, high)

    async def block_of(self, log_id: LogId, low: int, high: int) -> Block:
        """The same of some versions, from the stream itself."""
        block = Block()
        async with aclosing(versions.pages(self._redis, log_id, low + 1, high)) as found:
            async for page in found:
                for version, body, effects in page.changed():
                    block.note(version, body, effects)
        block.sort()
        return block

    async def stretches(
        self, log_id: LogId, plan: Plan, first: int = 0, *, most: int | None = None
    ) -> Stretches:
        """The entries at places from `first` on; nothing is read ahead for who wants `most`."""
        if plan.snapshot is not None and first < first_place(plan.since + 1):
            async for stretch in self._of_snapshot(log_id, plan, first, most):
                yield stretch
        begin = max(plan.since + 1, version_of(first))
        rest = versions.pages(self._redis, log_id, begin, plan.version, most=most)
        async with aclosing(rest) as found:
            async for page in found:
                yield _added(page, plan.gone, first)

    async def _of_snapshot(
        self, log_id: LogId, plan: Plan, first: int, most: int | None
    ) -> Stretches:
        snapshot, directory = plan.snapshot, plan.directory
        assert snapshot is not None
        assert directory is not None
        begin, count = directory.chunk_with(first), 1  # the first byte must not wait for many
        while begin < snapshot.chunks:
            end = min(begin + count, snapshot.chunks)
            for chunk in await self.chunks(log_id, snapshot, range(begin, end)):
                gone = plan.gone.between(chunk.places[0], chunk.places[-1])
                places, records = chunk.kept(gone)
                if places and places[0] < first:
                    skipped = sum(1 for place in places if place < first)
                    places, records = places[skipped:], records[skipped:]
                yield Stretch(places, records)
            begin, count = end, _CHUNKS_AT_ONCE if most is None else min(2 * count, _CHUNKS_AT_ONCE)

    async def chunks(self, log_id: LogId, snapshot: Snapshot, numbers: range) -> list[Chunk]:
        async with store_answer():
            found = await self._redis.execute_command(
                "HMGET",
                keys.materialized(log_id).chunks,
                *(snapshot.chunk_field(number) for number in numbers),
            )
        if not all(found):
            raise versions.MissingError("a piece of a snapshot")
        return [Chunk.decode(data) for data in found]


def _added(page: versions.Page, gone: Gone, first: int) -> Stretch:
    """What the versions of a page added and nothing removed later."""
    removed = gone.between(first_place(page.first), first_place(page.last + 1))
    places, records = array("Q"), []
    for version, body, effects in page.changed():
        here = version << INDEX_BITS
        for index, offset, adds, _ in steps_of(effects):
            place = here | index
            if adds and place not in removed and place >= first:
                command = decode_at(body, offset).command
                places.append(place)
                records.append(record(command.token, command.key_ct, command.value, version))
    return Stretch(places, records)

"""Contents at a version, in the order of places: a snapshot less what went since, then what came.

Reads what the materializer has made as far as it has, and the versions for the rest: without any
of it the answer is the same, only slower. Memory is bounded by a chunk, a page of the stream,
and a dozen bytes for each change since the snapshot. Knows nothing of diffs or of HTTP.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, NamedTuple

from indelible_protocol.ids import LogId
from redis.asyncio import Redis

from indelible_server.store import keys, versions
from indelible_server.store.archive import Archive
from indelible_server.store.blocks import Blocks
from indelible_server.store.connection import store_answer
from indelible_server.store.places import (
    BLOCK_VERSIONS,
    INDEX_BITS,
    INDEX_MASK,
    INDEX_PLACE,
    Block,
    Gone,
    first_place,
    offset_of,
    place_of,
    steps_of,
    token_at,
    version_of,
)
from indelible_server.store.snapshots import Chunk, Directory, Snapshot, record_at

_CHUNKS_AT_ONCE = 8
_FIRST_VERSIONS = 8
_DENSE = 4  # one version in so many is worth reading all in a row


class Stretch(NamedTuple):
    """Some entries: their places, ascending, and their records."""

    places: Sequence[int]
    records: list[bytes]


Stretches = AsyncGenerator[Stretch, None]
_Found = tuple[list[int], list[versions.Changed]]  # places, and beside each the version of it


class Plan(NamedTuple):
    """What one way through the contents at `version` needs to know, whatever it begins with.

    `came` tells, block by block, what was added since the snapshot, `gone` what was removed.
    """

    version: int
    snapshot: Snapshot | None
    directory: Directory | None
    gone: Gone
    came: list[Block]

    @property
    def since(self) -> int:
        """The version up to which the snapshot tells everything."""
        return self.snapshot.version if self.snapshot else 0

    @property
    def size_bytes(self) -> int:
        size = self.gone.size_bytes + 8 * (self.snapshot.chunks if self.snapshot else 0)
        return size + sum(400 + 4 * len(block.added) for block in self.came)


class Contents:
    def __init__(self, redis: Redis, archive: Archive | None = None) -> None:
        self._redis = redis
        self._archive = archive or Archive(redis)
        self._versions = versions.Versions(redis, self._archive)
        self._blocks = Blocks(redis, self._versions)

    async def snapshot_at(self, log_id: LogId, version: int) -> Snapshot | None:
        """The last one at or below `version`."""
        async with store_answer():
            found = await self._redis.execute_command(
                "ZREVRANGEBYSCORE", keys.materialized(log_id).snapshots, version, "-inf",
                "LIMIT", 0, 1,
            )  # fmt: skip
        return Snapshot.decode(found[0]) if found else None

    async def plan(
        self,
        log_id: LogId,
        version: int,
        *,
        above: int = 0,
        each: Callable[[Block], Awaitable[None]] | None = None,
    ) -> Plan:
        """For entries alone that came after the version `above`; `each` is shown every block of
        what was done since.

        Raises:
            Refusal: the store failed.
        """
        snapshot, directory, since = await self.snapshot_at(log_id, version), None, above
        if snapshot is not None and snapshot.version > above:
            since, directory = snapshot.version, await self.directory(log_id, snapshot)
        else:
            snapshot = None
        if each is not None:
            async with aclosing(self._blocks.read(log_id, above, since, summed=True)) as found:
                async for block in found:
                    await each(block)
        gone, came = Gone(), []
        async with aclosing(self._blocks.read(log_id, since, version, summed=True)) as found:
            async for block in found:
                if each is not None:
                    await each(block)
                gone.add(block.removed_from(first_place(above + 1)))
                came.append(Block(base=block.base, count=block.count, added=block.added))
        return Plan(version, snapshot, directory, gone, came)

    async def beginning(self, log_id: LogId, version: int) -> Stretch | None:
        """What the contents at `version` (1 or more) begin with, without a plan: the first entries
        that the log's first versions brought, if they are all there to this day.

        None if one of them has gone, or it is not that simple.
        """
        try:
            page = await self._versions.read(log_id, 1, min(version, _FIRST_VERSIONS))
        except versions.MissingError:
            return None
        places: list[int] = []
        records: list[bytes] = []
        tokens: list[bytes] = []
        for brought, body, effects in page.changed():
            for step in steps_of(effects):
                if step.adds and len(places) < _FIRST_VERSIONS:
                    places.append(place_of(brought, step.command_index))
                    records.append(record_at(body, step.offset, brought))
                    tokens.append(token_at(body, step.offset))
        if not places:
            return None
        async with store_answer():
            now = await self._redis.execute_command("HMGET", keys.of_log(log_id).index, *tokens)
        there = [entry and place_of(*INDEX_PLACE.unpack_from(entry)) for entry in now]
        return Stretch(places, records) if there == places else None

    async def stretches(
        self, log_id: LogId, plan: Plan, first: int = 0, *, most: int | None = None
    ) -> Stretches:
        """The entries at places from `first` on; nothing is read ahead for who wants `most`."""
        if plan.snapshot is not None and first < first_place(plan.since + 1):
            async for stretch in self._of_snapshot(log_id, plan, first, most):
                yield stretch
        async with aclosing(self._of_stream(log_id, plan, first, most)) as rest:
            async for stretch in rest:
                yield stretch

    async def _of_stream(
        self, log_id: LogId, plan: Plan, first: int, most: int | None
    ) -> Stretches:
        """Reads the versions alone that added something which is still there."""
        at_once = _FIRST_VERSIONS if most is None else max(1, min(most, _FIRST_VERSIONS))
        pieces = _Pieces(_in_pieces(plan, first))

        def reads() -> Iterator[Callable[[], Coroutine[Any, Any, _Found]]]:
            while places := pieces.take(at_once):
                yield partial(self._rows, log_id, places)

        ahead = versions.READ_AT_ONCE if most is None else 1
        async with aclosing(versions.in_turn(reads(), at_once=ahead)) as found:
            async for places, rows in found:
                records = _records(places, rows)
                at_once = _next(at_once, len(records), sum(map(len, records)))
                yield Stretch(places, records)

    async def _rows(self, log_id: LogId, places: list[int]) -> _Found:
        of_places = [place >> INDEX_BITS for place in places]
        wanted = set(of_places)
        if _DENSE * len(wanted) > of_places[-1] - of_places[0]:
            page = await self._versions.read(log_id, of_places[0], of_places[-1])
            return places, page.changed_at(of_places)
        found = await self._versions.exactly(log_id, sorted(wanted))
        return places, [found[version] for version in of_places]

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

    async def chunks(
        self, log_id: LogId, snapshot: Snapshot, numbers: Sequence[int]
    ) -> list[Chunk]:
        return [Chunk.decode(data) for data in await self.pieces(log_id, snapshot, numbers)]

    async def directory(self, log_id: LogId, snapshot: Snapshot) -> Directory:
        [data] = await self.pieces(log_id, snapshot, [snapshot.directory_number])
        return Directory(data)

    async def pieces(
        self, log_id: LogId, snapshot: Snapshot, numbers: Sequence[int]
    ) -> list[bytes]:
        """From the store, or where they were moved to.

        Raises:
            MissingError: one is not there: the snapshot was forgotten meanwhile, or is damaged.
        """
        found = await self._stored_pieces(log_id, snapshot, numbers)
        lacking = [n for n, data in zip(numbers, found, strict=True) if data is None]
        if lacking:
            moved = await self._archive.pieces(log_id, snapshot, lacking)
            if not moved:  # they may have come back
                again = await self._stored_pieces(log_id, snapshot, lacking)
                pairs = zip(lacking, again, strict=True)
                moved = {n: data for n, data in pairs if data is not None}
            if len(moved) < len(set(lacking)):
                raise versions.MissingError("a piece of a snapshot")
            found = [moved.get(n, data) for n, data in zip(numbers, found, strict=True)]
        return [data for data in found if data is not None]

    async def _stored_pieces(
        self, log_id: LogId, snapshot: Snapshot, numbers: Sequence[int]
    ) -> list[bytes | None]:
        async with store_answer():
            found: list[bytes | None] = await self._redis.execute_command(
                "HMGET",
                keys.materialized(log_id).chunks,
                *(snapshot.field(number) for number in numbers),
            )
        return found


def _records(places: Sequence[int], rows: Sequence[versions.Changed]) -> list[bytes]:
    """Of the entries at `places`, each of which is in the version beside it."""
    return [
        record_at(body, offset_of(effects, index) if (index := place & INDEX_MASK) else 0, version)
        for place, (version, body, effects) in zip(places, rows, strict=True)
    ]


def _in_pieces(plan: Plan, first: int) -> Iterator[list[int]]:
    """Places from `first` on that came since the snapshot and have not gone again."""
    for block in plan.came:
        if block.end < version_of(first):
            continue
        if block.base >= plan.since and plan.gone.all_of(block):
            continue
        for base in range(block.base, block.end, BLOCK_VERSIONS):
            end = first_place(base + BLOCK_VERSIONS + 1)
            places = block.places_added(max(first, first_place(base + 1)), end)
            if places:
                gone = plan.gone.between(places[0], places[-1])
                left = [place for place in places if place not in gone] if gone else places
                if left:
                    yield left


class _Pieces:
    """Places in their order, made as they are taken: there may be millions."""

    def __init__(self, pieces: Iterator[list[int]]) -> None:
        self._pieces = pieces
        self._begun: list[int] = []

    def take(self, most: int) -> list[int]:
        """At most `most` places, of versions that lie in one stretch of the stream or nearly so."""
        taken: list[int] = []
        while len(taken) < most:
            piece = self._begun or next(self._pieces, [])
            if not piece:
                break
            room = most - len(taken)
            taken += piece[:room]
            self._begun = piece[room:]
        return taken


def _next(at_once: int, count: int, size: int) -> int:
    """Twice as many the next time, while they are about a MiB."""
    fits = count * versions.PAGE_BYTES // max(1, size + 300 * count)
    return max(1, min(2 * at_once, fits, versions.MAX_PAGE_VERSIONS))

"""Diffs: the net of what lies between two versions, page by page, in order, in bounded memory.

A diff that is small is folded from the stream. A larger one follows from places alone: it adds
what is in the contents at the later version and came after the earlier one; it removes what
went in between and was there before. So it costs what the contents cost, or the changes, the
less of the two. How a diff is gone through is found once, and kept while there is room: all
pages of one walk share it, whatever page comes first. Knows nothing of HTTP.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from functools import partial
from typing import NamedTuple

from indelible_protocol import limits
from indelible_protocol.diff import Order
from indelible_protocol.ids import LogId
from redis.asyncio import Redis

from indelible_server.store.archive import Archive
from indelible_server.store.caching import WeighedCache
from indelible_server.store.contents import Contents, Plan
from indelible_server.store.entries import ChangedEntry, Entries, EntryValue
from indelible_server.store.places import INDEX_BITS, Block, first_place, steps_of, token_at
from indelible_server.store.snapshots import entry_of, record, removal_of, token_of
from indelible_server.store.spooling import At, Gathering, Listed, Row, Rows
from indelible_server.store.versions import Versions

FOLDED_VERSIONS = 1_024
FOLDED_CHANGES = 20_000
STREAMED_AT_ONCE = 1_000
_CACHED_BYTES = 32 << 20
_GONE, _BARE = 0, 1  # what is remembered of keys: the entry that went, the command that ended it
_SMALL_WAY = 500


class Position(NamedTuple):
    """Where a page begins: at a place in order `command`, at a token in order `key`; behind the
    remove that is there if `adds`."""

    at: At
    adds: bool


class Span(NamedTuple):
    """Which diff of which log. `low` and `high` are its versions; `inverse`: it leads back.

    `first` is the log's first version: what was found below it is not there once that moves.
    """

    log_id: LogId
    incarnation: int
    first: int
    low: int
    high: int
    inverse: bool
    order: Order


class NetPage(NamedTuple):
    """`rest` is where the next page begins; None on the last."""

    changes: list[ChangedEntry]
    rest: Position | None


class Portion(NamedTuple):
    """Some changes as msgpack has them, and where the next portion begins; None: nowhere."""

    changes: list[bytes]
    rest: Position | None


class _Straight(NamedTuple):
    """The contents at the plan's version from place `first` on, and nothing else."""

    plan: Plan
    first: int

    @property
    def size_bytes(self) -> int:
        return _SMALL_WAY + self.plan.size_bytes


class _Sorted(NamedTuple):
    rows: Rows

    @property
    def size_bytes(self) -> int:
        return _SMALL_WAY + self.rows.size_bytes


_Way = _Straight | _Sorted


class Nets:
    def __init__(
        self, redis: Redis, archive: Archive | None = None, *, cached_bytes: int = _CACHED_BYTES
    ) -> None:
        archive = archive or Archive(redis)
        self._versions = Versions(redis, archive)
        self._contents = Contents(redis, archive)
        self._entries = Entries(redis, archive)
        self._ways: WeighedCache[Span, _Way] = WeighedCache(
            cached_bytes, lambda way: way.size_bytes
        )

    async def page(self, span: Span, start: Position | None, limit: int) -> NetPage:
        """At most `limit` changes from `start` on, fewer if they pass MAX_PAGE_BYTES.

        Raises:
            MissingError: the log is deleted, or it is damaged.
        """
        way = await self._way(span)
        if isinstance(way, _Straight):
            return await self._straight_page(span, way, start, limit)
        rows = way.rows.behind(start, limit + 1)
        found = await self._entries.some(span.log_id, [row.place for row in rows[:limit]])
        changes = [
            ChangedEntry("add" if row.adds else "remove", entry)
            for row, entry in zip(rows, found, strict=False)
        ]
        following = rows[len(found)] if len(found) < len(rows) else None
        return NetPage(changes, following and Position(following.at, following.adds))

    async def _straight_page(
        self, span: Span, way: _Straight, start: Position | None, limit: int
    ) -> NetPage:
        adds, size = not span.inverse, 0
        changes: list[ChangedEntry] = []
        stretches = self._contents.stretches(
            span.log_id, way.plan, _first(way, start, adds), most=limit + 1
        )
        async with aclosing(stretches) as found:
            async for places, records in found:
                for place, packed in zip(places, records, strict=True):
                    if len(changes) == limit or size >= limits.MAX_PAGE_BYTES:
                        return NetPage(changes, Position(place, adds))
                    entry = entry_of(packed)
                    value = EntryValue(entry.key, entry.sealed_key, entry.value, entry.version)
                    changes.append(ChangedEntry("add" if adds else "remove", value))
                    size += len(value.sealed_key) + len(value.value)
        return NetPage(changes, None)

    async def portions(self, span: Span, start: Position | None) -> AsyncGenerator[Portion, None]:
        """All changes from `start` on, as they come; at least one portion.

        Raises:
            MissingError: as `page`; of a log that is deleted meanwhile, perhaps in the middle.
        """
        if start is None and _is_contents(span) and span.high > FOLDED_VERSIONS:
            # The way takes longer to find the longer the log is.
            begun = await self._contents.beginning(span.log_id, span.high)
            if begun is not None:
                start = Position(begun.places[-1] + 1, True)
                yield Portion(begun.records, start)
        way = await self._way(span)
        rest = start
        if isinstance(way, _Sorted):
            while True:
                page = await self.page(span, rest, STREAMED_AT_ONCE)
                rest = page.rest
                yield Portion([_packed(change) for change in page.changes], rest)
                if rest is None:
                    return
        adds = not span.inverse
        last: list[bytes] = []
        stretches = self._contents.stretches(span.log_id, way.plan, _first(way, start, adds))
        async with aclosing(stretches) as found:
            async for places, records in found:
                if not places:
                    continue
                if last:
                    yield Portion(last, Position(places[0], adds))
                last = records if adds else [removal_of(packed) for packed in records]
        yield Portion(last, None)

    async def _way(self, span: Span) -> _Way:
        return await self._ways.get(span, lambda: self._found_way(span))

    async def _found_way(self, span: Span) -> _Way:
        if span.high - span.low <= FOLDED_VERSIONS and (span.low or not span.first):
            rows = await self._folded(span)
            if rows is not None:
                return _Sorted(rows)
        gathering = Gathering()
        if span.low:
            each = partial(self._gather_gone, span, gathering)
            plan = await self._contents.plan(span.log_id, span.high, above=span.low, each=each)
        else:
            plan = await self._contents.plan(span.log_id, span.high)
        if span.order == "command" and not gathering.some(_GONE):
            return _Straight(plan, first_place(span.low + 1))
        await self._gather_changes(span, plan, gathering)
        return _Sorted(gathering.rows())

    async def _folded(self, span: Span) -> Rows | None:
        """From the stream; None if there is too much."""
        nets: dict[bytes, list[int]] = {}  # the places of: entry before, entry after, last command
        found = self._versions.pages(span.log_id, span.low + 1, span.high)
        async with aclosing(found) as pages:
            async for page in pages:
                for version, body, effects in page.changed():
                    here = version << INDEX_BITS
                    for index, offset, adds, removed in steps_of(effects):
                        token, place = token_at(body, offset), here | index
                        after = place if adds else 0
                        net = nets.get(token)
                        if net is None:
                            nets[token] = [removed, after, place]
                        else:
                            net[1] = after
                            net[2] = place
                if len(nets) > FOLDED_CHANGES:
                    return None
        rows = []
        for token, (before, after, last) in nets.items():
            at = last if span.order == "command" else token
            if before:
                rows.append(Row(at, span.inverse, before))
            if after:
                rows.append(Row(at, not span.inverse, after))
        return Listed(rows)

    async def _gather_gone(self, span: Span, gathering: Gathering, block: Block) -> None:
        """Remembers, by their keys, the entries that went and the commands that ended keys."""
        gathering.remember(_BARE, ((token, place) for place, token in block.bare))
        places: Sequence[int] = block.removed_below(first_place(span.low + 1))
        while places:
            found = await self._entries.some(span.log_id, places)
            tokens = (entry.key for entry in found)
            gathering.remember(_GONE, zip(tokens, places, strict=False))
            places = places[len(found) :]

    async def _gather_changes(self, span: Span, plan: Plan, gathering: Gathering) -> None:
        """What came, each with what it replaced; then what went and has no successor."""
        by_key = span.order == "key"
        first = first_place(span.low + 1)
        async with aclosing(self._contents.stretches(span.log_id, plan, first)) as stretches:
            async for places, records in stretches:
                rows = []
                for place, packed in zip(places, records, strict=True):
                    token = token_of(packed)
                    at = token if by_key else place
                    gone = gathering.take(_GONE, token)
                    if gone is not None:
                        rows.append(Row(at, span.inverse, gone))
                    rows.append(Row(at, not span.inverse, place))
                gathering.add(rows)
        while some := gathering.some(_GONE):
            rows = []
            for token, gone in some:
                gathering.take(_GONE, token)
                ended = gathering.recall(_BARE, token)
                assert ended is not None, "a key that is gone was ended by no command"
                rows.append(Row(token if by_key else ended, span.inverse, gone))
            gathering.add(rows)


def _is_contents(span: Span) -> bool:
    """Whether it adds what there is at a version, in the order of places."""
    return not span.low and not span.inverse and span.order == "command"


def _first(way: _Straight, start: Position | None, adds: bool) -> int:
    """The first place of a page; `adds` is what all of its changes do."""
    if start is None:
        return way.first
    assert isinstance(start.at, int)
    return max(way.first, start.at + (start.adds and not adds))


def _packed(change: ChangedEntry) -> bytes:
    entry = change.entry
    packed = record(entry.key, entry.sealed_key, entry.value, entry.version)
    return packed if change.op == "add" else removal_of(packed)

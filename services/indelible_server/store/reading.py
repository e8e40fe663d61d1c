"""Reading logs: heads, diffs, entries, histories, versions.

Every read begins with the head, so what is answered is never older than the last version
acknowledged before the read began; what lies between two versions never changes and is
cached. Knows nothing of HTTP or of waiting.
"""

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Sequence,
)
from contextlib import aclosing
from typing import Any, NamedTuple

from indelible_protocol import limits
from indelible_protocol.commands import Command, decode_at
from indelible_protocol.diff import Effect, Order, decode_effects
from indelible_protocol.errors import ErrorCode
from indelible_protocol.ids import LogId
from indelible_protocol.records import Header
from msgspec import Struct
from redis.asyncio import Redis

from indelible_server.store import current, keys
from indelible_server.store.archive import Archive
from indelible_server.store.batching import BatchingRedis
from indelible_server.store.cluster import Cluster, part_of
from indelible_server.store.connection import store_answer
from indelible_server.store.covering import Covering
from indelible_server.store.current import Current
from indelible_server.store.entries import (
    Entries,
    EntryValue,
    StoredVersion,
    next_batch,
)
from indelible_server.store.errors import Refusal, stored
from indelible_server.store.logs import nonexistent, replaced
from indelible_server.store.lookups import Lookups
from indelible_server.store.names import Group, Names
from indelible_server.store.nets import NetPage, Nets, Portion, Position, Span
from indelible_server.store.places import INDEX_PLACE, place_of
from indelible_server.store.versions import MissingError, Versions
from indelible_server.store.waiters import UNTOLD

_FIRST_BATCH = 8
_SCAN_VERSIONS = 20_000
_HEADS_AT_ONCE = 500


class Head(NamedTuple):
    version: int
    incarnation: int
    first_version: int


class KeyStep(NamedTuple):
    """What a version did to one key; `entry` is None when it removed it."""

    version: int
    time_ms: int
    entry: EntryValue | None


class VersionSummary(Struct, frozen=True, kw_only=True):
    version: int
    time_ms: int
    header: bytes
    writer: bytes
    source: bytes
    commands: int
    changes: int
    stored_bytes: int


class Reader:
    """Shows what `covering` lets it show, and finds in `archive` what is not in the store."""

    def __init__(
        self, redis: Redis, covering: Covering | None = None, archive: Archive | None = None
    ) -> None:
        archive = archive or Archive(redis)
        self._redis = redis
        self._batching = redis if isinstance(redis, (BatchingRedis, Cluster)) else None
        self._covering = covering or Covering(redis, 0)
        self._names = Names(redis, self._covering)
        self._versions = Versions(redis, archive)
        self._entries = Entries(redis, archive)
        self._lookups = Lookups(redis, archive)
        self._nets = Nets(redis, archive)

    def part_of(self, watched: LogId | Group) -> int:
        """What fails and is slow together: other parts need not wait for it."""
        if isinstance(watched, Group):
            return part_of(self._redis, keys.group(*watched).version)
        return part_of(self._redis, keys.of_log(watched).meta)

    async def head(self, log_id: LogId) -> Head:
        """
        Raises:
            Refusal: LOG_REPLACED, NONEXISTENT_LOG.
        """
        async with store_answer():
            fields = await self._redis.execute_command(
                "HMGET", keys.of_log(log_id).meta, *_HEAD_FIELDS
            )
        await self._cover(log_id, fields)
        return _head(fields)

    async def _cover(self, log_id: LogId, fields: Sequence[Any]) -> None:
        version, _, _, deleted, safe = fields
        if version is not None:
            await self._covering.cover(log_id, int(version), safe, deleted=deleted is not None)

    async def heads(self, log_ids: Sequence[LogId]) -> list[Head | None]:
        """Heads of many logs; None for those that are deleted or absent.

        Raises:
            StoreUnavailable: one of them cannot be told.
        """
        heads: list[Head | None] = []
        for head in await self._heads_or_refusals(log_ids):
            if isinstance(head, Refusal):
                raise head
            heads.append(head)
        return heads

    async def _heads_or_refusals(self, log_ids: Sequence[LogId]) -> list[Head | Refusal | None]:
        found: list[Head | Refusal | None] = []
        for at in range(0, len(log_ids), _HEADS_AT_ONCE):
            some = log_ids[at : at + _HEADS_AT_ONCE]
            rows = await asyncio.gather(*map(self._head_fields, some), return_exceptions=True)
            heads = [row for row in rows if not isinstance(row, BaseException)]
            if self._covering.is_needed or len(heads) < len(rows):
                found += await asyncio.gather(*map(self._covered_head, some, rows))
            else:
                found += map(_head_if_there, heads)
        return found

    async def _covered_head(
        self, log_id: LogId, row: list[Any] | BaseException
    ) -> Head | Refusal | None:
        try:
            async with store_answer():
                if isinstance(row, BaseException):
                    raise row
            await self._cover(log_id, row)
        except Refusal as refusal:
            return refusal
        return _head_if_there(row)

    def _head_fields(self, log_id: LogId) -> Awaitable[list[Any]]:
        fields: Awaitable[list[Any]] = self._redis.execute_command(
            "HMGET", keys.of_log(log_id).meta, *_HEAD_FIELDS
        )
        return fields

    async def current_versions(self, watched: Sequence[LogId | Group]) -> list[int | None]:
        """Of logs and of groups' listings; None for a log that is deleted or absent.

        Where some logs can be told and others not, as in a cluster that lost a node, those are
        UNTOLD.

        Raises:
            StoreUnavailable: none can be told.
        """
        groups = [each for each in watched if isinstance(each, Group)]
        told = await self._heads_or_refusals([e for e in watched if not isinstance(e, Group)])
        refusals = [head for head in told if isinstance(head, Refusal)]
        if refusals and len(refusals) == len(told):
            raise refusals[0]
        heads = iter(told)
        versions = iter(await self._names.group_versions(groups) if groups else ())
        found: list[int | None] = []
        for each in watched:
            if isinstance(each, Group):
                found.append(next(versions))
            else:
                head = next(heads)
                absent = UNTOLD if isinstance(head, Refusal) else None
                found.append(head.version if isinstance(head, Head) else absent)
        return found

    async def page(
        self,
        log_id: LogId,
        head: Head,
        from_version: int,
        to_version: int,
        order: Order,
        start: Position | None = None,
        limit: int = limits.DEFAULT_PAGE,
    ) -> NetPage:
        """At most `limit` of the net changes between two versions of the log at `head`.

        Fewer if they pass MAX_PAGE_BYTES. Without `start` from the first on.

        Raises:
            Refusal: NONEXISTENT_VERSION, FORGOTTEN_VERSION, LOG_REPLACED.
        """
        while True:
            span = _span(log_id, head, from_version, to_version, order)
            try:
                return await self._nets.page(span, start, limit)
            except MissingError:
                head = await self._moved(log_id, head)

    async def portions(
        self,
        log_id: LogId,
        head: Head,
        from_version: int,
        to_version: int,
        order: Order,
        start: Position | None = None,
    ) -> AsyncGenerator[Portion, None]:
        """All of them as they come, in memory that does not grow with them.

        Raises:
            Refusal: as `page`.
        """
        while True:
            span = _span(log_id, head, from_version, to_version, order)
            try:
                async with aclosing(self._nets.portions(span, start)) as found:
                    async for portion in found:
                        yield portion
                        start = portion.rest
                return
            except MissingError:
                head = await self._moved(log_id, head)

    async def changes_any(
        self,
        log_id: LogId,
        head: Head,
        from_version: int,
        to_version: int,
        tokens: Iterable[bytes],
    ) -> bool:
        """Whether the diff changes one of these keys.

        Raises:
            Refusal: as `page`.
        """
        for token in tokens:
            start = Position(token, False)
            page = await self.page(log_id, head, from_version, to_version, "key", start, 1)
            if page.changes and page.changes[0].entry.key == token:
                return True
        return False

    async def entries(
        self, log_id: LogId, tokens: Sequence[bytes], at: int | None
    ) -> tuple[Head, list[EntryValue]]:
        """The entries that exist at version `at` (the current one if None), in the order asked.

        Raises:
            Refusal: NONEXISTENT_VERSION, FORGOTTEN_VERSION, LOG_REPLACED, NONEXISTENT_LOG.
        """
        if at is None and len(tokens) == 1:
            found = await current.read(self._redis, self._covering, log_id, tokens[0])
            if found is not None:
                return _shown(found)
        head = None
        while True:
            try:
                return await self._entries_of(log_id, tokens, at)
            except MissingError:
                head = await self._moved(log_id, head)

    def begin_entry(
        self,
        log_id: LogId,
        token: bytes,
        deliver: Callable[[tuple[Head, list[EntryValue]] | Refusal | None], None],
    ) -> None:
        """`entries` of one key at the head, without a task where it is at hand.

        `deliver` gets what that returns or raises, or None if only that can tell; it is called
        once and must not raise.
        """

        def found(told: Current | Refusal | None) -> None:
            deliver(_shown(told) if isinstance(told, Current) else told)

        if self._batching is None:
            deliver(None)
        else:
            current.ask(self._batching, self._covering, log_id, token, found)

    async def _entries_of(
        self, log_id: LogId, tokens: Sequence[bytes], at: int | None
    ) -> tuple[Head, list[EntryValue]]:
        log_keys = keys.of_log(log_id)
        async with store_answer(), self._redis.pipeline(transaction=True) as pipe:
            pipe.execute_command("HMGET", log_keys.meta, *_HEAD_FIELDS)
            pipe.execute_command("HMGET", log_keys.index, *tokens)
            fields, index = await pipe.execute()
        await self._cover(log_id, fields)
        head = _head(fields)
        places = {
            token: place_of(*INDEX_PLACE.unpack_from(entry))
            for token, entry in zip(tokens, index, strict=True)
            if entry is not None
        }
        if at is None or at == head.version:
            now = [places[t] for t in tokens if t in places]
            return head, await self._all(log_id, now, live=True)
        check_version(at, head, "at")
        places = await self._lookups.places(log_id, tokens, places, at)
        wanted = [token for token in tokens if token in places]
        found = await self._all(log_id, [places[token] for token in wanted])
        if [entry.key for entry in found] != wanted:  # tokens that were made to look alike
            places = await self._lookups.searched(log_id, tokens, at)
            found = await self._all(log_id, [places[t] for t in tokens if t in places])
        return head, found

    async def _all(
        self, log_id: LogId, places: Sequence[int], *, live: bool = False
    ) -> list[EntryValue]:
        found: list[EntryValue] = []
        while len(found) < len(places):
            found += await self._entries.some(log_id, places[len(found) :], live=live)
        return found

    async def _moved(self, log_id: LogId, head: Head | None) -> Head:
        """For one who found something missing: the head to read again by.

        Of a log that was deleted, or has forgotten more since `head`, it is no damage.

        Raises:
            Refusal: LOG_REPLACED.
            MissingError: it is damage.
        """
        later = await self.head(log_id)
        if head is not None and later.first_version == head.first_version:
            raise MissingError("versions below its head")
        return later

    async def history(
        self, log_id: LogId, head: Head, token: bytes, before: int, limit: int
    ) -> tuple[list[KeyStep], int | None]:
        """Steps of one key at versions below `before`, newest first, and where to go on.

        Reads a bounded number of versions, so a page may be short or empty though more follow.
        Ends at the log's first version.
        """
        while True:
            try:
                return await self._history(log_id, head, token, before, limit)
            except MissingError:
                head = await self._moved(log_id, head)

    async def _history(
        self, log_id: LogId, head: Head, token: bytes, before: int, limit: int
    ) -> tuple[list[KeyStep], int | None]:
        steps: list[KeyStep] = []
        first = max(1, head.first_version)
        lowest = max(first, before - _SCAN_VERSIONS)
        async for version in self._stored(log_id, lowest, before - 1, newest_first=True):
            for command, effect in _changes(version):
                if command.token == token:
                    entry = None
                    if effect.adds:
                        entry = EntryValue(token, command.key_ct, command.value, version.version)
                    steps.append(KeyStep(version.version, version.time_ms, entry))
            if len(steps) >= limit:
                lowest = version.version
                break
        return steps, lowest if lowest > first else None

    async def summaries(
        self, log_id: LogId, head: Head, before: int, limit: int
    ) -> tuple[list[VersionSummary], int | None]:
        """Versions below `before` and from the log's first on, newest first; where to go on."""
        while True:
            try:
                return await self._summaries(log_id, head, before, limit)
            except MissingError:
                head = await self._moved(log_id, head)

    async def _summaries(
        self, log_id: LogId, head: Head, before: int, limit: int
    ) -> tuple[list[VersionSummary], int | None]:
        first = max(1, head.first_version)
        lowest = max(first, before - limit)
        found = []
        async for version in self._stored(log_id, lowest, before - 1, newest_first=True):
            found.append(_summary(version))
        return found, lowest if lowest > first else None

    async def commits(
        self, log_id: LogId, head: Head, from_version: int, to_version: int
    ) -> list[StoredVersion]:
        """The versions in (from, to], as many as fit in MAX_PAGE_BYTES, at least one.

        Raises:
            Refusal: NONEXISTENT_VERSION, FORGOTTEN_VERSION, LOG_REPLACED.
        """
        while True:
            check_version(to_version, head, "to")
            if from_version + 1 < head.first_version:
                raise forgotten(from_version, head, "from")
            check_version(from_version, head, "from")
            try:
                return await self._commits(log_id, from_version, to_version)
            except MissingError:
                head = await self._moved(log_id, head)

    async def _commits(
        self, log_id: LogId, from_version: int, to_version: int
    ) -> list[StoredVersion]:
        found: list[StoredVersion] = []
        size = 0
        async for version in self._stored(log_id, from_version + 1, to_version):
            found.append(version)
            size += version.size
            if size >= limits.MAX_PAGE_BYTES or len(found) == limits.MAX_PAGE:
                break
        return found

    async def _stored(
        self, log_id: LogId, first: int, last: int, *, newest_first: bool = False
    ) -> AsyncIterator[StoredVersion]:
        """Versions first to last, read in batches that grow up to a bound of bytes."""
        batch = _FIRST_BATCH
        while first <= last:
            size = 0
            rows = await self._versions.run(log_id, first, last, batch, newest_first=newest_first)
            for row in rows:
                stored = StoredVersion.read(row)
                size += stored.size
                yield stored
            if newest_first:
                last = stored.version - 1
            else:
                first = stored.version + 1
            batch = next_batch(batch, size)


def _shown(found: Current) -> tuple[Head, list[EntryValue]]:
    *told, entry = found
    return Head(*told), [] if entry is None else [entry]


_HEAD_FIELDS = ("version", "incarnation", "first_version", "deleted", "safe")


def check_version(version: int, head: Head, name: str) -> None:
    """
    Raises:
        Refusal: NONEXISTENT_VERSION above the head, FORGOTTEN_VERSION below the first.
    """
    if version > head.version:
        raise Refusal(
            ErrorCode.NONEXISTENT_VERSION,
            f"{name} is {version}, the log is at version {head.version}",
            {"current_version": head.version},
        )
    if 0 < version < head.first_version:
        raise forgotten(version, head, name)


def forgotten(version: int, head: Head, name: str) -> Refusal:
    return Refusal(
        ErrorCode.FORGOTTEN_VERSION,
        f"{name} is {version}, versions below {head.first_version} are forgotten",
        {"first_version": head.first_version, "current_version": head.version},
    )


def _head_if_there(fields: Sequence[Any]) -> Head | None:
    return None if fields[0] is None or fields[3] is not None else _head(fields)


def _head(fields: Sequence[Any]) -> Head:
    version, incarnation, first_version, deleted, _ = fields
    if version is None:
        raise nonexistent()
    if deleted is not None:
        raise replaced(int(version))
    return Head(int(version), int(incarnation), int(first_version))


def _span(log_id: LogId, head: Head, from_version: int, to_version: int, order: Order) -> Span:
    """
    Raises:
        Refusal: NONEXISTENT_VERSION, FORGOTTEN_VERSION.
    """
    check_version(from_version, head, "from")
    check_version(to_version, head, "to")
    low, high = sorted((from_version, to_version))
    inverse = from_version > to_version
    return Span(log_id, head.incarnation, head.first_version, low, high, inverse, order)


def _summary(version: StoredVersion) -> VersionSummary:
    with stored():
        header, effects = Header.decode(version.header), decode_effects(version.effects)
    return VersionSummary(
        version=version.version,
        time_ms=version.time_ms,
        header=version.header,
        writer=header.writer,
        source=header.memo_ct,
        commands=header.command_count,
        changes=len(effects),
        stored_bytes=version.size,
    )


def _changes(version: StoredVersion) -> list[tuple[Command, Effect]]:
    """Each effect with the command that made it."""
    with stored():
        effects = decode_effects(version.effects)
        return [(decode_at(version.body, each.offset)[0], each) for each in effects]

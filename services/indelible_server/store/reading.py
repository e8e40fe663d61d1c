"""Reading logs: heads, diffs, entries, histories, versions.

Every read begins with the head, so what is answered is never older than the last version
acknowledged before the read began; what lies between two versions never changes and is
cached. Folds the stream; knows nothing of HTTP or of waiting.
"""

import asyncio
import struct
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from indelible_protocol import limits
from indelible_protocol.commands import Command, decode_at
from indelible_protocol.diff import (
    Change,
    Effect,
    Fold,
    Order,
    by_key,
    decode_effects,
    inverted,
)
from indelible_protocol.errors import ErrorCode
from indelible_protocol.ids import LogId
from indelible_protocol.records import Header
from redis.asyncio import Redis

from indelible_server.store import keys
from indelible_server.store.caching import WeighedCache
from indelible_server.store.connection import store_answer
from indelible_server.store.covering import Covering
from indelible_server.store.errors import Refusal
from indelible_server.store.logs import nonexistent, replaced
from indelible_server.store.names import Group, Names

_BATCH_BYTES = 8 << 20
_MAX_BATCH = 1_000
_FIRST_BATCH = 8
_SCAN_VERSIONS = 20_000
_HEADS_AT_ONCE = 500
_CACHED_CHANGES = 200_000
_INDEX_PLACE = struct.Struct(">QII")
_Place = tuple[int, int, int]  # version, command index, offset


class Head(NamedTuple):
    version: int
    incarnation: int
    first_version: int


class StoredVersion(NamedTuple):
    """A version as it lies in the stream."""

    version: int
    time_ms: int
    header: bytes
    signature: bytes
    body: bytes
    effects: bytes

    @property
    def size(self) -> int:
        return len(self.header) + len(self.signature) + len(self.body) + len(self.effects)

    def changes(self) -> Iterable[tuple[Command, Effect]]:
        """Each effect with the command that made it."""
        for effect in decode_effects(self.effects):
            yield decode_at(self.body, effect.offset).command, effect


class EntryValue(NamedTuple):
    """An entry with its bytes, as its introducing commit holds them."""

    key: bytes
    sealed_key: bytes
    value: bytes
    version: int


class ChangedEntry(NamedTuple):
    op: Literal["remove", "add"]
    entry: EntryValue


class KeyStep(NamedTuple):
    """What a version did to one key; `entry` is None when it removed it."""

    version: int
    time_ms: int
    entry: EntryValue | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionSummary:
    version: int
    time_ms: int
    header: bytes
    writer: bytes
    source: bytes
    commands: int
    changes: int
    stored_bytes: int


class Reader:
    """Shows what `covering` lets it show."""

    def __init__(self, redis: Redis, covering: Covering | None = None) -> None:
        self._redis = redis
        self._covering = covering or Covering(redis, 0)
        self._names = Names(redis, self._covering)
        self._folds: WeighedCache[tuple[LogId, int, int, int], tuple[Change, ...]] = WeighedCache(
            _CACHED_CHANGES, lambda changes: len(changes) + 1
        )

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
        """Heads of many logs; None for those that are deleted or absent."""
        found: list[Head | None] = []
        for at in range(0, len(log_ids), _HEADS_AT_ONCE):
            some = log_ids[at : at + _HEADS_AT_ONCE]
            async with store_answer(), self._redis.pipeline(transaction=False) as pipe:
                for log_id in some:
                    pipe.execute_command("HMGET", keys.of_log(log_id).meta, *_HEAD_FIELDS)
                rows = await pipe.execute()
            if self._covering.is_needed:
                await asyncio.gather(*map(self._cover, some, rows))
            found += [None if r[0] is None or r[3] is not None else _head(r) for r in rows]
        return found

    async def current_versions(self, watched: Sequence[LogId | Group]) -> list[int | None]:
        """Of logs and of groups' listings; None for a log that is deleted or absent."""
        groups = [each for each in watched if isinstance(each, Group)]
        heads = iter(await self.heads([e for e in watched if not isinstance(e, Group)]))
        versions = iter(await self._names.group_versions(groups) if groups else ())
        found: list[int | None] = []
        for each in watched:
            if isinstance(each, Group):
                found.append(next(versions))
            else:
                head = next(heads)
                found.append(None if head is None else head.version)
        return found

    async def changes(
        self, log_id: LogId, head: Head, from_version: int, to_version: int, order: Order
    ) -> Sequence[Change]:
        """The net changes between two versions of the log at `head`, in `order`.

        Raises:
            Refusal: NONEXISTENT_VERSION, FORGOTTEN_VERSION.
        """
        check_version(from_version, head, "from")
        check_version(to_version, head, "to")
        low, high = sorted((from_version, to_version))
        changes = await self._folds.get(
            (log_id, head.incarnation, low, high), lambda: self._fold(log_id, low, high)
        )
        if from_version > to_version:
            changes = tuple(inverted(changes))
        return by_key(changes) if order == "key" else changes

    async def _fold(self, log_id: LogId, low: int, high: int) -> tuple[Change, ...]:
        fold = Fold()
        async for stored in self._versions(log_id, low + 1, high):
            for command, effect in stored.changes():
                fold.add(stored.version, command.token, effect)
        return tuple(fold.changes())

    async def resolve(self, log_id: LogId, changes: Sequence[Change]) -> list[ChangedEntry]:
        """Looks up keys and values where they were introduced.

        Stops early, at a whole number of changes and at least one, when the values pass
        MAX_PAGE_BYTES: the caller pages on from there.
        """
        resolved: list[ChangedEntry] = []
        size, at, batch = 0, 0, _FIRST_BATCH
        while at < len(changes) and size < limits.MAX_PAGE_BYTES:
            wanted = changes[at : at + batch]
            stored = await self._exactly(log_id, {change.version for change in wanted})
            for change in wanted:
                entry = _entry(stored[change.version], change.offset)
                resolved.append(ChangedEntry(change.op, entry))
                size += len(entry.sealed_key) + len(entry.value)
                if size >= limits.MAX_PAGE_BYTES:
                    break
            at += batch
            batch = _next_batch(batch, sum(version.size for version in stored.values()))
        return resolved

    async def entries(
        self, log_id: LogId, tokens: Sequence[bytes], at: int | None
    ) -> tuple[Head, list[EntryValue]]:
        """The entries that exist at version `at` (the current one if None), in the order asked.

        Raises:
            Refusal: NONEXISTENT_VERSION, FORGOTTEN_VERSION, LOG_REPLACED, NONEXISTENT_LOG.
        """
        log_keys = keys.of_log(log_id)
        async with store_answer(), self._redis.pipeline(transaction=True) as pipe:
            pipe.execute_command("HMGET", log_keys.meta, *_HEAD_FIELDS)
            pipe.execute_command("HMGET", log_keys.index, *tokens)
            fields, index = await pipe.execute()
        await self._cover(log_id, fields)
        head = _head(fields)
        places: dict[bytes, _Place] = {
            token: _INDEX_PLACE.unpack_from(entry)
            for token, entry in zip(tokens, index, strict=True)
            if entry is not None
        }
        if at is not None and at != head.version:
            places = await self._places_at(log_id, head, at, places)
        wanted = [token for token in tokens if token in places]
        changes = [Change("add", token, *places[token], 0, 0) for token in wanted]
        found: list[EntryValue] = []
        while len(found) < len(changes):
            resolved = await self.resolve(log_id, changes[len(found) :])
            found.extend(changed.entry for changed in resolved)
        return head, found

    async def _places_at(
        self, log_id: LogId, head: Head, at: int, places: dict[bytes, _Place]
    ) -> dict[bytes, _Place]:
        """Places at version `at`, by the cheaper of folding up to it or back from the head."""
        if at <= head.version - at:
            forward = await self.changes(log_id, head, 0, at, "command")
            return {change.token: _place(change) for change in forward}
        places = dict(places)
        for change in await self.changes(log_id, head, head.version, at, "command"):
            if change.op == "remove":
                places.pop(change.token, None)
            else:
                places[change.token] = _place(change)
        return places

    async def history(
        self, log_id: LogId, token: bytes, before: int, limit: int
    ) -> tuple[list[KeyStep], int | None]:
        """Steps of one key at versions below `before`, newest first, and where to go on.

        Reads a bounded number of versions, so a page may be short or empty though more follow.
        """
        steps: list[KeyStep] = []
        lowest = max(1, before - _SCAN_VERSIONS)
        async for stored in self._versions(log_id, lowest, before - 1, newest_first=True):
            for command, effect in stored.changes():
                if command.token == token:
                    entry = None
                    if effect.adds:
                        entry = EntryValue(token, command.key_ct, command.value, stored.version)
                    steps.append(KeyStep(stored.version, stored.time_ms, entry))
            if len(steps) >= limit:
                lowest = stored.version
                break
        return steps, lowest if lowest > 1 else None

    async def summaries(
        self, log_id: LogId, before: int, limit: int
    ) -> tuple[list[VersionSummary], int | None]:
        """Versions below `before`, newest first, and where to go on."""
        lowest = max(1, before - limit)
        found = []
        async for stored in self._versions(log_id, lowest, before - 1, newest_first=True):
            header = Header.decode(stored.header)
            found.append(
                VersionSummary(
                    version=stored.version,
                    time_ms=stored.time_ms,
                    header=stored.header,
                    writer=header.writer,
                    source=header.memo_ct,
                    commands=header.command_count,
                    changes=len(decode_effects(stored.effects)),
                    stored_bytes=stored.size,
                )
            )
        return found, lowest if lowest > 1 else None

    async def commits(
        self, log_id: LogId, head: Head, from_version: int, to_version: int
    ) -> list[StoredVersion]:
        """The versions in (from, to], as many as fit in MAX_PAGE_BYTES, at least one."""
        check_version(from_version, head, "from")
        check_version(to_version, head, "to")
        found: list[StoredVersion] = []
        size = 0
        async for stored in self._versions(log_id, from_version + 1, to_version):
            found.append(stored)
            size += stored.size
            if size >= limits.MAX_PAGE_BYTES or len(found) == limits.MAX_PAGE:
                break
        return found

    async def _versions(
        self, log_id: LogId, first: int, last: int, *, newest_first: bool = False
    ) -> AsyncIterator[StoredVersion]:
        """Versions first to last, read in batches that grow up to a bound of bytes."""
        batch = _FIRST_BATCH
        key = keys.of_log(log_id).commits
        while first <= last:
            bounds = ("XREVRANGE", key, f"{last}-0", f"{first}-0")
            if not newest_first:
                bounds = ("XRANGE", key, f"{first}-0", f"{last}-0")
            async with store_answer():
                rows = await self._redis.execute_command(*bounds, "COUNT", batch)
            if not rows:
                await self._vanished(log_id)
            size = 0
            for row in rows:
                stored = _stored(row)
                size += stored.size
                yield stored
            if newest_first:
                last = stored.version - 1
            else:
                first = stored.version + 1
            batch = _next_batch(batch, size)

    async def _exactly(self, log_id: LogId, versions: set[int]) -> dict[int, StoredVersion]:
        key = keys.of_log(log_id).commits
        async with store_answer(), self._redis.pipeline(transaction=False) as pipe:
            for version in versions:
                pipe.execute_command("XRANGE", key, f"{version}-0", f"{version}-0")
            rows = await pipe.execute()
        if not all(rows):
            await self._vanished(log_id)
        return {stored.version: stored for (row,) in rows for stored in (_stored(row),)}

    async def _vanished(self, log_id: LogId) -> None:
        """Versions that were promised are not there: the log was deleted in the meantime."""
        await self.head(log_id)
        raise Refusal(ErrorCode.INTERNAL_ERROR, "the log lacks versions below its head")


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
        raise Refusal(
            ErrorCode.FORGOTTEN_VERSION,
            f"{name} is {version}, versions below {head.first_version} are forgotten",
            {"first_version": head.first_version},
        )


def _head(fields: Sequence[Any]) -> Head:
    version, incarnation, first_version, deleted, _ = fields
    if version is None:
        raise nonexistent()
    if deleted is not None:
        raise replaced(int(version))
    return Head(int(version), int(incarnation), int(first_version))


def _stored(row: tuple[bytes, dict[bytes, bytes]]) -> StoredVersion:
    stream_id, fields = row
    return StoredVersion(
        int(stream_id.partition(b"-")[0]),
        int(fields[b"t"]),
        fields[b"h"],
        fields[b"s"],
        fields[b"b"],
        fields[b"e"],
    )


def _place(change: Change) -> _Place:
    return change.version, change.command_index, change.offset


def _entry(stored: StoredVersion, offset: int) -> EntryValue:
    command = decode_at(stored.body, offset).command
    return EntryValue(command.token, command.key_ct, command.value, stored.version)


def _next_batch(batch: int, size: int) -> int:
    """Doubles while small, and keeps one batch near the byte bound."""
    fits = _BATCH_BYTES * batch // max(size, 1)
    return max(1, min(batch * 2, fits, _MAX_BATCH))

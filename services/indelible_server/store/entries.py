"""Entries with their bytes, looked up where they were introduced.

Owns how a version lies in the store, and how an entry is found by its place. Knows nothing of
which entries are asked for.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from indelible_protocol import limits, messages
from indelible_protocol.commands import decode_at
from indelible_protocol.errors import ProtocolError
from indelible_protocol.ids import LogId
from redis.asyncio import Redis

from indelible_server.store.archive import Archive
from indelible_server.store.base import Bases
from indelible_server.store.errors import DamagedError
from indelible_server.store.places import index_of, offset_of, version_of
from indelible_server.store.versions import MissingError, Versions

_BATCH_BYTES = 8 << 20
_MAX_BATCH = 1_000
_FIRST_BATCH = 64


class StoredVersion(NamedTuple):
    """A version as it lies in the stream."""

    version: int
    time_ms: int
    header: bytes
    signature: bytes
    body: bytes
    effects: bytes

    @classmethod
    def read(cls, row: Sequence[Any]) -> "StoredVersion":
        stream_id, fields = row
        if not isinstance(fields, dict):
            fields = dict(zip(fields[::2], fields[1::2], strict=True))
        return cls(
            int(stream_id.partition(b"-")[0]),
            int(fields[b"t"]),
            fields[b"h"],
            fields[b"s"],
            fields[b"b"],
            fields[b"e"],
        )

    @property
    def size(self) -> int:
        return len(self.header) + len(self.signature) + len(self.body) + len(self.effects)


class EntryValue(NamedTuple):
    """An entry with its bytes, as its introducing commit holds them."""

    key: bytes
    sealed_key: bytes
    value: bytes
    version: int


class ChangedEntry(NamedTuple):
    op: Literal["remove", "add"]
    entry: EntryValue


class Entries:
    def __init__(self, redis: Redis, archive: Archive | None = None) -> None:
        archive = archive or Archive(redis)
        self._versions = Versions(redis, archive)
        self._bases = Bases(redis, archive)

    async def some(
        self, log_id: LogId, places: Sequence[int], *, live: bool = False
    ) -> list[EntryValue]:
        """The entries at `places`, in that order, as far as they fit.

        Who knows that all of them are `live` at the head says so: then they are in the store
        nearly always, though their versions were moved out of it.

        Stops at a whole number of entries, and at least one, when they pass MAX_PAGE_BYTES: the
        caller goes on from there.

        Raises:
            MissingError: a version is not there, and what it introduced not in the base.
        """
        found: list[EntryValue] = []
        size, at, batch = 0, 0, _FIRST_BATCH
        while at < len(places) and size < limits.MAX_PAGE_BYTES:
            wanted = places[at : at + batch]
            stored, held = await self._looked_up(log_id, wanted, live)
            for place in wanted:
                row, kept = stored.get(version_of(place)), held.get(place)
                if row is not None:
                    entry = entry_at(row, index_of(place))
                else:
                    assert kept is not None
                    entry = EntryValue(kept.key, kept.sealed_key, kept.value, kept.version)
                found.append(entry)
                size += len(entry.sealed_key) + len(entry.value)
                if size >= limits.MAX_PAGE_BYTES:
                    break
            at += batch
            batch = next_batch(batch, sum(version.size for version in stored.values()))
        return found

    async def _looked_up(
        self, log_id: LogId, places: Sequence[int], live: bool
    ) -> tuple[dict[int, StoredVersion], dict[int, messages.DiffChange]]:
        """The versions of these places, and entries of those whose versions are gone."""
        versions = sorted({version_of(place) for place in places})
        held: dict[int, messages.DiffChange] = {}
        if live:
            rows = await self._versions.in_stream(log_id, versions)
            lacking = [place for place in places if version_of(place) not in rows]
            if lacking:
                held = await self._bases.live(log_id, lacking)
                rest = {version_of(place) for place in lacking if place not in held}
                rows |= await self._versions.found(log_id, sorted(rest))
        else:
            rows = await self._versions.found(log_id, versions)
        lacking = [p for p in places if version_of(p) not in rows and p not in held]
        if lacking:
            held |= await self._bases.entries(log_id, lacking)
        return {version: StoredVersion.read(row) for version, row in rows.items()}, held

    async def versions(self, log_id: LogId, versions: Sequence[int]) -> dict[int, StoredVersion]:
        """
        Raises:
            MissingError: one is not there.
        """
        rows = await self._versions.found(log_id, versions)
        if len(rows) < len(versions):
            raise MissingError("versions below its head")
        return {version: StoredVersion.read(row) for version, row in rows.items()}


def entry_at(stored: StoredVersion, command_index: int) -> EntryValue:
    """What a command of the version added; its offset stands among the effects.

    Raises:
        DamagedError: it does not decode.
    """
    try:
        command, _ = decode_at(stored.body, offset_of(stored.effects, command_index))
    except ProtocolError as error:  # a context around each of a million costs too much
        raise DamagedError(str(error)) from error
    return EntryValue(command.token, command.key_ct, command.value, stored.version)


def next_batch(batch: int, size: int) -> int:
    """Doubles while small, and keeps one batch near the byte bound."""
    fits = _BATCH_BYTES * batch // max(size, 1)
    return max(1, min(batch * 2, fits, _MAX_BATCH))

"""Name records and listings: which log a name means, and which logs there are.

Owns the records' bytes (msgpack) and the listings' order (by creation). Knows nothing of a
log's contents.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

import msgpack
from indelible_protocol.commands import LogKind
from indelible_protocol.ids import LogId
from msgspec import Struct
from redis.asyncio import Redis

from indelible_server.store import functions, keys
from indelible_server.store.connection import store_answer
from indelible_server.store.covering import Covering

_LISTED_AT_ONCE = 500


class Scope(Struct, frozen=True, kw_only=True):
    """Where names are looked up: the tenant that the credential belongs to, a database."""

    tenant: str
    database: str = "default"


class Group(NamedTuple):
    """A group of a database's logs; its listing has a version, which each change moves."""

    tenant: str
    database: str
    name: str


class NameRecord(Struct, frozen=True, kw_only=True):
    """What a name means. `deleted`: the log is gone, its incarnation is remembered."""

    log_id: LogId
    group: str
    incarnation: int
    deleted: bool = False

    def encode(self) -> bytes:
        packed: bytes = msgpack.packb(
            {
                "log_id": self.log_id,
                "group": self.group,
                "incarnation": self.incarnation,
                "deleted": self.deleted,
            }
        )
        return packed

    @classmethod
    def decode(cls, data: bytes) -> "NameRecord":
        return cls(**msgpack.unpackb(data))


class Names:
    """Shows what `covering` lets it show."""

    def __init__(self, redis: Redis, covering: Covering | None = None) -> None:
        self._redis = redis
        self._covering = covering or Covering(redis, 0)

    async def look_up(self, scope: Scope, kind: LogKind, token: bytes) -> NameRecord | None:
        async with store_answer():
            key = keys.name(scope.tenant, scope.database, kind, token)
            data = await self._redis.execute_command("GET", key)
        if not data:
            return None
        await self._covering.cover_record(key, data)
        return NameRecord.decode(data)

    async def bind(
        self,
        scope: Scope,
        kind: LogKind,
        token: bytes,
        *,
        expected: NameRecord | None,
        record: NameRecord,
    ) -> NameRecord | None:
        """Sets the record if it still is `expected`; otherwise the one that is there."""
        word, rest = await functions.call(
            self._redis,
            "bind",
            [keys.name(scope.tenant, scope.database, kind, token)],
            [expected.encode() if expected else b"", record.encode()],
        )
        if word == "bound":
            return None
        assert isinstance(rest[0], bytes)
        return NameRecord.decode(rest[0])

    async def list_log(self, scope: Scope, group: str, created_ms: int, log_id: LogId) -> None:
        """Adds a log to the listings; adding it again changes nothing."""
        await self._enter("add", scope, group, _member(created_ms, log_id))
        async with store_answer():
            await self._redis.execute_command(
                "SADD", keys.tenant_databases(scope.tenant), scope.database
            )

    async def unlist_log(self, scope: Scope, group: str, created_ms: int, log_id: LogId) -> None:
        await self._enter("remove", scope, group, _member(created_ms, log_id))

    async def _enter(self, verb: str, scope: Scope, group: str, member: bytes) -> None:
        of_group = keys.group(scope.tenant, scope.database, group)
        listing = keys.listing(scope.tenant, scope.database)
        await functions.call(
            self._redis,
            "list",
            [listing, of_group.listing, of_group.version, of_group.channel],
            [verb, member],
        )

    async def group_versions(self, groups: Sequence[Group]) -> list[int]:
        """How often each listing has changed."""
        async with store_answer(), self._redis.pipeline(transaction=False) as pipe:
            for group in groups:
                pipe.get(keys.group(*group).version)
            versions = await pipe.execute()
        if self._covering.is_needed:
            await asyncio.gather(*map(self._cover_group, groups, versions))
        return [int(version or 0) for version in versions]

    async def _cover_group(self, group: Group, version: bytes | None) -> None:
        if version is not None:
            await self._covering.cover_record(keys.group(*group).version, version)

    async def listed(
        self, scope: Scope, group: str | None, after: bytes, limit: int
    ) -> list[tuple[bytes, LogId]]:
        """Up to `limit` logs behind the position `after` (empty: from the start), oldest
        first, each with its own position."""
        key = (
            keys.listing(scope.tenant, scope.database)
            if group is None
            else keys.group(scope.tenant, scope.database, group).listing
        )
        low = b"(" + after if after else b"-"
        async with store_answer():
            members = await self._redis.execute_command(
                "ZRANGEBYLEX", key, low, b"+", "LIMIT", 0, limit
            )
        return [(member, LogId(member[8:])) for member in members]

    async def every_log(self) -> AsyncIterator[list[LogId]]:
        """The logs of all tenants, some at a time."""
        async with store_answer():
            tenants = await self._redis.execute_command("HVALS", keys.TENANTS)
        for tenant in tenants:
            for database in await self.databases(tenant.decode()):
                scope, after = Scope(tenant=tenant.decode(), database=database), b""
                while listed := await self.listed(scope, None, after, _LISTED_AT_ONCE):
                    after = listed[-1][0]
                    yield [log_id for _, log_id in listed]

    async def databases(self, tenant: str) -> list[str]:
        async with store_answer():
            found = await self._redis.execute_command("SMEMBERS", keys.tenant_databases(tenant))
        return sorted(name.decode() for name in found)


def _member(created_ms: int, log_id: LogId) -> bytes:
    return created_ms.to_bytes(8, "big") + log_id

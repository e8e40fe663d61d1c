"""Tenants and their API keys.

An API key is `ik_<public id>_<256-bit secret>`; the store holds a keyed hash of it. Knows
nothing of HTTP, and nothing of what encrypts a log.
"""

import hmac
import secrets
import time
from collections.abc import Sequence
from hashlib import sha256

from indelible_protocol.ids import to_base64url
from msgspec import Struct
from msgspec.structs import fields
from redis.asyncio import Redis

from indelible_server.store import keys
from indelible_server.store.connection import store_answer
from indelible_server.store.logs import Logs
from indelible_server.store.names import Names, Scope
from indelible_server.store.reading import Reader
from indelible_server.store.webhooks import Webhooks

_DUMMY_HASH = bytes(32)
_LISTED_AT_ONCE = 500


class TenantError(Exception):
    """A tenant command that cannot be done; says why."""


class Quota(Struct, frozen=True, kw_only=True):
    """What a tenant may send and keep; None: what the service's settings say."""

    requests_per_second: float | None = None
    logs: int | None = None
    stored_bytes: int | None = None

    @classmethod
    def decode(cls, values: Sequence[bytes | None]) -> "Quota":
        """From the tenant's fields of the same names, in this order."""
        rate, logs, stored = values
        return cls(
            requests_per_second=None if rate is None else float(rate),
            logs=None if logs is None else int(logs),
            stored_bytes=None if stored is None else int(stored),
        )


QUOTAS = tuple(field.name for field in fields(Quota))


class Credential(Struct, frozen=True, kw_only=True):
    """What a valid API key stands for."""

    tenant: str
    key_id: str
    quota: Quota = Quota()


class Tenant(Struct, frozen=True, kw_only=True):
    tenant_id: str
    name: str
    created_ms: int
    key_ids: tuple[str, ...]
    quota: Quota


class Tenants:
    def __init__(self, redis: Redis, secret: bytes) -> None:
        self._redis = redis
        self._secret = secret

    async def create(self, name: str) -> tuple[str, str]:
        """A new tenant; its id and its first API key, which is shown this once.

        Raises:
            TenantError: the name is taken, or not 1 to 64 printable characters.
        """
        if not 1 <= len(name) <= 64 or not name.isprintable():
            raise TenantError(f"a tenant's name has 1 to 64 printable characters, not {name!r}")
        tenant_id = secrets.token_hex(8)
        async with store_answer():
            fresh = await self._redis.execute_command("HSETNX", keys.TENANTS, name, tenant_id)
            if not fresh:
                raise TenantError(f"there is a tenant named {name!r} already")
            await self._redis.execute_command(
                "HSET", keys.tenant(tenant_id), "name", name, "created_ms", _now_ms()
            )
        return tenant_id, await self.add_key(name)

    async def add_key(self, name: str) -> str:
        """Another API key of the tenant `name`; it is shown this once."""
        tenant_id = await self.id_of(name)
        key_id, key_secret = secrets.token_hex(8), to_base64url(secrets.token_bytes(32))
        apikey = f"ik_{key_id}_{key_secret}"
        fields = ("tenant", tenant_id, "hash", self._hash(apikey), "created_ms", _now_ms())
        async with store_answer():
            await self._redis.execute_command("SADD", keys.tenant_keys(tenant_id), key_id)
            await self._redis.execute_command("HSET", keys.credential(key_id), *fields)
        return apikey

    async def revoke_key(self, name: str, key_id: str) -> None:
        """Safe to repeat after a failure: the listing of the key goes last.

        Raises:
            TenantError: the tenant has no key with this public id.
        """
        key_id = public_id(key_id) or key_id
        tenant_id = await self.id_of(name)
        listing = keys.tenant_keys(tenant_id)
        async with store_answer():
            if not await self._redis.execute_command("SISMEMBER", listing, key_id):
                raise TenantError(f"tenant {name!r} has no API key {key_id!r}")
            await self._redis.execute_command("DEL", keys.credential(key_id))
            await self._redis.execute_command("SREM", listing, key_id)

    async def id_of(self, name: str) -> str:
        async with store_answer():
            found = await self._redis.execute_command("HGET", keys.TENANTS, name)
        if found is None:
            raise TenantError(f"there is no tenant named {name!r}")
        tenant_id: str = found.decode()
        return tenant_id

    async def list(self) -> list[Tenant]:
        async with store_answer():
            pairs: dict[bytes, bytes] = await self._redis.execute_command("HGETALL", keys.TENANTS)
            tenants = []
            for name, raw_id in sorted(pairs.items()):
                tenant_id = raw_id.decode()
                created, *quota = await self._redis.execute_command(
                    "HMGET", keys.tenant(tenant_id), "created_ms", *QUOTAS
                )
                key_ids = await self._redis.execute_command("SMEMBERS", keys.tenant_keys(tenant_id))
                tenants.append(
                    Tenant(
                        tenant_id=tenant_id,
                        name=name.decode(),
                        created_ms=int(created or 0),
                        key_ids=tuple(sorted(key.decode() for key in key_ids)),
                        quota=Quota.decode(quota),
                    )
                )
        return tenants

    async def quota(self, tenant_id: str) -> Quota:
        async with store_answer():
            values = await self._redis.execute_command("HMGET", keys.tenant(tenant_id), *QUOTAS)
        return Quota.decode(values)

    async def set_quota(self, name: str, quota: str, most: float | None) -> None:
        """Sets one of `QUOTAS`; None for the service's own setting.

        Raises:
            TenantError: no such tenant, or a number that is not above 0.
        """
        if most is not None and not 0 < most < float("inf"):
            raise TenantError(f"{quota.replace('_', ' ')} are {most}, above 0 expected")
        key = keys.tenant(await self.id_of(name))
        async with store_answer():
            if most is None:
                await self._redis.execute_command("HDEL", key, quota)
            else:
                await self._redis.execute_command("HSET", key, quota, repr(most))

    async def count_logs(self, tenant_id: str) -> int:
        databases = await Names(self._redis).databases(tenant_id)
        async with store_answer(), self._redis.pipeline(transaction=False) as pipe:
            for database in databases:
                pipe.zcard(keys.listing(tenant_id, database))
            return sum(await pipe.execute())

    async def sum_bytes(self, tenant_id: str) -> int:
        """What was committed to the tenant's logs: headers, signatures, bodies, effects."""
        names, total = Names(self._redis), 0
        for database in await names.databases(tenant_id):
            scope, after = Scope(tenant=tenant_id, database=database), b""
            while listed := await names.listed(scope, None, after, _LISTED_AT_ONCE):
                after = listed[-1][0]
                async with store_answer(), self._redis.pipeline(transaction=False) as pipe:
                    for _, log_id in listed:
                        pipe.hmget(keys.of_log(log_id).meta, "stored_bytes", "deleted")
                    rows = await pipe.execute()
                total += sum(int(stored) for stored, deleted in rows if stored and not deleted)
        return total

    async def delete(self, name: str) -> int:
        """Revokes the tenant's keys, then deletes its webhooks and logs; how many logs there were.

        Safe to repeat after a failure: the name goes last.
        """
        tenant_id = await self.id_of(name)
        async with store_answer():
            key_ids = await self._redis.execute_command("SMEMBERS", keys.tenant_keys(tenant_id))
            for key_id in key_ids:
                await self._redis.execute_command("DEL", keys.credential(key_id.decode()))
        await Webhooks(self._redis, Reader(self._redis), _now_ms).delete_all(tenant_id)
        count = await self._delete_logs(tenant_id)
        async with store_answer():
            await self._redis.execute_command("DEL", keys.tenant(tenant_id))
            await self._redis.execute_command("DEL", keys.tenant_keys(tenant_id))
            await self._redis.execute_command("DEL", keys.tenant_databases(tenant_id))
            await self._redis.execute_command("HDEL", keys.TENANTS, name)
        return count

    async def _delete_logs(self, tenant_id: str) -> int:
        logs, names = Logs(self._redis), Names(self._redis)
        count = 0
        for database in await names.databases(tenant_id):
            scope = Scope(tenant=tenant_id, database=database)
            after: bytes | None = b""
            while after is not None:
                page, after = await logs.list_logs(scope, None, after, _LISTED_AT_ONCE)
                for description in page:
                    await logs.delete(description.identity)
                    count += 1
        return count

    async def authenticate(self, apikey: str) -> Credential | None:
        """The credential that `apikey` is, or None; the same work for known and unknown ids.

        Raises:
            Refusal: the store cannot be asked.
        """
        key_id = public_id(apikey) or "-"
        async with store_answer():
            tenant, expected = await self._redis.execute_command(
                "HMGET", keys.credential(key_id), "tenant", "hash"
            )
        matches = hmac.compare_digest(self._hash(apikey), expected or _DUMMY_HASH)
        if not matches or tenant is None:
            return None
        tenant_id = tenant.decode()
        return Credential(tenant=tenant_id, key_id=key_id, quota=await self.quota(tenant_id))

    def _hash(self, apikey: str) -> bytes:
        data = b"indelible/api-key\x00" + apikey.encode()
        return hmac.digest(self._secret, data, sha256)


def public_id(apikey: str) -> str | None:
    """The part of an API key that may be shown; None if it is not shaped like one."""
    prefix, _, rest = apikey.partition("_")
    key_id, _, secret = rest.partition("_")
    if prefix != "ik" or len(key_id) != 16 or not secret:
        return None
    return key_id if all(c in "0123456789abcdef" for c in key_id) else None


def _now_ms() -> int:
    return time.time_ns() // 1_000_000

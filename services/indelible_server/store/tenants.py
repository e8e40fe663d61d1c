"""Tenants and their API keys.

An API key is `ik_<public id>_<256-bit secret>`; the store holds a keyed hash of it. Knows
nothing of HTTP, and nothing of what encrypts a log.
"""

import hmac
import secrets
import time
from dataclasses import dataclass
from hashlib import sha256

from indelible_protocol.ids import to_base64url
from redis.asyncio import Redis

from indelible_server.store import keys
from indelible_server.store.connection import store_answer
from indelible_server.store.logs import Logs
from indelible_server.store.names import Names, Scope

_DUMMY_HASH = bytes(32)
_LISTED_AT_ONCE = 500
_RATE = "requests_per_second"


class TenantError(Exception):
    """A tenant command that cannot be done; says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What a valid API key stands for."""

    tenant: str
    key_id: str
    requests_per_second: float | None = None  # None: the service's own setting


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    tenant_id: str
    name: str
    created_ms: int
    key_ids: tuple[str, ...]
    requests_per_second: float | None


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
                created, rate = await self._redis.execute_command(
                    "HMGET", keys.tenant(tenant_id), "created_ms", _RATE
                )
                key_ids = await self._redis.execute_command("SMEMBERS", keys.tenant_keys(tenant_id))
                tenants.append(
                    Tenant(
                        tenant_id=tenant_id,
                        name=name.decode(),
                        created_ms=int(created or 0),
                        key_ids=tuple(sorted(key.decode() for key in key_ids)),
                        requests_per_second=None if rate is None else float(rate),
                    )
                )
        return tenants

    async def set_rate(self, name: str, requests_per_second: float | None) -> None:
        """What the tenant may send each process; None for the service's own setting.

        Raises:
            TenantError: no such tenant, or a rate that is not above 0.
        """
        if requests_per_second is not None and not 0 < requests_per_second < float("inf"):
            raise TenantError(f"requests per second are {requests_per_second}, above 0 expected")
        key = keys.tenant(await self.id_of(name))
        async with store_answer():
            if requests_per_second is None:
                await self._redis.execute_command("HDEL", key, _RATE)
            else:
                await self._redis.execute_command("HSET", key, _RATE, repr(requests_per_second))

    async def delete(self, name: str) -> int:
        """Revokes the tenant's keys, then deletes its logs; how many logs there were.

        Safe to repeat after a failure: the name goes last.
        """
        tenant_id = await self.id_of(name)
        async with store_answer():
            key_ids = await self._redis.execute_command("SMEMBERS", keys.tenant_keys(tenant_id))
            for key_id in key_ids:
                await self._redis.execute_command("DEL", keys.credential(key_id.decode()))
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
        async with store_answer():
            rate = await self._redis.execute_command("HGET", keys.tenant(tenant.decode()), _RATE)
        return Credential(
            tenant=tenant.decode(),
            key_id=key_id,
            requests_per_second=None if rate is None else float(rate),
        )

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

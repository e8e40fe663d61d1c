"""Webhooks as their tenant sees them: making, listing, changing and deleting them.

What delivers them is `webhook_work`. Knows nothing of HTTP.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence

from indelible_protocol import limits
from indelible_protocol.errors import ErrorCode
from indelible_protocol.ids import LogId
from msgspec import Struct
from msgspec.structs import replace
from redis.asyncio import Redis

from indelible_server.store import functions, keys
from indelible_server.store.connection import store_answer, write_outcome
from indelible_server.store.errors import Refusal
from indelible_server.store.names import Names, Scope
from indelible_server.store.reading import Reader
from indelible_server.store.webhook_records import (
    SALT_BYTES,
    Delivery,
    DeliveryState,
    Payload,
    Signature,
    SigningKey,
    Webhook,
    packed_keys,
)

_AT_ONCE = 500
_CHANGE_ATTEMPTS = 8
_CHANGES_KEPT = 10_000


class Subscription(Struct, frozen=True, kw_only=True):
    """What a tenant asks for; one of `log_id` and `group` at most."""

    url: str
    log_id: LogId | None
    group: str | None
    tokens: frozenset[bytes]
    payload: Payload
    signature: Signature
    description: str


class ShownWebhook(Struct, frozen=True, kw_only=True):
    webhook: Webhook
    pending: int
    dead: int


def nonexistent_webhook() -> Refusal:
    """The one answer for webhooks that are absent and those of other tenants."""
    return Refusal(ErrorCode.NONEXISTENT_WEBHOOK, "there is no such webhook")


class Webhooks:
    """`now_ms` is the time in milliseconds since 1970, UTC."""

    def __init__(self, redis: Redis, reader: Reader, now_ms: Callable[[], int]) -> None:
        self._redis = redis
        self._reader = reader
        self._names = Names(redis)
        self.now_ms = now_ms

    async def create(self, scope: Scope, asked: Subscription, *, most: int) -> Webhook:
        """A webhook that will tell of every version from now on, once its URL is verified.

        It is listed last: one that is half made is nobody's, and nothing is delivered for it.

        Raises:
            Refusal: QUOTA_EXCEEDED if the tenant has `most` already.
        """
        now = self.now_ms()
        webhook = Webhook(
            tenant=scope.tenant,
            database=scope.database,
            webhook_id="wh_" + secrets.token_hex(8),
            url=asked.url,
            log_id=asked.log_id,
            group=asked.group,
            tokens=asked.tokens,
            payload=asked.payload,
            signature=asked.signature,
            description=asked.description,
            created_ms=now,
            keys=(_fresh_key(now),),
        )
        own = keys.of_webhook(scope.tenant, webhook.webhook_id)
        async with write_outcome():
            await self._redis.execute_command("SADD", keys.WEBHOOK_TENANTS, scope.tenant)
        await self._note_positions(own.positions, await self._followed(scope, asked))
        async with write_outcome():
            flat = [part for field in webhook.fields().items() for part in field]
            await self._redis.execute_command("HSET", own.meta, *flat)
        word, rest = await functions.call(
            self._redis,
            "webhook_register",
            [keys.tenant_webhooks(scope.tenant)],
            [webhook.webhook_id, now, most],
        )
        if word == "full":
            async with write_outcome():
                await self._redis.execute_command("UNLINK", *own.all())
            raise Refusal(
                ErrorCode.QUOTA_EXCEEDED,
                f"there are {int(rest[0])} webhooks already (max_tenant_webhooks is {most})",
            )
        await self._tell_of(webhook)
        return webhook

    async def _followed(self, scope: Scope, asked: Subscription) -> list[LogId]:
        if asked.log_id is not None:
            return [asked.log_id]
        return await listed_logs(self._names, scope, asked.group)

    async def _note_positions(self, key: str, log_ids: Sequence[LogId]) -> None:
        """Logs that are there already are told of from where they are; later ones from 0."""
        for at in range(0, len(log_ids), _AT_ONCE):
            some = log_ids[at : at + _AT_ONCE]
            flat: list[bytes | int] = []
            for log_id, head in zip(some, await self._reader.heads(some), strict=True):
                if head is not None:
                    flat += [log_id, head.version]
            if flat:
                async with write_outcome():
                    await self._redis.execute_command("HSET", key, *flat)

    async def get(self, scope: Scope, webhook_id: str) -> ShownWebhook:
        """
        Raises:
            Refusal: NONEXISTENT_WEBHOOK.
        """
        [found] = await self._read(scope.tenant, [webhook_id])
        if found is None or found.webhook.database != scope.database:
            raise nonexistent_webhook()
        return found

    async def page(
        self, scope: Scope, after: int, limit: int
    ) -> tuple[list[ShownWebhook], int | None]:
        """Oldest first, from place `after` on, and the place to go on from (None at the end)."""
        key = keys.tenant_webhooks(scope.tenant)
        async with store_answer():
            ids = await self._redis.execute_command("ZRANGE", key, after, after + limit - 1)
        found = await self._read(scope.tenant, [webhook_id.decode() for webhook_id in ids])
        shown = [each for each in found if each and each.webhook.database == scope.database]
        return shown, after + limit if len(ids) == limit else None

    async def _read(self, tenant: str, ids: Sequence[str]) -> list[ShownWebhook | None]:
        found: list[ShownWebhook | None] = []
        async with store_answer(), self._redis.pipeline(transaction=False) as pipe:
            for webhook_id in ids:
                own = keys.of_webhook(tenant, webhook_id)
                pipe.execute_command("HGETALL", own.meta)
                pipe.execute_command("HLEN", own.pending)
                pipe.execute_command("LLEN", own.replays)
                pipe.execute_command("LLEN", own.dead)
            rows = await pipe.execute()
        for at, webhook_id in enumerate(ids):
            fields, pending, replays, dead = rows[4 * at : 4 * at + 4]
            found.append(
                ShownWebhook(
                    webhook=Webhook.read(tenant, webhook_id, fields),
                    pending=pending + replays,
                    dead=dead,
                )
                if fields
                else None
            )
        return found

    async def delete(self, scope: Scope, webhook_id: str) -> None:
        """Safe to repeat after a failure: the listing goes last.

        Raises:
            Refusal: NONEXISTENT_WEBHOOK.
        """
        await self.get(scope, webhook_id)
        await self._remove(scope.tenant, webhook_id)

    async def delete_all(self, tenant: str) -> None:
        async with store_answer():
            ids = await self._redis.execute_command("ZRANGE", keys.tenant_webhooks(tenant), 0, -1)
        for webhook_id in ids:
            await self._remove(tenant, webhook_id.decode())
        async with write_outcome():
            await self._redis.execute_command("SREM", keys.WEBHOOK_TENANTS, tenant)

    async def _remove(self, tenant: str, webhook_id: str) -> None:
        async with write_outcome():
            await self._redis.execute_command("UNLINK", *keys.of_webhook(tenant, webhook_id).all())
            await self._redis.execute_command("ZREM", keys.tenant_webhooks(tenant), webhook_id)

    async def enable(self, scope: Scope, webhook_id: str) -> ShownWebhook:
        """Back to unverified: it is challenged again, and what waits is sent after that."""

        def changed(webhook: Webhook) -> Webhook:
            return replace(
                webhook,
                state="unverified",
                reason="",
                enabled_ms=self.now_ms(),
                failing_since_ms=0,
            )

        return await self._change(scope, webhook_id, changed, due_now=True)

    async def rotate(self, scope: Scope, webhook_id: str) -> ShownWebhook:
        """A new key; the one before signs beside it for a day, the one before that no more."""

        def changed(webhook: Webhook) -> Webhook:
            now = self.now_ms()
            until = now + limits.WEBHOOK_KEY_OVERLAP_SECONDS * 1_000
            return replace(
                webhook, keys=(replace(webhook.keys[-1], until_ms=until), _fresh_key(now))
            )

        return await self._change(scope, webhook_id, changed)

    async def _change(
        self,
        scope: Scope,
        webhook_id: str,
        changed: Callable[[Webhook], Webhook],
        *,
        due_now: bool = False,
    ) -> ShownWebhook:
        own = keys.of_webhook(scope.tenant, webhook_id)
        for _ in range(_CHANGE_ATTEMPTS):
            webhook = (await self.get(scope, webhook_id)).webhook
            after = changed(webhook)
            fields: list[functions.Argument] = [
                *("state", after.state),
                *("reason", after.reason),
                *("keys", packed_keys(after.keys)),
                *("enabled_ms", after.enabled_ms),
                *("failing_since_ms", after.failing_since_ms),
            ]
            due_ms = self.now_ms() if due_now else ""
            word, _ = await functions.call(
                self._redis, "webhook_change", own.all(), [webhook.revision, due_ms, *fields]
            )
            if word == "changed":
                await self._tell_of(webhook)
                return await self.get(scope, webhook_id)
            if word == "absent":
                raise nonexistent_webhook()
        raise Refusal(ErrorCode.TRANSACTION_CONFLICT, "the webhook changes too quickly; try again")

    async def trigger(self, scope: Scope, webhook_id: str, delivery: Delivery) -> None:
        """Queues a test event.

        Raises:
            Refusal: NONEXISTENT_WEBHOOK; QUOTA_EXCEEDED while too many wait.
        """
        webhook = (await self.get(scope, webhook_id)).webhook
        most = limits.MAX_WEBHOOK_TESTS
        word, _ = await functions.call(
            self._redis,
            "webhook_add",
            keys.of_webhook(scope.tenant, webhook_id).all(),
            [most, delivery.delivery_id, delivery.encode(), delivery.created_ms],
        )
        if word == "absent":
            raise nonexistent_webhook()
        if word == "full":
            raise Refusal(ErrorCode.QUOTA_EXCEEDED, f"{most} deliveries wait to be sent already")
        await self._tell_of(webhook)

    async def replay(self, scope: Scope, webhook_id: str, since_ms: int) -> int:
        """Queues again what died at `since_ms` or later; how many dead letters those are."""
        webhook = (await self.get(scope, webhook_id)).webhook
        word, rest = await functions.call(
            self._redis,
            "webhook_replay",
            keys.of_webhook(scope.tenant, webhook_id).all(),
            [since_ms],
        )
        if word == "absent":
            raise nonexistent_webhook()
        await self._tell_of(webhook)
        return int(rest[0])

    async def deliveries(
        self,
        scope: Scope,
        webhook_id: str,
        state: DeliveryState | None,
        before: int | None,
        limit: int,
    ) -> tuple[list[Delivery], int | None]:
        """Newest first: those that wait, then those that are over, below the place `before`,
        and the place to go on from (None at the end).

        `dead` are those that can be replayed, and have not been; as few wait, they are one page.
        """
        webhook = (await self.get(scope, webhook_id)).webhook
        own = keys.of_webhook(scope.tenant, webhook_id)
        waiting: list[Delivery] = []
        if before is None and state in (None, "pending"):
            waiting = await self._waiting(own)
        if state == "pending":
            return waiting, None
        if state == "dead":
            async with store_answer():
                letters = await self._redis.execute_command("LRANGE", own.dead, 0, -1)
            return [decoded_letter(each, "dead") for each in letters[::-1]], None
        async with store_answer(), self._redis.pipeline(transaction=True) as pipe:
            pipe.execute_command("HGET", own.meta, "finished")
            pipe.execute_command("LRANGE", own.finished, 0, -1)
            count, rows = await pipe.execute()
        top = int(count or webhook.finished)
        found = list(waiting)
        for at, row in enumerate(rows):
            place = top - at
            if before is not None and place >= before:
                continue
            if len(found) >= limit:
                return found, place + 1
            delivery = Delivery.decode(row)
            if state in (None, delivery.state):
                found.append(delivery)
        return found, None

    async def _waiting(self, own: keys.WebhookKeys) -> list[Delivery]:
        async with store_answer(), self._redis.pipeline(transaction=True) as pipe:
            pipe.execute_command("HGETALL", own.pending)
            pipe.execute_command("ZRANGE", own.due, 0, -1, "WITHSCORES")
            pipe.execute_command("LRANGE", own.replays, 0, -1)
            pending, due, replays = await pipe.execute()
        found = [*decoded_pending(pending, due), *(decoded_letter(each) for each in replays)]
        return sorted(found, key=lambda delivery: -delivery.created_ms)

    async def _tell_of(self, webhook: Webhook) -> None:
        """A hint to dispatchers; without it they find out by themselves."""
        async with store_answer():
            await self._redis.execute_command(
                *("XADD", keys.WEBHOOK_CHANGES, "MAXLEN", "~", _CHANGES_KEPT, "*"),
                *("t", webhook.tenant, "w", webhook.webhook_id),
            )


async def listed_logs(names: Names, scope: Scope, group: str | None) -> list[LogId]:
    """Every log of a group, or of the database, oldest first."""
    found: list[LogId] = []
    after = b""
    while True:
        page = await names.listed(scope, group, after, _AT_ONCE)
        found += [log_id for _, log_id in page]
        if len(page) < _AT_ONCE:
            return found
        after = page[-1][0]


def decoded_pending(pending: Mapping[bytes, bytes], due: Sequence[bytes]) -> list[Delivery]:
    """From records by id, and ids each followed by the time of the next attempt."""
    times = {due[at]: int(float(due[at + 1])) for at in range(0, len(due), 2)}
    return [Delivery.decode(record, due_ms=times.get(name)) for name, record in pending.items()]


def decoded_letter(letter: bytes, state: DeliveryState = "pending") -> Delivery:
    """A dead letter, which begins with the time of its death; pending if it is to be replayed."""
    return replace(Delivery.decode(letter[8:]), state=state)


def _fresh_key(now_ms: int) -> SigningKey:
    return SigningKey(salt=secrets.token_bytes(SALT_BYTES), since_ms=now_ms)

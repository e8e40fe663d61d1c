"""What dispatchers do in the store: find webhooks, claim one, store a delivery, settle it.

Every write but the claim itself carries the claim's token and is refused once somebody else
has it. Knows nothing of HTTP, of schedules, or of what an event says.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from indelible_protocol import limits
from indelible_protocol.ids import LogId
from redis.asyncio import Redis

from indelible_server.store import functions, keys
from indelible_server.store.connection import store_answer
from indelible_server.store.webhook_records import Delivery, Webhook
from indelible_server.store.webhooks import decoded_letter, decoded_pending

_DEATH = struct.Struct(">Q")
_AT_ONCE = 500
_CHANGES_AT_ONCE = 1_000


class WebhookKey(NamedTuple):
    tenant: str
    webhook_id: str


class Glance(NamedTuple):
    """What tells whether a webhook is to be looked at: cheap to read for all of them."""

    revision: int
    moves: int
    due_ms: int | None


@dataclass(slots=True, kw_only=True)
class Claim:
    """The sole right to work on a webhook, and the webhook as it was when it was given.

    `pending` and `replay` (the next dead letter that is delivered again) are kept up to date
    by whoever holds the claim. `positions` is None where the caller knows them. Once
    `released`, nothing can be written with it.
    """

    token: str
    webhook: Webhook
    pending: dict[str, Delivery] = field(default_factory=dict)
    replay: Delivery | None = None
    positions: dict[LogId, int] | None = None
    released: bool = False


class Held(NamedTuple):
    """Another dispatcher works on it, for `ms` at most unless it prolongs."""

    ms: int


class Lost(Exception):
    """The claim is another's by now, or the webhook is gone: nothing was written."""


class Settled(NamedTuple):
    revision: int
    moves: int
    letters_dropped: int


class WebhookWork:
    """`owner` names this dispatcher; no two may have the same."""

    def __init__(self, redis: Redis, subscriber: Redis, owner: str) -> None:
        self._redis = redis
        self._subscriber = subscriber
        self._owner = owner

    async def all(self) -> list[WebhookKey]:
        found: list[WebhookKey] = []
        async with store_answer():
            tenants = sorted(await self._redis.execute_command("SMEMBERS", keys.WEBHOOK_TENANTS))
        for at in range(0, len(tenants), _AT_ONCE):
            some = [tenant.decode() for tenant in tenants[at : at + _AT_ONCE]]
            async with store_answer(), self._redis.pipeline(transaction=False) as pipe:
                for tenant in some:
                    pipe.execute_command("ZRANGE", keys.tenant_webhooks(tenant), 0, -1)
                rows = await pipe.execute()
            for tenant, ids in zip(some, rows, strict=True):
                found += [WebhookKey(tenant, webhook_id.decode()) for webhook_id in ids]
        return found

    async def glance(self, webhooks: Sequence[WebhookKey]) -> list[Glance | None]:
        found: list[Glance | None] = []
        for at in range(0, len(webhooks), _AT_ONCE):
            async with store_answer(), self._redis.pipeline(transaction=False) as pipe:
                for key in webhooks[at : at + _AT_ONCE]:
                    own = keys.of_webhook(*key)
                    pipe.execute_command("HMGET", own.meta, "revision", "moves")
                    pipe.execute_command("ZRANGE", own.due, 0, 0, "WITHSCORES")
                rows = await pipe.execute()
            for (revision, moves), due in zip(*[iter(rows)] * 2, strict=True):
                due_ms = int(float(due[1])) if due else None
                gone = revision is None
                found.append(None if gone else Glance(int(revision), int(moves), due_ms))
        return found

    async def read(self, webhooks: Sequence[WebhookKey]) -> list[Webhook | None]:
        return [
            Webhook.read(*key, fields) if fields else None
            for key, fields in await self._hashes(webhooks, "meta")
        ]

    async def positions(self, webhooks: Sequence[WebhookKey]) -> list[dict[LogId, int]]:
        return [
            {LogId(log_id): int(version) for log_id, version in fields.items()}
            for _, fields in await self._hashes(webhooks, "positions")
        ]

    async def _hashes(
        self, webhooks: Sequence[WebhookKey], name: str
    ) -> list[tuple[WebhookKey, Mapping[bytes, bytes]]]:
        found: list[tuple[WebhookKey, Mapping[bytes, bytes]]] = []
        for at in range(0, len(webhooks), _AT_ONCE):
            some = webhooks[at : at + _AT_ONCE]
            async with store_answer(), self._redis.pipeline(transaction=False) as pipe:
                for key in some:
                    pipe.execute_command("HGETALL", getattr(keys.of_webhook(*key), name))
                found += zip(some, await pipe.execute(), strict=True)
        return found

    async def changes(self, after: bytes, wait_seconds: float) -> tuple[bytes, set[WebhookKey]]:
        """Webhooks that were changed since `after` (b"$": from now on), and where to go on.

        Waits until there is one, for `wait_seconds` at most.
        """
        block = int(wait_seconds * 1_000)
        async with store_answer():
            found = await self._subscriber.execute_command(
                *("XREAD", "COUNT", _CHANGES_AT_ONCE, "BLOCK", block),
                *("STREAMS", keys.WEBHOOK_CHANGES, after),
            )
        changed: set[WebhookKey] = set()
        for _, entries in found or []:
            for place, fields in entries:
                after = place
                changed.add(WebhookKey(fields[b"t"].decode(), fields[b"w"].decode()))
        return after, changed

    async def last_change(self) -> bytes:
        async with store_answer():
            rows = await self._redis.execute_command(
                "XREVRANGE", keys.WEBHOOK_CHANGES, "+", "-", "COUNT", 1
            )
        place: bytes = rows[0][0] if rows else b"0"
        return place

    async def claim(self, key: WebhookKey, *, ttl_ms: int, moves: int | None) -> Claim | Held:
        """Claims it, or prolongs a claim; with positions unless they are those of `moves`.

        Raises:
            Lost: the webhook is gone.
        """
        word, rest = await self._call(
            "webhook_claim", key, self._owner, ttl_ms, "" if moves is None else moves
        )
        if word == "absent":
            raise Lost
        if word == "held":
            return Held(int(rest[0]))
        token, fields, pending, due, replay, positions = rest
        return Claim(
            token=token.decode(),
            webhook=Webhook.read(*key, _mapping(fields)),
            pending={each.delivery_id: each for each in decoded_pending(_mapping(pending), due)},
            replay=None if replay is None else decoded_letter(replay),
            positions=None
            if positions is None
            else {LogId(log): int(version) for log, version in _mapping(positions).items()},
        )

    async def renew(self, key: WebhookKey, claim: Claim, *, ttl_ms: int) -> None:
        """
        Raises:
            Lost.
        """
        await self._held("webhook_renew", key, claim, ttl_ms)

    async def release(self, key: WebhookKey, claim: Claim) -> None:
        claim.released = True
        await self._call("webhook_renew", key, claim.token, 0)

    async def offer(
        self, key: WebhookKey, claim: Claim, delivery: Delivery, *, replayed: bool = False
    ) -> int:
        """Stores a delivery, so that it is sent until it is over; the webhook's revision.

        Raises:
            Lost.
        """
        assert delivery.due_ms is not None
        rest = await self._held(
            "webhook_offer",
            key,
            claim,
            delivery.delivery_id,
            delivery.encode(),
            delivery.due_ms,
            int(replayed),
        )
        return int(rest[0])

    async def retry(
        self,
        key: WebhookKey,
        claim: Claim,
        delivery: Delivery,
        fields: Sequence[functions.Argument],
        *,
        release: bool,
    ) -> Settled:
        """Records an attempt that failed; the next is at `delivery.due_ms`.

        Raises:
            Lost.
        """
        assert delivery.due_ms is not None
        return await self._settle(
            key,
            claim,
            delivery.delivery_id,
            *(delivery.encode(), delivery.due_ms),
            *("", "", "", "", "", ""),
            fields=fields,
            release=release,
        )

    async def finish(
        self,
        key: WebhookKey,
        claim: Claim,
        delivery: Delivery,
        fields: Sequence[functions.Argument],
        *,
        died_ms: int | None,
        release: bool,
    ) -> Settled:
        """Ends a delivery and moves its log's position; `died_ms` if nobody took it.

        One that was replayed moves nothing: its log is further by now.

        Raises:
            Lost.
        """
        log_id: bytes = delivery.log_id or b""
        letter = b""
        if died_ms is not None and not delivery.aside:
            letter = _DEATH.pack(died_ms) + delivery.encode()
        if delivery.replayed:
            log_id = b""
        return await self._settle(
            key,
            claim,
            delivery.delivery_id,
            *("", ""),
            delivery.summary("delivered" if died_ms is None else "dead"),
            limits.MAX_WEBHOOK_DELIVERIES,
            *(letter, limits.MAX_DEAD_LETTERS),
            *(log_id, "" if delivery.to_version is None else delivery.to_version),
            fields=fields,
            release=release,
        )

    async def _settle(
        self,
        key: WebhookKey,
        claim: Claim,
        *arguments: functions.Argument,
        fields: Sequence[functions.Argument],
        release: bool,
    ) -> Settled:
        revision, moves, dropped = await self._held(
            "webhook_settle", key, claim, *arguments, int(release), *fields
        )
        claim.released = release
        return Settled(int(revision), int(moves), int(dropped))

    async def skip(self, key: WebhookKey, claim: Claim, log_id: LogId, version: int) -> Settled:
        """Moves a log's position past versions of which there is nothing to tell.

        Raises:
            Lost.
        """
        revision, moves = await self._held("webhook_skip", key, claim, log_id, version)
        return Settled(int(revision), int(moves), 0)

    async def _held(
        self, verb: str, key: WebhookKey, claim: Claim, *arguments: functions.Argument
    ) -> list[Any]:
        word, rest = await self._call(verb, key, claim.token, *arguments)
        if word == "lost":
            raise Lost
        return rest

    async def _call(
        self, verb: str, key: WebhookKey, *arguments: functions.Argument
    ) -> tuple[str, list[Any]]:
        word, rest = await functions.call(self._redis, verb, keys.of_webhook(*key).all(), arguments)
        return word, list(rest)


def _mapping(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    return dict(zip(*[iter(flat)] * 2, strict=True))

"""One webhook at work: what is sent to it next, and what becomes of each attempt.

All it knows of the webhook it has from a claim, and every write is refused once the claim is
another's; so it may be thrown away at any point, and its successor goes on from the store.
Knows nothing of when to work (`dispatcher`) or of HTTP (`sending`).
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import structlog
from indelible_protocol import webhooks
from indelible_protocol.errors import ErrorCode
from indelible_protocol.ids import LogId
from msgspec import Struct
from msgspec.structs import replace

from indelible_server.store.errors import Refusal
from indelible_server.store.functions import Argument
from indelible_server.store.logs import Logs
from indelible_server.store.reading import Head, Reader
from indelible_server.store.webhook_records import (
    Attempt,
    Delivery,
    Webhook,
    event_id,
    packed_attempt,
)
from indelible_server.store.webhook_work import Claim, Held, Lost, WebhookKey, WebhookWork
from indelible_server.telemetry import Metrics
from indelible_server.webhooks import events
from indelible_server.webhooks.courtesy import Courtesy, Trust
from indelible_server.webhooks.schedule import (
    Verdict,
    is_hopeless,
    next_attempt,
    verdict_of,
)
from indelible_server.webhooks.sending import Answer, Sender
from indelible_server.webhooks.slots import Slots

log = structlog.get_logger("indelible_server.webhooks")

CLAIM_SECONDS = 6.0
TOLD_BYTES = 256
MAX_DIFF_CHANGES = 1_000
_FIRST_HELD_MS, _LAST_HELD_MS = 50, 1_000


class Tools(Struct, frozen=True, kw_only=True):
    """What endpoints work with. `versions` are the logs' as the dispatcher last heard (None:
    deleted); `random` gives 0 to 1, `now_ms` milliseconds since 1970."""

    work: WebhookWork
    reader: Reader
    logs: Logs
    sender: Sender
    slots: Slots
    courtesy: Courtesy
    secret: bytes
    versions: Mapping[LogId, int | None]
    now_ms: Callable[[], int]
    random: Callable[[], float]
    metrics: Metrics
    stopping: asyncio.Event


@dataclass(slots=True)
class Endpoint:
    """`behind` are the logs that have something to tell, the one that moved first before;
    `trust` is lost and won by its attempts."""

    key: WebhookKey
    webhook: Webhook
    tools: Tools
    positions: dict[LogId, int] = field(default_factory=dict)
    moves: int | None = None
    follows: frozenset[LogId] = frozenset()
    behind: dict[LogId, None] = field(default_factory=dict)
    is_blocked: bool = False
    trust: Trust = field(default_factory=Trust)
    _claim: Claim | None = None
    _claimed_at: float = 0.0
    _is_stale: bool = True
    _held_ms: int = _FIRST_HELD_MS

    def follow(self, log_ids: frozenset[LogId]) -> None:
        """The logs there are for it; all are compared, as a sweep must find what hints missed."""
        self.follows = log_ids
        self.compare(log_ids | self.positions.keys())

    def adopt(self, positions: dict[LogId, int], moves: int) -> None:
        self.positions, self.moves = positions, moves
        self.compare(self.follows | positions.keys())

    def compare(self, log_ids: frozenset[LogId] | set[LogId]) -> None:
        for log_id in log_ids:
            if self._is_behind(log_id):
                self.behind.setdefault(log_id)
            else:
                self.behind.pop(log_id, None)

    def _is_behind(self, log_id: LogId) -> bool:
        if log_id not in self.tools.versions:
            return False
        version = self.tools.versions[log_id]
        if version is None:
            return log_id in self.positions
        return version > self.positions.get(log_id, 0)

    def has_news(self) -> bool:
        return bool(self.behind) and not self.is_blocked and self.webhook.state == "active"

    def look_again(self) -> None:
        """The store knows of a change that the claim does not."""
        self._is_stale = True

    async def turn(self) -> None:
        """Returns when it may take its next step: at once, unless it did badly of late."""
        if self.trust.is_suspect:
            await self.tools.courtesy.turn()

    async def work(self) -> int | None:
        """Does all that is due now; in how many ms there is more (None: once a log moves).

        Raises:
            Refusal: the store failed; what was begun is gone on with later.
        """
        try:
            while not self.tools.stopping.is_set():
                held_ms = await self._ensure_claim()
                if held_ms is not None:
                    return held_ms
                if not await self._step():
                    break
            return await self._rest()
        except Lost:
            log.warning("webhook.claim_lost", **self._named())
            self._forget()
            return _FIRST_HELD_MS
        except BaseException:
            self._forget()
            raise

    async def _rest(self) -> int | None:
        claim = self._claim
        if claim is None:
            return None
        self._claim = None
        if not claim.released:
            await self.tools.work.release(self.key, claim)
        due = [each.due_ms for each in self._sendable(claim) if each.due_ms is not None]
        return max(0, min(due) - self.tools.now_ms()) if due else None

    def _forget(self) -> None:
        self._claim = None
        self._is_stale = True

    async def _ensure_claim(self) -> int | None:
        """Claims the webhook if need be; ms to wait if another dispatcher has it.

        Raises:
            Lost: the webhook is gone.
        """
        fresh = time.monotonic() - self._claimed_at < CLAIM_SECONDS / 2
        held = self._claim is not None and not self._claim.released
        if held and fresh and not self._is_stale:
            return None
        self._is_stale = False
        began = time.monotonic()
        ttl_ms = round(CLAIM_SECONDS * 1_000)
        claim = await self.tools.work.claim(self.key, ttl_ms=ttl_ms, moves=self.moves)
        if isinstance(claim, Held):
            self._forget()
            wait_ms = min(self._held_ms, max(claim.ms, 1))
            self._held_ms = min(2 * self._held_ms, _LAST_HELD_MS)
            return wait_ms
        self._held_ms = _FIRST_HELD_MS
        self._claim, self._claimed_at, self.webhook = claim, began, claim.webhook
        if claim.positions is not None:
            self.adopt(claim.positions, claim.webhook.moves)
        return None

    async def _step(self) -> bool:
        """One attempt, or one step towards one; False when there is nothing to do now."""
        claim = self._claim
        assert claim is not None
        self.is_blocked = _blocks(claim)
        due = self._due(claim)
        if due is not None:
            await self._attempt(claim, due)
            self.is_blocked = _blocks(claim)
            return not claim.released or self._is_stale or self.has_news()
        if self.webhook.state == "unverified":
            if any(each.type == webhooks.CHALLENGE for each in claim.pending.values()):
                return False
            await self._offer(claim, self._challenge())
            return True
        if self.is_blocked or self.webhook.state == "disabled":
            return False
        if claim.replay is not None:
            await self._replay(claim, claim.replay)
            return True
        if self.behind:
            await self._tell_of(claim, next(iter(self.behind)))
            return True
        return False

    def _sendable(self, claim: Claim) -> list[Delivery]:
        """An unverified URL gets nothing but its challenge, a disabled one nothing."""
        if self.webhook.state == "disabled":
            return []
        unverified = self.webhook.state == "unverified"
        return [
            each
            for each in claim.pending.values()
            if (each.type == webhooks.CHALLENGE) == unverified
        ]

    def _due(self, claim: Claim) -> Delivery | None:
        """The delivery to attempt now."""
        now = self.tools.now_ms()
        due = [each for each in self._sendable(claim) if (each.due_ms or 0) <= now]
        return min(due, key=lambda each: each.due_ms or 0, default=None)

    def _challenge(self) -> Delivery:
        now = self.tools.now_ms()
        words = secrets.token_bytes(24)
        return Delivery(
            delivery_id=f"{self.webhook.webhook_id}:challenge:{words[:8].hex()}",
            type=webhooks.CHALLENGE,
            created_ms=now,
            due_ms=now,
            body=events.challenge(now, words),
        )

    async def _offer(self, claim: Claim, delivery: Delivery, *, replayed: bool = False) -> None:
        revision = await self.tools.work.offer(self.key, claim, delivery, replayed=replayed)
        claim.pending[delivery.delivery_id] = delivery
        self._is_stale |= revision != self.webhook.revision

    async def _replay(self, claim: Claim, letter: Delivery) -> None:
        now = self.tools.now_ms()
        again = replace(letter, failures=0, replayed=True, due_ms=now)
        await self._offer(claim, again, replayed=True)
        claim.replay = None
        self._is_stale = True  # what is next in that queue comes with the claim

    async def _tell_of(self, claim: Claim, log_id: LogId) -> None:
        """Stores the delivery of what a log has new, or moves on if that is not asked for."""
        version, position = self.tools.versions.get(log_id), self.positions.get(log_id, 0)
        self.behind.pop(log_id, None)  # whatever is heard of it from here on puts it back
        if version is None:
            await self._offer(claim, await self._deletion(log_id))
            return
        try:
            delivery = await self._update(log_id, position, version)
        except Refusal as refusal:
            if refusal.code in (ErrorCode.LOG_REPLACED, ErrorCode.NONEXISTENT_LOG):
                return  # the dispatcher hears of its deletion, too
            raise
        if delivery is not None:
            await self._offer(claim, delivery)
            return
        settled = await self.tools.work.skip(self.key, claim, log_id, version)
        self._moved(log_id, version, settled.moves)
        self._is_stale |= settled.revision != self.webhook.revision

    async def _update(self, log_id: LogId, low: int, high: int) -> Delivery | None:
        """None if no key changed that the webhook asks for."""
        webhook, now = self.webhook, self.tools.now_ms()
        diff = events.NO_DIFF
        if webhook.tokens or webhook.payload == "diff":
            head = await self.tools.reader.head(log_id)
            if 0 < low < head.first_version:
                diff = None  # forgotten in part: it is told without looking
            else:
                reader, tokens = self.tools.reader, webhook.tokens
                if tokens and not await reader.changes_any(log_id, head, low, high, tokens):
                    return None
                diff = await self._diff(log_id, head, low, high)
        if webhook.payload == "thin":
            diff = events.NO_DIFF
        group = await self._group(log_id)
        return Delivery(
            delivery_id=event_id(webhook.webhook_id, log_id, high),
            type=webhooks.UPDATED,
            created_ms=now,
            due_ms=now,
            body=events.updated(now, log_id, group, (low, high), diff),
            log_id=log_id,
            from_version=low,
            to_version=high,
        )

    async def _diff(self, log_id: LogId, head: Head, low: int, high: int) -> object:
        if self.webhook.payload != "diff":
            return events.NO_DIFF
        page = await self.tools.reader.page(
            log_id, head, low, high, "command", limit=MAX_DIFF_CHANGES
        )
        return None if page.rest else events.diff_of(low, high, page.changes)

    async def _deletion(self, log_id: LogId) -> Delivery:
        now = self.tools.now_ms()
        return Delivery(
            delivery_id=event_id(self.webhook.webhook_id, log_id, None),
            type=webhooks.DELETED,
            created_ms=now,
            due_ms=now,
            body=events.deleted(now, log_id, await self._group(log_id)),
            log_id=log_id,
        )

    async def _group(self, log_id: LogId) -> str:
        try:
            return (await self.tools.logs.identify(self.key.tenant, log_id)).group
        except Refusal as refusal:
            if refusal.code is ErrorCode.NONEXISTENT_LOG:
                return ""
            raise

    async def _attempt(self, claim: Claim, delivery: Delivery) -> None:
        """Sends it, holding the claim as long as that takes, and records what came of it."""
        sending = asyncio.create_task(self._send(delivery))
        try:
            while not (await asyncio.wait({sending}, timeout=CLAIM_SECONDS / 3))[0]:
                ttl_ms = round(CLAIM_SECONDS * 1_000)
                began = time.monotonic()
                await self.tools.work.renew(self.key, claim, ttl_ms=ttl_ms)
                self._claimed_at = began
        finally:
            sending.cancel()
            await asyncio.wait({sending})
        at_ms, answer = sending.result()
        await self._settle(claim, delivery, at_ms, answer)

    async def _send(self, delivery: Delivery) -> tuple[int, Answer]:
        """Returns when it is its turn to be settled, too: the claim is held until then."""
        await self.turn()
        answered = await self._sent(delivery)
        await self.turn()
        return answered

    async def _sent(self, delivery: Delivery) -> tuple[int, Answer]:
        async with self.tools.slots.taken(is_suspect=self.trust.is_suspect):
            at_ms = self.tools.now_ms()
            headers = webhooks.headers(
                self.webhook.active_keys(self.tools.secret, at_ms),
                delivery.delivery_id,
                at_ms // 1_000,
                delivery.body,
            )
            headers["Content-Type"] = "application/json"
            return at_ms, await self.tools.sender.post(self.webhook.url, headers, delivery.body)

    async def _settle(self, claim: Claim, before: Delivery, at_ms: int, answer: Answer) -> None:
        verdict, error = verdict_of(answer.status), answer.error
        is_challenge = before.type == webhooks.CHALLENGE
        if is_challenge and verdict == "delivered" and not events.is_met(before.body, answer.body):
            verdict, error = "failed", "the answer does not repeat the challenge"
        attempt = Attempt(
            at_ms=at_ms,
            status=answer.status,
            took_ms=answer.took_ms,
            answer=answer.body[:TOLD_BYTES].decode(errors="replace"),
            error=error,
        )
        self._observe(verdict, answer)
        delivery = before.attempted(attempt)
        webhook = replace(self.webhook, last_attempt=attempt)
        if verdict == "delivered":
            if is_challenge:
                webhook = replace(webhook, state="active")
                log.info("webhook.verified", **self._named())
            await self._over(claim, delivery, replace(webhook, failing_since_ms=0), died=False)
        else:
            webhook = self._after_failure(webhook, verdict, at_ms)
            await self._failed(claim, delivery, webhook, verdict, answer)

    def _observe(self, verdict: Verdict, answer: Answer) -> None:
        outcome = "refused" if answer.refused else verdict
        self.trust.note(delivered=verdict == "delivered", took_ms=answer.took_ms)
        self.tools.metrics.webhook_attempts.labels(outcome).inc()
        self.tools.metrics.webhook_attempt_seconds.observe(answer.took_ms / 1_000)
        if answer.refused:
            log.warning("webhook.address_refused", **self._named())

    def _after_failure(self, webhook: Webhook, verdict: Verdict, at_ms: int) -> Webhook:
        since = webhook.failing_since_ms or at_ms
        webhook = replace(webhook, failing_since_ms=since)
        if verdict == "gone":
            return replace(webhook, state="disabled", reason="it answered 410 Gone")
        if is_hopeless(since, at_ms):
            return replace(webhook, state="disabled", reason="nothing but failures for five days")
        return webhook

    async def _failed(
        self,
        claim: Claim,
        delivery: Delivery,
        webhook: Webhook,
        verdict: Verdict,
        answer: Answer,
    ) -> None:
        is_counting = delivery.failures_since_ms == webhook.enabled_ms
        failures = delivery.failures + 1 if is_counting else 1
        pause = next_attempt(
            failures, verdict, answer.retry_after_seconds, self.tools.random()
        ).pause_seconds
        if pause is None:
            if delivery.type == webhooks.CHALLENGE:
                webhook = replace(
                    webhook, state="disabled", reason="the challenge was not answered"
                )
            await self._over(claim, delivery, webhook, died=True)
            return
        delivery = replace(
            delivery,
            failures=failures,
            failures_since_ms=webhook.enabled_ms,
            due_ms=self.tools.now_ms() + round(pause * 1_000),
        )
        settled = await self.tools.work.retry(
            self.key, claim, delivery, _fields(webhook), release=self._is_all(claim)
        )
        claim.pending[delivery.delivery_id] = delivery
        self._adopt_webhook(webhook, settled.revision)

    async def _over(
        self, claim: Claim, delivery: Delivery, webhook: Webhook, *, died: bool
    ) -> None:
        died_ms = self.tools.now_ms() if died else None
        settled = await self.tools.work.finish(
            self.key,
            claim,
            delivery,
            _fields(webhook),
            died_ms=died_ms,
            release=self._is_all(claim) and not self.behind,
        )
        del claim.pending[delivery.delivery_id]
        if delivery.log_id is not None and not delivery.replayed:
            self._moved(delivery.log_id, delivery.to_version, settled.moves)
        self._adopt_webhook(webhook, settled.revision)
        if died:
            self.tools.metrics.dead_letters.inc()
            log.warning(
                "webhook.delivery_died",
                **self._named(),
                delivery_id=delivery.delivery_id,
                letters_dropped=settled.letters_dropped,
            )

    def _is_all(self, claim: Claim) -> bool:
        """Whether nothing is stored for it beside the delivery that was just attempted."""
        return len(claim.pending) == 1 and claim.replay is None and not self._is_stale

    def _adopt_webhook(self, webhook: Webhook, revision: int) -> None:
        if webhook.state == "disabled" != self.webhook.state:
            self.tools.metrics.webhooks_disabled.inc()
            log.error("webhook.disabled", **self._named(), reason=webhook.reason)
        self._is_stale |= revision != webhook.revision
        self.webhook = webhook

    def _moved(self, log_id: LogId, version: int | None, moves: int) -> None:
        if version is None:
            self.positions.pop(log_id, None)
        else:
            self.positions[log_id] = version
        self.moves = moves
        self.compare({log_id})

    def _named(self) -> dict[str, str]:
        return {"tenant": self.key.tenant, "webhook_id": self.key.webhook_id}


def _blocks(claim: Claim) -> bool:
    """Whether a delivery is stored that what its logs tell next must wait for."""
    return any(not each.aside for each in claim.pending.values())


def _fields(webhook: Webhook) -> list[Argument]:
    """What an attempt may change of a webhook."""
    assert webhook.last_attempt is not None
    return [
        *("state", webhook.state),
        *("reason", webhook.reason),
        *("failing_since_ms", webhook.failing_since_ms),
        *("last_attempt", packed_attempt(webhook.last_attempt)),
    ]

"""Webhooks and deliveries as the store holds them: their fields, and their bytes (msgpack).

Owns the keys that deliveries are signed with: they are derived from the server's secret and
a salt, so the store holds nothing that signs. Knows nothing of Redis or HTTP.
"""

import hmac
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Literal

import msgpack
import msgspec
from indelible_protocol.ids import LogId, to_base64url
from indelible_protocol.webhooks import Key, Kind
from msgspec import Struct
from msgspec.structs import replace

Payload = Literal["thin", "diff"]
Signature = Literal["hmac", "ed25519"]
State = Literal["unverified", "active", "disabled"]
DeliveryState = Literal["pending", "delivered", "dead"]

SALT_BYTES = 16
MAX_ATTEMPTS_TOLD = 30  # of one delivery; more come only of repeated replays


class SigningKey(Struct, frozen=True, kw_only=True):
    """What a key is derived from, and from when until when it signs (None: it is the last)."""

    salt: bytes
    since_ms: int
    until_ms: int | None = None

    def derived(self, secret: bytes, webhook: "Webhook") -> Key:
        """The key itself; `secret` is the server's."""
        text = b"indelible/webhook-key\x00" + webhook.webhook_id.encode() + b"\x00" + self.salt
        data = hmac.digest(secret, text, sha256)
        return Key(Kind.SHARED if webhook.signature == "hmac" else Kind.SIGNING, data)


class Attempt(Struct, frozen=True, kw_only=True):
    """One request. `status` None: no answer, `error` says why; `answer` is its beginning."""

    at_ms: int
    status: int | None
    took_ms: int
    answer: str
    error: str | None = None

    def pack(self) -> list[Any]:
        return [self.at_ms, self.status, self.took_ms, self.answer, self.error]

    @classmethod
    def unpack(cls, parts: Sequence[Any]) -> "Attempt":
        at_ms, status, took_ms, answer, error = parts
        return cls(at_ms=at_ms, status=status, took_ms=took_ms, answer=answer, error=error)


class Delivery(Struct, frozen=True, kw_only=True):
    """One event for one webhook. `body` is what every attempt sends; empty once it is over.

    `failures` are those that count: they are forgotten when it is `replayed`, and when the
    webhook is enabled, which it then was at another time than `failures_since_ms`. An event
    that is `aside` belongs to no log's order.
    """

    delivery_id: str
    type: str
    created_ms: int
    body: bytes = b""
    log_id: LogId | None = None
    from_version: int | None = None
    to_version: int | None = None
    state: DeliveryState = "pending"
    failures: int = 0
    failures_since_ms: int = 0
    replayed: bool = False
    due_ms: int | None = None
    attempts: tuple[Attempt, ...] = ()

    @property
    def aside(self) -> bool:
        return self.log_id is None

    def attempted(self, attempt: Attempt) -> "Delivery":
        return replace(self, attempts=(*self.attempts, attempt)[-MAX_ATTEMPTS_TOLD:])

    def summary(self, state: DeliveryState) -> bytes:
        return replace(self, body=b"", state=state, due_ms=None).encode()

    def encode(self) -> bytes:
        packed: bytes = msgpack.packb(
            {
                "delivery_id": self.delivery_id,
                "type": self.type,
                "created_ms": self.created_ms,
                "body": self.body,
                "log_id": self.log_id,
                "from_version": self.from_version,
                "to_version": self.to_version,
                "state": self.state,
                "failures": self.failures,
                "failures_since_ms": self.failures_since_ms,
                "replayed": self.replayed,
                "attempts": [attempt.pack() for attempt in self.attempts],
            }
        )
        return packed

    @classmethod
    def decode(cls, data: bytes, *, due_ms: int | None = None) -> "Delivery":
        fields = msgpack.unpackb(data)
        fields["attempts"] = tuple(Attempt.unpack(parts) for parts in fields["attempts"])
        return cls(**fields, due_ms=due_ms)


class Webhook(Struct, frozen=True, kw_only=True):
    """A subscription. It follows `log_id`, or the logs of `group`, or all of the database.

    `revision` counts changes of what the webhook is, `moves` those of its positions.
    `failing_since_ms` is 0 after a success.
    """

    tenant: str
    database: str
    webhook_id: str
    url: str
    log_id: LogId | None
    group: str | None
    tokens: frozenset[bytes]
    payload: Payload
    signature: Signature
    description: str
    created_ms: int
    keys: tuple[SigningKey, ...]
    state: State = "unverified"
    reason: str = ""
    revision: int = 1
    moves: int = 0
    finished: int = 0
    enabled_ms: int = 0
    failing_since_ms: int = 0
    last_attempt: Attempt | None = None

    def fields(self) -> dict[str, bytes | str | int]:
        """As `meta` holds them; those that never change first."""
        scope = "database" if self.group is None else "group"
        return {
            "database": self.database,
            "url": self.url,
            "scope": scope if self.log_id is None else "log",
            "log_id": self.log_id or b"",
            "group": self.group or "",
            "tokens": msgpack.packb(sorted(self.tokens)),
            "payload": self.payload,
            "signature": self.signature,
            "description": self.description,
            "created_ms": self.created_ms,
            "keys": packed_keys(self.keys),
            "state": self.state,
            "reason": self.reason,
            "revision": self.revision,
            "moves": self.moves,
            "finished": self.finished,
            "enabled_ms": self.enabled_ms,
            "failing_since_ms": self.failing_since_ms,
        }

    @classmethod
    def read(cls, tenant: str, webhook_id: str, fields: Mapping[bytes, bytes]) -> "Webhook":
        def text(name: str) -> str:
            return fields[name.encode()].decode()

        scope = text("scope")
        last = fields.get(b"last_attempt")
        words: dict[str, Any] = {name: text(name) for name in _WORDS}
        words |= {name: int(text(name)) for name in _NUMBERS}
        return cls(
            tenant=tenant,
            database=text("database"),
            webhook_id=webhook_id,
            url=text("url"),
            log_id=LogId(fields[b"log_id"]) if scope == "log" else None,
            group=text("group") if scope == "group" else None,
            tokens=frozenset(msgpack.unpackb(fields[b"tokens"])),
            description=text("description"),
            keys=tuple(
                SigningKey(salt=salt, since_ms=since, until_ms=until)
                for salt, since, until in msgpack.unpackb(fields[b"keys"])
            ),
            last_attempt=Attempt.unpack(msgpack.unpackb(last)) if last else None,
            **words,
        )

    def signing(self, now_ms: int) -> list[SigningKey]:
        """The keys that sign now, the newest first."""
        return [key for key in self.keys[::-1] if key.until_ms is None or now_ms < key.until_ms]

    def active_keys(self, secret: bytes, now_ms: int) -> list[Key]:
        """`secret` is the server's."""
        return [key.derived(secret, self) for key in self.signing(now_ms)]

    def last_key(self, secret: bytes) -> Key:
        return self.keys[-1].derived(secret, self)


_WORDS = ("payload", "signature", "state", "reason")
_NUMBERS = (
    "created_ms",
    "revision",
    "moves",
    "finished",
    "enabled_ms",
    "failing_since_ms",
)


def packed_keys(keys: Sequence[SigningKey]) -> bytes:
    packed: bytes = msgpack.packb([[key.salt, key.since_ms, key.until_ms] for key in keys])
    return packed


def packed_attempt(attempt: Attempt) -> bytes:
    packed: bytes = msgpack.packb(attempt.pack())
    return packed


def event_id(webhook_id: str, log_id: LogId, to_version: int | None) -> str:
    """The id of a log's event; the same however often it is made. No member holds a colon, and
    none a full stop, which separates what is signed."""
    end = "deleted" if to_version is None else str(to_version)
    return f"{webhook_id}:{to_base64url(log_id)}:{end}"


def event_body(kind: str, created_ms: int, data: Mapping[str, Any]) -> bytes:
    stamp = datetime.fromtimestamp(created_ms / 1_000, UTC).isoformat(timespec="milliseconds")
    event = {"type": kind, "timestamp": stamp.replace("+00:00", "Z"), "data": data}
    return msgspec.json.encode(event)

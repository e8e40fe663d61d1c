"""Webhooks, as their owner sees them: made, looked at, mended; the twin of `blocking.Webhooks`.

What a receiver does with a delivery is `webhooks`'. Knows of keys only what it takes to ask for
the versions that change them: the service gets tokens.
"""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

from indelible_protocol import messages, paths
from indelible_protocol.errors import ErrorCode
from indelible_protocol.ids import HASH_BYTES, LogId
from msgspec import UNSET, UnsetType

from indelible.answers import time_of
from indelible.errors import RequestError
from indelible.log import AsyncLog, AsyncView
from indelible.names import Name
from indelible.remote import Service, held
from indelible.transport import Request

A = TypeVar("A", bound=messages.Message)
T = TypeVar("T")

_ID = re.compile(r"wh_[A-Za-z0-9_-]{1,64}")

State = Literal["unverified", "active", "disabled"]
DeliveryState = Literal["pending", "delivered", "dead"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookKey:
    """A key that deliveries are signed with, `until` another has taken its place.

    `public_key` (`whpk_…`) is what receivers verify with; None for a shared secret, which is
    told only when it is made.
    """

    public_key: str | None
    since: datetime
    until: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One request. `status` is None where nothing answered, and `error` says why; `answer` is
    how what was answered begins."""

    time: datetime
    status: int | None
    error: str
    took_ms: int
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """A URL that is told of new versions: of one log, of those of a group, or of all.

    It is `unverified` until it has answered its challenge, and gets nothing before; `reason`
    says why it is `disabled`. `log_id` is in hexadecimal. With `tokens`, only versions that
    change one of these keys count. `pending` and `dead` count deliveries. `secret`
    (`whsec_…`) is there once, in the answer to `create` and `rotate_secret`.
    """

    webhook_id: str
    url: str
    log_id: str | None
    group: str | None
    tokens: tuple[bytes, ...]
    payload: Literal["thin", "diff"]
    signature: Literal["hmac", "ed25519"]
    description: str
    state: State
    reason: str
    created: datetime
    keys: tuple[WebhookKey, ...]
    pending: int
    dead: int
    last_attempt: Attempt | None
    secret: str | None = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One event for one webhook: `pending` until an attempt is answered with a 2xx
    (`delivered`), or all are used up (`dead`). `due` is the time of the next attempt."""

    delivery_id: str
    type: str
    log_id: str | None
    from_version: int | None
    to_version: int | None
    state: DeliveryState
    created: datetime
    due: datetime | None
    attempts: tuple[Attempt, ...]


class AsyncWebhooks:
    """The webhooks of the database. Made by a client."""

    def __init__(self, service: Service, open_log: Callable[[Name], Awaitable[AsyncLog]]) -> None:
        self._service = service
        self._open_log = open_log

    async def create(
        self,
        url: str,
        *,
        log: Name | None = None,
        log_id: str | None = None,
        group: str | None = None,
        keys: Iterable[Any] = (),
        payload: Literal["thin", "diff"] = "thin",
        signature: Literal["hmac", "ed25519"] = "hmac",
        description: str = "",
    ) -> Webhook:
        """Has `url` told of new versions, once it has answered a challenge.

        Of one `log`, by its name or by its `log_id` (in hexadecimal: of an opaque log, say); of
        those of a `group`; without any of them, of every log, also of those made later. With
        `keys` of the log, only of versions that change one of them. `payload` says whether an
        event carries the sealed diff, `signature` how deliveries are signed.

        Keep the answer's `secret`: nothing tells it again. With `ed25519` there is none, and
        receivers verify with `keys[0].public_key`.

        Raises:
            NotFoundError: there is no such log.
            UnavailableError: if it `may_have_applied`, look with `list` before trying again.
        """
        body = messages.CreateWebhook(
            url=url, payload=payload, signature=signature, description=description
        )
        if sum(each is not None for each in (log, log_id, group)) > 1:
            raise RequestError("log, log_id and group each say what to follow: give one of them")
        wanted = list(keys)
        if log is not None:
            opened = await self._open_log(log)
            body.log = bytes.fromhex(opened.log_id)
            body.tokens = [opened._handle.codec.token(key) for key in wanted]
        elif wanted:
            raise RequestError("keys belong to one log: give its name with them")
        elif log_id is not None:
            body.log = _log_id(log_id)
        elif group is not None:
            body.group = group
        return _webhook(await self._once(paths.WEBHOOKS, messages.Webhook, body))

    def list(self) -> AsyncView[Webhook]:
        """Every webhook of the database; oldest first."""

        async def pages() -> AsyncIterator[list[Webhook]]:
            cursor: str | None = ""
            while cursor is not None:
                request = Request(
                    method="GET",
                    path=paths.WEBHOOKS,
                    answer=messages.Webhooks,
                    query={"cursor": cursor} if cursor else None,
                )
                page = await self._service.message(request)
                yield [_webhook(each) for each in page.webhooks]
                cursor = page.cursor

        return AsyncView(pages)

    async def get(self, webhook_id: str) -> Webhook:
        """
        Raises:
            NotFoundError: there is no such webhook.
        """
        request = Request(
            method="GET", path=_path(paths.WEBHOOK, webhook_id), answer=messages.Webhook
        )
        return _webhook(await self._service.message(request))

    async def delete(self, webhook_id: str) -> None:
        """Tells its URL nothing more; what was pending is dropped."""
        path = _path(paths.WEBHOOK, webhook_id)
        await self._service.remove(path, ErrorCode.NONEXISTENT_WEBHOOK)

    async def enable(self, webhook_id: str) -> Webhook:
        """Begins anew with one that is disabled: it is challenged, its failures forgotten."""
        request = Request(
            method="POST", path=_path(paths.WEBHOOK_ENABLE, webhook_id), answer=messages.Webhook
        )
        return _webhook(await self._service.message(request))

    async def rotate_secret(self, webhook_id: str) -> Webhook:
        """Signs with a new key too; the one before it goes on for 24 hours.

        Give the answer's `secret` (or the newest of its `keys`) to the receivers beside the old
        one meanwhile. Two keys sign at most: rotating again ends the oldest at once.
        """
        path = _path(paths.WEBHOOK_ROTATE, webhook_id)
        done = await self._once(path, messages.RotatedSecret)
        return _webhook(done.webhook, secret=done.secret)

    async def trigger(self, webhook_id: str) -> str:
        """Sends the event `webhook.test`; the id of its delivery."""
        path = _path(paths.WEBHOOK_TRIGGER, webhook_id)
        return (await self._once(path, messages.Triggered)).delivery_id

    def deliveries(
        self, webhook_id: str, *, state: DeliveryState | None = None
    ) -> AsyncView[Delivery]:
        """What was sent, or is to be, with every attempt; newest first."""
        path = _path(paths.WEBHOOK_DELIVERIES, webhook_id)
        chosen = {} if state is None else {"state": state}

        async def pages() -> AsyncIterator[list[Delivery]]:
            cursor: str | None = ""
            while cursor is not None:
                request = Request(
                    method="GET",
                    path=path,
                    answer=messages.Deliveries,
                    query=chosen | ({"cursor": cursor} if cursor else {}),
                )
                page = await self._service.message(request)
                yield [_delivery(each) for each in page.deliveries]
                cursor = page.cursor

        return AsyncView(pages)

    async def replay(self, webhook_id: str, *, since: datetime) -> int:
        """Queues again what died since then; how many deliveries that were.

        `since` has a time zone.
        """
        if since.tzinfo is None:
            raise RequestError("since has no time zone: datetime.now(UTC), say")
        body = messages.Replay(since=max(0, int(since.astimezone(UTC).timestamp() * 1000)))
        request = Request(
            method="POST",
            path=_path(paths.WEBHOOK_REPLAY, webhook_id),
            answer=messages.Replayed,
            body=body,
        )
        return (await self._service.message(request)).replayed

    async def _once(self, path: str, kind: type[A], body: messages.Message | None = None) -> A:
        """What must not be done twice."""
        request = Request(method="POST", path=path, answer=kind, body=body)
        return held(await self._service.ask(request, may_repeat=False))


def _path(template: str, webhook_id: str) -> str:
    if not (isinstance(webhook_id, str) and _ID.fullmatch(webhook_id)):
        raise RequestError("a webhook's id is like wh_0123456789abcdef")
    return paths.of_webhook(template, webhook_id)


def _log_id(text: str) -> LogId:
    try:
        data = bytes.fromhex(text)
    except ValueError:
        data = b""
    if len(data) != HASH_BYTES:
        raise RequestError(f"log_id is {2 * HASH_BYTES} hexadecimal digits, as `log.log_id` tells")
    return LogId(data)


def _webhook(told: messages.Webhook, *, secret: str | UnsetType = UNSET) -> Webhook:
    return Webhook(
        webhook_id=told.webhook_id,
        url=told.url,
        log_id=_hex(told.log),
        group=_set(told.group),
        tokens=tuple(told.tokens),
        payload=told.payload,
        signature=told.signature,
        description=told.description,
        state=told.state,
        reason=_set(told.reason) or "",
        created=time_of(told.created_ms),
        keys=tuple(map(_key, told.keys)),
        pending=told.pending,
        dead=told.dead,
        last_attempt=None if told.last_attempt is UNSET else _attempt(told.last_attempt),
        secret=_set(secret) or _set(told.secret),
    )


def _key(told: messages.WebhookKey) -> WebhookKey:
    return WebhookKey(
        public_key=_set(told.public_key),
        since=time_of(told.since_ms),
        until=None if told.until_ms is UNSET else time_of(told.until_ms),
    )


def _attempt(told: messages.Attempt) -> Attempt:
    return Attempt(
        time=time_of(told.at_ms),
        status=told.status,
        error=_set(told.error) or "",
        took_ms=told.took_ms,
        answer=told.answer,
    )


def _delivery(told: messages.Delivery) -> Delivery:
    return Delivery(
        delivery_id=told.delivery_id,
        type=told.type,
        log_id=_hex(told.log_id),
        from_version=_set(told.from_version),
        to_version=_set(told.to_version),
        state=told.state,
        created=time_of(told.created_ms),
        due=None if told.due_ms is UNSET else time_of(told.due_ms),
        attempts=tuple(map(_attempt, told.attempts)),
    )


def _set(value: T | UnsetType) -> T | None:
    return None if isinstance(value, UnsetType) else value


def _hex(data: bytes | UnsetType) -> str | None:
    return None if isinstance(data, UnsetType) else data.hex()

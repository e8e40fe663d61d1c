"""For receivers of webhooks: is this request a delivery of the service's, and what does it tell?

```python
event = webhooks.verify(request.headers, await request.read(), "whsec_…", seen=seen)
...                   # deal with it: event.log_id is at event.to_version
seen.add(event.id)    # from now on, the same delivery is refused as "repeated"
return event.answer   # with status 200
```

By Standard Webhooks 1.0: `v1` (HMAC-SHA256, keys `whsec_…`) and `v1a` (Ed25519, keys
`whpk_…`). Needs no profile and no connection, and loads no HTTP library.
"""

import re
import time
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from threading import Lock
from typing import Annotated, Any

import msgspec
from indelible_protocol import messages, webhooks
from indelible_protocol.errors import ProtocolError
from indelible_protocol.ids import parse_log_id
from indelible_protocol.webhooks import Key, Kind
from msgspec import Meta, Struct

from indelible.answers import time_of
from indelible.errors import RequestError, WebhookError

__all__ = ["TOLERANCE_SECONDS", "Event", "Seen", "WebhookError", "verify"]

TOLERANCE_SECONDS = 300.0
SEEN_DELIVERIES = 10_000

_TIMESTAMP = re.compile(r"[1-9][0-9]{0,10}")
_ID = re.compile(r"[!-~]{1,256}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What a verified delivery tells.

    `id` stays the same however often the delivery is tried; `sent` is the time of this
    attempt, `time` that of the event. `log_id` is in hexadecimal, as that of a log; it and
    the versions are None where the event is not about one (`webhook.test`,
    `webhook.challenge`). `diff` is the sealed diff that the delivery carries, if it does:
    `log.delivered(event)` opens it. `data` is all that was sent with the event.
    """

    id: str
    type: str
    time: datetime
    sent: datetime
    log_id: str | None = None
    group: str | None = None
    from_version: int | None = None
    to_version: int | None = None
    diff: messages.Diff | None = field(default=None, repr=False)
    data: Mapping[str, Any] = field(default_factory=dict, repr=False)
    answer: bytes = b"{}"
    """The JSON to answer with, as status 200: a challenge wants its words back."""


class Seen:
    """The ids of the deliveries that were dealt with last; in memory, for one process.

    Anything that has `in` can stand for it in `verify`: a set that outlives the process, say.
    """

    def __init__(self, most: int = SEEN_DELIVERIES) -> None:
        self._most = most
        self._ids: dict[str, None] = {}
        self._lock = Lock()

    def __contains__(self, delivery_id: object) -> bool:
        return delivery_id in self._ids

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, delivery_id: str) -> None:
        """Once it was dealt with, not before: one that failed comes again, and must be let in."""
        with self._lock:
            self._ids.pop(delivery_id, None)
            self._ids[delivery_id] = None
            while len(self._ids) > self._most:
                del self._ids[next(iter(self._ids))]


def verify(
    headers: Mapping[str, str],
    body: bytes,
    keys: str | Iterable[str],
    *,
    tolerance_seconds: float = TOLERANCE_SECONDS,
    now_seconds: float | None = None,
    seen: Container[str] = (),
) -> Event:
    """The event of a delivery, if one of `keys` signed it just now.

    `body` is what came, byte for byte, before anything parsed it. `keys` are `whsec_…` or
    `whpk_…`, several while one replaces another. `now_seconds` is the time since 1970, the
    clock's if not given. What is in `seen` was dealt with already.

    Raises:
        WebhookError: anything else; its `http_status` is what to answer.
        RequestError: a key that is none, or a body that is not bytes.
    """
    trusted = _keys(keys)
    if not isinstance(body, bytes | bytearray | memoryview):
        raise RequestError(f"body is a {type(body).__name__}: its bytes, as they came, expected")
    body = bytes(body)
    now = time.time() if now_seconds is None else now_seconds
    delivery_id, timestamp, header = _head(headers)
    _check_time(timestamp, now, tolerance_seconds)
    _check_signature(trusted, webhooks.signed_text(delivery_id, timestamp, body), header)
    if delivery_id in seen:
        raise WebhookError("this delivery was dealt with already", reason="repeated")
    return _event(delivery_id, timestamp, body)


def _keys(keys: str | Iterable[str]) -> list[Key]:
    try:
        trusted = [Key.read(text) for text in ([keys] if isinstance(keys, str) else keys)]
    except ProtocolError as error:
        raise RequestError(str(error)) from None
    if not trusted:
        raise RequestError("no key to verify with")
    if any(key.kind is Kind.SIGNING for key in trusted):
        raise RequestError("a whsk_ key is the sender's: receivers verify with whpk_")
    return trusted


def _head(headers: Mapping[str, str]) -> tuple[str, int, str]:
    """Id, timestamp and signatures; the id is visible ASCII."""
    found: dict[str, str] = {}
    for name, value in headers.items():
        lower = name.lower()
        if lower in found and lower.startswith("webhook-"):
            raise WebhookError(f"the header {lower} stands twice", reason="malformed")
        found[lower] = value
    delivery_id, timestamp, header = (
        found.get(name, "")
        for name in (webhooks.ID_HEADER, webhooks.TIMESTAMP_HEADER, webhooks.SIGNATURE_HEADER)
    )
    if not (delivery_id and timestamp and header):
        raise WebhookError(
            "a delivery has the headers webhook-id, webhook-timestamp and webhook-signature",
            reason="malformed",
        )
    if not _ID.fullmatch(delivery_id):
        raise WebhookError("webhook-id is not 1 to 256 visible characters", reason="malformed")
    if not _TIMESTAMP.fullmatch(timestamp):
        raise WebhookError("webhook-timestamp is no time in seconds", reason="malformed")
    return delivery_id, int(timestamp), header


def _check_time(timestamp: int, now: float, tolerance_seconds: float) -> None:
    if timestamp < now - tolerance_seconds:
        raise WebhookError(
            f"the delivery is {now - timestamp:.0f} s old: sent again by somebody, or a clock is "
            "wrong",
            reason="old",
        )
    if timestamp > now + tolerance_seconds:
        raise WebhookError(
            f"the delivery is of {timestamp - now:.0f} s from now: a clock is wrong",
            reason="future",
        )


def _check_signature(keys: list[Key], text: bytes, header: str) -> None:
    try:
        found = webhooks.signatures(header)
    except ProtocolError as error:
        raise WebhookError(str(error), reason="malformed") from None
    # Every pair is tried: how long that takes does not say which one was right.
    matches = [
        key.signed(text, signature)
        for key in keys
        for scheme, signature in found
        if scheme == key.scheme
    ]
    if not any(matches):
        raise WebhookError(
            "no signature is of these keys: altered on the way, or signed with another key",
            reason="altered",
        )


class _Body(Struct):
    """What every delivery says; other members are for later versions."""

    type: Annotated[str, Meta(min_length=1)]
    timestamp: Annotated[datetime, Meta(tz=True)]
    data: dict[str, Any]


class _Deleted(Struct):
    log: str
    group: str | None = None


class _Updated(_Deleted, kw_only=True):
    fromVersion: messages.Whole  # noqa: N815 - as it is spelled in a body
    toVersion: messages.Whole  # noqa: N815
    diff: messages.Diff | None = None


class _Challenge(Struct):
    challenge: str


def _event(delivery_id: str, timestamp: int, body: bytes) -> Event:
    """What the sender signed; which may be of another version than this library, or wrong."""
    try:
        told = msgspec.json.decode(body, type=_Body)
        members = _members(told)
    except (msgspec.DecodeError, ProtocolError, UnicodeDecodeError, RecursionError) as error:
        raise WebhookError(f"signed, but no event: {error}", reason="malformed") from None
    sent = time_of(timestamp * 1000)
    return Event(
        id=delivery_id, type=told.type, time=told.timestamp, sent=sent, data=told.data, **members
    )


def _members(told: _Body) -> dict[str, Any]:
    """Those that events of this type have beyond the others."""
    if told.type == webhooks.CHALLENGE:
        wanted = msgspec.convert(told.data, _Challenge)
        return {"answer": msgspec.json.encode(wanted)}
    if told.type == webhooks.DELETED:
        deleted = msgspec.convert(told.data, _Deleted)
        return {"log_id": parse_log_id(deleted.log).hex(), "group": deleted.group}
    if told.type == webhooks.UPDATED:
        updated = msgspec.convert(told.data, _Updated)
        versions, diff = (updated.fromVersion, updated.toVersion), updated.diff
        if diff is not None and (diff.from_version, diff.to_version, diff.cursor) != (
            *versions,
            None,
        ):
            raise ProtocolError("a diff that is not the event's, or not whole")
        return {
            "log_id": parse_log_id(updated.log).hex(),
            "group": updated.group,
            "from_version": versions[0],
            "to_version": versions[1],
            "diff": diff,
        }
    return {}

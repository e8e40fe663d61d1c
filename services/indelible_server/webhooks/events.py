"""What deliveries say: the JSON of each event. Pure."""

from collections.abc import Sequence
from typing import Any

import msgspec
from indelible_protocol import limits, messages, webhooks
from indelible_protocol.ids import LogId, to_base64url

from indelible_server.store.entries import ChangedEntry
from indelible_server.store.webhook_records import event_body

NO_DIFF = object()


def updated(
    created_ms: int,
    log_id: LogId,
    group: str,
    versions: tuple[int, int],
    diff: Any = NO_DIFF,
) -> bytes:
    """`diff` None: it was asked for and is too large."""
    data: dict[str, Any] = {
        "log": to_base64url(log_id),
        "group": group,
        "fromVersion": versions[0],
        "toVersion": versions[1],
    }
    if diff is not NO_DIFF:
        data["diff"] = diff
    return event_body(webhooks.UPDATED, created_ms, data)


def deleted(created_ms: int, log_id: LogId, group: str) -> bytes:
    data = {"log": to_base64url(log_id), "group": group}
    return event_body(webhooks.DELETED, created_ms, data)


def challenge(created_ms: int, words: bytes) -> bytes:
    return event_body(webhooks.CHALLENGE, created_ms, {"challenge": to_base64url(words)})


def is_met(challenge_body: bytes, answer: bytes) -> bool:
    """Whether the answer repeats the challenge."""
    try:
        asked = msgspec.json.decode(challenge_body)["data"]["challenge"]
        told = msgspec.json.decode(answer)
    except msgspec.DecodeError:
        return False
    return isinstance(told, dict) and told.get("challenge") == asked


def diff_of(low: int, high: int, changes: Sequence[ChangedEntry]) -> msgspec.Raw | None:
    """As `GET diff` answers in JSON; None if it is too large to send along."""
    size = sum(len(c.entry.sealed_key) + len(c.entry.value) for c in changes)
    if size > limits.MAX_WEBHOOK_DIFF_BYTES:
        return None
    diff = messages.Diff(
        from_version=low,
        to_version=high,
        changes=[
            messages.DiffChange(
                op=changed.op,
                key=changed.entry.key,
                sealed_key=changed.entry.sealed_key,
                value=changed.entry.value,
                version=changed.entry.version,
            )
            for changed in changes
        ],
        cursor=None,
    )
    spelled = messages.encode(diff, messages.Form.JSON)
    return None if len(spelled) > limits.MAX_WEBHOOK_DIFF_BYTES else msgspec.Raw(spelled)

"""`indelible webhook …`, but for `listen`: URLs that the service tells of new versions.

A key is printed once, on stdout, by the command that has it made; and never typed.
"""

import base64
import re
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from indelible.cli.options import AT_LEAST_0, DEFAULT, Common
from indelible.cli.output import Output, moment, plural, printable
from indelible.cli.sessions import client_of, modes_of
from indelible.cli.values import Typed, log_name, name_text, time_ago
from indelible.errors import RequestError
from indelible.names import Name

if TYPE_CHECKING:
    from indelible.blocking import Client
    from indelible.notifying import Attempt, Delivery, Webhook

_LOG_ID = re.compile("[0-9a-f]{64}")
_STYLES = {"active": "add", "unverified": "dim", "delivered": "add", "pending": "dim"}


def create(
    url: str,
    log: str | None = None,
    /,
    *,
    group: Annotated[str | None, Parameter(help="The logs of this group.")] = None,
    key: Annotated[
        tuple[str, ...],
        Parameter(help="Only versions that change this KEY of the log; may be repeated."),
    ] = (),
    payload: Annotated[
        Literal["thin", "diff"], Parameter(help="Whether events carry the sealed diff.")
    ] = "thin",
    signature: Annotated[
        Literal["hmac", "ed25519"], Parameter(help="How deliveries are signed.")
    ] = "hmac",
    description: Annotated[str, Parameter(help="Words for people; the service reads them.")] = "",
    common: Common = DEFAULT,
) -> None:
    """Have a URL told of new versions: of one log, of a --group's, or of every log.

    The URL must answer a challenge first (indelible webhook listen shows how that is). Prints
    the key that receivers verify with: keep it, nothing shows it again.

    Parameters
    ----------
    url
        Where events are posted to; https.
    log
        The log's name, or its id in 64 hexadecimal digits.
    """
    if key and log is None:
        raise RequestError("--key is one of a log's keys: give the LOG with it")
    output = Output(common)
    with client_of(common) as client:
        name, log_id = _named(log)
        made = client.webhooks.create(
            url,
            log=name,
            log_id=log_id,
            group=group,
            keys=_keys(client, name, key),
            payload=payload,
            signature=signature,
            description=description,
        )
        _tell_key(output, made, _names(client, [made]))
        output.note("-- it is told of nothing before it has answered its challenge --")


def _named(log: str | None) -> tuple[Name | None, str | None]:
    if log is None:
        return None, None
    return (None, log) if _LOG_ID.fullmatch(log) else (log_name(log), None)


def _keys(client: "Client", name: Name | None, keys: tuple[str, ...]) -> list[Any]:
    if not keys:
        return []
    if name is None:
        raise RequestError("--key is read in the log's mode: give the LOG by its name")
    key_mode, _ = modes_of(client.log(name, key_mode=None, value_mode=None))
    typed = Typed()
    return [typed.value(key, key_mode, "--key") for key in keys]


def _tell_key(output: Output, webhook: "Webhook", names: dict[str, Name | None]) -> None:
    text, members = _listed(output, webhook, names)
    key = webhook.secret or webhook.keys[0].public_key
    output.item(f"{text}\n{key}", {**members, "secret": webhook.secret})


def _names(client: "Client", webhooks: "list[Webhook]") -> dict[str, Name | None]:
    """Of the logs that webhooks are about; those that are gone are not among them."""
    wanted = {webhook.log_id for webhook in webhooks} - {None}
    found: dict[str, Name | None] = {}
    if wanted:
        for log in client.logs():
            if log.log_id in wanted:
                found[log.log_id] = log.name
            if len(found) == len(wanted):
                break
    return found


_ROW = "{:<19}  {}  {:>7} {:>5}  {}  {}"


def list_(*, common: Common = DEFAULT) -> None:
    """List webhooks, oldest first."""
    output = Output(common)
    with client_of(common) as client:
        found = list(client.webhooks.list())
        names = _names(client, found)
        title = output.styled(
            _ROW.format("ID", f"{'STATE':<10}", "PENDING", "DEAD", "URL", "OF"), "dim"
        )
        output.items((_listed(output, each, names) for each in found), title=title)


def _listed(
    output: Output, webhook: "Webhook", names: dict[str, Name | None]
) -> tuple[str, dict[str, Any]]:
    row = _ROW.format(
        webhook.webhook_id,
        output.styled(f"{webhook.state:<10}", _STYLES.get(webhook.state, "bad")),
        webhook.pending,
        webhook.dead,
        printable(webhook.url),
        printable(_scope(webhook, names)),
    )
    return row, _members(webhook, names)


def _scope(webhook: "Webhook", names: dict[str, Name | None]) -> str:
    if webhook.group is not None:
        return f"[{webhook.group}]"
    if webhook.log_id is None:
        return "every log"
    if webhook.log_id not in names:
        return f"{webhook.log_id[:16]}… (gone)"
    name = name_text(names[webhook.log_id])
    return f"{name} ({plural(len(webhook.tokens), 'key')})" if webhook.tokens else name


def _members(webhook: "Webhook", names: dict[str, Name | None]) -> dict[str, Any]:
    last = webhook.last_attempt
    return {
        "webhook_id": webhook.webhook_id,
        "url": webhook.url,
        "log": names.get(webhook.log_id or ""),
        "log_id": webhook.log_id,
        "group": webhook.group,
        "tokens": [base64.b64encode(token).decode() for token in webhook.tokens],
        "payload": webhook.payload,
        "signature": webhook.signature,
        "description": webhook.description,
        "state": webhook.state,
        "reason": webhook.reason,
        "created": webhook.created.isoformat(),
        "keys": [
            {
                "public_key": key.public_key,
                "since": key.since.isoformat(),
                "until": key.until and key.until.isoformat(),
            }
            for key in webhook.keys
        ],
        "pending": webhook.pending,
        "dead": webhook.dead,
        "last_attempt": None if last is None else _attempt_members(last),
    }


def show(webhook: str, /, *, common: Common = DEFAULT) -> None:
    """Print all that there is to know of a webhook.

    Parameters
    ----------
    webhook
        Its id, as list shows it.
    """
    output = Output(common)
    with client_of(common) as client:
        found = client.webhooks.get(webhook)
        names = _names(client, [found])
        output.item("\n".join(_described(output, found, names)), _members(found, names))


def _described(output: Output, webhook: "Webhook", names: dict[str, Name | None]) -> Iterator[str]:
    state = output.styled(webhook.state, _STYLES.get(webhook.state, "bad"))
    yield f"{webhook.webhook_id}  {state}" + (f": {webhook.reason}" if webhook.reason else "")
    yield f"{printable(webhook.url)} is told of {printable(_scope(webhook, names))}"
    if webhook.description:
        yield printable(webhook.description)
    yield (
        f"{webhook.payload} events since {moment(webhook.created)}, {webhook.pending:,} pending, "
        f"{webhook.dead:,} dead"
    )
    for key in webhook.keys:
        until = "" if key.until is None else f" until {moment(key.until)}"
        words = key.public_key or "a secret key"
        yield f"signed with {words} since {moment(key.since)}{until}"
    if webhook.last_attempt is not None:
        yield f"last attempt {_attempt_text(output, webhook.last_attempt)}"


def delete(webhook: str, /, *, common: Common = DEFAULT) -> None:
    """Tell a URL nothing more; what was pending is dropped.

    Parameters
    ----------
    webhook
        Its id, as list shows it.
    """
    with client_of(common) as client:
        client.webhooks.delete(webhook)
        Output(common).item(f"deleted {webhook}", {"webhook_id": webhook, "deleted": True})


def enable(webhook: str, /, *, common: Common = DEFAULT) -> None:
    """Begin anew with a webhook that is disabled: it is challenged, its failures forgotten.

    Parameters
    ----------
    webhook
        Its id, as list shows it.
    """
    output = Output(common)
    with client_of(common) as client:
        found = client.webhooks.enable(webhook)
        output.item(*_listed(output, found, _names(client, [found])))


def deliveries(
    webhook: str,
    /,
    *,
    state: Annotated[
        Literal["pending", "delivered", "dead"] | None, Parameter(help="Only those.")
    ] = None,
    count: Annotated[
        int | None,
        Parameter(name=["--count", "-n"], help="At most so many.", validator=AT_LEAST_0),
    ] = None,
    common: Common = DEFAULT,
) -> None:
    """List what was sent to a webhook, or is to be; newest first, with every attempt.

    Parameters
    ----------
    webhook
        Its id, as list shows it.
    """
    output = Output(common)
    with client_of(common) as client:
        found = client.webhooks.deliveries(webhook, state=state)
        output.items(_delivery(output, each) for each in islice(found, count))


def _delivery(output: Output, delivery: "Delivery") -> tuple[str, dict[str, Any]]:
    state = output.styled(f"{delivery.state:<9}", _STYLES.get(delivery.state, "bad"))
    about = printable(delivery.type)
    if delivery.to_version is not None:
        about += f"  v{delivery.from_version}..v{delivery.to_version}"
    due = "" if delivery.due is None else f"  due {moment(delivery.due)}"
    attempts = [f"    {_attempt_text(output, attempt)}" for attempt in delivery.attempts]
    head = f"{state}  {moment(delivery.created)}  {about}{due}  {printable(delivery.delivery_id)}"
    members = {
        "delivery_id": delivery.delivery_id,
        "type": delivery.type,
        "log_id": delivery.log_id,
        "from": delivery.from_version,
        "to": delivery.to_version,
        "state": delivery.state,
        "created": delivery.created.isoformat(),
        "due": delivery.due and delivery.due.isoformat(),
        "attempts": [_attempt_members(attempt) for attempt in delivery.attempts],
    }
    return "\n".join([head, *attempts]), members


def _attempt_text(output: Output, attempt: "Attempt") -> str:
    good = attempt.status is not None and attempt.status // 100 == 2
    status = output.styled(str(attempt.status or "---"), "add" if good else "bad")
    said = printable(attempt.error or attempt.answer)
    return f"{moment(attempt.time)}  {status}  {attempt.took_ms:,} ms  {said}".rstrip()


def _attempt_members(attempt: "Attempt") -> dict[str, Any]:
    return {
        "time": attempt.time.isoformat(),
        "status": attempt.status,
        "error": attempt.error,
        "took_ms": attempt.took_ms,
        "answer": attempt.answer,
    }


def replay(
    webhook: str,
    /,
    *,
    since: Annotated[
        str, Parameter(help="What died since then: so long ago (2h, 5d), or a time in ISO 8601.")
    ],
    common: Common = DEFAULT,
) -> None:
    """Send again what was given up after its last attempt.

    Parameters
    ----------
    webhook
        Its id, as list shows it.
    """
    begin = _moment(since)
    with client_of(common) as client:
        count = client.webhooks.replay(webhook, since=begin)
        text = f"{plural(count, 'delivery', 'deliveries')} queued again"
        Output(common).item(text, {"webhook_id": webhook, "replayed": count})


def _moment(text: str) -> datetime:
    if (ago := time_ago(text)) is not None:
        return ago
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise RequestError(
            f"{text!r} is neither an age (as 2h) nor a time (as 2026-01-07T10:00:00Z)"
        ) from None


def rotate_secret(webhook: str, /, *, common: Common = DEFAULT) -> None:
    """Sign with a new key too, and print it; the one before it goes on for 24 hours.

    Give it to the receivers beside the old one meanwhile. Rotating again within that time
    ends the oldest at once.

    Parameters
    ----------
    webhook
        Its id, as list shows it.
    """
    output = Output(common)
    with client_of(common) as client:
        found = client.webhooks.rotate_secret(webhook)
        _tell_key(output, found, _names(client, [found]))


def trigger(webhook: str, /, *, common: Common = DEFAULT) -> None:
    """Send a webhook the event webhook.test, to try it.

    Parameters
    ----------
    webhook
        Its id, as list shows it.
    """
    with client_of(common) as client:
        delivery_id = client.webhooks.trigger(webhook)
        members = {"webhook_id": webhook, "delivery_id": delivery_id}
        Output(common).item(f"queued {delivery_id}", members)

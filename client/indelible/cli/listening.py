"""`indelible webhook listen`: what webhooks would send, sent from here to a program nearby.

Follows the logs by itself: no webhook is made, and nothing need be reachable from elsewhere.
^C is how it ends, and is no failure. What is sent and how is `forwarding`'s.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from indelible_protocol import webhooks
from indelible_protocol.errors import ErrorCode, ProtocolError
from indelible_protocol.webhooks import Key, Kind

from indelible.cli.following import ConnectionNotes, start_of
from indelible.cli.forwarding import Sender
from indelible.cli.options import DEFAULT, Common, flag
from indelible.cli.output import Output
from indelible.cli.sessions import async_client_of, modes_of
from indelible.cli.values import Typed, log_name
from indelible.errors import ConfigError, NotFoundError, RequestError
from indelible.files import write_private

if TYPE_CHECKING:
    from indelible.answers import Diff
    from indelible.client import AsyncClient
    from indelible.log import AsyncLog


def listen(
    *logs: str,
    forward_to: Annotated[str, Parameter(help="URL to post each event to.")],
    group: Annotated[
        str | None, Parameter(help="The logs of this group, those made later too.")
    ] = None,
    key: Annotated[
        tuple[str, ...],
        Parameter(help="Only versions that change this KEY of the log; may be repeated."),
    ] = (),
    since: Annotated[
        str | None, Parameter(help="Begin after this version (v120), or so long ago (10m, 2h).")
    ] = None,
    secret_file: Annotated[
        Path | None,
        Parameter(help="Sign with the key in this file, made if it is not there; else with a new."),
    ] = None,
    once: Annotated[bool, flag("End after one delivery of each log.")] = False,
    common: Common = DEFAULT,
) -> None:
    """Follow logs, and post what their webhooks would send to a program on this machine.

    Begins with a challenge, as the service does, then the current version unless told
    otherwise. Prints a line a delivery: the status answered and how long that took. Signs
    with a new key, which it shows on stderr.

    Parameters
    ----------
    logs
        LOG [LOG ...]; without any, those that there are (of the --group).
    """
    if logs and group is not None:
        raise RequestError("LOG and --group both say what to follow: give one of them")
    if key and len(logs) != 1:
        raise RequestError("--key is one of one log's keys: give one LOG with it")
    _check_url(forward_to)
    output = Output(common)
    if common.quiet and secret_file is None:
        raise RequestError("--quiet shows no key to verify with: give a --secret-file")
    signing_key = _key(secret_file)
    shown = f"the key in {secret_file}" if secret_file else signing_key.spelled()
    with suppress(KeyboardInterrupt):
        asyncio.run(
            _listen(
                _Asked(logs=logs, group=group, keys=key, once=once),
                common,
                partial(start_of, since=since, count=None),
                Sender(forward_to, signing_key, output),
                output,
                note=f"signing with {shown}",
            )
        )


def _check_url(url: str) -> None:
    from yarl import URL

    try:
        parsed = URL(url)
        fits = parsed.scheme in ("http", "https") and bool(parsed.host)
    except ValueError:
        fits = False
    if not fits:
        raise RequestError("--forward-to wants a URL, as http://localhost:3000/hook")


def _key(file: Path | None) -> Key:
    """That of the file; a new one where there is none, which the file keeps."""
    fresh = Key(Kind.SHARED, os.urandom(webhooks.SECRET_BYTES))
    if file is None:
        return fresh
    try:
        with suppress(FileExistsError):
            write_private(file, f"{fresh.spelled()}\n".encode(), overwrite=False)
        key = Key.read(file.read_text().strip())
    except OSError as error:
        raise ConfigError(f"{file} cannot be used: {error.strerror}") from error
    except (ProtocolError, UnicodeDecodeError):
        raise ConfigError(f"{file} does not hold a key that begins with whsec_") from None
    if key.kind is Kind.PUBLIC:
        raise ConfigError(f"{file} holds a public key, which signs nothing")
    return key


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    logs: Sequence[str]
    group: str | None
    keys: Sequence[str]
    once: bool


async def _listen(
    asked: _Asked,
    common: Common,
    start: "Callable[[AsyncLog], Awaitable[int | None]]",
    sender: "Sender",
    output: Output,
    *,
    note: str,
) -> None:
    with ConnectionNotes(output):
        async with async_client_of(common) as client, sender.connected():
            logs = await _logs(client, asked, output)
            wanted = _keys(logs, asked.keys)
            begins = [await _begin(log, start) for log in logs]
            output.note(note)
            await sender.challenge()
            if asked.group is None:
                moves = client.follow_many(dict(zip(logs, begins, strict=True)))
            else:
                after = {log.log_id: begin for log, begin in zip(logs, begins, strict=True)}
                moves = client.follow_group(asked.group, after=after)
            left = {log.log_id for log in logs} if asked.once else None
            async with aclosing(moves):
                await _forward(moves, wanted, sender, left)


async def _begin(log: "AsyncLog", start: "Callable[[AsyncLog], Awaitable[int | None]]") -> int:
    """Settled before the challenge is sent: what comes once it is told is not missed."""
    after = await start(log)
    return await log.version if after is None else after


async def _logs(client: "AsyncClient", asked: _Asked, output: Output) -> "list[AsyncLog]":
    names = [log_name(name) for name in asked.logs]
    if not names:
        found = [each async for each in client.logs(group=asked.group)]
        names = [each.name for each in found if each.kind == "sealed" and each.name is not None]
        if len(names) < len(found):
            output.note(f"-- {len(found) - len(names)} left out: sealed by others, or opaque --")
    if not names:
        raise NotFoundError("there is no log to follow", code=ErrorCode.NONEXISTENT_LOG)
    return [await client.log(name, key_mode=None, value_mode=None) for name in names]


def _keys(logs: "Sequence[AsyncLog]", keys: Sequence[str]) -> list[Any] | None:
    """None for any key."""
    if not keys:
        return None
    mode, typed = modes_of(logs[0])[0], Typed()
    return [typed.value(key, mode, "--key") for key in keys]


async def _forward(
    moves: "AsyncGenerator[tuple[AsyncLog, Diff | None], None]",
    keys: list[Any] | None,
    sender: "Sender",
    left: set[str] | None,
) -> None:
    """One event after another. `left` are the logs that one delivery each is to be made of."""
    async for log, diff in moves:
        if left is not None and log.log_id not in left:
            continue
        if diff is None:
            await sender.deleted(log)
        elif keys is None or any(change.key in keys for change in diff.changes):
            await sender.updated(log, diff)
        else:
            continue
        if left is not None:
            left.remove(log.log_id)
            if not left:
                return

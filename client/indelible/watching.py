"""Following a log: one diff after another, without a gap and without one twice.

Owns the long poll, its reconnections and the position file. The loop keeps one number, the
version it has handed out; everything else can be lost and asked for again.
"""

import asyncio
import json
import logging
import random
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Literal

from indelible_protocol import messages
from indelible_protocol.errors import ErrorCode
from indelible_protocol.ids import LogId

from indelible.answers import Change, Diff
from indelible.codec import Codec, check_version
from indelible.errors import ConfigError, RequestError, UnavailableError
from indelible.files import write_private
from indelible.handle import Handle
from indelible.retry import RECONNECT, Attempts

POLL_SECONDS = 30.0
GOING_AWAY_SECONDS = 3.0
HASTY_SECONDS = 0.1

_log = logging.getLogger("indelible.follow")

_Nothing = Literal["nothing", "closing"]


class Position:
    """A file that remembers how far a log was followed, over the follower's own restarts."""

    def __init__(self, path: str | Path, log_id: LogId) -> None:
        self._path = Path(path)
        self._log_id = log_id.hex()

    def load(self) -> int | None:
        """None if there is no file yet.

        Raises:
            ConfigError: the file is another log's, or no position file at all.
        """
        try:
            text = self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigError(f"{self._path} cannot be read: {error.strerror}") from error
        try:
            members = json.loads(text)
            log_id, version = members["log_id"], members["version"]
            check_version(version, "version")
        except (ValueError, TypeError, KeyError, RequestError) as error:
            raise ConfigError(f"{self._path} is not a position file") from error
        if log_id != self._log_id:
            raise ConfigError(
                f"{self._path} is the position in another log ({log_id}, this one is "
                f"{self._log_id}): a log that was dropped and made again is another one"
            )
        return int(version)

    async def save(self, version: int) -> None:
        text = json.dumps({"log_id": self._log_id, "version": version}) + "\n"
        try:
            await asyncio.to_thread(write_private, self._path, text.encode(), overwrite=True)
        except OSError as error:
            raise ConfigError(f"{self._path} cannot be written: {error.strerror}") from error


async def follow(
    handle: Handle,
    after: int | None,
    *,
    position: str | Path | None = None,
    max_wait_seconds: float | None = None,
) -> AsyncGenerator[Diff, None]:
    """See `AsyncLog.follow`."""
    file = None if position is None else Position(position, handle.membership.log_id)
    version = await _start(handle, after, file)
    poll = _Poll(handle, max_wait_seconds)
    while True:
        diff = await poll.after(version)
        if diff is None:
            return
        yield diff
        # Only now has the consumer come back for more: what it did not finish comes again.
        version = diff.to_version
        if file is not None:
            await file.save(version)


async def _start(handle: Handle, after: int | None, file: Position | None) -> int:
    remembered = None if file is None else file.load()
    if remembered is not None:
        return remembered
    if after is not None:
        return after
    version = (await handle.remote.describe()).version
    if file is not None:
        await file.save(version)
    return version


class _Poll:
    """Asks until there is something; gives up after `max_wait_seconds` without."""

    def __init__(self, handle: Handle, max_wait_seconds: float | None) -> None:
        self._handle = handle
        self._max_wait_seconds = float("inf") if max_wait_seconds is None else max_wait_seconds
        self._interval = 0
        self._hasty = 0  # empty answers in a row that nobody can have waited for

    async def after(self, version: int) -> Diff | None:
        """
        Raises:
            UnavailableError: no answer within `max_wait_seconds`; never, if it is infinite.
        """
        deadline = time.monotonic() + self._max_wait_seconds
        attempts = Attempts(self._max_wait_seconds, RECONNECT)
        while True:
            wait_seconds = max(0.0, min(POLL_SECONDS, deadline - time.monotonic()))
            try:
                found = await self._ask(version, wait_seconds)
            except UnavailableError as error:
                if not attempts.failures:
                    _log.info("connection lost after v%d: %s", version, error)
                await attempts.pause(error)
                continue
            except RequestError as error:
                if error.code is not ErrorCode.BAD_CURSOR:
                    raise
                await attempts.pause(UnavailableError(str(error)))
                continue
            if attempts.failures:
                _log.info("reconnected at v%d", version)
            if isinstance(found, Diff):
                return found
            attempts.succeeded()
            remaining_seconds = deadline - time.monotonic()
            if remaining_seconds <= 0.0:
                return None
            if found == "closing" or self._hasty > 1:
                # Everyone who waited there comes back now: not all at once. And a cache that
                # gives the same empty answer again and again is not asked without a pause.
                await asyncio.sleep(min(remaining_seconds, random.uniform(0.0, GOING_AWAY_SECONDS)))

    async def _ask(self, version: int, wait_seconds: float) -> Diff | _Nothing:
        """The whole diff to the version that is current; or why there is none yet."""
        remote = self._handle.remote
        asked_at = time.monotonic()
        # Who has little time left, or none, wants no answer that waits in a cache.
        interval = self._interval if wait_seconds == POLL_SECONDS else None
        answer = await remote.next_diff(version, wait_seconds=wait_seconds, interval=interval)
        self._interval = max(self._interval, answer.interval or 0)
        first = answer.message
        hasty = first is None and time.monotonic() - asked_at < min(wait_seconds, HASTY_SECONDS)
        self._hasty = self._hasty + 1 if hasty else 0
        if first is None:
            return "closing" if answer.closing else "nothing"
        if first.to_version == version:
            if wait_seconds:
                raise UnavailableError("an answer without waiting, and without a new version")
            return "nothing"
        changes = await self._opened(first)
        async for page in remote.rest_of(first):
            changes += await self._opened(page)
        return Diff(first.from_version, first.to_version, tuple(changes))

    async def _opened(self, page: messages.Diff) -> list[Change]:
        return await self._handle.opened(page.changes, Codec.change)

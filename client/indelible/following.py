"""Following many logs over one connection: those that are named, or all of a group.

One request waits on all of them; the service keeps what is watched, so that the next one tells
only what is new. Keeps one number for each log, the version that was handed out; a log of a
group is opened when it moves for the first time.
"""

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass

from indelible_protocol import limits, messages, paths
from indelible_protocol.errors import ErrorCode
from indelible_protocol.ids import LogId

from indelible.answers import Change, Diff
from indelible.codec import Codec
from indelible.errors import NotFoundError, RequestError, UnavailableError, UnsealError
from indelible.handle import Handle
from indelible.keyring import Identity
from indelible.log import AsyncLog
from indelible.remote import Service
from indelible.retry import RECONNECT, Attempts
from indelible.transport import Answer, Request
from indelible.watching import GOING_AWAY_SECONDS, POLL_SECONDS

_DESCRIBED_AT_ONCE = 32

_log = logging.getLogger("indelible.follow")


@dataclass(slots=True, kw_only=True)
class _Followed:
    """`log` is None until it is opened, from `description`."""

    version: int
    log: AsyncLog | None = None
    description: messages.Description | None = None


Moves = AsyncGenerator[tuple[AsyncLog, Diff | None], None]


async def follow_many(
    service: Service,
    identity: Identity,
    logs: Mapping[AsyncLog, int | None],
    max_wait_seconds: float | None,
) -> Moves:
    """See `AsyncClient.follow_many`."""
    room = asyncio.Semaphore(_DESCRIBED_AT_ONCE)

    async def start_of(log: AsyncLog, after: int | None) -> int:
        async with room:
            return await log.version if after is None else after

    starts = await asyncio.gather(*(start_of(log, after) for log, after in logs.items()))
    following = _Following(service, identity, max_wait_seconds)
    for log, version in zip(logs, starts, strict=True):
        following.add(LogId(bytes.fromhex(log.log_id)), _Followed(version=version, log=log))
    async for move in following.moves():
        yield move


async def follow_group(
    service: Service,
    identity: Identity,
    group: str,
    after: Mapping[str, int],
    from_start: bool,
    max_wait_seconds: float | None,
) -> Moves:
    """See `AsyncClient.follow_group`."""
    following = _Following(service, identity, max_wait_seconds, group=group)
    async for description in following.listed():
        start = 0 if from_start else description.version
        version = after.get(description.log_id.hex(), start)
        following.add(
            LogId(description.log_id), _Followed(version=version, description=description)
        )
    async for move in following.moves():
        yield move


class _Following:
    def __init__(
        self,
        service: Service,
        identity: Identity,
        max_wait_seconds: float | None,
        *,
        group: str | None = None,
    ) -> None:
        self._service = service
        self._identity = identity
        self._max_wait_seconds = float("inf") if max_wait_seconds is None else max_wait_seconds
        self._group = group
        self._group_version = 0
        self._followed: dict[LogId, _Followed] = {}
        self._untold: set[LogId] = set()  # what the kept watch does not know yet
        self._watch: str | None = None

    def add(self, log_id: LogId, followed: _Followed) -> None:
        """
        Raises:
            RequestError: more logs than one request may wait for.
        """
        self._followed[log_id] = followed
        self._untold.add(log_id)
        if len(self._followed) > limits.MAX_WAIT_LOGS:
            raise RequestError(
                f"{len(self._followed)} logs to follow at once, at most {limits.MAX_WAIT_LOGS}"
            )

    async def listed(self) -> AsyncGenerator[messages.Description, None]:
        """The group's logs that this profile may open; notes the listing's version."""
        version = None
        async for listing in self._service.listings(self._group):
            version = listing.version if version is None else version
            for description in listing.logs:
                if description.kind == "sealed":
                    yield description
        self._group_version = version or 0

    async def moves(self) -> Moves:
        deadline = time.monotonic() + self._max_wait_seconds
        while True:
            answer = await self._moved(deadline)
            if answer is None:
                return
            for log_id in answer.gone:
                followed = self._followed.pop(LogId(log_id), None)
                self._untold.discard(LogId(log_id))
                if followed is not None and followed.log is not None:
                    yield followed.log, None
            for moved in answer.moved:
                log_id = LogId(moved.log_id)
                log = await self._opened(log_id)
                if log is None:
                    continue
                diff = await self._diff(log, self._followed[log_id].version, moved)
                if diff is None:
                    continue  # dropped since: the next answer tells
                yield log, diff
                # Only now has the consumer come back: what it did not finish comes again.
                self._followed[log_id].version = diff.to_version
                self._untold.add(log_id)
            if answer.groups:
                await self._take_in_newcomers()
            if answer.moved or answer.gone:
                deadline = time.monotonic() + self._max_wait_seconds

    async def _moved(self, deadline: float) -> messages.Moved | None:
        """The next answer that tells something; None if none came in time.

        Raises:
            UnavailableError: no answer at all in that time; never, if it is infinite.
        """
        attempts = Attempts(deadline - time.monotonic(), RECONNECT)
        while True:
            remaining_seconds = deadline - time.monotonic()
            try:
                answer = await self._ask(max(0.0, min(POLL_SECONDS, remaining_seconds)))
            except UnavailableError as error:
                if not attempts.failures:
                    _log.info("connection lost while following many: %s", error)
                self._watch = None
                await attempts.pause(error)
                continue
            except RequestError as error:
                if error.code is not ErrorCode.BAD_CURSOR or self._watch is None:
                    raise
                self._watch = None
                continue
            attempts.succeeded()
            moved = answer.message
            assert moved is not None
            self._watch = moved.watch
            self._untold.clear()
            if moved.moved or moved.gone or moved.groups:
                return moved
            if time.monotonic() >= deadline:
                return None
            if answer.closing:
                # Everyone who waited there comes back now: not all at once.
                await asyncio.sleep(random.uniform(0.0, GOING_AWAY_SECONDS))

    async def _ask(self, wait_seconds: float) -> Answer[messages.Moved]:
        told = self._followed.keys() if self._watch is None else self._untold
        logs = [
            messages.Watched(log_id=each, version=self._followed[each].version) for each in told
        ]
        groups = []
        if self._group is not None:
            groups = [messages.WatchedGroup(group=self._group, version=self._group_version)]
        body = messages.Wait(
            logs=logs, groups=groups, wait=wait_seconds, watch=self._watch, keep=True, diffs=True
        )
        request = Request(
            method="POST",
            path=paths.WAIT,
            answer=messages.Moved,
            body=body,
            wait_seconds=wait_seconds,
        )
        return await self._service.transport.send(request, float("inf"))

    async def _opened(self, log_id: LogId) -> AsyncLog | None:
        """None for a log that another master key sealed: it is not followed any more."""
        followed = self._followed[log_id]
        description = followed.description
        if followed.log is None and description is not None:
            try:
                name = self._identity.open_name(description.name, description.name_ct)
                opened = await self._service.opened(description.name)
                if opened.description.log_id == log_id:
                    handle = Handle(self._service, self._identity, name, opened)
                    followed.log = AsyncLog(handle)
            except (UnsealError, NotFoundError) as error:
                _log.info("log %s is not followed: %s", log_id.hex(), error)
            if followed.log is None:
                del self._followed[log_id]
                self._watch = None
        return followed.log

    async def _diff(self, log: AsyncLog, version: int, moved: messages.MovedLog) -> Diff | None:
        handle = log._handle
        try:
            if moved.diff is None:
                pages = [page async for page in handle.remote.diff(version, None)]
            else:
                first = handle.remote.checked(moved.diff, version)
                pages = [first, *[page async for page in handle.remote.rest_of(first)]]
        except NotFoundError:
            return None
        changes: list[Change] = []
        for page in pages:
            changes += await handle.opened(page.changes, Codec.change)
        return Diff(version, pages[0].to_version, tuple(changes))

    async def _take_in_newcomers(self) -> None:
        async for description in self.listed():
            log_id = LogId(description.log_id)
            if log_id not in self._followed:
                self.add(log_id, _Followed(version=0, description=description))

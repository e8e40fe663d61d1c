"""Wakes local long polls. Owns one subscribed connection per process; knows no HTTP.

Hints are never truth. A waiter registers, makes sure that the log's channel is subscribed,
reads the head, and only then sleeps; all waited-on heads are read again every few seconds and
whenever the subscription comes back, so a lost hint costs time and never an answer.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

import structlog
from indelible_protocol.ids import LogId
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

from indelible_server.store import keys
from indelible_server.store.errors import Refusal
from indelible_server.store.reading import Head

Outcome = Literal["moved", "timeout", "draining"]
ReadHeads = Callable[[Sequence[LogId]], Awaitable[list[Head | None]]]

_log = structlog.get_logger(__name__)
_BEYOND_ALL = 2**64
_HEADS_AT_ONCE = 500
_SUBSCRIBE_SECONDS = 1.0
_BACKOFF_SECONDS = (0.05, 2.0)
_SILENT_RECHECKS = 3


class _Waiter:
    """One long poll: the versions it knows, and the future it sleeps on."""

    __slots__ = ("future", "since")

    def __init__(self, since: Mapping[LogId, int]) -> None:
        self.since = since
        self.future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    def wake(self, outcome: Outcome) -> None:
        if not self.future.done():
            self.future.set_result(outcome)


class _Channel:
    """A log's hints in this process: who waits, and whether the store sends them."""

    __slots__ = ("idle_rounds", "subscribed", "waiters")

    def __init__(self) -> None:
        self.waiters: set[_Waiter] = set()
        self.subscribed = asyncio.Event()
        self.idle_rounds = 0


class Wakeups:
    """Start `run` once; `wait` may be called any number of times at once."""

    def __init__(self, subscriber: Redis, read_heads: ReadHeads, *, recheck_seconds: float) -> None:
        self._subscriber = subscriber
        self._read_heads = read_heads
        self._recheck_seconds = recheck_seconds
        self._channels: dict[LogId, _Channel] = {}
        self._names: dict[bytes, LogId] = {}
        self._connection: AbstractConnection | None = None
        self._recheck_now = asyncio.Event()
        self._draining = False
        self._unanswered_pings = 0
        self.waiter_count = 0
        self.missed_hints = 0

    async def wait(self, since: Mapping[LogId, int], seconds: float) -> Outcome:
        """Sleeps until one of the logs is beyond its version, or gone, or `seconds` pass.

        Raises:
            Refusal: the store cannot be asked whether a log has moved already.
        """
        with self._registered(since) as waiter:
            if self._draining:
                return "draining"
            await self._ensure_subscribed(since)
            await self._recheck(list(since))
            if not waiter.future.done():
                alarm = asyncio.get_running_loop().call_later(seconds, waiter.wake, "timeout")
                try:
                    return await waiter.future
                finally:
                    alarm.cancel()
            return waiter.future.result()

    def hint(self, log_id: LogId, version: int) -> int:
        """Wakes those whose known version is below `version`; how many."""
        channel = self._channels.get(log_id)
        if channel is None:
            return 0
        woken = [w for w in channel.waiters if w.since[log_id] < version and not w.future.done()]
        for waiter in woken:
            waiter.wake("moved")
        return len(woken)

    def drain(self) -> None:
        """Answers every waiter now, and every later one at once. Needs no store."""
        self._draining = True
        for channel in list(self._channels.values()):
            for waiter in list(channel.waiters):
                waiter.wake("draining")

    async def run(self, stop: asyncio.Event) -> None:
        """Listens and rechecks until `stop` is set."""
        async with asyncio.TaskGroup() as tasks:
            listening = tasks.create_task(self._listen())
            rechecking = tasks.create_task(self._keep_rechecking())
            await stop.wait()
            listening.cancel()
            rechecking.cancel()

    @contextmanager
    def _registered(self, since: Mapping[LogId, int]) -> Iterator[_Waiter]:
        waiter = _Waiter(since)
        for log_id in since:
            channel = self._channels.get(log_id)
            if channel is None:
                channel = self._channels[log_id] = _Channel()
                self._names[keys.of_log(log_id).channel.encode()] = log_id
            channel.waiters.add(waiter)
        self.waiter_count += 1
        try:
            yield waiter
        finally:
            self.waiter_count -= 1
            for log_id in since:
                self._channels[log_id].waiters.discard(waiter)

    async def _ensure_subscribed(self, since: Mapping[LogId, int]) -> None:
        """Asks for hints that are not subscribed yet and waits until the store confirms.

        Without a confirmation in time the waiter sleeps all the same: rechecks wake it.
        """
        pending = [log_id for log_id in since if not self._channels[log_id].subscribed.is_set()]
        if not pending or self._connection is None:
            return
        try:
            async with asyncio.timeout(_SUBSCRIBE_SECONDS):
                await self._subscribe(self._connection, pending)
                for log_id in pending:
                    await self._channels[log_id].subscribed.wait()
        except (TimeoutError, RedisError, OSError):
            _log.warning("wakeups.subscription_unconfirmed", logs=len(pending))

    async def _subscribe(self, connection: AbstractConnection, logs: Sequence[LogId]) -> None:
        # One command each: in a cluster their slots differ.
        for log_id in logs:
            await connection.send_command("SSUBSCRIBE", keys.of_log(log_id).channel)

    async def _listen(self) -> None:
        attempt = 0
        while True:
            connection = self._subscriber.connection_pool.make_connection()
            try:
                await connection.connect()
                attempt = 0
                self._unanswered_pings = 0
                self._connection = connection
                await self._subscribe(connection, list(self._channels))
                self._recheck_now.set()
                while True:
                    self._receive(await connection.read_response())
            except (RedisError, OSError) as error:
                _log.warning("wakeups.disconnected", reason=type(error).__name__)
            finally:
                self._connection = None
                for channel in self._channels.values():
                    channel.subscribed.clear()
                await connection.disconnect(nowait=True)
            low, high = _BACKOFF_SECONDS
            await asyncio.sleep(random.uniform(low, min(high, low * 2**attempt * 2)))
            attempt += 1

    def _receive(self, message: object) -> None:
        self._unanswered_pings = 0
        if not isinstance(message, list) or len(message) < 3:
            return
        word, name, data = message[:3]
        log_id = self._names.get(name)
        if log_id is None:
            return
        if word == b"ssubscribe":
            self._channels[log_id].subscribed.set()
        elif word == b"smessage":
            self.hint(log_id, int(data) if data.isdigit() else _BEYOND_ALL)

    async def _keep_rechecking(self) -> None:
        while True:
            pause = self._recheck_seconds * random.uniform(0.75, 1.25)
            try:
                async with asyncio.timeout(pause):
                    await self._recheck_now.wait()
            except TimeoutError:
                await self._ping()
            self._recheck_now.clear()
            await self._let_go_of_idle_channels()
            waited_on = [log_id for log_id, channel in self._channels.items() if channel.waiters]
            try:
                self.missed_hints += await self._recheck(waited_on)
            except Refusal as refusal:
                _log.warning("wakeups.recheck_failed", reason=refusal.message)

    async def _recheck(self, logs: Sequence[LogId]) -> int:
        """Reads heads and wakes whoever is behind; how many were."""
        woken = 0
        for at in range(0, len(logs), _HEADS_AT_ONCE):
            some = logs[at : at + _HEADS_AT_ONCE]
            for log_id, head in zip(some, await self._read_heads(some), strict=True):
                woken += self.hint(log_id, _BEYOND_ALL if head is None else head.version)
        return woken

    async def _ping(self) -> None:
        """Finds a connection that is open but dead; silence for several rounds ends it."""
        connection = self._connection
        if connection is None:
            return
        if self._unanswered_pings >= _SILENT_RECHECKS:
            _log.warning("wakeups.silent", rounds=self._unanswered_pings)
            await connection.disconnect(nowait=True)
            return
        self._unanswered_pings += 1
        try:
            await connection.send_command("PING", check_health=False)
        except (RedisError, OSError):
            await connection.disconnect(nowait=True)

    async def _let_go_of_idle_channels(self) -> None:
        """Unsubscribes logs that nobody has waited on for a whole round.

        A follower asks again at once after each answer: keeping its channel for a while
        saves it a subscription per version.
        """
        for log_id, channel in list(self._channels.items()):
            channel.idle_rounds = 0 if channel.waiters else channel.idle_rounds + 1
            if channel.idle_rounds < 2:
                continue
            name = keys.of_log(log_id).channel
            del self._channels[log_id]
            self._names.pop(name.encode(), None)
            if self._connection is not None and channel.subscribed.is_set():
                try:
                    await self._connection.send_command("SUNSUBSCRIBE", name)
                except (RedisError, OSError):
                    return

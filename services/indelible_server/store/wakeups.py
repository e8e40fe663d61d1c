"""Wakes local long polls. Owns one subscribed connection per process; knows no HTTP.

What can be waited for has a version: a log, and the listing of a group. A hint says that there
is a version, and may bring what it did (its news, which others read); that none came says nothing.
A waiter registers, makes sure that the channel is subscribed, reads the version, and only then
sleeps; all waited-on versions are read again every few seconds and whenever the subscription
comes back, so a lost hint costs time and never an answer. Where hints have not come in all the
time since the last read, or that read failed, or the connection is silent, it takes another to say
that nothing has moved.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence, Set
from typing import NamedTuple

import structlog
from indelible_protocol.ids import LogId
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

from indelible_server.store import keys
from indelible_server.store.connection import end_tasks
from indelible_server.store.deadlines import Deadlines
from indelible_server.store.errors import Refusal, StoreUnavailable
from indelible_server.store.names import Group
from indelible_server.store.pulse import Pulse
from indelible_server.store.waiters import UNTOLD, Outcome, Waiter, Watch, Watched

ReadVersions = Callable[[Sequence[Watched]], Awaitable[list[int | None]]]
# Takes over those of a log who have fallen behind, one set for each version and question; with the
# version that they are told of and its news, which may be empty.
AnswerTogether = Callable[[LogId, Sequence[set[Waiter]], int, bytes], None]

_log = structlog.get_logger(__name__)
_BEYOND_ALL = 2**64
_SUBSCRIBE_SECONDS = 1.0
_BACKOFF_SECONDS = (0.05, 2.0)
_SILENT_RECHECKS = 3
_ON_ITS_WAY_SECONDS = 0.02


class _Channel:
    """The hints for one log or group in this process: who waits, and whether they are sent.

    `listening` is another object each time that the store has confirmed to send them, and
    `latest` the highest version that they told of since.
    """

    __slots__ = (
        *("crowds", "idle_rounds", "is_asked_for", "latest"),
        *("listening", "subscribed", "watches"),
    )

    def __init__(self) -> None:
        self.watches: set[Watch] = set()
        self.crowds: dict[tuple[int, Hashable], set[Waiter]] = {}
        self.is_asked_for = False  # of the store, on the connection that is open
        self.subscribed = asyncio.Event()
        self.listening: object | None = None
        self.latest = 0
        self.idle_rounds = 0

    @property
    def is_waited_on(self) -> bool:
        return bool(self.watches or self.crowds)

    def begin(self) -> None:
        self.listening, self.latest = object(), 0
        self.subscribed.set()

    def end(self) -> None:
        """Whatever the store sends from now on is lost: it may even be another store."""
        self.listening, self.latest = None, 0
        self.is_asked_for = False
        self.subscribed.clear()


class _Recheck(NamedTuple):
    """How many were behind, and whether some versions could not be read."""

    woken: int
    untold: bool


class Wakeups:
    """Start `run` once; any number may wait at once, each for one log or with a watch."""

    def __init__(
        self,
        subscriber: Redis,
        read_versions: ReadVersions,
        *,
        recheck_seconds: float,
        answer_together: AnswerTogether | None = None,
        has_news: bool = False,
    ) -> None:
        """`has_news`: the store's hints bring what `answer_together` would have to read."""
        self._subscriber = subscriber
        self._read_versions = read_versions
        self._recheck_seconds = recheck_seconds
        self._answer_together = answer_together
        self._has_news = has_news
        self._deadlines = Deadlines()
        self._channels: dict[Watched, _Channel] = {}
        self._names: dict[bytes, Watched] = {}
        self._connection: AbstractConnection | None = None
        self._interrupted: set[Watched] = set()
        self._unsure: set[Watched] = set()  # may have moved since they were read last
        self._recheck_now = asyncio.Event()
        self._draining = False
        self._unanswered_pings = 0
        self._pulse = Pulse(lambda: self._connection)
        self.waiter_count = 0
        self.missed_hints = 0

    def listening(self, log_id: LogId) -> object | None:
        """A token, if the log's hints come in: who reads the version after this call, and brings
        the token to `enter`, needs no second read."""
        channel = self._channels.get(log_id)
        return None if channel is None else channel.listening

    async def enter(self, waiter: Waiter, seconds: float, listening: object | None = None) -> None:
        """Returns when no version can pass unnoticed any more: then `waiter.outcome` tells.

        Who has entered, though it raised, has to `leave`.

        Raises:
            Refusal: the store cannot be asked whether the log has moved already.
        """
        self.waiter_count += 1
        self._deadlines.add(waiter, seconds)
        channel = self._channel(waiter.log_id)
        channel.crowds.setdefault((waiter.version, waiter.question), set()).add(waiter)
        if self._draining:
            waiter.wake("draining")
        elif listening is not None and channel.listening is listening:
            if channel.latest > waiter.version:  # told of since the token was given
                waiter.wake("moved")
        else:
            await self._ensure_subscribed([waiter.log_id])
            if (await self._recheck([waiter.log_id])).untold:
                raise _untold()

    def leave(self, waiter: Waiter) -> None:
        waiter.outcome.cancel()  # whoever is about to tell it something finds it gone
        self.waiter_count -= 1
        self._deadlines.discard(waiter)
        channel = self._channels.get(waiter.log_id)
        key = waiter.version, waiter.question
        if channel is not None and key in channel.crowds:  # else it fell behind
            channel.crowds[key].discard(waiter)
            if not channel.crowds[key]:
                del channel.crowds[key]

    async def sleep(
        self, watch: Watch, seconds: float, *, also: Mapping[LogId, int] | Mapping[Watched, int]
    ) -> Outcome:
        """Until something is beyond the version known of it, or gone, or `seconds` pass.

        Watches `also` from now on, beside what the watch has; until it is released.

        Raises:
            Refusal: the store cannot be asked whether something has moved already.
        """
        watch.sleeping = asyncio.get_running_loop().create_future()
        self._deadlines.add(watch, seconds)
        self.waiter_count += 1
        try:
            for watched, version in also.items():
                self._channel(watched).watches.add(watch)
                watch.known[watched] = version
            if self._draining:
                return "draining"
            await self._ensure_subscribed(also)
            untold = (await self._recheck(list(also))).untold
            if watch.behind:
                return "moved"
            doubtful: Set[Watched] = watch.known.keys() - also.keys()
            if seconds > 0:
                outcome = await watch.sleeping
                if outcome != "timeout":
                    return outcome
                untold, doubtful = False, watch.known.keys()
            untold |= await self._read_unsure(doubtful)
            if watch.behind:
                return "moved"
            if untold:
                raise _untold()
            return "timeout"
        finally:
            self.waiter_count -= 1
            self._deadlines.discard(watch)
            watch.sleeping = None

    async def is_sure(self, log_id: LogId) -> bool:
        """Whether those who wait for the log would know if it had moved a second ago.

        Whose wait is over, and finds that not so, has to read it before saying that it has not.
        """
        is_felt = await self._pulse.is_felt()
        return is_felt and log_id in self._channels and log_id not in self._unsure

    async def _read_unsure(self, watched: Set[Watched]) -> bool:
        """Wakes who is behind by those of them that may have moved; whether some stay untold.

        Raises:
            StoreUnavailable: none can be read.
        """
        if not watched:
            return False
        if await self._pulse.is_felt():
            watched = watched & self._unsure
        return bool(watched) and (await self._recheck(list(watched))).untold

    def forget(self, watch: Watch, watched: Watched) -> None:
        """Watches one less."""
        watch.known.pop(watched, None)
        watch.behind.pop(watched, None)
        if watched in self._channels:
            self._channels[watched].watches.discard(watch)

    def release(self, watch: Watch) -> None:
        for watched in list(watch.known):
            self.forget(watch, watched)

    def committed(self, log_id: LogId, version: int) -> None:
        """This process has committed it. As `hint`, but where the store's own hint is on its way
        and brings news, those who are answered together wait for it."""
        channel = self._channels.get(log_id)
        if channel is None:
            return
        listening = channel.listening
        if not self._has_news or not channel.crowds or listening is None:
            self.hint(log_id, version)
            return

        def late() -> None:
            if channel.listening is listening:
                self.hint(log_id, version)

        channel.latest = max(channel.latest, version)
        self._move_watches(log_id, channel, version)
        asyncio.get_running_loop().call_later(_ON_ITS_WAY_SECONDS, late)

    def hint(self, watched: Watched, version: int, news: bytes = b"") -> int:
        """Wakes those whose known version is below `version`; how many."""
        channel = self._channels.get(watched)
        if channel is None:
            return 0
        channel.latest = max(channel.latest, version)
        woken = self._move_watches(watched, channel, version)
        if channel.crowds and not isinstance(watched, Group):
            woken += self._move_crowds(watched, channel, version, news)
        return woken

    @staticmethod
    def _move_watches(watched: Watched, channel: _Channel, version: int) -> int:
        woken = 0
        for watch in channel.watches:
            if watch.known[watched] < version:
                woken += watched not in watch.behind
                watch.move(watched, version)
        return woken

    def _move_crowds(self, log_id: LogId, channel: _Channel, version: int, news: bytes) -> int:
        together, count = [], 0
        for known, question in [key for key in channel.crowds if key[0] < version]:
            crowd = channel.crowds.pop((known, question))
            count += len(crowd)
            if question is not None and self._answer_together is not None:
                together.append(crowd)
                continue
            for waiter in crowd:
                waiter.wake("moved")
        if together and self._answer_together is not None:
            self._answer_together(log_id, together, version, news)
        return count

    def drain(self) -> None:
        """Answers every waiter now, and every later one at once. Needs no store."""
        self._draining = True
        for sleeper in self._deadlines:
            sleeper.wake("draining")

    def overdue_seconds(self) -> float:
        """By how much the longest wait is beyond its deadline; 0 if none is."""
        return self._deadlines.overdue_seconds()

    async def run(self, stop: asyncio.Event) -> None:
        """Listens and rechecks until `stop` is set."""
        async with asyncio.TaskGroup() as tasks:
            listening = tasks.create_task(self._listen())
            rechecking = tasks.create_task(self._keep_rechecking())
            await stop.wait()
            await end_tasks(listening, rechecking)

    def _channel(self, watched: Watched) -> _Channel:
        channel = self._channels.get(watched)
        if channel is None:
            channel = self._channels[watched] = _Channel()
            self._names[_channel_name(watched).encode()] = watched
            self._unsure.add(watched)
        return channel

    async def _ensure_subscribed(self, wanted: Iterable[Watched]) -> None:
        """Asks for hints that are not subscribed yet and waits until the store confirms.

        Without a confirmation in time the waiter sleeps all the same: rechecks wake it.
        """
        pending = [each for each in wanted if not self._channels[each].subscribed.is_set()]
        if not pending or self._connection is None:
            return
        try:
            async with asyncio.timeout(_SUBSCRIBE_SECONDS):
                unasked = [each for each in pending if not self._channels[each].is_asked_for]
                await self._subscribe(self._connection, unasked)
                for watched in pending:
                    await self._channels[watched].subscribed.wait()
        except (TimeoutError, RedisError, OSError):
            _log.warning("wakeups.subscription_unconfirmed", channels=len(pending))

    async def _subscribe(self, connection: AbstractConnection, wanted: Sequence[Watched]) -> None:
        # One command each: in a cluster their slots differ.
        for watched in wanted:
            self._channels[watched].is_asked_for = True
            await connection.send_command("SSUBSCRIBE", _channel_name(watched))

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
                    channel.end()
                self._unsure.update(self._channels)
                self._pulse.stop()
                await connection.disconnect(nowait=True)
            low, high = _BACKOFF_SECONDS
            await asyncio.sleep(random.uniform(low, min(high, low * 2**attempt * 2)))
            attempt += 1

    def _receive(self, message: object) -> None:
        self._unanswered_pings = 0
        if isinstance(message, list) and message[0] == b"pong":
            self._pulse.take(message[1])
        if not isinstance(message, list) or len(message) < 3:
            return
        word, name, data = message[:3]
        watched = self._names.get(name)
        if watched is None:
            return
        if word == b"ssubscribe":
            self._channels[watched].begin()
            if watched in self._interrupted:  # what was told in between is lost
                self._interrupted.discard(watched)
                self._recheck_now.set()
        elif word == b"sunsubscribe":  # its slot has moved: a cluster's subscription follows it
            self._channels[watched].end()
            self._unsure.add(watched)
            self._interrupted.add(watched)
        elif word == b"smessage":
            digits, _, news = data.partition(b" ")
            self.hint(watched, int(digits) if digits.isdigit() else _BEYOND_ALL, news)

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
            waited_on = [each for each, channel in self._channels.items() if channel.is_waited_on]
            try:
                self.missed_hints += (await self._recheck(waited_on)).woken
            except Refusal as refusal:
                _log.warning("wakeups.recheck_failed", reason=refusal.message)

    async def _recheck(self, watched: Sequence[Watched]) -> "_Recheck":
        """Reads versions and wakes whoever is behind.

        Raises:
            StoreUnavailable: none can be read.
        """
        listening = [self._channels[each].listening for each in watched]
        try:
            versions = await self._read_versions(watched)
        except Refusal:
            self._unsure.update(self._channels.keys() & watched)
            raise
        woken, untold = 0, False
        for each, token, version in zip(watched, listening, versions, strict=True):
            channel = self._channels.get(each)
            if channel is None:
                continue  # let go of in the meantime
            if version == UNTOLD:
                self._unsure.add(each)
                untold = True
                continue
            if token is not None and channel.listening is token:  # hints came in all the time
                self._unsure.discard(each)
            woken += self.hint(each, _BEYOND_ALL if version is None else version)
        return _Recheck(woken, untold)

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
        """Unsubscribes what nobody has waited on for a whole round.

        A follower asks again at once after each answer: keeping its channel for a while
        saves it a subscription per version.
        """
        for watched, channel in list(self._channels.items()):
            channel.idle_rounds = 0 if channel.is_waited_on else channel.idle_rounds + 1
            if channel.idle_rounds < 2:
                continue
            name = _channel_name(watched)
            del self._channels[watched]
            self._names.pop(name.encode(), None)
            self._interrupted.discard(watched)
            self._unsure.discard(watched)
            if self._connection is not None and channel.subscribed.is_set():
                try:
                    await self._connection.send_command("SUNSUBSCRIBE", name)
                except (RedisError, OSError):
                    return


def _channel_name(watched: Watched) -> str:
    if isinstance(watched, Group):
        return keys.group(watched.tenant, watched.database, watched.name).channel
    return keys.of_log(watched).channel


def _untold() -> StoreUnavailable:
    return StoreUnavailable("of some logs it is not known whether they have moved")

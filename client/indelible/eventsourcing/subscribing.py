"""Subscriptions: the notifications of a log as they come.

What is there is read page by page; behind the last, the service is asked to wait, and answers
with what is new. Needs no thread of its own: whoever iterates waits. Knows nothing of
recorders.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import aclosing

from eventsourcing.persistence import ApplicationRecorder, Notification, Subscription

from indelible.answers import Diff
from indelible.blocking import Log
from indelible.eventsourcing.failures import translated
from indelible.eventsourcing.reading import Place, head_of, place_before, read, read_changes
from indelible.log import AsyncLog
from indelible.portal import call, finish


class IndelibleSubscription(Subscription[ApplicationRecorder]):
    """Made by a recorder's `subscribe`. `stop` may come from any thread, and ends a wait."""

    def __init__(
        self,
        recorder: ApplicationRecorder,
        log: Log,
        gt: int | None = None,
        topics: Sequence[str] = (),
    ) -> None:
        super().__init__(recorder=recorder, gt=gt, topics=topics)
        self._log = log
        self._watch = _Watch(log._log)
        self._notifications = self._after(max(0, gt or 0))

    def stop(self) -> None:
        super().stop()
        finish(self._watch.stop)

    def __next__(self) -> Notification:
        with translated():
            for notification in self._notifications:
                if self._has_been_stopped:
                    break
                if not self._topics or notification.topic in self._topics:
                    self._last_notification_id = notification.id
                    return notification
        raise StopIteration

    def _after(self, gt: int) -> Iterator[Notification]:
        """Ends when the subscription is stopped, which may be in the middle of a wait."""
        head = head_of(self._log)
        place = place_before(self._log, gt + 1, head)
        while not self._has_been_stopped:
            for found in read(self._log, place, head):
                if found.notification.id > gt:
                    yield found.notification
            place = Place(head.id, max(place.version, head.version))
            diff = self._watch.next_diff(place.version)
            if diff is None:
                return
            last_id = place.id
            for found in read_changes(diff.changes, place):
                last_id = found.notification.id
                if last_id > gt:
                    yield found.notification
            place = Place(last_id, diff.to_version)
            # While these were worked on, more may have come than one answer should hold.
            head = head_of(self._log)


class _Watch:
    """Waits for the next diff, in the background, where it can be told to stop."""

    def __init__(self, log: AsyncLog) -> None:
        self._log = log
        self._stopped = asyncio.Event()
        self._waiting: asyncio.Task[Diff | None] | None = None

    def next_diff(self, version: int) -> Diff | None:
        """What comes after `version`, as soon as it does; None once this was stopped."""
        return call(self._next_diff, version)

    async def _next_diff(self, version: int) -> Diff | None:
        if self._stopped.is_set():
            return None
        self._waiting = asyncio.current_task()
        try:
            async with aclosing(self._log.follow(version)) as diffs:
                return await anext(diffs)
        except asyncio.CancelledError:
            if not self._stopped.is_set():  # the program was interrupted
                raise
            return None
        finally:
            self._waiting = None

    async def stop(self) -> None:
        self._stopped.set()
        if self._waiting is not None:
            self._waiting.cancel()

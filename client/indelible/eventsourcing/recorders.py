"""The recorders: what an application, a view or a process keeps, each in one log.

Every change is one transaction of the log, so that what it checked still holds when it
enters: versions are unique, notification ids rise by one, and events stand or fall with the
tracking of what they follow from. How entries are spelled is `entries`' to say, how
notifications are found `reading`'s.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import islice
from threading import Event
from typing import Any, TypeVar
from uuid import UUID

from eventsourcing.persistence import (
    AggregateRecorder,
    ApplicationRecorder,
    IntegrityError,
    InternalError,
    Notification,
    ProcessRecorder,
    Recorder,
    StoredEvent,
    Tracking,
    TrackingRecorder,
    WaitInterruptedError,
)

from indelible.blocking import Log, Transaction
from indelible.eventsourcing import entries
from indelible.eventsourcing.failures import translated
from indelible.eventsourcing.reading import MAX_VERSIONS, Place, head_of, place_before, read
from indelible.eventsourcing.subscribing import IndelibleSubscription

R = TypeVar("R")

_KEPT_PLACES = 1_000
_INTERRUPT_SECONDS = 0.1  # how late `wait` may notice its interrupt


class IndelibleRecorder(Recorder):
    """What all of them are: a log, and transactions on it."""

    def __init__(self, log: Log) -> None:
        self.log = log

    def transact(self, decide: Callable[[Transaction], R]) -> R:
        """What `decide` returns, once what it wrote is in the log; see `Log.transact`.

        Raises:
            PersistenceError: as `failures.translated` says.
        """
        with translated():
            return self.log.transact(decide).value


class IndelibleAggregateRecorder(IndelibleRecorder, AggregateRecorder):
    def insert_events(
        self, stored_events: Sequence[StoredEvent], **kwargs: Any
    ) -> Sequence[int] | None:
        self._insert_events(stored_events, **kwargs)
        return None

    def _insert_events(self, stored_events: Sequence[StoredEvent], **_: Any) -> Sequence[int]:
        """
        Raises:
            IntegrityError: an event of its originator and version is there already.
        """
        if not stored_events:
            return []
        return self.transact(lambda transaction: _add(transaction, stored_events))

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        with translated():
            runs = entries.runs_of(self.log.get(entries.versions_key(originator_id)))
            selected = entries.selected(runs, gt=gt, lte=lte, desc=desc)
            versions = list(islice(selected, limit))
            keys = [entries.event_key(originator_id, version) for version in versions]
            values = self.log.get_many(keys)
        if len(values) != len(keys):
            raise InternalError(f"events of {originator_id} are missing that should be there")
        return [
            entries.stored_event(originator_id, version, values[key])
            for version, key in zip(versions, keys, strict=True)
        ]


class IndelibleApplicationRecorder(IndelibleAggregateRecorder, ApplicationRecorder):
    def __init__(self, log: Log) -> None:
        super().__init__(log)
        # Where those who read on from a notification begin.
        self._places: dict[int, Place] = {}

    def insert_events(
        self, stored_events: Sequence[StoredEvent], **kwargs: Any
    ) -> Sequence[int] | None:
        return self._insert_events(stored_events, **kwargs)

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        first = 1 if start is None else max(1, start if inclusive_of_start else start + 1)
        with translated():
            head = head_of(self.log)
            last = head.id if stop is None else min(stop, head.id)
            if first > last or limit < 1:
                return []
            after = self._places.get(first - 1) or place_before(self.log, first, head)
            # Every event needs a version at most, so a short answer needs no long fold.
            needed = MAX_VERSIONS if topics else min(limit, last - first + 1) + first - after.id
            max_versions = min(MAX_VERSIONS, needed)
            selected: list[Notification] = []
            with closing(read(self.log, after, head, max_versions=max_versions)) as found:
                for notification, place in found:
                    if notification.id >= first and (not topics or notification.topic in topics):
                        selected.append(notification)
                    if len(selected) == limit or notification.id == last:
                        self._keep(head if notification.id == head.id else place)
                        break
        return selected

    def _keep(self, place: Place) -> None:
        if len(self._places) >= _KEPT_PLACES:
            self._places.clear()
        self._places[place.id] = place

    def max_notification_id(self) -> int | None:
        with translated():
            return head_of(self.log).id or None

    def subscribe(self, gt: int | None = None, topics: Sequence[str] = ()) -> IndelibleSubscription:
        return IndelibleSubscription(self, self.log, gt=gt, topics=topics)


class IndelibleTrackingRecorder(IndelibleRecorder, TrackingRecorder):
    """Subclass it to keep a view beside its tracking, both in one commit.

    The view's keys are what you like but lists (those are this library's), its values too;
    whatever msgpack holds. Call `track` within the `transact` that writes them.
    """

    def track(self, transaction: Transaction, tracking: Tracking) -> None:
        """Records how far its application was processed, if the transaction commits.

        Raises:
            IntegrityError: that notification was processed, or a later one.
        """
        key = entries.tracking_key(tracking.application_name)
        processed = transaction.get(key)
        if processed is not None and processed >= tracking.notification_id:
            raise IntegrityError(
                f"notification {tracking.notification_id} of {tracking.application_name!r} was "
                f"processed: its tracking is at {processed}"
            )
        transaction.set(key, tracking.notification_id)

    def insert_tracking(self, tracking: Tracking) -> None:
        self.transact(lambda transaction: self.track(transaction, tracking))

    def max_tracking_id(self, application_name: str) -> int | None:
        with translated():
            found: int | None = self.log.get(entries.tracking_key(application_name))
        return found

    def wait(
        self,
        application_name: str,
        notification_id: int | None,
        timeout: float = 1.0,
        interrupt: Event | None = None,
    ) -> None:
        """As the library's, but woken by the log instead of asking again and again."""
        deadline = time.monotonic() + timeout
        while True:
            with translated():
                version = self.log.version  # before it is looked up: nothing comes between
            if self.has_tracking_id(application_name, notification_id):
                return
            if interrupt is not None and interrupt.is_set():
                raise WaitInterruptedError
            remaining_seconds = deadline - time.monotonic()
            if remaining_seconds <= 0.0:
                raise TimeoutError(
                    f"notification {notification_id} of {application_name!r} was not processed "
                    f"within {timeout} s"
                )
            if interrupt is not None:
                remaining_seconds = min(remaining_seconds, _INTERRUPT_SECONDS)
            with (
                translated(),
                closing(self.log.follow(version, max_wait_seconds=remaining_seconds)) as diffs,
            ):
                next(diffs, None)


class IndelibleProcessRecorder(
    IndelibleTrackingRecorder, IndelibleApplicationRecorder, ProcessRecorder
):
    def _insert_events(
        self,
        stored_events: Sequence[StoredEvent],
        *,
        tracking: Tracking | None = None,
        **_: Any,
    ) -> Sequence[int]:
        """
        Raises:
            IntegrityError: as without `tracking`; or what it names was processed.
        """
        if tracking is None:
            return super()._insert_events(stored_events)

        def decide(transaction: Transaction) -> Sequence[int]:
            followed = entries.tracking_key(tracking.application_name)
            transaction.get_many([followed, *_decisive(stored_events)])  # in one request
            self.track(transaction, tracking)
            return _add(transaction, stored_events)

        return self.transact(decide)


def _add(transaction: Transaction, events: Sequence[StoredEvent]) -> Sequence[int]:
    """The notification ids of `events`, which are there if the transaction commits.

    Raises:
        IntegrityError: an event of the same originator and version is there already.
    """
    if not events:
        return []
    held = transaction.get_many(_decisive(events))
    first_id = held.get(entries.COUNT, 0) + 1
    ids = range(first_id, first_id + len(events))
    runs: dict[entries.Key, entries.Runs] = {}
    for notification_id, event in zip(ids, events, strict=True):
        originator_id, version = event.originator_id, event.originator_version
        key = entries.versions_key(originator_id)
        before = runs[key] if key in runs else entries.runs_of(held.get(key))
        if entries.holds(before, version):
            raise IntegrityError(f"event {version} of {originator_id} is recorded already")
        runs[key] = entries.with_version(before, version)
        value = entries.event_value(event, notification_id)
        transaction.set(entries.event_key(originator_id, version), value)
    for key, after in runs.items():
        transaction.set(key, entries.runs_value(after))
    for mark in entries.marked(ids[0], ids[-1]):
        transaction.set(mark, first_id)
    transaction.set(entries.COUNT, ids[-1])
    return list(ids)


def _decisive(events: Sequence[StoredEvent]) -> list[entries.Key]:
    """What is read to decide whether `events` may be added, and under which ids."""
    if not events:
        return []
    return [entries.COUNT, *{entries.versions_key(event.originator_id) for event in events}]

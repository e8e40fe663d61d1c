"""The notifications of a log, in their order: from a place onwards, and where a place is.

Notification ids are numbered by their writers, inside the seal, and rise by one: a service
that kept an event back, or showed one twice, would be noticed. Knows nothing of recorders
and subscriptions.
"""

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from typing import NamedTuple

from eventsourcing.persistence import InternalError, Notification

from indelible.answers import Change
from indelible.blocking import Log
from indelible.eventsourcing.entries import COUNT, MARK_EVERY, mark_key, notification

MAX_VERSIONS = 1_000  # that one request folds


class Place(NamedTuple):
    """The notifications up to `id` are in versions up to `version`, or read by now.

    So what comes after `id` is in the diff from `version`.
    """

    id: int
    version: int


BEGINNING = Place(0, 0)


def head_of(log: Log) -> Place:
    """The last notification; id 0 if there is none."""
    entry = log.entry(COUNT)
    return BEGINNING if entry is None else Place(entry.value, entry.version)


def place_before(log: Log, notification_id: int, head: Place) -> Place:
    """A place at most MARK_EVERY notifications and one commit before `notification_id`; the
    head, if that is before it."""
    if notification_id > head.id:
        return head
    if notification_id < MARK_EVERY:
        return BEGINNING
    mark = log.entry(mark_key(notification_id))
    if mark is None:
        raise InternalError(f"the log {log.name!r} has no mark of notification {notification_id}")
    return Place(mark.value - 1, mark.version - 1)


class Read(NamedTuple):
    notification: Notification
    place: Place  # where to go on behind it


def read(
    log: Log, after: Place, head: Place, *, max_versions: int = MAX_VERSIONS
) -> Generator[Read, None, None]:
    """What comes after a place, up to the head. Asks for `max_versions` at a time.

    Raises:
        InternalError: ids that do not rise by one.
    """
    last = after
    for version in range(after.version, head.version, max_versions):
        upto = min(version + max_versions, head.version)
        with closing(iter(log.diff(version, upto))) as changes:
            for found in read_changes(changes, last):
                yield found
                last = found.place
        last = Place(last.id, upto)
    if last.id != head.id:
        raise InternalError(
            f"the log {log.name!r} ends with notification {last.id}, not {head.id} as it says"
        )


def read_changes(changes: Iterable[Change], after: Place) -> Iterator[Read]:
    """The notifications among a diff's changes that come after a place.

    Raises:
        InternalError: ids that do not rise by one.
    """
    last_id = after.id
    for change in changes:
        found = notification(change.key, change.value)
        if found is None or (change.op == "add" and found.id <= last_id):
            continue
        if change.op == "remove" or found.id != last_id + 1:
            raise InternalError(f"notification {found.id} follows {last_id}: {change.op}")
        last_id = found.id
        yield Read(found, Place(last_id, change.version - 1))

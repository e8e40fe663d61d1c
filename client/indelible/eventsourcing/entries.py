"""How stored events are spelled as entries of a log. Pure: asks nobody.

```
("event", originator, version)  [notification id, topic, state]
("versions", originator)        its versions, as [first, last, step] for each run of them
("count",)                      how many events the log holds: the last notification id
("mark", n)                     the first notification id of the commit that holds id n × 100
("tracking", application)       the last notification id of it that was processed
```

Keys and values are msgpack. An originator is its UUID's 16 bytes, or its string.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, Final
from uuid import UUID

from eventsourcing.persistence import Notification, StoredEvent

Key = tuple[Any, ...]
Runs = list[range]

MARK_EVERY: Final = 100  # notifications
COUNT: Final[Key] = ("count",)


def event_key(originator_id: UUID | str, version: int) -> Key:
    return ("event", _originator(originator_id), version)


def versions_key(originator_id: UUID | str) -> Key:
    return ("versions", _originator(originator_id))


def tracking_key(application_name: str) -> Key:
    return ("tracking", application_name)


def mark_key(notification_id: int) -> Key:
    """Of the last mark at or before `notification_id`, which is MARK_EVERY or more."""
    return ("mark", notification_id // MARK_EVERY)


def marked(first_id: int, last_id: int) -> list[Key]:
    """The marks that a commit of these notifications sets."""
    before, last = (first_id - 1) // MARK_EVERY, last_id // MARK_EVERY
    return [("mark", n) for n in range(before + 1, last + 1)]


def _originator(originator_id: UUID | str) -> bytes | str:
    return originator_id.bytes if isinstance(originator_id, UUID) else originator_id


def event_value(event: StoredEvent, notification_id: int) -> list[Any]:
    return [notification_id, event.topic, event.state]


def stored_event(originator_id: UUID | str, version: int, value: list[Any]) -> StoredEvent:
    _, topic, state = value
    return StoredEvent(
        originator_id=originator_id, originator_version=version, topic=topic, state=state
    )


def notification(key: Any, value: Any) -> Notification | None:
    """None for an entry that is no event: another of ours, or one of a view's own."""
    if not isinstance(key, list) or key[0] != "event":
        return None
    _, originator, version = key
    notification_id, topic, state = value
    return Notification(
        id=notification_id,
        originator_id=UUID(bytes=originator) if isinstance(originator, bytes) else originator,
        originator_version=version,
        topic=topic,
        state=state,
    )


# The versions of an originator are runs with one step each, in rising order: one run for the
# events of an aggregate, one for the snapshots that are taken every so many events.


def runs_of(value: list[list[int]] | None) -> Runs:
    return [range(first, last + 1, step) for first, last, step in value or []]


def runs_value(runs: Runs) -> list[list[int]]:
    return [[run[0], run[-1], run.step] for run in runs]


def holds(runs: Runs, version: int) -> bool:
    return any(version in run for run in runs)


def with_version(runs: Runs, version: int) -> Runs:
    """`runs` and a version that they do not hold."""
    if runs and version < runs[-1][-1]:  # rare: told apart and laid out anew
        return _laid_out(sorted([*chain(*runs), version]))
    return _appended(runs, version)


def _laid_out(versions: Iterable[int]) -> Runs:
    runs: Runs = []
    for version in versions:
        runs = _appended(runs, version)
    return runs


def _appended(runs: Runs, version: int) -> Runs:
    if not runs:
        return [range(version, version + 1)]
    *before, last = runs
    step = version - last[-1]
    if len(last) == 1 or step == last.step:
        return [*before, range(last[0], version + 1, step)]
    return [*runs, range(version, version + 1)]


def selected(runs: Runs, *, gt: int | None, lte: int | None, desc: bool) -> Iterator[int]:
    """The versions above `gt` and up to `lte`, rising or falling."""
    for run in reversed(runs) if desc else runs:
        start = 0 if gt is None else bisect_right(run, gt)
        stop = len(run) if lte is None else bisect_right(run, lte)
        yield from reversed(run[start:stop]) if desc else run[start:stop]

"""What is selected, from wherever, in whatever portions; what it asks for; what is noticed."""

import random
from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest
from eventsourcing.persistence import (
    DataError,
    InternalError,
    Notification,
    ProgrammingError,
    StoredEvent,
)
from indelible.eventsourcing import Factory, IndelibleApplicationRecorder
from indelible.eventsourcing.entries import COUNT, MARK_EVERY, event_key, mark_key

from tests.eventsourcing.factories import make_factory

SIZES = [1, 2, 98, 1, 1, 250, 1, 1, 30, *[1] * 40, 101, 3]


@pytest.fixture
def factory() -> Iterator[Factory]:
    factory = make_factory()
    yield factory
    factory.close()


@pytest.fixture
def recorder(factory: Factory) -> IndelibleApplicationRecorder:
    return factory.application_recorder()


def events(count: int) -> list[StoredEvent]:
    account = uuid4()
    return [
        StoredEvent(account, version, f"topic{version % 3}", b"state")
        for version in range(1, count + 1)
    ]


def insert(recorder: IndelibleApplicationRecorder, sizes: list[int]) -> list[Notification]:
    """One commit for each size; the notifications that there should be."""
    model: list[Notification] = []
    for size in sizes:
        batch = events(size)
        ids = recorder.insert_events(batch)
        assert ids == [*range(len(model) + 1, len(model) + 1 + size)]
        model += [
            Notification(each.originator_id, each.originator_version, each.topic, each.state, id_)
            for id_, each in zip(ids, batch, strict=True)
        ]
    return model


def test_every_selection_is_what_a_list_would_give(factory: Factory) -> None:
    recorder = factory.application_recorder()
    model = insert(recorder, SIZES)
    rng = random.Random(4)
    for _ in range(150):
        start = rng.choice([None, rng.randint(-2, len(model) + 3)])
        stop = rng.choice([None, rng.randint(-2, len(model) + 3)])
        limit = rng.choice([1, 3, 10, 100, 1_000])
        topics = rng.choice([(), ("topic1",), ("topic0", "topic2"), ("none",)])
        inclusive = rng.choice([True, False])
        # With the places that earlier selections left, or as a new process.
        asked = rng.choice([recorder, IndelibleApplicationRecorder(recorder.log)])
        first = 1 if start is None else start if inclusive else start + 1
        expected = [
            each
            for each in model
            if each.id >= first
            and (stop is None or each.id <= stop)
            and (not topics or each.topic in topics)
        ][:limit]
        found = asked.select_notifications(start, limit, stop, topics, inclusive_of_start=inclusive)
        assert found == expected, (start, limit, stop, topics, inclusive)


def test_reading_in_portions_gives_each_notification_once(
    recorder: IndelibleApplicationRecorder,
) -> None:
    model = insert(recorder, SIZES)
    found: list[Notification] = []
    while portion := recorder.select_notifications(
        found[-1].id if found else None, 7, inclusive_of_start=False
    ):
        found += portion
    assert found == model


def test_a_selection_asks_for_what_it_gives_and_no_history(
    recorder: IndelibleApplicationRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert(recorder, [1] * 350)
    asked: list[int] = []
    diff = recorder.log.diff

    def counted(from_version: int, to_version: int) -> object:
        asked.append(to_version - from_version)
        return diff(from_version, to_version)

    monkeypatch.setattr(recorder.log, "diff", counted)
    recorder.select_notifications(320, 10)
    assert sum(asked) <= 10 + MARK_EVERY
    asked.clear()
    recorder.select_notifications(330, 10)
    assert sum(asked) <= 11  # it goes on where the last one ended
    asked.clear()
    recorder.select_events(uuid4())
    recorder.max_notification_id()
    recorder.select_notifications(351, 10)
    assert asked == []


def test_versions_may_have_gaps_and_come_in_any_order(
    recorder: IndelibleApplicationRecorder,
) -> None:
    account = uuid4()
    for version in (10, 2, 30, 20, 0, 31):
        recorder.insert_events([StoredEvent(account, version, "topic", b"")])

    def versions(**bounds: int | bool) -> list[int]:
        found = recorder.select_events(account, **bounds)  # type: ignore[arg-type]
        return [event.originator_version for event in found]

    assert versions() == [0, 2, 10, 20, 30, 31]
    assert versions(gt=2, lte=30) == [10, 20, 30]
    assert versions(lte=29, desc=True, limit=2) == [20, 10]
    assert versions(gt=31) == []


def test_originators_are_what_they_were(recorder: IndelibleApplicationRecorder) -> None:
    account = uuid4()
    for originator in (account, str(account), "order-1", "é" * 200):
        recorder.insert_events([StoredEvent(originator, 1, "topic", b"")])
        assert [each.originator_id for each in recorder.select_events(originator)] == [originator]
    found = recorder.select_notifications(None, 10)
    assert [type(each.originator_id) for each in found] == [UUID, str, str, str]


def test_more_than_a_commit_holds_is_refused_and_changes_nothing(
    recorder: IndelibleApplicationRecorder,
) -> None:
    with pytest.raises(DataError):
        recorder.insert_events(events(4_096))
    with pytest.raises(DataError):
        recorder.insert_events([StoredEvent(uuid4(), 1, "topic", bytes(1 << 20))])
    assert recorder.max_notification_id() is None
    assert recorder.insert_events(events(2_000)) == [*range(1, 2_001)]


def test_an_originator_that_is_too_long_for_a_key_is_refused(
    recorder: IndelibleApplicationRecorder,
) -> None:
    with pytest.raises(ProgrammingError):
        recorder.insert_events([StoredEvent("x" * 1_025, 1, "topic", b"")])


@pytest.mark.parametrize("claimed", [[3], [2, 4], [2, 2], [2, 1], [2]], ids=str)
def test_notifications_that_do_not_rise_by_one_are_noticed(
    recorder: IndelibleApplicationRecorder, claimed: list[int]
) -> None:
    insert(recorder, [1])
    written = {event_key("odd", each): [id_, "topic", b""] for each, id_ in enumerate(claimed)}
    recorder.log.set_many({**written, COUNT: 3})
    with pytest.raises(InternalError):
        recorder.select_notifications(1, 10)


def test_an_event_that_is_kept_back_is_noticed(recorder: IndelibleApplicationRecorder) -> None:
    account = insert(recorder, [3])[0].originator_id
    recorder.log.delete(event_key(account, 2))
    with pytest.raises(InternalError):
        recorder.select_events(account)
    assert len(recorder.select_events(account, gt=2)) == 1


def test_a_mark_that_is_kept_back_is_noticed(recorder: IndelibleApplicationRecorder) -> None:
    insert(recorder, [99, 99])
    recorder.log.delete(mark_key(100))
    with pytest.raises(InternalError):
        recorder.select_notifications(150, 10)

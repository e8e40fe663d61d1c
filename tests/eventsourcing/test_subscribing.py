"""Subscriptions and waits: woken by the log, stopped from anywhere, through restarts."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from uuid import uuid4

import pytest
from eventsourcing.persistence import (
    Notification,
    StoredEvent,
    Tracking,
    WaitInterruptedError,
)
from indelible.eventsourcing import (
    Factory,
    IndelibleSubscription,
)

from tests.eventsourcing.factories import make_factory, tenant_of
from tests.support.service import StartService

DEADLINE_SECONDS = 30.0


@pytest.fixture
def factory() -> Iterator[Factory]:
    factory = make_factory()
    yield factory
    factory.close()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def event(topic: str = "topic") -> StoredEvent:
    return StoredEvent(uuid4(), 1, topic, b"state")


def waits(subscription: IndelibleSubscription) -> None:
    """Returns once the subscription has read all that is there."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while subscription._watch._waiting is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)


def take(subscription: Iterator[Notification], count: int) -> list[Notification]:
    return [next(subscription) for _ in range(count)]


def test_a_subscription_that_waits_is_woken_by_another_client(
    factory: Factory, threads: ThreadPoolExecutor
) -> None:
    other = make_factory()
    with factory.application_recorder().subscribe() as subscription:
        found = threads.submit(take, subscription, 2)
        waits(subscription)
        other.application_recorder().insert_events([event(), event()])
        assert [each.id for each in found.result(DEADLINE_SECONDS)] == [1, 2]
    other.close()


def test_a_subscription_passes_over_what_it_did_not_ask_for(
    factory: Factory, threads: ThreadPoolExecutor
) -> None:
    recorder = factory.process_recorder()
    with recorder.subscribe(gt=2, topics=["wanted"]) as subscription:
        found = threads.submit(take, subscription, 2)
        waits(subscription)
        recorder.insert_events([event("wanted"), event("wanted"), event("other")])
        recorder.insert_tracking(Tracking("upstream", 1))
        recorder.log.set_many({"a view's own": 1, 7: 1, "": 1})
        recorder.insert_events([event("wanted"), event("other")])
        recorder.insert_events([event("wanted")])
        assert [each.id for each in found.result(DEADLINE_SECONDS)] == [4, 6]


@pytest.mark.parametrize("gt", [None, 0, 99, 100, 101, 250])
def test_a_subscription_gets_each_notification_once_while_others_write(
    factory: Factory, threads: ThreadPoolExecutor, gt: int | None
) -> None:
    recorder = factory.application_recorder()
    recorder.insert_events([event() for _ in range(120)])
    writers = [factory, make_factory(), make_factory()]

    def write(writer: Factory) -> None:
        writing = writer.application_recorder()
        for _ in range(10):
            writing.insert_events([event() for _ in range(5)])

    with recorder.subscribe(gt=gt) as subscription:
        written = [threads.submit(write, writer) for writer in writers]
        found = threads.submit(take, subscription, 270 - (gt or 0)).result(DEADLINE_SECONDS)
        assert [each.id for each in found] == [*range((gt or 0) + 1, 271)]
        for each in written:
            each.result(DEADLINE_SECONDS)
    for writer in writers[1:]:
        writer.close()


def test_stopping_ends_a_wait_at_once(factory: Factory, threads: ThreadPoolExecutor) -> None:
    with factory.application_recorder().subscribe() as subscription:
        ended = threads.submit(list, subscription)
        waits(subscription)
        started = time.monotonic()
        subscription.stop()
        assert ended.result(DEADLINE_SECONDS) == []
        assert time.monotonic() - started < 5.0  # a poll would have taken half a minute


def test_a_subscription_outlives_a_restart_of_the_service(
    start_service: StartService,
    tmp_path: Path,
    threads: ThreadPoolExecutor,
) -> None:
    service = start_service("all", "--data", str(tmp_path / "data"))
    customer_id, apikey = tenant_of(service)
    factory = make_factory(
        INDELIBLE_ENDPOINT_URL=service.url,
        INDELIBLE_CUSTOMER_ID=customer_id,
        INDELIBLE_APIKEY=apikey,
    )
    recorder = factory.application_recorder()
    recorder.insert_events([event()])
    with recorder.subscribe() as subscription:
        assert next(subscription).id == 1
        found = threads.submit(take, subscription, 1)
        waits(subscription)
        service.kill()
        service.start()
        recorder.insert_events([event()])
        assert [each.id for each in found.result(DEADLINE_SECONDS)] == [2]
    factory.close()


def test_waiting_for_tracking_ends_when_it_is_recorded(
    factory: Factory, threads: ThreadPoolExecutor
) -> None:
    recorder = factory.process_recorder()
    done = threads.submit(recorder.wait, "upstream", 7, timeout=DEADLINE_SECONDS)
    recorder.insert_tracking(Tracking("upstream", 6))
    assert not done.done()
    recorder.insert_events([event()], tracking=Tracking("upstream", 8))
    done.result(5.0)


def test_waiting_for_tracking_ends_when_it_is_interrupted(
    factory: Factory, threads: ThreadPoolExecutor
) -> None:
    recorder = factory.process_recorder()
    interrupt = Event()
    done = threads.submit(recorder.wait, "upstream", 7, DEADLINE_SECONDS, interrupt)
    interrupt.set()
    with pytest.raises(WaitInterruptedError):
        done.result(5.0)

"""What each call costs in requests: the figures of the page."""

from collections.abc import Callable, Iterator
from threading import Thread
from typing import Any
from uuid import uuid4

import pytest
from eventsourcing.persistence import StoredEvent, Tracking
from indelible.eventsourcing import Factory, IndelibleProcessRecorder

from tests.eventsourcing.factories import make_factory


@pytest.fixture
def factory() -> Iterator[Factory]:
    factory = make_factory()
    yield factory
    factory.close()


@pytest.fixture
def recorder(factory: Factory) -> IndelibleProcessRecorder:
    return factory.process_recorder()


@pytest.fixture
def cost(factory: Factory, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], int]:
    """How many requests a call sends."""
    transport = factory.client._client._transport
    send, sent = transport.send, []

    async def counted(request: Any, timeout_seconds: float) -> Any:
        sent.append(request.path)
        return await send(request, timeout_seconds)

    monkeypatch.setattr(transport, "send", counted)

    def count(call: Callable[[], Any]) -> int:
        sent.clear()
        call()
        return len(sent)

    return count


def test_each_call_costs_the_requests_that_the_page_says(
    recorder: IndelibleProcessRecorder, cost: Callable[[Callable[[], Any]], int]
) -> None:
    account = uuid4()

    def save(version: int, tracking: Tracking | None = None) -> list[StoredEvent]:
        events = [StoredEvent(account, version, "topic", b"state")]
        recorder.insert_events(events, tracking=tracking)
        return events

    assert cost(lambda: save(1)) == 2
    assert cost(lambda: save(2, Tracking("upstream", 1))) == 2
    for version in range(3, 201):
        save(version)
    assert cost(lambda: recorder.select_events(account)) == 2
    assert cost(lambda: recorder.select_events(account, desc=True, limit=1)) == 2
    assert cost(lambda: recorder.select_notifications(150, 10)) == 3
    assert cost(lambda: recorder.select_notifications(160, 10)) == 2
    assert cost(lambda: recorder.select_notifications(170, 31)) == 2
    assert cost(lambda: recorder.select_notifications(201, 10)) == 1
    assert cost(lambda: recorder.select_notifications(1, 10, topics=["none"])) == 2
    assert cost(recorder.max_notification_id) == 1
    assert cost(lambda: recorder.max_tracking_id("upstream")) == 1

    with recorder.subscribe(gt=200) as subscription:

        def wake(version: int) -> None:
            writer = Thread(target=save, args=[version])
            writer.start()
            assert next(subscription).id == version
            writer.join()

        assert cost(lambda: wake(201)) <= 2 + 2  # its own, and the save's
        assert cost(lambda: wake(202)) <= 2 + 2


def test_a_save_of_four_thousand_events_is_one_commit(recorder: IndelibleProcessRecorder) -> None:
    account = uuid4()
    events = [
        StoredEvent(account, version, "a.module:Account.Credited", b"{}" * 20)
        for version in range(4_000)
    ]
    recorder.insert_events(events)
    assert recorder.log.version == 1
    assert recorder.select_events(account) == events

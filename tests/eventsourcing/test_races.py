"""What writers must not break: a rival between the reading and the commit, crowds, kills."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any
from uuid import UUID, uuid4

import pytest
from eventsourcing.persistence import IntegrityError, OperationalError, StoredEvent, Tracking
from indelible import Transaction
from indelible.eventsourcing import Factory, IndelibleProcessRecorder

from tests.eventsourcing.factories import make_factory, tenant_of
from tests.support.service import StartService


def event(originator_id: UUID, version: int = 1, state: bytes = b"state") -> StoredEvent:
    return StoredEvent(originator_id, version, "topic", state)


@pytest.fixture
def factories() -> Iterator[list[Factory]]:
    """Clients that share nothing but the service, as processes do."""
    made = [make_factory() for _ in range(4)]
    yield made
    for factory in made:
        factory.close()


@pytest.fixture
def recorder(factories: list[Factory]) -> IndelibleProcessRecorder:
    return factories[0].process_recorder()


@pytest.fixture
def rival(factories: list[Factory]) -> IndelibleProcessRecorder:
    return factories[1].process_recorder()


@pytest.fixture
def first(
    recorder: IndelibleProcessRecorder, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[], object]], None]:
    """Lets something happen once `recorder` has decided what to commit, and before it does."""
    transact = recorder.transact

    def let(happen: Callable[[], object]) -> None:
        happenings = [happen]

        def late(decide: Callable[[Transaction], Any]) -> Any:
            def decided(transaction: Transaction) -> Any:
                answer = decide(transaction)
                while happenings:
                    happenings.pop()()
                return answer

            return transact(decided)

        monkeypatch.setattr(recorder, "transact", late)

    return let


def test_a_version_that_a_rival_recorded_first_is_refused(
    recorder: IndelibleProcessRecorder,
    rival: IndelibleProcessRecorder,
    first: Callable[[Callable[[], object]], None],
) -> None:
    account = uuid4()
    first(lambda: rival.insert_events([event(account, 1, b"rival")]))
    with pytest.raises(IntegrityError):
        recorder.insert_events([event(uuid4()), event(account)])
    assert recorder.select_events(account) == [event(account, 1, b"rival")]
    assert recorder.max_notification_id() == 1


def test_a_rival_on_another_aggregate_costs_no_notification_id(
    recorder: IndelibleProcessRecorder,
    rival: IndelibleProcessRecorder,
    first: Callable[[Callable[[], object]], None],
) -> None:
    accounts = [uuid4(), uuid4()]
    first(lambda: rival.insert_events([event(accounts[0])]))
    assert recorder.insert_events([event(accounts[1])]) == [2]
    found = recorder.select_notifications(1, 10)
    assert [(each.id, each.originator_id) for each in found] == [*enumerate(accounts, 1)]


def test_a_notification_that_a_rival_processed_first_is_not_processed_again(
    recorder: IndelibleProcessRecorder,
    rival: IndelibleProcessRecorder,
    first: Callable[[Callable[[], object]], None],
) -> None:
    tracking = Tracking("upstream", 7)
    first(lambda: rival.insert_events([event(uuid4())], tracking=tracking))
    with pytest.raises(IntegrityError):
        recorder.insert_events([event(uuid4())], tracking=tracking)
    assert recorder.max_notification_id() == 1


def test_events_and_tracking_are_one_commit(recorder: IndelibleProcessRecorder) -> None:
    recorder.insert_events([event(uuid4()), event(uuid4())], tracking=Tracking("upstream", 7))
    assert recorder.log.version == 1
    assert recorder.max_tracking_id("upstream") == 7
    assert recorder.max_notification_id() == 2


def test_of_many_writers_of_one_version_exactly_one_wins(factories: list[Factory]) -> None:
    recorders = [factory.application_recorder() for factory in factories]
    account = uuid4()

    def write(writer: int) -> list[int]:
        """The versions that this writer won."""
        won = []
        for version in range(1, 16):
            try:
                recorders[writer].insert_events([event(account, version, bytes([writer]))])
            except IntegrityError:
                continue
            won.append(version)
        return won

    with ThreadPoolExecutor(len(recorders)) as pool:
        wins = list(pool.map(write, range(len(recorders))))
    assert sorted(version for won in wins for version in won) == [*range(1, 16)]
    found = recorders[0].select_notifications(1, 100)
    assert [each.id for each in found] == [*range(1, 16)]
    for each in found:
        assert each.originator_version in wins[each.state[0]]


def test_kills_of_the_service_lose_nothing_and_double_nothing(
    start_service: StartService, tmp_path: Path
) -> None:
    service = start_service("all", "--data", str(tmp_path / "data"))
    customer_id, apikey = tenant_of(service)
    where = {
        "INDELIBLE_ENDPOINT_URL": service.url,
        "INDELIBLE_CUSTOMER_ID": customer_id,
        "INDELIBLE_APIKEY": apikey,
        "INDELIBLE_TIMEOUT_SECONDS": "0.5",  # so that some outcomes stay unknown
    }
    enough = Event()
    recorded: list[list[StoredEvent]] = [[], [], []]

    def write(writer: int) -> None:
        """Records events until it is enough; `recorded` has what this writer knows is in."""
        factory = make_factory(**where)
        recorder = factory.process_recorder()
        while not enough.is_set():
            number = len(recorded[writer]) + 1
            written = event(uuid4(), number, bytes([writer]))
            while True:
                try:
                    recorder.insert_events(
                        [written], tracking=Tracking(f"upstream{writer}", number)
                    )
                except OperationalError:
                    continue
                except IntegrityError:  # it was in: nobody else writes this event
                    assert recorder.select_events(written.originator_id) == [written]
                recorded[writer].append(written)
                break
        factory.close()

    with ThreadPoolExecutor(3) as pool:
        writing = [pool.submit(write, writer) for writer in range(3)]
        try:
            for least in (5, 10, 15):
                deadline = time.monotonic() + 30.0
                while min(map(len, recorded)) < least and time.monotonic() < deadline:
                    time.sleep(0.005)
                service.kill()
                service.start()
        finally:
            enough.set()
        for each in writing:
            each.result()
    factory = make_factory(**{**where, "INDELIBLE_TIMEOUT_SECONDS": "30"})
    recorder = factory.process_recorder()
    found = recorder.select_notifications(1, 100_000)
    assert [each.id for each in found] == [*range(1, sum(map(len, recorded)) + 1)]
    for writer, events in enumerate(recorded):
        assert len(events) >= 15
        assert recorder.max_tracking_id(f"upstream{writer}") == len(events)
        assert [each.originator_id for each in found if each.state == bytes([writer])] == [
            each.originator_id for each in events
        ]
    factory.close()

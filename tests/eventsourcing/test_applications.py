"""The library's own test cases of applications and projections, with logs underneath."""

import os
from typing import ClassVar

import pytest
from eventsourcing.persistence import Tracking
from eventsourcing.tests import application, projection
from indelible import Transaction
from indelible.eventsourcing import IndelibleTrackingRecorder

from tests.eventsourcing.factories import factory_for


class TestExampleApplication(application.ExampleApplicationTestCase):
    expected_factory_topic = "indelible.eventsourcing.factory:Factory"


@pytest.mark.filterwarnings("default:'log' is deprecated:DeprecationWarning")  # it looks for it
class TestApplication(application.ApplicationTestCase):
    @pytest.mark.torture  # a hundred threads on one aggregate; the blocking one is run always
    def test_check_aggregate_fastforwarding_nonblocking(self) -> None:
        super().test_check_aggregate_fastforwarding_nonblocking()


class EventCounters(IndelibleTrackingRecorder, projection.EventCountersView):
    """A view: its counters and its tracking move in one commit."""

    def get_created_event_counter(self) -> int:
        return self._count("created")

    def get_subsequent_event_counter(self) -> int:
        return self._count("subsequent")

    def incr_created_event_counter(self, tracking: Tracking) -> None:
        self._increment("created", tracking)

    def incr_subsequent_event_counter(self, tracking: Tracking) -> None:
        self._increment("subsequent", tracking)

    def _count(self, name: str) -> int:
        return int(self.log.get(name, 0))

    def _increment(self, name: str, tracking: Tracking) -> None:
        def decide(transaction: Transaction) -> None:
            self.track(transaction, tracking)
            transaction.set(name, transaction.get(name, 0) + 1)

        self.transact(decide)


class TestView(projection.EventCountersViewTestCase):
    def construct_event_counters_view(self) -> EventCounters:
        view = factory_for(self).tracking_recorder(EventCounters)
        assert isinstance(view, EventCounters)
        return view


class TestProjection(projection.AggregateEventCountersProjectionTestCase):
    view_class = EventCounters

    @pytest.fixture(autouse=True)
    def _environment(self, environment: None) -> None:
        self.env = dict(os.environ)  # type: ignore[misc]


class TestEventSourcedProjection(projection.EventSourcedProjectionTestCase):
    env: ClassVar[dict[str, str]] = {}

"""The library's own test cases of recorders and factories, on logs of a real service."""

import os
from typing import Any

from eventsourcing.tests import persistence as suite
from eventsourcing.utils import Environment
from indelible.eventsourcing import (
    Factory,
    IndelibleAggregateRecorder,
    IndelibleApplicationRecorder,
    IndelibleProcessRecorder,
    IndelibleTrackingRecorder,
)

from tests.eventsourcing.factories import factory_for


class TestAggregateRecorder(suite.AggregateRecorderTestCase):
    def create_recorder(self) -> IndelibleAggregateRecorder:
        return factory_for(self).aggregate_recorder()


class TestApplicationRecorder(suite.ApplicationRecorderTestCase[IndelibleApplicationRecorder]):
    def create_recorder(self) -> IndelibleApplicationRecorder:
        return factory_for(self).application_recorder()

    def test_insert_subscribe(self) -> None:
        self.optional_test_insert_subscribe()


class TestNonInterleavingNotificationIDs(suite.NonInterleavingNotificationIDsBaseCase):
    def create_recorder(self) -> IndelibleApplicationRecorder:
        return factory_for(self).application_recorder()


class TestTrackingRecorder(suite.TrackingRecorderTestCase):
    def create_recorder(self) -> Any:
        return factory_for(self).tracking_recorder()


class TestProcessRecorder(suite.ProcessRecorderTestCase):
    def create_recorder(self) -> IndelibleProcessRecorder:
        return factory_for(self).process_recorder()


class TestApplicationSideOfProcessRecorder(
    suite.ApplicationRecorderTestCase[IndelibleProcessRecorder]
):
    """A process recorder is an application recorder too; contention was shown above."""

    test_concurrent_no_conflicts = None  # type: ignore[assignment]
    test_concurrent_throughput = None  # type: ignore[assignment]
    test_performance = None  # type: ignore[assignment]

    def create_recorder(self) -> IndelibleProcessRecorder:
        return factory_for(self).process_recorder()

    def test_insert_subscribe(self) -> None:
        self.optional_test_insert_subscribe()


class TrackingRecorderOfTheirs(IndelibleTrackingRecorder):
    pass


class TestFactory(suite.InfrastructureFactoryTestCase[Factory]):
    def setUp(self) -> None:
        self.env = Environment("Shop", os.environ)
        super().setUp()

    def expected_factory_class(self) -> type[Factory]:
        return Factory

    def expected_aggregate_recorder_class(self) -> type[IndelibleAggregateRecorder]:
        return IndelibleAggregateRecorder

    def expected_application_recorder_class(self) -> type[IndelibleApplicationRecorder]:
        return IndelibleApplicationRecorder

    def expected_tracking_recorder_class(self) -> type[IndelibleTrackingRecorder]:
        return IndelibleTrackingRecorder

    def tracking_recorder_subclass(self) -> type[IndelibleTrackingRecorder]:
        return TrackingRecorderOfTheirs

    def expected_process_recorder_class(self) -> type[IndelibleProcessRecorder]:
        return IndelibleProcessRecorder

"""Persistence for the `eventsourcing` library: aggregates whose events are sealed entries of logs.

`PERSISTENCE_MODULE=indelible.eventsourcing` is all that an application needs to say, besides
where the service is; `client/EVENTSOURCING.md` tells the rest. Wants the extra
`indelible[eventsourcing]`. Holds names alone.
"""

from indelible.eventsourcing.factory import Factory
from indelible.eventsourcing.recorders import (
    IndelibleAggregateRecorder,
    IndelibleApplicationRecorder,
    IndelibleProcessRecorder,
    IndelibleTrackingRecorder,
)
from indelible.eventsourcing.subscribing import IndelibleSubscription

__all__ = [
    "Factory",
    "IndelibleAggregateRecorder",
    "IndelibleApplicationRecorder",
    "IndelibleProcessRecorder",
    "IndelibleSubscription",
    "IndelibleTrackingRecorder",
]

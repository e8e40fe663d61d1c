"""The factory that `eventsourcing` finds by PERSISTENCE_MODULE, and what it reads of the
environment.

Each variable may have the application's name before it, as all of that library's:
`BANK_INDELIBLE_PROFILE` counts for the application `Bank` alone. Owns the client and the
names of the logs; knows nothing of what is in them.
"""

from dataclasses import fields
from typing import TypeVar

from eventsourcing.persistence import InfrastructureFactory, TrackingRecorder
from eventsourcing.utils import Environment, EnvType, resolve_topic, strtobool

from indelible.blocking import Client, Log
from indelible.client import TIMEOUT_SECONDS
from indelible.config import PROFILE_VARIABLE, Profile
from indelible.errors import ConfigError, RequestError
from indelible.eventsourcing.failures import translated
from indelible.eventsourcing.recorders import (
    IndelibleAggregateRecorder,
    IndelibleApplicationRecorder,
    IndelibleProcessRecorder,
    IndelibleRecorder,
    IndelibleTrackingRecorder,
)

RecorderT = TypeVar("RecorderT", bound=IndelibleRecorder)

EVENTS = "events"
TRACKING = "tracking"


class Factory(InfrastructureFactory[TrackingRecorder]):
    """One client for all recorders of an application; `close` ends it."""

    PROFILE = PROFILE_VARIABLE
    DATABASE = "INDELIBLE_DATABASE"
    LOG_NAME = "INDELIBLE_LOG_NAME"
    TIMEOUT_SECONDS = "INDELIBLE_TIMEOUT_SECONDS"
    CA_FILE = "INDELIBLE_CA_FILE"
    ALLOW_PLAIN_HTTP = "INDELIBLE_ALLOW_PLAIN_HTTP"
    CREATE_TABLE = "CREATE_TABLE"

    def __init__(self, env: Environment | EnvType | None) -> None:
        """
        Raises:
            OSError: variables that cannot be used, or no profile where they say.
        """
        super().__init__(env)
        try:
            self.client = Client(
                self._profile(),
                database=self.env.get(self.DATABASE, "default"),
                timeout_seconds=float(self.env.get(self.TIMEOUT_SECONDS, str(TIMEOUT_SECONDS))),
                ca_file=self.env.get(self.CA_FILE),
                allow_plain_http=strtobool(self.env.get(self.ALLOW_PLAIN_HTTP, "no")),
            )
        except (ConfigError, RequestError, ValueError) as error:
            raise OSError(str(error)) from error
        self._logs: dict[str, Log] = {}

    def _profile(self) -> Profile | str | None:
        """The four members of a profile, if any of them is there; else where its file is."""
        variables = {field.name: f"INDELIBLE_{field.name.upper()}" for field in fields(Profile)}
        members = {name: self.env.get(variable) for name, variable in variables.items()}
        if not any(members.values()):
            return self.env.get(self.PROFILE)
        missing = [variables[name] for name, member in members.items() if not member]
        if missing:
            raise ConfigError(f"a profile in the environment needs {' and '.join(missing)} too")
        return Profile(**{name: member or "" for name, member in members.items()})

    def aggregate_recorder(self, purpose: str = EVENTS) -> IndelibleAggregateRecorder:
        return IndelibleAggregateRecorder(self.log(purpose))

    def application_recorder(self) -> IndelibleApplicationRecorder:
        kind = self._kind(self.APPLICATION_RECORDER_TOPIC, IndelibleApplicationRecorder)
        return kind(self.log(EVENTS))

    def process_recorder(self) -> IndelibleProcessRecorder:
        kind = self._kind(self.PROCESS_RECORDER_TOPIC, IndelibleProcessRecorder)
        return kind(self.log(EVENTS))

    def tracking_recorder(
        self, tracking_recorder_class: type[TrackingRecorder] | None = None
    ) -> TrackingRecorder:
        kind = tracking_recorder_class or self._kind(
            self.TRACKING_RECORDER_TOPIC, IndelibleTrackingRecorder
        )
        assert issubclass(kind, IndelibleTrackingRecorder), kind
        return kind(self.log(TRACKING))

    def _kind(self, variable: str, default: type[RecorderT]) -> type[RecorderT]:
        topic = self.env.get(variable)
        kind: type[RecorderT] = resolve_topic(topic) if topic else default
        assert issubclass(kind, default), kind
        return kind

    def log(self, purpose: str) -> Log:
        """The application's log of that purpose, made unless CREATE_TABLE is false."""
        if purpose not in self._logs:
            space = self.env.get(self.LOG_NAME, "eventsourcing")
            # An application without a name has one part less, so no other's log.
            name = [space, self.env.name, purpose] if self.env.name else [space, purpose]
            with translated():
                self._logs[purpose] = self.client.log(
                    name,
                    create=strtobool(self.env.get(self.CREATE_TABLE) or "yes"),
                    key_mode="msgpack",
                    value_mode="msgpack",
                )
        return self._logs[purpose]

    def close(self) -> None:
        self.client.close()

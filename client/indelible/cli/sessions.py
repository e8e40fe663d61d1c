"""From the options of a command to an open client and its logs.

The client's library is as slow to load as all the rest of a command: not before it is needed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from indelible.cli.options import Common
from indelible.cli.values import log_name
from indelible.modes import Mode

if TYPE_CHECKING:
    from indelible.blocking import Client, Log
    from indelible.client import AsyncClient
    from indelible.log import AsyncLog


@contextmanager
def client_of(common: Common) -> "Iterator[Client]":
    from indelible.blocking import Client

    with Client(common.profile, **_settings(common)) as client:
        yield client


def async_client_of(common: Common) -> "AsyncClient":
    from indelible.client import AsyncClient

    return AsyncClient(common.profile, **_settings(common))


def _settings(common: Common) -> dict[str, Any]:
    return {
        "database": common.database,
        "timeout_seconds": common.timeout_seconds,
        "ca_file": common.ca_file,
        "allow_plain_http": common.allow_plain_http,
    }


@contextmanager
def log_of(common: Common, log: str) -> "Iterator[Log]":
    """The log of this name, in the modes that it has."""
    with client_of(common) as client:
        yield client.log(log_name(log), key_mode=None, value_mode=None)


def modes_of(log: "Log | AsyncLog") -> tuple[Mode, Mode]:
    return Mode.named(log.key_mode), Mode.named(log.value_mode)

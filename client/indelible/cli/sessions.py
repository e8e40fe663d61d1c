"""From the options of a command to an open client and its logs."""

from collections.abc import Iterator
from contextlib import contextmanager

from indelible.blocking import Client, Log
from indelible.cli.options import Common
from indelible.cli.values import log_name
from indelible.modes import Mode


@contextmanager
def client_of(common: Common) -> Iterator[Client]:
    with Client(
        common.profile,
        database=common.database,
        timeout_seconds=common.timeout_seconds,
        ca_file=common.ca_file,
        allow_plain_http=common.allow_plain_http,
    ) as client:
        yield client


def opened(client: Client, log: str) -> Log:
    """The log of this name, in the modes that it has."""
    return client.log(log_name(log), key_mode=None, value_mode=None)


@contextmanager
def log_of(common: Common, log: str) -> Iterator[Log]:
    with client_of(common) as client:
        yield opened(client, log)


def modes_of(log: Log) -> tuple[Mode, Mode]:
    return Mode.named(log.key_mode), Mode.named(log.value_mode)

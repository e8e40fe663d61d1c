"""Many logs and long ones, written straight into the store: what loads stand on, never measured.

The store's own functions write all of it, so it is what the API would have written. A log is
grown by commits that are laid out once and sent again and again, which only the engine's time
bounds. Runs in a worker process; bounded in number. Knows nothing of HTTP.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import hiredis
from indelible_protocol.commands import Command, Op
from indelible_protocol.ids import LogId
from indelible_server.store.admission import LogIdentity, admit_opaque
from indelible_server.store.batching import BatchingRedis
from indelible_server.store.committing import Commits
from indelible_server.store.connection import connect
from indelible_server.store.errors import StoreUnavailable
from indelible_server.store.logs import Logs
from indelible_server.store.names import Scope
from redis.asyncio import Redis

from tests.benchmarks.figures import check

_AT_ONCE = 128
_SENT_AT_ONCE = 256
_PATIENCE_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """Opaque logs named `prefix`-0 and on."""

    url: str
    tenant: str
    prefix: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Growing:
    """`log_id` gets `commits` more versions, each of `batch` sets of values of `value_bytes`.

    They go round `keys` keys, each time with another value than before.
    """

    url: str
    socket: str
    tenant: str
    log_id: LogId
    commits: int
    keys: int
    value_bytes: int
    batch: int = 1


@asynccontextmanager
async def _store(url: str) -> AsyncIterator[Redis]:
    clients = connect(url, connections=4, timeout_seconds=_PATIENCE_SECONDS)
    try:
        yield clients.commands
    finally:
        await clients.close()


async def make_logs(plan: Making) -> list[LogId]:
    async with _store(plan.url) as store:
        logs, scope = Logs(store), Scope(tenant=plan.tenant)
        room = asyncio.Semaphore(_AT_ONCE)

        async def make(number: int) -> LogId:
            async with room:
                opened = await logs.create_opaque(scope, b"%b-%d" % (prefix, number), "")
            return opened.description.identity.log_id

        prefix = plan.prefix.encode()
        return await asyncio.gather(*(make(number) for number in range(plan.count)))


async def grow(plan: Growing) -> int:
    """The version that the log is at then.

    Raises:
        CheckFailed: a commit did not become a version.
    """
    async with _store(plan.url) as store:
        identity = await Logs(store).identify(plan.tenant, plan.log_id)
    each = plan.keys // plan.batch
    check(each * plan.batch == plan.keys, f"{plan.keys} keys in batches of {plan.batch}")
    if plan.commits <= each:  # all different: laid out as they are sent, held by nobody
        return await _send(plan.socket, _calls(identity, plan, plan.commits), plan.commits)
    calls = list(_calls(identity, plan, 2 * each))
    return await _send(plan.socket, cycle(calls), plan.commits)


def _calls(identity: LogIdentity, plan: Growing, count: int) -> Iterator[bytes]:
    """The calls of that many commits; all keys have had their turn before one has its second."""
    each = plan.keys // plan.batch
    for number in range(count):
        turn, first = number // each, number % each * plan.batch
        sets = [
            Command(
                Op.UPSERT,
                b"key-%09d" % key,
                value=(b"%d.%d." % (turn, key)).ljust(plan.value_bytes, b"v"),
            )
            for key in range(first, first + plan.batch)
        ]
        yield _call(identity, sets)


class _Keeping(BatchingRedis):
    """In the place of the store's client: keeps the call that it is asked for, sends nothing."""

    def __init__(self) -> None:
        self.call = b""

    def begin(self, command: Sequence[Any], deliver: Callable[[Any], None]) -> None:
        self.call = hiredis.pack_command(tuple(command))
        deliver(StoreUnavailable("nothing is sent from here"))


def _call(identity: LogIdentity, commands: Sequence[Command]) -> bytes:
    """The bytes of the commit function's call."""
    keeping = _Keeping()
    admitted = admit_opaque(identity, commands, b"", None)
    Commits(keeping).send(identity, admitted, lambda outcome: None)
    return keeping.call


async def _send(socket: str, calls: Iterator[bytes], count: int) -> int:
    """Sends `count` of the calls; the last version that they made.

    The next part is on its way while the answers to the one before it are read.
    """
    reader, writer = await asyncio.open_unix_connection(socket)
    replies = hiredis.Reader()
    left = islice(calls, count)
    version = sent = answered = 0
    try:
        while answered < count:
            while sent < count and sent - answered <= _SENT_AT_ONCE:
                part = list(islice(left, _SENT_AT_ONCE))
                writer.write(b"".join(part))
                sent += len(part)
            data = await asyncio.wait_for(reader.read(1 << 16), _PATIENCE_SECONDS)
            check(bool(data), "the engine hung up")
            replies.feed(data)
            while (reply := replies.gets()) is not False:
                check(isinstance(reply, list) and reply[1] == b"committed", f"a commit: {reply}")
                version = int(reply[2])
                answered += 1
    finally:
        writer.close()
    return version

"""Many logs and long ones, written straight into the store: what loads stand on, never measured.

Commits of several commands go through the store's own function. Logs, and versions of one command,
of which there are very many, are laid out as it leaves them (`laying`). Runs in a worker
process; bounded in number. Knows nothing of HTTP.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import hiredis
from indelible_protocol.commands import Command, Op
from indelible_protocol.ids import LogId
from indelible_server.store import keys
from indelible_server.store.admission import LogIdentity, admit_opaque
from indelible_server.store.batching import BatchingRedis
from indelible_server.store.committing import Commits
from indelible_server.store.connection import connect
from indelible_server.store.errors import StoreUnavailable
from indelible_server.store.logs import Logs
from indelible_server.store.names import Scope
from redis.asyncio import Redis

from tests.benchmarks import laying
from tests.benchmarks.figures import check
from tests.benchmarks.laying import MoreLogs, Part, Setting, Standing

MADE_BY_THE_STORE = 64
_PARTS_UNDER_WAY = 4
_HELD_AT_ONCE = 1_000
_PATIENCE_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """Opaque logs named `prefix`-0 and on. More than a few are made on one engine alone."""

    url: str
    socket: str
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
    names = [b"%b-%d" % (plan.prefix.encode(), number) for number in range(plan.count)]
    async with _store(plan.url) as store:
        logs, scope = Logs(store), Scope(tenant=plan.tenant)
        opened = await asyncio.gather(
            *(logs.create_opaque(scope, name, "") for name in names[:MADE_BY_THE_STORE])
        )
        made = [each.description.identity for each in opened]
        if len(made) == plan.count:
            return [identity.log_id for identity in made]
        meta = await store.execute_command("HGETALL", keys.of_log(made[0].log_id).meta)
    more = MoreLogs(made[0], meta)
    await _send(plan.socket, more.named(names[MADE_BY_THE_STORE:]))
    return [*(identity.log_id for identity in made), *more.made]


async def grow(plan: Growing) -> int:
    """The version that the log is at then.

    Raises:
        CheckFailed: a commit did not become a version.
    """
    each = plan.keys // plan.batch
    check(each * plan.batch == plan.keys, f"{plan.keys} keys in batches of {plan.batch}")
    async with _store(plan.url) as store:
        identity = await Logs(store).identify(plan.tenant, plan.log_id)
        standing = await _standing(store, plan)
    if plan.batch > 1:
        await _send(plan.socket, _calls(identity, plan))
    else:
        await _send(plan.socket, laying.versions(plan.log_id, standing, _settings(plan)))
    return standing.version + plan.commits


async def _standing(store: Redis, plan: Growing) -> Standing:
    log_keys = keys.of_log(plan.log_id)
    version, time_ms = await store.execute_command("HMGET", log_keys.meta, "version", "time_ms")
    held: dict[bytes, bytes] = {}
    for at in range(0, min(plan.keys, plan.commits) if int(version) else 0, _HELD_AT_ONCE):
        tokens = [key_of(number) for number in range(at, min(at + _HELD_AT_ONCE, plan.keys))]
        entries = await store.execute_command("HMGET", log_keys.index, *tokens)
        held |= {token: entry for token, entry in zip(tokens, entries, strict=True) if entry}
    now_ms = int(time.time() * 1_000)
    return Standing(version=int(version), time_ms=max(now_ms, int(time_ms)), held=held)


def key_of(number: int) -> bytes:
    return b"key-%09d" % number


def _value(plan: Growing, key: int, turn: int) -> bytes:
    return (b"%d.%d." % (turn % 2, key)).ljust(plan.value_bytes, b"v")


def _settings(plan: Growing) -> Iterator[Setting]:
    """One after the other; all keys have had their turn before one has its second."""
    turns = range(1 if plan.commits <= plan.keys else 2)
    made = (
        laying.setting(plan.log_id, key_of(key), _value(plan, key, turn))
        for turn in turns
        for key in range(plan.keys)
    )
    return islice(made if len(turns) == 1 else cycle(made), plan.commits)


def _calls(identity: LogIdentity, plan: Growing) -> Iterator[Part]:
    """The calls of the commit function."""
    each = plan.keys // plan.batch
    for number in range(plan.commits):
        turn, first = number // each, number % each * plan.batch
        sets = [
            Command(Op.UPSERT, key_of(key), value=_value(plan, key, turn))
            for key in range(first, first + plan.batch)
        ]
        yield Part(_call(identity, sets), 1)


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


async def _send(socket: str, parts: Iterable[Part]) -> None:
    """Sends them all; the next are made while the engine is at work.

    Raises:
        CheckFailed: the engine refused something.
    """
    reader, writer = await asyncio.open_unix_connection(socket)
    replies = hiredis.Reader()
    left = iter(parts)
    under_way: deque[int] = deque()  # of each part, the answers that are still to come
    part = next(left, None)
    try:
        while part is not None or under_way:
            if part is not None and len(under_way) < _PARTS_UNDER_WAY:
                writer.write(part.data)
                under_way.append(part.answers)
                part = next(left, None)
            data = await asyncio.wait_for(reader.read(1 << 16), _PATIENCE_SECONDS)
            check(bool(data), "the engine hung up")
            replies.feed(data)
            while (reply := replies.gets()) is not False:
                check(_is_done(reply), f"while a log was made: {reply}")
                under_way[0] -= 1
                if not under_way[0]:
                    under_way.popleft()
    finally:
        writer.close()


def _is_done(reply: Any) -> bool:
    if isinstance(reply, list):
        return bool(reply[1] == b"committed")
    return not isinstance(reply, Exception)

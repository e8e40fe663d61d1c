"""Diffs and single keys at any version are the reference's, whichever way they are found."""

import random
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import pytest
from indelible_protocol.commands import Command, Op
from indelible_protocol.diff import Change, Order, by_key, inverted
from indelible_protocol.ids import LogId
from indelible_server.store import blocks, materializing, nets, places, snapshots, spooling
from indelible_server.store.admission import admit_opaque
from indelible_server.store.committing import Commits
from indelible_server.store.connection import connect
from indelible_server.store.contents import Contents, Plan
from indelible_server.store.materializing import Materializing
from indelible_server.store.reading import Head, Reader
from indelible_server.store.snapshots import entry_of
from redis.asyncio import Redis

from tests.support.engines import Engine
from tests.support.grown_logs import GrownLog, grow, new_log

VERSIONS = 600
KEYS = 20
LONG_VERSIONS = 100_000
PAIRS = 1_000
Told = tuple[str, bytes, bytes, int]


@pytest.fixture
async def redis(engine: Engine) -> AsyncIterator[Redis]:
    clients = connect(engine.url, connections=8, timeout_seconds=10.0)
    yield clients.commands
    await clients.close()


@pytest.fixture
async def log(redis: Redis) -> GrownLog:
    log = await new_log(redis)
    await grow(redis, log, random.Random(1), versions=VERSIONS, keys=KEYS, deletes=0.4)
    return log


def expected(log: GrownLog, low: int, high: int, order: Order) -> list[Told]:
    changes: list[Change] = log.net(*sorted((low, high)))
    if low > high:
        changes = inverted(changes)
    if order == "key":
        changes = by_key(changes)
    told: list[Told] = []
    for change in changes:
        [command] = [
            command
            for command, effect in log.effects[change.version]
            if effect.command_index == change.command_index
        ]
        told.append((change.op, change.token, command.value, change.version))
    return told


async def paged(
    reader: Reader, log_id: LogId, head: Head, low: int, high: int, order: Order, limit: int
) -> list[Told]:
    found: list[Told] = []
    start = None
    while True:
        page = await reader.page(log_id, head, low, high, order, start, limit)
        assert len(page.changes) == limit or page.rest is None
        found += [
            (one.op, one.entry.key, one.entry.value, one.entry.version) for one in page.changes
        ]
        start = page.rest
        if start is None:
            return found


async def streamed(
    reader: Reader, log_id: LogId, head: Head, low: int, high: int, order: Order
) -> list[Told]:
    found: list[Told] = []
    async for changes, rest in reader.portions(log_id, head, low, high, order):
        assert changes or rest is None
        for change in changes:
            entry = entry_of(change)
            found.append((entry.op, entry.key, entry.value, entry.version))
    return found


Ways = Callable[[pytest.MonkeyPatch], None]


def as_they_are(patch: pytest.MonkeyPatch) -> None:
    pass


def by_places(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(nets, "FOLDED_VERSIONS", 0)


def by_a_file(patch: pytest.MonkeyPatch) -> None:
    by_places(patch)
    patch.setattr(spooling.Gathering.__init__, "__defaults__", (10,))
    patch.setattr(spooling, "_SOME", 3)


def by_sums(patch: pytest.MonkeyPatch) -> None:
    by_places(patch)
    for module in (places, blocks, materializing):
        patch.setattr(module, "BLOCK_VERSIONS", 16, raising=False)
        patch.setattr(module, "SUMMED_BLOCKS", 4, raising=False)


@pytest.mark.parametrize("ways", [as_they_are, by_places, by_a_file, by_sums])
@pytest.mark.parametrize("materialized", [0, 300, VERSIONS])
async def test_every_diff_is_the_reference_s(
    redis: Redis, log: GrownLog, monkeypatch: pytest.MonkeyPatch, ways: Ways, materialized: int
) -> None:
    ways(monkeypatch)
    log_id = log.identity.log_id
    await Materializing(redis).advance(log_id, materialized)
    reader = Reader(redis)
    head = await reader.head(log_id)
    rng = random.Random(2)
    pairs = [(rng.randint(0, VERSIONS), rng.randint(0, VERSIONS)) for _ in range(4)]
    pairs += [(0, VERSIONS), (VERSIONS, 0), (0, 0), (VERSIONS - 1, VERSIONS)]
    orders: list[Order] = ["command", "key"]
    for low, high in pairs:
        for order in orders:
            wanted = expected(log, low, high, order)
            for limit in (rng.randint(3, 9), 1_000):
                assert await paged(reader, log_id, head, low, high, order, limit) == wanted
            assert await streamed(reader, log_id, head, low, high, order) == wanted


async def test_keys_that_ended_long_before_are_told_of_by_sums(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_sums(monkeypatch)
    rng, log = random.Random(3), await new_log(redis)
    await grow(redis, log, rng, versions=70, keys=50, deletes=0.0)
    await grow(redis, log, rng, versions=40, keys=50, deletes=0.8)
    await grow(redis, log, rng, versions=150, keys=3)
    reader, log_id = Reader(redis), log.identity.log_id
    await Materializing(redis).advance(log_id, log.version)
    head = await reader.head(log_id)
    orders: list[Order] = ["command", "key"]
    for low in (60, 70, 90):
        for order in orders:
            wanted = expected(log, low, log.version, order)
            assert sum(op == "remove" for op, *_ in wanted) > 20
            assert await streamed(reader, log_id, head, low, log.version, order) == wanted


@pytest.mark.parametrize("materialized", [0, 300, VERSIONS])
async def test_every_key_at_every_version_is_the_reference_s(
    redis: Redis, log: GrownLog, materialized: int
) -> None:
    log_id = log.identity.log_id
    await Materializing(redis).advance(log_id, materialized)
    reader = Reader(redis)
    rng = random.Random(3)
    tokens = [b"key %d" % number for number in range(KEYS + 1)]
    for _ in range(15):
        version = rng.randint(0, VERSIONS)
        live = {one.token: (one.value, one.version) for one in log.contents(version)}
        for some in ([rng.choice(tokens)], tokens):
            _, found = await reader.entries(log_id, some, version)
            assert [(one.key, (one.value, one.version)) for one in found] == [
                (token, live[token]) for token in some if token in live
            ]


async def test_hashes_that_are_equal_are_told_apart(
    redis: Redis, log: GrownLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "_hash", lambda token: b"constant")
    await test_every_key_at_every_version_is_the_reference_s(redis, log, VERSIONS)


async def test_a_long_stream_begins_before_its_way_is_found(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_places(monkeypatch)
    ways = []
    find = Contents.plan

    async def plan(self: Contents, log_id: LogId, version: int, **rest: Any) -> Plan:
        ways.append(version)
        return await find(self, log_id, version, **rest)

    monkeypatch.setattr(Contents, "plan", plan)
    rng, log = random.Random(4), await new_log(redis)
    log_id = log.identity.log_id
    await grow(redis, log, rng, versions=1, keys=1, deletes=0.0)
    await grow(redis, log, rng, versions=300, keys=1 << 60, deletes=0.0)
    for is_whole in (True, False):
        reader = Reader(redis)
        head = await reader.head(log_id)
        for version in (1, 5, 40, log.version):
            ways.clear()
            async with aclosing(reader.portions(log_id, head, 0, version, "command")) as portions:
                assert (await anext(portions)).changes
                assert ways == ([] if is_whole else [version])
            wanted = expected(log, 0, version, "command")
            assert await streamed(reader, log_id, head, 0, version, "command") == wanted
        await grow(redis, log, rng, versions=20, keys=1, deletes=0.5)
        await Materializing(redis).advance(log_id, log.version)


@pytest.mark.torture
@pytest.mark.timeout(1_800)
async def test_a_thousand_diffs_of_a_long_log_are_the_reference_s(redis: Redis) -> None:
    """Batches, bursts of deletions, and a materializer that is behind by more and more."""
    rng = random.Random(5)
    log = await new_log(redis)
    log_id = log.identity.log_id
    for part in range(LONG_VERSIONS // 10_000):
        await grow(
            redis,
            log,
            rng,
            versions=10_000,
            keys=(50, 3_000)[part % 2],
            most_commands=(2, 12)[part % 3 == 0],
            deletes=rng.choice((0.0, 0.1, 0.6)),
        )
        if part < LONG_VERSIONS // 10_000 - 2:
            await Materializing(redis).advance(log_id, log.version)
    reader = Reader(redis)
    head = await reader.head(log_id)
    orders: list[Order] = ["command", "key"]
    for number in range(PAIRS):
        low = rng.randint(0, log.version)
        near = rng.random() < 0.5
        high = (
            min(log.version, low + rng.randint(0, 3_000)) if near else rng.randint(0, log.version)
        )
        order = orders[number % 2]
        wanted = expected(log, low, high, order)
        assert await streamed(reader, log_id, head, low, high, order) == wanted, (low, high, order)


async def test_memory_of_a_walk_does_not_grow_with_the_log(redis: Redis) -> None:
    log = await new_log(redis)
    log_id = log.identity.log_id
    commits, count = Commits(redis), 20_000
    for at in range(0, count, 500):
        tokens = [b"key %d" % number for number in range(at, at + 500)]
        commands = [Command.on_plain_value(Op.UPSERT, token, b"v" * 1_500) for token in tokens]
        await commits.commit(log.identity, admit_opaque(log.identity, commands, b"", None))
    reader = Reader(redis)
    head = await reader.head(log_id)
    found = 0
    tracemalloc.start()
    try:
        async for changes, _ in reader.portions(log_id, head, 0, head.version, "command"):
            found += len(changes)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == count
    assert most < 12 << 20  # the entries are 30 MiB

"""Contents at any version are the reference's, whatever of the materializer's work is there."""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest
from indelible_protocol.commands import Command, Op, encode
from indelible_protocol.ids import LogId
from indelible_server.store import keys
from indelible_server.store.connection import connect
from indelible_server.store.contents import Contents
from indelible_server.store.logs import Logs
from indelible_server.store.materializing import Gone, Materializing
from indelible_server.store.places import index_of, place_of, version_of
from indelible_server.store.snapshots import entry_of, record, record_at
from redis.asyncio import Redis

from tests.support.engines import Engine
from tests.support.grown_logs import GrownLog, Known, grow, new_log
from tests.support.killing import KilledError, killing
from tests.support.polling import until

VERSIONS = 1_500


@pytest.fixture
async def redis(engine: Engine) -> AsyncIterator[Redis]:
    clients = connect(engine.url, connections=8, timeout_seconds=10.0)
    yield clients.commands
    await clients.close()


@pytest.fixture
async def log(redis: Redis) -> GrownLog:
    log = await new_log(redis)
    await grow(redis, log, random.Random(1), versions=VERSIONS, keys=40)
    return log


async def contents(redis: Redis, log: GrownLog, version: int, first: int = 0) -> list[Known]:
    reading = Contents(redis)
    log_id = log.identity.log_id
    plan = await reading.plan(log_id, version)
    found = []
    async for stretch in reading.stretches(log_id, plan, first):
        for place, packed in zip(*stretch, strict=True):
            entry = entry_of(packed)
            assert entry.version == version_of(place)
            found.append(Known(entry.version, index_of(place), entry.key, entry.value))
    return found


async def stored(redis: Redis, log: GrownLog) -> dict[str, object]:
    """All that the materializer has written."""
    snapshots, chunks, blocks, progress = keys.materialized(log.identity.log_id).all()
    return {
        snapshots: await redis.zrange(snapshots, 0, -1),
        **{key: await redis.hgetall(key) for key in (chunks, blocks, progress)},
    }


async def test_contents_are_the_reference_s_with_and_without_snapshots(
    redis: Redis, log: GrownLog
) -> None:
    rng = random.Random(2)
    some = [0, 1, VERSIONS, *(rng.randint(0, VERSIONS) for _ in range(30))]
    for _ in range(2):
        for version in some:
            expected = log.contents(version)
            assert await contents(redis, log, version) == expected
            first = place_of(rng.randint(0, version), rng.randrange(3))
            rest = [one for one in expected if place_of(one.version, one.command_index) >= first]
            assert await contents(redis, log, version, first) == rest
        await Materializing(redis).advance(log.identity.log_id, VERSIONS)
    listed = await redis.zcard(keys.materialized(log.identity.log_id).snapshots)
    assert listed >= 2


async def test_a_materializer_killed_anywhere_leaves_right_contents_and_is_taken_up(
    redis: Redis, log: GrownLog
) -> None:
    log_id = log.identity.log_id
    await Materializing(redis).advance(log_id, VERSIONS)
    whole = await stored(redis, log)
    await redis.delete(*keys.materialized(log_id).all())
    rng = random.Random(3)
    points: list[str] = []
    killed = True
    while killed:
        await redis.delete(*keys.materialized(log_id).all())
        reach, passed = killing(len(points))
        killed = False
        try:
            await Materializing(redis, reach=reach).advance(log_id, VERSIONS)
        except KilledError:
            killed = True
        points = passed
        version = rng.randint(1, VERSIONS)
        assert await contents(redis, log, version) == log.contents(version)
        await Materializing(redis).advance(log_id, VERSIONS)
        assert await stored(redis, log) == whole
    assert {"before_block", "after_block", "before_pieces", "before_listing"} < set(points)


async def test_two_materializers_write_the_same_once(redis: Redis, log: GrownLog) -> None:
    log_id = log.identity.log_id
    await asyncio.gather(*(Materializing(redis).advance(log_id, VERSIONS) for _ in range(3)))
    together = await stored(redis, log)
    await redis.delete(*keys.materialized(log_id).all())
    await Materializing(redis).advance(log_id, VERSIONS)
    assert await stored(redis, log) == together


async def begun(redis: Redis, log_id: LogId) -> bool:
    return bool(await redis.exists(keys.materialized(log_id).chunks))


async def test_a_log_that_only_grows_has_no_snapshot_and_a_deleted_one_nothing_at_all(
    redis: Redis,
) -> None:
    grown = await new_log(redis)
    log_id = grown.identity.log_id
    await grow(redis, grown, random.Random(4), versions=1_100, keys=1 << 40, deletes=0.0)
    await Materializing(redis).advance(log_id, grown.version)
    assert await redis.zcard(keys.materialized(log_id).snapshots) == 0
    assert await redis.hlen(keys.materialized(log_id).blocks) == 4

    slow = Materializing(redis, pause_seconds=0.2)
    writing = asyncio.create_task(slow.write_snapshot(log_id, 1_024, 1_024))
    await until(lambda: begun(redis, log_id))
    await Logs(redis).delete(grown.identity)
    with pytest.raises(Gone):
        await writing
    with pytest.raises(Gone):
        await Materializing(redis).advance(log_id, grown.version)
    assert await redis.keys("{" + log_id.hex() + "}:*") == [keys.of_log(log_id).meta.encode()]


@pytest.mark.parametrize("size", [0, 1, 255, 256, 65_535, 65_536])
def test_an_entry_cut_out_of_its_commit_is_what_msgpack_makes_of_it(size: int) -> None:
    for key_bytes in (1, 255, 256, 1_024):
        for sealed_bytes in (0, 255, 256):
            key, sealed_key, value = b"k" * key_bytes, b"s" * sealed_bytes, b"v" * size
            body = b"before" + encode(Command(Op.UPSERT, key, sealed_key, value)) + b"behind"
            for version in (1, 127, 128, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, 2**51):
                expected = record(key, sealed_key, value, version)
                assert record_at(body, len(b"before"), version) == expected

"""Forgetting: what can be read stays right, what cannot is told as such, and memory comes back."""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest
from indelible_protocol.errors import ErrorCode
from indelible_protocol.ids import LogId
from indelible_protocol.records import Header
from indelible_server.store import keys
from indelible_server.store.connection import connect
from indelible_server.store.errors import Refusal
from indelible_server.store.forgetting import Advance, Forgetting
from indelible_server.store.kept import KeptHeaders
from indelible_server.store.logs import Logs
from indelible_server.store.materializing import Materializing
from indelible_server.store.reading import Reader
from indelible_server.store.versions import MissingError
from redis.asyncio import Redis

from tests.support.engines import Engine
from tests.support.grown_logs import GrownLog, grow, new_log
from tests.support.killing import KilledError, killing
from tests.support.read_back import (
    KEYS,
    check_all,
    check_entries,
    expected_diff,
    read_diff,
    stream_diff,
)

VERSIONS = 520


@pytest.fixture
async def redis(engine: Engine) -> AsyncIterator[Redis]:
    clients = connect(engine.url, connections=16, timeout_seconds=10.0)
    yield clients.commands
    await clients.close()


@pytest.fixture
async def log(redis: Redis) -> GrownLog:
    log = await new_log(redis)
    await grow(redis, log, random.Random(1), versions=VERSIONS, keys=KEYS)
    return log


async def forget(redis: Redis, log: GrownLog, before: int) -> None:
    forgetting = Forgetting(redis)
    await forgetting.begin(log.identity.log_id, before)
    await forgetting.run(log.identity.log_id, before)


async def test_what_can_be_read_after_a_forget_is_what_it_was(redis: Redis, log: GrownLog) -> None:
    rng = random.Random(2)
    await check_all(redis, log, rng)
    for before in (1, 2, 256, 300, 301, VERSIONS):
        await forget(redis, log, before)
        assert (await Reader(redis).head(log.identity.log_id)).first_version == before
        await check_all(redis, log, rng)
    await grow(redis, log, rng, versions=260, keys=KEYS)
    await Materializing(redis).advance(log.identity.log_id, log.version)
    await check_all(redis, log, rng)


async def test_forgetting_never_goes_back_and_never_beyond_the_head(
    redis: Redis, log: GrownLog
) -> None:
    await forget(redis, log, 300)
    everything = await stored(redis, log.identity.log_id)
    await forget(redis, log, 200)
    await forget(redis, log, 300)
    assert await stored(redis, log.identity.log_id) == everything
    with pytest.raises(Refusal) as caught:
        await forget(redis, log, VERSIONS + 1)
    assert caught.value.code is ErrorCode.NONEXISTENT_VERSION


async def test_a_forget_that_was_lost_does_not_keep_an_earlier_one_from_its_end(
    redis: Redis, log: GrownLog
) -> None:
    log_id = log.identity.log_id
    await Forgetting(redis).begin(log_id, 400)  # and its process is lost
    await forget(redis, log, 100)
    outcome = await Forgetting(redis).outcome(log_id)
    assert outcome.forgotten == outcome.first_version == 100
    assert await Forgetting(redis).has_begun(log_id, 400)
    assert not await Forgetting(redis).has_begun(log_id, 401)
    await forget(redis, log, 400)
    assert (await rows_of(redis, log_id))[0][0] == b"400-0"


async def test_a_stream_with_a_hole_is_told_as_damage(redis: Redis, log: GrownLog) -> None:
    log_id = log.identity.log_id
    await Forgetting(redis).begin(log_id, 200)
    reach, _ = killing(8)
    with pytest.raises(KilledError):
        await Forgetting(redis, reach=reach).run(log_id, 200)
    assert (await Reader(redis).head(log_id)).first_version == 200
    await redis.execute_command("XDEL", keys.of_log(log_id).commits, "150-0")
    with pytest.raises(MissingError):
        await asyncio.wait_for(Forgetting(redis).run(log_id, 200), 20)


async def rows_of(redis: Redis, log_id: LogId) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """The versions in the stream."""
    commits = keys.of_log(log_id).commits
    rows: list[tuple[bytes, dict[bytes, bytes]]]
    rows = await redis.execute_command("XRANGE", commits, "-", "+")
    return rows


async def hash_of(redis: Redis, key: str) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = await redis.execute_command("HGETALL", key)
    return found


async def stored(redis: Redis, log_id: LogId) -> dict[str, object]:
    snapshots, chunks, blocks, progress = keys.materialized(log_id).all()
    return {
        "oldest": (await rows_of(redis, log_id))[0][0],
        "meta": await redis.hgetall(keys.of_log(log_id).meta),
        snapshots: await redis.zrange(snapshots, 0, -1),
        **{key: await redis.hgetall(key) for key in (chunks, blocks, progress, keys.kept(log_id))},
    }


async def test_a_forget_killed_at_any_step_leaves_right_answers_and_goes_on(
    redis: Redis, engine: Engine
) -> None:
    rng = random.Random(3)
    log = await new_log(redis)
    log_id = log.identity.log_id
    points: set[str] = set()
    kills, before = 0, 0
    for round_ in range(4):
        await grow(redis, log, rng, versions=rng.randint(60, 200), keys=KEYS)
        if round_ % 2:
            await Materializing(redis).advance(log_id, log.version)
        before = rng.randint(before + 1, log.version)
        step, killed = 0, True
        while killed:
            reach, passed = killing(step)
            killed = False
            try:
                forgetting = Forgetting(redis, reach=reach)
                await forgetting.begin(log_id, before)
                await forgetting.run(log_id, before)
            except KilledError:
                killed, kills = True, kills + 1
            points |= set(passed)
            step += 1
            await check_all(redis, log, rng, times=3)
        outcome = await Forgetting(redis).outcome(log_id)
        assert outcome.forgotten == outcome.first_version == before
    assert kills > 12
    assert points >= {
        *("after_wish", "before_pieces", "before_listing", "before_floor", "after_floor"),
        *("before_trim", "after_trim", "before_sweep", "before_end"),
    }
    rows = await rows_of(redis, log_id)
    assert rows[0][0] == b"%d-0" % before


async def test_readers_at_or_above_the_floor_never_fail_while_several_forget(
    redis: Redis, log: GrownLog
) -> None:
    """Doubled, with different versions, beside pages of diffs, entries and a materializer."""
    rng, log_id = random.Random(4), log.identity.log_id
    wanted = [150, 256, 257, 400, 512]
    told: list[int] = []
    done = asyncio.Event()

    async def read(seed: int) -> None:
        own, reader = random.Random(seed), Reader(redis)
        while not done.is_set():
            low, high = own.choice([0, own.randint(1, VERSIONS)]), VERSIONS
            low = min(low, high)
            refusal = None
            try:
                expected = expected_diff(log, low, high)
                assert await read_diff(reader, log, low, high, page=7) == expected
                assert await stream_diff(reader, log, low, high) == expected
            except Refusal as caught:
                refusal = caught
            if refusal is not None:
                assert refusal.code is ErrorCode.FORGOTTEN_VERSION, refusal.message
                assert 0 < low < refusal.details["first_version"] <= max(wanted)
                told.append(low)
                continue
            await check_entries(reader, log, own.choice([max(wanted), VERSIONS]))

    async def one(before: int) -> None:
        forgetting = Forgetting(redis, pause_seconds=0.005)
        await asyncio.sleep(before / 1_000)
        await forgetting.begin(log_id, before)
        await forgetting.run(log_id, before)

    reading = [asyncio.create_task(read(seed)) for seed in range(4)]
    try:
        await asyncio.gather(
            *(one(before) for before in wanted),
            *(one(before) for before in rng.sample(wanted, 4)),
            Materializing(redis).advance(log_id, 0),
        )
        await asyncio.sleep(0.05)
    finally:
        done.set()
        await asyncio.gather(*reading)
    assert told
    outcome = await Forgetting(redis).outcome(log_id)
    assert outcome.forgotten == outcome.first_version == max(wanted)
    chunks = await redis.execute_command("HKEYS", keys.materialized(log_id).chunks)
    assert {int(field.partition(b":")[0]) for field in chunks} == {max(wanted)}
    await check_all(redis, log, rng)


async def test_headers_and_signatures_of_forgotten_versions_stay(
    redis: Redis, log: GrownLog
) -> None:
    log_id = log.identity.log_id
    known = {
        int(stream_id.partition(b"-")[0]): (int(fields[b"t"]), fields[b"h"], fields[b"s"])
        for stream_id, fields in await rows_of(redis, log_id)
    }
    advances: list[Advance] = []
    forgetting = Forgetting(redis)
    await forgetting.begin(log_id, 500)
    await forgetting.run(log_id, 500, advances.append)
    assert [each.step for each in advances][:1] == ["base"]
    assert advances[-1].step == "sweep"
    kept = {}
    size = 0
    for field, data in (await hash_of(redis, keys.kept(log_id))).items():
        size += len(data)
        for at, row in enumerate(zip(*KeptHeaders.decode(data), strict=True), int(field)):
            kept[at] = row
    assert kept == {at: known[at] for at in range(1, 500)}
    assert Header.decode(kept[1][1]).log_id == log_id
    assert size / 499 < 80  # bytes a version; 250 of a header before


async def test_the_log_s_stored_bytes_are_counted_and_come_back(
    redis: Redis, log: GrownLog
) -> None:
    log_id = log.identity.log_id
    logs = Logs(redis)
    before = (await logs.describe(log.identity)).stored_bytes
    await forget(redis, log, VERSIONS)
    outcome = await Forgetting(redis).outcome(log_id)
    described = await logs.describe(log.identity)
    assert outcome.bytes_before == before
    assert outcome.bytes_now == described.stored_bytes < before / 3
    held = 0
    for key in (keys.kept(log_id), keys.materialized(log_id).chunks):
        held += sum(len(data) for data in (await hash_of(redis, key)).values())
    rows = await rows_of(redis, log_id)
    held += sum(len(fields[name]) for _, fields in rows for name in (b"h", b"s", b"b", b"e"))
    genesis = await redis.hmget(
        keys.of_log(log_id).meta, "genesis_header", "genesis_signature", "genesis_body"
    )
    assert described.stored_bytes == held + sum(len(data or b"") for data in genesis)


async def test_a_log_deleted_while_it_forgets_leaves_nothing(redis: Redis, log: GrownLog) -> None:
    log_id = log.identity.log_id
    deleted: list[asyncio.Task[int]] = []
    forgetting = Forgetting(redis, pause_seconds=0.05)
    await forgetting.begin(log_id, 500)

    def tell(advance: Advance) -> None:
        if advance.step == "trim" and not deleted:
            deleted.append(asyncio.create_task(Logs(redis).delete(log.identity)))

    with pytest.raises(Refusal) as caught:
        await forgetting.run(log_id, 500, tell)
    assert caught.value.code is ErrorCode.LOG_REPLACED
    await asyncio.gather(*deleted)
    assert await redis.keys("{" + log_id.hex() + "}:*") == [keys.of_log(log_id).meta.encode()]

"""What is cold of a log goes to the archive and is read back as if it had never gone."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
from indelible_protocol.errors import ErrorCode
from indelible_protocol.ids import LogId
from indelible_server.materializer.mover import Mover
from indelible_server.store import bundles, functions, keys
from indelible_server.store.archive import Archive, NoArchiveError
from indelible_server.store.archiving import LATE_SECONDS, Archiving
from indelible_server.store.bundles import Segment
from indelible_server.store.connection import connect, end_tasks
from indelible_server.store.errors import Refusal
from indelible_server.store.forgetting import Forgetting
from indelible_server.store.kept import KeptHeaders
from indelible_server.store.logs import Logs
from indelible_server.store.materializing import Gone, Materializing
from indelible_server.store.moving import Moving
from indelible_server.store.names import Names, Scope
from indelible_server.store.objects import Folder, LostObject, Objects
from indelible_server.store.reading import Reader
from indelible_server.store.snapshots import Snapshot
from indelible_server.store.tenants import Tenants
from indelible_server.store.versions import Versions
from indelible_server.store.watched_objects import WatchedObjects, watched_objects
from indelible_server.telemetry import Metrics
from redis.asyncio import Redis

from tests.support.engines import Engine
from tests.support.grown_logs import GrownLog, grow, new_log
from tests.support.killing import KilledError, killing
from tests.support.polling import until
from tests.support.read_back import KEYS, check_all, expected_diff, read_diff

VERSIONS = 360
BUDGET = 40 << 10


@pytest.fixture
async def redis(engine: Engine) -> AsyncIterator[Redis]:
    clients = connect(engine.url, connections=16, timeout_seconds=10.0)
    yield clients.commands
    await clients.close()


@pytest.fixture
def objects(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "archive")


@pytest.fixture
def files(tmp_path: Path) -> Callable[[], set[str]]:
    """The names of the objects in the folder."""

    def named() -> set[str]:
        return {path.name for path in (tmp_path / "archive").rglob("*") if path.is_file()}

    return named


@pytest.fixture
async def log(redis: Redis) -> GrownLog:
    """With some blocks and snapshots."""
    log = await new_log(redis)
    await grow(redis, log, random.Random(1), versions=VERSIONS, keys=KEYS)
    materializing = Materializing(redis)
    await materializing.advance(log.identity.log_id, log.version)
    for version in (100, 200, 300):
        changes = await materializing.changes_up_to(log.identity.log_id, version)
        await materializing.write_snapshot(log.identity.log_id, version, changes)
    return log


def moving(
    redis: Redis,
    objects: Objects,
    reach: Callable[[str], None] = lambda point: None,
    *,
    budget: int = BUDGET,
) -> Moving:
    return Moving(redis, Archive(redis, objects), budget_bytes=budget, reach=reach)


async def listed(redis: Redis, log_id: LogId) -> set[str]:
    """Names of the objects that the log lists."""
    archived = keys.archived(log_id)
    parts = await redis.execute_command("HVALS", archived.parts)
    names = {segment.name for segment in await segments_of(redis, log_id)}
    return names | {part.name for data in parts for part in bundles.decode_parts(data)}


async def segments_of(redis: Redis, log_id: LogId) -> list[Segment]:
    found = await redis.execute_command("ZRANGE", keys.archived(log_id).segments, 0, -1)
    return [Segment.decode(data) for data in found]


async def oldest(redis: Redis, log_id: LogId) -> int:
    rows: list[tuple[bytes, dict[bytes, bytes]]]
    rows = await redis.execute_command("XRANGE", keys.of_log(log_id).commits, "-", "+", "COUNT", 1)
    return int(rows[0][0].partition(b"-")[0])


async def snapshots_in_store(redis: Redis, log_id: LogId) -> set[int]:
    fields = await redis.execute_command("HKEYS", keys.materialized(log_id).chunks)
    return {int(field.partition(b":")[0]) for field in fields}


async def test_everything_is_read_back_after_the_copy_in_the_store_is_gone(
    redis: Redis, log: GrownLog, objects: Folder, files: Callable[[], set[str]]
) -> None:
    log_id, rng = log.identity.log_id, random.Random(2)
    archive = Archive(redis, objects)
    await check_all(redis, log, rng, times=2, archive=archive)  # which shall not remember it
    known = {Snapshot.decode(data).version for data in await listed_snapshots(redis, log_id)}
    moved = await moving(redis, objects).move(log_id)
    assert moved.is_done
    assert len(moved.segments) > 5
    assert [each.version for each in moved.snapshots] == sorted(known)[:-1]
    begins = await oldest(redis, log_id)
    assert 200 < begins == moved.segments[-1].last + 1 < VERSIONS
    assert await snapshots_in_store(redis, log_id) == {max(known)}
    assert files() == await listed(redis, log_id)
    assert not await redis.exists(keys.archived(log_id).unlisted)
    await check_all(redis, log, rng, times=6, archive=Archive(redis, objects))
    await check_all(redis, log, rng, times=4, archive=archive)
    await grow(redis, log, rng, versions=200, keys=KEYS)
    await Materializing(redis, archive).advance(log_id, log.version)
    assert (await moving(redis, objects).move(log_id)).segments
    await check_all(redis, log, rng, times=6, archive=archive)


async def listed_snapshots(redis: Redis, log_id: LogId) -> list[bytes]:
    found: list[bytes]
    found = await redis.execute_command("ZRANGE", keys.materialized(log_id).snapshots, 0, -1)
    return found


async def test_a_bucket_does_as_well_as_a_folder(redis: Redis, log: GrownLog, bucket: str) -> None:
    log_id, rng = log.identity.log_id, random.Random(11)
    metrics = Metrics()
    objects = watched_objects(bucket + "/indelible", metrics)
    assert objects is not None
    archive = Archive(redis, objects)
    mover = Moving(redis, archive, budget_bytes=BUDGET)
    assert len((await mover.move(log_id)).segments) > 5
    await check_all(redis, log, rng, times=2, archive=archive)
    await forget(redis, objects, log, 150)
    await check_all(redis, log, rng, times=2, archive=archive)
    names = await listed(redis, log_id)
    assert len(names) > 3
    await Logs(redis).delete(log.identity)
    await mover.end_deleted()
    for name in names:
        with pytest.raises(LostObject):
            await objects.get(log_id, name)
    told = metrics.registry.get_sample_value
    for done in ("put", "got", "deleted"):
        assert told("indelible_archive_objects_total", {"done": done})
    assert told("indelible_archive_bytes_total", {"done": "got"})


async def test_an_object_store_that_hangs_is_not_waited_for(tmp_path: Path) -> None:
    class Hanging(Folder):
        async def get(self, log_id: LogId, name: str) -> bytes:
            await asyncio.Event().wait()
            raise AssertionError

    metrics = Metrics()
    objects = WatchedObjects(Hanging(tmp_path), metrics, get_seconds=0.05)
    with pytest.raises(Refusal) as caught:
        await objects.get(LogId(bytes(32)), "0" * 64)
    assert caught.value.code is ErrorCode.OVERLOADED
    failed = {"done": "failed"}
    assert metrics.registry.get_sample_value("indelible_archive_objects_total", failed) == 1


async def test_a_log_within_its_budget_and_what_was_committed_of_late_stay(
    redis: Redis, log: GrownLog, objects: Folder
) -> None:
    log_id = log.identity.log_id
    for budget in (1 << 20, 0):
        mover = moving(redis, objects, budget=budget)
        assert await mover.oversized([log_id]) == []
        assert (await mover.move(log_id)).segments == []
        assert await oldest(redis, log_id) == 1
    mover = moving(redis, objects)
    assert await mover.oversized([log_id, LogId(bytes(32))]) == [log_id]
    before = (await Logs(redis).describe(log.identity)).stored_bytes
    await mover.move(log_id)
    assert await mover.oversized([log_id]) == []
    rows = await redis.execute_command("XRANGE", keys.of_log(log_id).commits, "-", "+")
    held = sum(len(fields[name]) for _, fields in rows for name in (b"h", b"s", b"b", b"e"))
    assert BUDGET // 4 <= held <= BUDGET // 2
    meta = await hash_of(redis, keys.of_log(log_id).meta)
    assert (await Logs(redis).describe(log.identity)).stored_bytes == before
    genesis = sum(
        len(meta[name]) for name in (b"genesis_header", b"genesis_signature", b"genesis_body")
    )
    assert int(meta[b"archived_bytes"]) == before - held - genesis


async def test_a_mover_killed_at_any_step_leaves_right_answers_and_is_taken_up(
    redis: Redis, log: GrownLog, objects: Folder, files: Callable[[], set[str]]
) -> None:
    """Each is killed a step later than the one before it: so all that is done is done in parts."""
    log_id, rng = log.identity.log_id, random.Random(3)
    points: set[str] = set()
    step, killed = 0, True
    while killed:
        reach, passed = killing(step)
        killed = False
        try:
            assert (await moving(redis, objects, reach).move(log_id)).is_done
        except KilledError:
            killed = True
        points |= set(passed)
        step += 1
        await check_all(redis, log, rng, times=1, archive=Archive(redis, objects))
    assert points == {"before_put", "after_put", "after_segment", "after_parts", "before_drop"}
    assert step > 5
    left = files() - await listed(redis, log_id)
    noted = await redis.execute_command("HKEYS", keys.archived(log_id).unlisted)
    assert left <= {name.decode() for name in noted}
    await grow(redis, log, rng, versions=100, keys=KEYS)
    await moving(redis, objects).move(log_id)
    assert files() == await listed(redis, log_id)
    assert len(await snapshots_in_store(redis, log_id)) == 1


async def test_several_movers_at_once_move_everything_once(
    redis: Redis, log: GrownLog, objects: Folder, files: Callable[[], set[str]]
) -> None:
    log_id = log.identity.log_id
    movers = [moving(redis, objects) for _ in range(3)]
    await asyncio.gather(*(mover.move(log_id) for mover in movers))
    await movers[0].move(log_id)
    assert await movers[0].oversized([log_id]) == []
    ends = [segment[:2] for segment in await segments_of(redis, log_id)]
    assert [first for first, _ in ends] == [1, *(last + 1 for _, last in ends[:-1])]
    assert files() == await listed(redis, log_id)
    await check_all(redis, log, random.Random(4), times=4, archive=Archive(redis, objects))


async def test_readers_never_fail_while_what_they_read_is_moved_and_forgotten(
    redis: Redis, log: GrownLog, objects: Folder, files: Callable[[], set[str]]
) -> None:
    log_id, done = log.identity.log_id, asyncio.Event()
    told: list[int] = []

    async def read(seed: int) -> None:
        own, archive = random.Random(seed), Archive(redis, objects, cached_bytes=20_000)
        reader = Reader(redis, archive=archive)
        while not done.is_set():
            low, high = own.choice([0, own.randint(1, VERSIONS)]), VERSIONS
            refusal = None
            try:
                found = await read_diff(reader, log, low, high, page=own.choice([7, 1_000]))
                assert found == expected_diff(log, low, high)
            except Refusal as caught:
                refusal = caught
            if refusal is not None:
                assert refusal.code is ErrorCode.FORGOTTEN_VERSION, refusal.message
                told.append(low)

    reading = [asyncio.create_task(read(seed)) for seed in range(4)]
    try:
        archive = Archive(redis, objects)
        mover = Moving(redis, archive, budget_bytes=BUDGET, pause_seconds=0.01)
        for before in (60, 200, 250):
            forgetting = Forgetting(redis, archive, pause_seconds=0.005)
            await forgetting.begin(log_id, before)
            await asyncio.gather(mover.move(log_id), forgetting.run(log_id, before))
        await mover.move(log_id)
    finally:
        done.set()
        await asyncio.gather(*reading)
    assert told
    await moving(redis, objects).move(log_id)
    assert files() == await listed(redis, log_id)
    await check_all(redis, log, random.Random(5), times=4, archive=archive)


async def forget(redis: Redis, objects: Objects, log: GrownLog, before: int) -> Forgetting:
    forgetting = Forgetting(redis, Archive(redis, objects))
    await forgetting.begin(log.identity.log_id, before)
    await forgetting.run(log.identity.log_id, before)
    return forgetting


def bodies(tmp_path: Path, log_id: LogId) -> bytes:
    """All that the archive says of the log."""
    from indelible_server.store import bundles

    found = [path.read_bytes() for path in (tmp_path / "archive").rglob("*") if path.is_file()]
    return b"".join(bundles.decode(log_id, data).data for data in found)


async def headers_of(redis: Redis, log: GrownLog) -> dict[int, tuple[int, bytes, bytes]]:
    reader = Reader(redis)
    found: dict[int, tuple[int, bytes, bytes]] = {}
    head = await reader.head(log.identity.log_id)
    at = 0
    while at < log.version:
        some = await reader.commits(log.identity.log_id, head, at, log.version)
        found |= {each.version: (each.time_ms, each.header, each.signature) for each in some}
        at = some[-1].version
    return found


def values_in_archive(tmp_path: Path, log: GrownLog) -> set[bytes]:
    found = [path.read_bytes() for path in (tmp_path / "archive").rglob("*") if path.is_file()]
    log_id = log.identity.log_id
    text = b"".join(bundles.decode(log_id, data).data for data in found)
    return {
        command.value
        for effects in log.effects
        for command, effect in effects
        if effect.adds and command.value in text
    }


@pytest.mark.parametrize("before", [2, 150, 200, VERSIONS])
async def test_what_is_forgotten_is_gone_from_the_archive_too(
    redis: Redis,
    log: GrownLog,
    objects: Folder,
    files: Callable[[], set[str]],
    tmp_path: Path,
    before: int,
) -> None:
    log_id, rng = log.identity.log_id, random.Random(before)
    headers = await headers_of(redis, log)
    await moving(redis, objects).move(log_id)
    moved = values_in_archive(tmp_path, log)
    forgetting = await forget(redis, objects, log, before)
    outcome = await forgetting.outcome(log_id)
    described = await Logs(redis).describe(log.identity)
    assert described.stored_bytes <= outcome.bytes_now
    assert outcome.bytes_now < outcome.bytes_before or before < 3
    assert files() == await listed(redis, log_id)
    readable = {known.value for known in log.contents(before)} | {
        command.value
        for effects in log.effects[before:]
        for command, effect in effects
        if effect.adds
    }
    assert values_in_archive(tmp_path, log) <= readable
    assert moved - readable or before < 3
    await check_all(redis, log, rng, times=5, archive=Archive(redis, objects))
    if before < log.version:  # current versions need no archive that is away
        current = Reader(redis, archive=None)
        head = await current.head(log_id)
        await current.commits(log_id, head, log.version - 1, log.version)
    kept = {}
    for field, data in (await hash_of(redis, keys.kept(log_id))).items():
        for at, row in enumerate(zip(*KeptHeaders.decode(data), strict=True), int(field)):
            kept[at] = row
    assert kept == {at: headers[at] for at in range(1, before)}
    meta = await hash_of(redis, keys.of_log(log_id).meta)
    assert int(meta[b"kept_bytes"]) == sum(
        len(data) for data in (await hash_of(redis, keys.kept(log_id))).values()
    )
    segments = await segments_of(redis, log_id)
    assert int(meta[b"archived_bytes"]) == sum(segment.size_bytes for segment in segments)


async def hash_of(redis: Redis, key: str) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = await redis.execute_command("HGETALL", key)
    return found


async def diff_or_refusal(
    redis: Redis, log: GrownLog, archive: Archive | None, *, low: int = 1
) -> Refusal | None:
    """Of all that came behind `low`; None if it is right."""
    try:
        found = await read_diff(Reader(redis, archive=archive), log, low, log.version)
    except Refusal as refusal:
        return refusal
    assert found == expected_diff(log, low, log.version)
    return None


async def commits_go_on(redis: Redis, log: GrownLog) -> None:
    await grow(redis, log, random.Random(6), versions=3, keys=KEYS)
    low = log.version - 3
    assert await read_diff(Reader(redis), log, low, log.version) == expected_diff(
        log, low, log.version
    )


@pytest.mark.parametrize("damage", ["a bit", "its end", "all of it", "absent"])
async def test_a_damaged_object_is_told_as_such_and_commits_go_on(
    redis: Redis, log: GrownLog, objects: Folder, tmp_path: Path, damage: str
) -> None:
    log_id = log.identity.log_id
    [segment, *_] = (await moving(redis, objects).move(log_id)).segments
    [path] = (tmp_path / "archive").rglob(segment.name)
    data = bytearray(path.read_bytes())
    if damage == "absent":
        path.unlink()
    else:
        changed = {"a bit": data[:-9] + b"x" + data[-8:], "its end": data[:-1]}
        path.write_bytes(changed.get(damage, b""))
    refusal = await diff_or_refusal(redis, log, Archive(redis, objects))
    assert isinstance(refusal, LostObject)
    assert refusal.code is ErrorCode.INTERNAL_ERROR
    await commits_go_on(redis, log)
    path.write_bytes(data)
    assert await diff_or_refusal(redis, log, Archive(redis, objects)) is None


async def test_an_archive_that_is_away_is_told_as_such_and_commits_go_on(
    redis: Redis, log: GrownLog, objects: Folder, tmp_path: Path
) -> None:
    log_id = log.identity.log_id
    await moving(redis, objects).move(log_id)
    (tmp_path / "archive").rename(tmp_path / "away")
    (tmp_path / "archive").write_text("a file where the folder should be")
    refusal = await diff_or_refusal(redis, log, Archive(redis, objects))
    assert refusal is not None
    assert refusal.code is ErrorCode.OVERLOADED
    await commits_go_on(redis, log)
    await grow(redis, log, random.Random(7), versions=300, keys=KEYS)
    begins = await oldest(redis, log_id)
    with pytest.raises(Refusal) as caught:
        await moving(redis, objects).move(log_id)
    assert caught.value.code is ErrorCode.OVERLOADED
    assert await oldest(redis, log_id) == begins
    (tmp_path / "archive").unlink()
    (tmp_path / "away").rename(tmp_path / "archive")
    assert (await moving(redis, objects).move(log_id)).segments
    assert await diff_or_refusal(redis, log, Archive(redis, objects)) is None


async def test_a_process_that_was_told_of_no_archive_says_so(
    redis: Redis, log: GrownLog, objects: Folder
) -> None:
    await moving(redis, objects).move(log.identity.log_id)
    refusal = await diff_or_refusal(redis, log, None)
    assert isinstance(refusal, NoArchiveError)
    assert "--archive" in refusal.message
    assert refusal.code is ErrorCode.OVERLOADED
    await commits_go_on(redis, log)


async def test_current_entries_are_read_without_the_archive(redis: Redis, objects: Folder) -> None:
    """Keys that were set once, at the beginning, and keys that are set again and again."""
    log, rng = await new_log(redis), random.Random(10)
    log_id = log.identity.log_id
    await grow(redis, log, rng, versions=20, keys=1_000, deletes=0.0)
    await grow(redis, log, rng, versions=180, keys=5)
    await Materializing(redis).write_snapshot(log_id, 150, 1)
    moved = await moving(redis, objects).move(log_id)
    live = {known.token: known for known in log.contents(log.version)}
    assert min(known.version for known in live.values()) <= moved.segments[-1].last
    for archive in (None, Archive(redis, objects)):
        _, found = await Reader(redis, archive=archive).entries(log_id, list(live), None)
        assert [(each.key, each.value, each.version) for each in found] == [
            (token, known.value, known.version) for token, known in live.items()
        ]


async def test_a_deleted_log_leaves_nothing_in_the_archive_though_a_mover_was_late(
    redis: Redis, log: GrownLog, objects: Folder, files: Callable[[], set[str]]
) -> None:
    log_id, now_ms = log.identity.log_id, time.time_ns() // 1_000_000
    other = await new_log(redis)
    await grow(redis, other, random.Random(8), versions=200, keys=KEYS)
    await moving(redis, objects, budget=8 << 10).move(other.identity.log_id)
    others = files()
    await moving(redis, objects).move(log_id)
    assert files() > others
    archive = Archive(redis, objects)
    mover = Moving(redis, archive, budget_bytes=BUDGET, now_ms=lambda: now_ms)
    await mover.end_deleted()
    assert files() > others
    await Logs(redis).delete(log.identity)
    assert await redis.keys("{" + log_id.hex() + "}:*") == [keys.of_log(log_id).meta.encode()]
    await mover.end_deleted()
    assert files() == others
    await objects.put(log_id, b"what was on its way")
    now_ms += 2 * LATE_SECONDS * 1_000
    await mover.end_deleted()
    assert files() == others
    assert await redis.zscore(keys.ARCHIVE_DELETED, log_id) is None
    with pytest.raises(Gone):
        await mover.move(log_id)
    await check_all(redis, other, random.Random(9), times=1, archive=archive)


async def test_a_damaged_log_keeps_no_other_from_being_moved(redis: Redis, objects: Folder) -> None:
    await functions.load(redis)
    tenant, _ = await Tenants(redis, b"s" * 32).create("somebody")
    logs = [await new_log(redis, Scope(tenant=tenant)) for _ in range(3)]
    for log in logs:
        await grow(redis, log, random.Random(12), versions=150, keys=KEYS)
    hole = keys.of_log(logs[0].identity.log_id).commits
    await redis.execute_command("XDEL", hole, "7-0")
    mover = Mover(
        moving(redis, objects),
        Names(redis),
        sweep_seconds=0.01,
        jitter=lambda low, high: low,
    )
    running = asyncio.create_task(mover.run())

    async def others_are_moved() -> bool:
        return min([await oldest(redis, log.identity.log_id) for log in logs[1:]]) > 1

    try:
        await until(others_are_moved)
    finally:
        await end_tasks(running)
    assert await oldest(redis, logs[0].identity.log_id) == 1


async def test_a_put_that_comes_late_is_deleted_again(
    redis: Redis, log: GrownLog, objects: Folder, files: Callable[[], set[str]]
) -> None:
    """A mover that hangs in a put; the versions are forgotten meanwhile, by another process."""
    log_id = log.identity.log_id
    put = asyncio.Event()

    class Slow(Folder):
        async def put(self, log_id: LogId, data: bytes) -> str:
            await put.wait()
            return await super().put(log_id, data)

    slow = Moving(redis, Archive(redis, Slow(objects.root)), budget_bytes=BUDGET)
    hanging = asyncio.create_task(slow.move(log_id))
    unlisted = keys.archived(log_id).unlisted

    async def is_noted() -> bool:
        return bool(await redis.exists(unlisted))

    await until(is_noted)
    await forget(redis, objects, log, log.version)
    assert await is_noted()
    put.set()
    await hanging
    assert files()
    assert await slow.oversized([log_id]) == [log_id]
    await moving(redis, objects).move(log_id)
    assert files() == await listed(redis, log_id) == set()


class Hooked(Folder):
    """Something happens before the first object is got, or behind each that is put."""

    def __init__(
        self,
        root: Path,
        *,
        before_get: Callable[[], Awaitable[object]] | None = None,
        behind_put: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        super().__init__(root)
        self._before_get = before_get
        self._behind_put = behind_put

    async def get(self, log_id: LogId, name: str) -> bytes:
        before, self._before_get = self._before_get, None
        if before is not None:
            await before()
        return await super().get(log_id, name)

    async def put(self, log_id: LogId, data: bytes) -> str:
        name = await super().put(log_id, data)
        if self._behind_put is not None:
            await self._behind_put()
        return name


async def test_a_segment_that_is_forgotten_under_its_reader_is_read_as_far_as_it_can_be(
    redis: Redis, log: GrownLog, objects: Folder
) -> None:
    log_id = log.identity.log_id
    segment = (await moving(redis, objects).move(log_id)).segments[3]
    floor = segment.first + 3
    known = (await Versions(redis, Archive(redis, objects)).read(log_id, 1, segment.last)).rows

    def hooked() -> Archive:
        before = partial(forget, redis, objects, log, floor)
        return Archive(redis, Hooked(objects.root, before_get=before))

    page = await Versions(redis, hooked()).read(log_id, floor, segment.last)
    assert page.rows == known[floor - 1 :]
    floor += 1
    refusal = await diff_or_refusal(redis, log, hooked(), low=floor - 1)
    assert refusal is not None
    assert refusal.code is ErrorCode.FORGOTTEN_VERSION


async def test_what_is_about_to_be_listed_is_never_deleted(
    redis: Redis, log: GrownLog, objects: Folder, files: Callable[[], set[str]]
) -> None:
    """Behind each put somebody else deletes whatever is not wanted."""
    log_id = log.identity.log_id
    clear = partial(Archiving(redis, Archive(redis, objects)).clear, log_id)
    await moving(redis, Hooked(objects.root, behind_put=clear)).move(log_id)
    assert files() == await listed(redis, log_id)
    forgetting = Forgetting(redis, Archive(redis, Hooked(objects.root, behind_put=clear)))
    await forgetting.begin(log_id, 150)
    await forgetting.run(log_id, 150)
    assert files() == await listed(redis, log_id)
    assert await diff_or_refusal(redis, log, Archive(redis, objects), low=150) is None


async def test_a_store_that_is_restored_finds_its_objects_in_a_later_archive(
    redis: Redis, log: GrownLog, objects: Folder, files: Callable[[], set[str]]
) -> None:
    """Also by who has read the later one."""
    log_id, archive = log.identity.log_id, Archive(redis, objects)
    await moving(redis, objects, budget=70 << 10).move(log_id)
    names = keys.all_of_log(log_id)
    copy = [(name, await redis.dump(name)) for name in names]
    assert (await moving(redis, objects, budget=16 << 10).move(log_id)).segments
    assert await diff_or_refusal(redis, log, archive) is None
    later = files()
    await redis.delete(*names)
    for name, data in copy:
        if data is not None:
            await redis.restore(name, 0, data)
    assert await diff_or_refusal(redis, log, archive) is None
    await moving(redis, objects, budget=16 << 10).move(log_id)
    assert await diff_or_refusal(redis, log, Archive(redis, objects)) is None
    assert await listed(redis, log_id) <= files() >= later


async def test_nothing_is_put_that_can_never_be_listed(
    redis: Redis, log: GrownLog, objects: Folder, files: Callable[[], set[str]]
) -> None:
    log_id = log.identity.log_id
    archiving = Archiving(redis, Archive(redis, objects))
    assert await archiving.put(log_id, "versions", 5, b"not what the stream begins with") is None
    await forget(redis, objects, log, 100)
    assert await archiving.put(log_id, "versions", 99, b"forgotten") is None
    assert await archiving.put(log_id, "rewritten", 99, b"forgotten") is None
    assert await archiving.put(log_id, "snapshot", 100, b"the base, which stays") is None
    assert files() == set()
    await Logs(redis).delete(log.identity)
    with pytest.raises(Gone):
        await archiving.put(log_id, "versions", 100, b"of a log that is gone")
    assert files() == set()

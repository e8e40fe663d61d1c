"""What the store keeps (G11): memory for each live value and each log, bytes for each update."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import median

import msgpack
from indelible_protocol import paths
from indelible_protocol.ids import LogId
from redis.asyncio import Redis

from tests.benchmarks.figures import Goal, Row, at_most, check
from tests.benchmarks.stage import Scale, Stage, stage
from tests.benchmarks.updates import CLIENTS, VALUE_BYTES, load_opaque, opaque_lane
from tests.benchmarks.wire import asking, request

BATCH = 100
LIVE_BYTES = 100
# A hash table is between half and wholly full: three sizes within one doubling.
COUNTS = (20_000, 26_000, 34_000)
QUICK_COUNTS = (2_000,)
FORGOTTEN_COUNTS, ROUNDS = (5_000, 6_500), 10
LOGS, QUICK_LOGS = 5_000, 300
PATIENCE_SECONDS = 60.0


async def memory(scale: Scale) -> list[Row]:
    async with stage() as stand:
        singly = await per_value(scale, stand, 1)
        batched = await per_value(scale, stand, BATCH)
        forgotten = await _after_forget(scale, stand)
        logs = await _per_log(scale, stand)
        updates = await _per_update(scale, stand)
    return [
        value_row("written singly", singly, at_most(900, of="ours")),
        value_row(f"written in batches of {BATCH}", batched, at_most(500, of="ours")),
        forgotten,
        logs,
        updates,
    ]


def value_row(how: str, ours: Sequence[float], goal: Goal | None) -> Row:
    return Row(
        goal_id="G11",
        what=f"memory of a live value of {LIVE_BYTES} B {how}",
        unit="B",
        ours=ours,
        goal=goal,
    )


async def _after_forget(scale: Scale, stand: Stage) -> Row:
    """A log whose keys were set many times, once it has forgotten all but the last version,
    beside one whose keys were set once."""
    floors, ours, given, kept = [], [], [], []
    for count in QUICK_COUNTS if scale.quick else FORGOTTEN_COUNTS:
        once, often = await stand.make_opaque_logs(2, f"forget-{count}")
        before = await told(stand, "memory", "used_memory")
        await stand.grow(once, count, keys=count, value_bytes=LIVE_BYTES)
        floors.append((await told(stand, "memory", "used_memory") - before) / count)
        before = await told(stand, "memory", "used_memory")
        version = await stand.grow(often, count * ROUNDS, keys=count, value_bytes=LIVE_BYTES)
        grown = await told(stand, "memory", "used_memory") - before
        await _forget(stand, often, version)
        left = await told(stand, "memory", "used_memory") - before
        async with Redis.from_url(stand.engine.url) as store:
            headers = await store.memory_usage("{" + often.hex() + "}:kept", samples=0) or 0
        ours.append((left - headers) / count)
        given.append(1 - left / grown)
        kept.append(headers / (version - 1))
    return Row(
        goal_id="G11",
        what=f"memory of a live value after forgetting {ROUNDS - 1} before it (less headers)",
        unit="B",
        floor_name="a log of the live values alone",
        floor=floors,
        ours=ours,
        goal=at_most(1.25),
        beside={
            "kept_header_bytes_a_version": median(kept),
            "given_back_with_headers": median(given),
        },
    )


async def _forget(stand: Stage, log_id: LogId, version: int) -> None:
    body = msgpack.packb({"before": version})
    path = paths.of_log(paths.FORGET, log_id)
    asked = request("POST", path, body=body, apikey=stand.apikey)
    connection = await asking(stand.port)
    status = 202
    while status == 202:
        status = (await connection.ask(asked)).status
    connection.close()
    check(status == 200, f"forget was answered with {status}")


def live_counts(scale: Scale) -> Sequence[int]:
    return QUICK_COUNTS if scale.quick else COUNTS


async def per_value(scale: Scale, stand: Stage, batch: int) -> list[float]:
    samples = []
    for count in live_counts(scale):
        (log_id,) = await stand.make_opaque_logs(1, f"live-{batch}-{count}")
        before = await told(stand, "memory", "used_memory")
        commits = count // batch
        version = await stand.grow(log_id, commits, keys=count, value_bytes=LIVE_BYTES, batch=batch)
        check(version == commits, f"{commits} commits made {version} versions")
        used = await told(stand, "memory", "used_memory") - before
        samples.append(used / count)
    return samples


async def _per_log(scale: Scale, stand: Stage) -> Row:
    """Its name and listings included; with one version, of one value."""
    count = scale.of(LOGS, QUICK_LOGS)
    before = await told(stand, "memory", "used_memory")
    logs = await stand.make_opaque_logs(count, "each")
    empty = await told(stand, "memory", "used_memory") - before
    await _write_once(scale, stand, logs)
    used = await told(stand, "memory", "used_memory") - before
    return Row(
        goal_id="G11",
        what=f"memory of a log with one value of {VALUE_BYTES} B",
        unit="B",
        ours=[used / count],
        beside={"empty_bytes": empty / count},
    )


async def _write_once(scale: Scale, stand: Stage, logs: Sequence[LogId]) -> None:
    lanes = [list(logs[at::CLIENTS]) for at in range(CLIENTS)]
    patient = replace(scale, seconds=PATIENCE_SECONDS)
    written = await load_opaque(stand, patient, lanes, 0, max_requests=len(logs))
    check(written.count == len(logs), f"{written.count} updates of {len(logs)} in the time given")


async def _per_update(scale: Scale, stand: Stage) -> Row:
    """Bytes of one update: on the engine's disk, and over each wire."""
    logs = await stand.make_opaque_logs(CLIENTS, "bytes")
    names = ("total_net_input_bytes", "total_net_output_bytes")
    before = [await told(stand, "stats", name) for name in names]
    disk = await told(stand, "persistence", "aof_current_size")
    answers = await load_opaque(stand, scale, [[log] for log in logs], 0)
    disk = await told(stand, "persistence", "aof_current_size") - disk
    spent = [
        await told(stand, "stats", name) - was for name, was in zip(names, before, strict=True)
    ]
    lane = opaque_lane(logs[:1], 0, stand.apikey)
    return Row(
        goal_id="G11",
        what=f"an update of {VALUE_BYTES} B on disk",
        unit="B",
        ours=[disk / answers.count],
        beside={
            "request_bytes": median(len(one) for one in lane),
            "answer_bytes": len(answers.first),
            "to_store_bytes": spent[0] / answers.count,
            "from_store_bytes": spent[1] / answers.count,
        },
    )


async def told(stand: Stage, section: str, name: str) -> int:
    """A number that the engine tells of itself (INFO)."""
    async with Redis.from_url(stand.engine.url) as store:
        return int((await store.info(section))[name])

"""Wakes: one waiter (G4), and a crowd of them (G5)."""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from indelible_protocol.ids import LogId

from tests.benchmarks import crowds, following
from tests.benchmarks.crowds import AT_METRICS, AT_PARKED, Crowd, CrowdWrites, Look, Woken, Write
from tests.benchmarks.figures import Row, at_most, check
from tests.benchmarks.following import Following, FollowingStream, Wakes, check_diff
from tests.benchmarks.stage import Scale, Stage, port_of, stage
from tests.benchmarks.wire import asking, commit_request, opaque_body, request, wait_request
from tests.benchmarks.workers import Worker
from tests.support.service import Service

ALONE = 50
PAUSE_SECONDS = 0.01
MAX_WAKES = 400


async def one(scale: Scale) -> list[Row]:
    """The writer and the waiter at two API processes, and at the same one."""
    async with stage(processes=2) as stand:
        engine = stand.engine
        (log_id,) = await stand.make_opaque_logs(1, "g4")
        elsewhere = stand.deployment.services[1]

        async def floor(number: int) -> Wakes:
            wakes: Wakes = await stand.worker.run(
                following.follow_stream,
                FollowingStream(
                    socket=str(engine.socket),
                    stream=f"floor-{number}",
                    pid=engine.pid,
                    seconds=scale.seconds,
                    max_wakes=MAX_WAKES,
                    pause_seconds=PAUSE_SECONDS,
                ),
            )
            return wakes

        async def at_two(number: int) -> Wakes:
            return await wake_one(scale, stand, log_id, waiter_at=elsewhere)

        async def at_one(number: int) -> Wakes:
            return await wake_one(scale, stand, log_id)

        floors, two, same = await scale.in_rounds("G4", [floor, at_two, at_one])
    return [
        *_lone_rows("one waiter at another process", floors, two),
        *_lone_rows("one waiter at the same process", floors, same),
    ]


def _lone_rows(who: str, floors: Sequence[Wakes], ours: Sequence[Wakes]) -> list[Row]:
    return [
        Row(
            goal_id="G4",
            what=f"wake of {who}: write sent to diff received, p50",
            unit="ms",
            floor_name="XADD and XREAD BLOCK",
            floor=[wakes.p50_ms for wakes in floors],
            ours=[wakes.p50_ms for wakes in ours],
            goal=at_most(4),
            beside={
                "server_cpu_us": median(wakes.cpu_us for wakes in ours),
                "floor_cpu_us": median(wakes.cpu_us for wakes in floors),
            },
        ),
        Row(
            goal_id="G4",
            what=f"wake of {who}: p99",
            unit="ms",
            floor_name="its own p50",
            floor=[wakes.p50_ms for wakes in ours],
            ours=[wakes.p99_ms for wakes in ours],
            goal=at_most(3),
            beside={"floor_p99_ms": median(wakes.p99_ms for wakes in floors)},
        ),
    ]


async def wake_one(
    scale: Scale, stand: Stage, log_id: LogId, waiter_at: Service | None = None
) -> Wakes:
    """One follower of one log, again and again; checked. It asks at the stage's `api`, unless
    another is given."""
    at = waiter_at or stand.api
    (before,) = await stand.versions_stored([log_id])
    wakes: Wakes = await stand.worker.run(
        following.follow,
        Following(
            port=stand.port,
            wait_port=port_of(at),
            apikey=stand.apikey,
            logs=[log_id],
            versions=[before],
            pids=sorted({stand.api.pid, at.pid}),
            seconds=scale.seconds,
            max_wakes=MAX_WAKES,
            pause_seconds=PAUSE_SECONDS,
        ),
    )
    (after,) = await stand.versions_stored([log_id])
    check(after == before + wakes.count, f"{wakes.count} writes, {after - before} stored")
    return wakes


async def one_of_many(scale: Scale) -> list[Row]:
    """One client that follows many logs, beside one that follows one of them."""
    async with stage() as stand:
        logs = await stand.make_opaque_logs(scale.of(10_000, 300), "many")

        async def sample(function: Any, followed: Sequence[LogId]) -> Wakes:
            wakes: Wakes = await stand.worker.run(
                function,
                Following(
                    port=stand.port,
                    wait_port=stand.port,
                    apikey=stand.apikey,
                    logs=followed,
                    versions=await stand.versions_stored(followed),
                    pids=[stand.api.pid],
                    seconds=scale.seconds,
                    max_wakes=MAX_WAKES,
                    pause_seconds=PAUSE_SECONDS,
                ),
            )
            return wakes

        async def floor(number: int) -> Wakes:
            return await sample(following.follow, [logs[number]])

        async def ours(number: int) -> Wakes:
            return await sample(following.follow_at_once, logs)

        pairs = await scale.in_turns("MANY", floor, ours)
    return [
        Row(
            goal_id="MANY",
            what=f"wake of a follower of {len(logs):,} logs, p50",
            unit="ms",
            floor_name="of one log",
            floor=[wakes.p50_ms for wakes, _ in pairs],
            ours=[wakes.p50_ms for _, wakes in pairs],
            goal=at_most(1.5),
            beside={"server_cpu_us": median(wakes.cpu_us for _, wakes in pairs)},
        )
    ]


async def crowds_of_two_sizes(scale: Scale) -> list[Row]:
    """On one log each; the larger one also on ten logs, which are at ten different versions."""
    rows = []
    small, large = scale.of(1_000, 200), scale.of(10_000, 1_000)
    for size, wakes, logs in ((small, 4, 1), (large, 1, 1), (large, 1, 10)):
        rows += await _crowd(scale, size, wakes, logs)
    return rows


@dataclass(frozen=True, slots=True, kw_only=True)
class CrowdSample:
    """Medians over the wakes of one sample, in ms; `alone_ms` is a write without waiters."""

    last_byte_ms: float
    acknowledged_ms: float
    alone_ms: float
    cpu_us: float


async def _crowd(scale: Scale, size: int, wakes: int, count: int) -> list[Row]:
    """`size` waiters in equal parts on `count` logs, all of which get a version at once."""
    async with stage() as stand:
        writer = await stand.second_worker()
        fanout = await stand.floor("fanout")
        logs = await stand.make_opaque_logs(count, f"g5-{size}-{count}")
        await _bring_to_different_versions(stand, logs)

        async def floor(number: int) -> CrowdSample:
            body = b"%d" % number + bytes(400)
            waits = [[request("GET", "/wait")]] * wakes
            write = request("POST", "/write", body=body)
            server, look = (fanout.port, fanout.pid), AT_PARKED
            woken, written, alone = await _wake(
                stand.worker, writer, server, waits, size, [write] * ALONE, [[write]] * wakes, look
            )
            for one_woken in woken:
                check(one_woken.answers[0].body == body, "the floor's waiters had another answer")
            return _sample(woken, written, alone)

        async def ours(number: int) -> CrowdSample:
            return await wake_crowd(stand, writer, logs, size, wakes)

        who = f"{size:,} waiters" + (f" on {count} logs" if count > 1 else "")
        pairs = await scale.in_turns(f"G5, {who}", floor, ours, pairs=_pairs(scale, wakes))
    return _crowd_rows(who, pairs)


def _pairs(scale: Scale, wakes: int) -> int:
    """A crowd that is woken once in a sample is a large one, which takes long to gather."""
    return scale.pairs if wakes > 1 else min(3, scale.pairs)


async def _bring_to_different_versions(stand: Stage, logs: Sequence[LogId]) -> None:
    writer = await asking(stand.port)
    for number, log_id in enumerate(logs):
        for version in range(number):
            answer = await writer.ask(_commit(stand, log_id, (b"before", b"%d" % version)))
            check(answer.status == 201, f"a write was answered with {answer.status}")
    writer.close()
    versions = await stand.versions_stored(logs)
    check(len(set(versions)) == len(logs), f"logs at the same versions: {versions}")


def _commit(stand: Stage, log_id: LogId, entry: tuple[bytes, bytes]) -> bytes:
    return commit_request(log_id, opaque_body([entry]), apikey=stand.apikey)


async def wake_crowd(
    stand: Stage, writer: Worker, logs: Sequence[LogId], size: int, wakes: int
) -> CrowdSample:
    """All of `size` waiters, in equal parts on `logs`, woken `wakes` times; checked."""
    before = await stand.versions_stored(logs)
    alone = [(b"alone-%d" % number, os.urandom(256)) for number in range(ALONE)]
    firsts = [before[0] + ALONE, *before[1:]]
    told = [
        [(b"key-%d" % (first + wake), os.urandom(256)) for first in firsts] for wake in range(wakes)
    ]
    waits = [
        [
            wait_request(log, first + wake, apikey=stand.apikey, wait_seconds=60)
            for log, first in zip(logs, firsts, strict=True)
        ]
        for wake in range(wakes)
    ]
    woken, written, alone_seconds = await _wake(
        stand.worker,
        writer,
        (stand.port, stand.api.pid),
        waits,
        size,
        [_commit(stand, logs[0], entry) for entry in alone],
        [[_commit(stand, log, e) for log, e in zip(logs, each, strict=True)] for each in told],
        AT_METRICS,
    )
    for wake, entries in enumerate(told, start=1):
        seen, acknowledged = woken[wake - 1].answers, written[wake - 1].answers
        for first, entry, diff, answer in zip(firsts, entries, seen, acknowledged, strict=True):
            check(answer[:2] == (201, first + wake), "a version is missing")
            check_diff(diff, first + wake, *entry)
    after = await stand.versions_stored(logs)
    check(after == [first + wakes for first in firsts], f"from {before} to {after}")
    return _sample(woken, written, alone_seconds)


async def _wake(
    waiters: Worker,
    writer: Worker,
    server: tuple[int, int],
    crowd: Sequence[Sequence[bytes]],
    size: int,
    alone: Sequence[bytes],
    writes: Sequence[Sequence[bytes]],
    look: Look,
) -> tuple[list[Woken], list[Write], float]:
    """What the waiters and the writer saw, and how long a write takes without any waiters.

    `server` is a port and a pid, `crowd` the waits of each wake. The writes `alone` come before
    and wake nobody.
    """
    port, pid = server
    alone_seconds: float = await writer.run(crowds.write_alone, port, alone)
    woken, written = await asyncio.gather(
        waiters.run(
            crowds.wait_in_crowd, Crowd(port=port, size=size, waits=crowd, look=look, pid=pid)
        ),
        writer.run(
            crowds.write_to_crowd,
            CrowdWrites(port=port, size=size, writes=writes, look=look),
        ),
    )
    return woken, written, alone_seconds


def _sample(woken: Sequence[Woken], written: Sequence[Write], alone: float) -> CrowdSample:
    return CrowdSample(
        last_byte_ms=1e3
        * median(one.last_at - write.sent_at for one, write in zip(woken, written, strict=True)),
        acknowledged_ms=1e3 * median(write.acknowledged_at - write.sent_at for write in written),
        alone_ms=1e3 * alone,
        cpu_us=median(one.cpu_us for one in woken),
    )


def _crowd_rows(who: str, pairs: Sequence[tuple[CrowdSample, CrowdSample]]) -> list[Row]:
    ours = [mine for _, mine in pairs]
    return [
        Row(
            goal_id="G5",
            what=f"wake of {who}: write sent to last byte",
            unit="ms",
            floor_name="bare-protocol fan-out",
            floor=[floor.last_byte_ms for floor, _ in pairs],
            ours=[mine.last_byte_ms for mine in ours],
            goal=at_most(1.4),
            beside={
                "server_cpu_us_per_waiter": median(mine.cpu_us for mine in ours),
                "floor_cpu_us_per_waiter": median(floor.cpu_us for floor, _ in pairs),
            },
        ),
        Row(
            goal_id="G5",
            what=f"the writer's acknowledgement meanwhile, {who}",
            unit="ms",
            floor_name="its p50 without waiters",
            floor=[mine.alone_ms for mine in ours],
            ours=[mine.acknowledged_ms for mine in ours],
            goal=at_most(20),
            beside={"fan_out_ms": median(floor.acknowledged_ms for floor, _ in pairs)},
        ),
    ]

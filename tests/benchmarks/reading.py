"""Reads of long logs: diffs of few changes (G7), large reads (G8), single keys (G9).

Three logs: one of 1,000 versions, one of a million over 100,000 keys of which 100 change all the
time, one of a million entries. Every sample asks for versions that nobody asked for before.
"""

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from statistics import median

from indelible_protocol import paths
from indelible_protocol.ids import LogId

from tests.benchmarks import draining
from tests.benchmarks.closed_loop import Answers, Load
from tests.benchmarks.draining import Drained, Streaming
from tests.benchmarks.figures import Goal, Point, Row, at_most, check
from tests.benchmarks.stage import Scale, Stage, progress, stage
from tests.benchmarks.wire import request

MIB = 1 << 20
VALUE_BYTES = 100
HOT = 100  # keys that change all the time, and so the net changes of a diff
SHORT_VERSIONS = 1_000
GETS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Logs:
    """`long` has `versions`, the first of which set a tenth as many keys; `live` as many entries
    as versions."""

    stand: Stage
    versions: int
    short: LogId
    long: LogId
    live: LogId

    @property
    def keys(self) -> int:
        return self.versions // 10


async def long_logs(scale: Scale) -> list[Row]:
    async with grown(scale) as logs:
        progress("  G8: nothing is materialized yet")
        contents = f"contents of {logs.keys:,} keys"
        folded = await _read_whole(
            scale, logs, logs.long, f"{contents}, folded", 0, at_most(2.5), curve="folded"
        )
        await materialize(logs)
        kept = await _read_whole(
            scale, logs, logs.long, f"{contents}, from a snapshot", 1_000, at_most(0.4)
        )
        return [
            *await _diffs(scale, logs),
            folded,
            kept,
            *await _streams(scale, logs),
            *await _gets(scale, logs),
        ]


async def materialize(logs: Logs) -> None:
    for log_id, version in (
        (logs.short, SHORT_VERSIONS),
        (logs.long, logs.versions),
        (logs.live, logs.versions),
    ):
        await logs.stand.worker.run(draining.materialize, logs.stand.engine.url, log_id, version)


@asynccontextmanager
async def grown(scale: Scale) -> AsyncIterator[Logs]:
    versions = scale.of(1_000_000, 20_000)
    async with stage() as stand:
        short, long, live = await stand.make_opaque_logs(3, "long")
        progress(f"  logs of {versions:,} versions")
        await stand.grow(short, SHORT_VERSIONS, keys=HOT, value_bytes=VALUE_BYTES)
        cold = versions // 10
        await stand.grow(long, cold, keys=cold, value_bytes=VALUE_BYTES)
        grown = await stand.grow(long, versions - cold, keys=HOT, value_bytes=VALUE_BYTES + 1)
        check(grown == versions, f"the log is at version {grown}")
        await stand.grow(live, versions, keys=versions, value_bytes=VALUE_BYTES)
        stand.aged[versions] = long
        yield Logs(stand=stand, versions=versions, short=short, long=long, live=live)


async def _diffs(scale: Scale, logs: Logs) -> list[Row]:
    draw = random.Random(7)

    def fresh(
        log_id: LogId, low: int, high: int, span: int, count: int
    ) -> Callable[[int], Awaitable[Answers]]:
        """`count` diffs a sample, none of them asked for twice: an answer is kept."""
        begins = draw.sample(range(low, high - span), count * scale.pairs)

        async def sample(number: int) -> Answers:
            some = begins[number * count : (number + 1) * count]
            return await _asked(scale, logs, [_diff(logs, log_id, a, a + span) for a in some])

        return sample

    begin, across = logs.versions // 10 + HOT, logs.versions // 10
    near_short = fresh(logs.short, HOT, SHORT_VERSIONS, HOT, 40)
    near_long = fresh(logs.long, begin, logs.versions, HOT, 40)
    far_short = fresh(logs.short, HOT, SHORT_VERSIONS, 850, 10)
    far_long = fresh(logs.long, begin, logs.versions, across, 10)
    rows = []
    anywhere = f"a diff of {HOT} changes"
    for what, curve, floor, ours in (
        (f"{anywhere} anywhere in {logs.versions:,} versions", anywhere, near_short, near_long),
        (f"the same across {across:,} versions", f"{anywhere} from afar", far_short, far_long),
    ):
        pairs = await scale.in_turns(f"G7, {what}", floor, ours)
        rows.append(
            Row(
                goal_id="G7",
                what=f"{what}: CPU of the server",
                unit="µs",
                floor_name=f"in {SHORT_VERSIONS:,} versions",
                floor=[less.cpu_us["server"] for less, _ in pairs],
                ours=[mine.cpu_us["server"] for _, mine in pairs],
                goal=at_most(1.3),
                beside={"p50_ms": median(mine.p50_ms for _, mine in pairs)},
                point=Point(
                    curve=curve, axis="versions", size=logs.versions, floor_size=SHORT_VERSIONS
                ),
            )
        )
    return rows


async def _streams(scale: Scale, logs: Logs) -> list[Row]:
    samples: list[Drained] = []
    whole = await _read_whole(
        scale, logs, logs.live, f"{logs.versions:,} entries streamed", 0, at_most(1.6), samples
    )
    first = await _asked(scale, logs, [_entry(logs, None)])
    return [
        whole,
        Row(
            goal_id="G8",
            what="first byte of it",
            unit="ms",
            floor_name="a single get",
            floor=[first.p50_ms] * len(samples),
            ours=[sample.first_ms for sample in samples],
            goal=at_most(20),
        ),
        Row(
            goal_id="G8",
            what="growth of the API process meanwhile",
            unit="MiB",
            ours=[sample.grown_bytes / MIB for sample in samples],
            goal=at_most(64, of="ours"),
        ),
    ]


async def _read_whole(
    scale: Scale,
    logs: Logs,
    log_id: LogId,
    what: str,
    below: int,
    goal: Goal,
    samples: list[Drained] | None = None,
    *,
    curve: str = "from a snapshot",
) -> Row:
    """Contents at versions up to `below` beneath the last, another in each sample."""
    stand = logs.stand

    async def floor(_: int) -> Drained:
        drained: Drained = await stand.worker.run(draining.drain, str(stand.engine.socket), log_id)
        check(drained.count == logs.versions, f"{drained.count} rows of {logs.versions}")
        return drained

    async def ours(number: int) -> Drained:
        version = logs.versions - below - number
        drained: Drained = await stand.worker.run(
            draining.stream,
            Streaming(
                port=stand.port,
                pid=stand.api.pid,
                apikey=stand.apikey,
                log_id=log_id,
                version=version,
            ),
        )
        entries = logs.keys if log_id == logs.long else version
        check(drained.count == entries, f"{drained.count} entries came, {entries} expected")
        return drained

    pairs = await scale.in_turns(f"G8, {what}", floor, ours, pairs=scale.of(3, 1))
    if samples is not None:
        samples += [mine for _, mine in pairs]
    return Row(
        goal_id="G8",
        what=what,
        unit="s",
        floor_name="XRANGE to the end",
        floor=[floor.seconds for floor, _ in pairs],
        ours=[mine.seconds for _, mine in pairs],
        goal=goal,
        beside={
            "first_byte_ms": median(mine.first_ms for _, mine in pairs),
            "server_cpu_s": median(mine.cpu_seconds for _, mine in pairs),
        },
        point=Point(
            curve=f"contents, {curve}",
            axis="entries",
            size=logs.keys if log_id == logs.long else logs.versions,
        ),
    )


async def _gets(scale: Scale, logs: Logs) -> list[Row]:
    draw = random.Random(9)

    async def at_head(_: int) -> Answers:
        return await _asked(scale, logs, [_entry(logs, None, draw) for _ in range(GETS)])

    async def anywhere(_: int) -> Answers:
        versions = [draw.randrange(logs.keys, logs.versions) for _ in range(GETS)]
        return await _asked(scale, logs, [_entry(logs, version, draw) for version in versions])

    noop = await logs.stand.floor("noop")
    nothing = [request("GET", "/parked")] * GETS

    async def least(_: int) -> float:
        answers = await logs.stand.load(
            Load(port=noop.port, lanes=[nothing], seconds=60.0, pids={"server": noop.pid})
        )
        trip: float = await logs.stand.worker.run(
            draining.round_trips, str(logs.stand.engine.socket), logs.long, GETS
        )
        return answers.p50_ms + trip

    heads = await scale.in_turns("G9, gets at the head", least, at_head)
    pairs = await scale.in_turns("G9, gets", at_head, anywhere)
    return [
        Row(
            goal_id="G9",
            what="a key at the head, p50",
            unit="ms",
            floor_name="a no-op GET and a round trip to the store",
            floor=[floor for floor, _ in heads],
            ours=[mine.p50_ms for _, mine in heads],
            goal=at_most(1.5),
            beside={"server_cpu_us": median(mine.cpu_us["server"] for _, mine in heads)},
        ),
        Row(
            goal_id="G9",
            what=f"a key at any of {logs.versions:,} versions: CPU of the server",
            unit="µs",
            floor_name="at the head",
            floor=[floor.cpu_us["server"] for floor, _ in pairs],
            ours=[mine.cpu_us["server"] for _, mine in pairs],
            goal=at_most(5),
            beside={
                "p50_ms": median(mine.p50_ms for _, mine in pairs),
                "head_p50_ms": median(floor.p50_ms for floor, _ in pairs),
            },
        ),
    ]


async def _asked(scale: Scale, logs: Logs, requests: Sequence[bytes]) -> Answers:
    """One connection, each request once."""
    stand = logs.stand
    answers = await stand.load(
        Load(port=stand.port, lanes=[requests], seconds=60.0, pids=stand.pids)
    )
    check(set(answers.statuses) == {200}, f"answers: {dict(answers.statuses)}")
    check(answers.count == len(requests), f"{answers.count} of {len(requests)} were answered")
    return answers


def _diff(logs: Logs, log_id: LogId, low: int, high: int) -> bytes:
    path = f"{paths.of_log(paths.DIFF, log_id)}?from={low}&to={high}"
    return request("GET", path, apikey=logs.stand.apikey)


def _entry(logs: Logs, version: int | None, draw: random.Random | None = None) -> bytes:
    key = b"key-%09d" % (draw.randrange(logs.keys) if draw else 0)
    query = "" if version is None else f"?at={version}"
    return request(
        "GET", paths.of_key(paths.ENTRY, logs.long, key) + query, apikey=logs.stand.apikey
    )

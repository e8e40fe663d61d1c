"""Twice the load that can be done: what is taken is done soon, the rest is told to come back."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import psutil
import pytest
from indelible_protocol.ids import LogId

from tests.benchmarks.closed_loop import Load
from tests.benchmarks.figures import percentile
from tests.benchmarks.stage import Stage, stage
from tests.benchmarks.updates import opaque_lane
from tests.support.open_loop import OpenLoad, Outcomes, run

LOGS = 64
LOADERS = 2
CONNECTIONS = 192  # of each loader
UNBOUNDED = ("--max-commit-wait-seconds", "60", "--max-commits-in-flight", "100000")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Of all loaders together; times in milliseconds, memory in bytes."""

    accepted: int
    refused: int
    p50_ms: float
    p99_ms: float
    grown_bytes: int


async def sustainable(stand: Stage, logs: Sequence[LogId], seconds: float) -> float:
    """Commits a second that 64 connections get done."""
    lanes = [opaque_lane([log], 0, stand.apikey) for log in logs]
    load = Load(port=stand.port, lanes=lanes, seconds=seconds, pids={}, repeated=True)
    answers = await stand.load(load)
    assert set(answers.statuses) == {201}, answers.statuses
    return answers.per_second


def interleaved(lanes: Sequence[Sequence[bytes]]) -> list[bytes]:
    """The first of each lane, then the second of each …"""
    return [request for turn in zip(*lanes, strict=True) for request in turn]


async def under(
    stand: Stage, logs: Sequence[LogId], per_second: float, seconds: float, number: int
) -> Seen:
    """Checks what must hold under any load, and tells the rest."""
    before = await stand.versions_stored(logs)
    process = psutil.Process(stand.api.pid)
    shares = [logs[at::LOADERS] for at in range(LOADERS)]
    workers = [stand.worker, *[await stand.another_worker() for _ in range(LOADERS - 1)]]
    memory_before = process.memory_info().rss
    outcomes: list[Outcomes] = await asyncio.gather(
        *(
            worker.run(
                run,
                OpenLoad(
                    port=stand.port,
                    requests=interleaved(
                        [opaque_lane([log], number, stand.apikey) for log in share]
                    ),
                    per_second=per_second / LOADERS,
                    seconds=seconds,
                    connections=CONNECTIONS,
                ),
            )
            for worker, share in zip(workers, shares, strict=True)
        )
    )
    grown = process.memory_info().rss - memory_before
    statuses: Counter[int] = Counter()
    for outcome in outcomes:
        statuses.update(outcome.statuses)
    assert set(statuses) <= {200, 201, 503}, statuses
    assert sum(outcome.without_retry_after for outcome in outcomes) == statuses[200]
    stored = await stand.versions_stored(logs)
    for share, outcome in zip(shares, outcomes, strict=True):
        for at, log in enumerate(share):
            place = logs.index(log)
            mine = range(at, len(outcome.versions), len(share))
            told = sorted(version for one in mine for version in outcome.versions[one])
            assert told == list(range(before[place] + 1, stored[place] + 1)), "lost, or doubled"
    took = sorted(1e3 * one for outcome in outcomes for one in outcome.took)
    return Seen(
        accepted=statuses[201],
        refused=statuses[503],
        p50_ms=percentile(took, 0.5),
        p99_ms=percentile(took, 0.99),
        grown_bytes=grown,
    )


async def measured(seconds: float, *arguments: str, factor: float = 2.0) -> tuple[Seen, Seen]:
    """A fifth of what can be done, then `factor` of it, on a service of its own."""
    async with stage(arguments=arguments) as stand:
        logs = await stand.make_opaque_logs(LOGS, "overload")
        most = await sustainable(stand, logs, 2.0)
        calm = await under(stand, logs, most / 5, max(3.0, seconds / 6), 1)
        busy = await under(stand, logs, most * factor, seconds, 2)
        print(f"{arguments}: {most:.0f}/s can be done; calm {calm}; {factor:g} of it {busy}")
        return calm, busy


async def test_what_is_too_much_is_refused_and_nothing_acknowledged_is_lost() -> None:
    """The short form; how soon the accepted ones are done is for a machine that is not shared."""
    calm, busy = await measured(5.0)
    assert calm.refused == 0
    assert busy.refused > 0
    assert busy.accepted > 0
    assert busy.grown_bytes < 64 << 20


@pytest.mark.torture
async def test_twice_the_load_leaves_accepted_commits_their_time() -> None:
    calm, busy = await measured(60.0)
    assert busy.refused > 0
    assert busy.p99_ms <= 3 * calm.p99_ms
    assert busy.grown_bytes < 64 << 20


@pytest.mark.torture
async def test_without_the_bounds_the_same_load_makes_everybody_wait() -> None:
    """The control."""
    calm, busy = await measured(20.0, *UNBOUNDED)
    assert busy.refused == 0
    assert busy.p99_ms > 3 * calm.p99_ms

"""Twice the load that can be done: what is taken is done soon, the rest is told to come back."""

import asyncio
import math
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
from tests.support.held_up import watching_host
from tests.support.open_loop import OpenLoad, Outcomes, run
from tests.support.polling import until

LOGS = 64
LOADERS = 2
CONNECTIONS = 192  # of each loader
MOST_TIMES = 3.0  # the p99 of a calm service
STEPS = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)
STEP_SECONDS = 4.0
CALM_SECONDS = 10.0
SOON = ("--max-commit-wait-seconds", "0.005")
UNBOUNDED = ("--max-commit-wait-seconds", "60", "--max-commits-in-flight", "100000")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Of all loaders together; memory in bytes. `took_ms` are those accepted, in order, but for
    those that were `held_up` by the host of the machine."""

    accepted: int
    held_up: int
    refused: int
    took_ms: Sequence[float]
    grown_bytes: int

    @property
    def p99_ms(self) -> float:
        """NaN where all were held up."""
        return percentile(self.took_ms, 0.99) if self.took_ms else math.nan

    def __str__(self) -> str:
        p50_ms = percentile(self.took_ms, 0.5) if self.took_ms else math.nan
        return (
            f"{self.accepted} accepted, {self.refused} refused, p50 {p50_ms:.1f} ms, "
            f"p99 {self.p99_ms:.1f} ms; {self.held_up} held up; {self.grown_bytes >> 10} KiB more"
        )


async def most_done(stand: Stage, logs: Sequence[LogId]) -> float:
    """Commits a second that 64 connections get done, however long each takes."""
    lanes = [opaque_lane([log], 0, stand.apikey) for log in logs]
    load = Load(port=stand.port, lanes=lanes, seconds=2.0, pids={}, repeated=True)
    answers = await stand.load(load)
    assert set(answers.statuses) == {201}, answers.statuses
    return answers.per_second


def interleaved(lanes: Sequence[Sequence[bytes]]) -> list[bytes]:
    """The first of each lane, then the second of each …"""
    return [request for turn in zip(*lanes, strict=True) for request in turn]


async def under(
    stand: Stage, logs: Sequence[LogId], per_second: float, seconds: float, number: int
) -> Seen:
    """Checks what must hold under any load, and tells the rest. `number` is another each time."""
    before = await stand.versions_stored(logs)
    process = psutil.Process(stand.api.pid)
    shares = [logs[at::LOADERS] for at in range(LOADERS)]
    workers = [stand.worker, *[await stand.another_worker() for _ in range(LOADERS - 1)]]
    memory_before = process.memory_info().rss
    plans = [
        OpenLoad(
            port=stand.port,
            requests=interleaved([opaque_lane([log], number, stand.apikey) for log in share]),
            per_second=per_second / LOADERS,
            seconds=seconds,
            connections=CONNECTIONS,
        )
        for share in shares
    ]
    async with watching_host() as held_up:
        running = (worker.run(run, plan) for worker, plan in zip(workers, plans, strict=True))
        outcomes: list[Outcomes] = await asyncio.gather(*running)
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
    took = sorted(
        1e3 * (ended - due)
        for outcome in outcomes
        for due, ended in zip(outcome.due, outcome.ended, strict=True)
        if not held_up.between(due, ended)
    )
    for worker in workers[1:]:
        await worker.stop()
    return Seen(
        accepted=statuses[201],
        held_up=statuses[201] - len(took),
        refused=statuses[503],
        took_ms=took,
        grown_bytes=grown,
    )


async def sustainable(seconds: float) -> tuple[float, float]:
    """Commits a second: a fifth of the most that can be done, for a calm service; and the most
    that it does nearly as soon as when it is calm."""
    async with stage(arguments=UNBOUNDED) as stand:
        logs = await stand.make_opaque_logs(LOGS, "sustained")
        most = await most_done(stand, logs)
        calm = await under(stand, logs, most / 5, seconds, 1)
        print(f"{most:.0f}/s can be done; a fifth of it: {calm}")
        for number, step in enumerate(STEPS, start=2):
            seen = await under(stand, logs, most * step, STEP_SECONDS, number)
            print(f"{step} of it: {seen}")
            if seen.p99_ms <= MOST_TIMES * calm.p99_ms:
                return most / 5, most * step
    raise AssertionError("this machine does something else")


async def beyond(
    calm_per_second: float, per_second: float, seconds: float, *arguments: str
) -> tuple[float, Seen]:
    """Twice `per_second`, and the p99 of calm times before and after, in milliseconds: what else
    the machine does changes from one minute to the next."""
    async with stage(arguments=arguments) as stand:
        logs = await stand.make_opaque_logs(LOGS, "overload")
        before = await under(stand, logs, calm_per_second, CALM_SECONDS, 1)
        busy = await under(stand, logs, 2 * per_second, seconds, 2)
        after = await under(stand, logs, calm_per_second, CALM_SECONDS, 3)
    print(f"{arguments}: {before}; then 2 x {per_second:.0f}/s: {busy}; then {after}")
    return percentile(sorted([*before.took_ms, *after.took_ms]), 0.99), busy


async def test_what_is_too_much_is_refused_and_nothing_acknowledged_is_lost() -> None:
    """The short form; how soon the accepted ones are done is for a machine that is not shared."""
    async with stage(arguments=UNBOUNDED) as stand:
        most = await most_done(stand, await stand.make_opaque_logs(LOGS, "overload"))
    async with stage() as stand:
        calm = await under(stand, await stand.make_opaque_logs(LOGS, "calm"), most / 5, 3.0, 1)
    async with stage(arguments=SOON) as stand:
        logs = await stand.make_opaque_logs(LOGS, "overload")
        busy = await under(stand, logs, 2 * most, 5.0, 2)

        def told() -> int:
            """Refusals by the log: most are counted there, and some have lines of their own."""
            events = stand.api.events()
            alone = [each for each in events if each.get("code") == "OVERLOADED"]
            counts: list[int] = [e["count"] for e in events if e["event"] == "commits.shed"]
            return len(alone) + sum(counts)

        await until(lambda: told() == busy.refused)
    assert calm.refused == 0 or calm.held_up
    assert busy.refused > 0
    assert busy.accepted > 0
    assert busy.grown_bytes < 64 << 20


@pytest.mark.torture
async def test_twice_the_load_leaves_accepted_commits_their_time() -> None:
    rates = await sustainable(CALM_SECONDS)
    calm_p99_ms, busy = await beyond(*rates, 60.0, *SOON)
    assert busy.refused > 0
    assert busy.held_up < busy.accepted / 2, "the machine is held up too often to tell"
    assert busy.p99_ms <= MOST_TIMES * calm_p99_ms
    assert busy.grown_bytes < 64 << 20


@pytest.mark.torture
async def test_without_the_bounds_the_same_load_makes_everybody_wait() -> None:
    """The control."""
    rates = await sustainable(CALM_SECONDS)
    calm_p99_ms, busy = await beyond(*rates, 20.0, *UNBOUNDED)
    assert busy.refused == 0
    assert busy.p99_ms > MOST_TIMES * calm_p99_ms

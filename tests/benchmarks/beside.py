"""Ours beside other systems, in one run and under one shape of load (`make bench-peers`).

64 connections append 256 bytes each to a stream of its own; one waiter and 1,000 are woken; live
values of 100 bytes are kept. Those systems that are not installed are reported absent.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from tests.benchmarks import storing
from tests.benchmarks.closed_loop import Load
from tests.benchmarks.crowds import anonymous_bytes
from tests.benchmarks.figures import Goal, Row, at_least, at_most, check, percentile
from tests.benchmarks.memory import KIB, hold_waiters
from tests.benchmarks.peers import parking
from tests.benchmarks.peers.durable_streams import DurableStreams
from tests.benchmarks.peers.etcd import Etcd
from tests.benchmarks.peers.nats import Nats
from tests.benchmarks.peers.parking import Parked, Parking, Written
from tests.benchmarks.peers.running import MARK, Peer, Running, Way
from tests.benchmarks.stage import Scale, Stage, stage
from tests.benchmarks.updates import CLIENTS, VALUE_BYTES, load_opaque, load_sealed
from tests.benchmarks.waking import MAX_WAKES, PAUSE_SECONDS, wake_crowd, wake_one
from tests.benchmarks.workers import Worker
from tests.support.writers import SealedWriter

PEERS: Sequence[Peer] = (Etcd(), Nats(), DurableStreams())
CROWD, QUICK_CROWD = 1_000, 200
CROWD_WAKES = 4
LOOP_VALUES = 8
SECONDS_FOR_EACH_WAKE = 0.02
OURS = "Indelible"
SEALED = "Indelible, sealed and signed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Appends:
    """`cpu_us` is that of all processes that serve, for each append."""

    per_second: float
    cpu_us: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Woken:
    """Of one sample, in ms and bytes; a sample of one waiter tells no memory."""

    p50_ms: float
    p99_ms: float
    user_bytes: float = 0.0


Named = dict[str, list[Appends]]
Sampler = Callable[[int], Awaitable[Appends]]


async def measure(scale: Scale, folder: Path) -> list[Row]:
    """`folder` is where npm installed what it has."""
    there = [peer for peer in PEERS if not peer.absent(folder)]
    rows = absent(folder)
    with TemporaryDirectory(prefix="bench-") as name:
        data = Path(name)
        async with stage() as stand:
            rows += await _appends(scale, stand, there, folder, data)
            rows += await _waits(scale, stand, there, folder, data)
            rows += await _values(scale, stand, there, folder, data)
    return rows


def absent(folder: Path) -> list[Row]:
    """A row without figures for each system that cannot be run."""
    return [
        Row(goal_id="PEERS", what=f"{peer.system} is absent: {why} ({peer.install})")
        for peer in PEERS
        if (why := peer.absent(folder))
    ]


@asynccontextmanager
async def _running(peer: Peer, folder: Path, data: Path) -> AsyncIterator[Running]:
    with TemporaryDirectory(dir=data) as fresh:
        running = await peer.start(folder, Path(fresh))
        try:
            yield running
        finally:
            await running.process.stop()


async def _appends(
    scale: Scale, stand: Stage, peers: Sequence[Peer], folder: Path, data: Path
) -> list[Row]:
    logs = await stand.make_opaque_logs(CLIENTS, "beside")
    writers = await stand.make_sealed_logs(CLIENTS, "beside")

    async def opaque(number: int) -> Appends:
        answers = await load_opaque(stand, scale, [[log] for log in logs], number)
        cpu_us = answers.cpu_us["server"] + answers.cpu_us["engine"]
        return Appends(per_second=answers.per_second, cpu_us=cpu_us)

    async def sealed(number: int) -> Appends:
        return await _sealed(scale, stand, writers, number)

    samplers: dict[str, Sampler] = {OURS: opaque, SEALED: sealed}
    transactions = []
    started: list[Running] = []
    try:
        for peer in peers:
            running = await peer.start(folder, data)
            started.append(running)
            await running.prepare(CLIENTS)
            for way in running.ways:
                samplers[way.name] = _appending(scale, stand, running, way)
                transactions += [way.name] if way.transaction else []
        found = await scale.in_rounds("PEERS, appends", list(samplers.values()))
    finally:
        for running in started:
            await running.process.stop()
    return _append_rows(dict(zip(samplers, found, strict=True)), transactions)


async def _sealed(
    scale: Scale, stand: Stage, writers: Sequence[SealedWriter], number: int
) -> Appends:
    answers = await load_sealed(stand, scale, writers, number, most=scale.of(6_000, 640))
    cpu_us = answers.cpu_us["server"] + answers.cpu_us["engine"]
    return Appends(per_second=answers.per_second, cpu_us=cpu_us)


def _appending(scale: Scale, stand: Stage, running: Running, way: Way) -> Sampler:
    async def sample(number: int) -> Appends:
        before = await running.count(CLIENTS)
        answers = await stand.load(
            Load(
                port=running.process.port,
                lanes=[
                    [way.append(lane, _value(), lane) for _ in range(LOOP_VALUES)]
                    for lane in range(CLIENTS)
                ],
                seconds=scale.seconds,
                pids={"server": running.process.pid},
                repeated=True,
                dialect=way.dialect,
                greetings=[way.greeting(lane) for lane in range(CLIENTS)],
            )
        )
        wrong = [status for status in answers.statuses if status // 100 != 2]
        check(not wrong, f"{way.name} answered with {dict(answers.statuses)}")
        more = await running.count(CLIENTS) - before
        check(more == answers.count, f"{way.name}: {answers.count} answers, {more} are stored")
        return Appends(per_second=answers.per_second, cpu_us=answers.cpu_us["server"])

    return sample


def _value() -> bytes:
    return MARK + os.urandom(VALUE_BYTES // 2 - len(MARK) // 2).hex().encode()


def _append_rows(found: Named, transactions: Sequence[str]) -> list[Row]:
    def speeds(name: str) -> list[float]:
        return [sample.per_second for sample in found[name]]

    others = [name for name in found if name not in (OURS, SEALED)]
    etcd = max(transactions, key=lambda name: median(speeds(name)), default="")
    streams = next((name for name in others if name.startswith(DurableStreams.system)), "")
    rows: list[Row] = []
    for goal_id, ours, floor, goal in (
        ("G1", OURS, etcd, at_least(2)),
        ("G1", OURS, streams, at_least(6)),
        ("G2", SEALED, etcd, at_least(1)),
    ):
        if floor:
            beside = [name for name in others if name != floor] if len(rows) == 0 else []
            rows.append(
                Row(
                    goal_id=goal_id,
                    what=f"{CLIENTS} clients append {VALUE_BYTES} B: {ours} ÷ {floor}",
                    unit="per s",
                    floor_name=floor,
                    floor=speeds(floor),
                    ours=speeds(ours),
                    goal=goal,
                    peers={name: speeds(name) for name in beside},
                )
            )
    cpu = {name: [sample.cpu_us for sample in samples] for name, samples in found.items()}
    rows.append(_row("PEERS", "an append: CPU of all that serve", "µs", cpu, etcd, [OURS, SEALED]))
    return rows


def _row(
    goal_id: str,
    what: str,
    unit: str,
    found: dict[str, list[float]],
    floor: str,
    ours: Sequence[str],
    goal: Goal | None = None,
) -> Row:
    """`ours` names ours, first that of the row; the rest and other systems stand beside."""
    return Row(
        goal_id=goal_id,
        what=f"{what} ÷ {floor}" if floor else what,
        unit=unit,
        floor_name=floor,
        floor=found[floor] if floor else (),
        ours=found[ours[0]],
        goal=goal if floor else None,
        peers={name: each for name, each in found.items() if name not in (floor, ours[0])},
    )


async def _waits(
    scale: Scale, stand: Stage, peers: Sequence[Peer], folder: Path, data: Path
) -> list[Row]:
    """Each sample of a crowd has processes of its own: memory used before is used again."""
    log_id, still = await stand.make_opaque_logs(2, "waited")
    writer = await stand.second_worker()
    size = scale.of(CROWD, QUICK_CROWD)

    async def one(number: int) -> Woken:
        wakes = await wake_one(scale, stand, log_id)
        return Woken(p50_ms=wakes.p50_ms, p99_ms=wakes.p99_ms)

    async def crowd(number: int) -> Woken:
        woken = await wake_crowd(stand, writer, [log_id], size, CROWD_WAKES)
        held = await hold_waiters(stand, still, size)
        last_ms = woken.last_byte_ms
        return Woken(p50_ms=last_ms, p99_ms=last_ms, user_bytes=held.user_bytes)

    alone: dict[str, Callable[[int], Awaitable[Woken]]] = {OURS: one}
    crowds: dict[str, Callable[[int], Awaitable[Woken]]] = {OURS: crowd}
    wakes = min(MAX_WAKES, int(scale.seconds / SECONDS_FOR_EACH_WAKE))
    for peer in peers:
        for name in await _watching_ways(peer, folder, data):

            def waking(
                size: int, wakes: int, pause: float, peer: Peer = peer, name: str = name
            ) -> Callable[[int], Awaitable[Woken]]:
                async def sample(number: int) -> Woken:
                    async with _running(peer, folder, data) as running:
                        await running.prepare(1)
                        way = next(way for way in running.ways if way.name == name)
                        return await _wake(stand.worker, running, way, size, wakes, pause)

                return sample

            alone[name] = waking(1, wakes, PAUSE_SECONDS)
            crowds[name] = waking(size, CROWD_WAKES, 0.1)
    found = await scale.in_rounds("PEERS, one waiter", list(alone.values()))
    many = await scale.in_rounds(f"PEERS, {size} waiters", list(crowds.values()))
    return _wait_rows(
        size, dict(zip(alone, found, strict=True)), dict(zip(crowds, many, strict=True))
    )


async def _watching_ways(peer: Peer, folder: Path, data: Path) -> list[str]:
    async with _running(peer, folder, data) as running:
        return [way.name for way in running.ways if way.watching is not None]


async def _wake(
    worker: Worker, running: Running, way: Way, size: int, wakes: int, pause_seconds: float
) -> Woken:
    watching = way.watching
    assert watching is not None
    values = [_value() for _ in range(wakes)]
    parked: Parked = await worker.run(
        parking.park,
        Parking(
            port=running.process.port,
            pid=running.process.pid,
            dialect=watching.dialect,
            waits=[watching.wait(0, number) for number in range(size)],
            confirmations=watching.confirmations,
            again=partial(watching.again, 0) if watching.again else None,
            look=watching.look,
            pause_seconds=pause_seconds,
            writing=way.dialect,
            writer_greeting=way.greeting(0),
            writes=[
                Written(request=way.append(0, value, 0), marker=watching.marker(value))
                for value in values
            ],
        ),
    )
    took = sorted(parked.last_ms)
    return Woken(
        p50_ms=percentile(took, 0.5),
        p99_ms=percentile(took, 0.99),
        user_bytes=parked.user_bytes,
    )


def _wait_rows(size: int, one: dict[str, list[Woken]], many: dict[str, list[Woken]]) -> list[Row]:
    def best(found: dict[str, list[float]]) -> str:
        etcd = [name for name in found if name.startswith(Etcd.system)]
        return min(etcd, key=lambda name: median(found[name]), default="")

    p50 = {name: [each.p50_ms for each in samples] for name, samples in one.items()}
    p99 = {name: [each.p99_ms for each in samples] for name, samples in one.items()}
    last = {name: [each.p50_ms for each in samples] for name, samples in many.items()}
    kept = {name: [each.user_bytes / KIB for each in samples] for name, samples in many.items()}
    goal = at_most(0.5)
    return [
        _row("G4", "wake of one waiter, p50", "ms", p50, best(p50), [OURS], goal),
        _row("PEERS", "wake of one waiter, p99", "ms", p99, best(p99), [OURS]),
        _row("PEERS", f"wake of {size:,} waiters: the last", "ms", last, best(last), [OURS]),
        _row("PEERS", f"memory of one of {size:,} waiters", "KiB", kept, best(kept), [OURS]),
    ]


async def _values(
    scale: Scale, stand: Stage, peers: Sequence[Peer], folder: Path, data: Path
) -> list[Row]:
    """etcd's own memory for each live value: its index, not the file that it maps."""
    counts = storing.live_counts(scale)
    ours = await storing.per_value(scale, stand, 1)
    etcd = next((peer for peer in peers if peer.system == Etcd.system), None)
    beside: dict[str, list[float]] = {}
    if etcd is not None:
        for count in counts:
            async with _running(etcd, folder, data) as running:
                beside.setdefault(f"{running.name}, without its mapped file", []).append(
                    await _kept_by(stand, running, count)
                )
    row = storing.value_row("written singly", ours, None)
    return [
        Row(
            goal_id=row.goal_id,
            what=row.what,
            unit=row.unit,
            ours=row.ours,
            peers=beside,
        )
    ]


async def _kept_by(stand: Stage, running: Running, count: int) -> float:
    way = running.ways[0]
    await running.prepare(CLIENTS)
    before = anonymous_bytes(running.process.pid)
    value = b"v" * storing.LIVE_BYTES
    lanes = [
        [way.append(stream, value, lane) for stream in range(CLIENTS + lane, count, CLIENTS)]
        for lane in range(CLIENTS)
    ]
    answers = await stand.load(
        Load(
            port=running.process.port,
            lanes=lanes,
            seconds=storing.PATIENCE_SECONDS,
            pids={},
            dialect=way.dialect,
        )
    )
    check(set(answers.statuses) == {200}, f"{way.name} answered {dict(answers.statuses)}")
    await asyncio.sleep(1.0)  # its garbage collector's turn
    return (anonymous_bytes(running.process.pid) - before) / answers.count

"""Whether costs stay flat as logs become many and long (G14): processor time of the server.

The first two sizes: 10 and 1,000 logs, logs of a few and of 1,000 versions.
"""

from collections.abc import Sequence
from dataclasses import replace

from indelible_protocol.ids import LogId

from tests.benchmarks import following
from tests.benchmarks.figures import Row, at_most, check
from tests.benchmarks.following import Following, Wakes
from tests.benchmarks.stage import Scale, Stage, stage
from tests.benchmarks.updates import CLIENTS, load_opaque

FEW = 10
GROWING_SECONDS = 60.0
FLAT = at_most(1.15)


async def flatness(scale: Scale) -> list[Row]:
    async with stage() as stand:
        few = await stand.make_opaque_logs(FEW, "few")
        many = await stand.make_opaque_logs(scale.of(1_000, 200), "many")
        rows = [
            await _updates(scale, stand, few, many),
            await _wakes(scale, stand, few, many),
        ]
    versions = scale.of(1_000, 50)
    async with stage() as stand:
        old = await stand.make_opaque_logs(FEW, "old")
        await _grow(scale, stand, old, versions)
        rows += [
            await _updates(scale, stand, None, old, versions),
            await _wakes(scale, stand, None, old, versions),
        ]
    return rows


async def _grow(scale: Scale, stand: Stage, logs: Sequence[LogId], versions: int) -> None:
    await load_opaque(
        stand,
        replace(scale, seconds=GROWING_SECONDS),
        _lanes(logs),
        -1,
        max_requests=len(logs) * versions * 5 // 4,
    )
    stored = await stand.versions_stored(logs)
    check(min(stored) >= versions, f"a log has {min(stored)} versions, {versions} expected")


def _lanes(logs: Sequence[LogId]) -> list[list[LogId]]:
    """Each connection's logs: all of them among all."""
    return [list(logs[at::CLIENTS]) or [logs[at % len(logs)]] for at in range(CLIENTS)]


async def _updates(
    scale: Scale,
    stand: Stage,
    few: Sequence[LogId] | None,
    others: Sequence[LogId],
    versions: int | None = None,
) -> Row:
    """Without `few`, the floor's logs are new in each sample, and `others` have `versions`."""

    async def floor(number: int) -> float:
        logs = few or await stand.make_opaque_logs(FEW, f"new-{number}")
        answers = await load_opaque(
            stand, scale, _lanes(logs), number, max_requests=scale.of(2_000, 300)
        )
        return answers.cpu_us["server"]

    async def ours(number: int) -> float:
        answers = await load_opaque(
            stand, scale, _lanes(others), number, max_requests=scale.of(2_000, 300)
        )
        return answers.cpu_us["server"]

    what = _what(others, versions)
    pairs = await scale.in_turns(f"G14, updates {what}", floor, ours)
    return _row(f"an update {what}", versions, pairs)


async def _wakes(
    scale: Scale,
    stand: Stage,
    few: Sequence[LogId] | None,
    others: Sequence[LogId],
    versions: int | None = None,
) -> Row:
    async def wake(logs: Sequence[LogId]) -> float:
        before = await stand.versions_stored(logs)
        wakes: Wakes = await stand.worker.run(
            following.follow,
            Following(
                port=stand.port,
                apikey=stand.apikey,
                logs=logs,
                versions=before,
                pid=stand.api.pid,
                seconds=scale.seconds,
                max_wakes=scale.of(1_000, 100),
            ),
        )
        after = await stand.versions_stored(logs)
        grown = sum(after) - sum(before)
        check(grown == wakes.count, f"{wakes.count} writes, {grown} more versions are stored")
        return wakes.cpu_us

    async def floor(number: int) -> float:
        return await wake(few or await stand.make_opaque_logs(FEW, f"followed-{number}"))

    async def ours(number: int) -> float:
        return await wake(others)

    what = _what(others, versions)
    pairs = await scale.in_turns(f"G14, wakes {what}", floor, ours)
    return _row(f"an update and its wake {what}", versions, pairs)


def _what(logs: Sequence[LogId], versions: int | None) -> str:
    return f"among {len(logs):,} logs" if versions is None else f"at {versions:,} versions"


def _row(what: str, versions: int | None, pairs: Sequence[tuple[float, float]]) -> Row:
    return Row(
        goal_id="G14",
        what=f"{what}: CPU of the server",
        unit="µs each",
        floor_name=f"among {FEW} logs" if versions is None else "in new logs",
        floor=[floor for floor, _ in pairs],
        ours=[ours for _, ours in pairs],
        goal=FLAT,
    )

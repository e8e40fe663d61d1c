"""Whether costs stay flat as logs become many and long (G14): processor time of the server.

Sizes: 10, 1,000 and 100,000 logs; logs of a few, of 1,000 and of 1,000,000 versions. Each sample
goes to the same number of requests, to logs chosen anew: among very many logs nearly every
request is the first to its log for a while, as it is for a server that has so many.
"""

import random
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from indelible_protocol.ids import LogId

from tests.benchmarks import following
from tests.benchmarks.figures import Point, Row, at_most, check
from tests.benchmarks.following import Following, Wakes
from tests.benchmarks.stage import Scale, Stage, progress, stage
from tests.benchmarks.updates import CLIENTS, load_opaque

FEW = 10
CHOSEN = 1_000  # of very many logs: so many are written to in one sample
FOLLOWED = 200
WAKE_SECONDS = 1.0
KEYS, VALUE_BYTES = 100, 64
FLAT = at_most(1.15)

Measure = Callable[[Scale, Stage, Sequence[LogId], int], Awaitable[float]]


async def flatness(scale: Scale) -> list[Row]:
    return [*await by_logs(scale), *await by_versions(scale)]


async def by_logs(scale: Scale) -> list[Row]:
    """Costs among a few logs, among more, and among very many, in one store."""
    sizes = (FEW, scale.of(1_000, 200), scale.of(100_000, 1_000))
    progress(f"  G14: {sum(sizes):,} logs are made")
    async with stage() as stand:
        kinds = [await stand.make_opaque_logs(size, f"of-{size}") for size in sizes]
        await _update(scale, stand, kinds[1], -1)  # known to the server from here on

        def some(logs: Sequence[LogId], most: int) -> Callable[[int], Awaitable[list[LogId]]]:
            async def choose(number: int) -> list[LogId]:
                return random.Random(number).sample(logs, min(most, len(logs)))

            return choose

        return [
            *await _rows(
                scale, stand, "an update", _update, sizes, [some(each, CHOSEN) for each in kinds]
            ),
            *await _rows(
                scale,
                stand,
                "an update and its wake",
                _wake,
                sizes,
                [some(each, FOLLOWED) for each in kinds],
            ),
        ]


async def by_versions(scale: Scale) -> list[Row]:
    """Costs in new logs, in logs of more versions, and in one of very many."""
    sizes = (1, scale.of(1_000, 50), scale.of(1_000_000, 2_000))
    progress(f"  G14: logs of up to {sizes[2]:,} versions")
    async with stage() as stand:
        old = await stand.make_opaque_logs(FEW, "old")
        for log in old:
            await _grow(stand, log, sizes[1])
        if sizes[2] not in stand.aged:
            (stand.aged[sizes[2]],) = await stand.make_opaque_logs(1, "ancient")
            await _grow(stand, stand.aged[sizes[2]], sizes[2])
        ancient = stand.aged[sizes[2]]
        for logs in (old, [ancient]):
            await _update(scale, stand, logs, -1)

        async def new(prefix: str, number: int) -> list[LogId]:
            logs = await stand.make_opaque_logs(FEW, f"{prefix}-{number}")
            await _update(scale, stand, logs, -1)  # their keys are there, as in the others
            return logs

        async def always(logs: list[LogId], number: int) -> list[LogId]:
            return logs

        rows = []
        for what, measure in (("an update", _update), ("an update and its wake", _wake)):
            choices = [partial(new, f"new for {what}"), partial(always, old)]
            rows += await _rows(
                scale, stand, what, measure, sizes, [*choices, partial(always, [ancient])]
            )
    return rows


async def _grow(stand: Stage, log: LogId, versions: int) -> None:
    made = await stand.grow(log, versions, keys=KEYS, value_bytes=VALUE_BYTES)
    check(made == versions, f"a log has {made} versions, {versions} expected")


async def _rows(
    scale: Scale,
    stand: Stage,
    what: str,
    measure: Measure,
    sizes: Sequence[int],
    choices: Sequence[Callable[[int], Awaitable[list[LogId]]]],
) -> list[Row]:
    """A row for each size but the first, which is the floor."""

    def sampler(
        choose: Callable[[int], Awaitable[list[LogId]]],
    ) -> Callable[[int], Awaitable[float]]:
        async def sample(number: int) -> float:
            return await measure(scale, stand, await choose(number), number)

        return sample

    axis = "logs" if sizes[0] == FEW else "versions"
    found = await scale.in_rounds(f"G14, {what} by {axis}", [sampler(each) for each in choices])
    floor_name = f"among {FEW} logs" if axis == "logs" else "in new logs"
    return [
        Row(
            goal_id="G14",
            what=f"{what} {'among' if axis == 'logs' else 'at'} {size:,} {axis}: CPU of the server",
            unit="µs each",
            floor_name=floor_name,
            floor=found[0],
            ours=ours,
            goal=FLAT,
            point=Point(curve=what, axis=axis, size=size, floor_size=sizes[0]),
        )
        for size, ours in zip(sizes[1:], found[1:], strict=True)
    ]


async def _update(scale: Scale, stand: Stage, logs: Sequence[LogId], number: int) -> float:
    lanes = [list(logs[at::CLIENTS]) or [logs[at % len(logs)]] for at in range(CLIENTS)]
    answers = await load_opaque(stand, scale, lanes, number, max_requests=scale.of(2_000, 300))
    return answers.cpu_us["server"]


async def _wake(scale: Scale, stand: Stage, logs: Sequence[LogId], number: int) -> float:
    before = await stand.versions_stored(logs)
    wakes: Wakes = await stand.worker.run(
        following.follow,
        Following(
            port=stand.port,
            wait_port=stand.port,
            apikey=stand.apikey,
            logs=logs,
            versions=before,
            pids=[stand.api.pid],
            seconds=scale.shorter(WAKE_SECONDS).seconds,
            max_wakes=scale.of(1_000, 100),
        ),
    )
    after = await stand.versions_stored(logs)
    grown = sum(after) - sum(before)
    check(grown == wakes.count, f"{wakes.count} writes, {grown} more versions are stored")
    return wakes.cpu_us

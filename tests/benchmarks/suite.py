"""Which benchmarks there are, and what a run of them gives: rows, and one JSON document."""

import os
import platform
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.benchmarks import (
    beside,
    clustered,
    memory,
    profiles,
    reading,
    scaling,
    sealing,
    sharing,
    starting,
    storing,
    updates,
    waking,
)
from tests.benchmarks.figures import CheckFailed, Row, to_plain
from tests.benchmarks.stage import Scale, SharedStage, progress

FORM = 1  # of the JSON document; raised when a reader would have to know
PROFILED_FUNCTIONS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """`measure` gives the rows of one goal."""

    goal_id: str
    what: str
    measure: Callable[[Scale], Awaitable[list[Row]]]


BENCHMARKS: Sequence[Benchmark] = (
    Benchmark(goal_id="G1", what="opaque updates", measure=updates.opaque),
    Benchmark(goal_id="G2", what="sealed updates", measure=updates.sealed),
    Benchmark(goal_id="G3", what="updates in contention", measure=updates.contended),
    Benchmark(goal_id="G4", what="wake of one waiter", measure=waking.one),
    Benchmark(goal_id="G5", what="wake of a crowd", measure=waking.crowds_of_two_sizes),
    Benchmark(goal_id="G6", what="memory of waiters", measure=memory.waiters),
    Benchmark(goal_id="G7", what="reads of long logs (G7 to G9)", measure=reading.long_logs),
    Benchmark(goal_id="G10", what="the client's own work", measure=sealing.client),
    Benchmark(goal_id="G11", what="memory in the store", measure=storing.memory),
    Benchmark(goal_id="G12", what="start of the service", measure=starting.service),
    Benchmark(goal_id="G13", what="start of the client", measure=starting.client),
    Benchmark(goal_id="G14", what="many logs, long logs", measure=scaling.flatness),
    Benchmark(goal_id="G15", what="updates on a cluster", measure=clustered.updates),
    Benchmark(goal_id="MANY", what="wake of one log among many", measure=waking.one_of_many),
    Benchmark(goal_id="FAIR", what="a tenant beside another's flood", measure=sharing.two_tenants),
)


def beside_peers(folder: Path) -> Benchmark:
    """Ours beside other systems, of which `folder` has those that npm installed."""
    return Benchmark(
        goal_id="PEERS", what="other systems", measure=partial(beside.measure, folder=folder)
    )


async def everything(
    scale: Scale, chosen: Sequence[Benchmark], profiled: Path | None
) -> tuple[list[Row], dict[str, Any]]:
    """The rows, and what the JSON file holds; profiles go to the folder `profiled`, if any."""
    started, load_before = time.perf_counter(), os.getloadavg()[0]
    took: dict[str, float] = {}
    async with SharedStage() as shared:
        rows = await run(scale, chosen, shared, took)
        made = document(rows, scale, load_before)
        if profiled is not None:
            found = await profiles.profile(scale, profiled)
            made["profiles"] = {
                path: weights
                if isinstance(weights, str)
                else [asdict(one) for one in weights[:PROFILED_FUNCTIONS]]
                for path, weights in found.items()
            }
    made["took_seconds_each"] = took
    made["took_seconds"] = round(time.perf_counter() - started, 1)
    return rows, made


async def run(
    scale: Scale,
    chosen: Sequence[Benchmark],
    shared: SharedStage | None = None,
    took: dict[str, float] | None = None,
) -> list[Row]:
    """The rows of each; one that fails gives a failed row and does not stop the others.

    Nobody stands on a stage that somebody failed on. `took` is told the seconds of each goal.
    """
    rows: list[Row] = []
    for benchmark in chosen:
        progress(f"{benchmark.goal_id} {benchmark.what}")
        started = time.perf_counter()
        try:
            rows += await benchmark.measure(scale)
        except Exception as error:
            reason = reason_of(error)
            progress(f"FAILED {benchmark.goal_id}: {reason}")
            rows.append(Row(goal_id=benchmark.goal_id, what=benchmark.what, failed=reason))
            if shared is not None:
                await shared.close()
        seconds = time.perf_counter() - started
        progress(f"  {seconds:.0f} s")
        if took is not None:
            took[benchmark.goal_id] = round(seconds, 1)
    return rows


def reason_of(error: BaseException) -> str:
    """A check's own words; of anything else the last line, once its traceback is on stderr."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if not isinstance(error, CheckFailed):
        traceback.print_exception(error)
    return (str(error).strip() or type(error).__name__).splitlines()[-1]


def document(rows: Sequence[Row], scale: Scale, load_before: float) -> dict[str, Any]:
    return {
        "form": FORM,
        "made_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "took_seconds": 0.0,
        "quick": scale.quick,
        "pairs": scale.pairs,
        "sample_seconds": scale.seconds,
        "machine": {
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
            "load_before": load_before,
        },
        "rows": [to_plain(row) for row in rows],
    }

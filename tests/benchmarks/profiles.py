"""Where the server's time goes while it commits and while it wakes, sampled from outside.

py-spy reads the process's stacks without its help. For each path two files: the functions that
weigh most, as text, and a flame graph. Where sampling is not possible (no py-spy, no right to
trace), the reason stands in their place.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from indelible_protocol.ids import LogId

from tests.benchmarks import following
from tests.benchmarks.following import Following
from tests.benchmarks.stage import Scale, Stage, progress, stage
from tests.benchmarks.updates import CLIENTS, load_opaque
from tests.support.service import SERVER

SAMPLES_PER_SECOND = 250
HEAVIEST = 40
ROOTS = 0.98  # what is nearly always on the stack is the way in, and tells nothing
PY_SPY = str(Path(SERVER[0]).with_name("py-spy"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """Shares of the samples, 0 to 1: of the function itself, and with all that it called."""

    function: str
    own: float
    total: float


class NoProfile(Exception):
    """Sampling was not possible; says why."""


async def profile(scale: Scale, folder: Path) -> Mapping[str, Sequence[Weight] | str]:
    """The heaviest functions of each path; writes `profile-PATH.txt` and `.svg` to `folder`."""
    found: dict[str, Sequence[Weight] | str] = {}
    for path, load in (("commit", _committing), ("wake", _waking)):
        progress(f"profile of the {path} path")
        try:
            weights = await _profiled(scale, load, folder / f"profile-{path}")
        except NoProfile as reason:
            progress(f"  none: {reason}")
            found[path] = str(reason)
        else:
            found[path] = weights
            (folder / f"profile-{path}.txt").write_text(text(path, weights))
    return found


async def _profiled(
    scale: Scale, load: Callable[[Stage, Scale, Sequence[LogId]], Awaitable[object]], base: Path
) -> list[Weight]:
    seconds = scale.of(3, 1)
    async with stage(alone=True) as stand:
        # Longer than both recordings, which start a little late; ended with them.
        logs = await stand.make_opaque_logs(CLIENTS, "profiled")
        longer = replace(scale, seconds=seconds * 2 + 3.0)
        loading = asyncio.ensure_future(load(stand, longer, logs))
        try:
            raw = base.with_suffix(".stacks")
            await _record(stand.api.pid, seconds, "raw", raw)
            await _record(stand.api.pid, seconds, "flamegraph", base.with_suffix(".svg"))
            stacks = raw.read_text()
            raw.unlink()
            await loading
        finally:
            loading.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await loading
    return weigh(stacks)


async def _record(pid: int, seconds: int, form: str, path: Path) -> None:
    options = ["--rate", str(SAMPLES_PER_SECOND), "--duration", str(seconds), "--function"]
    command = ["record", "--pid", str(pid), *options, "--format", form, "--output", str(path)]
    try:
        process = await asyncio.create_subprocess_exec(
            *(PY_SPY, *command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    except FileNotFoundError:
        raise NoProfile("py-spy is not installed") from None
    try:
        said, _ = await process.communicate()
    except asyncio.CancelledError:
        process.terminate()
        await process.wait()
        raise
    if process.returncode:
        words = said.decode(errors="replace").strip().splitlines()
        raise NoProfile(f"py-spy: {words[-1] if words else process.returncode}")


async def _committing(stand: Stage, scale: Scale, logs: Sequence[LogId]) -> None:
    await load_opaque(stand, scale, [[log] for log in logs], 0)


async def _waking(stand: Stage, scale: Scale, logs: Sequence[LogId]) -> None:
    plan = Following(
        port=stand.port,
        wait_port=stand.port,
        apikey=stand.apikey,
        logs=logs,
        versions=[0] * len(logs),
        pids=[stand.api.pid],
        seconds=scale.seconds,
        max_wakes=100_000,
    )
    await stand.worker.run(following.follow, plan)


def weigh(stacks: str) -> list[Weight]:
    """Of lines `outermost;…;innermost count`: every function, heaviest of its own first."""
    own: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for line in stacks.splitlines():
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        own[frames[-1]] += int(count)
        for frame in set(frames):
            total[frame] += int(count)
    samples = max(1, own.total())
    weights = [
        Weight(function=function, own=own[function] / samples, total=count / samples)
        for function, count in total.items()
    ]
    return sorted(weights, key=lambda weight: (-weight.own, -weight.total))


def text(path: str, weights: Sequence[Weight]) -> str:
    inner = [weight for weight in weights if weight.total < ROOTS]
    by_total = sorted(inner, key=lambda weight: -weight.total)
    return "\n".join(
        [
            f"The {path} path: share of the server's samples, a function itself and with its calls",
            "",
            *_lines("heaviest of their own", weights[:HEAVIEST]),
            "",
            *_lines("heaviest with what they call", by_total[:HEAVIEST]),
            "",
        ]
    )


def _lines(title: str, weights: Sequence[Weight]) -> list[str]:
    return [
        f"   own  total  {title}",
        *(f"{one.own:6.1%} {one.total:6.1%}  {one.function}" for one in weights),
    ]

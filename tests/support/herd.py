"""A process full of followers: what a client of ours does when all of it has to come back.

Such clients are other machines: what this process does takes time from nobody who has more to do.
Told its task as JSON on standard input, it prints a line when all follow, and one more for each
version that all were told of: when each follower was, by the system's monotonic clock. It ends
when its standard input does.

Run by tests: `python -m tests.support.herd`.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from time import monotonic
from typing import Any

from indelible import AsyncClient, AsyncLog, Profile, retry, watching

_STARTED_AT_ONCE = 100
_NICENESS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """`followers` are spread over `logs`, by name, which are at version `after`.

    `jitter` off: every pause is as long as it may be.
    """

    profile: dict[str, str]
    logs: Sequence[str]
    followers: int
    after: int
    jitter: bool = True


class Herd:
    """The process, from outside."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def told(self) -> list[float]:
        """When each follower was told of the next version (or began to follow), by the
        monotonic clock."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        assert line, "the herd has ended"
        moments: list[float] = json.loads(line)
        return moments


@asynccontextmanager
async def herd(task: Task) -> AsyncIterator[Herd]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.herd"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 24,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(asdict(task)).encode() + b"\n")
    try:
        yield Herd(process)
    finally:
        process.stdin.close()
        try:
            async with asyncio.timeout(20):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


class _Tally:
    """Prints, for each version, when everybody has been told."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._moments: dict[int, list[float]] = {}

    def note(self, version: int) -> None:
        moments = self._moments.setdefault(version, [])
        moments.append(monotonic())
        if len(moments) == self._size:
            print(json.dumps(moments), flush=True)


async def _follow(log: AsyncLog, after: int, tally: _Tally) -> None:
    expected = after
    async for diff in log.follow(after):
        assert diff.from_version == expected, "a gap, or twice"
        for version in range(diff.from_version + 1, diff.to_version + 1):
            tally.note(version)
        expected = diff.to_version


async def _run(task: Task) -> None:
    tally = _Tally(task.followers)
    loop = asyncio.get_running_loop()
    async with AsyncClient(Profile(**task.profile)) as client:
        logs = [await client.log(name) for name in task.logs]
        following = []
        for number in range(task.followers):
            log = logs[number % len(logs)]
            following.append(asyncio.create_task(_follow(log, task.after, tally)))
            tally.note(task.after)
            if number % _STARTED_AT_ONCE == 0:
                await asyncio.sleep(0.05)
        ending = loop.run_in_executor(None, sys.stdin.read)
        ends: list[asyncio.Future[Any]] = [ending, *following]
        done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for each in following:
            each.cancel()
        await asyncio.gather(*following, return_exceptions=True)
        for end in done:
            end.result()


class _Stubborn:
    """In place of `random`, where the client draws its pauses."""

    @staticmethod
    def uniform(low: float, high: float) -> float:
        return high


if __name__ == "__main__":
    os.nice(_NICENESS)
    asked = Task(**json.loads(sys.stdin.readline()))
    if not asked.jitter:
        for module in (retry, watching):
            module.random = _Stubborn  # type: ignore[attr-defined]
    asyncio.run(_run(asked))

"""When the machine was held up by its host, which gave the processor to others (`steal`).

A time that was measured then says nothing of what was measured. Knows nothing of what that was.
"""

import asyncio
import time
from bisect import bisect_left
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

STEP_SECONDS = 0.25
AFTER_SECONDS = 1.0  # until what queued up meanwhile is done
_LEAST_TICKS = 3  # of a hundredth of a second, over all processors
_STEAL = 8


class HeldUp:
    """`steps` are the monotonic times at which steps ended in which it was."""

    def __init__(self) -> None:
        self.steps: list[float] = []

    def between(self, begin: float, end: float) -> bool:
        """Whether what began and ended at these monotonic times was held up."""
        at = bisect_left(self.steps, begin - AFTER_SECONDS)
        return at < len(self.steps) and self.steps[at] <= end + STEP_SECONDS


@asynccontextmanager
async def watching_host() -> AsyncIterator[HeldUp]:
    """While the block runs; on a machine that does not tell nothing is ever held up."""
    found = HeldUp()

    async def watch() -> None:
        before = _stolen_ticks()
        while True:
            await asyncio.sleep(STEP_SECONDS)
            now = _stolen_ticks()
            if now - before >= _LEAST_TICKS:
                found.steps.append(time.monotonic())
            before = now

    watching = asyncio.create_task(watch())
    try:
        yield found
    finally:
        watching.cancel()


def _stolen_ticks() -> int:
    told = Path("/proc/stat")
    words = told.read_text().partition("\n")[0].split() if told.exists() else []
    return int(words[_STEAL]) if len(words) > _STEAL else 0

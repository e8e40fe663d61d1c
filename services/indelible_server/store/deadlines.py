"""When waits are over: one timer for all of them, in steps.

A timer each costs a waiter 0.3 KiB and a place in the event loop's heap; here it costs a place
in the set of its step. Knows nothing of what else wakes them.
"""

import asyncio
from collections.abc import Iterator

from indelible_server.store.waiters import Sleeper

STEP_SECONDS = 0.05


class Deadlines:
    """Who was told is held until it is taken out: `overdue_seconds` finds those that stay."""

    def __init__(self) -> None:
        self._steps: dict[int, set[Sleeper]] = {}
        self._rung: dict[int, set[Sleeper]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_step = 0

    def add(self, sleeper: Sleeper, seconds: float) -> None:
        """It is woken with `timeout`, `seconds` from now, or up to STEP_SECONDS later."""
        now = asyncio.get_running_loop().time()
        step = sleeper.step = int((now + seconds) // STEP_SECONDS) + 1
        sleepers = self._steps.get(step)
        if sleepers is None:
            sleepers = self._steps[step] = set()
        sleepers.add(sleeper)
        if self._timer is None or step < self._timer_step:
            self._set_timer(step)

    def discard(self, sleeper: Sleeper) -> None:
        for steps in (self._steps, self._rung):
            sleepers = steps.get(sleeper.step)
            if sleepers is not None:
                sleepers.discard(sleeper)
                if not sleepers:
                    del steps[sleeper.step]

    def __iter__(self) -> Iterator[Sleeper]:
        """All that were not taken out yet."""
        for steps in (self._steps, self._rung):
            for sleepers in list(steps.values()):
                yield from list(sleepers)

    def overdue_seconds(self) -> float:
        """By how much the oldest is beyond its time; 0 if none is."""
        first = min((*self._steps, *self._rung), default=None)
        if first is None:
            return 0.0
        return max(0.0, asyncio.get_running_loop().time() - first * STEP_SECONDS)

    def _set_timer(self, step: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_step = step
        self._timer = asyncio.get_running_loop().call_at(step * STEP_SECONDS, self._ring)

    def _ring(self) -> None:
        now_step = max(self._timer_step, int(asyncio.get_running_loop().time() // STEP_SECONDS))
        self._timer = None
        for step in sorted(self._steps):
            if step > now_step:
                self._set_timer(step)
                return
            sleepers = self._steps.pop(step)
            self._rung.setdefault(step, set()).update(sleepers)
            for sleeper in sleepers:
                sleeper.wake("timeout")

"""Which commits are refused when more come than can be done: so that those taken do not wait.

What a commit takes beyond what one takes alone is its wait for others. A burst passes: it is done
soon. Only when some waited too long in every part of the last moments, no more are let in flight
than are done in time: fewer while any wait too long, more while none does. Pure; knows nothing of
commits, nor whose they are.
"""

import math
from collections.abc import Callable

FEW = 8  # that may always be in flight
PART_SECONDS = 0.05  # or as long as a wait may be, if that is less
PARTS = 3
_LEAST_PART_SECONDS = 0.01
_QUIET_PARTS = 4  # in which the limit is not reached, or nobody asks: it is over
_LATE = 1 / 10  # of those that end in a part: more, and it was too long
_SHRINK, _GROW = 3 / 4, 1 / 8
_FADE = 0.04  # of it a second: so slowly it is forgotten what one took alone


class Shedding:
    """`most_seconds` is the longest wait; `now` a monotonic clock in seconds."""

    def __init__(self, most_seconds: float, now: Callable[[], float]) -> None:
        self._most_seconds = most_seconds
        self._now = now
        self._part_seconds = min(PART_SECONDS, max(most_seconds, _LEAST_PART_SECONDS))
        self._fade = 1 + _FADE * self._part_seconds
        self._alone_seconds = math.inf
        self._limit = math.inf
        self._part_ends = 0.0
        self._ended = self._late = 0
        self._least_seconds = math.inf
        self._is_full = False
        self._long_parts = 0
        self._quiet_parts = 0

    def admits(self, in_flight: int) -> bool:
        """Whether one more may be begun beside so many."""
        now = self._now()
        if now >= self._part_ends:
            self._end_part(now, in_flight)
        if in_flight < self._limit:
            return True
        self._is_full = True
        return False

    def ended(self, seconds: float) -> None:
        """One that took so long from its beginning."""
        self._ended += 1
        self._least_seconds = min(self._least_seconds, seconds)
        self._late += seconds > self._alone_seconds + self._most_seconds

    def _end_part(self, now: float, in_flight: int) -> None:
        is_over = now - self._part_ends > _QUIET_PARTS * self._part_seconds
        is_long = self._late > _LATE * self._ended if self._ended else in_flight >= FEW
        if is_over:
            self._lift()
        elif self._limit == math.inf:
            self._long_parts = self._long_parts + 1 if is_long else 0
            if self._long_parts >= PARTS:
                self._limit, self._quiet_parts = max(FEW, in_flight * _SHRINK), 0
        else:
            self._adjust(is_long)
        self._alone_seconds = min(self._fade * self._alone_seconds, self._least_seconds)
        self._ended = self._late = 0
        self._least_seconds = math.inf
        self._is_full = False
        self._part_ends = now + self._part_seconds

    def _lift(self) -> None:
        self._limit, self._long_parts = math.inf, 0

    def _adjust(self, is_long: bool) -> None:
        self._quiet_parts = 0 if self._is_full else self._quiet_parts + 1
        if self._quiet_parts >= _QUIET_PARTS:
            self._lift()
        elif is_long:
            self._limit = max(FEW, self._limit * _SHRINK)
        elif self._is_full:
            self._limit += max(1.0, self._limit * _GROW)

"""Which commits are refused when more come than can be done: so that those taken do not wait.

A commit is expected to wait for those in flight before it, each as long as one took of late. A
burst passes: it is done soon. Only when the wait was too long in every part of the last moments
are commits refused, beyond what is done within the bound. Pure; knows nothing of commits, nor
whose they are.
"""

from collections.abc import Callable

LEAST = 64  # that may always be in flight: the store syncs them together
PART_SECONDS = 0.05
PARTS = 3
_QUIET_PARTS = 4  # without anybody asking: it is over
_SHARE = 1 / 128  # of the newest in the average


class Shedding:
    """`most_seconds` is the longest wait; `now` a monotonic clock in seconds."""

    def __init__(self, most_seconds: float, now: Callable[[], float]) -> None:
        self._most_seconds = most_seconds
        self._now = now
        self._seconds_each = 0.0
        self._ended_at = 0.0
        self._part_ends = 0.0
        self._part_is_long = False
        self._long_parts = 0

    def admits(self, in_flight: int) -> bool:
        """Whether one more may be begun beside so many."""
        now = self._now()
        if now >= self._part_ends:
            self._end_part(now)
        if in_flight < LEAST or in_flight * self._seconds_each <= self._most_seconds:
            return True
        self._part_is_long = True
        return self._long_parts < PARTS

    def began(self, in_flight: int) -> None:
        """One was begun beside so many."""
        if not in_flight:
            self._ended_at = self._now()

    def ended(self) -> None:
        """While there is one in flight, the time between two ends is what one takes."""
        now = self._now()
        self._seconds_each += (now - self._ended_at - self._seconds_each) * _SHARE
        self._ended_at = now

    def _end_part(self, now: float) -> None:
        is_over = now - self._part_ends > _QUIET_PARTS * PART_SECONDS
        self._long_parts = 0 if is_over or not self._part_is_long else self._long_parts + 1
        self._part_is_long = False
        self._part_ends = now + PART_SECONDS

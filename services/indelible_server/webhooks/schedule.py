"""When a delivery is tried again, and what an answer means. Pure: no clock, no randomness.

The retry table is that of Standard Webhooks 1.0. A pause is drawn from nothing to the table's
(full jitter), so that endpoints which failed together are not tried together.
"""

from typing import Literal

from msgspec import Struct

RETRY_SECONDS = (0, 5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
MAX_PAUSE_SECONDS = 86_400
DISABLED_AFTER_SECONDS = 5 * 86_400  # of nothing but failures
SLOW_JITTER_SECONDS = 60

Verdict = Literal["delivered", "failed", "slow", "gone"]
_SLOW_DOWN = frozenset({429, 502, 504})


class Retry(Struct, frozen=True, kw_only=True):
    """`pause_seconds` None: that was the last attempt."""

    pause_seconds: float | None


def verdict_of(status: int | None) -> Verdict:
    """`slow` and `gone` are failures; None: there was no answer. A redirect is a failure."""
    if status is None:
        return "failed"
    if 200 <= status < 300:
        return "delivered"
    if status == 410:
        return "gone"
    return "slow" if status in _SLOW_DOWN else "failed"


def next_attempt(
    failures: int, verdict: Verdict, retry_after_seconds: float | None, fraction: float
) -> Retry:
    """What follows the `failures`-th failure of a delivery. `fraction` is random, 0 to 1.

    An endpoint that asks for time gets the whole pause of the table, and as much as it asks
    for, up to a day.
    """
    if failures >= len(RETRY_SECONDS):
        return Retry(pause_seconds=None)
    pause = RETRY_SECONDS[failures]
    if verdict == "slow":
        drawn = pause + fraction * min(pause, SLOW_JITTER_SECONDS)
    else:
        drawn = fraction * pause
    return Retry(pause_seconds=min(max(drawn, retry_after_seconds or 0), MAX_PAUSE_SECONDS))


def is_hopeless(failing_since_ms: int, now_ms: int) -> bool:
    """Whether an endpoint has failed for so long that it is left alone."""
    return now_ms - failing_since_ms >= DISABLED_AFTER_SECONDS * 1_000

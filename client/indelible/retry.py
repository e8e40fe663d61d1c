"""When to try again: full jitter between tries, and a deadline over all of them.

Decides and sleeps; what may be tried again is the caller's to know. Only two things are: a
request that changes nothing, and a commit in the very same bytes.
"""

import asyncio
import logging
import random
import time
from dataclasses import dataclass

from indelible.errors import UnavailableError

_log = logging.getLogger("indelible")


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Full jitter: each delay is drawn from zero up to a ceiling that doubles.

    Source: M. Brooker, "Exponential Backoff And Jitter" (2015).
    """

    first_seconds: float = 0.1
    most_seconds: float = 5.0

    def ceiling_seconds(self, failures: int) -> float:
        """The longest delay after that many failures, the first being 1."""
        return min(self.most_seconds, self.first_seconds * 2.0 ** min(failures - 1, 30))

    def delay_seconds(self, failures: int) -> float:
        return random.uniform(0.0, self.ceiling_seconds(failures))


# After a lost connection every waiter of a server comes back at once: from a wider range.
RECONNECT = Backoff(first_seconds=3.0)


class Attempts:
    """The tries of one operation, and the time that is left for them."""

    def __init__(self, timeout_seconds: float, backoff: Backoff | None = None) -> None:
        """`timeout_seconds` may be infinite."""
        self._deadline = time.monotonic() + timeout_seconds
        self._backoff = backoff or Backoff()
        self.failures = 0

    @property
    def remaining_seconds(self) -> float:
        return self._deadline - time.monotonic()

    async def pause(self, error: UnavailableError) -> None:
        """Sleeps before the next try: as long as the service asked for, and jitter.

        Raises:
            UnavailableError: `error`, if the deadline comes before the next try.
        """
        self.failures += 1
        delay_seconds = self._backoff.delay_seconds(self.failures)
        if error.retry_after_seconds is not None:
            delay_seconds += error.retry_after_seconds
        if delay_seconds >= self.remaining_seconds:
            raise error
        _log.info(
            "request.retried after failure %d in %.2f s: %s", self.failures, delay_seconds, error
        )
        await asyncio.sleep(delay_seconds)

    def succeeded(self) -> None:
        """The next failure counts as the first again."""
        self.failures = 0

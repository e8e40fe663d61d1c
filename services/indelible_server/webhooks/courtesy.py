"""Who goes first. A webhook whose endpoint failed or was slow of late takes each of its steps when
no other is at work, or when it has waited long enough: what it costs falls into the gaps of the
others.

Knows nothing of what the work is. How many attempts run at once is bounded by `slots`.
"""

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE_SECONDS = 0.25
STEP_SECONDS = 0.002
QUEUE_FOR_EACH = 64  # a long queue is shortened faster


SLOW_MS = 250
TRUSTED_AFTER = 5  # an endpoint that fails every other time is no better than one that fails


class Trust:
    """Lost with an attempt that failed or was slow, won back with several that were neither."""

    def __init__(self) -> None:
        self._good = TRUSTED_AFTER

    @property
    def is_suspect(self) -> bool:
        return self._good < TRUSTED_AFTER

    def note(self, *, delivered: bool, took_ms: float) -> None:
        self._good = self._good + 1 if delivered and took_ms <= SLOW_MS else 0


class Courtesy:
    def __init__(self, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._patience_seconds = patience_seconds
        self._at_work = 0
        self._waiting: deque[tuple[float, asyncio.Future[None]]] = deque()
        self._ushering: asyncio.Task[None] | None = None

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """The work of one that the others wait for."""
        self._at_work += 1
        try:
            yield
        finally:
            self._at_work -= 1

    async def turn(self) -> None:
        """Returns when one of the others may take a step."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.append((loop.time() + self._patience_seconds, turn))
        if self._ushering is None:
            self._ushering = asyncio.create_task(self._usher())
        await turn

    async def _usher(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            await asyncio.sleep(STEP_SECONDS)
            for _ in range(1 + len(self._waiting) // QUEUE_FOR_EACH):
                if self._at_work and self._waiting[0][0] > loop.time():
                    break
                _, turn = self._waiting.popleft()
                if not turn.done():  # else its worker was cancelled
                    turn.set_result(None)
        self._ushering = None

"""Waits for something to become true elsewhere, with a deadline; never for a while."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable


async def until(
    condition: Callable[[], bool | Awaitable[bool]], *, within_seconds: float = 10.0, what: str = ""
) -> None:
    """Returns as soon as `condition` holds.

    Raises:
        TimeoutError: it did not within `within_seconds`; `what` says what was waited for.
    """
    deadline = time.monotonic() + within_seconds
    while True:
        verdict = condition()
        if await verdict if inspect.isawaitable(verdict) else verdict:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {within_seconds} s: {what or condition}")
        await asyncio.sleep(0.005)

"""When to try again: jitter within a rising ceiling, and never past the deadline."""

import time

import pytest
from indelible import UnavailableError
from indelible.retry import RECONNECT, Attempts, Backoff


def test_ceilings_double_up_to_the_most() -> None:
    ceilings = [Backoff().ceiling_seconds(failures) for failures in range(1, 9)]
    assert ceilings == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0])
    assert Backoff().ceiling_seconds(10_000) == 5.0
    assert RECONNECT.ceiling_seconds(1) == 3.0


def test_jitter_is_full() -> None:
    """From zero to the ceiling, evenly: a crowd that failed together comes back apart."""
    delays = [Backoff().delay_seconds(3) for _ in range(4_000)]
    assert all(0.0 <= delay <= 0.4 for delay in delays)
    tenths = [sum(n * 0.04 <= delay < (n + 1) * 0.04 for delay in delays) for n in range(10)]
    assert min(tenths) > 250


async def test_the_error_itself_is_raised_when_the_deadline_comes_first() -> None:
    error = UnavailableError("down")
    attempts = Attempts(0.05, Backoff(first_seconds=0.01, most_seconds=0.02))

    async def until_refused() -> None:
        while True:
            await attempts.pause(error)

    with pytest.raises(UnavailableError) as caught:
        await until_refused()
    assert caught.value is error
    assert attempts.failures > 1


async def test_what_the_service_asked_for_is_waited_at_least() -> None:
    attempts = Attempts(5.0, Backoff(first_seconds=0.001))
    started = time.monotonic()
    await attempts.pause(UnavailableError("busy", retry_after_seconds=0.2))
    assert time.monotonic() - started >= 0.2
    with pytest.raises(UnavailableError):
        await attempts.pause(UnavailableError("busy", retry_after_seconds=60.0))


async def test_success_begins_the_count_anew() -> None:
    attempts = Attempts(float("inf"), Backoff(first_seconds=0.0001))
    for _ in range(3):
        await attempts.pause(UnavailableError("down"))
    assert attempts.failures == 3
    attempts.succeeded()
    assert attempts.failures == 0

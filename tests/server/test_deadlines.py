"""Deadlines end waits in time, all under one timer, and tell of those that stay."""

import asyncio
import random
import time

from indelible_protocol.ids import LogId
from indelible_server.store.deadlines import STEP_SECONDS, Deadlines
from indelible_server.store.waiters import Waiter

from tests.support.polling import until

LOG = LogId(bytes(32))
BUSY_SECONDS = 2.0  # that a busy machine may take longer


async def test_nobody_is_woken_before_the_time_or_much_after_it() -> None:
    deadlines = Deadlines()
    late: list[float] = []

    async def wait(seconds: float) -> None:
        waiter = Waiter(LOG, 0)
        began = time.monotonic()
        deadlines.add(waiter, seconds)
        assert await waiter.outcome == "timeout"
        late.append(time.monotonic() - began - seconds)
        deadlines.discard(waiter)

    seconds = [0.0, *(random.uniform(0, 0.6) for _ in range(200)), 0.7]
    await asyncio.gather(*(wait(each) for each in seconds))
    assert min(late) > -0.001
    assert max(late) < STEP_SECONDS + BUSY_SECONDS
    assert not list(deadlines)


async def test_a_sooner_deadline_than_all_before_is_met() -> None:
    deadlines = Deadlines()
    patient, hasty = Waiter(LOG, 0), Waiter(LOG, 0)
    deadlines.add(patient, 30)
    deadlines.add(hasty, 0.1)
    async with asyncio.timeout(5):
        assert await hasty.outcome == "timeout"
    assert not patient.outcome.done()
    deadlines.discard(hasty)
    assert list(deadlines) == [patient]


async def test_who_was_taken_out_is_not_woken() -> None:
    deadlines = Deadlines()
    gone, stays = Waiter(LOG, 0), Waiter(LOG, 0)
    deadlines.add(gone, 0.1)
    deadlines.add(stays, 0.2)
    deadlines.discard(gone)
    await stays.outcome
    assert not gone.outcome.done()


async def test_who_stays_beyond_the_time_is_told_of() -> None:
    deadlines = Deadlines()
    assert deadlines.overdue_seconds() == 0.0
    stuck, later = Waiter(LOG, 0), Waiter(LOG, 0)
    began = asyncio.get_running_loop().time()
    deadlines.add(later, 60)
    deadlines.add(stuck, 0.0)
    await stuck.outcome
    await until(lambda: deadlines.overdue_seconds() > 0.1)
    assert deadlines.overdue_seconds() <= asyncio.get_running_loop().time() - began
    assert set(deadlines) == {stuck, later}
    deadlines.discard(stuck)
    assert deadlines.overdue_seconds() == 0.0

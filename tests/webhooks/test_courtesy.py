"""Webhooks whose endpoints do badly let the others go first, and are not forgotten for that."""

import asyncio

from indelible_server.webhooks.courtesy import (
    SLOW_MS,
    STEP_SECONDS,
    TRUSTED_AFTER,
    Courtesy,
    Trust,
)

from tests.support.polling import until


class Work:
    """What begins, in order; `end` lets all that has begun come to its end."""

    def __init__(self, courtesy: Courtesy) -> None:
        self.begun: list[str] = []
        self.end = asyncio.Event()
        self._courtesy = courtesy

    def start(self, name: str, *, is_suspect: bool) -> "asyncio.Task[None]":
        async def work() -> None:
            if is_suspect:
                await self._courtesy.turn()
                self.begun.append(name)
                return
            with self._courtesy.at_work():
                self.begun.append(name)
                await self.end.wait()

        return asyncio.create_task(work())


async def test_a_suspect_waits_until_no_other_is_at_work() -> None:
    work = Work(Courtesy(patience_seconds=60.0))
    tasks = [work.start("slow", is_suspect=True), work.start("healthy", is_suspect=False)]
    await asyncio.sleep(20 * STEP_SECONDS)
    assert work.begun == ["healthy"]
    work.end.set()
    await asyncio.wait_for(asyncio.gather(*tasks), 10)
    assert work.begun == ["healthy", "slow"]


async def test_a_suspect_begins_in_the_end_though_others_are_always_at_work() -> None:
    work = Work(Courtesy(patience_seconds=0.05))
    healthy = work.start("healthy", is_suspect=False)
    suspects = [work.start(f"slow {number}", is_suspect=True) for number in range(3)]
    await until(lambda: len(work.begun) == 4)
    assert work.begun == ["healthy", "slow 0", "slow 1", "slow 2"]
    work.end.set()
    await asyncio.gather(healthy, *suspects)


async def test_a_suspect_that_is_cancelled_takes_nobodys_turn() -> None:
    work = Work(Courtesy(patience_seconds=60.0))
    healthy = work.start("healthy", is_suspect=False)
    first, second = (work.start(name, is_suspect=True) for name in ("first", "second"))
    await asyncio.sleep(0)
    first.cancel()
    work.end.set()
    await asyncio.wait_for(asyncio.gather(healthy, second), 10)
    assert work.begun == ["healthy", "second"]


def test_trust_is_lost_at_once_and_won_back_slowly() -> None:
    trust = Trust()
    told = [trust.is_suspect]
    for delivered, took_ms in ((False, 1), (True, SLOW_MS + 1)):
        trust.note(delivered=delivered, took_ms=took_ms)
        for _ in range(TRUSTED_AFTER):
            told.append(trust.is_suspect)
            trust.note(delivered=True, took_ms=SLOW_MS)
        told.append(trust.is_suspect)
    assert told == [False, *[True] * TRUSTED_AFTER, False, *[True] * TRUSTED_AFTER, False]

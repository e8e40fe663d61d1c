"""Transactions of several clients, which share no turns: nobody is always too late."""

import asyncio
import time
from statistics import median

import pytest
from indelible import AsyncClient, AsyncLog, AsyncTransaction, Profile

WRITING_SECONDS = 2.0


class Counting:
    """Adds one to what all count, for `WRITING_SECONDS`; `saves` are its own."""

    def __init__(self, log: AsyncLog) -> None:
        self._log = log
        self.saves = self.attempts = 0

    async def run(self) -> None:
        ends = time.monotonic() + WRITING_SECONDS
        while time.monotonic() < ends:
            await self._log.transact(self._increment)
            self.saves += 1

    async def _increment(self, transaction: AsyncTransaction) -> None:
        self.attempts += 1
        transaction.set("count", await transaction.get("count", 0) + 1)


@pytest.mark.parametrize("crowd", [3, 16])
async def test_nobody_starves_in_a_crowd_nor_tries_often(profile: Profile, crowd: int) -> None:
    clients = [AsyncClient(profile) for _ in range(crowd)]
    logs = [await client.log("counters", create=True) for client in clients]
    counting = [Counting(log) for log in logs]
    await asyncio.gather(*(one.run() for one in counting))
    saves = [one.saves for one in counting]
    assert await logs[0].get("count") == sum(saves)
    assert min(saves) >= 0.3 * median(saves), saves
    assert sum(one.attempts for one in counting) <= 3 * sum(saves), saves
    for client in clients:
        await client.close()

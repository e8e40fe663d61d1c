"""Transactions of several clients, which share no turns: nobody is always too late."""

import asyncio
import time

from indelible import AsyncClient, AsyncLog, AsyncTransaction, Profile

WRITING_SECONDS = 2.0


async def increment(transaction: AsyncTransaction) -> None:
    transaction.set("count", await transaction.get("count", 0) + 1)


async def count_up(log: AsyncLog) -> int:
    """How often it was first."""
    count, ends = 0, time.monotonic() + WRITING_SECONDS
    while time.monotonic() < ends:
        await log.transact(increment)
        count += 1
    return count


async def test_no_client_starves_beside_others_that_never_wait(profile: Profile) -> None:
    clients = [AsyncClient(profile) for _ in range(3)]
    logs = [await client.log("counters", create=True) for client in clients]
    counts = await asyncio.gather(*map(count_up, logs))
    assert await logs[0].get("count") == sum(counts)
    assert min(counts) > max(counts) / 10, counts  # where losers starve, it is one in hundreds
    for client in clients:
        await client.close()

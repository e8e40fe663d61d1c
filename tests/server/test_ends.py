"""What runs in the background ends when it is told to, whatever the store's client is doing."""

import asyncio

from indelible_server.store.connection import end_tasks


async def test_a_task_that_swallows_its_first_cancellations_is_ended_all_the_same() -> None:
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while swallowed < 3:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                swallowed += 1
        await asyncio.sleep(60)

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    await asyncio.wait_for(end_tasks(task), 10)
    assert task.cancelled()
    assert swallowed == 3

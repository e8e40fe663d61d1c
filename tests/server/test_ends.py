"""What runs in the background ends when it is told to, whatever the store's client is doing."""

import asyncio
import random

from indelible_server.store.connection import connect, end_tasks
from indelible_server.store.errors import Refusal

from tests.support.engines import Engine


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


async def test_tasks_that_use_the_store_end_in_whatever_round_they_are_told(engine: Engine) -> None:
    async def work() -> None:
        while True:
            clients = connect(engine.url, connections=1, timeout_seconds=5.0)
            try:
                await clients.commands.execute_command("XREAD", "BLOCK", 0, "STREAMS", "s", "$")
            except Refusal:
                pass
            finally:
                await clients.close()

    for rounds in range(60):
        task = asyncio.create_task(work())
        for _ in range(rounds):
            await asyncio.sleep(random.choice((0, 0, 0.0005)))
        await asyncio.wait_for(end_tasks(task), 10)

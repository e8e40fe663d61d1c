"""Whose turn it is: who asks little is begun at once, who asks much waits for a quiet moment."""

import asyncio

from indelible_server.api.turns import PATIENCE_SECONDS, REMEMBERED_SECONDS, Turns


class Clock:
    """Every reading is `step` seconds after the one before."""

    def __init__(self, step: float = 0.0) -> None:
        self.seconds = 100.0
        self.step = step

    def __call__(self) -> float:
        self.seconds += self.step
        return self.seconds


class Asking:
    """Requests of several tenants, and the order in which they were begun."""

    def __init__(self, clock: Clock) -> None:
        self.turns = Turns(clock)
        self.begun: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []

    def ask(self, tenant: str, count: int = 1) -> None:
        self.tasks += [asyncio.ensure_future(self._request(tenant)) for _ in range(count)]

    async def _request(self, tenant: str) -> None:
        await self.turns.take(tenant)
        self.begun.append(tenant)

    async def all_begun(self) -> list[str]:
        await asyncio.wait_for(asyncio.gather(*self.tasks), 10)
        return self.begun


async def test_alone_nobody_waits() -> None:
    asking = Asking(Clock())
    asking.ask("a", 50)
    await asyncio.sleep(0)  # one round of the loop
    assert asking.begun == ["a"] * 50


async def test_who_asks_little_goes_before_what_another_has_piled_up() -> None:
    asking = Asking(Clock())
    asking.ask("b")
    asking.ask("a", 100)
    await asyncio.sleep(0)
    asking.ask("b", 3)
    begun = await asking.all_begun()
    assert begun.count("a") == 100
    assert begun.count("b") == 4
    assert max(place for place, tenant in enumerate(begun) if tenant == "b") < 8


async def test_equals_take_turns() -> None:
    asking = Asking(Clock())
    for _ in range(50):
        asking.ask("a")
        asking.ask("b")
        asking.ask("c")
    begun = await asking.all_begun()
    for start in range(0, 150, 15):
        part = begun[start : start + 15]
        assert {tenant: part.count(tenant) for tenant in "abc"} == {"a": 5, "b": 5, "c": 5}


async def test_the_heaviest_waits_while_the_loop_is_busy_but_not_for_ever() -> None:
    busy = Clock(step=PATIENCE_SECONDS / 3)
    asking = Asking(busy)
    asking.ask("b")
    asking.ask("a", 20)
    rounds = 0
    while len(asking.begun) < 21:
        await asyncio.sleep(0)
        rounds += 1
        assert rounds < 1_000
    assert rounds > 40


async def test_after_a_quiet_second_the_tenant_that_is_left_waits_no_more() -> None:
    clock = Clock()
    asking = Asking(clock)
    asking.ask("a")
    asking.ask("b")
    await asking.all_begun()
    clock.seconds += 2 * REMEMBERED_SECONDS
    asking.ask("a", 5)
    await asyncio.sleep(0)
    assert asking.begun[2:] == ["a"] * 5


async def test_a_client_that_left_takes_no_turn() -> None:
    asking = Asking(Clock())
    asking.ask("b")
    asking.ask("a", 10)
    await asyncio.sleep(0)
    for task in asking.tasks[3:]:
        task.cancel()
    asking.ask("b", 2)
    await asyncio.wait(asking.tasks, timeout=10)
    assert sorted(asking.begun) == ["a", "a", "b", "b", "b"]
    assert all(task.done() for task in asking.tasks)

"""A long poll that is refused while it enters has one answer: the refusal, or what came before."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from indelible_protocol.ids import LogId
from indelible_server.api.waiting import Waiting
from indelible_server.settings import Settings
from indelible_server.store.connection import connect
from indelible_server.store.errors import Refusal, StoreUnavailable
from indelible_server.store.waiters import UNTOLD, Waiter, Watch, Watched
from indelible_server.store.wakeups import Wakeups

from tests.support.engines import Engine

LOG = LogId(bytes(32))


class Entering:
    """One whose read of the version fails once `fail` is set."""

    def __init__(self, wakeups: Wakeups, fail: asyncio.Event) -> None:
        self.waiting = Waiting(wakeups, Settings(redis="unused"))
        self.fail = fail
        self.waiter = Waiter(LOG, 0)

    async def started(self) -> "asyncio.Task[None]":
        task = asyncio.create_task(self.waiting.enter("tenant", self.waiter, 30.0))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not task.done()
        return task


@pytest.fixture
async def entering(engine: Engine) -> AsyncIterator[Entering]:
    clients = connect(engine.url, connections=1, timeout_seconds=5.0)
    fail = asyncio.Event()

    async def read(watched: Sequence[Watched]) -> list[int | None]:
        await fail.wait()
        raise StoreUnavailable("away")

    yield Entering(Wakeups(clients.subscriber, read, recheck_seconds=60.0), fail)
    await clients.close()


async def test_who_was_refused_is_told_nothing_more(entering: Entering) -> None:
    """A wave that took note of it before goes by `is_asleep` when it writes."""
    task = await entering.started()
    assert entering.waiter.is_asleep
    entering.fail.set()
    with pytest.raises(Refusal):
        await task
    assert not entering.waiter.is_asleep


async def test_who_was_told_meanwhile_is_not_refused(entering: Entering) -> None:
    task = await entering.started()
    entering.waiter.take()  # as a wave does with its answer's last byte
    entering.fail.set()
    await task
    entering.waiter.finish()
    assert await entering.waiter.outcome == "answered"
    entering.waiting.leave("tenant", entering.waiter)


async def test_that_nothing_moved_is_not_said_of_a_log_that_cannot_be_read(engine: Engine) -> None:
    """A node that was cut off refuses to tell its logs' versions, other nodes tell theirs."""
    clients = connect(engine.url, connections=1, timeout_seconds=5.0)
    other = LogId(b"\1" * 32)
    told: dict[Watched, int | None] = {LOG: UNTOLD, other: 7}

    async def read(watched: Sequence[Watched]) -> list[int | None]:
        return [told[each] for each in watched]

    wakeups = Wakeups(clients.subscriber, read, recheck_seconds=60.0)
    watch = Watch()
    with pytest.raises(StoreUnavailable):
        await wakeups.sleep(watch, 0.05, also={LOG: 7, other: 7})
    assert await wakeups.sleep(Watch(), 0.05, also={other: 7}) == "timeout"
    assert await wakeups.sleep(Watch(), 0.05, also={LOG: 7, other: 6}) == "moved"
    told[LOG] = 7
    assert await wakeups.sleep(Watch(), 0.05, also={LOG: 7}) == "timeout"
    assert await wakeups.sleep(watch, 0.05, also={}) == "timeout"
    await clients.close()

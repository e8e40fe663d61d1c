"""A long poll that is refused while it enters has one answer: the refusal, or what came before."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import aiohttp
import pytest
from indelible_protocol import paths
from indelible_protocol.ids import LogId
from indelible_server.api.waiting import Waiting
from indelible_server.settings import Settings
from indelible_server.store.connection import connect
from indelible_server.store.errors import Refusal, StoreUnavailable
from indelible_server.store.names import Scope
from indelible_server.store.waiters import UNTOLD, Waiter, Watch, Watched
from indelible_server.store.wakeups import Wakeups
from redis.asyncio import Redis

from tests.server.test_lane import stand_on
from tests.support.engines import Engine
from tests.support.polling import until

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


async def test_a_wait_without_hints_ends_with_a_read(engine: Engine) -> None:
    """Nothing is subscribed here, and no recheck comes: the last read alone can tell."""
    clients = connect(engine.url, connections=1, timeout_seconds=5.0)
    versions = [7, 7, 8]

    async def read(watched: Sequence[Watched]) -> list[int | None]:
        return [versions.pop(0) for _ in watched]

    wakeups = Wakeups(clients.subscriber, read, recheck_seconds=60.0)
    watch = Watch()
    assert await wakeups.sleep(watch, 0.05, also={LOG: 7}) == "timeout"
    assert await wakeups.sleep(watch, 0.05, also={}) == "moved"
    assert watch.behind == {LOG: 8}
    await clients.close()


async def test_that_nothing_moved_is_not_said_when_the_last_recheck_failed(engine: Engine) -> None:
    """As a whole: the store is away, though the connection that listens is open."""
    clients = connect(engine.url, connections=1, timeout_seconds=5.0)
    reads = 0
    is_away = False

    async def read(watched: Sequence[Watched]) -> list[int | None]:
        nonlocal reads
        reads += 1
        if is_away:
            raise StoreUnavailable("away")
        return [7 for _ in watched]

    wakeups = Wakeups(clients.subscriber, read, recheck_seconds=0.05)
    stop = asyncio.Event()
    running = asyncio.create_task(wakeups.run(stop))
    watch = Watch()
    waiter = Waiter(LOG, 7)
    assert await wakeups.sleep(watch, 0.0, also={LOG: 7}) == "timeout"
    await until(lambda: wakeups.is_sure(LOG))  # by a recheck, once hints come in
    await wakeups.enter(waiter, 0.5)
    sleeping = asyncio.create_task(wakeups.sleep(watch, 0.5, also={}))
    is_away, before = True, reads
    await until(lambda: reads > before)
    with pytest.raises(StoreUnavailable):
        await sleeping
    assert await waiter.outcome == "timeout"
    assert not await wakeups.is_sure(LOG)  # who tells the waiter's client has to read before
    is_away = False
    assert await wakeups.sleep(watch, 0.0, also={}) == "timeout"
    assert await wakeups.is_sure(LOG)
    wakeups.leave(waiter)
    stop.set()
    await running
    await clients.close()


async def test_waits_that_end_ask_the_store_for_nothing(engine: Engine) -> None:
    """While hints come in, that is: no recheck comes here, and nothing was ever lost."""
    async with stand_on(engine, recheck_seconds=60.0) as stand, Redis.from_url(engine.url) as store:
        logs, wakeups = stand.services.logs, stand.services.wakeups
        mine = logs.known(stand.log)
        assert mine is not None
        log_ids = []
        for number in range(100):
            made = await logs.create_opaque(Scope(tenant=mine.tenant), b"log %d" % number, "")
            log_ids.append(made.description.identity.log_id)
        stop = asyncio.Event()
        running = asyncio.create_task(wakeups.run(stop))
        headers = {"Authorization": f"Bearer {stand.apikey}"}
        async with aiohttp.ClientSession(stand.url, headers=headers) as http:

            async def wait(log_id: LogId) -> int:
                path = paths.of_log(paths.DIFF, log_id)
                async with http.get(f"{path}?from=0&wait=4") as answer:
                    return answer.status

            waits = [asyncio.create_task(wait(log_id)) for log_id in log_ids]

            async def all_asleep() -> bool:
                sure = [await wakeups.is_sure(log_id) for log_id in log_ids]
                return wakeups.waiter_count == len(log_ids) and all(sure)

            await until(all_asleep, within_seconds=60)
            before = await reads_of(store)
            assert not any(each.done() for each in waits)
            assert set(await asyncio.gather(*waits)) == {204}
            assert await reads_of(store) == before
        stop.set()
        await running


async def reads_of(store: Redis) -> list[int]:
    told = await store.info("commandstats")
    words = "hmget", "hget", "fcall", "fcall_ro", "xrange"
    return [told.get(f"cmdstat_{word}", {}).get("calls", 0) for word in words]

"""What many ask for together is read once, and never from before they asked."""

import asyncio
from collections.abc import Sequence

import pytest
from indelible_protocol.ids import LogId
from indelible_server.store.errors import Refusal, StoreUnavailable
from indelible_server.store.reading import Head
from indelible_server.store.shared_reads import SharedReads

ONE, TWO = LogId(b"1" * 32), LogId(b"2" * 32)


class Store:
    """Answers a read when it is told to, with what it held when the read began."""

    def __init__(self) -> None:
        self.version = 1
        self.reads: list[list[LogId]] = []
        self.go = asyncio.Event()
        self.fails = False

    async def read(self, log_ids: Sequence[LogId]) -> list[Head | None]:
        self.reads.append(list(log_ids))
        heads = [None if log_id == TWO else Head(self.version, 1, 1) for log_id in log_ids]
        await self.go.wait()
        if self.fails:
            raise StoreUnavailable("away")
        return list(heads)


async def some_rounds() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_all_who_ask_together_share_one_read() -> None:
    store = Store()
    heads = SharedReads(store.read)
    asked = [asyncio.create_task(heads.read([ONE])) for _ in range(1_000)]
    other = asyncio.create_task(heads.read([TWO]))
    await some_rounds()
    store.go.set()
    assert await asyncio.gather(*asked) == [[Head(1, 1, 1)]] * 1_000
    assert await other == [None]
    assert store.reads == [[ONE, TWO]]


async def test_who_asks_while_a_read_is_under_way_gets_the_next() -> None:
    store = Store()
    heads = SharedReads(store.read)
    early = asyncio.create_task(heads.read([ONE]))
    await some_rounds()
    store.version = 2
    late = [asyncio.create_task(heads.read([ONE])) for _ in range(10)]
    await some_rounds()
    store.go.set()
    assert await early == [Head(1, 1, 1)]
    assert await asyncio.gather(*late) == [[Head(2, 1, 1)]] * 10
    assert store.reads == [[ONE], [ONE]]


async def test_one_who_leaves_takes_nothing_from_the_others() -> None:
    store = Store()
    heads = SharedReads(store.read)
    asked = [asyncio.create_task(heads.read([ONE])) for _ in range(3)]
    await some_rounds()
    asked[0].cancel()
    await some_rounds()
    store.go.set()
    assert await asyncio.gather(*asked[1:]) == [[Head(1, 1, 1)]] * 2


async def test_a_read_that_fails_fails_for_its_askers_alone() -> None:
    store = Store()
    store.fails = True
    heads = SharedReads(store.read)
    asked = [asyncio.create_task(heads.read([ONE])) for _ in range(3)]
    await some_rounds()
    store.go.set()
    for each in asked:
        with pytest.raises(Refusal):
            await each
    store.fails = False
    assert await heads.read([ONE]) == [Head(1, 1, 1)]


async def test_parts_do_not_wait_for_each_other() -> None:
    stuck = asyncio.Event()

    async def read(keys: Sequence[int]) -> list[int]:
        if 1 in keys:
            await stuck.wait()
        return list(keys)

    reads = SharedReads(read, lambda key: key % 2)
    waiting = asyncio.create_task(reads.read([1]))
    await asyncio.sleep(0)
    async with asyncio.timeout(1.0):
        assert await reads.read([2]) == [2]
    stuck.set()
    assert await waiting == [1]

"""Transactions: read, decide, commit; again when another was first."""

import asyncio
from collections.abc import AsyncIterator

import indelible
import pytest
from indelible import (
    AsyncClient,
    AsyncLog,
    AsyncTransaction,
    ConflictError,
    Profile,
    RequestError,
    Transaction,
)

from tests.client.conftest import profile_of
from tests.client.wire import Wire
from tests.support.service import Service


@pytest.fixture
async def log(profile: Profile) -> AsyncIterator[AsyncLog]:
    async with AsyncClient(profile) as client:
        yield await client.log("counters", create=True)


async def test_many_writers_of_one_key_lose_no_update(profile: Profile) -> None:
    async def count_up(transaction: AsyncTransaction) -> int:
        value: int = await transaction.get("n", 0)
        transaction.set("n", value + 1)
        return value + 1

    async def work() -> list[int]:
        async with AsyncClient(profile) as client:
            log = await client.log("counters", create=True)
            return [(await log.transact(count_up)).value for _ in range(10)]

    seen = await asyncio.gather(*[work() for _ in range(12)])
    assert sorted(value for values in seen for value in values) == list(range(1, 121))
    async with AsyncClient(profile) as client:
        assert await (await client.log("counters")).get("n") == 120


async def test_it_reads_one_version_and_its_own_writes(log: AsyncLog) -> None:
    await log.set_many({"a": 1, "b": 2})

    async def decide(transaction: AsyncTransaction) -> list[object]:
        first = await transaction.get("a")
        if transaction.version == 1:
            await log.set("b", 3)  # another, between two reads
        second = await transaction.get("b")
        transaction.set("c", first + second)
        transaction.delete("a")
        return [await transaction.get("c"), await transaction.get("a", "gone"), second]

    done = await log.transact(decide, source="sums")
    assert done.value == [4, "gone", 3]
    assert (done.commit.version, done.commit.changed) == (3, True)
    assert [v.source async for v in log.versions()] == ["sums", "", ""]
    assert {entry.key: entry.value async for entry in log} == {"b": 3, "c": 4}


async def test_a_loser_tries_again_without_reading_what_it_wrote(
    service: Service, profile: Profile
) -> None:
    async with Wire(service.url) as wire, AsyncClient(profile_of(service, url=wire.url)) as client:
        log = await client.log("counters", create=True)
        await log.set("n", 1)
        requests: list[int] = []

        async def decide(transaction: AsyncTransaction) -> None:
            value = await transaction.get("n")
            if not requests:
                await log.set("n", 10)
            requests.append(wire.requests)
            transaction.set("n", value + 1)

        await log.transact(decide)
        assert await log.get("n") == 11
        # Between the two decisions there was one request: the commit that lost.
        assert requests[1] - requests[0] == 1


async def test_it_gives_up_after_so_many_attempts_and_nothing_is_written(log: AsyncLog) -> None:
    attempts = 0

    async def decide(transaction: AsyncTransaction) -> None:
        nonlocal attempts
        attempts += 1
        transaction.set("mine", await transaction.get("other", 0))
        await log.set("other", attempts)

    with pytest.raises(ConflictError):
        await log.transact(decide, max_attempts=3)
    assert attempts == 3
    assert await log.get("mine") is None
    with pytest.raises(RequestError, match="1 or more"):
        await log.transact(decide, max_attempts=0)


async def test_what_the_function_raises_ends_it_and_writes_nothing(log: AsyncLog) -> None:
    async def decide(transaction: AsyncTransaction) -> None:
        transaction.set("a", 1)
        raise LookupError("no")

    with pytest.raises(LookupError):
        await log.transact(decide)
    assert await log.version == 0


async def test_without_writes_nothing_is_committed(log: AsyncLog) -> None:
    async def decide(transaction: AsyncTransaction) -> object:
        return await transaction.get("a", "nothing")

    done = await log.transact(decide)
    assert (done.value, done.commit.changed, done.commit.version) == ("nothing", False, 0)


def test_the_blocking_twin_runs_the_function_where_it_was_called(profile: Profile) -> None:
    with indelible.Client(profile) as client:
        log = client.log("counters", create=True)
        interfered = False

        def decide(transaction: Transaction) -> int:
            nonlocal interfered
            value: int = transaction.get("n", 0)
            if not interfered:
                interfered = True
                log.set("n", 5)
            transaction.set("n", value + 1)
            return value + 1

        done = log.transact(decide)
        assert (done.value, log.get("n"), done.commit.version) == (6, 6, 2)

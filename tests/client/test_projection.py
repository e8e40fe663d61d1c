"""Projections: a log derived from another, each change counted once."""

import asyncio
import contextlib

import indelible
import pytest
from indelible import (
    AsyncClient,
    AsyncLog,
    AsyncProjection,
    AsyncTransaction,
    Diff,
    NotFoundError,
    Profile,
    Projection,
    RequestError,
    Transaction,
)


async def add_up(diff: Diff, transaction: AsyncTransaction) -> None:
    """Revenue by item, from orders that come, change and go."""
    for change in diff.changes:
        item, revenue = change.value
        sign = 1 if change.op == "add" else -1
        transaction.set(item, await transaction.get(item, 0) + sign * revenue)


async def logs_of(client: AsyncClient) -> tuple[AsyncLog, AsyncLog]:
    return await client.log("orders", create=True), await client.log("sums", create=True)


async def test_it_derives_step_by_step_and_knows_where_it_is(profile: Profile) -> None:
    async with AsyncClient(profile) as client:
        orders, sums = await logs_of(client)
        projection = AsyncProjection(orders, sums, add_up, max_versions=2)
        assert await projection.step() is None
        for n in range(5):
            await orders.set(f"o-{n}", ["tea", n])
        await orders.delete("o-4")
        steps = []
        while (diff := await projection.step()) is not None:
            steps.append((diff.from_version, diff.to_version))
        assert steps == [(0, 2), (2, 4), (4, 6)]
        assert await sums.get("tea") == 0 + 1 + 2 + 3
        assert await projection.position() == 6


async def test_redundant_instances_count_each_change_once(profile: Profile) -> None:
    """Three at once, one of them cut down again and again."""
    async with AsyncClient(profile) as client:
        orders, sums = await logs_of(client)

        async def instance() -> None:
            async with AsyncClient(profile) as own:
                source, target = await own.log("orders"), await own.log("sums")
                await AsyncProjection(source, target, add_up, max_versions=3).run()

        running = [asyncio.create_task(instance()) for _ in range(3)]
        for n in range(60):
            await orders.set(f"o-{n % 20}", ["tea" if n % 2 else "pot", n])
            if n % 5 == 0:
                running[0].cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await running[0]
                running[0] = asyncio.create_task(instance())
        projection = AsyncProjection(orders, sums, add_up)
        while await projection.step() is not None:
            pass
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        expected = {"tea": 0, "pot": 0}
        async for entry in orders:
            expected[entry.value[0]] += entry.value[1]
        assert {k: await sums.get(k) for k in expected} == expected
        assert await projection.position() == await orders.version


async def test_a_source_made_again_is_another_one(profile: Profile) -> None:
    async with AsyncClient(profile) as client:
        orders, sums = await logs_of(client)
        await orders.set("o", ["tea", 1])
        await AsyncProjection(orders, sums, add_up).step()
        await orders.drop()
        again = await client.log("orders", create=True)
        with pytest.raises(NotFoundError, match="derived from the log"):
            await AsyncProjection(again, sums, add_up).step()


async def test_a_target_that_cannot_hold_a_position_is_refused(profile: Profile) -> None:
    async with AsyncClient(profile) as client:
        orders, sums = await logs_of(client)
        strings = await client.log("strings", create=True, value_mode="string")
        with pytest.raises(RequestError, match="position"):
            AsyncProjection(orders, strings, add_up)
        with pytest.raises(RequestError, match="1 or more"):
            AsyncProjection(orders, sums, add_up, max_versions=0)
        await orders.set("o", ["tea", 1])
        await sums.set("position", 7)
        with pytest.raises(RequestError, match="another position_key"):
            await AsyncProjection(orders, sums, add_up).step()
        await AsyncProjection(orders, sums, add_up, position_key="at").step()
        assert await sums.get("tea") == 1


def test_the_blocking_twin_derives_alike(profile: Profile) -> None:
    def count(diff: Diff, transaction: Transaction) -> None:
        for change in diff.changes:
            step = 1 if change.op == "add" else -1
            transaction.set("count", transaction.get("count", 0) + step)

    with indelible.Client(profile) as client:
        orders = client.log("orders", create=True)
        counts = client.log("counts", create=True)
        orders.set_many({f"o-{n}": ["tea", n] for n in range(7)})
        orders.delete("o-3")
        projection = Projection(orders, counts, count)
        assert projection.step() == Diff(0, 2, tuple(orders.diff(0, 2)))
        assert projection.step() is None
        assert (counts.get("count"), projection.position()) == (6, 2)

"""Nothing acknowledged is lost, and nothing shown is taken back, when nodes of a cluster fail.

The load and the judge are those of `test_faults`; each fault has a control that must be caught.
"""

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from indelible_protocol.ids import LogId
from indelible_server.store import keys
from indelible_server.store.slots import slot_of

from tests.support.cluster import Cluster, Node, StartCluster
from tests.support.deployment import Processes, Window, frozen
from tests.support.history import Violation, check
from tests.support.native_api import Committed, NativeApi
from tests.support.operations import Command, Op
from tests.support.polling import until
from tests.support.vacuity import Guards, vacuities
from tests.support.workload import Load, Workload

pytestmark = pytest.mark.torture

LOAD = Load(logs=6, settle_seconds=30.0)
CUT_OFF_SECONDS = 3.0
LARGE, LARGE_BYTES = 32, 500_000

Deploy = Callable[..., Awaitable[tuple[Cluster, Processes]]]


@pytest.fixture
async def deploy(start_cluster: StartCluster, tmp_path: Path) -> AsyncIterator[Deploy]:
    """`await deploy(*arguments)`: a cluster of 3 + 3 or more, two API processes, a tenant."""
    made: list[Processes] = []

    async def start(*arguments: str, replicas: int = 1) -> tuple[Cluster, Processes]:
        cluster = await start_cluster(replicas=replicas)
        processes = Processes(tmp_path, cluster.url)
        made.append(processes)
        await processes.make_tenant()
        await asyncio.gather(*(processes.start_service(*arguments) for _ in range(2)))
        return cluster, processes

    yield start
    for processes in made:
        await processes.stop()


@asynccontextmanager
async def under_load(processes: Processes, load: Load = LOAD) -> AsyncIterator[Workload]:
    workload = Workload(endpoints=processes.endpoints, apikey=processes.apikey, load=load)
    async with workload:
        workload.start()
        yield workload
        await workload.finish()


async def violations_of(workload: Workload, cluster: Cluster) -> list[Violation]:
    histories = await workload.histories(cluster.url)
    return [violation for history in histories for violation in check(history)]


async def expect_correct(
    workload: Workload, cluster: Cluster, faults: Sequence[Window], operations: int
) -> None:
    histories = await workload.histories(cluster.url)
    print(
        f"{workload.operations} operations, {sum(len(h.stored) for h in histories)} versions, "
        f"{workload.in_doubt} sends in doubt, {workload.unavailable} reads unanswered"
    )
    guards = Guards(min_operations=operations, min_per_second=20, faults_ns=faults)
    assert workload.anomalies == []
    assert vacuities(histories, guards) == []
    assert [str(violation) for history in histories for violation in check(history)] == []
    assert await workload.disagreements(cluster.url) == []
    assert workload.durabilities == {"strict"}


def slots_of(workload: Workload) -> list[int]:
    return [slot_of(keys.of_log(LogId(log_id)).meta) for log_id in workload.log_ids]


async def busiest(cluster: Cluster, workload: Workload) -> Node:
    """The primary that serves most of the logs."""
    owners = [await cluster.primary_of(slot) for slot in slots_of(workload)]
    return max(owners, key=owners.count)


async def lose_a_primary_that_was_cut_off(workload: Workload, cluster: Cluster) -> Window:
    """Its replicas have none of its last seconds; then it is killed, and one of them promoted."""
    await workload.progress(100)
    primary = await busiest(cluster, workload)
    await cluster.stop_replicating(primary)
    await asyncio.sleep(CUT_OFF_SECONDS)
    fault = await frozen(primary.engine.pid)
    await primary.engine.kill()
    began = time.monotonic()
    await cluster.until_replaced(primary)
    print(f"replaced after {time.monotonic() - began:.1f} s")
    await primary.engine.start()  # as the replica that its successor needs to acknowledge
    await workload.progress(200)
    return fault


async def test_no_acknowledged_commit_is_lost_with_a_primary_that_was_cut_off(
    deploy: Deploy,
) -> None:
    cluster, processes = await deploy()
    async with under_load(processes) as workload:
        fault = await lose_a_primary_that_was_cut_off(workload, cluster)
    await expect_correct(workload, cluster, [fault], 1_000)


async def test_the_control_that_waits_for_no_replica_is_caught_as_lost(deploy: Deploy) -> None:
    cluster, processes = await deploy("--wait-replicas", "0")
    async with under_load(processes) as workload:
        await lose_a_primary_that_was_cut_off(workload, cluster)
    assert 3 in {violation.rule for violation in await violations_of(workload, cluster)}


async def test_a_killed_primary_is_out_for_no_longer_than_its_replacement_takes(
    deploy: Deploy,
) -> None:
    cluster, processes = await deploy()
    async with under_load(processes) as workload:
        await workload.progress(100)
        faults = []
        for _ in range(2):
            primary = await busiest(cluster, workload)
            faults.append(await frozen(primary.engine.pid))
            await primary.engine.kill()
            await cluster.until_replaced(primary)
            await primary.engine.start()
            await until_followed(cluster)
            await workload.progress(100)
    await expect_correct(workload, cluster, faults, 1_000)


async def until_followed(cluster: Cluster) -> None:
    async def all_followed() -> bool:
        return all([await cluster.replicas_of(node) for node in await cluster.primaries()])

    await until(all_followed, within_seconds=30, what="every primary has a replica")


async def test_a_primary_that_comes_back_after_its_replacement_is_not_believed(
    deploy: Deploy,
) -> None:
    cluster, processes = await deploy(replicas=2)  # its successor has one, and acknowledges
    async with under_load(processes) as workload:
        await workload.progress(100)
        primary = await busiest(cluster, workload)
        began_ns = time.monotonic_ns()
        os.kill(primary.engine.pid, signal.SIGSTOP)
        try:
            await cluster.until_replaced(primary)
            await workload.progress(50)
        finally:
            os.kill(primary.engine.pid, signal.SIGCONT)
        fault = (began_ns, time.monotonic_ns())
        await workload.progress(100)
    await expect_correct(workload, cluster, [fault], 500)


@pytest.mark.parametrize("way", ["key by key", "whole"])
async def test_slots_on_their_way_are_noticed_by_nobody(deploy: Deploy, way: str) -> None:
    cluster, processes = await deploy()
    move = cluster.move_slot if way == "key by key" else cluster.move_slot_whole
    load = Load(logs=20, settle_seconds=30.0)
    moves = 0
    async with under_load(processes, load) as workload:
        await workload.progress(100)
        primaries = await cluster.primaries()
        for target in (primaries[0], primaries[1], primaries[2], primaries[0]):
            for slot in slots_of(workload):
                await move(slot, target)
                moves += 1
            await workload.progress(20)
    print(f"{moves} moves")
    await expect_correct(workload, cluster, [], 1_000)
    assert workload.in_doubt == 0
    assert workload.unavailable == 0
    assert workload.refused == {}


async def test_a_large_log_that_moves_holds_up_its_commits_for_some_ms_a_megabyte(
    deploy: Deploy,
) -> None:
    cluster, processes = await deploy("--store-seconds", "10")
    async with aiohttp.ClientSession() as session:
        api = NativeApi(
            session,
            endpoints=processes.endpoints,
            apikey=processes.apikey,
            rng=random.Random(1),
            request_seconds=30.0,
        )
        log_id = await api.create_log("large")
        await asyncio.gather(*(commit_value(api, log_id, n, LARGE_BYTES) for n in range(LARGE)))
        slot = slot_of(keys.of_log(LogId(log_id)).meta)
        home = await cluster.primary_of(slot)
        away = next(node for node in await cluster.primaries() if node is not home)
        moving = asyncio.create_task(cluster.move_slot(slot, away))
        took = [await commit_value(api, log_id, LARGE, 10)]
        while not moving.done():
            took.append(await commit_value(api, log_id, LARGE + len(took), 10))
        await moving
        megabytes = LARGE * LARGE_BYTES / 1e6
        print(f"{max(took) * 1_000 / megabytes:.1f} ms a MB, {len(took)} commits meanwhile")
        assert max(took) < 10.0
        assert (await api.diff(log_id, 0)).to_version == LARGE + len(took)


async def commit_value(api: NativeApi, log_id: bytes, number: int, size: int) -> float:
    """The seconds that it took to be acknowledged."""
    began = time.monotonic()
    commands = [Command(Op.UPSERT, f"key-{number}", f"{number}".ljust(size, "."))]
    answer = await api.commit(log_id, commands, idempotency_key=f"{number}")
    assert isinstance(answer, Committed)
    return time.monotonic() - began

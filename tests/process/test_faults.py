"""No update is lost, doubled, torn or misreported, whatever is killed under load.

The load runs through the API; what it saw is judged against the log that the store itself
holds in the end. Every fault has a control: a broken setting that must be caught.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.deployment import Deployment, StartDeployment, Window
from tests.support.engines import redis_server
from tests.support.history import Violation, check
from tests.support.operations import History
from tests.support.polling import until
from tests.support.proxy import FaultProxy
from tests.support.vacuity import Guards, vacuities
from tests.support.workload import DEFAULT_LOAD, Load, Workload

FAILPOINTS = ("before_commit_call", "after_commit_call", "before_answer")


@pytest.fixture(params=["valkey", "redis"])
def engine_server(request: pytest.FixtureRequest) -> Path | None:
    """Valkey from the wheel (None), then Debian's redis-server."""
    if request.param == "valkey":
        return None
    server = redis_server()
    if server is None:
        pytest.skip("no redis-server on PATH, and INDELIBLE_TEST_REDIS_SERVER is unset")
    return server


@asynccontextmanager
async def under_load(deployment: Deployment, load: Load = DEFAULT_LOAD) -> AsyncIterator[Workload]:
    """Clients at work inside the block; at its end they have ended by themselves."""
    workload = Workload(endpoints=deployment.endpoints, apikey=deployment.apikey, load=load)
    async with workload:
        workload.start()
        yield workload
        await workload.finish()


async def violations_of(workload: Workload, deployment: Deployment) -> list[Violation]:
    histories = await workload.histories(deployment.engine.url)
    return [violation for history in histories for violation in check(history)]


async def expect_correct(workload: Workload, deployment: Deployment, guards: Guards) -> None:
    """0 violations, in a run that was hard enough to have had some."""
    histories = await workload.histories(deployment.engine.url)
    print(summary(workload, histories, guards))
    assert workload.anomalies == []
    assert vacuities(histories, guards) == []
    assert [str(violation) for history in histories for violation in check(history)] == []
    assert await workload.disagreements(deployment.engine.url) == []
    assert workload.durabilities == {"strict"}


def summary(workload: Workload, histories: Sequence[History], guards: Guards) -> str:
    versions = sum(len(history.stored) for history in histories)
    return (
        f"{workload.operations} operations, {versions} versions, {len(guards.faults_ns)} faults, "
        f"{workload.in_doubt} sends in doubt, {workload.unavailable} reads unanswered"
    )


async def at_a_random_moment(workload: Workload, rng: random.Random) -> None:
    await workload.progress(rng.randint(15, 60))
    await asyncio.sleep(rng.uniform(0, 0.02))


async def break_often(
    workload: Workload, times: int, rng: random.Random, fault: Callable[[], Awaitable[Window]]
) -> list[Window]:
    """`fault`, so many times, each amid acknowledged commits."""
    windows = []
    for _ in range(times):
        await at_a_random_moment(workload, rng)
        windows.append(await fault())
    await workload.progress(15)
    return windows


async def die_in_commits(
    workload: Workload, deployment: Deployment, points: Sequence[str], rng: random.Random
) -> list[Window]:
    """One process kills itself at each point in turn, in the first commit that reaches it."""
    service = deployment.services[0]
    windows = []
    for point in points:
        await at_a_random_moment(workload, rng)
        await asyncio.to_thread(service.kill)
        service.env = {"INDELIBLE_FAILPOINT": point}
        began_ns = time.monotonic_ns()
        # Not until it is ready: the first commit may kill it before it says so.
        await asyncio.to_thread(service.start, until="functions.loaded")
        assert service.process is not None
        exit_code = await asyncio.to_thread(service.process.wait, 30)
        assert exit_code == -9, f"{point} was not reached"
        windows.append((began_ns, time.monotonic_ns()))
    service.env = {}
    await asyncio.to_thread(service.start)
    await workload.progress(15)
    return windows


async def test_nothing_is_lost_or_doubled_when_store_or_process_is_killed(
    deploy: StartDeployment, powercut_library: Path
) -> None:
    deployment = await deploy(power_cut=powercut_library)
    rng = random.Random(4)
    async with under_load(deployment) as workload:
        await workload.until_operations(1_500, within_seconds=60)
        faults = await break_often(workload, 1, rng, deployment.kill_engine)
        faults += await break_often(workload, 2, rng, lambda: deployment.cut_power(rng))
        faults += await die_in_commits(workload, deployment, ["after_commit_call"], rng)
    guards = Guards(min_operations=2_000, min_per_second=20, faults_ns=faults)
    await expect_correct(workload, deployment, guards)


@asynccontextmanager
async def behind_a_faulty_wire(
    deployment: Deployment, load: Load = DEFAULT_LOAD
) -> AsyncIterator[tuple[Workload, FaultProxy]]:
    """Load on one process, whose bytes to and from the store are cut at random places."""
    async with FaultProxy(deployment.engine.socket, random.Random(11)) as wire:
        await deployment.start_service(store_url=wire.url)
        async with under_load(deployment, load) as workload:
            await workload.progress(20)
            wire.cut_share = 0.1
            yield workload, wire
            wire.cut_share = 0.0
            await workload.progress(20)


async def test_commits_in_doubt_enter_once_and_none_that_is_in_was_called_rejected(
    deploy: StartDeployment,
) -> None:
    deployment = await deploy(processes=0)
    async with behind_a_faulty_wire(deployment) as (workload, wire):
        # A service that called them something else would never get there: the cuts end it.
        await until(lambda: workload.in_doubt >= 200 or wire.cuts >= 4_000, within_seconds=60)
    await expect_correct(workload, deployment, Guards(min_operations=300, min_per_second=20))


async def test_a_commit_sent_once_is_in_at_most_once_and_told_for_what_it_became(
    deploy: StartDeployment,
) -> None:
    """No resend and no key hides what the service does by itself, or says too soon."""
    deployment = await deploy(processes=0)
    async with behind_a_faulty_wire(deployment, Load(sending="once")) as (workload, wire):
        await until(lambda: workload.in_doubt >= 100 or wire.cuts >= 1_000, within_seconds=60)
    await expect_correct(workload, deployment, Guards(min_operations=300, min_per_second=20))
    assert workload.in_doubt >= 100


async def test_the_control_without_idempotency_is_caught_as_doubled(
    deploy: StartDeployment,
) -> None:
    """A client that sends a commit in doubt again under another key writes it twice."""
    deployment = await deploy(processes=0)
    load = Load(sending="another key")
    async with behind_a_faulty_wire(deployment, load) as (workload, _):
        await until(lambda: workload.in_doubt >= 150, within_seconds=60)
    doubled = {2, 12}  # the rules on commits that are in twice, told or left in doubt
    assert doubled & {each.rule for each in await violations_of(workload, deployment)}


async def test_a_full_store_refuses_commits_whole_and_still_answers_the_rest(
    deploy: StartDeployment,
) -> None:
    deployment = await deploy(processes=1, engine_settings={"maxmemory": "4mb"})
    load = Load(value_bytes=12_000, settle_seconds=1.0)
    async with under_load(deployment, load) as workload:
        await until(lambda: workload.refused["STORAGE_FULL"] >= 50, within_seconds=60)
        reads = workload.operations
        await workload.repeat_acked(20)
        await workload.until_operations(reads + 100, within_seconds=30)
        await deployment.configure("maxmemory", "0")
    guards = Guards(min_operations=400, min_per_second=20, min_rejected_share=0.02)
    await expect_correct(workload, deployment, guards)


@pytest.mark.torture
async def test_the_control_with_fsync_every_second_is_caught_as_lost(
    deploy: StartDeployment, powercut_library: Path
) -> None:
    deployment = await deploy(
        *("--durability", "relaxed"),
        power_cut=powercut_library,
        engine_settings={"appendfsync": "everysec"},
    )
    rng = random.Random(6)
    async with under_load(deployment) as workload:
        await workload.progress(50)
        await asyncio.sleep(1.1)  # the logs themselves must have been synced
        await workload.progress(rng.randint(100, 150))
        await deployment.cut_power(rng)
        await workload.progress(50)
    assert any(violation.rule == 3 for violation in await violations_of(workload, deployment))
    assert workload.durabilities == {"relaxed"}


@pytest.mark.torture
async def test_the_control_without_idempotency_doubles_when_processes_die(
    deploy: StartDeployment,
) -> None:
    deployment = await deploy()
    rng = random.Random(5)
    points = [FAILPOINTS[1 + number % 2] for number in range(10)]
    async with under_load(deployment, Load(sending="another key")) as workload:
        await die_in_commits(workload, deployment, points, rng)
    doubled = {2, 12}  # the rules on commits that are in twice, told or left in doubt
    assert doubled & {each.rule for each in await violations_of(workload, deployment)}


@pytest.mark.torture
async def test_twenty_thousand_operations_are_answered_correctly(deploy: StartDeployment) -> None:
    deployment = await deploy()
    async with under_load(deployment) as workload:
        await workload.until_operations(20_000, within_seconds=600)
    await expect_correct(workload, deployment, Guards(min_operations=20_000))


@pytest.mark.torture
async def test_twenty_kills_of_the_store_lose_and_double_nothing(
    deploy: StartDeployment, engine_server: Path | None
) -> None:
    deployment = await deploy(engine_server=engine_server)
    rng = random.Random(7)
    async with under_load(deployment) as workload:
        faults = await break_often(workload, 20, rng, deployment.kill_engine)
        await workload.until_operations(10_000, within_seconds=300)
    await expect_correct(workload, deployment, Guards(faults_ns=faults))


@pytest.mark.torture
async def test_twenty_power_cuts_lose_and_double_nothing(
    deploy: StartDeployment, powercut_library: Path, engine_server: Path | None
) -> None:
    deployment = await deploy(power_cut=powercut_library, engine_server=engine_server)
    rng = random.Random(8)
    async with under_load(deployment) as workload:
        faults = await break_often(workload, 20, rng, lambda: deployment.cut_power(rng))
        await workload.until_operations(10_000, within_seconds=300)
    await expect_correct(workload, deployment, Guards(faults_ns=faults))


@pytest.mark.torture
async def test_twenty_deaths_of_a_process_in_mid_commit_lose_and_double_nothing(
    deploy: StartDeployment,
) -> None:
    deployment = await deploy()
    rng = random.Random(9)
    points = [FAILPOINTS[number % 3] for number in range(20)]
    async with under_load(deployment) as workload:
        faults = await die_in_commits(workload, deployment, points, rng)
        faults += await break_often(workload, 5, rng, lambda: deployment.kill_a_process(rng))
        await workload.until_operations(10_000, within_seconds=300)
    await expect_correct(workload, deployment, Guards(faults_ns=faults))

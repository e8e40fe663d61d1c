"""Endpoints of every temper, dispatchers that die: order kept, none lost, none delayed."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.deployment import Deployment, StartDeployment
from tests.support.service import Service
from tests.support.webhooks import Receiver, receiver, webhook_api
from tests.webhooks.elsewhere import elsewhere
from tests.webhooks.ordeal import Ordeal, Verdict
from tests.webhooks.sinks import HEALTHY, TEMPERS, sinks_of, spread

KILL_EVERY_SECONDS = 1.0


def dispatcher(deployment: Deployment, folder: Path, number: int) -> Service:
    """A webhooks process that is not started yet."""
    arguments = deployment.services[0].arguments
    return Service(
        arguments=("webhooks", *arguments[1:]), log_file=folder / f"webhooks-{number}.log"
    )


async def started(deploy: StartDeployment, *, sweep_seconds: float = 1) -> Deployment:
    return await deploy(
        *("--webhook-allow-private", "true", "--webhook-seconds", "10"),
        *("--webhook-sweep-seconds", f"{sweep_seconds}", "--max-tenant-webhooks", "1000"),
        processes=1,
    )


@asynccontextmanager
async def dispatchers(
    deployment: Deployment, folder: Path, count: int
) -> AsyncIterator[list[Service]]:
    made = [dispatcher(deployment, folder, number) for number in range(count)]
    try:
        for each in made:
            await asyncio.to_thread(each.start, until="webhooks.ready")
        yield made
    finally:
        for each in made:
            await asyncio.to_thread(each.stop)


async def keep_killing(services: list[Service], stop: asyncio.Event) -> int:
    """kill -9 of one of them each second, in turn; they are started again at once. How many."""
    kills = 0
    starting: dict[int, asyncio.Task[None]] = {}
    for service in itertools.cycle(services):
        if stop.is_set():
            break
        await asyncio.sleep(KILL_EVERY_SECONDS)
        if id(service) in starting:
            await starting[id(service)]
        await asyncio.to_thread(service.kill)
        kills += 1
        start = asyncio.to_thread(service.start, until="webhooks.ready")
        starting[id(service)] = asyncio.create_task(start)
    await asyncio.gather(*starting.values())
    return kills


async def put_through(
    deployment: Deployment,
    services: list[Service],
    tempers: dict[str, int],
    *,
    logs: int,
    commits: int,
    per_second: float,
    kills: bool = False,
) -> tuple[Verdict, int]:
    sinks = sinks_of(tempers, logs)
    async with (
        receiver() as here,
        elsewhere([sink for sink in sinks if sink.temper != HEALTHY]) as away,
        webhook_api(deployment.endpoints[0], deployment.apikey) as api,
    ):
        ordeal = Ordeal(api, here, away, sinks)
        await ordeal.prepare()
        stop = asyncio.Event()
        killing = asyncio.create_task(keep_killing(services, stop)) if kills else None
        await ordeal.load(commits, per_second=per_second)
        stop.set()
        killed = await killing if killing is not None else 0
        await ordeal.settle(within_seconds=60.0)
        return await ordeal.verdict(), killed


async def test_endpoints_of_every_temper_in_order_none_lost_none_twice(
    deploy: StartDeployment, tmp_path: Path
) -> None:
    deployment = await started(deploy)
    async with dispatchers(deployment, tmp_path, 1) as services:
        verdict, _ = await put_through(
            deployment, services, spread(36, TEMPERS), logs=6, commits=120, per_second=30
        )
    assert verdict.repeated_after_taken == 0
    assert verdict.deliveries > 100


async def test_a_dispatcher_that_is_killed_loses_nothing(
    deploy: StartDeployment, tmp_path: Path
) -> None:
    deployment = await started(deploy)
    async with dispatchers(deployment, tmp_path, 2) as services:
        verdict, kills = await put_through(
            deployment,
            services,
            spread(18, TEMPERS),
            logs=6,
            commits=240,
            per_second=30,
            kills=True,
        )
    assert kills >= 2
    assert verdict.repeated_after_taken <= kills * 18, "only what was under way comes again"


async def test_another_dispatcher_takes_over_within_seconds(
    deploy: StartDeployment, tmp_path: Path, target: Receiver
) -> None:
    deployment = await started(deploy)
    async with webhook_api(deployment.endpoints[0], deployment.apikey) as api:
        log_id = await api.make_log("orders")
        first, second = (dispatcher(deployment, tmp_path, number) for number in range(2))
        try:
            await asyncio.to_thread(first.start, until="webhooks.ready")
            made = await api.create(f"{target.url}/hook", log=log_id)
            await api.until_state(made["webhook_id"], "active")
            hold = asyncio.Event()

            async def held(_received: object) -> object:
                await hold.wait()
                raise AssertionError

            target.behaviours["/hook"] = held  # type: ignore[assignment]
            await api.commit(log_id)
            [begun] = await target.until(1)
            await asyncio.to_thread(first.kill)
            target.behaviours.pop("/hook")
            await asyncio.to_thread(second.start, until="webhooks.ready")
            again = (await target.until(2, within_seconds=12.0))[1]
            assert (again.id, again.body) == (begun.id, begun.body)
        finally:
            first.stop()
            second.stop()


@pytest.mark.torture
@pytest.mark.timeout(1_800)
async def test_five_hundred_endpoints_and_fifty_thousand_deliveries(
    deploy: StartDeployment, tmp_path: Path
) -> None:
    """The healthy ones alone and in the company of the others, in turns and at the same pace."""
    everybody = spread(500, TEMPERS)
    alone, company = Verdict(), Verdict()
    for tempers, whole in ((({HEALTHY: everybody[HEALTHY]}), alone), (everybody, company)) * 3:
        deployment = await started(deploy, sweep_seconds=5)
        async with dispatchers(deployment, tmp_path, 1) as services:
            verdict, _ = await put_through(
                deployment, services, tempers, logs=50, commits=2_900, per_second=20
            )
        whole.add(verdict)
        print(f"{len(tempers)} tempers: {verdict}")
        for service in deployment.services:
            await asyncio.to_thread(service.stop)
    print(f"alone: {alone}, in company: {company}")
    assert company.repeated_after_taken == 0
    assert company.deliveries >= 50_000
    for each in (alone, company):
        assert len(each.waits_ms) > each.left_out, "the machine is held up too often to tell"
    assert company.p99_ms <= 1.1 * alone.p99_ms


@pytest.mark.torture
@pytest.mark.timeout(1_800)
async def test_fifty_thousand_deliveries_with_a_kill_every_second(
    deploy: StartDeployment, tmp_path: Path
) -> None:
    deployment = await started(deploy)
    async with dispatchers(deployment, tmp_path, 2) as services:
        verdict, kills = await put_through(
            deployment,
            services,
            spread(500, TEMPERS),
            logs=50,
            commits=28_000,
            per_second=24,
            kills=True,
        )
    print(f"{kills} kills: {verdict}")
    assert kills >= 100
    assert verdict.deliveries >= 50_000
    assert verdict.repeated_after_taken <= kills * 50

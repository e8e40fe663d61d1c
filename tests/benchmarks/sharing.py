"""What one tenant notices of another that floods the same API process."""

import asyncio

from tests.benchmarks import closed_loop
from tests.benchmarks.closed_loop import Answers, Load
from tests.benchmarks.figures import Row, at_most
from tests.benchmarks.stage import UNREFUSED, Scale, stage
from tests.benchmarks.updates import check_updates, opaque_lane

FLOODING = 64
CONNECTIONS = 8
PAUSE_SECONDS = 0.02
LEAD_SECONDS = 0.5  # the flood is there before the other begins, and goes on after it


async def two_tenants(scale: Scale) -> list[Row]:
    async with stage(arguments=UNREFUSED) as stand:
        flooder, flooded = stand.apikey, await stand.make_opaque_logs(1, "flooded")
        await stand.deployment.make_tenant()
        logs = await stand.make_opaque_logs(CONNECTIONS, "shared")
        other = await stand.second_worker()

        def flood(number: int) -> Load:
            lanes = [opaque_lane(flooded, number, flooder, b"%d" % n) for n in range(FLOODING)]
            return Load(
                port=stand.port,
                lanes=lanes,
                seconds=scale.seconds + 2 * LEAD_SECONDS,
                pids={},
                repeated=True,
            )

        async def steady(number: int) -> Answers:
            before = await stand.versions_stored(logs)
            answers = await stand.load(
                Load(
                    port=stand.port,
                    lanes=[opaque_lane([log], number, stand.apikey) for log in logs],
                    seconds=scale.seconds,
                    pids=stand.pids,
                    repeated=True,
                    pause_seconds=PAUSE_SECONDS,
                )
            )
            await check_updates(stand, answers, [[log] for log in logs], before)
            return answers

        async def alone(number: int) -> Answers:
            return await steady(number)

        async def beside(number: int) -> Answers:
            before = await stand.versions_stored(flooded)
            flooding = asyncio.create_task(other.run(closed_loop.run, flood(number + 1_000)))
            await asyncio.sleep(LEAD_SECONDS)
            answers = await steady(number + 1_000)
            await check_updates(stand, await flooding, [flooded] * FLOODING, before)
            return answers

        pairs = await scale.in_turns("FAIR", alone, beside)
    return [
        Row(
            goal_id="FAIR",
            what="p99 of a tenant while another floods",
            unit="ms",
            floor_name="its own p99",
            floor=[floor.p99_ms for floor, _ in pairs],
            ours=[ours.p99_ms for _, ours in pairs],
            goal=at_most(2.0),
            beside={"p50 alone, ms": pairs[0][0].p50_ms, "p50 beside, ms": pairs[0][1].p50_ms},
        )
    ]

"""Updates on a cluster of three primaries and their replicas beside those on one engine (G15)."""

from statistics import median

from tests.benchmarks.closed_loop import Answers
from tests.benchmarks.figures import Row, at_most
from tests.benchmarks.stage import Scale, clustered_stage, stage
from tests.benchmarks.updates import CLIENTS, load_opaque


async def updates(scale: Scale) -> list[Row]:
    """Opaque, 64 clients and logs; on the cluster each waits until a replica has it.

    What another API process adds is what this one gives, for as long as no engine is full: that
    is calculated, and the figures it is calculated from stand beside.
    """
    async with stage() as single, clustered_stage() as cluster:
        alone = [[log] for log in await single.make_opaque_logs(CLIENTS, "g15")]
        spread = [[log] for log in await cluster.make_opaque_logs(CLIENTS, "g15")]

        async def floor(number: int) -> Answers:
            return await load_opaque(single, scale, alone, number)

        async def ours(number: int) -> Answers:
            return await load_opaque(cluster, scale, spread, number)

        pairs = await scale.in_turns("G15", floor, ours)
    mine = [each for _, each in pairs]
    server_us = median(each.cpu_us["server"] for each in mine)
    engine_us = median(each.cpu_us["engine"] for each in mine)
    return [
        Row(
            goal_id="G15",
            what="opaque updates on 3 + 3 nodes, WAIT 1: CPU of the server",
            unit="µs each",
            floor_name="the same on one engine",
            floor=[each.cpu_us["server"] for each, _ in pairs],
            ours=[each.cpu_us["server"] for each in mine],
            goal=at_most(1.25),
            beside={
                "primary_cpu_us": engine_us,
                "p50_ms": median(each.p50_ms for each in mine),
                "single_p50_ms": median(each.p50_ms for each, _ in pairs),
                # Of one core each: a server's commits, and what one primary of three takes.
                "per_server_core": 1e6 / server_us,
                "per_three_primaries": 1e6 / engine_us,
            },
        )
    ]

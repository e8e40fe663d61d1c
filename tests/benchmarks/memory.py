"""Memory of idle waiters (G6): per waiter, and how many one process and two hold."""

import asyncio
import os
from statistics import median

from indelible_protocol.ids import LogId

from tests.benchmarks import crowds
from tests.benchmarks.crowds import AT_METRICS, AT_PARKED, Crowd, Held, Holding
from tests.benchmarks.figures import Row, at_least, at_most, check
from tests.benchmarks.following import check_diff
from tests.benchmarks.stage import SETTINGS, Scale, Stage, port_of, progress, stage
from tests.benchmarks.wire import asking, commit_request, opaque_body, request, wait_request
from tests.benchmarks.workers import ServerProcess

KIB = 1_024


async def waiters(scale: Scale) -> list[Row]:
    return [await _per_waiter(scale), await _held_at_once(scale)]


async def _per_waiter(scale: Scale) -> Row:
    """Each sample has a process of its own: memory that was used before would be used again."""
    size = scale.of(2_500, 500)
    async with stage() as stand:
        (log_id,) = await stand.make_opaque_logs(1, "g6")

        async def floor(number: int) -> Held:
            server = await ServerProcess.start("tests.benchmarks.floors", "noop")
            try:
                held: Held = await stand.worker.run(
                    crowds.hold,
                    Holding(
                        port=server.port,
                        size=size,
                        wait=request("GET", "/wait"),
                        look=AT_PARKED,
                        pid=server.pid,
                    ),
                )
            finally:
                await server.stop()
            return held

        async def ours(number: int) -> Held:
            return await hold_waiters(stand, log_id, size)

        pairs = await scale.in_turns(f"G6, {size} waiters", floor, ours)
    return Row(
        goal_id="G6",
        what=f"memory of an idle waiter, {size:,} of them on one log",
        unit="KiB",
        floor_name="an aiohttp handler that waits",
        floor=[held.user_bytes / KIB for held, _ in pairs],
        ours=[held.user_bytes / KIB for _, held in pairs],
        goal=at_most(11, of="ours"),
        beside={
            "kernel_kib_both_ends": median(held.kernel_bytes / KIB for _, held in pairs),
            "floor_kernel_kib_both_ends": median(held.kernel_bytes / KIB for held, _ in pairs),
        },
    )


async def hold_waiters(stand: Stage, log_id: LogId, size: int) -> Held:
    """`size` of them on one log, in an API process of their own."""
    service = await stand.deployment.start_service(*SETTINGS, listed=False)
    try:
        held: Held = await stand.worker.run(
            crowds.hold,
            Holding(
                port=port_of(service),
                size=size,
                wait=wait_request(log_id, 0, apikey=stand.apikey, wait_seconds=60),
                look=AT_METRICS,
                pid=service.pid,
            ),
        )
    finally:
        await asyncio.to_thread(service.kill)
    return held


async def _held_at_once(scale: Scale) -> Row:
    """Two processes full of waiters on one log, all woken by one write to one of the two."""
    size = scale.of(15_000, 500)
    progress(f"  G6: {size} waiters in each of two processes")
    async with stage(processes=2) as stand:
        (log_id,) = await stand.make_opaque_logs(1, "g6")
        wait = wait_request(log_id, 0, apikey=stand.apikey, wait_seconds=60)
        workers = [stand.worker, await stand.second_worker()]
        services = stand.deployment.services
        async with asyncio.TaskGroup() as tasks:
            held = [
                tasks.create_task(
                    worker.run(
                        crowds.wait_in_crowd,
                        Crowd(
                            port=port_of(service),
                            size=size,
                            waits=[[wait]],
                            look=AT_METRICS,
                            pid=service.pid,
                        ),
                    )
                )
                for worker, service in zip(workers, services, strict=True)
            ]
            for service in services:
                looking = await asking(port_of(service))
                await crowds.all_wait(AT_METRICS, size, looking)
                looking.close()
            key, value = b"key", os.urandom(256)
            writer = await asking(stand.port)
            answer = await writer.ask(
                commit_request(log_id, opaque_body([(key, value)]), apikey=stand.apikey)
            )
            writer.close()
            check(answer[:2] == (201, 1), f"the write was answered with {answer[:2]}")
        for task in held:
            (woken,) = task.result()
            check_diff(woken.answers[0], 1, key, value)
    return Row(
        goal_id="G6",
        what="waiters held at once by two processes, all woken by one write",
        ours=[2.0 * size],
        goal=at_least(30_000, of="ours") if not scale.quick else None,
    )

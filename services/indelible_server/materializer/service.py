"""The materializer's process: its parts, its start and its end.

Any number of them may share a store: two that work on one log write the same.
"""

import asyncio
import random
from functools import partial

import structlog

from indelible_server.materializer.follower import Follower
from indelible_server.materializer.mover import Mover
from indelible_server.process import reach
from indelible_server.settings import Settings
from indelible_server.store import functions
from indelible_server.store.archive import Archive
from indelible_server.store.connection import Clients, connect, end_tasks
from indelible_server.store.materializing import Materializing
from indelible_server.store.moving import Moving
from indelible_server.store.names import Names
from indelible_server.store.reading import Reader
from indelible_server.store.watched_objects import watched_objects
from indelible_server.telemetry import Metrics

log = structlog.get_logger("indelible_server.materializer")

STORE_CONNECTIONS = 4
STORE_SECONDS = 10.0  # nobody waits for an answer
PAUSE_SECONDS = 0.002


async def run(
    settings: Settings,
    stop: asyncio.Event,
    *,
    metrics: Metrics,
    ready: asyncio.Event | None = None,
    failpoint: str | None = None,
) -> None:
    """Writes what is due until `stop` is set; `ready` is set once the store can be worked with."""
    clients = _clients(settings, wait_replicas=0)  # what is lost is written again
    # Objects are deleted for what the store says: no failover may take that back.
    covered = _clients(settings, wait_replicas=settings.wait_replicas)
    redis = clients.commands
    try:
        if not await functions.loaded_unless(stop, redis):
            return
        objects = watched_objects(settings.archive, metrics)
        follower = Follower(
            Materializing(redis, Archive(redis, objects), pause_seconds=PAUSE_SECONDS),
            Names(redis),
            Reader(redis),
            metrics,
            sweep_seconds=settings.materializer_sweep_seconds,
            jitter=random.uniform,
        )
        working = [asyncio.create_task(follower.run())]
        if objects is not None:
            mover = Mover(
                Moving(
                    covered.commands,
                    Archive(covered.commands, objects),
                    budget_bytes=settings.archive_log_bytes,
                    pause_seconds=PAUSE_SECONDS,
                    reach=partial(reach, failpoint),
                ),
                Names(redis),
                sweep_seconds=settings.materializer_sweep_seconds,
                jitter=random.uniform,
            )
            working.append(asyncio.create_task(mover.run()))
        log.info("materializer.ready")
        if ready is not None:
            ready.set()
        await stop.wait()
        await end_tasks(*working)
        log.info("materializer.drained")
    finally:
        await clients.close()
        await covered.close()


def _clients(settings: Settings, *, wait_replicas: int | None) -> Clients:
    return connect(
        settings.redis,
        connections=STORE_CONNECTIONS,
        timeout_seconds=max(STORE_SECONDS, settings.store_seconds),
        wait_replicas=wait_replicas,
    )

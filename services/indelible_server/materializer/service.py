"""The materializer's process: its parts, its start and its end.

Any number of them may share a store: two that work on one log write the same.
"""

import asyncio
import random

import structlog

from indelible_server.materializer.follower import Follower
from indelible_server.settings import Settings
from indelible_server.store import functions
from indelible_server.store.connection import connect, end_tasks
from indelible_server.store.materializing import Materializing
from indelible_server.store.names import Names
from indelible_server.store.reading import Reader
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
) -> None:
    """Writes what is due until `stop` is set; `ready` is set once the store can be worked with."""
    clients = connect(
        settings.redis,
        connections=STORE_CONNECTIONS,
        timeout_seconds=max(STORE_SECONDS, settings.store_seconds),
        wait_replicas=0,
    )
    redis = clients.commands
    try:
        if not await functions.loaded_unless(stop, redis):
            return
        follower = Follower(
            Materializing(redis, pause_seconds=PAUSE_SECONDS),
            Names(redis),
            Reader(redis),
            metrics,
            sweep_seconds=settings.materializer_sweep_seconds,
            jitter=random.uniform,
        )
        log.info("materializer.ready")
        if ready is not None:
            ready.set()
        following = asyncio.create_task(follower.run())
        await stop.wait()
        await end_tasks(following)
        log.info("materializer.drained")
    finally:
        await clients.close()

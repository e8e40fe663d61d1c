"""The webhooks process: its parts, its start and its end.

Any number of them may share a store; each webhook is worked on by one at a time.
"""

import asyncio
import random
import secrets

import structlog
from indelible_protocol.ids import LogId

from indelible_server.settings import Settings
from indelible_server.store import functions
from indelible_server.store.archive import Archive
from indelible_server.store.connection import connect
from indelible_server.store.covering import Covering
from indelible_server.store.logs import Logs
from indelible_server.store.names import Names
from indelible_server.store.reading import Reader
from indelible_server.store.wakeups import Wakeups
from indelible_server.store.watched_objects import watched_objects
from indelible_server.store.webhook_work import WebhookWork
from indelible_server.telemetry import Metrics
from indelible_server.webhooks.courtesy import Courtesy
from indelible_server.webhooks.dispatcher import Dispatcher, wall_clock_ms
from indelible_server.webhooks.endpoint import Tools
from indelible_server.webhooks.sending import Sender
from indelible_server.webhooks.slots import Slots

log = structlog.get_logger("indelible_server.webhooks")


async def run(
    settings: Settings,
    secret: bytes,
    stop: asyncio.Event,
    *,
    metrics: Metrics,
    ready: asyncio.Event | None = None,
) -> None:
    """Delivers until `stop` is set; `ready` is set once the store can be worked with."""
    clients = connect(
        settings.redis,
        connections=settings.store_connections,
        timeout_seconds=settings.store_seconds,
        wait_replicas=settings.wait_replicas,
    )
    redis = clients.commands
    covering = Covering(redis, clients.replicas)
    archive = Archive(redis, watched_objects(settings.archive, metrics))
    reader = Reader(redis, covering, archive)
    wakeups = Wakeups(
        clients.subscriber, reader.current_versions, recheck_seconds=settings.recheck_seconds
    )
    background_stop = asyncio.Event()
    try:
        async with Sender(
            seconds=settings.webhook_seconds, allow_private=settings.webhook_allow_private
        ) as sender:
            if not await functions.loaded_unless(stop, redis):
                return
            versions: dict[LogId, int | None] = {}
            tools = Tools(
                work=WebhookWork(redis, clients.subscriber, secrets.token_hex(8)),
                reader=reader,
                logs=Logs(redis, covering),
                sender=sender,
                slots=Slots(settings.webhook_attempts_at_once),
                courtesy=Courtesy(),
                secret=secret,
                versions=versions,
                now_ms=wall_clock_ms,
                random=random.random,
                metrics=metrics,
                stopping=asyncio.Event(),
            )
            dispatcher = Dispatcher(
                tools,
                versions,
                Names(redis, covering),
                wakeups,
                sweep_seconds=settings.webhook_sweep_seconds,
            )
            log.info("webhooks.ready")
            if ready is not None:
                ready.set()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(wakeups.run(background_stop))
                await dispatcher.run(stop)
                background_stop.set()
    finally:
        await clients.close()

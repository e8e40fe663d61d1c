"""Dispatchers within the test's process, on a real engine and real sockets, with the test's clock.

What a tenant does is done at the store; what is delivered arrives at a real receiver.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from indelible_protocol.commands import Command, Op
from indelible_protocol.ids import LogId
from indelible_server.store import functions
from indelible_server.store.admission import LogIdentity, admit_opaque
from indelible_server.store.committing import Commits
from indelible_server.store.connection import Clients, connect
from indelible_server.store.logs import Logs
from indelible_server.store.names import Names, Scope
from indelible_server.store.reading import Reader
from indelible_server.store.wakeups import Wakeups
from indelible_server.store.webhook_records import Delivery, DeliveryState, Webhook
from indelible_server.store.webhook_work import WebhookWork
from indelible_server.store.webhooks import Subscription, Webhooks
from indelible_server.telemetry import Metrics
from indelible_server.webhooks.courtesy import Courtesy
from indelible_server.webhooks.dispatcher import Dispatcher
from indelible_server.webhooks.endpoint import Tools
from indelible_server.webhooks.sending import Sender
from indelible_server.webhooks.slots import Slots

from tests.support.engines import Engine

SECRET = b"s" * 32
START_MS = 1_800_000_000_000


class Clock:
    def __init__(self) -> None:
        self.ms = START_MS

    def __call__(self) -> int:
        return self.ms

    def pass_seconds(self, seconds: float) -> None:
        self.ms += round(seconds * 1_000)


class Workshop:
    """`fraction` is what the dispatchers' randomness gives."""

    def __init__(self, clients: Clients, sender: Sender) -> None:
        self.clock = Clock()
        self.fraction = 1.0
        self.scope = Scope(tenant=secrets.token_hex(8))
        self.clients = clients
        self.reader = Reader(clients.commands)
        self.logs = Logs(clients.commands)
        self.commits = Commits(clients.commands)
        self.webhooks = Webhooks(clients.commands, self.reader, self.clock)
        self.metrics = Metrics()
        self._sender = sender

    def dispatcher(self) -> Dispatcher:
        """One that knows nothing but what is in the store."""
        redis = self.clients.commands
        versions: dict[LogId, int | None] = {}
        tools = Tools(
            work=WebhookWork(redis, self.clients.subscriber, secrets.token_hex(8)),
            reader=self.reader,
            logs=Logs(redis),
            sender=self._sender,
            slots=Slots(8),
            courtesy=Courtesy(),
            secret=SECRET,
            versions=versions,
            now_ms=self.clock,
            random=lambda: self.fraction,
            metrics=self.metrics,
            stopping=asyncio.Event(),
        )
        wakeups = Wakeups(
            self.clients.subscriber, self.reader.current_versions, recheck_seconds=5.0
        )
        return Dispatcher(tools, versions, Names(redis), wakeups, sweep_seconds=5.0)

    async def work(self) -> None:
        """A dispatcher begins, does all that is due, and is gone with all that it knew."""
        dispatcher = self.dispatcher()
        await dispatcher.sweep()
        await dispatcher.idle()
        await dispatcher.close()

    async def make_log(self, name: str = "log", group: str = "") -> LogIdentity:
        opened = await self.logs.create_opaque(self.scope, name.encode(), group)
        return opened.description.identity

    async def commit(self, log: LogIdentity, key: bytes = b"k", value: bytes | None = None) -> int:
        command = Command.on_plain_value(Op.UPSERT, key, value or secrets.token_bytes(8))
        admitted = admit_opaque(log, [command], b"", None)
        return (await self.commits.commit(log, admitted)).version

    async def subscribe(self, url: str, **members: Any) -> str:
        asked: dict[str, Any] = {
            "log_id": None,
            "group": None,
            "tokens": frozenset(),
            "payload": "thin",
            "signature": "hmac",
            "description": "",
        }
        subscription = Subscription(url=url, **(asked | members))
        return (await self.webhooks.create(self.scope, subscription, most=1_000)).webhook_id

    async def webhook(self, webhook_id: str) -> Webhook:
        return (await self.webhooks.get(self.scope, webhook_id)).webhook

    async def deliveries(
        self, webhook_id: str, state: DeliveryState | None = None
    ) -> list[Delivery]:
        found, _ = await self.webhooks.deliveries(self.scope, webhook_id, state, None, 1_000)
        return found


@asynccontextmanager
async def workshop(engine: Engine) -> AsyncIterator[Workshop]:
    clients = connect(engine.url, connections=8, timeout_seconds=5.0)
    try:
        await functions.load(clients.commands)
        async with Sender(seconds=1.0, allow_private=True) as sender:
            yield Workshop(clients, sender)
    finally:
        await clients.close()

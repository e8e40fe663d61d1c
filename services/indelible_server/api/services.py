"""What the handlers work with: made once per process, found under one key of the app."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from aiohttp import web
from indelible_protocol.ids import LogId

from indelible_server.api.auth import Authenticator
from indelible_server.api.committing import Committer
from indelible_server.api.cursors import Cursors
from indelible_server.api.forgets import Forgets
from indelible_server.api.pages import Pages
from indelible_server.api.quotas import Quotas
from indelible_server.api.rates import Rates
from indelible_server.api.shedding import Shedding
from indelible_server.api.tickets import Tickets
from indelible_server.api.turns import Turns
from indelible_server.api.waiting import Waiting, Watches
from indelible_server.api.waves import Waves
from indelible_server.settings import Settings
from indelible_server.store import recent
from indelible_server.store.archive import Archive
from indelible_server.store.committing import Commits
from indelible_server.store.connection import Clients
from indelible_server.store.covering import Covering
from indelible_server.store.durability import DurabilityMonitor
from indelible_server.store.forgetting import Forgetting
from indelible_server.store.logs import Logs
from indelible_server.store.reading import Head, Reader
from indelible_server.store.recent import Asked, Recent
from indelible_server.store.shared_reads import SharedReads
from indelible_server.store.tenants import Tenants
from indelible_server.store.wakeups import Wakeups
from indelible_server.store.watched_objects import watched_objects
from indelible_server.store.webhooks import Webhooks
from indelible_server.telemetry import Metrics

FORGET_PAUSE_SECONDS = 0.001


@dataclass(slots=True, kw_only=True)
class Services:
    settings: Settings
    covering: Covering
    logs: Logs
    reader: Reader
    heads: SharedReads[LogId, Head | None]
    recent_reads: SharedReads[Asked, Recent | None]
    wakeups: Wakeups
    waiting: Waiting
    watches: Watches
    committer: Committer
    tickets: Tickets
    authenticator: Authenticator
    quotas: Quotas
    cursors: Cursors
    webhooks: Webhooks
    secret: bytes = field(repr=False)
    durability: DurabilityMonitor
    metrics: Metrics
    pages: Pages
    forgets: Forgets
    loaded: asyncio.Event = field(default_factory=asyncio.Event)
    draining: bool = False

    async def head(self, log_id: LogId) -> Head:
        """By a read that begins now at the earliest, shared with all who ask for it now.

        Raises:
            Refusal: LOG_REPLACED, NONEXISTENT_LOG.
        """
        [head] = await self.heads.read([log_id])
        return await self.reader.head(log_id) if head is None else head

    async def recent(self, log_id: LogId, from_version: int) -> Recent:
        """As `head`, with the changes from a version to it where they are few.

        Raises:
            Refusal: LOG_REPLACED, NONEXISTENT_LOG.
        """
        [found] = await self.recent_reads.read([Asked(log_id, from_version)])
        return Recent(await self.reader.head(log_id), None) if found is None else found

    def unready(self) -> tuple[str, ...]:
        """Why the process cannot do its work now; empty when it can."""
        reasons = self.durability.reasons
        if not self.loaded.is_set():
            reasons = (*reasons, "the function library is not loaded yet")
        if self.draining:
            reasons = (*reasons, "the process is going away")
        return reasons


SERVICES = web.AppKey("services", Services)


def make_services(
    settings: Settings,
    secret: bytes,
    clients: Clients,
    reach: Callable[[str], None],
    metrics: Metrics | None = None,
) -> Services:
    """`secret` keys API key hashes and cursors, and is what webhooks' keys are made of."""
    redis = clients.commands
    metrics = metrics or Metrics()
    tenants = Tenants(redis, secret)
    quotas = Quotas(
        tenants,
        max_logs=settings.max_tenant_logs,
        max_stored_bytes=settings.max_tenant_stored_bytes,
        now=time.monotonic,
    )
    covering = Covering(redis, clients.replicas)
    logs = Logs(redis, covering, admit=quotas.admit_log)
    archive = Archive(redis, watched_objects(settings.archive, metrics))
    reader = Reader(redis, covering, archive)
    cursors = Cursors(secret)
    pages = Pages(reader, cursors, cache_bytes=settings.cache_bytes)
    recent_reads = SharedReads(
        partial(recent.read_many, redis, covering), lambda asked: reader.part_of(asked.log_id)
    )
    waves = Waves(recent_reads, pages, shared_caching=settings.shared_caching)
    wakeups = Wakeups(
        clients.subscriber,
        SharedReads(reader.current_versions, reader.part_of).read,
        recheck_seconds=settings.recheck_seconds,
        answer_together=waves.begin,
        has_news=not covering.is_needed,
    )
    metrics.waiters.set_function(lambda: wakeups.waiter_count)
    tickets = Tickets()
    metrics.standing.set_function(lambda: tickets.standing)
    metrics.overdue_wait_seconds.set_function(wakeups.overdue_seconds)
    metrics.missed_hints.set_function(lambda: wakeups.missed_hints)
    durability = DurabilityMonitor(redis, settings.durability, replicas=clients.replicas)
    metrics.durable.set_function(lambda: durability.durable)
    loaded = asyncio.Event()

    def not_durable() -> tuple[str, ...]:
        if not loaded.is_set():
            return ("the function library is not loaded yet",)
        return durability.reasons

    return Services(
        settings=settings,
        covering=covering,
        logs=logs,
        reader=reader,
        heads=SharedReads(reader.heads, reader.part_of),
        recent_reads=recent_reads,
        wakeups=wakeups,
        waiting=Waiting(wakeups, settings),
        watches=Watches(wakeups, settings.max_tenant_watched),
        committer=Committer(
            Commits(redis, covering, seconds=settings.store_seconds, reach=reach),
            wakeups,
            metrics,
            quotas,
            unready=not_durable,
            shedding=Shedding(settings.max_commit_wait_seconds, time.monotonic),
            max_in_flight=settings.max_commits_in_flight,
        ),
        tickets=tickets,
        authenticator=Authenticator(
            tenants,
            Rates(settings.tenant_requests_per_second, time.monotonic),
            Turns(time.monotonic),
            time.monotonic,
        ),
        quotas=quotas,
        cursors=cursors,
        webhooks=Webhooks(redis, reader, lambda: time.time_ns() // 1_000_000),
        secret=secret,
        durability=durability,
        metrics=metrics,
        pages=pages,
        forgets=Forgets(
            Forgetting(redis, archive, pause_seconds=FORGET_PAUSE_SECONDS, reach=reach), logs
        ),
        loaded=loaded,
    )

"""Finds out which webhooks have work, and has each worked on by a task of its own.

Learns of it by hints (a log's, the changes of webhooks), and without any by a sweep over all
webhooks every few seconds. Knows nothing of what the work is (`endpoint`).
"""

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Collection, Sequence
from contextlib import nullcontext, suppress

import structlog
from indelible_protocol.errors import ErrorCode
from indelible_protocol.ids import LogId

from indelible_server.process import FINISH_SECONDS
from indelible_server.store.connection import end_tasks
from indelible_server.store.errors import Refusal
from indelible_server.store.names import Group, Names, Scope
from indelible_server.store.waiters import Watch, Watched
from indelible_server.store.wakeups import Wakeups
from indelible_server.store.webhook_records import Webhook
from indelible_server.store.webhook_work import Glance, WebhookKey
from indelible_server.store.webhooks import listed_logs
from indelible_server.webhooks.endpoint import Endpoint, Tools

log = structlog.get_logger("indelible_server.webhooks")

FOLLOW_SECONDS = 3_600.0
STORE_PAUSE_MS = 1_000
STORE_SILENCE_SECONDS = 5.0  # every webhook meets the same failure; one line tells of it
CRASH_PAUSE_MS = 30_000
LISTEN_SECONDS = 5.0
SWEPT_AT_ONCE = 25  # between them those whose log has moved get their turn


class Dispatcher:
    """`versions` is the mapping that `tools` holds; it is written here alone."""

    def __init__(
        self,
        tools: Tools,
        versions: dict[LogId, int | None],
        names: Names,
        wakeups: Wakeups,
        *,
        sweep_seconds: float,
    ) -> None:
        assert tools.versions is versions
        self._tools = tools
        self._work = tools.work
        self._versions = versions
        self._names = names
        self._wakeups = wakeups
        self._sweep_seconds = sweep_seconds
        self._endpoints: dict[WebhookKey, Endpoint] = {}
        self._by_log: dict[LogId, set[WebhookKey]] = {}
        self._watch = Watch()
        self._unwatched: dict[Watched, int] = {}
        self._workers: dict[WebhookKey, asyncio.Task[None]] = {}
        self._again: set[WebhookKey] = set()
        self._timers: dict[WebhookKey, asyncio.TimerHandle] = {}
        self._due: dict[WebhookKey, int] = {}
        self._sweep_now = asyncio.Event()
        self._store_failed_at = 0.0
        tools.metrics.webhook_oldest_seconds.set_function(self._oldest_seconds)

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set; attempts that are under way then may end."""
        async with asyncio.TaskGroup() as tasks:
            sweeping = tasks.create_task(self._keep_sweeping())
            listening = tasks.create_task(self._listen())
            following = tasks.create_task(self._follow())
            await stop.wait()
            await end_tasks(sweeping, listening, following)
        await self.close()

    async def close(self) -> None:
        self._tools.stopping.set()
        for timer in self._timers.values():
            timer.cancel()
        self._wakeups.release(self._watch)
        working = [*self._workers.values()]
        if working:
            await asyncio.wait(working, timeout=FINISH_SECONDS)
        unfinished = [task for task in working if not task.done()]
        await end_tasks(*unfinished)
        log.info("webhooks.drained", unfinished=len(unfinished))

    async def idle(self) -> None:
        """Returns once nothing is being worked on, for tests that move the clock themselves."""
        while self._workers:
            await asyncio.wait(list(self._workers.values()))

    async def _keep_sweeping(self) -> None:
        while True:
            self._sweep_now.clear()
            try:
                await self.sweep()
            except Refusal as refusal:
                log.warning("webhooks.sweep_failed", reason=refusal.message)
            except Exception:
                log.exception("webhooks.sweep_crashed")
            pause = self._sweep_seconds * random.uniform(0.75, 1.25)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._sweep_now.wait()

    async def _listen(self) -> None:
        """Hears of webhooks that were made or changed."""
        place: bytes | None = None
        while True:
            try:
                if place is None:
                    place = await self._work.last_change()
                    self._sweep_now.set()
                async with asyncio.timeout(LISTEN_SECONDS * 2):
                    place, changed = await self._work.changes(place, LISTEN_SECONDS)
            except (Refusal, TimeoutError) as error:
                log.warning("webhooks.disconnected", reason=type(error).__name__)
                await asyncio.sleep(random.uniform(0.1, 1.0))
                continue
            except Exception:
                log.exception("webhooks.listening_crashed")
                place = None
                await asyncio.sleep(LISTEN_SECONDS)
                continue
            for key in changed:
                if key in self._endpoints:
                    self._endpoints[key].look_again()
                    self._wake(key)
                else:
                    self._sweep_now.set()

    async def sweep(self) -> None:
        """Reads what may have changed of every webhook, and wakes those that have work.

        Raises:
            Refusal: the store failed.
        """
        keys = await self._work.all()
        glances: dict[WebhookKey, Glance] = {}
        changed: set[WebhookKey] = set()
        for at in range(0, len(keys), SWEPT_AT_ONCE):
            await self._tools.courtesy.turn()
            some = keys[at : at + SWEPT_AT_ONCE]
            seen = {
                key: glance
                for key, glance in zip(some, await self._work.glance(some), strict=True)
                if glance is not None
            }
            changed |= await self._read_changed(seen)
            glances |= seen
        for key in self._endpoints.keys() - glances.keys():
            self._drop(key)
        await self._follow_logs()
        now = self._tools.now_ms()
        for key, glance in glances.items():
            endpoint = self._endpoints.get(key)
            if endpoint is None:
                continue
            self._note_due(key, glance.due_ms)
            is_due = glance.due_ms is not None and glance.due_ms <= now
            if (
                key in changed
                or endpoint.has_news()
                or (is_due and endpoint.webhook.state != "disabled")
            ):
                self._wake(key)

    async def _read_changed(self, glances: dict[WebhookKey, Glance]) -> set[WebhookKey]:
        """Those that are new here, or are not as they were read last."""
        changed, moved = [], []
        for key, glance in glances.items():
            endpoint = self._endpoints.get(key)
            if key in self._workers:
                continue
            if endpoint is None or endpoint.webhook.revision != glance.revision:
                changed.append(key)
            if endpoint is None or endpoint.moves != glance.moves:
                moved.append(key)
        for key, webhook in zip(changed, await self._work.read(changed), strict=True):
            if webhook is not None:
                self._meet(key, webhook)
        for key, positions in zip(moved, await self._work.positions(moved), strict=True):
            endpoint = self._endpoints.get(key)
            if endpoint is not None and key not in self._workers:
                endpoint.adopt(positions, glances[key].moves)
        return set(changed)

    def _meet(self, key: WebhookKey, webhook: Webhook) -> None:
        endpoint = self._endpoints.get(key)
        if endpoint is None:
            self._endpoints[key] = Endpoint(key, webhook, self._tools)
        elif key not in self._workers:
            endpoint.webhook = webhook
            endpoint.look_again()

    async def _follow_logs(self) -> None:
        """Follows the logs and groups that webhooks tell of, and lets go of the others."""
        groups = {
            Group(key.tenant, endpoint.webhook.database, endpoint.webhook.group)
            for key, endpoint in self._endpoints.items()
            if endpoint.webhook.group is not None
        }
        # Before the listings are read: what comes into one after that is heard of.
        await self._begin_to_watch(groups)
        logs_of = await self._logs_of_all()
        by_log: defaultdict[LogId, set[WebhookKey]] = defaultdict(set)
        for key, log_ids in logs_of.items():
            endpoint = self._endpoints.get(key)
            for log_id in log_ids | (endpoint.positions.keys() if endpoint else set()):
                by_log[log_id].add(key)
        await self._begin_to_watch(by_log.keys() - self._versions.keys())
        for log_id in self._versions.keys() - by_log.keys():
            del self._versions[log_id]
        for watched in self._watch.known.keys() - by_log.keys() - groups:
            self._wakeups.forget(self._watch, watched)
        self._by_log = dict(by_log)
        for key, log_ids in logs_of.items():
            if key in self._endpoints:
                self._endpoints[key].follow(log_ids)

    async def _logs_of_all(self) -> dict[WebhookKey, frozenset[LogId]]:
        listed: dict[tuple[str, str, str | None], frozenset[LogId]] = {}
        logs_of: dict[WebhookKey, frozenset[LogId]] = {}
        for key, endpoint in list(self._endpoints.items()):
            webhook = endpoint.webhook
            if webhook.log_id is not None:
                logs_of[key] = frozenset((webhook.log_id,))
                continue
            place = (key.tenant, webhook.database, webhook.group)
            if place not in listed:
                scope = Scope(tenant=key.tenant, database=webhook.database)
                listed[place] = frozenset(await listed_logs(self._names, scope, webhook.group))
            logs_of[key] = listed[place]
        return logs_of

    async def _begin_to_watch(self, wanted: Collection[Watched]) -> None:
        fresh = [each for each in wanted if each not in self._watch.known]
        versions = await self._tools.reader.current_versions(fresh) if fresh else []
        for watched, version in zip(fresh, versions, strict=True):
            if not isinstance(watched, Group):
                self._versions[watched] = version
            if version is not None:
                self._unwatched[watched] = version
        if self._unwatched:
            self._watch.wake("timeout")

    async def _follow(self) -> None:
        """Hears of each movement of what is watched, all of it in one watch."""
        while True:
            fresh, self._unwatched = self._unwatched, {}
            try:
                outcome = await self._wakeups.sleep(self._watch, FOLLOW_SECONDS, also=fresh)
                if outcome == "moved":
                    await self._take_in([*self._watch.behind])
            except Refusal:  # what is watched is read again by rechecks
                await asyncio.sleep(random.uniform(0.5, 1.5))
            except Exception:
                log.exception("webhooks.following_crashed")
                await asyncio.sleep(LISTEN_SECONDS)

    async def _take_in(self, behind: Sequence[Watched]) -> None:
        versions = await self._tools.reader.current_versions(behind)
        for watched, version in zip(behind, versions, strict=True):
            known = self._watch.known.get(watched)
            if known is None:
                continue  # let go of in the meantime
            if version is None:
                self._wakeups.forget(self._watch, watched)
            elif version <= known:
                self._watch.behind.pop(watched, None)
                continue
            else:
                self._watch.advance(watched, version)
            if isinstance(watched, Group):
                self._sweep_now.set()
            else:
                self._note_version(watched, version)

    def _note_version(self, log_id: LogId, version: int | None) -> None:
        self._versions[log_id] = version
        moved = []
        for key in self._by_log.get(log_id, ()):
            endpoint = self._endpoints.get(key)
            if endpoint is not None:
                endpoint.compare({log_id})
                if endpoint.has_news():
                    moved.append((endpoint.trust.is_suspect, key))
        for _, key in sorted(moved):  # those that are not come first
            self._wake(key)

    def _wake(self, key: WebhookKey) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        if self._tools.stopping.is_set() or key not in self._endpoints:
            return
        self._again.add(key)
        if key not in self._workers:
            self._workers[key] = asyncio.create_task(self._keep_working(key))

    async def _keep_working(self, key: WebhookKey) -> None:
        pause_ms: int | None = None
        try:
            while key in self._again and key in self._endpoints:
                endpoint = self._endpoints[key]
                await endpoint.turn()
                self._again.discard(key)
                waits_for_others = endpoint.trust.is_suspect
                with nullcontext() if waits_for_others else self._tools.courtesy.at_work():
                    pause_ms = await self._worked(endpoint)
        finally:
            del self._workers[key]
        if pause_ms is not None and not self._tools.stopping.is_set():
            self._note_due(key, self._tools.now_ms() + pause_ms)
            loop = asyncio.get_running_loop()
            self._timers[key] = loop.call_later(pause_ms / 1_000, self._wake, key)
        else:
            self._due.pop(key, None)

    async def _worked(self, endpoint: Endpoint) -> int | None:
        try:
            return await endpoint.work()
        except Refusal as refusal:
            if refusal.code is ErrorCode.INTERNAL_ERROR:
                log.exception("webhook.crashed", webhook_id=endpoint.key.webhook_id)
                return CRASH_PAUSE_MS
            if time.monotonic() - self._store_failed_at > STORE_SILENCE_SECONDS:
                self._store_failed_at = time.monotonic()
                log.warning("webhooks.store_failed", reason=refusal.message)
            return round(STORE_PAUSE_MS * random.uniform(0.5, 1.5))
        except Exception:
            log.exception("webhook.crashed", webhook_id=endpoint.key.webhook_id)
            return CRASH_PAUSE_MS

    def _drop(self, key: WebhookKey) -> None:
        """The webhook is gone; what is under way finds that out by itself."""
        del self._endpoints[key]
        self._due.pop(key, None)
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()

    def _note_due(self, key: WebhookKey, due_ms: int | None) -> None:
        if due_ms is None:
            self._due.pop(key, None)
        else:
            self._due[key] = due_ms

    def _oldest_seconds(self) -> float:
        """How long the delivery that should have been attempted first has been waiting."""
        late_ms = self._tools.now_ms() - min(self._due.values(), default=1 << 62)
        return max(0.0, late_ms / 1_000)


def wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000

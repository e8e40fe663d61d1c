"""Waiting on many logs at once, and on the listings of groups: POST /v2/wait.

Who waits again and again on thousands need not tell them each time: the service keeps the watch
between two requests, for a while, and takes in only what is new.
"""

import time
from collections.abc import Sequence

from aiohttp import web
from indelible_protocol import limits, messages
from indelible_protocol.errors import ProtocolError
from indelible_protocol.ids import LogId

from indelible_server.api.messages import answer, read_message
from indelible_server.api.middlewares import WAITED
from indelible_server.api.pages import Wanted
from indelible_server.api.parameters import Query
from indelible_server.api.requests import scope_of
from indelible_server.api.services import SERVICES, Services
from indelible_server.store.errors import Refusal, StoreUnavailable
from indelible_server.store.names import Group, Scope
from indelible_server.store.waiters import UNTOLD, Outcome, Watch, Watched

_MAX_DIFFS = 256


async def wait(request: web.Request) -> web.Response:
    """Foreign and absent logs are `gone`, as deleted ones are."""
    scope = await scope_of(request)
    Query(request, ())
    services = request.app[SERVICES]
    asked = await read_message(request, messages.Wait)
    watch = Watch() if asked.watch is None else services.watches.take(scope, asked.watch)
    kept = False
    try:
        waiting = _Waiting(services, scope, watch, asked)
        moved, outcome = await waiting.run(request)
        if asked.keep and outcome != "draining":
            moved.watch = services.watches.keep(scope, watch)
            kept = True
    finally:
        if not kept:
            services.watches.release(scope.tenant, watch)
    response = answer(request, moved)
    if outcome == "draining":
        response.force_close()
    return response


class _Waiting:
    """One request: what it adds to the watch, and what it is answered."""

    def __init__(
        self, services: Services, scope: Scope, watch: Watch, asked: messages.Wait
    ) -> None:
        self._services = services
        self._scope = scope
        self._watch = watch
        self._asked = asked
        self._moved = messages.Moved(moved=[], gone=[], groups=[], watch=None)

    async def run(self, request: web.Request) -> tuple[messages.Moved, Outcome]:
        also = await self._added()
        deadline = time.monotonic() + (0.0 if self._moved.gone else self._asked.wait)
        while True:
            seconds = max(0.0, deadline - time.monotonic())
            if seconds:
                request[WAITED] = True
            outcome = await self._services.waiting.sleep(
                self._scope.tenant, self._watch, seconds, also=also
            )
            await self._tell_what_moved()
            if self._has_news or outcome != "moved" or time.monotonic() >= deadline:
                return self._moved, outcome
            also = {}

    @property
    def _has_news(self) -> bool:
        return bool(self._moved.moved or self._moved.gone or self._moved.groups)

    async def _added(self) -> dict[Watched, int]:
        """What is watched from now on; what is known already is at its new version."""
        watch, tenant = self._watch, self._scope.tenant
        told: dict[Watched, int] = {LogId(e.log_id): e.version for e in self._asked.logs}
        for each in self._asked.groups:
            told[Group(tenant, self._scope.database, each.group)] = each.version
        fresh = {
            watched: version for watched, version in told.items() if watched not in watch.known
        }
        for watched in told.keys() - fresh.keys():
            watch.advance(watched, told[watched])
        await self._drop_foreign(fresh)
        count = len(watch.known) + len(fresh)
        if count > limits.MAX_WAIT_LOGS + limits.MAX_WAIT_GROUPS:
            raise ProtocolError(
                f"{count} logs in one watch, at most {limits.MAX_WAIT_LOGS} allowed"
            )
        if not count and not self._moved.gone:
            raise ProtocolError("nothing to wait for: tell logs, groups or a watch that is kept")
        self._services.watches.count(tenant, len(fresh))
        for watched, version in fresh.items():
            watch.known[watched] = version  # counted from here on, whatever happens next
        return fresh

    async def _drop_foreign(self, fresh: dict[Watched, int]) -> None:
        log_ids = [watched for watched in fresh if not isinstance(watched, Group)]
        mine = await self._services.logs.identify_many(self._scope.tenant, log_ids)
        for log_id in log_ids:
            identity = mine.get(log_id)
            if identity is None or identity.database != self._scope.database:
                del fresh[log_id]
                self._moved.gone.append(log_id)

    async def _tell_what_moved(self) -> None:
        """By a fresh read of what was told to be behind; a false alarm is let go.

        Raises:
            StoreUnavailable: nothing can be told, as what is behind cannot be read.
        """
        watch = self._watch
        behind = list(watch.behind)
        versions = await self._services.reader.current_versions(behind) if behind else []
        room = limits.MAX_PAGE_BYTES if self._asked.diffs else 0
        is_untold = False
        for watched, version in zip(behind, versions, strict=True):
            known = watch.known[watched]
            if version is None:
                assert not isinstance(watched, Group)
                self._services.watches.forget(self._scope.tenant, watch, watched)
                self._moved.gone.append(watched)
            elif version == UNTOLD:
                is_untold = True
            elif version <= known:
                del watch.behind[watched]
            elif isinstance(watched, Group):
                group = messages.WatchedGroup(group=watched.name, version=version)
                self._moved.groups.append(group)
            else:
                moved = messages.MovedLog(log_id=watched, version=version)
                self._moved.moved.append(moved)
        if is_untold and not self._has_news:
            raise StoreUnavailable("some logs have moved, and cannot be read")
        if room:
            await self._add_diffs(self._moved.moved[:_MAX_DIFFS], room)

    async def _add_diffs(self, moved: Sequence[messages.MovedLog], room: int) -> None:
        services = self._services
        for each in moved:
            log_id = LogId(each.log_id)
            try:
                identity = await services.logs.identify(self._scope.tenant, log_id)
                head = await services.reader.head(log_id)
                wanted = Wanted(
                    from_version=self._watch.known[log_id],
                    to_version=head.version,
                    order="command",
                    start=None,
                    limit=limits.DEFAULT_PAGE,
                )
                page, _ = await services.pages.diff(identity, head, wanted)
            except Refusal:  # the diff itself will tell, when it is asked for
                continue
            room -= sum(len(c.key) + len(c.sealed_key) + len(c.value) for c in page.changes)
            if room < 0:
                return
            each.version, each.diff = head.version, page

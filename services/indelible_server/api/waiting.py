"""Admission of those who wait, by long poll or by stream: how many, and whose; and what long polls
watch between two requests."""

import asyncio
import secrets
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from indelible_protocol.errors import ErrorCode
from indelible_protocol.ids import LogId
from msgspec import Struct

from indelible_server.settings import Settings
from indelible_server.store.errors import Refusal
from indelible_server.store.names import Scope
from indelible_server.store.waiters import Outcome, Waiter, Watch, Watched
from indelible_server.store.wakeups import Wakeups

KEPT_SECONDS = 90.0


class Waiting:
    def __init__(self, wakeups: Wakeups, settings: Settings) -> None:
        self._wakeups = wakeups
        self._max_waiters = settings.max_waiters
        self._max_tenant_waiters = settings.max_tenant_waiters
        self._max_wait_seconds = settings.max_wait_seconds
        self._waiters = 0
        self._nobody = asyncio.Event()
        self._by_tenant: Counter[str] = Counter()

    async def wait(self, tenant: str, waiter: Waiter, seconds: float) -> Outcome:
        """Until its log is beyond its version or gone; no longer than is allowed.

        Raises:
            Refusal: RATE_LIMITED at the tenant's cap, OVERLOADED at the process's.
        """
        await self.enter(tenant, waiter, seconds)
        try:
            return await waiter.outcome
        finally:
            self.leave(tenant, waiter)

    async def needs_read(self, outcome: Outcome, log_id: LogId) -> bool:
        """Whether a read has to tell if there is news, now that a wait for the log ended so. Not
        at a drain, which may come of a lost store: who asked asks again."""
        is_over = outcome == "timeout"
        return outcome == "moved" or (is_over and not await self._wakeups.is_sure(log_id))

    async def enter(
        self, tenant: str, waiter: Waiter, seconds: float, listening: object | None = None
    ) -> None:
        """As `Wakeups.enter`, for those who are to hold no frame of ours while they wait; who
        has entered without an error has to `leave`.

        Raises:
            Refusal: as `wait`.
        """
        self._admit(tenant)
        try:
            await self._wakeups.enter(waiter, min(seconds, self._max_wait_seconds), listening)
        except BaseException as error:
            if waiter.is_taken and isinstance(error, Refusal):
                return  # its client has been answered: a refusal now would answer the next request
            self.leave(tenant, waiter)
            raise

    def leave(self, tenant: str, waiter: Waiter) -> None:
        self._wakeups.leave(waiter)
        self._dismiss(tenant)

    async def sleep(
        self,
        tenant: str,
        watch: Watch,
        seconds: float,
        *,
        also: Mapping[LogId, int] | Mapping[Watched, int],
    ) -> Outcome:
        """As `wait`, for a watch, which is released elsewhere; watches `also` from now on."""
        with self.admitted(tenant):
            seconds = min(seconds, self._max_wait_seconds)
            return await self._wakeups.sleep(watch, seconds, also=also)

    @contextmanager
    def admitted(self, tenant: str) -> Iterator[None]:
        """Counts one more who waits, asleep or not, for as long as the context lasts.

        Raises:
            Refusal: RATE_LIMITED at the tenant's cap, OVERLOADED at the process's.
        """
        self._admit(tenant)
        try:
            yield
        finally:
            self._dismiss(tenant)

    def _admit(self, tenant: str) -> None:
        if self._by_tenant[tenant] >= self._max_tenant_waiters:
            raise Refusal(
                ErrorCode.RATE_LIMITED,
                f"{self._max_tenant_waiters} wait already (max_tenant_waiters)",
            )
        if self._waiters >= self._max_waiters:
            raise Refusal(ErrorCode.OVERLOADED, "too many wait already")
        self._waiters += 1
        self._nobody.clear()
        self._by_tenant[tenant] += 1

    def _dismiss(self, tenant: str) -> None:
        self._waiters -= 1
        if not self._waiters:
            self._nobody.set()
        self._by_tenant[tenant] -= 1
        if not self._by_tenant[tenant]:
            del self._by_tenant[tenant]

    async def until_nobody(self, within_seconds: float) -> None:
        """Returns when nobody waits, or `within_seconds` are over."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_seconds):
                while self._waiters:
                    await self._nobody.wait()


class _Kept(Struct, kw_only=True):
    scope: Scope
    watch: Watch
    end: asyncio.TimerHandle


class Watches:
    """Watches kept between requests, and how much each tenant watches in all.

    A kept watch lives in one process; where it is unknown, as after a restart, all is told again.
    """

    def __init__(self, wakeups: Wakeups, max_tenant_watched: int) -> None:
        self._wakeups = wakeups
        self._max_tenant_watched = max_tenant_watched
        self._kept: dict[str, _Kept] = {}
        self._counts: Counter[str] = Counter()

    def take(self, scope: Scope, name: str) -> Watch:
        """A kept watch, which is nobody else's until it is kept again.

        Raises:
            Refusal: BAD_CURSOR: it is not kept here, or is another's.
        """
        kept = self._kept.get(name)
        if kept is None or kept.scope != scope:
            raise Refusal(
                ErrorCode.BAD_CURSOR, "this watch is not kept here (any more): tell all logs again"
            )
        del self._kept[name]
        kept.end.cancel()
        return kept.watch

    def keep(self, scope: Scope, watch: Watch) -> str:
        name = secrets.token_urlsafe(16)
        end = asyncio.get_running_loop().call_later(KEPT_SECONDS, self._end, name)
        self._kept[name] = _Kept(scope=scope, watch=watch, end=end)
        return name

    def count(self, tenant: str, more: int) -> None:
        """
        Raises:
            Refusal: RATE_LIMITED beyond what a tenant may watch.
        """
        if self._counts[tenant] + more > self._max_tenant_watched:
            raise Refusal(
                ErrorCode.RATE_LIMITED,
                f"this tenant may watch {self._max_tenant_watched} logs and groups at once "
                "(max_tenant_watched)",
            )
        self._counts[tenant] += more

    def forget(self, tenant: str, watch: Watch, watched: Watched) -> None:
        self._wakeups.forget(watch, watched)
        self._counts[tenant] -= 1

    def release(self, tenant: str, watch: Watch) -> None:
        self._counts[tenant] -= len(watch.known)
        if not self._counts[tenant]:
            del self._counts[tenant]
        self._wakeups.release(watch)

    def _end(self, name: str) -> None:
        kept = self._kept.pop(name)
        self.release(kept.scope.tenant, kept.watch)

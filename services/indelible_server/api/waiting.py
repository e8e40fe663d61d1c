"""Admission of long polls: how many wait, and whose."""

from collections import Counter
from collections.abc import Mapping

from indelible_protocol.errors import ErrorCode
from indelible_protocol.ids import LogId

from indelible_server.settings import Settings
from indelible_server.store.errors import Refusal
from indelible_server.store.wakeups import Outcome, Wakeups


class Waiting:
    def __init__(self, wakeups: Wakeups, settings: Settings) -> None:
        self._wakeups = wakeups
        self._max_waiters = settings.max_waiters
        self._max_tenant_waiters = settings.max_tenant_waiters
        self._max_wait_seconds = settings.max_wait_seconds
        self._by_tenant: Counter[str] = Counter()

    async def wait(self, tenant: str, since: Mapping[LogId, int], seconds: float) -> Outcome:
        """Until one of the logs is beyond its version or gone; no longer than is allowed.

        Raises:
            Refusal: RATE_LIMITED at the tenant's cap, OVERLOADED at the process's.
        """
        if self._by_tenant[tenant] >= self._max_tenant_waiters:
            raise Refusal(
                ErrorCode.RATE_LIMITED,
                f"{self._max_tenant_waiters} long polls wait already (max_tenant_waiters)",
            )
        if self._wakeups.waiter_count >= self._max_waiters:
            raise Refusal(ErrorCode.OVERLOADED, "too many long polls wait already")
        self._by_tenant[tenant] += 1
        try:
            return await self._wakeups.wait(since, min(seconds, self._max_wait_seconds))
        finally:
            self._by_tenant[tenant] -= 1
            if not self._by_tenant[tenant]:
                del self._by_tenant[tenant]

"""How much a tenant may keep: the number of its logs, and the bytes they hold.

Logs are counted when one is made. Bytes are summed over the tenant's logs, in the background
and one tenant at a time, and what this process commits meanwhile is added: so a commit asks a
dictionary, a sum never drifts, and a tenant may pass its quota by what the other processes
commit between two sums, and by its logs that are being made at that moment.
"""

import asyncio
from collections.abc import Callable

import structlog
from indelible_protocol.errors import ErrorCode
from msgspec import Struct

from indelible_server.store.connection import end_tasks
from indelible_server.store.errors import Refusal
from indelible_server.store.tenants import Tenants

log = structlog.get_logger("indelible_server.api")

SUMMED_SECONDS = 60.0
SUMMED_FULL_SECONDS = 5.0
_REST_FOR_WORK = 50  # summing takes at most one part in 50 of the time
_LOG_RETRY_SECONDS = 60


class _Sum(Struct, kw_only=True):
    """What a tenant held at `at` (monotonic seconds), and what came since."""

    held_bytes: int
    most_bytes: int
    at: float

    @property
    def is_full(self) -> bool:
        return self.held_bytes >= self.most_bytes


class Quotas:
    """`max_logs` and `max_stored_bytes` are for tenants without their own; `now` is a monotonic
    clock in seconds."""

    def __init__(
        self,
        tenants: Tenants,
        *,
        max_logs: int,
        max_stored_bytes: int,
        now: Callable[[], float],
    ) -> None:
        self._tenants = tenants
        self._max_logs = max_logs
        self._max_stored_bytes = max_stored_bytes
        self._now = now
        self._sums: dict[str, _Sum] = {}
        self._due: asyncio.Queue[str] = asyncio.Queue()
        self._queued: set[str] = set()

    async def admit_log(self, tenant: str) -> None:
        """
        Raises:
            Refusal: QUOTA_EXCEEDED.
        """
        most = (await self._tenants.quota(tenant)).logs or self._max_logs
        if await self._tenants.count_logs(tenant) >= most:
            raise _exceeded(f"{most} logs", "max_tenant_logs", _LOG_RETRY_SECONDS)

    def admit_commit(self, tenant: str) -> None:
        """
        Raises:
            Refusal: QUOTA_EXCEEDED.
        """
        known = self._sums.get(tenant)
        if known is None:
            self._ask_for_sum(tenant)
            return
        age = self._now() - known.at
        if age > (SUMMED_FULL_SECONDS if known.is_full else SUMMED_SECONDS):
            self._ask_for_sum(tenant)
        if known.is_full:
            raise _exceeded(
                f"{known.most_bytes} bytes in its logs",
                "max_tenant_stored_bytes",
                int(SUMMED_FULL_SECONDS),
            )

    def add(self, tenant: str, size_bytes: int) -> None:
        """A commit of the tenant's is in."""
        known = self._sums.get(tenant)
        if known is not None:
            known.held_bytes += size_bytes

    async def run(self, stop: asyncio.Event) -> None:
        """Sums what is asked for until `stop` is set."""
        summing = asyncio.create_task(self._sum_each())
        await stop.wait()
        await end_tasks(summing)

    async def _sum_each(self) -> None:
        while True:
            tenant = await self._due.get()
            started = self._now()
            try:
                await self._sum(tenant)
            except Refusal as refusal:
                log.warning("quota.not_summed", tenant=tenant, reason=refusal.message)
            self._queued.discard(tenant)
            await asyncio.sleep(_REST_FOR_WORK * (self._now() - started))

    async def _sum(self, tenant: str) -> None:
        before = self._sums.get(tenant)
        known_bytes = before.held_bytes if before else 0
        most = (await self._tenants.quota(tenant)).stored_bytes or self._max_stored_bytes
        held = await self._tenants.sum_bytes(tenant)
        came = before.held_bytes - known_bytes if before else 0
        self._sums[tenant] = _Sum(held_bytes=held + came, most_bytes=most, at=self._now())

    def _ask_for_sum(self, tenant: str) -> None:
        if tenant not in self._queued:
            self._queued.add(tenant)
            self._due.put_nowait(tenant)


def _exceeded(what: str, setting: str, retry_after_seconds: int) -> Refusal:
    return Refusal(
        ErrorCode.QUOTA_EXCEEDED,
        f"this tenant may keep {what} ({setting}); delete logs, or ask the operator for more",
        {"retry_after_seconds": retry_after_seconds},
    )

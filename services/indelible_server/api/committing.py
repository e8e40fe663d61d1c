"""Commits in flight: how many, and that each is finished whatever becomes of its request."""

import asyncio
from collections.abc import Callable

from indelible_protocol.errors import ErrorCode
from indelible_protocol.semantics import Acknowledged

from indelible_server.api.quotas import Quotas
from indelible_server.store.admission import Admitted, LogIdentity
from indelible_server.store.committing import Commits
from indelible_server.store.connection import write_outcome
from indelible_server.store.errors import Refusal
from indelible_server.store.wakeups import Wakeups
from indelible_server.telemetry import Metrics


class Committer:
    """`unready` gives the reasons why no commit may be promised to be durable now.

    `seconds` bounds a commit as a whole, the wait for a connection included, so that a drain
    ends in time though the store answers nothing.
    """

    def __init__(
        self,
        commits: Commits,
        wakeups: Wakeups,
        metrics: Metrics,
        quotas: Quotas,
        *,
        unready: Callable[[], tuple[str, ...]],
        max_in_flight: int,
        seconds: float,
    ) -> None:
        self._commits = commits
        self._wakeups = wakeups
        self._metrics = metrics
        self._quotas = quotas
        self._unready = unready
        self._max_in_flight = max_in_flight
        self._seconds = seconds
        self._in_flight: set[asyncio.Task[Acknowledged]] = set()

    async def commit(self, identity: LogIdentity, admitted: Admitted) -> Acknowledged:
        """Runs to its end even if the request that asked for it is cancelled.

        Raises:
            Refusal: QUOTA_EXCEEDED, OVERLOADED or NOT_DURABLE before anything is sent; else as
                the store says.
        """
        try:
            self._check(identity.tenant)
        except Refusal:
            self._metrics.commits.labels("refused").inc()
            raise
        task = asyncio.ensure_future(self._run(identity, admitted))
        self._in_flight.add(task)
        task.add_done_callback(self._finished)
        outcome = await asyncio.shield(task)
        self._commits.reach("before_answer")
        return outcome

    async def finish(self, seconds: float) -> int:
        """Waits for what is in flight; how many were not finished in time."""
        if not self._in_flight:
            return 0
        _, late = await asyncio.wait(self._in_flight, timeout=seconds)
        return len(late)

    def _check(self, tenant: str) -> None:
        self._quotas.admit_commit(tenant)
        if len(self._in_flight) >= self._max_in_flight:
            raise Refusal(ErrorCode.OVERLOADED, "too many commits are in flight")
        reasons = self._unready()
        if reasons:
            raise Refusal(
                ErrorCode.NOT_DURABLE,
                "the store does not hold what is promised: " + "; ".join(reasons),
            )

    async def _run(self, identity: LogIdentity, admitted: Admitted) -> Acknowledged:
        try:
            async with write_outcome(), asyncio.timeout(self._seconds):
                outcome = await self._commits.commit(identity, admitted)
        except Refusal as refusal:
            unknown = refusal.code.may_have_applied
            self._metrics.commits.labels("unknown" if unknown else "rejected").inc()
            raise
        word = "committed" if outcome.changed else "unchanged"
        self._metrics.commits.labels("repeated" if outcome.repeated else word).inc()
        if outcome.changed:
            self._wakeups.hint(identity.log_id, outcome.version)
            self._quotas.add(identity.tenant, admitted.commit.size_bytes)
        return outcome

    def _finished(self, task: "asyncio.Task[Acknowledged]") -> None:
        self._in_flight.discard(task)
        if not task.cancelled():
            task.exception()  # its request may be gone; asyncio would complain otherwise

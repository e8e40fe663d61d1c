"""Commits in flight: how many, and that each is finished whatever becomes of its request."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import structlog
from indelible_protocol.errors import ErrorCode
from indelible_protocol.semantics import Acknowledged

from indelible_server.api.quotas import Quotas
from indelible_server.api.shedding import Shedding
from indelible_server.store.admission import Admitted, LogIdentity
from indelible_server.store.committing import Commits, Outcome, acknowledged, resolve
from indelible_server.store.errors import Refusal
from indelible_server.store.wakeups import Wakeups
from indelible_server.telemetry import Metrics

log = structlog.get_logger("indelible_server.api")

_SHED_SECONDS = 1.0
OUTCOMES = ("committed", "unchanged", "repeated", "rejected", "refused", "unknown")


def crowded() -> Refusal:
    return Refusal(ErrorCode.OVERLOADED, "too many commits are in flight")


class Committer:
    """`unready` gives the reasons why no commit may be promised to be durable now.

    No task is made for a commit: the store's client calls back, and its deadline bounds each, so
    that a drain ends in time though the store answers nothing.
    """

    def __init__(
        self,
        commits: Commits,
        wakeups: Wakeups,
        metrics: Metrics,
        quotas: Quotas,
        *,
        unready: Callable[[], tuple[str, ...]],
        shedding: Shedding,
        max_in_flight: int,
    ) -> None:
        self._commits = commits
        self._wakeups = wakeups
        self._quotas = quotas
        self._unready = unready
        self._shedding = shedding
        self._max_in_flight = max_in_flight
        self._in_flight = 0
        self._shed = 0
        self._in_flight_of: Counter[str] = Counter()
        self._none_in_flight = asyncio.Event()
        self._counts = {word: metrics.commits.labels(word) for word in OUTCOMES}

    async def commit(self, identity: LogIdentity, admitted: Admitted) -> Acknowledged:
        """Runs to its end even if the request that asked for it is cancelled.

        Raises:
            Refusal: QUOTA_EXCEEDED, OVERLOADED or NOT_DURABLE before anything is sent; else as
                the store says.
        """
        self.check(identity.tenant)
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.begin(identity, admitted, partial(resolve, answer))
        return acknowledged(await answer)

    def begin(
        self, identity: LogIdentity, admitted: Admitted, settle: Callable[[Outcome], None]
    ) -> None:
        """`settle` gets the outcome of the commit; it must not raise. `check` came before."""
        self._commits.send(
            identity, admitted, partial(self._end, time.monotonic(), identity, admitted, settle)
        )
        self._in_flight += 1
        self._in_flight_of[identity.tenant] += 1

    def check(self, tenant: str) -> None:
        """
        Raises:
            Refusal: QUOTA_EXCEEDED, OVERLOADED or NOT_DURABLE; nothing may be begun.
        """
        try:
            self._check(tenant)
        except Refusal:
            self.count_refused()
            raise

    def is_crowded(self) -> bool:
        """Whether one more is refused of who has its share in flight."""
        in_flight = self._in_flight
        return in_flight >= self._max_in_flight or not self._shedding.admits(in_flight)

    def has_its_share(self, tenant: str) -> bool:
        """Whether one more of the tenant would be as many as there are of each, or more."""
        of = self._in_flight_of
        tenants = len(of) + (tenant not in of)
        is_full = self._in_flight >= self._max_in_flight
        return is_full or (of[tenant] + 1) * tenants > self._in_flight

    def count_refused(self) -> None:
        self._counts["refused"].inc()

    def count_shed(self) -> None:
        """One that was refused unseen: they are told in one line a second."""
        self.count_refused()
        self._shed += 1
        if self._shed == 1:
            asyncio.get_running_loop().call_later(_SHED_SECONDS, self._tell_shed)

    def _tell_shed(self) -> None:
        log.warning("commits.shed", count=self._shed, in_flight=self._in_flight)
        self._shed = 0

    async def finish(self, seconds: float) -> int:
        """Waits for what is in flight; how many were not finished in time."""
        if self._in_flight:
            self._none_in_flight.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._none_in_flight.wait()
        return self._in_flight

    def _check(self, tenant: str) -> None:
        self._quotas.admit_commit(tenant)
        if self.is_crowded() and self.has_its_share(tenant):
            raise crowded()
        reasons = self._unready()
        if reasons:
            raise Refusal(
                ErrorCode.NOT_DURABLE,
                "the store does not hold what is promised: " + "; ".join(reasons),
            )

    def _end(
        self,
        began_at: float,
        identity: LogIdentity,
        admitted: Admitted,
        settle: Callable[[Outcome], None],
        outcome: Outcome,
    ) -> None:
        if isinstance(outcome, Refusal):
            word = "unknown" if outcome.code.may_have_applied else "rejected"
        elif outcome.repeated:
            word = "repeated"
        else:
            word = "committed" if outcome.changed else "unchanged"
        self._counts[word].inc()
        self._shedding.ended(time.monotonic() - began_at)
        if isinstance(outcome, Acknowledged):
            if outcome.changed:
                self._wakeups.committed(identity.log_id, outcome.version)
                self._quotas.add(identity.tenant, admitted.commit.size_bytes)
            self._commits.reach("before_answer")
        settle(outcome)
        self._in_flight -= 1
        self._in_flight_of[identity.tenant] -= 1
        if not self._in_flight_of[identity.tenant]:
            del self._in_flight_of[identity.tenant]
        if not self._in_flight:
            self._none_in_flight.set()

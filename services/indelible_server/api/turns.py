"""Whose request is begun next when several tenants ask at once.

A request that has just been authenticated waits for its turn. Those tenants come first that had
the fewest turns of late; the one that had the most waits until the event loop has little to do.
So what is begun passes through a loop that is nearly empty, and what one tenant sends too much
waits here. While one tenant alone asks, nobody waits. Knows nothing of what is asked; `rates`
bounds how much.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable

QUIET_SECONDS = 0.0005
PATIENCE_SECONDS = 0.005
REMEMBERED_SECONDS = 1.0


class Turns:
    """`now` is a monotonic clock in seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        self._recent: Counter[str] = Counter()  # turns of late: halved every now and then
        self._halved_at = self._round_at = self._begun_at = now()

    async def take(self, tenant: str) -> None:
        turn = self.ask(tenant)
        if turn is not None:
            await turn

    def ask(self, tenant: str) -> "asyncio.Future[None] | None":
        """Done when it is the tenant's turn; None if it is now."""
        if self._now() - self._halved_at > REMEMBERED_SECONDS:
            self._halve()
        if not self._waiting:
            recent = self._recent
            if len(recent) <= 1 and (not recent or tenant in recent):  # of no other tenant
                recent[tenant] += 1
                return None
            asyncio.get_running_loop().call_soon(self._begin_next)
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append(turn)
        return turn

    def _begin_next(self) -> None:
        """Once in every round of the event loop while anyone waits."""
        now = self._now()
        is_quiet = now - self._round_at < QUIET_SECONDS
        self._round_at = now
        tenant = min(self._waiting, key=self._recent.__getitem__)
        is_heaviest = self._recent[tenant] >= max(self._recent.values(), default=0)
        if is_quiet or not is_heaviest or now - self._begun_at > PATIENCE_SECONDS:
            self._begin(tenant)
            self._begun_at = now
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._begin_next)

    def _begin(self, tenant: str) -> None:
        turns = self._waiting[tenant]
        turn = turns.popleft()
        if not turns:
            del self._waiting[tenant]
        if not turn.done():  # else its client has left
            turn.set_result(None)
            self._recent[tenant] += 1

    def _halve(self) -> None:
        self._halved_at = self._now()
        self._recent = Counter({t: turns // 2 for t, turns in self._recent.items() if turns > 1})

"""Endpoints of every temper: what each was sent, how it answered, and whether that was in order.

Owns the tempers and the judgement of one endpoint; knows nothing of the load, nor where it runs.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from aiohttp import web

from tests.support.webhooks import Received, stalled

SLOW_SECONDS = 0.5
HEALTHY, SLOW, FLAPPING, DEAD = "healthy", "slow", "flapping", "dead"
# Those that get everything in the end; the rest get nothing, and must hold up nobody.
DELIVERED_TO = (HEALTHY, SLOW, FLAPPING)
TEMPERS = (HEALTHY, SLOW, FLAPPING, DEAD, "stalled", "redirecting", "failing", "gone", "busy")


@dataclass(slots=True, kw_only=True)
class Sink:
    """An endpoint: which log it follows, its temper, what it was sent and how it answered.

    A dead one answers until nobody listens there any more.
    """

    path: str
    temper: str
    log: int
    requests: list[Received] = field(default_factory=list)
    taken: list[bool] = field(default_factory=list)

    async def answer(self, received: Received) -> web.StreamResponse:
        if received.type != "log.updated":
            return web.json_response({})
        first = all(each.id != received.id for each in self.requests)
        self.requests.append(received)
        at = len(self.taken)
        self.taken.append(False)  # until the answer is on its way
        response = await self._answered(received, first)
        self.taken[at] = response.status == 200
        return response

    async def _answered(self, received: Received, first: bool) -> web.StreamResponse:
        if self.temper == "stalled":
            return await stalled(received)
        if self.temper == SLOW:
            await asyncio.sleep(SLOW_SECONDS)
        if self.temper == FLAPPING and first:
            return web.Response(status=500)
        if self.temper == "redirecting":
            return web.Response(status=302, headers={"Location": "/healthy"})
        if self.temper == "busy":
            return web.Response(status=429, headers={"Retry-After": "1"})
        status = {"failing": 500, "gone": 410}.get(self.temper, 200)
        return web.Response(status=status)

    @property
    def up_to(self) -> int:
        """The version up to which it took deliveries."""
        pairs = zip(self.requests, self.taken, strict=True)
        return max((r.event["data"]["toVersion"] for r, taken in pairs if taken), default=0)


def judge(sink: Sink) -> int:
    """How many deliveries came again though they had been taken.

    Each delivery begins where the one before ended, comes again only before the next one
    does, and is the same each time.
    """
    repeated, end = 0, 0
    last: Received | None = None
    was_taken = False
    seen: set[str] = set()
    for received, taken in zip(sink.requests, sink.taken, strict=True):
        data = received.event["data"]
        if last is not None and received.id == last.id:
            assert received.body == last.body, "altered between attempts"
            repeated += was_taken
        else:
            assert received.id not in seen, f"{sink.temper}: an old delivery came again"
            assert data["fromVersion"] == end, f"{sink.temper}: {end} then {data}"
            assert last is None or was_taken, f"{sink.temper}: went on past one that failed"
            end = data["toVersion"]
            was_taken = False
        seen.add(received.id)
        was_taken |= taken
        last = received
    if sink.temper == DEAD:
        assert not sink.requests, "nobody listens there"
    if sink.temper == "gone":
        assert len(sink.requests) <= 2, "once disabled, nothing more comes"
    return repeated


def sinks_of(tempers: Mapping[str, int], logs: int) -> list[Sink]:
    """So many of each temper, spread evenly over the logs."""
    each = [temper for temper, count in tempers.items() for _ in range(count)]
    return [
        Sink(path=f"/{number}", temper=temper, log=number % logs)
        for number, temper in enumerate(each)
    ]


def spread(total: int, kinds: Sequence[str]) -> dict[str, int]:
    """Half of them healthy, the rest of every other temper alike."""
    others = [kind for kind in kinds if kind != HEALTHY]
    each = total // 2 // len(others)
    return {HEALTHY: total - each * len(others)} | dict.fromkeys(others, each)

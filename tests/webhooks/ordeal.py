"""Many endpoints of every temper under load, and what each of them must have got in the end.

Endpoints share logs, so that one commit is told to many. Owns the load, the tempers and the
verdict; starts nothing and breaks nothing.
"""

import asyncio
import gc
import random
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from aiohttp import web

from tests.support.held_up import HeldUp, watching_host
from tests.support.polling import until
from tests.support.webhooks import Received, Receiver, WebhookApi, stalled

SLOW_SECONDS = 0.5
HEALTHY, SLOW, FLAPPING = "healthy", "slow", "flapping"
# Those that get everything in the end; the rest get nothing, and must hold up nobody.
DELIVERED_TO = (HEALTHY, SLOW, FLAPPING)
TEMPERS = (HEALTHY, SLOW, FLAPPING, "dead", "stalled", "redirecting", "failing", "gone", "busy")


@dataclass(slots=True, kw_only=True)
class Sink:
    """An endpoint: which log it follows, its temper, what it was sent and how it answered."""

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


@dataclass(slots=True, kw_only=True)
class Verdict:
    """`waits_ms` are those of healthy endpoints: from a version's acknowledgement to the first
    request that tells of it. `left_out` were measured while the host held up the machine."""

    deliveries: int = 0
    attempts: int = 0
    repeated_after_taken: int = 0
    waits_ms: list[float] = field(default_factory=list)
    left_out: int = 0

    def add(self, other: "Verdict") -> None:
        self.deliveries += other.deliveries
        self.attempts += other.attempts
        self.repeated_after_taken += other.repeated_after_taken
        self.waits_ms += other.waits_ms
        self.left_out += other.left_out

    @property
    def p99_ms(self) -> float:
        return sorted(self.waits_ms)[len(self.waits_ms) * 99 // 100]

    def __str__(self) -> str:
        waits = f"{len(self.waits_ms)} waits, {self.left_out} left out"
        if self.waits_ms:
            p50_ms = median(self.waits_ms)
            waits = f"p50 {p50_ms:.1f} ms, p99 {self.p99_ms:.1f} ms of {waits}"
        return (
            f"{self.deliveries} deliveries, {self.attempts} attempts, "
            f"{self.repeated_after_taken} repeated after they were taken, {waits}"
        )


class Ordeal:
    def __init__(self, api: WebhookApi, receiver: Receiver) -> None:
        self._api = api
        self._receiver = receiver
        self.sinks: list[Sink] = []
        self._logs: list[str] = []
        self._committed: defaultdict[int, dict[int, float]] = defaultdict(dict)
        self._held_up = HeldUp()

    async def prepare(self, tempers: Mapping[str, int], logs: int) -> None:
        """Makes logs and verified webhooks; tempers are spread evenly over the logs."""
        first = len(self._logs)
        for number in range(first, first + logs):
            self._logs.append(await self._api.make_log(f"log-{number}"))
        count = 0
        for temper, number in tempers.items():
            for _ in range(number):
                sink = Sink(path=f"/{len(self.sinks)}", temper=temper, log=first + count % logs)
                count += 1
                self.sinks.append(sink)
                self._receiver.behaviours[sink.path] = sink.answer
        made = [await self._subscribe(sink) for sink in self.sinks if sink.log >= first]
        for webhook_id in made:
            await self._api.until_state(webhook_id, "active", within_seconds=120.0)

    async def _subscribe(self, sink: Sink) -> str:
        url = self._receiver.url + sink.path
        made = await self._api.create(url, log=self._logs[sink.log])
        webhook_id: str = made["webhook_id"]
        return webhook_id

    async def load(self, commits: int, *, per_second: float) -> None:
        """Commits to all logs in turn, at random times: a clock would beat with the endpoints'
        own delays, and each slow answer come just with a commit."""
        draw = random.Random(1)
        gc.freeze()  # a collection of all that pytest holds would be a wait of ours
        async with watching_host() as self._held_up:
            due = time.monotonic()
            for number in range(commits):
                due += draw.expovariate(per_second)
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                await self._commit(number % len(self._logs))

    async def _commit(self, log: int) -> None:
        version = await self._api.commit(self._logs[log])
        self._committed[log][version] = time.monotonic()

    async def settle(self, within_seconds: float) -> None:
        """Until everybody who takes deliveries is up to date."""
        takers = [sink for sink in self.sinks if sink.temper in DELIVERED_TO]

        def behind() -> list[Sink]:
            return [s for s in takers if s.up_to < max(self._committed[s.log], default=0)]

        try:
            await until(lambda: not behind(), within_seconds=within_seconds)
        except TimeoutError:
            late = Counter(sink.temper for sink in behind())
            raise AssertionError(f"lost, or not in {within_seconds} s: {late}") from None

    def verdict(self) -> Verdict:
        """
        Raises:
            AssertionError: out of order, with a gap, altered, or to one who should have nothing.
        """
        repeated = 0
        for sink in self.sinks:
            repeated += judge(sink)
        waits = [w for sink in self.sinks if sink.temper == HEALTHY for w in self._waits(sink)]
        counted = [end - begin for begin, end in waits if not self._held_up.between(begin, end)]
        return Verdict(
            deliveries=sum(len({r.id for r in sink.requests}) for sink in self.sinks),
            attempts=sum(len(sink.requests) for sink in self.sinks),
            repeated_after_taken=repeated,
            waits_ms=[1_000 * max(0.0, wait) for wait in counted],
            left_out=len(waits) - len(counted),
        )

    def _waits(self, sink: Sink) -> list[tuple[float, float]]:
        """When each version was acknowledged, and told of."""
        waits = []
        versions = sorted(self._committed[sink.log].items())
        at = 0
        for received in sink.requests:
            while at < len(versions) and versions[at][0] <= received.event["data"]["toVersion"]:
                waits.append((versions[at][1], received.at))
                at += 1
        return waits


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
    if sink.temper == "gone":
        assert len(sink.requests) <= 2, "once disabled, nothing more comes"
    return repeated


def spread(total: int, kinds: Sequence[str]) -> dict[str, int]:
    """Half of them healthy, the rest of every other temper alike."""
    others = [kind for kind in kinds if kind != HEALTHY]
    each = total // 2 // len(others)
    return {HEALTHY: total - each * len(others)} | dict.fromkeys(others, each)

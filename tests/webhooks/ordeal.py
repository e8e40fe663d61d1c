"""Many endpoints of every temper under load, and what each of them must have got in the end.

Endpoints share logs, so that one commit is told to many. Owns the load and the verdict; starts
nothing and breaks nothing.
"""

import asyncio
import gc
import random
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from tests.support.held_up import HeldUp, watching_host
from tests.support.polling import until
from tests.support.webhooks import Receiver, WebhookApi
from tests.webhooks.elsewhere import Elsewhere
from tests.webhooks.sinks import DELIVERED_TO, HEALTHY, Sink, judge


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
    """The healthy sinks are `here`, all others `away`."""

    def __init__(
        self, api: WebhookApi, here: Receiver, away: Elsewhere, sinks: Sequence[Sink]
    ) -> None:
        self._api = api
        self._here = here
        self._away = away
        self._sinks = sinks
        self._logs: list[str] = []
        self._committed: defaultdict[int, dict[int, float]] = defaultdict(dict)
        self._held_up = HeldUp()

    async def prepare(self) -> None:
        """Makes the logs and the verified webhooks."""
        for number in range(1 + max(sink.log for sink in self._sinks)):
            self._logs.append(await self._api.make_log(f"log-{number}"))
        made = [await self._subscribe(sink) for sink in self._sinks]
        for webhook_id in made:
            await self._api.until_state(webhook_id, "active", within_seconds=120.0)
        await self._away.end_the_dead()

    async def _subscribe(self, sink: Sink) -> str:
        if sink.temper == HEALTHY:
            self._here.behaviours[sink.path] = sink.answer
            url = self._here.url + sink.path
        else:
            url = self._away.urls[sink.path]
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
        takers = [sink for sink in self._sinks if sink.temper in DELIVERED_TO]
        behind = takers

        async def all_told() -> bool:
            nonlocal behind
            away = await self._away.up_to()
            behind = [
                sink
                for sink in takers
                if away.get(sink.path, sink.up_to) < max(self._committed[sink.log], default=0)
            ]
            return not behind

        try:
            await until(all_told, within_seconds=within_seconds)
        except TimeoutError:
            late = Counter(sink.temper for sink in behind)
            raise AssertionError(f"lost, or not in {within_seconds} s: {late}") from None

    async def verdict(self) -> Verdict:
        """
        Raises:
            AssertionError: out of order, with a gap, altered, or to one who should have nothing.
        """
        healthy = [sink for sink in self._sinks if sink.temper == HEALTHY]
        sinks = [*healthy, *await self._away.sinks()]
        waits = [wait for sink in healthy for wait in self._waits(sink)]
        counted = [end - begin for begin, end in waits if not self._held_up.between(begin, end)]
        return Verdict(
            deliveries=sum(len({r.id for r in sink.requests}) for sink in sinks),
            attempts=sum(len(sink.requests) for sink in sinks),
            repeated_after_taken=sum(judge(sink) for sink in sinks),
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

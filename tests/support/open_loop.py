"""Load that comes at its own rate, whatever becomes of it: as from many who do not know each other.

Runs in a worker process (`tests.benchmarks.workers`). A request that finds every connection busy
waits here, and its time counts from when it was due. Judges nothing.
"""

import asyncio
import time
from array import array
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.benchmarks.wire import Connection, connect

TICK_SECONDS = 0.002
PATIENCE_SECONDS = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenLoad:
    """`requests` are sent in turn, `per_second` of them, over at most so many connections."""

    port: int
    requests: Sequence[bytes]
    per_second: float
    seconds: float
    connections: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """When each 201 was due and when it came, by the monotonic clock; the versions told, by
    request."""

    due: Sequence[float]
    ended: Sequence[float]
    statuses: Mapping[int, int]
    without_retry_after: int
    versions: Mapping[int, Sequence[int]]


class _Line(Connection):
    def __init__(self, load: "_Loading") -> None:
        super().__init__()
        self._load = load
        self.due = 0.0
        self.number = 0

    def answered(self, data: bytes) -> None:
        self._load.answered(self, data)


class _Loading:
    def __init__(self, plan: OpenLoad) -> None:
        self.plan = plan
        self.left = int(plan.per_second * plan.seconds)
        self.all_answered = asyncio.Event()
        self.free: list[_Line] = []
        self.waiting: deque[tuple[float, int]] = deque()
        self.due = array("d")
        self.ended = array("d")
        self.statuses: Counter[int] = Counter()
        self.without_retry_after = 0
        self.versions: dict[int, array[int]] = {n: array("q") for n in range(len(plan.requests))}

    async def run(self) -> None:
        plan = self.plan
        for _ in range(plan.connections):
            line = _Line(self)
            await connect(line, plan.port)
            self.free.append(line)
        began = time.monotonic()
        total, sent = self.left, 0
        while sent < total:
            now = time.monotonic()
            while sent < total and (due := began + sent / plan.per_second) <= now:
                self.waiting.append((due, sent % len(plan.requests)))
                sent += 1
            self._send()
            await asyncio.sleep(TICK_SECONDS)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self.all_answered.wait()
        for line in self.free:
            line.close()

    def _send(self) -> None:
        while self.waiting and self.free:
            line = self.free.pop()
            line.due, line.number = self.waiting.popleft()
            line.send(self.plan.requests[line.number])

    def answered(self, line: _Line, data: bytes) -> None:
        status = int(data[9:12])
        self.statuses[status] += 1
        if status == 201:
            self.due.append(line.due)
            self.ended.append(time.monotonic())
            at = data.index(b"\r\nIndelible-Version: ") + 21
            self.versions[line.number].append(int(data[at : data.index(b"\r", at)]))
        elif b"\r\nretry-after: " not in data.lower():
            self.without_retry_after += 1
        self.left -= 1
        if not self.left:
            self.all_answered.set()
        self.free.append(line)
        self._send()


async def run(plan: OpenLoad) -> Outcomes:
    loading = _Loading(plan)
    await loading.run()
    return Outcomes(
        due=loading.due,
        ended=loading.ended,
        statuses=dict(loading.statuses),
        without_retry_after=loading.without_retry_after,
        versions=loading.versions,
    )

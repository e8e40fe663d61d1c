"""Load in a closed loop: each connection sends its next request when it has its answer.

Runs in a worker process. Requests are bytes that were made before; they are bounded in time
and number. Says what was answered and what it cost; judges nothing.
"""

import asyncio
import gc
import random
import time
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle

from tests.benchmarks.figures import percentile
from tests.benchmarks.wire import OURS, Connection, Dialect, connect

PATIENCE_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """`lanes` are the requests of one connection each, sent in turn; over again if `repeated`.

    `pids` names processes whose processor time is taken at the first request and the last
    answer. At most `max_requests` are sent, by all connections together. Each connection
    pauses for `pause_seconds` on average, by half more or less, before its next request.
    Connections greet with `greetings`, one each, if there are any.
    """

    port: int
    lanes: Sequence[Sequence[bytes]]
    seconds: float
    pids: Mapping[str, int]
    repeated: bool = False
    max_requests: int = 1_000_000
    pause_seconds: float = 0.0
    dialect: Dialect = OURS
    greetings: Sequence[bytes] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """`versions` are those told to each lane, in its order; `first` is one whole answer.

    `cpu_us` is processor time per request of each process; `load` is the load's own.
    """

    seconds: float
    count: int
    statuses: Mapping[int, int]
    versions: Sequence[Sequence[int]] = field(repr=False)
    first: bytes = field(repr=False)
    p50_ms: float
    p99_ms: float
    cpu_us: Mapping[str, float]

    @property
    def per_second(self) -> float:
        return self.count / self.seconds


def cpu_seconds(pid: int) -> float:
    """Processor time of a process, all its threads, exact to the nanosecond.

    Source: clock_getcpuclockid(3); the number is Linux's: ~pid ‖ 010 in binary.
    """
    return time.clock_gettime((~pid << 3) | 2)


class _Course:
    """What the lanes of one run share: the bounds, and the last moment."""

    def __init__(self, load: Load) -> None:
        self.ends = 0.0
        self.left = load.max_requests
        self.running = len(load.lanes)
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def lane_ended(self, error: Exception | None = None) -> None:
        self.running -= 1
        if self.done.done():
            return
        if error is not None:
            self.done.set_exception(error)
        elif not self.running:
            self.done.set_result(None)


class _Lane(Connection):
    def __init__(self, requests: Sequence[bytes], course: _Course, load: Load) -> None:
        super().__init__(load.dialect)
        self._status_of, self._numbered = load.dialect.status_of, load.dialect.numbered
        self._asked = 0
        self._requests = cycle(requests) if load.repeated else iter(requests)
        self._course = course
        self._pause_seconds = load.pause_seconds
        self._sent = 0.0
        self._ended = False
        self.took = array("d")
        self.statuses: Counter[bytes] = Counter()
        self.versions = array("q")
        self.first = b""

    def start(self) -> None:
        self._next(time.perf_counter())

    def _next(self, now: float) -> None:
        request = next(self._requests, None)
        if request is None or now >= self._course.ends or self._course.left <= 0:
            self._end()
            return
        self._course.left -= 1
        if self._numbered is not None:
            request = self._numbered(request, self._asked)
            self._asked += 1
        self._sent = now
        self.send(request)

    def answered(self, data: bytes) -> None:
        now = time.perf_counter()
        self.took.append(now - self._sent)
        self.statuses[self._status_of(data)] += 1
        at = data.find(b"\r\nIndelible-Version: ")
        if at >= 0:
            self.versions.append(int(data[at + 21 : data.index(b"\r", at + 21)]))
        self.first = self.first or data
        if self._pause_seconds:
            pause = self._pause_seconds * random.uniform(0.5, 1.5)
            asyncio.get_running_loop().call_later(pause, self.start)
        else:
            self._next(now)

    def _end(self, error: Exception | None = None) -> None:
        if not self._ended:
            self._ended = True
            self._course.lane_ended(error)

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self._end(ConnectionError("the server hung up during the load"))


async def run(load: Load) -> Answers:
    """
    Raises:
        ConnectionError, TimeoutError: the server did not answer everything.
    """
    course = _Course(load)
    lanes: list[_Lane] = []
    greetings = load.greetings or [b""] * len(load.lanes)
    for requests, greeting in zip(load.lanes, greetings, strict=True):
        lane = _Lane(requests, course, load)
        await connect(lane, load.port)
        if greeting:
            lane.send(greeting)
        lanes.append(lane)
    gc.collect()
    gc.disable()
    pids = {**load.pids, "load": -1}
    try:
        before = {name: _cpu(pid) for name, pid in pids.items()}
        started = time.perf_counter()
        course.ends = started + load.seconds
        for lane in lanes:
            lane.start()
        await asyncio.wait_for(course.done, load.seconds + PATIENCE_SECONDS)
        seconds = time.perf_counter() - started
        after = {name: _cpu(pid) for name, pid in pids.items()}
    finally:
        gc.enable()
        for lane in lanes:
            lane.close()
    return _answers(lanes, seconds, {name: after[name] - before[name] for name in pids})


def _cpu(pid: int) -> float:
    return time.process_time() if pid < 0 else cpu_seconds(pid)


def _answers(lanes: Sequence[_Lane], seconds: float, cpu: Mapping[str, float]) -> Answers:
    took = sorted(t for lane in lanes for t in lane.took)
    statuses: Counter[int] = Counter()
    for lane in lanes:
        statuses.update({int(status): count for status, count in lane.statuses.items()})
    return Answers(
        seconds=seconds,
        count=len(took),
        statuses=dict(statuses),
        versions=[lane.versions for lane in lanes],
        first=next((lane.first for lane in lanes if lane.first), b""),
        p50_ms=percentile(took, 0.5) * 1e3,
        p99_ms=percentile(took, 0.99) * 1e3,
        cpu_us={name: spent / max(1, len(took)) * 1e6 for name, spent in cpu.items()},
    )

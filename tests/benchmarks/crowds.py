"""Load of a crowd: thousands of waiters on one log, and the writer that wakes them all.

Each of the two runs in a worker process of its own, so that the writer's acknowledgement is
not seen late because its process is busy reading thousands of answers. Clocks are comparable:
`time.perf_counter` is the system's monotonic clock.
"""

import asyncio
import gc
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tests.benchmarks.closed_loop import cpu_seconds
from tests.benchmarks.figures import check, percentile
from tests.benchmarks.wire import Asking, Connection, HttpAnswer, asking, read_answer

PATIENCE_SECONDS = 60.0
LOOK_SECONDS = 0.02
_CONNECTING_AT_ONCE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """`waits` holds the request of one wait for each wake, the same for all of the crowd."""

    port: int
    size: int
    waits: Sequence[bytes]
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Woken:
    """Of one wake: when the last byte was there, and the answer that everybody had.

    `cpu_us` is the server's processor time per waiter: its request, its wait and its answer.
    """

    last_at: float
    answer: HttpAnswer
    cpu_us: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CrowdWrites:
    """`writes` wake a crowd of `size`, each when `look` tells that all of it waits.

    `gauge` is the name of the number in the answer to `look`; without one, the body is it.
    """

    port: int
    size: int
    writes: Sequence[bytes]
    look: bytes
    gauge: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    sent_at: float
    acknowledged_at: float
    answer: HttpAnswer


class _Waiting(Connection):
    def __init__(self, gathering: "_Gathering") -> None:
        super().__init__()
        self._gathering = gathering
        self.data = b""
        self.answers = 0

    def answered(self, data: bytes) -> None:
        self.answers += 1
        self.data = data
        self._gathering.one_answered()

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self._gathering.broken()


class _Gathering:
    def __init__(self) -> None:
        self.begin(0)

    def begin(self, size: int) -> None:
        self._left = size
        self.done: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def one_answered(self) -> None:
        self._left -= 1
        if not self._left:
            self.done.set_result(time.perf_counter())

    def broken(self) -> None:
        if self._left and not self.done.done():
            self.done.set_exception(ConnectionError("a waiter was hung up on"))


async def connect(port: int, size: int, gathering: _Gathering) -> list[_Waiting]:
    loop = asyncio.get_running_loop()
    crowd: list[_Waiting] = []
    while len(crowd) < size:
        some = min(_CONNECTING_AT_ONCE, size - len(crowd))
        made = await asyncio.gather(
            *(
                loop.create_connection(lambda: _Waiting(gathering), "127.0.0.1", port)
                for _ in range(some)
            )
        )
        crowd += [waiting for _, waiting in made]
    return crowd


async def wait_in_crowd(plan: Crowd) -> list[Woken]:
    """
    Raises:
        CheckFailed: somebody had no answer, two, or another one than the rest.
    """
    gathering = _Gathering()
    crowd = await connect(plan.port, plan.size, gathering)
    woken = []
    gc.collect()
    gc.disable()
    try:
        for number, wait in enumerate(plan.waits, start=1):
            gathering.begin(plan.size)
            before = cpu_seconds(plan.pid)
            for waiting in crowd:
                waiting.send(wait)
            last_at = await asyncio.wait_for(gathering.done, PATIENCE_SECONDS)
            spent = cpu_seconds(plan.pid) - before
            answers = {read_answer(waiting.data) for waiting in crowd}
            right = all(waiting.answers == number for waiting in crowd)
            check(right, "not exactly one answer for each waiter")
            check(len(answers) == 1, f"{len(answers)} different answers to the same wait")
            woken.append(
                Woken(last_at=last_at, answer=answers.pop(), cpu_us=spent / plan.size * 1e6)
            )
    finally:
        gc.enable()
        gathering.begin(0)
        for waiting in crowd:
            waiting.close()
    return woken


async def write_to_crowd(plan: CrowdWrites) -> list[Write]:
    writer = await asking(plan.port)
    looking = await asking(plan.port)
    written = []
    for write in plan.writes:
        await _all_wait(plan, looking)
        sent_at = time.perf_counter()
        answer = await asyncio.wait_for(writer.ask(write), PATIENCE_SECONDS)
        written.append(Write(sent_at=sent_at, acknowledged_at=writer.answered_at, answer=answer))
    writer.close()
    looking.close()
    return written


async def _all_wait(plan: CrowdWrites, looking: Asking) -> None:
    """Two looks in a row: the first may count somebody who is still reading the head."""
    deadline = time.perf_counter() + PATIENCE_SECONDS
    seen = 0
    while seen < 2:
        check(time.perf_counter() < deadline, f"not all of {plan.size} wait: {seen} looks")
        await asyncio.sleep(LOOK_SECONDS)
        answer = await looking.ask(plan.look)
        seen = seen + 1 if _counted(answer.body, plan.gauge) == plan.size else 0


def _counted(body: bytes, gauge: str) -> int:
    if not gauge:
        return int(body)
    for line in body.decode().splitlines():
        if line.startswith(f"{gauge} "):
            return int(float(line.split()[1]))
    return -1


async def write_alone(port: int, writes: Sequence[bytes]) -> float:
    """Median time of an acknowledgement with no waiters, in seconds."""
    writer = await asking(port)
    took = []
    for write in writes:
        sent_at = time.perf_counter()
        answer = await writer.ask(write)
        check(answer.status in (200, 201), f"a write was answered with {answer.status}")
        took.append(writer.answered_at - sent_at)
    writer.close()
    return percentile(sorted(took), 0.5)

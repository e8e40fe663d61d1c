"""Load of a crowd: thousands of waiters on one log, and the writer that wakes them all.

Each of the two runs in a worker process of its own, so that the writer's acknowledgement is
not seen late because its process is busy reading thousands of answers. Clocks are comparable:
`time.perf_counter` is the system's monotonic clock.
"""

import asyncio
import gc
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack

from tests.benchmarks.closed_loop import cpu_seconds
from tests.benchmarks.figures import CheckFailed, check, percentile
from tests.benchmarks.wire import (
    Asking,
    Connection,
    HttpAnswer,
    asking,
    connect,
    read_answer,
    request,
)

PATIENCE_SECONDS = 90.0
_ASKING_AT_ONCE = 64
_LOOK_SECONDS = 0.005
_WARM = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """`waits` holds for each wake what the crowd asks: one request for all, or several, which its
    members send in turns."""

    port: int
    size: int
    waits: Sequence[Sequence[bytes]]
    look: "Look"
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Woken:
    """Of one wake: when the last byte was there, and the answer to each of its requests.

    `cpu_us` is the server's processor time per waiter: its request, its wait and its answer.
    """

    last_at: float
    answers: Sequence[HttpAnswer]
    cpu_us: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """A request whose answer counts who waits: under the name `gauge`, or alone without one."""

    request: bytes
    gauge: str

    def count(self, body: bytes) -> int:
        if not self.gauge:
            return int(body)
        for line in body.decode().splitlines():
            if line.startswith(f"{self.gauge} "):
                return int(float(line.split()[1]))
        return -1


AT_METRICS = Look(request=request("GET", "/metrics"), gauge="indelible_waiters")
AT_PARKED = Look(request=request("GET", "/parked"), gauge="")


@dataclass(frozen=True, slots=True, kw_only=True)
class CrowdWrites:
    """`writes` wake a crowd of `size`, those of each wake at once when `look` tells that all of it
    waits."""

    port: int
    size: int
    writes: Sequence[Sequence[bytes]]
    look: Look


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """A crowd of which each sends `wait` and has no answer; memory is that of process `pid`."""

    port: int
    size: int
    wait: bytes
    look: Look
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Bytes per waiter: of the server, and of the kernel for both ends of the socket."""

    user_bytes: float
    kernel_bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """Of one wake: `acknowledged_at` is when the last of its writes was."""

    sent_at: float
    acknowledged_at: float
    answers: Sequence[HttpAnswer]


class _Waiting(Connection):
    """Waits again, as a follower does, when its wait ends without a version."""

    def __init__(self, gathering: "_Gathering") -> None:
        super().__init__()
        self._gathering = gathering
        self._request = b""
        self.data = b""
        self.answers = 0

    def wait(self, request: bytes) -> None:
        self._request = request
        self.send(request)

    def answered(self, data: bytes) -> None:
        if data[9:12] == b"204":
            self.send(self._request)
            return
        self.answers += 1
        self.data = data
        if data[9:12] == b"200":
            self._gathering.one_answered()
        else:
            self._gathering.broken(f"a waiter was answered {_problem(data)}")

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self._gathering.broken(f"a waiter with {self.answers} answers was hung up on")


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

    def broken(self, reason: str) -> None:
        if self._left and not self.done.done():
            self.done.set_exception(CheckFailed(f"{reason}, while {self._left} others waited"))


def _problem(data: bytes) -> str:
    """The status, and the server's own words if it has any."""
    answer = read_answer(data)
    told = msgpack.unpackb(answer.body).get("message", "") if answer.body else ""
    return f"{answer.status} {told}".strip()


async def wait_in_crowd(plan: Crowd) -> list[Woken]:
    """
    Raises:
        CheckFailed: somebody had no answer, two, or another one than those who asked the same.
    """
    gathering = _Gathering()
    crowd = [_Waiting(gathering) for _ in range(plan.size)]
    looking = await asking(plan.port)
    woken = []
    gc.collect()
    gc.disable()
    try:
        for number, waits in enumerate(plan.waits, start=1):
            gathering.begin(plan.size)
            before = cpu_seconds(plan.pid)
            await _unless_broken(gathering, _ask_in_parts(plan, crowd, waits, looking))
            last_at = await asyncio.wait_for(gathering.done, PATIENCE_SECONDS)
            spent = cpu_seconds(plan.pid) - before
            answers: list[HttpAnswer] = []
            for first in range(len(waits)):
                same = {read_answer(waiting.data) for waiting in crowd[first :: len(waits)]}
                check(len(same) == 1, f"{len(same)} different answers to the same wait")
                answers += same
            right = all(waiting.answers == number for waiting in crowd)
            check(right, "not exactly one answer for each waiter")
            woken.append(Woken(last_at=last_at, answers=answers, cpu_us=spent / plan.size * 1e6))
    finally:
        gc.enable()
        gathering.begin(0)
        for connection in (looking, *crowd):
            connection.close()
    return woken


async def write_to_crowd(plan: CrowdWrites) -> list[Write]:
    writers = [await asking(plan.port) for _ in range(max(map(len, plan.writes)))]
    looking = await asking(plan.port)
    written = []
    for writes in plan.writes:
        await all_wait(plan.look, plan.size, looking)
        sent_at = time.perf_counter()
        asked = [writer.ask(write) for writer, write in zip(writers, writes, strict=True)]
        answers = await asyncio.wait_for(asyncio.gather(*asked), PATIENCE_SECONDS)
        acknowledged_at = max(writer.answered_at for writer in writers)
        written.append(Write(sent_at=sent_at, acknowledged_at=acknowledged_at, answers=answers))
    for connection in (*writers, looking):
        connection.close()
    return written


async def all_wait(look: Look, size: int, looking: Asking, *, looks: int = 2) -> None:
    """Two looks in a row: the first may count somebody who is still reading the head."""
    deadline = time.perf_counter() + PATIENCE_SECONDS
    counted, seen = -1, 0
    while seen < looks:
        check(time.perf_counter() < deadline, f"{counted} of {size} wait")
        await asyncio.sleep(_LOOK_SECONDS)
        answer = await asyncio.wait_for(looking.ask(look.request), PATIENCE_SECONDS)
        counted = look.count(answer.body)
        seen = seen + 1 if counted == size else 0


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


async def hold(plan: Holding) -> Held:
    """The memory of `size` waiters, over that of the _WARM that came before them.

    Raises:
        CheckFailed: not all of them wait, or somebody was answered.
    """
    looking = await asking(plan.port)
    gathering = _Gathering()
    crowd: list[_Waiting] = []
    taken: list[tuple[int, int]] = []
    try:
        for size in (_WARM, plan.size):
            gathering.begin(len(crowd) + size)
            more = [_Waiting(gathering) for _ in range(size)]
            asked = _ask_in_parts(plan, more, [plan.wait], looking, already=len(crowd))
            crowd += more
            await _unless_broken(gathering, asked)
            taken.append((anonymous_bytes(plan.pid), _slab_bytes()))
        check(not any(one.answers or one.lost for one in crowd), "a waiter was answered early")
    finally:
        gathering.begin(0)
        for waiting in crowd:
            waiting.close()
        looking.close()
    (user, kernel), (user_after, kernel_after) = taken
    return Held(
        user_bytes=(user_after - user) / plan.size,
        kernel_bytes=(kernel_after - kernel) / plan.size,
    )


async def _ask_in_parts(
    plan: Crowd | Holding,
    crowd: Sequence[_Waiting],
    waits: Sequence[bytes],
    looking: Asking,
    *,
    already: int = 0,
) -> None:
    """Connects and sends everybody's wait, a part at a time, each when the one before it waits.

    A flood of thousands at once meets the server's bounds on what it does at once, which is
    another question than how it wakes and what it keeps; and connections that ask nothing for
    a while are closed.
    """
    for start in range(0, len(crowd), _ASKING_AT_ONCE):
        part = crowd[start : start + _ASKING_AT_ONCE]
        await asyncio.gather(
            *(connect(waiting, plan.port) for waiting in part if waiting.transport is None)
        )
        for number, waiting in enumerate(part, start=start):
            waiting.wait(waits[number % len(waits)])
        await all_wait(plan.look, already + start + len(part), looking, looks=1)


async def _unless_broken(gathering: _Gathering, waiting: Coroutine[Any, Any, None]) -> None:
    """Awaits `waiting`, or the crowd's end if that comes first: all answered, or wrongly."""
    task = asyncio.ensure_future(waiting)
    both: set[asyncio.Future[Any]] = {task, gathering.done}
    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    if not task.done():
        task.cancel()
        await gathering.done
    else:
        await task


def anonymous_bytes(pid: int) -> int:
    """Memory of the process alone, without mapped files. Source: proc(5), RssAnon."""
    return _kib(Path(f"/proc/{pid}/status"), "RssAnon:") * 1_024


def _slab_bytes() -> int:
    """What the kernel's allocator holds for everybody: comparable on a quiet machine alone."""
    return _kib(Path("/proc/meminfo"), "Slab:") * 1_024


def _kib(path: Path, name: str) -> int:
    lines = path.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))

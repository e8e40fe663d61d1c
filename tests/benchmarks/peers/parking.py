"""Load of waiters on another system: they wait, one write wakes all of them, again and again.

Runs in a worker process. Of each wake it says when the last waiter had its message, and of the
crowd what memory it takes. Checks that everybody gets one message for each write, and that it
holds what was written.
"""

import asyncio
import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.benchmarks.closed_loop import cpu_seconds
from tests.benchmarks.crowds import anonymous_bytes
from tests.benchmarks.figures import check
from tests.benchmarks.wire import Asking, Connection, Dialect, HttpAnswer, connect

PATIENCE_SECONDS = 30.0
_ASKING_AT_ONCE = 64
_LOOKS, _LOOK_SECONDS = 3, 0.01
_WARM = 100  # waiters whose memory does not count: what comes with the first is not each one's


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A write, and bytes that every message about it holds."""

    request: bytes
    marker: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Parking:
    """`waits` holds what each waiter sends first.

    A server that confirms a wait does so with `confirmations` messages; where there are none, the
    answer to `look`, asked after all the waits and more than once, shows that they have been read.
    Who has had a message sends what `again` makes of it. `pause_seconds` pass between writes.
    """

    port: int
    pid: int
    dialect: Dialect
    waits: Sequence[bytes]
    confirmations: int
    again: Callable[[bytes], bytes] | None
    look: bytes
    pause_seconds: float
    writing: Dialect
    writer_greeting: bytes
    writes: Sequence[Written]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parked:
    """`last_ms` of each wake: from the write's first byte sent to the last message received.

    `user_bytes` are the server's for each waiter (0 for a crowd too small to tell), `cpu_us`
    its processor time for each wake and the wait after it.
    """

    last_ms: Sequence[float]
    user_bytes: float
    cpu_us: float


class _Waiter(Connection):
    def __init__(self, plan: Parking) -> None:
        super().__init__(plan.dialect)
        self._again = plan.again
        self._messages: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    def answered(self, data: bytes) -> None:
        self._messages.put_nowait((time.perf_counter(), data))

    def wait_again(self, message: bytes) -> None:
        if self._again is not None:
            self.send(self._again(message))

    async def message(self) -> tuple[float, bytes]:
        return await asyncio.wait_for(self._messages.get(), PATIENCE_SECONDS)

    @property
    def surplus(self) -> int:
        return self._messages.qsize()


class Foreign(Asking):
    """Asks in another dialect; its answers are a status and all the bytes."""

    def read(self, data: bytes) -> HttpAnswer:
        return HttpAnswer(int(self.dialect.status_of(data)), -1, data)


async def park(plan: Parking) -> Parked:
    """
    Raises:
        CheckFailed: a waiter had no message, or another one, or one too many.
    """
    writer = Foreign(plan.writing)
    await connect(writer, plan.port)
    if plan.writer_greeting:
        writer.send(plan.writer_greeting)
    waiters: list[_Waiter] = []
    gc.collect()
    gc.disable()
    try:
        warm = min(_WARM, len(plan.waits) // 2)
        await _gather(plan, waiters, plan.waits[:warm])
        before = anonymous_bytes(plan.pid)
        await _gather(plan, waiters, plan.waits[warm:])
        await _settle(plan, writer)
        grown = anonymous_bytes(plan.pid) - before
        cpu = cpu_seconds(plan.pid)
        took = []
        for number, written in enumerate(plan.writes):
            took.append(await _wake(plan, writer, waiters, written, number))
            await asyncio.sleep(plan.pause_seconds)
            await _settle(plan, writer)
        cpu = cpu_seconds(plan.pid) - cpu
        check(not any(one.surplus or one.lost for one in waiters), "a waiter had one too many")
    finally:
        gc.enable()
        for connection in (writer, *waiters):
            connection.close()
    return Parked(
        last_ms=took,
        user_bytes=grown / max(1, len(plan.waits) - warm) if warm else 0.0,
        cpu_us=cpu / len(plan.writes) * 1e6,
    )


async def _gather(plan: Parking, waiters: list[_Waiter], waits: Sequence[bytes]) -> None:
    for start in range(0, len(waits), _ASKING_AT_ONCE):
        part = waits[start : start + _ASKING_AT_ONCE]
        more = [_Waiter(plan) for _ in part]
        await asyncio.gather(*(connect(waiter, plan.port) for waiter in more))
        waiters += more
        for waiter, wait in zip(more, part, strict=True):
            waiter.send(wait)
        for _ in range(plan.confirmations):
            for waiter in more:
                await waiter.message()


async def _settle(plan: Parking, writer: Foreign) -> None:
    if not plan.look:
        return
    for _ in range(_LOOKS):
        await asyncio.sleep(_LOOK_SECONDS)
        await asyncio.wait_for(writer.ask(plan.look), PATIENCE_SECONDS)


async def _wake(
    plan: Parking, writer: Foreign, waiters: Sequence[_Waiter], written: Written, number: int
) -> float:
    """Milliseconds from the write's first byte to the last waiter's message."""
    request = written.request
    if plan.writing.numbered is not None:
        request = plan.writing.numbered(request, number)
    sent = time.perf_counter()
    answering = asyncio.ensure_future(writer.ask(request))
    messages = [await waiter.message() for waiter in waiters]
    answer = await asyncio.wait_for(answering, PATIENCE_SECONDS)
    check(answer.status // 100 == 2, f"a write was answered with {answer.body[:200]!r}")
    for _, data in messages:
        check(written.marker in data, f"write {number} woke a waiter with {data[:900]!r}")
    for waiter, (_, data) in zip(waiters, messages, strict=True):
        waiter.wait_again(data)
    return 1e3 * (max(at for at, _ in messages) - sent)

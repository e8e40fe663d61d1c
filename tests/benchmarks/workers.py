"""Processes that work for the benchmarks: one is asked to run functions, one is a server.

Each ends when its standard input does, so none outlives the process that started it, however
that one went. Knows nothing of what they run.
"""

import asyncio
import inspect
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, Self, TypeVar

from tests.benchmarks.figures import CheckFailed

T = TypeVar("T")

_MAX_REPLY_BYTES = 1 << 30
_STOP_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class _Failed:
    """`told`: a check's own words; else `text` is a traceback of something unforeseen."""

    text: str
    told: bool


class Worker:
    """A process that runs one function after another: `await worker.run(function, …)`.

    A function is one of a module, or a coroutine function; what it takes and gives is pickled.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    @classmethod
    async def start(cls) -> Self:
        return cls(await _spawn("tests.benchmarks.workers"))

    async def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """
        Raises:
            CheckFailed: raised by the function.
            RuntimeError: anything else that it raised, or the process ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        asked = pickle.dumps((function, arguments))
        try:
            self._process.stdin.write(len(asked).to_bytes(8, "big") + asked)
            await self._process.stdin.drain()
            size = int.from_bytes(await self._process.stdout.readexactly(8), "big")
            assert size < _MAX_REPLY_BYTES
            answer = pickle.loads(await self._process.stdout.readexactly(size))
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            raise RuntimeError(f"the worker ended in {function.__qualname__}") from error
        if isinstance(answer, _Failed):
            raise CheckFailed(answer.text) if answer.told else RuntimeError(answer.text)
        return answer

    async def stop(self) -> None:
        await _end(self._process)


class ServerProcess:
    """A floor's server: a module that prints its port and serves until its input ends."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self._process = process
        self.pid = process.pid
        self.port = port

    @classmethod
    async def start(cls, module: str, *arguments: str) -> Self:
        process = await _spawn(module, *arguments)
        assert process.stdout is not None
        line = await process.stdout.readline()
        if not line.strip().isdigit():
            await _end(process)
            raise RuntimeError(f"{module} did not start")
        return cls(process, int(line))

    async def stop(self) -> None:
        await _end(self._process)


async def _spawn(module: str, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 20,
    )


async def _end(process: asyncio.subprocess.Process) -> None:
    """Its input ends, and so does it; killed if it stays."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        await asyncio.wait_for(process.wait(), _STOP_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()


def ignore_interrupts() -> None:
    """^C is for the process that started this one; it ends this one in turn."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


async def until_input_ends() -> None:
    """Returns when the process that started this one closes its end, or is gone."""
    loop = asyncio.get_running_loop()
    ended = loop.create_future()

    def read() -> None:
        if not os.read(sys.stdin.fileno(), 1) and not ended.done():
            ended.set_result(None)

    loop.add_reader(sys.stdin.fileno(), read)
    try:
        await ended
    finally:
        loop.remove_reader(sys.stdin.fileno())


def _serve(asked: BinaryIO, answers: BinaryIO) -> None:
    while len(head := asked.read(8)) == 8:
        function, arguments = pickle.loads(asked.read(int.from_bytes(head, "big")))
        answer = pickle.dumps(_outcome(function, arguments))
        answers.write(len(answer).to_bytes(8, "big") + answer)
        answers.flush()


def _outcome(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    try:
        outcome = function(*arguments)
        return asyncio.run(outcome) if inspect.iscoroutine(outcome) else outcome
    except CheckFailed as failed:
        return _Failed(str(failed), told=True)
    except Exception:
        return _Failed(traceback.format_exc(), told=False)


if __name__ == "__main__":
    ignore_interrupts()
    from tests.benchmarks import workers  # the classes that the other side knows

    workers._serve(sys.stdin.buffer, sys.stdout.buffer)

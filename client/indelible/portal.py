"""One event loop in a background thread, for all blocking clients of the process.

Owns the crossing from a thread that blocks to the loop that does not: interruption, refusal
where blocking would be a mistake, and a new loop in a forked child. Knows nothing of logs.
"""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import CancelledError
from functools import partial
from typing import Any, Final, Generic, ParamSpec, TypeVar

from indelible.errors import RequestError

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

CLOSE_SECONDS = 5.0
END: Final = object()


class _Portal:
    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="indelible", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def start(self, call: "_Call[R]") -> None:
        self._loop.call_soon_threadsafe(call.begin)

    def abandon(self, call: "_Call[R]") -> None:
        """Nobody waits for it any more. Comes to the loop after its `begin`, if that comes."""
        self._loop.call_soon_threadsafe(call.end)

    def is_here(self) -> bool:
        return threading.current_thread() is self._thread


class _Call(Generic[R]):
    """A coroutine function that runs in the loop, and the thread that waits for it.

    All that they share is a lock: with the condition, the waiters and the callbacks of a Future an
    empty call takes a third more. The coroutine is made in the loop, so that no interruption of the
    caller can come between its making and its running.
    """

    __slots__ = ("_function", "_running", "_task")

    def __init__(self, function: Callable[[], Coroutine[Any, Any, R]]) -> None:
        self._function = function
        self._task: asyncio.Task[R] | None = None
        self._running = threading.Lock()
        self._running.acquire()

    def begin(self) -> None:
        """In the loop."""
        self._task = asyncio.get_running_loop().create_task(self._function())
        self._task.add_done_callback(self._ended)

    def end(self) -> None:
        """In the loop: cancels it."""
        if self._task is not None:
            self._task.cancel()

    def _ended(self, task: "asyncio.Task[R]") -> None:
        if not task.cancelled():
            task.exception()  # perhaps nobody takes it; asyncio would complain otherwise
        self._running.release()

    def wait(self, seconds: float = -1) -> None:
        """Until it has ended, or so long; -1 is for ever."""
        self._running.acquire(timeout=seconds)

    def result(self) -> R:
        """Of a call that has ended."""
        assert self._task is not None
        if self._task.cancelled():
            raise CancelledError
        return self._task.result()


_portal: _Portal | None = None
_making = threading.Lock()


def _open_portal() -> _Portal:
    global _portal
    with _making:
        if _portal is None:
            _portal = _Portal()
        return _portal


def _forget_portal() -> None:
    """In a forked child: its parent's thread is not there."""
    global _portal, _making
    _portal, _making = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_portal)


def call(function: Callable[P, Coroutine[Any, Any, R]], *args: P.args, **kwargs: P.kwargs) -> R:
    """What `function` returns, run in the background; an interruption cancels it.

    Raises:
        RequestError: this thread runs an event loop, which would stand still.
    """
    _refuse_in_loop()
    portal, call = _open_portal(), _Call(partial(function, *args, **kwargs))
    try:
        portal.start(call)
        call.wait()
    except BaseException:
        portal.abandon(call)
        raise
    return call.result()


def finish(function: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Runs a clean-up, from wherever the garbage collector is; waits for it if it may."""
    portal = _portal
    if portal is None:
        return  # nothing was ever begun, or it was by the parent of this process
    call = _Call(function)
    portal.start(call)
    if not portal.is_here():
        call.wait(CLOSE_SECONDS)


def _refuse_in_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RequestError(
        "indelible.Client blocks, and this thread runs an event loop, which would stand "
        "still: use indelible.AsyncClient and await its methods"
    )


class Stream(Generic[T]):
    """Steps through an asynchronous iterator, from another thread."""

    def __init__(self, iterator: AsyncIterator[T]) -> None:
        self._iterator = iterator
        self._busy = asyncio.Lock()  # a step that was interrupted ends before `close` begins

    async def step(self) -> T | object:
        """The next item; END behind the last."""
        async with self._busy:
            return await anext(self._iterator, END)

    async def close(self) -> None:
        async with self._busy:
            aclose = getattr(self._iterator, "aclose", None)
            if aclose is not None:
                await aclose()

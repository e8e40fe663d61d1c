"""One event loop in a background thread, for all blocking clients of the process.

Owns the crossing from a thread that blocks to the loop that does not: interruption, refusal
where blocking would be a mistake, and a new loop in a forked child. Knows nothing of logs.
"""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import Future, wait
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

    def start(self, future: "Future[R]", function: Callable[[], Coroutine[Any, Any, R]]) -> None:
        """Lets `future` have what `function` returns; cancelling the one cancels the other.

        The coroutine is made in the loop, so that no interruption of the caller can come
        between its making and its running.
        """
        self._loop.call_soon_threadsafe(self._run_task, future, function)

    def _run_task(
        self, future: "Future[R]", function: Callable[[], Coroutine[Any, Any, R]]
    ) -> None:
        task = self._loop.create_task(function())

        def cancel(future: "Future[R]") -> None:
            if future.cancelled():  # not when it is done: waking the loop again is not free
                self._loop.call_soon_threadsafe(task.cancel)

        task.add_done_callback(partial(_settle, future))
        future.add_done_callback(cancel)  # at once, if it was cancelled before this began

    def is_here(self) -> bool:
        return threading.current_thread() is self._thread


def _settle(future: "Future[R]", task: "asyncio.Task[R]") -> None:
    if task.cancelled():
        future.cancel()
    if not future.set_running_or_notify_cancel():
        if not task.cancelled():
            task.exception()  # nobody is there to take it; asyncio would complain otherwise
    elif (error := task.exception()) is not None:
        future.set_exception(error)
    else:
        future.set_result(task.result())


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
    future: Future[R] = Future()
    try:
        _open_portal().start(future, partial(function, *args, **kwargs))
        return future.result()
    finally:
        future.cancel()  # of no effect unless something interrupted the wait


def finish(function: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Runs a clean-up, from wherever the garbage collector is; waits for it if it may."""
    portal = _portal
    if portal is None:
        return  # nothing was ever begun, or it was by the parent of this process
    future: Future[None] = Future()
    portal.start(future, function)
    if not portal.is_here():
        wait([future], CLOSE_SECONDS)


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

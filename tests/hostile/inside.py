"""An API process that runs within the test's, so that its event loop can be watched.

The loop turns without pause while it is watched; the processor time between two turns is how
long the loop was held, whatever else the machine does.
"""

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager

from indelible_server.api.app import run
from indelible_server.settings import Settings

READY_SECONDS = 30.0


class Watched:
    """`url` of the process; `held_seconds` is the longest hold since `watch` began."""

    def __init__(self, loop: asyncio.AbstractEventLoop, stop: asyncio.Event, url: str) -> None:
        self.url = url
        self.held_seconds = 0.0
        self._loop = loop
        self._stop = stop
        self._before = 0.0
        self._watching = False

    def hold(self, seconds: float) -> None:
        """Keeps the loop busy, as a body that costs much would."""

        def spin() -> None:
            until = time.thread_time() + seconds
            while time.thread_time() < until:
                pass

        self._loop.call_soon_threadsafe(spin)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)

    @contextmanager
    def watch(self) -> Iterator[None]:
        self.held_seconds = 0.0
        self._watching = True
        self._loop.call_soon_threadsafe(self._begin)
        try:
            yield
        finally:
            self._watching = False

    def _begin(self) -> None:
        self._before = time.thread_time()
        self._turn()

    def _turn(self) -> None:
        now = time.thread_time()
        self.held_seconds = max(self.held_seconds, now - self._before)
        self._before = now
        if self._watching:
            self._loop.call_soon(self._turn)


@contextmanager
def watched_service(redis_url: str, secret: bytes) -> Iterator[Watched]:
    up: Future[Watched] = Future()

    async def serve() -> None:
        stop, ready = asyncio.Event(), asyncio.Event()
        urls: list[str] = []
        settings = Settings(redis=redis_url, listen="127.0.0.1:0")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(run(settings, secret, stop, listening=urls.append, ready=ready))
            await ready.wait()
            up.set_result(Watched(asyncio.get_running_loop(), stop, urls[0]))

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="watched service")
    thread.start()
    watched = up.result(READY_SECONDS)
    try:
        yield watched
    finally:
        watched.stop()
        thread.join()

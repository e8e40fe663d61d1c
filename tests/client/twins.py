"""The blocking twin with the asynchronous twin's face, so that one test can run on both.

Every call runs in a thread of its own, as a blocking program would make it.
"""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from indelible import Client, Log, View, Webhooks

VIEWS = (
    *("at", "deliveries", "diff", "follow", "follow_group", "follow_many"),
    *("history", "list", "logs", "versions"),
)
END = object()


class Threads:
    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=128, thread_name_prefix="blocking-twin")

    async def run(self, function: Callable[..., Any], *args: Any, **settings: Any) -> Any:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, lambda: function(*args, **settings))

    def close(self) -> None:
        self._pool.shutdown()


class Threaded:
    """A Client, Log, View or Webhooks whose methods are awaited, its items by `async for`."""

    def __init__(
        self, target: Client | Log | View[Any] | Webhooks | Iterator[Any], threads: Threads
    ) -> None:
        self.target = target
        self._threads = threads

    def __getattr__(self, name: str) -> Any:
        if name == "version" and isinstance(self.target, Log):
            return self._threads.run(lambda: getattr(self.target, name))
        attribute = getattr(self.target, name)
        if isinstance(attribute, Webhooks):
            return Threaded(attribute, self._threads)
        if not callable(attribute):
            return attribute
        if name in VIEWS:
            return lambda *args, **settings: Threaded(
                attribute(*map(_untwinned, args), **settings), self._threads
            )

        async def method(*args: Any, **settings: Any) -> Any:
            answer = await self._threads.run(attribute, *args, **settings)
            return Threaded(answer, self._threads) if isinstance(answer, Log) else answer

        return method

    async def __aenter__(self) -> "Threaded":
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._threads.run(self.target.close)  # type: ignore[union-attr]

    def __aiter__(self) -> "ThreadedIterator":
        assert not isinstance(self.target, Client | Webhooks)
        return ThreadedIterator(iter(self.target), self._threads)

    async def __anext__(self) -> Any:
        """Of a `follow`, which is its own iterator."""
        return await anext(aiter(self))

    async def aclose(self) -> None:
        await self._threads.run(self.target.close)  # type: ignore[union-attr]


def _untwinned(argument: Any) -> Any:
    if isinstance(argument, dict):
        return {getattr(key, "target", key): value for key, value in argument.items()}
    return argument


class ThreadedIterator:
    def __init__(self, items: Iterator[Any], threads: Threads) -> None:
        self._items = items
        self._threads = threads

    def __aiter__(self) -> "ThreadedIterator":
        return self

    async def __anext__(self) -> Any:
        item = await self._threads.run(next, self._items, END)
        if item is END:
            raise StopAsyncIteration
        return item

    async def aclose(self) -> None:
        await self._threads.run(self._items.close)  # type: ignore[attr-defined]

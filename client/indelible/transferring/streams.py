"""Streams of things that take time: some of it spent ahead of the reader, in a known order.

Knows nothing of what the things are. Whoever reads one closes it (`aclosing`), and with it
all that is under way.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from contextlib import aclosing
from typing import TypeVar

A = TypeVar("A")
T = TypeVar("T")

_AHEAD = 4


async def in_order(
    work: Callable[[A], Coroutine[None, None, T]], items: AsyncGenerator[A, None]
) -> AsyncGenerator[T, None]:
    """The results of `work` on `items`, in their order; up to four of it are under way."""
    tasks: deque[asyncio.Task[T]] = deque()
    try:
        async with aclosing(items):
            async for item in items:
                tasks.append(asyncio.create_task(work(item)))
                if len(tasks) == _AHEAD:
                    yield await tasks.popleft()
        while tasks:
            yield await tasks.popleft()
    finally:
        await _ended(*tasks)


async def each(items: Iterable[T]) -> AsyncGenerator[T, None]:
    """Items that are there, as a stream."""
    for item in items:
        yield item


async def ahead(items: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
    """`items`, of which up to four are made before they are asked for."""
    queue: asyncio.Queue[T | None] = asyncio.Queue(_AHEAD - 1)

    async def fill() -> None:
        async with aclosing(items):
            async for item in items:
                await queue.put(item)

    filling = asyncio.create_task(fill())
    filling.add_done_callback(lambda _: _wake(queue))
    try:
        while not (filling.done() and queue.empty()):
            item = await queue.get()
            if item is not None:
                yield item
        await filling
    finally:
        await _ended(filling)


def _wake(queue: "asyncio.Queue[T | None]") -> None:
    """The reader waits for an item: there will be none, or there is one before this."""
    if queue.empty():
        queue.put_nowait(None)


async def chunks(items: AsyncGenerator[T, None], size: int) -> AsyncGenerator[list[T], None]:
    """Lists of `size` items, the last one shorter."""
    chunk: list[T] = []
    async with aclosing(items):
        async for item in items:
            chunk.append(item)
            if len(chunk) == size:
                yield chunk
                chunk = []
    if chunk:
        yield chunk


async def _ended(*tasks: "asyncio.Task[T]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

"""A bounded cache of things that never change, made once however many ask `get` at once.

Owns memory and the making of entries; knows nothing of what they are. What is put in must be
a function of its key: there is no way to invalidate.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class WeighedCache(Generic[K, V]):
    """Least recently used entries leave when the sum of weights passes `budget`."""

    def __init__(self, budget: int, weigh: Callable[[V], int]) -> None:
        self._budget = budget
        self._weigh = weigh
        self._entries: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._weight = 0
        self._making: dict[K, asyncio.Task[V]] = {}

    async def get(self, key: K, make: Callable[[], Awaitable[V]]) -> V:
        """The entry, made by `make` if need be; concurrent callers share one making.

        A caller that is cancelled does not cancel the making for the others.
        """
        entry = self.known(key)
        if entry is not None:
            return entry
        task = self._making.get(key)
        if task is None:
            task = asyncio.ensure_future(self._make(key, make))
            self._making[key] = task
            task.add_done_callback(lambda done: self._made(key, done))
        return await asyncio.shield(task)

    def known(self, key: K) -> V | None:
        """The entry, if it is there."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry[0]

    def put(self, key: K, value: V) -> V:
        """Keeps what was made elsewhere, unless the entry is there already."""
        if key in self._entries:
            return value
        weight = self._weigh(value)
        if weight <= self._budget:
            self._entries[key] = (value, weight)
            self._weight += weight
            while self._weight > self._budget:
                _, (_, gone) = self._entries.popitem(last=False)
                self._weight -= gone
        return value

    async def _make(self, key: K, make: Callable[[], Awaitable[V]]) -> V:
        return self.put(key, await make())

    def _made(self, key: K, task: "asyncio.Task[V]") -> None:
        self._making.pop(key, None)
        if not task.cancelled():
            task.exception()  # every caller may have left; asyncio would complain otherwise

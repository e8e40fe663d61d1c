"""One read for all who ask at the same time.

A read begins after everybody whom it answers has asked: what they get is as fresh as if each had
read alone. A thousand who wake at one version cost the store two reads, not a thousand. Knows
nothing of what is read, nor of who asks.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_AT_ONCE = 500


class SharedReads(Generic[K, V]):
    """One read is under way at a time; whoever asks meanwhile shares the next.

    `read` gives a value for each key, in their order.
    """

    def __init__(self, read: Callable[[Sequence[K]], Awaitable[list[V]]]) -> None:
        self._read = read
        self._asked: dict[K, asyncio.Future[V]] = {}
        self._reading: asyncio.Task[None] | None = None

    async def read(self, keys: Sequence[K]) -> list[V]:
        """
        Raises:
            Refusal: what the read itself raises.
        """
        if len(keys) != 1:  # who asks for many does not hold up the others
            return await self._read(keys)
        [key] = keys
        answer = self._asked.get(key)
        if answer is None:
            answer = self._asked[key] = asyncio.get_running_loop().create_future()
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._read_all())
        return [await asyncio.shield(answer)]  # one who leaves does not take it from the others

    async def _read_all(self) -> None:
        try:
            while self._asked:
                some = dict(list(self._asked.items())[:_AT_ONCE])
                for key in some:
                    del self._asked[key]
                await self._answer(some)
        finally:
            self._reading = None

    async def _answer(self, asked: dict[K, "asyncio.Future[V]"]) -> None:
        try:
            values = await self._read(list(asked))
        except Exception as error:
            for answer in asked.values():
                answer.set_exception(error)
                answer.exception()  # everybody may have left; asyncio would complain otherwise
            return
        for answer, value in zip(asked.values(), values, strict=True):
            answer.set_result(value)

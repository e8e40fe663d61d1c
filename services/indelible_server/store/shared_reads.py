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
    """One read of a part is under way at a time; whoever asks meanwhile shares the next.

    `read` gives a value for each key, in their order. Keys of different parts wait for each other
    never: where a store's nodes fail each by itself, a part is what one of them serves.
    """

    def __init__(
        self,
        read: Callable[[Sequence[K]], Awaitable[list[V]]],
        part_of: Callable[[K], int] = lambda key: 0,
    ) -> None:
        self._read = read
        self._part_of = part_of
        self._asked: dict[int, dict[K, asyncio.Future[V]]] = {}
        self._reading: dict[int, asyncio.Task[None]] = {}

    async def read(self, keys: Sequence[K]) -> list[V]:
        """
        Raises:
            Refusal: what the read itself raises.
        """
        if len(keys) != 1:  # who asks for many does not hold up the others
            return await self._read(keys)
        [key] = keys
        part = self._part_of(key)
        asked = self._asked.setdefault(part, {})
        answer = asked.get(key)
        if answer is None:
            answer = asked[key] = asyncio.get_running_loop().create_future()
        if part not in self._reading:
            self._reading[part] = asyncio.ensure_future(self._read_all(part))
        return [await asyncio.shield(answer)]  # one who leaves does not take it from the others

    async def _read_all(self, part: int) -> None:
        asked = self._asked[part]
        try:
            while asked:
                some = dict(list(asked.items())[:_AT_ONCE])
                for key in some:
                    del asked[key]
                await self._answer(some)
        finally:
            del self._reading[part]

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

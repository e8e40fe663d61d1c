"""Heads, read once for all who ask at the same time.

A read begins after everybody whom it answers has asked: what they get is as fresh as if each had
read alone. A thousand who wake at one version cost the store two reads, not a thousand. Knows
nothing of who asks.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from indelible_protocol.ids import LogId

from indelible_server.store.reading import Head

ReadHeads = Callable[[Sequence[LogId]], Awaitable[list[Head | None]]]

_AT_ONCE = 500


class Heads:
    """One read is under way at a time; whoever asks meanwhile shares the next."""

    def __init__(self, read: ReadHeads) -> None:
        self._read = read
        self._asked: dict[LogId, asyncio.Future[Head | None]] = {}
        self._reading: asyncio.Task[None] | None = None

    async def heads(self, log_ids: Sequence[LogId]) -> list[Head | None]:
        """None for those that are deleted or absent.

        Raises:
            Refusal: the store cannot be asked.
        """
        if len(log_ids) > 1:  # who asks for many does not hold up the others
            return await self._read(log_ids)
        return [await self._head(log_id) for log_id in log_ids]

    async def _head(self, log_id: LogId) -> Head | None:
        answer = self._asked.get(log_id)
        if answer is None:
            answer = self._asked[log_id] = asyncio.get_running_loop().create_future()
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._read_all())
        return await asyncio.shield(answer)  # one who leaves does not take it from the others

    async def _read_all(self) -> None:
        try:
            while self._asked:
                some = dict(list(self._asked.items())[:_AT_ONCE])
                for log_id in some:
                    del self._asked[log_id]
                await self._answer(some)
        finally:
            self._reading = None

    async def _answer(self, asked: dict[LogId, "asyncio.Future[Head | None]"]) -> None:
        try:
            heads = await self._read(list(asked))
        except Exception as error:
            for answer in asked.values():
                answer.set_exception(error)
                answer.exception()  # everybody may have left; asyncio would complain otherwise
            return
        for answer, head in zip(asked.values(), heads, strict=True):
            answer.set_result(head)

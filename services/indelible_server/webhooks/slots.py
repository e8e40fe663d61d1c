"""How many attempts run at once. Endpoints that failed or were slow of late have half of the
slots at most, however many they are: the others never wait for them.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager


class Slots:
    def __init__(self, count: int) -> None:
        self._all = asyncio.Semaphore(count)
        self._suspects = asyncio.Semaphore(max(1, count // 2))

    @asynccontextmanager
    async def taken(self, *, is_suspect: bool) -> AsyncIterator[None]:
        async with AsyncExitStack() as held:
            if is_suspect:
                await held.enter_async_context(self._suspects)
            await held.enter_async_context(self._all)
            yield

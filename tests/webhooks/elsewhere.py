"""Endpoints in a process of their own: what they cost is not the service's, nor its judge's.

Real ones are other machines. Here they share processors with what is measured, so theirs is the
lower priority. Knows nothing of the load.
"""

import asyncio
import multiprocessing
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from multiprocessing.connection import Connection
from typing import Any

from tests.support.webhooks import receiver
from tests.webhooks.sinks import DEAD, Sink

NICENESS = 10
_STOP_SECONDS = 10.0
_SPAWNING = multiprocessing.get_context("spawn")


class Elsewhere:
    """The process, from outside. `urls` by path."""

    def __init__(self, connection: Connection, urls: dict[str, str]) -> None:
        self._connection = connection
        self.urls = urls

    async def end_the_dead(self) -> None:
        """From now on nobody listens where they were."""
        await self._ask("end the dead")

    async def up_to(self) -> dict[str, int]:
        """By path, the version up to which each took deliveries."""
        found: dict[str, int] = await self._ask("up to")
        return found

    async def sinks(self) -> list[Sink]:
        """As they are now, with all that they were sent."""
        found: list[Sink] = await self._ask("sinks")
        return found

    async def _ask(self, what: str) -> Any:
        self._connection.send(what)
        return await asyncio.to_thread(self._connection.recv)


@asynccontextmanager
async def elsewhere(sinks: Sequence[Sink]) -> AsyncIterator[Elsewhere]:
    ours, theirs = _SPAWNING.Pipe()
    process = _SPAWNING.Process(target=_run, args=(theirs, sinks), daemon=True)
    process.start()
    theirs.close()
    try:
        yield Elsewhere(ours, await asyncio.to_thread(ours.recv))
    finally:
        ours.close()
        await asyncio.to_thread(process.join, _STOP_SECONDS)
        process.kill()


def _run(connection: Connection, sinks: Sequence[Sink]) -> None:
    os.nice(NICENESS)
    asyncio.run(_serve(connection, sinks))


async def _serve(connection: Connection, sinks: Sequence[Sink]) -> None:
    """Until the other side closes."""
    async with receiver() as living, AsyncExitStack() as mortal:
        dying = await mortal.enter_async_context(receiver())
        urls = {}
        for sink in sinks:
            at = dying if sink.temper == DEAD else living
            at.behaviours[sink.path] = sink.answer
            urls[sink.path] = at.url + sink.path
        connection.send(urls)
        while asked := await asyncio.to_thread(_received, connection):
            match asked:
                case "end the dead":
                    await mortal.aclose()
                    connection.send(None)
                case "up to":
                    connection.send({sink.path: sink.up_to for sink in sinks})
                case "sinks":
                    connection.send(sinks)


def _received(connection: Connection) -> str:
    try:
        asked: str = connection.recv()
    except EOFError:
        return ""
    return asked

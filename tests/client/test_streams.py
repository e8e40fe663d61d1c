"""Whole diffs in one answer: the same as their pages, also when the answer is cut off."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from indelible import AsyncClient

from tests.client.conftest import OpenClient, profile_of
from tests.support.service import Service

VALUES = 2_500
CUT_AFTER_BYTES = 600_000


async def listed(items: Any) -> list[Any]:
    return [item async for item in items]


async def fill(client: AsyncClient) -> None:
    log = await client.log("config", create=True)
    for at in range(0, VALUES, 500):
        await log.set_many({f"key {n}": "v" * 60 for n in range(at, at + 500)})
    await log.set_many({f"key {n}": "w" for n in range(0, 500, 5)})


async def test_a_stream_gives_what_the_pages_give(client: AsyncClient) -> None:
    await fill(client)
    log = await client.log("config")
    assert await listed(log.at(6, streamed=True)) == await listed(log.at(6))
    for low, high in ((0, 5), (5, 6), (6, 0), (3, 3), (2, None)):
        streamed = await listed(log.diff(low, high, streamed=True))
        assert streamed == await listed(log.diff(low, high))


async def test_a_stream_that_is_left_early_harms_nothing(client: AsyncClient) -> None:
    await fill(client)
    log = await client.log("config")
    async for entry in log.at(5, streamed=True):
        assert entry.key == "key 0"
        break
    assert await log.get("key 1") == "v" * 60


async def test_a_stream_that_is_cut_off_is_gone_on_with(
    service: Service, open_client: OpenClient
) -> None:
    key = os.urandom(32)
    client = open_client(profile_of(service, master_key=key))
    await fill(client)
    expected = await listed((await client.log("config")).at(5))
    async with cutting(service.url) as (url, cuts):
        log = await open_client(profile_of(service, master_key=key, url=url)).log("config")
        assert await listed(log.at(5, streamed=True)) == expected
        assert cuts


@asynccontextmanager
async def cutting(url: str) -> AsyncIterator[tuple[str, list[int]]]:
    """A way to the service on which every connection ends after so many bytes."""
    port = urlsplit(url).port
    cuts: list[int] = []
    tasks: set[asyncio.Task[None]] = set()

    async def pass_on(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, most: int
    ) -> None:
        passed = 0
        try:
            while passed < most and (data := await reader.read(1 << 14)):
                passed += len(data)
                writer.write(data)
                await writer.drain()
            if passed >= most:
                cuts.append(passed)
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        for task in (pass_on(reader, back, 1 << 40), pass_on(there, writer, CUT_AFTER_BYTES)):
            tasks.add(asyncio.create_task(task))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", cuts
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

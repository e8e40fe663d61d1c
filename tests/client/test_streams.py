"""Whole diffs in one answer: the same as their pages, also when the answer is cut off."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from indelible import AsyncClient, ErrorCode, UnavailableError
from indelible_protocol.ids import to_base64url

from tests.client.conftest import OpenClient, profile_of
from tests.server.test_damage import cut_body, rewrite
from tests.support.deployment import StartDeployment
from tests.support.service import Service

LARGE_COMMITS = 24
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


async def test_a_stream_that_meets_damage_says_so_at_once(
    client: AsyncClient, service: Service
) -> None:
    """After what could be read; it is no error to retry."""
    await fill(client)
    log = await client.log("config")
    await rewrite(service, "/" + to_base64url(bytes.fromhex(log.log_id)), 5, cut_body)
    found, error = await read(log.at(5, streamed=True))
    assert len(found) >= 500
    assert error.code is ErrorCode.INTERNAL_ERROR
    assert not error.retryable


async def test_a_stream_whose_store_goes_away_ends_with_an_error_to_retry(
    deploy: StartDeployment, open_client: OpenClient
) -> None:
    deployment = await deploy(processes=1)
    (service,) = deployment.services
    known = replace(service, customer_id=deployment.tenant_id, apikey=deployment.apikey)
    client = open_client(profile_of(known), timeout_seconds=3.0)
    log = await client.log("config", create=True)
    for at in range(LARGE_COMMITS):  # more than fits between the two ends
        await log.set_many({f"key {at} {n}": "v" * 60_000 for n in range(15)})
    reading = aiter(log.at(LARGE_COMMITS, streamed=True))
    first = await anext(reading)
    await deployment.engine.kill()
    rest, error = await read(reading)
    assert error.retryable
    await deployment.engine.start()
    again = await listed(log.at(LARGE_COMMITS, streamed=True))
    assert 1 + len(rest) < len(again) == LARGE_COMMITS * 15
    assert [first, *rest] == again[: 1 + len(rest)]


async def read(entries: Any) -> tuple[list[Any], UnavailableError]:
    """What could be read, and what ended it."""
    found = []
    try:
        async for entry in entries:
            found.append(entry)
    except UnavailableError as error:
        return found, error
    raise AssertionError(f"ended as if {len(found)} were all")


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

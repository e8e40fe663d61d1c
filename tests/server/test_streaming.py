"""Answers with `limit=0` that fail: one error before anything was sent, else a cut that is seen."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec
import pytest
from indelible_server.store.nets import FOLDED_VERSIONS

from tests.server.test_damage import Fields, rewrite
from tests.server.test_service import make_log, session, upsert
from tests.support.service import Service

WRITERS = 8
LAST = b"0\r\n\r\n"


def lost_effects(fields: Fields) -> None:
    """No decoder takes them, and every one says so."""
    fields[b"e"] = b"\0\0\0\5"


def lost_body(fields: Fields) -> None:
    """Who looks for a key there meets an end where none can be."""
    fields[b"b"] = b""


@asynccontextmanager
async def a_log(service: Service, versions: int) -> AsyncIterator[tuple[Any, str]]:
    async with session(service) as http:
        log = await make_log(http)

        async def write(numbers: range) -> None:
            for number in numbers:
                assert "version" in await upsert(http, log, f"key {number}", "v" * 200)

        await write(range(20))
        await asyncio.gather(*(write(range(20 + n, versions, WRITERS)) for n in range(WRITERS)))
        yield http, log


async def raw_answer(service: Service, path: str) -> bytes:
    """All that comes until the service ends the connection."""
    parts = urlsplit(service.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    head = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {service.apikey}\r\n\r\n"
    writer.write(head.encode())
    received = b""
    try:
        async with asyncio.timeout(10):
            while more := await reader.read(1 << 16):
                received += more
    except ConnectionResetError:
        pass
    finally:
        writer.close()
    return received


async def test_what_fails_before_anything_was_sent_is_an_answer(service: Service) -> None:
    async with a_log(service, 40) as (http, log):
        await rewrite(service, log, 30, lost_effects)
        async with http.get(f"{log}/diff?limit=0") as answer:
            assert answer.status == 500
            assert (await answer.json(content_type=None))["code"] == "INTERNAL_ERROR"
            assert answer.headers["Content-Length"]


@pytest.mark.parametrize("damage", [lost_effects, lost_body])
async def test_what_fails_later_cuts_the_answer_and_nothing_follows(
    damage: Callable[[Fields], None], service: Service
) -> None:
    """The first page goes out before it is known how the rest is found."""
    versions = FOLDED_VERSIONS + 60
    async with a_log(service, versions) as (http, log):
        await rewrite(service, log, versions - 10, damage)
        received = await raw_answer(service, f"{log}/diff?limit=0")
        assert received.startswith(b"HTTP/1.1 200 ")
        assert received.count(b"HTTP/1.1") == 1
        assert not received.endswith(LAST)

        path, keys = f"{log}/diff?limit=0", []
        while pages := await pages_until_cut(http, path):
            keys += [change["key"] for page in pages for change in page["changes"]]
            path = f"{log}/diff?limit=0&cursor={pages[-1]['cursor']}"
        assert len(set(keys)) == len(keys) >= 8


async def pages_until_cut(http: aiohttp.ClientSession, path: str) -> list[dict[str, Any]]:
    """The whole pages of an answer that is cut, which is an error of any client; none of one that
    is an error itself."""
    received = b""
    async with http.get(path) as answer:
        if answer.status != 200:
            assert (await answer.json(content_type=None))["code"] == "INTERNAL_ERROR"
            return []
        try:
            async for piece in answer.content.iter_any():
                received += piece
        except (aiohttp.ClientPayloadError, aiohttp.ClientConnectionError):
            return [msgspec.json.decode(line) for line in received.split(b"\n")[:-1]]
    raise AssertionError("the answer ended as if it were whole")

"""Stored bytes that do not decode: no answer blames who asked, and others are told as always."""

import base64
from collections.abc import Callable
from typing import Any, cast

import aiohttp
import pytest
from indelible_protocol.ids import LogId, to_base64url
from indelible_server.store import keys
from redis.asyncio import Redis

from tests.server.test_service import make_log, session, upsert
from tests.support.service import Service, store_of

Fields = dict[bytes, bytes]
Asked = tuple[str, str, Any]


def cut_effects(fields: Fields) -> None:
    fields[b"e"] = fields[b"e"][:-1]


def stray_effects(fields: Fields) -> None:
    fields[b"e"] += b"\0"


def no_command(fields: Fields) -> None:
    fields[b"b"] = b"\x7f" + fields[b"b"][1:]


def cut_body(fields: Fields) -> None:
    fields[b"b"] = fields[b"b"][:-1]


def cut_header(fields: Fields) -> None:
    fields[b"h"] = fields[b"h"][:-1]


def asked_of(log: str, service: Service) -> list[Asked]:
    """Every way to read its versions: method, path, body."""
    authinfo = {"customer_id": service.customer_id, "apikey": service.apikey}
    log_id = base64.urlsafe_b64decode(log.rpartition("/")[2] + "=")
    watched = {"log_id": base64.b64encode(log_id).decode(), "version": 1}
    return [
        *(
            ("GET", log + rest, None)
            for rest in (
                "/diff", "/diff?from=1", "/diff?from=3&to=1", "/diff?order=key", "/diff?limit=0",
                "/entries/aw", "/entries/aw?at=1", "/entries/aw?at=2", "/entries/aw/history",
                "/versions", "/commits",
            )
        ),
        ("POST", f"{log}/entries:batchGet", {"keys": ["aw==", "bw=="]}),
        ("POST", "/v2/wait", {"logs": [watched], "wait": 0, "diffs": True}),
        ("POST", "/v1/log/diff", {"authinfo": authinfo, "logName": "log"}),
        ("POST", f"{log}/forget", {"before": 2}),
    ]  # fmt: skip


@pytest.mark.parametrize("damage", [cut_effects, stray_effects, no_command, cut_body, cut_header])
async def test_who_asked_is_not_to_blame(
    damage: Callable[[Fields], None], service: Service
) -> None:
    async with session(service) as http:
        log, other = await make_log(http), await make_log(http, "other")
        await upsert(http, log, "k", "a")
        await upsert(http, log, "k", "b")
        await upsert(http, log, "o", "c")
        await upsert(http, other, "k", "a")
        await rewrite(service, log, 2, damage)
        told = [await answered(http, asked) for asked in asked_of(log, service)]
        assert {status for status, _ in told} <= {200, 500}, told
        assert {code for status, code in told if status == 500} == {"INTERNAL_ERROR"}
        for asked in asked_of(other, service)[:1]:
            assert await answered(http, asked) == (200, None)


async def answered(http: aiohttp.ClientSession, asked: Asked) -> tuple[int, str | None]:
    method, path, body = asked
    async with http.request(method, path, json=body) as answer:
        told = await answer.json(content_type=None) if answer.status != 200 else {}
        return answer.status, told.get("code")


async def rewrite(
    service: Service, log: str, version: int, damage: Callable[[Fields], None]
) -> None:
    """The log's versions again, one of them damaged."""
    url, _ = await store_of(service)
    log_id = LogId(base64.urlsafe_b64decode(log.rpartition("/")[2] + "="))
    assert to_base64url(log_id) == log.rpartition("/")[2]
    stream = keys.of_log(log_id).commits
    async with Redis.from_url(url, protocol=2) as store:
        rows = cast("list[tuple[bytes, Fields]]", await store.xrange(stream))
        await store.delete(stream)
        for stream_id, fields in rows:
            if stream_id == b"%d-0" % version:
                damage(fields)
            pairs = [part for pair in fields.items() for part in pair]
            await store.execute_command("XADD", stream, stream_id, *pairs)

"""Names, keys and values that would break out of a Redis command or a key, if they could."""

import base64
import json
import re

import pytest
from indelible_protocol.ids import to_base64url
from indelible_server.store.connection import connect
from indelible_server.store.tenants import TenantError, Tenants
from redis.asyncio import Redis

from tests.hostile.wire import RawAnswer, exchange, request
from tests.support.service import Service, store_of

HOSTILE = [
    "{}",
    "}",
    "{",
    "{tenants}",
    "{t:x}:keys",
    "a:b",
    "a{b}c",
    "}:meta{",
    "\r\n",
    "\n",
    "\r\nFLUSHALL\r\n",
    "*1\r\n$8\r\nFLUSHALL\r\n",
    "$-1\r\n",
    "+OK\r\n",
    "-ERR no\r\n",
    "\0",
    "a\0b",
    "*",
    "?",
    "[a-z]",
    "a*b?c[d]",
    "\\",
    "'",
    '"',
    "KEYS *",
    "return redis.call('FLUSHALL')",
    "]]",
    "--",
    "${x}",
    "%s%n",
    "__proto__",
    "\u202e",
    "\ufeff",
    "\U0001f600",
    "ü" * 100,
    " ",
    "\t",
    "0",
    "-1",
    "nil",
    "false",
]
KEY_SHAPES = re.compile(
    rb"\{[0-9a-f]{64}\}:(meta|commits|index|chains|chainorder|answers0|answers1|control"
    rb"|snapshots|chunks|blocks|materialized|kept|segments|parts|unlisted)|\{archive\}:deleted"
    rb"|\{n:[0-9a-f]{16}:[A-Za-z0-9_-]{1,64}:[0-9a-f]{64}\}"
    rb"|\{l:[0-9a-f]{16}:[A-Za-z0-9_-]{1,64}\}:(logs|group:[0-9a-f]{64}(:version)?)"
    rb"|\{t:[0-9a-f]{16}\}(:keys|:databases|:webhooks)?|\{tenants\}|\{k:[0-9a-f]{16}\}"
    rb"|\{webhooks\}(:changes)?|\{w:[0-9a-f]{16}:wh_[0-9a-f]{16}\}:(meta|claim|positions"
    rb"|pending|due|replays|finished|dead)"
)


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


async def ask(service: Service, method: str, path: str, body: object = None) -> RawAnswer:
    headers = [f"Authorization: Bearer {service.apikey}", "Connection: close"]
    if body is None:
        raw = request(method, path, *headers)
    else:
        headers.append("Content-Type: application/json")
        raw = request(method, path, *headers, body=json.dumps(body).encode())
    [answer] = (await exchange(service.url, raw)).answers
    return answer


async def odd_keys(service: Service) -> list[bytes]:
    url, _ = await store_of(service)
    redis = Redis.from_url(url)
    try:
        return [key async for key in redis.scan_iter(count=10_000) if not KEY_SHAPES.fullmatch(key)]
    finally:
        await redis.aclose()


async def test_names_groups_keys_and_values_come_back_as_they_were(service: Service) -> None:
    logs = {}
    for text in HOSTILE:
        made = await ask(
            service, "PUT", f"/v2/names/{to_base64url(text.encode())}?kind=opaque", {"group": text}
        )
        assert made.status == 201, made.body
        description = json.loads(made.body)["description"]
        assert (description["name"], description["group"]) == (encoded(text), text)
        logs[text] = to_base64url(base64.b64decode(description["log_id"]))
    for text, log_id in logs.items():
        commands = [{"type": "Upsert", "key": encoded(t), "value": encoded(t * 3)} for t in HOSTILE]
        body = {"commands": commands, "source": text}
        assert (await ask(service, "POST", f"/v2/logs/{log_id}/commits", body)).status == 201
        read = await ask(service, "GET", f"/v2/logs/{log_id}/diff?order=key")
        changes = json.loads(read.body)["changes"]
        assert {c["key"]: c["value"] for c in changes} == {
            encoded(t): encoded(t * 3) for t in HOSTILE
        }
        [version] = json.loads((await ask(service, "GET", f"/v2/logs/{log_id}/versions")).body)[
            "versions"
        ]
        assert version["source"] == encoded(text)
        one = await ask(service, "GET", f"/v2/logs/{log_id}/entries/{to_base64url(text.encode())}")
        assert json.loads(one.body)["value"] == encoded(text * 3)
    assert await odd_keys(service) == []


async def test_a_group_is_a_name_and_no_pattern(service: Service) -> None:
    for name, group in (("a", "visits"), ("b", "visit?"), ("c", "*"), ("d", "")):
        path = f"/v2/names/{to_base64url(name.encode())}?kind=opaque"
        assert (await ask(service, "PUT", path, {"group": group})).status == 201
    for group, names in (("*", ["c"]), ("visit%3F", ["b"]), ("visits", ["a"]), ("v*", [])):
        listed = json.loads((await ask(service, "GET", f"/v2/logs?group={group}")).body)["logs"]
        assert [log["name"] for log in listed] == [encoded(name) for name in names]


async def test_a_database_is_a_word(service: Service) -> None:
    for database in HOSTILE:
        if database.isalnum() or database in ("__proto__", "-1", "--"):
            continue
        raw = request(
            "GET", "/v2/logs", f"Authorization: Bearer {service.apikey}", "Connection: close",
            f"Indelible-Database: x{database}x",
        )  # fmt: skip
        for answer in (await exchange(service.url, raw)).answers:
            assert (answer.status, answer.code) == (400, "BAD_REQUEST"), database
    assert await odd_keys(service) == []


async def test_idempotency_keys_that_are_no_words_are_refused(service: Service) -> None:
    path = f"/v2/names/{to_base64url(b'visits')}?kind=opaque"
    made = json.loads((await ask(service, "PUT", path, {})).body)["description"]["log_id"]
    log_id = to_base64url(base64.b64decode(made))
    body = b'{"commands":[{"type":"Upsert","key":"aw==","value":"dg=="}]}'
    for key, status in (
        ("{}*?[a]\\'\"", 201), ("", 400), ("k" * 65, 400), ("a b", 400), ("a\tb", 400), ("ü", 400),
        ("a\x7fb", 400),
    ):  # fmt: skip
        raw = request(
            "POST", f"/v2/logs/{log_id}/commits", f"Authorization: Bearer {service.apikey}",
            "Connection: close", "Content-Type: application/json", f"Idempotency-Key: {key}",
            body=body,
        )  # fmt: skip
        [answer] = (await exchange(service.url, raw)).answers
        assert answer.status == status, repr(key)
    assert await odd_keys(service) == []


@pytest.mark.parametrize("text", HOSTILE)
async def test_v1_names_and_callers_break_out_of_nothing(service: Service, text: str) -> None:
    for customer_id, apikey, status in (
        (service.customer_id, service.apikey, 200),
        (text, service.apikey, 401),
        (service.customer_id, text, 401),
        (service.customer_id, f"ik_{text}_x", 401),
    ):
        members = {
            "authinfo": {"customer_id": customer_id, "apikey": apikey},
            "logName": text,
            "logGroup": text,
        }
        for ascii_only in (True, False):
            raw = json.dumps(members, ensure_ascii=ascii_only).encode()
            answers = (
                await exchange(
                    service.url, request("POST", "/v1/log/create", "Connection: close", body=raw)
                )
            ).answers
            assert [answer.status for answer in answers] == [status]


async def test_tenants_with_hostile_names_are_apart(service: Service) -> None:
    clients = connect((await store_of(service))[0], connections=1, timeout_seconds=5.0)
    tenants = Tenants(clients.commands, b"s" * 32)
    try:
        names = [f"{text}{service.customer_id}" for text in HOSTILE]
        made = [name for name in names if name.isprintable() and len(name) <= 64]
        ids = {(await tenants.create(name))[0] for name in made}
        assert len(ids) == len(made) > 20
        for name in set(names) - set(made):
            with pytest.raises(TenantError):
                await tenants.create(name)
        assert await odd_keys(service) == []
        for name in made:
            await tenants.delete(name)
    finally:
        await clients.close()

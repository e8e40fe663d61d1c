"""Nothing that only members may read is ever on the server's disk, in its log or its answers."""

import asyncio
import base64
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import indelible
import pytest
from indelible import Insert, Profile, Remove, Upsert
from redis.asyncio import Redis

from tests.hostile.wire import exchange, request
from tests.support.service import SERVER, Service, StartService, make_tenant, store_of
from tests.support.webhooks import answering, receiver, webhook_api

CANARY = "canary-7f3a"


def places(service: Service, data: Path) -> Iterator[tuple[str, bytes]]:
    yield "the log", service.log_file.read_bytes()
    for path in data.rglob("*"):
        if path.is_file() and path.name != "secret":
            yield str(path.relative_to(data)), path.read_bytes()


def test_no_plaintext_and_no_key_is_in_the_store_or_the_log(
    start_service: StartService, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    service = start_service("all", "--data", str(data), "--log-level", "debug")
    made = subprocess.run(
        [*SERVER, "tenant", "create", "acme", "--data", str(data)], capture_output=True, check=True
    )
    credentials = json.loads(made.stdout)
    master_key = os.urandom(32)
    encoded = base64.b64encode(master_key).decode()
    profile = Profile(**credentials, master_key_base64=encoded)
    with indelible.Client(profile) as client:
        log = client.log([CANARY, "name"], create=True)
        log.set(f"{CANARY} key", f"{CANARY} value", source=f"{CANARY} source")
        log.update([Upsert(f"{CANARY} key", {CANARY: 1}), Remove(f"{CANARY} other", CANARY)])
        with pytest.raises(indelible.ConflictError):
            log.update([Insert(f"{CANARY} key", f"{CANARY} again")])
        with pytest.raises(indelible.ConflictError):
            log.set(f"{CANARY} key", 1, expect_version=99)
        assert log.get(f"{CANARY} key") == {CANARY: 1}
        for _ in log.follow(after=0):
            break
        list(log.history(f"{CANARY} key"))
    service.stop()
    secrets = [
        CANARY.encode(),
        base64.b64encode(CANARY.encode())[:12],
        master_key,
        base64.b64encode(master_key),
        credentials["apikey"].encode(),
        credentials["apikey"].split("_", 2)[2].encode(),
    ]
    searched = 0
    for place, content in places(service, data):
        searched += len(content)
        for number, told_to_nobody in enumerate(secrets):
            assert told_to_nobody not in content, f"secret {number} is in {place}"
    assert searched > 4_000
    assert credentials["customer_id"].encode() in b"".join(c for _, c in places(service, data))


async def misused(service: Service, apikey: str) -> bytes:
    """All that the service answers where a key stands in every place that it should not."""
    bearer = f"Authorization: Bearer {apikey}"
    content = "Content-Type: application/json"
    authinfo = json.dumps({"customer_id": "x", "apikey": apikey})
    quoted = json.dumps(apikey).encode()
    requests = [
        request("GET", "/v2/logs", bearer),
        request("GET", "/v2/logs", bearer + "\0"),
        request("GET", "/v2/logs", bearer, f"X-{apikey}\r: x"),
        request("GET", "/v2/logs", bearer, "X: " + apikey * 200),
        request("GET", f"/{apikey} {apikey}", bearer),
        request("GET", f"/v2/logs/{apikey}", bearer),
        request("GET", f"/v2/logs?cursor={apikey}", bearer),
        request("GET", "/v2/logs", bearer, f"Indelible-Database: {apikey}!"),
        request("GET", "/v2/logs", bearer, f"Expect: {apikey}"),
        request(apikey.replace("_", "-"), "/v2/logs", bearer),
        request("POST", "/v2/wait", bearer, content, f"Content-Encoding: {apikey}", body=b"{}"),
        request("POST", "/v2/wait", bearer, content, body=quoted),
        request("POST", "/v2/wait", bearer, content, body=b'{"logs": ' + quoted + b"}"),
        request("POST", "/v2/wait", bearer, content, body=b"{" + quoted[:-1]),
        request("PUT", "/v2/names/YQ?kind=opaque", bearer, content, body=b'{"group":\xff}'),
        *(
            request("POST", f"/v1/log/{verb}", body=body)
            for verb in ("create", "update", "diff")
            for body in (
                f'{{"authinfo": {authinfo}, "logName": "n"}}'.encode(),
                f'{{"authinfo": {authinfo}, "logName": 1}}'.encode(),
                f'{{"authinfo": {authinfo}, "logName": "n"'.encode(),
                f'{{"authinfo": {authinfo}}}}}'.encode(),
                f'{{"authinfo": {quoted.decode()}, "logName": "n"}}'.encode(),
                f"{{authinfo: {{apikey: '{apikey}', customer_id: +1}}}}".encode(),
                quoted,
            )
        ),
    ]
    exchanges = await asyncio.gather(*(exchange(service.url, raw) for raw in requests))
    answers = [answer for each in exchanges for answer in each.answers]
    assert {answer.status for answer in answers} >= {400, 401}
    assert all(answer.status < 500 for answer in answers)
    return b"".join(answer.head + answer.body for answer in answers)


async def told_by_the_store(url: str) -> bytes:
    """What an operator reads of the engine, once it has also saved a snapshot beside its log."""
    redis = Redis.from_url(url)
    try:
        await redis.execute_command("SAVE")
        commands = (["INFO", "everything"], ["CLIENT", "LIST"], ["SLOWLOG", "GET", "10000"])
        return b"".join([repr(await redis.execute_command(*each)).encode() for each in commands])
    finally:
        await redis.aclose()


async def test_no_error_path_tells_a_key_and_no_view_of_the_store_does(
    start_service: StartService, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    service = start_service("all", "--data", str(data), "--log-level", "debug")
    url, secret = await store_of(service)
    redis = Redis.from_url(url)
    await redis.config_set("slowlog-log-slower-than", 0)
    await redis.config_set("slowlog-max-len", 10_000)
    await redis.aclose()
    customer_id, apikey = await make_tenant(url, secret)
    master_key = os.urandom(32)
    encoded = base64.b64encode(master_key).decode()
    profile = Profile(
        endpoint_url=service.url,
        customer_id=customer_id,
        apikey=apikey,
        master_key_base64=encoded,
    )
    async with indelible.AsyncClient(profile) as client:
        log = await client.log(CANARY, create=True)
        await log.set(f"{CANARY} key", f"{CANARY} value", source=f"{CANARY} source")
        assert await log.get(f"{CANARY} key") == f"{CANARY} value"
    forged = "ik_0123456789abcdef_" + "S" * 43
    told = await misused(service, apikey) + await misused(service, forged)
    metrics = await exchange(service.url, request("GET", "/metrics", "Connection: close"))
    told += metrics.answers[0].body + await told_by_the_store(url)
    assert b"indelible_requests_total" in told
    assert b"FCALL" in told
    service.stop()
    secrets = [
        CANARY.encode(),
        master_key,
        base64.b64encode(master_key),
        apikey.split("_", 2)[2].encode(),
        forged.split("_", 2)[2].encode(),
    ]
    found = [("an answer or a view", told), *places(service, data)]
    assert any(content.startswith(b"VALKEY") for _, content in found), "no snapshot was saved"
    for place, content in found:
        for number, told_to_nobody in enumerate(secrets):
            assert told_to_nobody not in content, f"secret {number} is in {place}"


async def test_no_webhook_secret_is_in_the_store_the_log_or_a_later_answer(
    start_service: StartService, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    service = start_service(
        *("all", "--data", str(data), "--log-level", "debug"),
        *("--webhook-allow-private", "true", "--webhook-sweep-seconds", "0.2"),
    )
    url, key = await store_of(service)
    _, apikey = await make_tenant(url, key)
    async with receiver() as target, webhook_api(service.url, apikey) as api:
        target.behaviours["/failing"] = answering(500)
        log_id = await api.make_log("orders")
        given = []
        for path in ("/hook", "/failing"):
            made = await api.create(target.url + path, log=log_id)
            rotated = await api.ask("POST", f"/v2/webhooks/{made['webhook_id']}/rotate-secret")
            given += [made["secret"], rotated["secret"]]
            await api.until_state(made["webhook_id"], "active")
        await api.commit(log_id)
        await target.until(2)
        told = json.dumps(await api.ask("GET", "/v2/webhooks")).encode()
        for webhook in json.loads(told)["webhooks"]:
            told += json.dumps(await api.deliveries(webhook["webhook_id"])).encode()
        metrics = await exchange(service.url, request("GET", "/metrics", "Connection: close"))
    told += metrics.answers[0].body + await told_by_the_store(url)
    assert b"indelible_webhook_attempts_total" in told
    service.stop()
    assert len(set(given)) == 4
    for place, content in [("an answer or a view", told), *places(service, data)]:
        for number, secret in enumerate(given):
            for spelled in (secret.encode(), base64.b64decode(secret.removeprefix("whsec_"))):
                assert spelled not in content, f"secret {number} is in {place}"

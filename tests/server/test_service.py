"""The service as its operator and its tenants meet it: commands, credentials, borders."""

import asyncio
import base64
import json
import os
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import nacl.bindings
import pytest
from indelible_protocol import limits
from indelible_protocol.commands import Op
from indelible_protocol.ids import ChainId, to_base64url

from tests.support.engines import Engine
from tests.support.polling import until
from tests.support.service import SERVER, Service, StartService, make_tenant
from tests.support.writers import SealedWriter, sealed_command

CHAIN = ChainId(b"c" * 16)


def run_server(*arguments: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*SERVER, *arguments], input=stdin, capture_output=True, text=True, timeout=60
    )


@asynccontextmanager
async def session(service: Service, apikey: str | None = None) -> AsyncIterator[Any]:
    headers = {"Authorization": f"Bearer {apikey or service.apikey}"}
    async with aiohttp.ClientSession(service.url, headers=headers) as http:
        yield http


async def make_log(http: aiohttp.ClientSession, name: str = "log") -> str:
    """The URL of a new opaque log."""
    url = f"/v2/names/{to_base64url(name.encode())}?kind=opaque"
    async with http.put(url, json={}) as answer:
        assert answer.status in (200, 201), await answer.text()
        log_id = (await answer.json())["description"]["log_id"]
    return f"/v2/logs/{to_base64url(base64.b64decode(log_id))}"


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


async def upsert(http: aiohttp.ClientSession, log: str, key: str, value: str) -> dict[str, Any]:
    command = {"type": "Upsert", "key": b64(key), "value": b64(value)}
    async with http.post(f"{log}/commits", json={"commands": [command]}) as answer:
        body: dict[str, Any] = await answer.json(content_type=None)
        return body


async def code_of(answer: Any) -> tuple[int, str]:
    async with answer as got:
        body = await got.json(content_type=None)
        return got.status, body["code"]


def test_tenants_are_made_listed_and_deleted_on_a_folder_at_rest(tmp_path: Path) -> None:
    data = ("--data", str(tmp_path / "data"))
    made = run_server("tenant", "create", "acme", *data, "--endpoint", "https://log.example")
    credentials = json.loads(made.stdout)
    assert set(credentials) == {"endpoint_url", "customer_id", "apikey"}
    assert credentials["endpoint_url"] == "https://log.example"
    again = run_server("tenant", "create", "acme", *data)
    assert again.returncode == 1
    assert "acme" in again.stderr
    listed = json.loads(run_server("tenant", "list", *data).stdout)
    assert (listed["name"], listed["customer_id"]) == ("acme", credentials["customer_id"])
    assert credentials["apikey"].split("_")[1] in listed["key_ids"]
    assert run_server("tenant", "delete", "acme", *data, stdin="no\n").returncode == 1
    assert run_server("tenant", "delete", "acme", *data, stdin="acme\n").returncode == 0
    assert run_server("tenant", "list", *data).stdout == ""
    assert (tmp_path / "data" / "secret").stat().st_mode & 0o777 == 0o600


async def test_a_tenant_made_while_the_server_runs_works_until_its_key_is_revoked(
    start_service: StartService, tmp_path: Path
) -> None:
    data = ("--data", str(tmp_path / "data"))
    service = start_service("all", *data)
    made = json.loads(run_server("tenant", "create", "acme", *data).stdout)
    assert made["endpoint_url"] == service.url
    added = json.loads(run_server("tenant", "key", "add", "acme", *data).stdout)
    async with (
        session(service, made["apikey"]) as first,
        session(service, added["apikey"]) as other,
    ):
        log = await make_log(first)
        assert (await upsert(other, log, "k", "v"))["version"] == 1
        key_id = made["apikey"].split("_")[1]
        assert run_server("tenant", "key", "revoke", "acme", key_id, *data).returncode == 0

        async def refused() -> bool:
            async with first.get(log) as answer:
                return bool(answer.status == 401)

        await until(refused, within_seconds=10)
        async with other.get(log) as answer:
            assert answer.status == 200


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("all",), "--data DIR"),
        (("api", "--data", "x"), "--redis"),
        (("all", "--redis", "redis://127.0.0.1:1"), "--secret-file"),
        (("all", "--data", "x", "--listen", "nowhere"), "'nowhere'"),
        (("all", "--data", "x", "--durability", "none"), "durability from the command line"),
        (("all", "--data", "x", "--tls-cert", "c.pem"), "--tls-key"),
        (("all", "--data", "x", "--max-waiters", "0"), "max_waiters"),
    ],
)
def test_a_wrong_setting_is_named_with_what_was_expected(
    arguments: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    done = run_server(*[str(tmp_path / "x") if a == "x" else a for a in arguments])
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


async def test_a_foreign_log_looks_exactly_like_an_absent_one(service: Service) -> None:
    data = Path(service.arguments[-1])
    secret = (data / "secret").read_bytes().strip()
    from indelible_server.embedded import running_engine_url

    url = await running_engine_url(data)
    assert url is not None
    _, stranger_key = await make_tenant(url, secret)
    absent = f"/v2/logs/{to_base64url(os.urandom(32))}"
    async with session(service) as owner, session(service, stranger_key) as stranger:
        log = await make_log(owner)
        await upsert(owner, log, "k", "v")
        requests = [
            ("GET", ""), ("DELETE", ""), ("POST", "/commits"), ("GET", "/commits"),
            ("GET", "/diff"), ("GET", "/entries/aw"), ("GET", "/entries/aw/history"),
            ("POST", "/entries:batchGet"), ("GET", "/versions"),
        ]  # fmt: skip
        for method, path in requests:
            answers = []
            for url in (log, absent):
                body: Any = {"commands": []} if method == "POST" else None
                async with stranger.request(method, url + path, json=body) as answer:
                    problem = await answer.json(content_type=None)
                    problem.pop("request_id")
                    headers = {
                        k: v for k, v in answer.headers.items() if "request" not in k.lower()
                    }
                    headers.pop("Date")
                    answers.append((answer.status, problem, headers))
            assert answers[0] == answers[1]
            assert answers[0][0] == 404
        async with owner.get(log) as answer:
            assert (await answer.json())["version"] == 1


async def test_a_missing_or_wrong_key_is_refused_on_every_route(service: Service) -> None:
    wrong = service.apikey[:-4] + "AAAA"
    async with session(service) as owner:
        log = await make_log(owner)
    async with aiohttp.ClientSession(service.url) as nobody, session(service, wrong) as thief:
        for http in (nobody, thief):
            for method, path in (
                ("GET", log), ("POST", f"{log}/commits"), ("GET", f"{log}/diff"),
                ("GET", "/v2/logs"), ("PUT", "/v2/names/YQ?kind=opaque"), ("POST", "/v2/wait"),
            ):  # fmt: skip
                assert await code_of(http.request(method, path)) == (401, "BAD_API_KEY")


async def test_a_cursor_that_was_altered_or_belongs_elsewhere_is_refused(service: Service) -> None:
    async with session(service) as http:
        log, other = await make_log(http, "a"), await make_log(http, "b")
        for number in range(3):
            await upsert(http, log, f"k{number}", "v")
        async with http.get(f"{log}/diff?limit=1") as answer:
            cursor = (await answer.json())["cursor"]
        flipped = ("A" if cursor[5] != "A" else "B").join((cursor[:5], cursor[6:]))
        for path in (
            f"{log}/diff?cursor={flipped}", f"{other}/diff?cursor={cursor}",
            f"{log}/diff?cursor={cursor}&order=key", f"{log}/diff?cursor={cursor}&to=2",
            f"{log}/versions?cursor={cursor}", f"/v2/logs?cursor={cursor}", f"{log}/diff?cursor=A",
        ):  # fmt: skip
            assert await code_of(http.get(path)) == (400, "BAD_CURSOR")
        async with http.get(f"{log}/diff?cursor={cursor}&limit=2") as answer:
            assert len((await answer.json())["changes"]) == 2


async def test_a_sealed_commit_that_is_not_sound_is_refused_before_it_is_judged(
    service: Service,
) -> None:
    writer = SealedWriter(os.urandom(32), max_lag=limits.MAX_LAG)
    thief = SealedWriter(os.urandom(32), max_lag=limits.MAX_LAG)

    def encoded(commit: Any, **changes: bytes) -> dict[str, str]:
        parts = {"header": commit.header, "signature": commit.signature, "body": commit.body}
        return {k: base64.b64encode(v).decode() for k, v in (parts | changes).items()}

    async with session(service) as http:
        url = f"/v2/names/{to_base64url(writer.token)}"
        async with http.put(url, json={"genesis": encoded(writer.genesis)}) as answer:
            assert answer.status == 201, await answer.text()
        log = f"/v2/logs/{to_base64url(writer.log_id)}/commits"
        good = writer.commit([sealed_command(Op.UPSERT, 1, 1)], chain=CHAIN, seq=1, seen_size=1)
        other = writer.commit([sealed_command(Op.UPSERT, 2, 2)], chain=CHAIN, seq=1, seen_size=1)
        thief.log_id = writer.log_id
        stolen = thief.commit([sealed_command(Op.UPSERT, 1, 1)], chain=CHAIN, seq=1, seen_size=1)
        misplaced = sealed_command(Op.UPSERT, 1, 1)._replace(token=bytes(32))
        lying = writer.commit([misplaced], chain=CHAIN, seq=1, seen_size=1)
        flipped = bytes([good.signature[0] ^ 1]) + good.signature[1:]
        for body, expected in (
            (encoded(good, signature=flipped), (400, "BAD_SIGNATURE")),
            (encoded(good, body=other.body), (400, "BAD_REQUEST")),
            (encoded(good, header=good.header + b"\x00"), (400, "BAD_REQUEST")),
            (encoded(stolen), (403, "UNAUTHORIZED_OPERATION")),
            (encoded(lying), (400, "BAD_REQUEST")),
            ({"commands": []}, (400, "BAD_REQUEST")),
        ):
            assert await code_of(http.post(log, json=body)) == expected
        async with http.post(log, json=encoded(good)) as answer:
            assert (answer.status, (await answer.json())["version"]) == (201, 1)


async def test_tls_serves_and_plain_http_does_not(
    start_service: StartService, tmp_path: Path
) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", "-days", "2", "-subj",
         "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key),
         "-out", str(cert)],
        capture_output=True,
    )  # fmt: skip
    if made.returncode:
        pytest.skip("openssl is not installed; it makes the test's certificate")
    service = start_service(
        "all", "--data", str(tmp_path / "data"), "--tls-cert", str(cert), "--tls-key", str(key)
    )
    assert service.url.startswith("https://")
    trusting = ssl.create_default_context(cafile=str(cert))
    async with aiohttp.ClientSession() as http:
        async with http.get(service.url + "/livez", ssl=trusting) as answer:
            assert answer.status == 200
        with pytest.raises(aiohttp.ClientError):
            async with http.get(service.url.replace("https", "http") + "/livez"):
                pass


async def test_an_external_store_that_is_not_strict_is_refused_until_it_is(
    each_engine: Engine, start_service: StartService, tmp_path: Path
) -> None:
    from redis.asyncio import Redis

    secret_file = tmp_path / "secret"
    secret_file.write_text("s" * 32)
    store = ("--redis", each_engine.url, "--secret-file", str(secret_file))
    redis = Redis.from_url(each_engine.url)
    try:
        await redis.config_set("appendfsync", "everysec")
        service = start_service("api", *store, until="durability.fell_short")
        _, service.apikey = await make_tenant(each_engine.url, b"s" * 32)
        async with session(service) as http:
            log = await make_log(http)
            assert (await upsert(http, log, "k", "v"))["code"] == "NOT_DURABLE"
            async with http.get("/readyz") as answer:
                assert answer.status == 503
                assert any("appendfsync" in reason for reason in (await answer.json())["reasons"])
        relaxed = start_service("api", *store, "--durability", "relaxed")
        async with session(relaxed, service.apikey) as http:
            assert (await upsert(http, log, "k", "v"))["durability"] == "relaxed"
        await redis.config_set("appendfsync", "always")
        async with session(service) as http:

            async def ready() -> bool:
                async with http.get("/readyz") as answer:
                    return bool(answer.status == 200)

            await until(ready, within_seconds=15)
            assert (await upsert(http, log, "k", "w"))["durability"] == "strict"
    finally:
        await redis.config_set("appendfsync", "always")
        await redis.aclose()


async def test_creating_a_log_from_many_places_at_once_makes_one(service: Service) -> None:
    async with session(service) as http:
        logs = await asyncio.gather(*(make_log(http, "raced") for _ in range(20)))
        assert len(set(logs)) == 1
        async with http.get("/v2/logs") as answer:
            assert len((await answer.json())["logs"]) == 1
        await http.delete(logs[0])
        again = await make_log(http, "raced")
        assert again != logs[0]
        async with http.get(again) as answer:
            assert (await answer.json())["incarnation"] == 2
        assert await code_of(http.get(f"{logs[0]}/diff")) == (410, "LOG_REPLACED")


def test_the_store_holds_only_a_keyed_hash_of_an_api_key(service: Service) -> None:
    stored = b"".join(
        path.read_bytes()
        for path in Path(service.arguments[-1]).rglob("*")
        if path.is_file() and path.name != "secret"
    )
    assert service.customer_id.encode() in stored
    assert service.apikey.encode() not in stored
    assert service.apikey.split("_", 2)[2].encode() not in stored
    assert nacl.bindings.crypto_hash_sha256(service.apikey.encode()) not in stored


async def test_a_conflict_tells_what_the_keys_hold_if_asked(service: Service) -> None:
    async with session(service) as http:
        log = await make_log(http)
        await upsert(http, log, "a", "1")
        await upsert(http, log, "b", "2")
        commands = [
            {"type": "ExpectVersion", "version": 1},
            {"type": "Upsert", "key": b64("a"), "value": b64("9")},
            {"type": "Upsert", "key": b64("c"), "value": b64("9")},
        ]
        path = f"{log}/commits"
        async with http.post(path, json={"commands": commands}) as plain:
            assert (plain.status, (await plain.json())["details"]) == (
                412,
                {"current_version": 2, "index": 0},
            )
        async with http.post(path + "?conflict=entries", json={"commands": commands}) as asked:
            details = (await asked.json())["details"]
        assert details["current_version"] == 2
        assert details["entries"] == [
            {"key": b64("a"), "sealed_key": "", "value": b64("1"), "version": 1}
        ]
        many = [{"type": "ExpectVersion", "version": 1}] + [
            {"type": "Delete", "key": b64(f"k{n}")} for n in range(64)
        ]
        async with http.post(path + "?conflict=entries", json={"commands": many}) as too_many:
            assert "entries" not in (await too_many.json())["details"]

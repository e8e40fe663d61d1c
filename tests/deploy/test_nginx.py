"""nginx with our configuration: one request for all who ask the same, nothing for others."""

import asyncio
import os
import re
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from indelible import AsyncClient

from tests.client.conftest import profile_of
from tests.process.test_waiting import until_waiting
from tests.server.test_events import revoke
from tests.server.test_service import code_of, make_log, upsert
from tests.support.event_stream import EventStream
from tests.support.polling import until
from tests.support.ports import free_port
from tests.support.service import Service, StartService, make_tenant, store_of

CONFIGURATION = Path(__file__).parents[2] / "deploy/nginx.conf"
NGINX = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")

pytestmark = pytest.mark.skipif(
    NGINX is None or shutil.which("openssl") is None,
    reason="nginx, or openssl that makes its certificate, is not installed",
)


@dataclass(kw_only=True)
class Proxy:
    url: str
    certificate: Path
    origin: Service


def in_its_place(text: str, places: dict[str, str]) -> str:
    """Our file with a test's places; each of `places` must be there once or more."""
    for pattern, place in places.items():
        text, count = re.subn(pattern, place, text, flags=re.MULTILINE)
        assert count, f"no line like {pattern} in {CONFIGURATION.name}"
    return text


@contextmanager
def nginx(folder: Path, origin: Service) -> Iterator[Proxy]:
    folder.mkdir()
    certificate = folder / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", str(folder / "key.pem"), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    port = free_port()
    places = {
        r"^    server 127\.0\.0\.1:8481;$": f"    server {origin.url.removeprefix('http://')};",
        r"^    server 127\.0\.0\.1:8482;\n": "",
        r"listen 443 ssl http2;": f"listen 127.0.0.1:{port} ssl http2;",
        r"/etc/nginx/indelible\.crt": str(certificate),
        r"/etc/nginx/indelible\.key": str(folder / "key.pem"),
        r"/run/indelible-cache": str(folder / "cache"),
    }
    (folder / "indelible.conf").write_text(in_its_place(CONFIGURATION.read_text(), places))
    paths = "".join(f"{name}_temp_path {folder}/{name};\n" for name in TEMPORARY)
    user = "user root;\n" if os.getuid() == 0 else ""
    (folder / "nginx.conf").write_text(
        f"{user}daemon off;\npid {folder}/pid;\nerror_log stderr;\nworker_processes 1;\n"
        f"events {{ worker_connections 1024; }}\n"
        f"http {{\naccess_log off;\n{paths}include {folder}/indelible.conf;\n}}\n"
    )
    assert NGINX is not None
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf")], stderr=log, stdout=log
        )
    try:
        yield Proxy(url=f"https://localhost:{port}", certificate=certificate, origin=origin)
        assert process.poll() is None, (folder / "log").read_text()
    finally:
        process.terminate()
        process.wait(20)


@asynccontextmanager
async def session(proxy: Proxy, apikey: str | None = None) -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"Authorization": f"Bearer {apikey or proxy.origin.apikey}"}
    trusting = ssl.create_default_context(cafile=str(proxy.certificate))
    connector = aiohttp.TCPConnector(ssl=trusting, limit=0)
    async with aiohttp.ClientSession(proxy.url, headers=headers, connector=connector) as http:

        async def answers() -> bool:
            try:
                async with http.get("/livez") as answer:
                    return bool(answer.status == 200)
            except aiohttp.ClientConnectorError:
                return False

        await until(answers, what="nginx")
        yield http


@pytest.fixture
async def proxy(start_service: StartService, tmp_path: Path) -> AsyncIterator[Proxy]:
    async for made in _proxy(start_service, tmp_path, "--shared-caching", "true"):
        yield made


@pytest.fixture
async def proxy_of_a_private_service(
    start_service: StartService, tmp_path: Path
) -> AsyncIterator[Proxy]:
    async for made in _proxy(start_service, tmp_path):
        yield made


async def _proxy(start: StartService, folder: Path, *arguments: str) -> AsyncIterator[Proxy]:
    service = await asyncio.to_thread(start, "all", "--data", str(folder / "data"), *arguments)
    service.customer_id, service.apikey = await make_tenant(*await store_of(service))
    with nginx(folder / "nginx", service) as made:
        yield made


async def origin_statuses(service: Service, offset: int = 0) -> list[int]:
    """What the service itself answered to questions for diffs."""
    end = service.log_file.stat().st_size
    async with aiohttp.ClientSession() as http, http.get(f"{service.url}/livez") as answer:
        assert answer.status == 200

    def is_told() -> bool:  # and what was answered before it: lines keep their order
        return any(each.get("route") == "/livez" for each in service.events(end))

    await until(is_told)
    told = service.events(offset)
    return [each["status"] for each in told if str(each.get("route")).endswith("/diff")]


async def ask(http: aiohttp.ClientSession, url: str, **headers: str) -> tuple[int, Any, Any]:
    async with http.get(url, headers=headers) as answer:
        body = await answer.json() if answer.status == 200 else await answer.read()
        return answer.status, body, answer.headers


async def test_fifty_who_wait_cost_the_service_one_request(proxy: Proxy) -> None:
    async with session(proxy) as http:
        log = await make_log(http)
        url = f"{log}/diff?from=0&interval=0&wait=30"
        asleep = [asyncio.create_task(ask(http, url)) for _ in range(50)]
        await until_waiting(proxy.origin, 1)
        await upsert(http, log, "a", "1")
        answers = await asyncio.gather(*asleep)
        assert [status for status, _, _ in answers] == [200] * 50
        assert {(body["from"], body["to"]) for _, body, _ in answers} == {(0, 1)}
        late = await ask(http, url)
        assert late[1]["to"] == 1
        assert await origin_statuses(proxy.origin) == [200]


class Follower:
    """Follows as the protocol says, with waits of a second; `versions` are those it was at."""

    def __init__(self, http: aiohttp.ClientSession, log: str) -> None:
        self.versions = [0]
        self.empty = 0
        self.task = asyncio.create_task(self._run(http, log))

    async def _run(self, http: aiohttp.ClientSession, log: str) -> None:
        interval = 0
        while True:
            at = self.versions[-1]
            status, body, headers = await ask(
                http, f"{log}/diff?from={at}&interval={interval}&wait=1"
            )
            assert int(headers["Indelible-Interval"]) >= interval
            interval = int(headers["Indelible-Interval"])
            if status == 200:
                assert body["from"] == at < body["to"]
                self.versions.append(body["to"])
            else:
                assert status == 204
                self.empty += 1


async def test_fifty_who_follow_are_never_stuck_and_share_what_is_asked(proxy: Proxy) -> None:
    async with session(proxy) as http:
        log = await make_log(http)
        followers = [Follower(http, log) for _ in range(50)]
        for version in range(1, 4):
            rounds = min(follower.empty for follower in followers) + 2
            await until(
                lambda: all(f.empty >= rounds or f.task.done() for f in followers),  # noqa: B023
                within_seconds=20,
            )
            await upsert(http, log, "a", str(version))
            await until(
                lambda: all(f.versions[-1] == version or f.task.done() for f in followers),  # noqa: B023
                within_seconds=20,
            )
        for follower in followers:
            assert not follower.task.done(), follower.task.result()
            assert follower.versions == [0, 1, 2, 3]
            follower.task.cancel()
        told = sum(follower.empty for follower in followers) + 3 * 50
        asked = len(await origin_statuses(proxy.origin))
        print(f"{told} answers to 50 followers, {asked} of them by the service")
        assert asked < told / 5


async def test_nobody_gets_what_another_key_asked_for(proxy: Proxy) -> None:
    url, secret = await store_of(proxy.origin)
    _, foreign = await make_tenant(url, secret)
    async with (
        session(proxy) as mine,
        session(proxy, foreign) as theirs,
        session(proxy, "ik_0000000000000000_nobody") as nobodys,
    ):
        log = await make_log(mine)
        await upsert(mine, log, "a", "1")
        for query in ("from=0&to=1", "from=0&interval=0", "from=0&interval=0&wait=30"):
            for _ in range(2):
                status, body, _ = await ask(mine, f"{log}/diff?{query}")
                assert (status, body["to"]) == (200, 1)
            assert await code_of(theirs.get(f"{log}/diff?{query}")) == (404, "NONEXISTENT_LOG")
            assert await code_of(nobodys.get(f"{log}/diff?{query}")) == (401, "BAD_API_KEY")
            elsewhere = {"Indelible-Database": "other"}
            asked = mine.get(f"{log}/diff?{query}", headers=elsewhere)
            assert await code_of(asked) == (404, "NONEXISTENT_LOG")
            packed, _, headers = await ask_raw(mine, f"{log}/diff?{query}", "application/msgpack")
            assert (packed, headers["Content-Type"]) == (200, "application/msgpack")
        assert await origin_statuses(proxy.origin) == [200, 404, 401, 404, 200] * 3
    kept = proxy.certificate.parent / "cache"
    assert any(each.is_file() for each in kept.rglob("*"))
    assert kept.stat().st_mode & 0o077 == 0, "others can read API keys there"


async def ask_raw(http: aiohttp.ClientSession, url: str, accept: str) -> tuple[int, bytes, Any]:
    async with http.get(url, headers={"Accept": accept}) as answer:
        return answer.status, await answer.read(), answer.headers


async def test_a_wait_of_mine_does_not_hold_up_another_key(proxy: Proxy) -> None:
    _, foreign = await make_tenant(*await store_of(proxy.origin))
    async with session(proxy) as mine, session(proxy, foreign) as theirs:
        log = await make_log(mine)
        url = f"{log}/diff?from=0&interval=0&wait=20"
        asleep = asyncio.create_task(ask(mine, url))
        await until_waiting(proxy.origin, 1)
        async with asyncio.timeout(5):
            assert await code_of(theirs.get(url)) == (404, "NONEXISTENT_LOG")
        await upsert(mine, log, "a", "1")
        assert (await asleep)[0] == 200


async def test_a_tag_that_is_still_right_is_answered_by_the_proxy(proxy: Proxy) -> None:
    async with session(proxy) as http:
        log = await make_log(http)
        await upsert(http, log, "a", "1")
        url = f"{log}/diff?from=0&to=1"
        tag = (await ask(http, url))[2]["ETag"]
        assert (await ask(http, url, **{"If-None-Match": tag}))[0] == 304
        assert (await ask(http, url, **{"If-None-Match": '"other"'}))[0] == 200
        assert await origin_statuses(proxy.origin) == [200]
        tag = (await ask(http, f"{log}/diff?from=0"))[2]["ETag"]
        assert (await ask(http, f"{log}/diff?from=0", **{"If-None-Match": tag}))[0] == 304
        assert await origin_statuses(proxy.origin) == [200, 200, 304]


async def test_events_pass_as_they_come(proxy: Proxy) -> None:
    async with session(proxy) as http:
        log = await make_log(http)
        async with http.get(f"{log}/events") as response:
            stream = EventStream(response)
            for version in range(1, 4):
                await upsert(http, log, "a", str(version))
                async with asyncio.timeout(5):
                    assert (await stream.next()).last_id == str(version)


async def test_a_service_that_was_not_told_shares_nothing(
    proxy_of_a_private_service: Proxy,
) -> None:
    proxy = proxy_of_a_private_service
    async with session(proxy) as http:
        log = await make_log(http)
        await upsert(http, log, "a", "1")
        for _ in range(3):
            assert (await ask(http, f"{log}/diff?from=0&to=1"))[0] == 200
        assert await origin_statuses(proxy.origin) == [200] * 3


async def test_who_asks_alone_does_not_wait_for_others(proxy: Proxy) -> None:
    async with session(proxy) as http:
        log = await make_log(http)
        url = f"{log}/diff?from=0&wait=30"
        asleep = [asyncio.create_task(ask(http, url)) for _ in range(10)]
        await until_waiting(proxy.origin, 10)
        await upsert(http, log, "a", "1")
        assert {status for status, _, _ in await asyncio.gather(*asleep)} == {200}


async def test_clients_of_ours_that_follow_share_what_they_ask(proxy: Proxy) -> None:
    profile = profile_of(proxy.origin, url=proxy.url)
    clients = [AsyncClient(profile, ca_file=proxy.certificate) for _ in range(10)]
    try:
        logs = [await client.log("config", create=True) for client in clients]
        await logs[0].set("theme", "dark")
        offset = proxy.origin.log_file.stat().st_size
        following = [asyncio.create_task(first_after(log, 1)) for log in logs]
        await until_waiting(proxy.origin, 1)
        await logs[0].set("theme", "light")
        assert await asyncio.gather(*following) == [2] * 10
        assert await origin_statuses(proxy.origin, offset) == [200]
    finally:
        for client in clients:
            await client.close()


async def first_after(log: Any, version: int) -> int:
    async for diff in log.follow(version):
        return int(diff.to_version)
    raise AssertionError


@pytest.mark.torture
async def test_a_revoked_key_is_answered_from_what_is_kept_for_a_minute_at_most(
    proxy: Proxy,
) -> None:
    async with session(proxy) as http:
        log = await make_log(http)
        await upsert(http, log, "a", "1")
        queries = ("from=0&to=1", "from=0&interval=0")
        for query in queries:
            assert (await ask(http, f"{log}/diff?{query}"))[0] == 200
        await revoke(proxy.origin, proxy.origin.apikey)
        for query, seconds in zip(queries, (66, 26), strict=True):

            async def refused() -> bool:
                return (await ask(http, f"{log}/diff?{query}"))[0] == 401  # noqa: B023

            await until(refused, within_seconds=seconds)

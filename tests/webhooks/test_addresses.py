"""No webhook leads into our network: whatever the spelling, name, redirect or proxy."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from indelible_server.webhooks.addresses import may_connect
from indelible_server.webhooks.sending import Sender

from tests.support.polling import until
from tests.support.service import StartService, make_tenant, store_of
from tests.support.webhooks import Receiver, answering, webhook_api

# Each leads, or would to some program, to the canary at PORT on loopback, or to a network's inside.
LOOPBACK = [
    "127.0.0.1", "127.1", "127.0.1", "0x7f.1", "0x7f.0.0.1", "0x7f000001", "0X7F000001",
    "2130706433", "017700000001", "0177.0.0.1", "0177.1", "127.0.0.1.", "127.0.0.2",
    "127.255.255.254", "localhost", "localhost.", "LOCALHOST", "LocalHost", "ip6-localhost",
    "①②⑦.⓪.⓪.①", "１２７.0.0.1", "127。0。0。1", "127．0．0．1", "%31%32%37.0.0.1", "0", "0.0.0.0",
    "0x0", "00000", "[::1]", "[0:0:0:0:0:0:0:1]", "[0000::0001]", "[::]", "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:7f00:1]", "[::127.0.0.1]", "[::7f00:1]",
    "[64:ff9b::7f00:1]", "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]", "[2001:0:7f00:1::]",
    "[::1%25lo]", "user@127.0.0.1", "user:secret@127.0.0.1", "example.org@127.0.0.1",
    "example.org%40127.0.0.1", "example.org\\@127.0.0.1", "127.0.0.1\\.example.org",
    "127.0.0.1%00.example.org", "127.0.0.1%2f.example.org", "changing.example", "both.example",
]  # fmt: skip
INSIDE = [
    "169.254.169.254", "[::ffff:169.254.169.254]", "[fd00:ec2::254]", "100.64.0.1", "10.0.0.1",
    "172.16.0.1", "192.168.0.1", "192.0.0.8", "192.0.2.1", "198.18.0.1", "224.0.0.1",
    "255.255.255.255", "[fe80::1]", "[fec0::1]", "[fc00::1]", "[ff02::1]", "[2001:db8::1]",
]  # fmt: skip
URLS = [f"https://{host}:PORT/" for host in (*LOOPBACK, *INSIDE)] + [
    "HTTPS://127.0.0.1:PORT/", "https:127.0.0.1:PORT", "https:/127.0.0.1:PORT", "https:///127.1:PORT",
    "http://127.0.0.1:PORT/", "http://localhost:PORT/", "//127.0.0.1:PORT/", "ftp://127.0.0.1:PORT/",
    "file:///etc/passwd", "gopher://127.0.0.1:PORT/_x", "unix:///run/x", "ws://127.0.0.1:PORT/",
    "wss://127.0.0.1:PORT/", "https://127.0.0.1:PORT/#@example.org/",
    "https://127.0.0.1:PORT?@example.org/", "https://\t127.0.0.1:PORT/", "https://127.0.0.1:0PORT/",
]  # fmt: skip


@dataclass(slots=True)
class Canary:
    """Listens on loopback in both families; nobody should ever come."""

    port: int = 0
    visits: list[str] = field(default_factory=list)


@asynccontextmanager
async def listening() -> AsyncIterator[Canary]:
    canary = Canary()

    async def visited(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        canary.visits.append(str(writer.get_extra_info("peername")))
        writer.close()

    server = await asyncio.start_server(visited, "0.0.0.0", 0)
    canary.port = server.sockets[0].getsockname()[1]
    servers = [server]
    if socket.has_ipv6:
        with suppress(OSError):  # no IPv6 on this machine
            servers.append(await asyncio.start_server(visited, "::1", canary.port))
    try:
        yield canary
    finally:
        for each in servers:
            each.close()
            await each.wait_closed()


@pytest.fixture
async def canary() -> AsyncIterator[Canary]:
    async with listening() as made:
        yield made


class Names(AbstractResolver):
    """The system's names, and some of whoever wants in: one is public when it is looked up
    first and loopback after that, one is both at once."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        self.asked.append(host)
        if host == "changing.example":
            first = self.asked.count(host) == 1
            return [answer(host, port, "198.41.0.4" if first else "127.0.0.1")]
        if host == "both.example":
            return [answer(host, port, "::1"), answer(host, port, "127.0.0.1")]
        found = await asyncio.get_running_loop().getaddrinfo(
            host, port, family=family, type=socket.SOCK_STREAM
        )
        return [answer(host, port, str(place[0])) for *_, place in found]

    async def close(self) -> None:
        pass


def answer(host: str, port: int, address: str) -> ResolveResult:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return ResolveResult(hostname=host, host=address, port=port, family=family, proto=6, flags=0)


async def visits_of(sender: Sender, canary: Canary, url: str) -> int:
    before = len(canary.visits)
    told = await sender.post(url.replace("PORT", str(canary.port)), {}, b"{}")
    assert told.status is None
    await asyncio.sleep(0)
    return len(canary.visits) - before


async def test_no_spelling_leads_to_the_canary(canary: Canary) -> None:
    assert len(URLS) >= 60
    names = Names()
    first = await names.resolve("changing.example")
    assert may_connect(ip_address(first[0]["host"])), "public when somebody checked the name"
    async with Sender(seconds=5.0, resolver=names) as sender:
        for url in URLS:
            assert await visits_of(sender, canary, url) == 0, url
    await asyncio.sleep(0.05)
    assert canary.visits == []


async def test_without_the_guard_the_canary_is_visited(canary: Canary) -> None:
    """The table has teeth: the same requests reach it when nobody looks at addresses."""
    names = Names()
    await names.resolve("changing.example")
    reached = set()
    async with Sender(seconds=0.5, resolver=names, allow_private=True) as sender:
        for host in LOOPBACK:
            url = f"http://{host}:PORT/"
            await sender.post(url.replace("PORT", str(canary.port)), {}, b"{}")
            await asyncio.sleep(0.01)
            if canary.visits:
                reached.add(host)
                canary.visits.clear()
    assert {"127.0.0.1", "0x7f.1", "localhost", "changing.example", "both.example"} <= reached
    assert len(reached) >= 10


async def test_a_redirect_is_a_failure_and_not_followed(canary: Canary, target: Receiver) -> None:
    place = f"http://127.0.0.1:{canary.port}/"
    async with Sender(seconds=5.0, allow_private=True) as sender:
        for status in (301, 302, 303, 307, 308):
            target.behaviours["/hook"] = answering(status, Location=place)
            told = await sender.post(target.url + "/hook", {}, b'{"type":"x"}')
            assert told.status == status
    assert canary.visits == []


async def test_a_whole_service_follows_no_redirect_and_asks_no_proxy(
    canary: Canary, target: Receiver, start_service: StartService, tmp_path: Path
) -> None:
    place = f"http://127.0.0.1:{canary.port}/"
    names = [f"{scheme}_proxy" for scheme in ("http", "https", "all")]
    service = start_service(
        *("all", "--data", str(tmp_path / "data"), "--webhook-allow-private", "true"),
        env={name: place for each in names for name in (each, each.upper())},
    )
    _, apikey = await make_tenant(*await store_of(service))
    target.behaviours["/away"] = answering(307, Location=place)
    async with webhook_api(service.url, apikey) as api:
        log_id = await api.make_log("orders")
        made = await api.create(f"{target.url}/away", log=log_id)
        await api.until_state(made["webhook_id"], "active")
        await api.commit(log_id)
        await target.until(1)

        async def has_failed() -> bool:
            found = await api.deliveries(made["webhook_id"])
            return any(a["status"] == 307 for each in found for a in each["attempts"])

        await until(has_failed)
    service.stop()
    assert canary.visits == []


async def test_a_proxy_in_the_environment_is_not_asked(
    canary: Canary, target: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for scheme in ("http", "https", "all"):
        for name in (f"{scheme}_proxy", f"{scheme.upper()}_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{canary.port}")
    async with Sender(seconds=5.0, allow_private=True) as sender:
        assert (await sender.post(target.url + "/hook", {}, b'{"type":"x"}')).status == 200
    assert canary.visits == []


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.1", "10.1.2.3", "100.127.255.255", "127.0.0.1", "169.254.169.254", "172.31.255.255",
        "192.0.0.1", "192.0.0.8", "192.0.0.170", "192.0.2.9", "192.88.99.1", "192.168.255.255",
        "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255", "::", "::1", "::127.0.0.1", "::ffff:1.1.1.1", "::ffff:127.0.0.1",
        "64:ff9b::7f00:1", "64:ff9b::101:101", "100::1", "2001::1", "2001:20::1", "2001:db8::1",
        "2002:7f00:1::", "3fff::1", "4000::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1",
        "fec0::1", "ff02::1",
    ],
)  # fmt: skip
def test_these_addresses_are_no_public_hosts(address: str) -> None:
    assert not may_connect(ip_address(address))


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "172.32.0.0",
     "192.0.1.1", "198.17.0.1", "198.20.0.1", "223.255.255.255", "2001:200::1", "2606:4700::1111",
     "2a00:1450:4001::1", "3ffe::1"],
)  # fmt: skip
def test_these_are(address: str) -> None:
    assert may_connect(ip_address(address))

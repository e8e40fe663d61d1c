"""Commits that go past the routes are answered as those that take them, and as safely."""

import asyncio
import gc
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import msgpack
import pytest
from aiohttp import web
from indelible_protocol import paths
from indelible_protocol.ids import LogId, to_base64url
from indelible_server.api.app import make_app
from indelible_server.api.connections import Body, LanedConnection, Runner
from indelible_server.api.entry_lane import EntryLane
from indelible_server.api.heads import RequestHead
from indelible_server.api.lane import CommitLane
from indelible_server.api.laned import Lanes
from indelible_server.api.middlewares import canonical_line
from indelible_server.api.services import Services, make_services
from indelible_server.settings import Settings
from indelible_server.store import functions, keys
from indelible_server.store.connection import Clients, connect
from indelible_server.store.logs import Logs
from indelible_server.store.names import Scope
from indelible_server.store.tenants import Tenants

from tests.hostile.wire import Exchange, exchange, request
from tests.support.engines import Engine
from tests.support.polling import until

SECRET = b"s" * 32
MSGPACK = "application/msgpack"


@dataclass
class Watched:
    """The lanes, and what they took."""

    lane: Lanes
    taken: int = 0

    def begin(self, connection: LanedConnection, head: RequestHead, body: Body) -> bool:
        took = self.lane.begin(connection, head, body)
        self.taken += took
        return took


@dataclass
class Stand:
    services: Services
    watched: Watched
    url: str
    apikey: str
    log: LogId

    def commit(self, body: bytes, *headers: str, path: str = "") -> bytes:
        named = path or paths.of_log(paths.COMMITS, self.log)
        return request(
            *("POST", named, f"Authorization: Bearer {self.apikey}"),
            *(headers or (f"Content-Type: {MSGPACK}",)),
            body=body,
        )

    def routed(self, body: bytes, *headers: str) -> bytes:
        """The same commit by the routes, which take what names a default in its query."""
        path = f"{paths.of_log(paths.COMMITS, self.log)}?conflict=version"
        return self.commit(body, *headers, path=path)

    def get(self, key: bytes, *headers: str, query: str = "", more: str = "") -> bytes:
        path = paths.of_key(paths.ENTRY, self.log, key) + more + query
        return request("GET", path, f"Authorization: Bearer {self.apikey}", *headers)

    async def ask(self, *pieces: bytes) -> Exchange:
        """With a key that is known, on a connection where aiohttp's own task is asleep already."""
        await self.services.authenticator.judge(self.apikey)
        return await exchange(self.url, b"", *pieces)

    async def version(self) -> int:
        return (await self.services.reader.head(self.log)).version


@asynccontextmanager
async def stand_on(
    engine: Engine,
    *,
    idle_seconds: float = 20.0,
    max_commit_wait_seconds: float = 0.02,
    recheck_seconds: float = 5.0,
) -> AsyncIterator[Stand]:
    """An API in this process, with one tenant and an opaque log that is known already."""
    settings = Settings(
        redis=engine.url,
        secret_file="-",
        store_seconds=5.0,
        max_commit_wait_seconds=max_commit_wait_seconds,
        recheck_seconds=recheck_seconds,
    )
    clients = connect(engine.url, connections=4, timeout_seconds=5.0)
    services = make_services(settings, SECRET, clients, lambda point: None)
    watched = Watched(Lanes([CommitLane(services), EntryLane(services)]))
    runner = Runner(
        make_app(services),
        around=canonical_line,
        lane=watched,
        access_log=None,
        handler_cancellation=True,
        auto_decompress=False,
        keepalive_timeout=idle_seconds,
        shutdown_timeout=0.1,
    )
    await functions.load(clients.commands)
    services.loaded.set()
    await services.durability.check()
    tenant, apikey = await Tenants(clients.commands, SECRET).create("tenant")
    opened = await services.logs.create_opaque(Scope(tenant=tenant), b"log", "")
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        log = opened.description.identity.log_id
        yield Stand(services, watched, url, apikey, log)
    finally:
        await runner.cleanup()
        await clients.close()


@asynccontextmanager
async def another(engine: Engine) -> AsyncIterator[Clients]:
    """Clients of the store that are not the API's."""
    clients = connect(engine.url, connections=1, timeout_seconds=5.0)
    try:
        yield clients
    finally:
        await clients.close()


@pytest.fixture
async def stand(engine: Engine) -> AsyncIterator[Stand]:
    async with stand_on(engine) as made:
        yield made


def sets(key: str, value: str, **more: object) -> bytes:
    command = {"type": "Upsert", "key": key.encode(), "value": value.encode()}
    packed: bytes = msgpack.packb({"commands": [command], **more})
    return packed


def told(answered: Exchange) -> list[tuple[int, list[bytes], bytes]]:
    """What was answered, but for what differs from one request to the next."""
    found = []
    for answer in answered.answers:
        _, *lines = answer.head.split(b"\r\n")
        kept = [line for line in lines if not re.match(rb"(?i)(date|indelible-request-id):", line)]
        body = re.sub(rb"[0-9a-f]{16}", b"", answer.body)
        found.append((answer.status, sorted(line.lower() for line in kept), body))
    return found


JSON = b'{"commands":[{"type":"Upsert","key":"aw==","value":"dg=="}]}'
EXPECT = msgpack.packb({"commands": [{"type": "ExpectVersion", "version": 7}]})
TWICE = b"\x82" + msgpack.packb("commands") + b"\x90" + msgpack.packb("commands") + b"\x90"
PLAIN = (
    (sets("k", "v"), ()),
    (sets("k", "v"), (f"Content-Type: {MSGPACK}", "Accept: application/json")),
    (JSON, ("Content-Type: application/json",)),  # the key has a value from here on
    (JSON, ("Content-Type: application/json", f"Accept: {MSGPACK}", "X-Forwarded-For: ::1")),
    (EXPECT, ()),
    (EXPECT, (f"Content-Type: {MSGPACK}", "Accept: application/json")),
    (sets("", "v"), ()),
    (sets("k", "v", other=1), ()),
    (TWICE, ()),
    (b"", ()),
    (b"\xc1", ()),
    (msgpack.packb({"header": b"", "signature": b"", "body": b""}), ()),
    (sets("k", "v"), (f"Content-Type: {MSGPACK}", "Idempotency-Key: " + "x" * 65)),
    (sets("k", "v"), (f"Content-Type: {MSGPACK}", "Indelible-Database: default")),
)


async def test_both_ways_give_the_same_answer(stand: Stand) -> None:
    await stand.ask(stand.commit(sets("k", "v")))
    for body, headers in PLAIN:
        before = stand.watched.taken
        whole = stand.commit(body, *headers)
        past = told(await stand.ask(whole))
        assert len(past) == 1
        assert past == told(await stand.ask(whole[:20], whole[20:]))  # by aiohttp's parser
        assert stand.watched.taken == before + 2, (body, headers)
        assert past == told(await stand.ask(stand.routed(body, *headers)))
        assert stand.watched.taken == before + 2


async def test_logs_that_this_process_has_not_met_are_looked_for(
    stand: Stand, engine: Engine
) -> None:
    identity = stand.services.logs.known(stand.log)
    assert identity is not None
    async with another(engine) as clients:
        logs, tenants = Logs(clients.commands), Tenants(clients.commands, SECRET)
        stranger, _ = await tenants.create("stranger")
        mine, theirs = [
            (await logs.create_opaque(Scope(tenant=tenant), b"new", "")).description.identity.log_id
            for tenant in (identity.tenant, stranger)
        ]
    new = replace(stand, log=mine)
    [answer] = (await new.ask(new.commit(sets("k", "v")))).answers
    assert (answer.status, stand.watched.taken) == (201, 1)
    assert stand.services.logs.known(mine) is not None
    other = (f"Content-Type: {MSGPACK}", "Indelible-Database: other")
    for log, headers in ((LogId(bytes(32)), ()), (theirs, ()), (mine, other), (theirs, ())):
        there, before = replace(stand, log=log), stand.watched.taken
        past = told(await there.ask(there.commit(sets("k", "v"), *headers)))
        assert [answer[0] for answer in past] == [404]
        assert past == told(await there.ask(there.routed(sets("k", "v"), *headers)))
        read = told(await there.ask(there.get(b"k", *headers)))
        assert read == told(await there.ask(there.get(b"k", *headers, query="?")))
        assert stand.watched.taken == before + 2


async def test_a_damaged_log_is_told_as_by_the_routes_and_harms_no_other(
    stand: Stand, engine: Engine
) -> None:
    identity = stand.services.logs.known(stand.log)
    assert identity is not None
    async with another(engine) as clients:
        opened = await Logs(clients.commands).create_opaque(
            Scope(tenant=identity.tenant), b"new", ""
        )
        new = replace(stand, log=opened.description.identity.log_id)
        meta = keys.of_log(new.log).meta
        await clients.commands.hset(meta, "kind", "unknown")
    past, beside = await asyncio.gather(
        new.ask(new.commit(sets("k", "v"))), stand.ask(stand.commit(sets("k", "v")))
    )
    assert [answer[0] for answer in told(past)] == [500]
    assert [answer[0] for answer in told(beside)] == [201]
    assert told(past) == told(await new.ask(new.routed(sets("k", "v"))))


async def test_a_log_that_cannot_be_looked_for_is_refused_as_the_routes_do(
    stand: Stand, engine: Engine
) -> None:
    new = replace(stand, log=LogId(bytes(32)))
    await stand.services.authenticator.judge(stand.apikey)
    await engine.kill()
    past = told(await exchange(stand.url, b"", new.commit(sets("k", "v"))))
    assert [answer[0] for answer in past] == [503]
    assert stand.watched.taken == 1
    assert past == told(await exchange(stand.url, b"", new.routed(sets("k", "v"))))


async def test_what_is_unusual_takes_the_routes(stand: Stand) -> None:
    plain = stand.commit(sets("k", "v"), f"Content-Type: {MSGPACK}")
    log_id = to_base64url(stand.log).encode()
    unusual = [
        plain.replace(b"HTTP/1.1", b"HTTP/1.0", 1),
        plain.replace(b"/commits", b"/commits?conflict=entries", 1),
        plain.replace(b"/commits", b"/commit%73", 1),
        plain.replace(b"POST", b"PUT", 1),
        plain.replace(stand.apikey.encode(), b"ik_0123456789abcdef_x", 1),
        plain.replace(log_id, log_id[:-1] + b"_", 1),
    ]
    for header in (
        f"Content-Type: {MSGPACK}",
        "Indelible-Ticket: wanted",
        "Idempotency-Key: a\r\nIdempotency-Key: b",
        "Indelible-Database: default\r\nIndelible-Database: default",
        "Authorization: Bearer x",
        "Indelible-Database: d\xfcr",
        "Content-Encoding: gzip",
        "Content-Encoding: identity",
        "Expect: 100-continue",
        "Expect: nothing",
        "Connection: close",
    ):
        more = header.encode("latin-1") + b"\r\nContent-Length"
        unusual.append(plain.replace(b"Content-Length", more, 1))
    answered = await asyncio.gather(*map(stand.ask, unusual))
    assert all(len(each.answers) <= 1 for each in answered)
    assert stand.watched.taken == 0


async def test_pipelined_commits_are_answered_in_order_and_the_routes_take_their_turn(
    stand: Stand,
) -> None:
    listing = request("GET", "/v2/logs", f"Authorization: Bearer {stand.apikey}")
    commits = [stand.commit(sets("k", f"v{number}")) for number in range(100)]
    answered = await stand.ask(b"".join([*commits[:50], listing, *commits[50:]]))
    versions = [
        int(found[1]) if (found := re.search(rb"Indelible-Version: (\d+)", each.head)) else 0
        for each in answered.answers
    ]
    assert versions == [*range(1, 51), 0, *range(51, 101)]
    assert stand.watched.taken >= 50


async def test_refusals_in_a_row_end_no_connection(stand: Stand) -> None:
    answered = await stand.ask(stand.commit(b"\xc1") * 2_000, stand.commit(sets("k", "v")))
    assert [each.status for each in answered.answers] == [400] * 2_000 + [201]


async def test_a_client_that_leaves_does_not_end_its_commit(stand: Stand, engine: Engine) -> None:
    await stand.services.authenticator.judge(stand.apikey)
    reader, writer = await asyncio.open_connection(*stand.url.removeprefix("http://").split(":"))
    await asyncio.sleep(0.01)
    os.kill(engine.pid, signal.SIGSTOP)
    try:
        writer.write(stand.commit(sets("k", "v")))
        await until(lambda: stand.watched.taken == 1)
        writer.transport.abort()
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
    finally:
        os.kill(engine.pid, signal.SIGCONT)

    async def is_in() -> bool:
        return await stand.version() == 1

    await until(is_in)
    assert await stand.services.committer.finish(5.0) == 0


async def test_a_commit_under_way_outlives_the_idle_time_and_the_next_waits_for_it(
    engine: Engine,
) -> None:
    async with stand_on(engine, idle_seconds=0.2) as stand:
        await stand.services.authenticator.judge(stand.apikey)
        reader, writer = await asyncio.open_connection(
            *stand.url.removeprefix("http://").split(":")
        )
        await asyncio.sleep(0.01)
        os.kill(engine.pid, signal.SIGSTOP)
        try:
            writer.write(stand.commit(sets("k", "a")))
            await until(lambda: stand.watched.taken == 1)
            writer.write(stand.commit(sets("k", "b")))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.7):
                    await reader.readexactly(1)
            assert stand.watched.taken == 1
        finally:
            os.kill(engine.pid, signal.SIGCONT)
        heard = b""
        async with asyncio.timeout(5):
            while chunk := await reader.read(1 << 16):  # until it is closed as idle
                heard += chunk
        assert re.findall(rb"Indelible-Version: (\d+)", heard) == [b"1", b"2"]
        writer.close()


async def test_a_connection_is_idle_from_the_end_of_its_wait_and_not_before(engine: Engine) -> None:
    async with stand_on(engine, idle_seconds=0.2) as stand:
        reader, writer = await asyncio.open_connection(
            *stand.url.removeprefix("http://").split(":")
        )
        path = paths.of_log(paths.DIFF, stand.log) + "?from=0&wait=0.7"
        ask = request("GET", path, f"Authorization: Bearer {stand.apikey}")
        async with asyncio.timeout(10):
            for _ in range(2):
                writer.write(ask)
                head = await reader.readuntil(b"\r\n\r\n")
                assert b" 204 " in head
                assert b"close" not in head
            assert await reader.read() == b""
        writer.close()


async def test_a_process_that_goes_away_says_so_with_its_last_answer(
    stand: Stand, engine: Engine
) -> None:
    await stand.services.authenticator.judge(stand.apikey)
    os.kill(engine.pid, signal.SIGSTOP)
    try:
        asking = asyncio.ensure_future(stand.ask(stand.commit(sets("k", "v"))))
        await until(lambda: stand.watched.taken == 1)
        stand.services.draining = True
    finally:
        os.kill(engine.pid, signal.SIGCONT)
    answered = await asking
    [answer] = answered.answers
    assert answer.status == 201
    assert b"connection: close" in answer.head.lower()
    assert answered.closed


async def test_a_tenant_waits_its_turn_here_too(stand: Stand) -> None:
    stranger, _ = await Tenants(stand.services.logs._redis, SECRET).create("stranger")
    await stand.services.authenticator._turns.take(stranger)
    answered = await asyncio.gather(
        *(stand.ask(stand.commit(sets("k", f"{n}"))) for n in range(20))
    )
    assert [[answer.status for answer in each.answers] for each in answered] == [[201]] * 20
    assert stand.watched.taken == 20


async def test_a_tenant_is_not_refused_for_the_crowd_of_another(engine: Engine) -> None:
    async with stand_on(engine, max_commit_wait_seconds=1e-6) as stand:
        services = stand.services
        tenant, apikey = await Tenants(services.logs._redis, SECRET).create("modest")
        opened = await services.logs.create_opaque(Scope(tenant=tenant), b"log", "")
        modest = replace(stand, apikey=apikey, log=opened.description.identity.log_id)
        assert (await stand.ask(stand.commit(sets("k", "v")))).answers[0].status == 201
        await services.authenticator.judge(apikey)
        os.kill(engine.pid, signal.SIGSTOP)
        asked = []
        try:

            async def is_refused() -> bool:
                asked.append(asyncio.ensure_future(stand.ask(stand.commit(sets("k", "v")))))
                done, _ = await asyncio.wait(asked, timeout=0.005)
                return any(503 in [a.status for a in each.result().answers] for each in done)

            await until(is_refused)
            begun = stand.watched.taken
            answering = asyncio.ensure_future(modest.ask(modest.commit(sets("k", "v"))))
            await until(lambda: stand.watched.taken > begun)
            done, _ = await asyncio.wait([answering], timeout=0.1)
            assert not done, "it is worked on"
        finally:
            os.kill(engine.pid, signal.SIGCONT)
        assert [answer.status for answer in (await answering).answers] == [201]
        await asyncio.gather(*asked)


async def test_an_answer_that_is_out_is_not_kept_by_its_connection(stand: Stand) -> None:
    """It would be, until the next: a waiter's connection has the answer before that wait."""
    host, port = stand.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    asked = f"{paths.of_log(paths.DIFF, stand.log)}?from=0"
    writer.write(request("GET", asked, f"Authorization: Bearer {stand.apikey}"))
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    gc.collect()  # what other tests left
    await until(lambda: not any(isinstance(each, web.Response) for each in gc.get_objects()))
    writer.close()

"""Keys that are read past the routes are answered as through them, and by the newest version."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import pytest
from indelible_protocol.limits import MAX_KEY_BYTES
from indelible_server.store import current, keys
from indelible_server.store.tenants import Tenants

from tests.server.test_lane import MSGPACK, SECRET, Stand, sets, stand_on, told
from tests.support.engines import Engine
from tests.support.polling import until


@pytest.fixture
async def stand(engine: Engine) -> AsyncIterator[Stand]:
    async with stand_on(engine) as made:
        yield made


LARGE = "v" * (current.MAX_BYTES + 1)
TOO_LONG = b"k" * (MAX_KEY_BYTES + 1)
HEADERS = (
    (),
    (f"Accept: {MSGPACK}",),
    ("Accept: text/html, application/json;q=0.9",),
    (f"Content-Type: {MSGPACK}",),
    ("Indelible-Database: default", "If-None-Match: *"),
)


async def test_both_ways_give_the_same_answer(stand: Stand) -> None:
    """A question mark with nothing behind it takes the routes."""
    await stand.ask(*(stand.commit(sets(key, value)) for key, value in (("k", "v"), ("l", LARGE))))
    identity = stand.services.logs.known(stand.log)
    assert identity is not None
    for is_deleted in (False, True):
        for key in (b"k", b"l", b"never", TOO_LONG):
            for headers in HEADERS if key != TOO_LONG else HEADERS[:1]:
                before = stand.watched.taken
                past = told(await stand.ask(stand.get(key, *headers)))
                assert stand.watched.taken == before + 1, (key, headers)
                assert past == told(await stand.ask(stand.get(key, *headers, query="?")))
                assert stand.watched.taken == before + 1
                status = {b"never": 404, TOO_LONG: 400}.get(key, 200)
                if is_deleted and key != TOO_LONG:
                    status = 410
                assert [answer[0] for answer in past] == [status]
            for at in (0, 1, 2, 3):
                before = stand.watched.taken
                past = told(await stand.ask(stand.get(key, query=f"?at={at}")))
                assert stand.watched.taken == before + 1, (key, at)
                assert past == told(await stand.ask(stand.get(key, query=f"?&at={at}")))
                assert stand.watched.taken == before + 1
        if not is_deleted:
            await stand.services.logs.delete(identity)


async def test_what_is_unusual_takes_the_routes(stand: Stand) -> None:
    await stand.ask(stand.commit(sets("k", "v")))
    before, plain = stand.watched.taken, stand.get(b"k")
    unusual = [
        plain.replace(b"HTTP/1.1", b"HTTP/1.0", 1),
        plain.replace(b"GET", b"HEAD", 1),
        plain.replace(stand.apikey.encode(), b"ik_0123456789abcdef_x", 1),
        stand.get(b"k", query="?at=01"),
        stand.get(b"k", query="?at=1&at=1"),
        stand.get(b"k", query="?to=1"),
        stand.get(b"k", more="="),
        stand.get(b"k", more="/history"),
        stand.get(b"k", "Content-Length: 1") + b"x",
        stand.get(b"k", "Content-Type: text/plain"),
        stand.get(b"k", "Indelible-Database: default", "Indelible-Database: default"),
        stand.get(b"k", "Expect: 100-continue"),
        stand.get(b"k", "Connection: close"),
    ]
    await asyncio.gather(*map(stand.ask, unusual))
    assert stand.watched.taken == before


async def test_a_read_behind_a_commit_on_its_connection_sees_it(stand: Stand) -> None:
    pipelined = [
        one
        for number in range(50)
        for one in (stand.commit(sets("k", f"{number:03}")), stand.get(b"k", f"Accept: {MSGPACK}"))
    ]
    answered = await stand.ask(b"".join(pipelined))
    assert [answer.status for answer in answered.answers] == [201, 200] * 50
    for number, read in enumerate(answered.answers[1::2]):
        assert b"%03d" % number in read.body
    assert stand.watched.taken == 100


async def test_a_reader_that_leaves_is_missed_by_nobody(stand: Stand, engine: Engine) -> None:
    await stand.ask(stand.commit(sets("k", "v")))
    before = stand.watched.taken
    _, writer = await asyncio.open_connection(*stand.url.removeprefix("http://").split(":"))
    os.kill(engine.pid, signal.SIGSTOP)
    try:
        writer.write(stand.get(b"k"))
        await until(lambda: stand.watched.taken == before + 1)
        writer.transport.abort()
        asking = asyncio.ensure_future(stand.ask(stand.get(b"k")))
        await until(lambda: stand.watched.taken == before + 2)
    finally:
        os.kill(engine.pid, signal.SIGCONT)
    assert [answer.status for answer in (await asking).answers] == [200]


async def test_an_entry_that_is_damaged_fails_for_its_reader_alone(stand: Stand) -> None:
    no_command = "\x7f\0\1k\0\0\0\0\0\0"
    await stand.ask(stand.commit(sets("k", no_command)), stand.commit(sets("other", "v")))
    store, log_keys = stand.services.logs._redis, keys.of_log(stand.log)
    [(_, fields)] = await store.execute_command("XRANGE ", log_keys.commits, 1, 1)
    offset = fields[fields.index(b"b") + 1].index(no_command.encode())
    place = await store.execute_command("HGET", log_keys.index, b"k")
    damaged = place[:12] + offset.to_bytes(4, "big") + place[16:]
    await store.execute_command("HSET", log_keys.index, b"k", damaged)
    found = await asyncio.gather(*(stand.ask(stand.get(key)) for key in (b"k", b"other")))
    statuses = [[answer.status for answer in each.answers] for each in found]
    assert statuses == [[500], [200]]


async def test_a_tenant_waits_its_turn_here_too(stand: Stand) -> None:
    await stand.ask(stand.commit(sets("k", "v")))
    stranger, _ = await Tenants(stand.services.logs._redis, SECRET).create("stranger")
    await stand.services.authenticator._turns.take(stranger)
    answered = await asyncio.gather(*(stand.ask(stand.get(b"k")) for _ in range(20)))
    assert [[answer.status for answer in each.answers] for each in answered] == [[200]] * 20
    assert stand.watched.taken == 21

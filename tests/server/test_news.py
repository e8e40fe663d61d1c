"""What a hint brings beside the version: all that who waits for it is answered with."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from indelible_protocol.commands import Command, Op
from indelible_protocol.ids import LogId, parse_log_id
from indelible_server.store import keys, recent
from indelible_server.store.admission import LogIdentity, admit_opaque
from indelible_server.store.committing import Commits
from indelible_server.store.connection import connect
from indelible_server.store.covering import Covering
from indelible_server.store.recent import Asked, Recent
from redis.asyncio import Redis

from tests.process.test_waiting import until_waiting
from tests.server.test_service import make_log, session, upsert
from tests.server.test_waves import lines
from tests.support.deployment import StartDeployment
from tests.support.engines import Engine
from tests.support.grown_logs import new_log
from tests.support.polling import until
from tests.support.service import Service, store_of


@pytest.fixture
async def redis(engine: Engine) -> AsyncIterator[Redis]:
    clients = connect(engine.url, connections=4, timeout_seconds=10.0)
    yield clients.commands
    await clients.close()


@dataclass
class Listener:
    """Hears what is published of one log."""

    connection: Any

    async def hint(self) -> bytes:
        word, _, data = await self.connection.read_response()
        assert word == b"smessage"
        return bytes(data)

    async def news(self) -> Recent:
        digits, _, news = (await self.hint()).partition(b" ")
        return recent.told(int(digits), news)


@asynccontextmanager
async def listening(redis: Redis, log_id: LogId) -> AsyncIterator[Listener]:
    connection = redis.connection_pool.make_connection()
    try:
        await connection.send_command("SSUBSCRIBE", keys.of_log(log_id).channel)
        await connection.read_response()
        yield Listener(connection)
    finally:
        await connection.disconnect()


async def commit(redis: Redis, identity: LogIdentity, *commands: Command) -> int:
    admitted = admit_opaque(identity, list(commands), b"", None)
    return (await Commits(redis).commit(identity, admitted)).version


def sets(*pairs: tuple[str, str]) -> list[Command]:
    return [Command(Op.UPSERT, key.encode(), value=value.encode()) for key, value in pairs]


COMMITS: Sequence[list[Command]] = (
    sets(("a", "1"), ("b", "1")),
    sets(("a", "2")),
    [*sets(("c", "1"), ("a", "3")), Command(Op.DELETE, b"b")],
    [*sets(("d", "1"), ("d", "2"), ("c", "2"))],
    [Command(Op.DELETE, b"a"), *sets(("a", "3"), ("e", "1"))],  # a ends as it was
    [Command(Op.DELETE, key) for key in (b"a", b"c", b"d", b"e")],
)


async def test_news_are_what_a_read_of_the_version_tells(redis: Redis) -> None:
    log = await new_log(redis)
    async with listening(redis, log.identity.log_id) as listener:
        for commands in COMMITS:
            version = await commit(redis, log.identity, *commands)
            asked = Asked(log.identity.log_id, version - 1)
            news = await listener.news()
            assert news == await recent.read(redis, Covering(redis, 0), asked)
            assert news.head.version == version
            assert news.changes


async def test_a_large_version_is_told_by_its_number(redis: Redis) -> None:
    log = await new_log(redis)
    async with listening(redis, log.identity.log_id) as listener:
        await commit(redis, log.identity, *sets(("a", "v" * 20_000)))
        assert await listener.hint() == b"1"
        await commit(redis, log.identity, *sets(("a", "small")))
        assert await listener.hint() == b"2", "what it removed is large"
        await commit(redis, log.identity, *sets(("a", "smaller")))
        assert (await listener.hint()).startswith(b"3 ")


async def test_a_version_that_waits_for_replicas_is_told_by_its_number(redis: Redis) -> None:
    """It may be taken back, and another come in its place."""
    log = await new_log(redis)
    waiting = Commits(redis, Covering(redis, 1))
    async with listening(redis, log.identity.log_id) as listener:
        admitted = admit_opaque(log.identity, sets(("a", "1")), b"", None)
        await waiting.commit(log.identity, admitted)
        assert await listener.hint() == b"1"


async def test_a_log_that_is_damaged_takes_commits_all_the_same(redis: Redis) -> None:
    log = await new_log(redis)
    commits = keys.of_log(log.identity.log_id).commits
    await commit(redis, log.identity, *sets(("a", "1")))
    await redis.delete(commits)
    await redis.xadd(commits, dict.fromkeys("hsbte", b""), id="1-0")
    async with listening(redis, log.identity.log_id) as listener:
        assert await commit(redis, log.identity, *sets(("a", "2"))) == 2
        assert await listener.hint() == b"2"


async def test_an_engine_that_does_not_say_who_listens_takes_commits_all_the_same(
    redis: Redis,
) -> None:
    log = await new_log(redis)
    async with listening(redis, log.identity.log_id) as listener:
        await redis.execute_command("ACL", "SETUSER", "default", "-pubsub|shardnumsub")
        try:
            assert await commit(redis, log.identity, *sets(("a", "1"))) == 1
        finally:
            await redis.execute_command("ACL", "SETUSER", "default", "+@all")
        assert (await listener.hint()).startswith(b"1 ")


async def test_what_is_removed_from_a_large_version_is_no_news(redis: Redis) -> None:
    log = await new_log(redis)
    await commit(redis, log.identity, *sets(("a", "1"), ("b", "v" * 70_000)))
    async with listening(redis, log.identity.log_id) as listener:
        await commit(redis, log.identity, *sets(("a", "2")))
        assert await listener.hint() == b"2"


async def test_who_waits_elsewhere_is_answered_without_a_read(deploy: StartDeployment) -> None:
    deployment = await deploy(processes=2)
    writing, waited_at = deployment.services
    for each in deployment.services:
        each.apikey = deployment.apikey
    async with (
        session(writing) as http,
        lines(waited_at, 4) as crowd,
        Redis.from_url(deployment.engine.url) as store,
    ):
        log = await make_log(http)
        for version in range(3):
            for line in crowd:
                line.ask(f"{log}/diff?from={version}&wait=30")
            await until_waiting(waited_at, len(crowd))
            before = await _reads(store)
            await upsert(http, log, "key", f"{version}")
            answers = [await line.answer() for line in crowd]
            assert [answer.moved_to for answer in answers] == [version + 1] * len(crowd)
            assert all(answer.came_by_wave for answer in answers)
            assert await _reads(store) == before


async def test_news_that_do_not_decode_are_read_from_the_log(service: Service) -> None:
    url, _ = await store_of(service)
    async with session(service) as http, lines(service, 1) as [line], Redis.from_url(url) as store:
        log = await make_log(http)
        line.ask(f"{log}/diff?from=0&wait=30")
        await until_waiting(service, 1)
        channel = keys.of_log(parse_log_id(log.rpartition("/")[2])).channel
        await store.execute_command("SPUBLISH", channel, b"1 \xc1")
        await until(lambda: any(one["event"] == "wave.failed" for one in service.events()))
        await upsert(http, log, "a", "1")
        assert (await line.answer()).moved_to == 1


async def _reads(store: Redis) -> int:
    stats = await store.info("commandstats")
    return int(stats.get("cmdstat_fcall_ro", {"calls": 0})["calls"])

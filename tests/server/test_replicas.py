"""What is acknowledged, and what is shown, is in a replica: with --wait-replicas on one engine."""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import aiohttp
import pytest
from indelible_protocol import paths
from indelible_protocol.ids import LogId, to_base64url
from indelible_server.store import keys
from redis.asyncio import Redis

from tests.support.engines import Engine, start_engine
from tests.support.native_api import Committed, InDoubt, NativeApi, NotDone
from tests.support.operations import Acked, Command, Op, Refused, Rejected
from tests.support.polling import until
from tests.support.ports import free_port
from tests.support.service import Service, StartService, make_tenant

SECRET = "s" * 40


@contextmanager
def frozen(engine: Engine) -> Iterator[None]:
    os.kill(engine.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(engine.pid, signal.SIGCONT)


@dataclass(slots=True, kw_only=True)
class Pair:
    """A primary and its replica, two API processes on it, and a client of each process."""

    primary: Engine
    replica: Engine
    services: list[Service]
    apis: list[NativeApi]

    async def safe(self, log_id: bytes) -> int:
        """The version that the store itself holds to be safe."""
        async with Redis.from_url(self.primary.url) as store:
            return int(await store.hget(keys.of_log(LogId(log_id)).meta, "safe") or 0)

    async def calls(self, function: str) -> int:
        """How often the primary wrote next to nothing so far, by its own count of calls."""
        async with Redis.from_url(self.primary.url) as store:
            told = await store.info("commandstats")
        return int(told.get(f"cmdstat_{function}", {"calls": 0})["calls"])


@pytest.fixture
async def pair(start_service: StartService, tmp_path: Path) -> AsyncIterator[Pair]:
    engines = [await start_engine(tmp_path / name, tcp_port=free_port()) for name in ("a", "b")]
    primary, replica = engines
    port = int(primary.url.rpartition(":")[2].partition("/")[0])
    async with Redis.from_url(replica.url, decode_responses=True) as store:
        await store.replicaof("127.0.0.1", str(port))

        async def is_up() -> bool:
            return bool((await store.info("replication"))["master_link_status"] == "up")

        await until(is_up, what="the replica follows")
    secret_file = tmp_path / "secret"
    secret_file.write_text(SECRET)
    arguments = ["api", "--redis", primary.url, "--secret-file", str(secret_file)]
    arguments += ["--wait-replicas", "1", "--store-seconds", "0.8"]
    services = [await asyncio.to_thread(start_service, *arguments) for _ in range(2)]
    _, apikey = await make_tenant(primary.url, SECRET.encode())
    async with aiohttp.ClientSession() as session:
        apis = [
            NativeApi(session, endpoints=[s.url], apikey=apikey, rng=random.Random(1))
            for s in services
        ]

        async def serves(api: NativeApi) -> bool:
            with suppress(NotDone, InDoubt):
                return bool(await api.create_log("warm"))
            return False

        for api in apis:  # the replica's first answers may be slow
            await until(partial(serves, api), what="commits reach the replica in time")
        yield Pair(primary=primary, replica=replica, services=services, apis=apis)
    for service in services:
        await asyncio.to_thread(service.stop)
    for engine in engines:
        await engine.stop()


def sets(value: str) -> list[Command]:
    return [Command(Op.UPSERT, "key", value)]


async def known(
    api: NativeApi, log_id: bytes, commands: Sequence[Command], key: str
) -> Committed | Rejected | Refused:
    """Sent again while it is in doubt: a replica that was frozen has to catch up first."""
    answers: list[Committed | Rejected | Refused] = []

    async def is_known() -> bool:
        with suppress(InDoubt):
            answers.append(await api.commit(log_id, commands, idempotency_key=key))
        return bool(answers)

    await until(is_known)
    return answers[-1]


async def test_a_commit_that_no_replica_has_is_in_doubt_and_shown_to_nobody(pair: Pair) -> None:
    mine, other = pair.apis
    log_id = await mine.create_log("log")
    await mine.commit(log_id, sets("one"), idempotency_key="one")
    waiting = asyncio.create_task(other.wait(log_id, 1, wait_seconds=20.0))
    with frozen(pair.replica):
        with pytest.raises(InDoubt):
            await mine.commit(log_id, sets("two"), idempotency_key="two")
        # By the other process, whose connections have written nothing that they could wait for.
        with pytest.raises(InDoubt):  # nor may the answer to it be told again
            await other.commit(log_id, sets("two"), idempotency_key="two")
        expecting = [Command(Op.EXPECT_VERSION, version=1), *sets("three")]
        with pytest.raises(InDoubt):  # nor that others lose against it
            await other.commit(log_id, expecting, idempotency_key="three")
        for api in (mine, other):
            with pytest.raises(NotDone):
                await api.diff(log_id, 0)
            with pytest.raises(NotDone):
                await api.entries(log_id, ["key"])
            with pytest.raises(NotDone):  # past the routes
                await api.ask("GET", paths.of_key(paths.ENTRY, LogId(log_id), b"key"))
            with pytest.raises(NotDone):
                await api.wait_for_any({log_id: 1}, wait_seconds=0.0)
    answer = await known(mine, log_id, sets("two"), "two")
    assert isinstance(answer, Committed)
    assert (answer.outcome, answer.repeated) == (Acked(version=2, changed=True), True)
    late = await known(mine, log_id, expecting, "three")
    assert isinstance(late, Rejected)
    assert late.current == 2
    assert (await other.diff(log_id, 0)).to_version == 2
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_who_reads_a_version_first_covers_it_and_the_store_then_knows(pair: Pair) -> None:
    mine, other = pair.apis
    log_id = await mine.create_log("log")
    for version in (1, 2, 3):
        await mine.commit(log_id, sets(f"{version}"), idempotency_key=f"{version}")
    # Each commit brought what was known before it.
    assert await pair.safe(log_id) == 2
    before = await pair.calls("wait")
    assert (await mine.diff(log_id, 0)).to_version == 3
    assert await pair.calls("wait") == before, "who committed knows"
    assert (await other.diff(log_id, 0)).to_version == 3

    async def is_known() -> bool:
        return await pair.safe(log_id) == 3

    await until(is_known, what="the store knows")
    settled = await pair.calls("wait")
    assert settled == before + 2, "one wait before the answer, one behind it"
    pair.services[0].kill()
    await asyncio.to_thread(pair.services[0].start)
    assert (await mine.diff(log_id, 0)).to_version == 3
    assert await pair.calls("wait") == settled, "the store said that it is safe"


async def test_a_name_and_a_listing_that_no_replica_has_are_shown_to_nobody(pair: Pair) -> None:
    mine, other = pair.apis
    with frozen(pair.replica):
        for api in (mine, other):
            with pytest.raises((InDoubt, NotDone)):
                await api.create_log("log")
    first = await mine.create_log("log")
    assert await other.create_log("log") == first


async def test_a_fresh_read_is_refused_by_a_store_that_was_replaced(pair: Pair) -> None:
    """Its replica serves elsewhere by now, and acknowledges what this one will never see."""
    mine, other = pair.apis
    log_id = await mine.create_log("log")
    await mine.commit(log_id, sets("one"), idempotency_key="one")
    path = f"/v2/logs/{to_base64url(log_id)}/diff"
    for api in (mine, other):
        assert (await api.ask("GET", path, query={"fresh": "1"})).log_version == 1
    async with Redis.from_url(pair.replica.url) as store:
        await store.replicaof("NO", "ONE")
    assert (await mine.ask("GET", path, query={"fresh": "0"})).log_version == 1
    for api in (mine, other):
        with pytest.raises(NotDone):
            await api.ask("GET", path, query={"fresh": "1"})

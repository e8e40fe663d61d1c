"""How a client finds its way in a cluster: addresses, slots, functions, hints."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence

import pytest
from indelible_protocol.commands import LogKind
from indelible_protocol.ids import LogId
from indelible_server.store import functions, keys
from indelible_server.store.addresses import read_address
from indelible_server.store.connection import Clients, connect
from indelible_server.store.slots import Address, key_of, slot_of
from indelible_server.store.waiters import Waiter, Watch, Watched
from indelible_server.store.wakeups import Wakeups
from redis.crc import key_slot

from tests.support.cluster import Cluster, Node
from tests.support.polling import until

LOG_ID = LogId(bytes(range(32)))
SLOT = slot_of(keys.of_log(LOG_ID).channel)


@pytest.fixture
async def clients(cluster: Cluster) -> AsyncIterator[Clients]:
    clients = connect(cluster.url, connections=4, timeout_seconds=5.0)
    await functions.load(clients.commands)
    yield clients
    await clients.close()


def test_an_address_names_one_engine_or_the_seeds_of_a_cluster() -> None:
    one = read_address("redis://user:p%40ss@h:1/0?socket_keepalive=yes")
    assert (one.url, one.is_cluster) == ("redis://user:p%40ss@h:1/0?socket_keepalive=yes", False)
    many = read_address("rediss://user:p%40ss@h:1,[::1]:2,other/?cluster=true")
    assert many.seeds == (Address("h", 1), Address("::1", 2), Address("other", 6379))
    assert many.url_of(Address("10.0.0.7", 9)) == "rediss://user:p%40ss@10.0.0.7:9"
    assert many.url_of(Address("::1", 9)) == "rediss://user:p%40ss@[::1]:9"
    assert read_address("unix:///run/socket").url == "unix:///run/socket"


@pytest.mark.parametrize(
    "url",
    [
        "redis://h:1,h:2",
        "redis://h:1/?cluster=perhaps",
        "unix:///run/socket?cluster=true",
        "redis://h:1/3?cluster=true",
        "redis://h:x/?cluster=true",
        "redis://h:70000/?cluster=true",
        "redis://h:70000",
        "http://h:1",
        "h:1",
    ],
)
def test_an_address_that_says_two_things_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        read_address(url)


def test_slots_are_those_of_the_specification() -> None:
    rng = random.Random(1)
    texts = ["{}", "{}a", "a{b}c", "{a}{b}", "a{b", "}{a}", "", "{a"]
    texts += ["".join(rng.choices("{}ab:", k=12)) for _ in range(2_000)]
    assert [slot_of(text) for text in texts] == [key_slot(text.encode()) for text in texts]
    assert len({slot_of(key) for key in keys.of_log(LOG_ID).all()}) == 1
    name = keys.name("t", "d", LogKind.OPAQUE, b"n")
    assert key_of(("FCALL", "f", 1, name, b"nonce")) == name
    assert key_of(("XREAD", "COUNT", 1, "BLOCK", 5, "STREAMS", "s", "$")) == "s"
    assert key_of(("INFO", "replication")) is None


async def test_answers_of_many_nodes_come_back_in_order(clients: Clients) -> None:
    redis = clients.commands
    names = [f"{{{number}}}:key" for number in range(300)]
    await asyncio.gather(*(redis.execute_command("SET", name, name) for name in names))
    async with redis.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.get(name)
        assert await pipe.execute() == [name.encode() for name in names]
    async with redis.pipeline(transaction=True) as pipe:
        pipe.get(names[7])
        pipe.get(names[7])
        assert await pipe.execute() == [names[7].encode()] * 2


async def test_a_node_without_the_functions_is_given_them_when_it_is_asked(
    clients: Clients, cluster: Cluster
) -> None:
    meta = keys.of_log(LOG_ID).meta
    node = await cluster.primary_of(slot_of(meta))
    async with node.client() as client:
        await client.function_flush("SYNC")
    word, _ = await functions.call(clients.commands, "cover", [meta], [0])
    assert word == "absent"


@pytest.fixture
async def listening(
    clients: Clients, cluster: Cluster
) -> AsyncIterator[tuple[Wakeups, dict[LogId, int]]]:
    """Wake-ups that recheck once a minute, and the versions that they read."""
    versions = {LOG_ID: 1}

    async def read(watched: Sequence[Watched]) -> list[int | None]:
        return [versions[LOG_ID] for _ in watched]

    wakeups = Wakeups(clients.subscriber, read, recheck_seconds=60.0)
    stop = asyncio.Event()
    running = asyncio.create_task(wakeups.run(stop))
    home = await cluster.primary_of(SLOT)
    yield wakeups, versions
    stop.set()
    await running
    await cluster.move_slot(SLOT, home)


async def until_heard_at(node: Node) -> None:
    async def is_heard() -> bool:
        async with node.client() as client:
            told = await client.execute_command("PUBSUB", "SHARDCHANNELS")
        return keys.of_log(LOG_ID).channel in told

    await until(is_heard, what="the channel is subscribed where its slot is")


async def test_a_channel_is_heard_after_its_slot_has_moved(
    clients: Clients, cluster: Cluster, listening: tuple[Wakeups, dict[LogId, int]]
) -> None:
    wakeups, versions = listening
    home = await cluster.primary_of(SLOT)
    away = next(node for node in await cluster.primaries() if node is not home)
    for number, node in enumerate((home, away, home), start=2):
        await cluster.move_slot(SLOT, node)
        watch = Watch()
        sleeping = asyncio.create_task(wakeups.sleep(watch, 30.0, also={LOG_ID: number - 1}))
        await until_heard_at(node)
        versions[LOG_ID] = number
        name = keys.of_log(LOG_ID).channel
        await clients.commands.execute_command("SPUBLISH", name, str(number))
        async with asyncio.timeout(5.0):
            assert await sleeping == "moved"
        wakeups.release(watch)


async def test_what_was_told_while_a_slot_moved_is_found_by_looking(
    cluster: Cluster, listening: tuple[Wakeups, dict[LogId, int]]
) -> None:
    wakeups, versions = listening
    home = await cluster.primary_of(SLOT)
    away = next(node for node in await cluster.primaries() if node is not home)
    watch = Watch()
    sleeping = asyncio.create_task(wakeups.sleep(watch, 30.0, also={LOG_ID: 1}))
    await until_heard_at(home)
    versions[LOG_ID] = 2  # and its hint is lost
    await cluster.move_slot(SLOT, away)
    async with asyncio.timeout(5.0):
        assert await sleeping == "moved"
    wakeups.release(watch)


async def test_who_waits_is_sure_while_every_node_that_is_listened_to_answers(
    cluster: Cluster, listening: tuple[Wakeups, dict[LogId, int]]
) -> None:
    """Two logs of two nodes; one of the nodes hangs, and its connections stay open."""
    wakeups, _ = listening
    home = await cluster.primary_of(SLOT)
    for number in range(256):
        other = LogId(bytes([number]) * 32)
        node = await cluster.primary_of(slot_of(keys.of_log(other).channel))
        if node is not home:
            break
    waiters: list[Waiter] = []

    async def both_are_sure() -> bool:
        return await wakeups.is_sure(other) and await wakeups.is_sure(LOG_ID)

    async def both_are_sure_from_the_beginning() -> bool:
        while waiters:  # the connection that listens had just begun
            wakeups.leave(waiters.pop())
        for log_id in (LOG_ID, other):
            waiters.append(Waiter(log_id, 1))
            await wakeups.enter(waiters[-1], 60.0)
        return await both_are_sure()

    await until(both_are_sure_from_the_beginning, what="both nodes answer")
    async with node.client() as client:  # no frozen process: a replica would take its place
        await client.execute_command("CLIENT", "PAUSE", 3_000, "ALL")

    async def noticed() -> bool:
        return not await wakeups.is_sure(other)

    await until(noticed, what="silence is noticed")

    await until(both_are_sure, what="the node is heard again")
    for waiter in waiters:
        wakeups.leave(waiter)

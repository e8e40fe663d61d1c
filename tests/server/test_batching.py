"""What is asked for at once goes to the store together, and everybody gets their own answer."""

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable

import pytest
from indelible_protocol.errors import ErrorCode
from indelible_server.store.batching import MAX_BATCH, MAX_CONNECTIONS, AnswerLost, NotSent
from indelible_server.store.connection import Clients, connect, write_outcome
from indelible_server.store.errors import Refusal
from redis.exceptions import ResponseError

from tests.support.engines import Engine
from tests.support.polling import until
from tests.support.proxy import FaultProxy

TIMEOUT_SECONDS = 5.0


@pytest.fixture
async def clients(engine: Engine) -> AsyncIterator[Clients]:
    opened = connect(engine.url, connections=2, timeout_seconds=TIMEOUT_SECONDS)
    yield opened
    await opened.close()


async def statistic(clients: Clients, section: str, name: str) -> int:
    """A number that the engine counts; a command's calls for the section `commandstats`."""
    found = (await clients.commands.execute_command("INFO", section)).get(name, 0)
    return int(found["calls"] if isinstance(found, dict) else found)


async def code_of(write: Awaitable[object]) -> ErrorCode:
    with pytest.raises(Refusal) as refused:
        async with write_outcome():
            await write
    return refused.value.code


async def test_everybody_gets_their_own_answer_over_few_connections(clients: Clients) -> None:
    redis = clients.commands
    await redis.execute_command("HSET", "h", *(x for n in range(1_000) for x in (f"f{n}", n)))
    before = await statistic(clients, "stats", "total_reads_processed")
    wanted = [random.randrange(1_000) for _ in range(3_000)]
    answers = await asyncio.gather(*(redis.execute_command("HGET", "h", f"f{n}") for n in wanted))
    assert [int(answer) for answer in answers] == wanted
    reads = await statistic(clients, "stats", "total_reads_processed") - before
    assert reads < 10 * (3_000 / MAX_BATCH + MAX_CONNECTIONS)
    connected = await redis.execute_command("CLIENT LIST")
    ours = [each for each in connected if each["name"] == "indelible-api"]
    assert len(ours) <= MAX_CONNECTIONS + 2


async def test_an_error_is_that_of_its_command_alone(clients: Clients) -> None:
    redis = clients.commands
    await redis.execute_command("SET", "text", "a")
    asked = ("GET", "text"), ("HGET", "text", "f"), ("GET", "nothing")
    answers: list[object] = await asyncio.gather(
        *(redis.execute_command(*command) for command in asked), return_exceptions=True
    )
    good, bad, other = answers
    assert (good, other) == (b"a", None)
    assert isinstance(bad, ResponseError)
    assert str(bad).startswith("WRONGTYPE")


async def test_a_write_whose_connection_breaks_after_sending_has_an_unknown_outcome(
    engine: Engine,
) -> None:
    async with FaultProxy(engine.socket, random.Random(1)) as wire:
        clients = connect(wire.url, connections=2, timeout_seconds=TIMEOUT_SECONDS)
        redis = clients.commands
        await asyncio.gather(*(redis.execute_command("GET", "text") for _ in range(2)))
        wire.cut_share = 1.0
        asked = [code_of(redis.execute_command("GET", "text")) for _ in range(50)]
        assert set(await asyncio.gather(*asked)) == {ErrorCode.OUTCOME_UNKNOWN}
        wire.cut_share = 0.0

        async def works() -> bool:
            try:
                return bool(await redis.execute_command("GET", "text") is None)
            except (NotSent, AnswerLost):
                return False

        await until(works, within_seconds=10)
        await clients.close()


async def test_a_write_for_which_there_is_no_connection_is_certainly_not_done() -> None:
    clients = connect("unix:///nowhere/socket", connections=2, timeout_seconds=TIMEOUT_SECONDS)
    asked = [code_of(clients.commands.execute_command("GET", "text")) for _ in range(50)]
    assert set(await asyncio.gather(*asked)) == {ErrorCode.OVERLOADED}
    await clients.close()


async def test_an_engine_that_does_not_answer_costs_no_more_than_the_deadline(
    engine: Engine,
) -> None:
    """Those under way may have been done; those behind them were certainly not sent."""
    clients = connect(engine.url, connections=2, timeout_seconds=0.4)
    redis = clients.commands

    async def outcome() -> ErrorCode | None:
        try:
            async with write_outcome():
                await redis.execute_command("GET", "text")
        except Refusal as refusal:
            return refusal.code
        return None

    started = [asyncio.ensure_future(outcome()) for _ in range(MAX_CONNECTIONS * MAX_BATCH)]
    assert set(await asyncio.gather(*started)) == {None}
    os.kill(engine.pid, signal.SIGSTOP)
    try:
        sent = [asyncio.ensure_future(outcome()) for _ in range(10)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        later = [asyncio.ensure_future(outcome()) for _ in range(9 * MAX_BATCH)]
        began = asyncio.get_running_loop().time()
        assert set(await asyncio.gather(*sent)) == {ErrorCode.OUTCOME_UNKNOWN}
        codes = await asyncio.gather(*later)
        assert asyncio.get_running_loop().time() - began < 2.0
        assert codes[-1] is ErrorCode.OVERLOADED
        assert set(codes) <= {ErrorCode.OVERLOADED, ErrorCode.OUTCOME_UNKNOWN}
    finally:
        os.kill(engine.pid, signal.SIGCONT)
    await until(lambda: outcome_is_none(outcome()), within_seconds=10)
    await clients.close()


async def outcome_is_none(outcome: Awaitable[ErrorCode | None]) -> bool:
    return await outcome is None


async def test_who_left_before_it_was_sent_sends_nothing(clients: Clients) -> None:
    redis = clients.commands
    await asyncio.gather(*(redis.execute_command("GET", "text") for _ in range(2)))
    before = await statistic(clients, "commandstats", "cmdstat_get")
    leaving = [asyncio.ensure_future(redis.execute_command("GET", "text")) for _ in range(20)]
    await asyncio.sleep(0)  # they are asked, and not sent: that comes in the next round
    for each in leaving:
        each.cancel()
    await asyncio.gather(*leaving, return_exceptions=True)
    assert await redis.execute_command("GET", "text") is None
    assert await statistic(clients, "commandstats", "cmdstat_get") == before + 1


async def test_who_asked_alone_before_does_not_wait_for_the_rounds_end(clients: Clients) -> None:
    redis = clients.commands
    assert await redis.execute_command("GET", "text") is None
    before = await statistic(clients, "commandstats", "cmdstat_get")
    leaving = [asyncio.ensure_future(redis.execute_command("GET", "text")) for _ in range(20)]
    await asyncio.sleep(0)  # they are asked: the first of them is on its way, the rest in line
    for each in leaving:
        each.cancel()
    await asyncio.gather(*leaving, return_exceptions=True)
    assert await redis.execute_command("GET", "text") is None
    assert await statistic(clients, "commandstats", "cmdstat_get") == before + 2


async def test_one_that_leaves_after_it_was_sent_does_not_disturb_the_others(
    clients: Clients,
) -> None:
    redis = clients.commands
    await redis.execute_command("HSET", "h", "a", 1, "b", 2)
    for _ in range(50):
        leaving = asyncio.ensure_future(redis.execute_command("HGET", "h", "a"))
        staying = [asyncio.ensure_future(redis.execute_command("HGET", "h", "b")) for _ in range(5)]
        for _ in range(random.randrange(6)):
            await asyncio.sleep(0)
        leaving.cancel()
        assert await asyncio.gather(*staying) == [b"2"] * 5


async def test_what_waits_when_a_client_is_closed_is_told(engine: Engine) -> None:
    clients = connect(engine.url, connections=2, timeout_seconds=TIMEOUT_SECONDS)
    redis = clients.commands
    assert await redis.execute_command("GET", "text") is None
    waiting = [asyncio.ensure_future(redis.execute_command("GET", "text")) for _ in range(3_000)]
    await asyncio.sleep(0)
    await clients.close()
    told = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(each, NotSent | AnswerLost) for each in told)
    with pytest.raises(NotSent):
        await redis.execute_command("GET", "text")


async def test_a_loop_that_was_held_up_takes_the_answers_that_lie_there(engine: Engine) -> None:
    """Each round of the loop takes longer than a command may: nobody's answer is late for that."""
    opened = connect(engine.url, connections=2, timeout_seconds=0.2)
    redis = opened.commands
    try:
        await redis.execute_command("SET", "text", "a")
        await redis.execute_command("GET", "text")  # opens the connection, in some rounds
        asked = [asyncio.ensure_future(redis.execute_command("GET", "text")) for _ in range(3)]
        while not all(each.done() for each in asked):
            await asyncio.sleep(0)
            time.sleep(0.25)
        assert [await each for each in asked] == [b"a"] * 3
    finally:
        await opened.close()

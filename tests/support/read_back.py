"""Reads of a grown log beside what the reference says: diffs, pages of them, entries, histories."""

import asyncio
import random
from contextlib import aclosing

import pytest
from indelible_protocol import messages
from indelible_protocol.errors import ErrorCode
from indelible_server.store.archive import Archive
from indelible_server.store.entries import EntryValue
from indelible_server.store.errors import Refusal
from indelible_server.store.lookups import Lookups
from indelible_server.store.places import place_of
from indelible_server.store.reading import Reader
from redis.asyncio import Redis

from tests.support.grown_logs import GrownLog

KEYS = 30

Seen = tuple[str, bytes, bytes, int]


def expected_diff(log: GrownLog, low: int, high: int) -> list[Seen]:
    values = {
        (at, effect.command_index): command.value
        for at in range(1, log.version + 1)
        for command, effect in log.effects[at]
        if effect.adds
    }
    return [
        (c.op, c.token, values[c.version, c.command_index], c.version) for c in log.net(low, high)
    ]


async def read_diff(
    reader: Reader, log: GrownLog, low: int, high: int, page: int = 10_000
) -> list[Seen]:
    """As the API reads it, page by page, each with a head of its own."""
    found: list[Seen] = []
    log_id, start = log.identity.log_id, None
    while True:
        head = await reader.head(log_id)
        some = await reader.page(log_id, head, low, high, "command", start, page)
        for op, entry in some.changes:
            found.append((op, entry.key, entry.value, entry.version))
        start = some.rest
        if start is None:
            return found


async def stream_diff(reader: Reader, log: GrownLog, low: int, high: int) -> list[Seen]:
    """As the API streams it."""
    found: list[Seen] = []
    log_id = log.identity.log_id
    head = await reader.head(log_id)
    async with aclosing(reader.portions(log_id, head, low, high, "command")) as portions:
        async for portion in portions:
            for packed in portion.changes:
                one = messages.decode(packed, messages.DiffChange, messages.Form.MSGPACK)
                found.append((one.op, one.key, one.value, one.version))
            await asyncio.sleep(0)
    return found


async def check_all(
    redis: Redis,
    log: GrownLog,
    rng: random.Random,
    times: int = 15,
    archive: Archive | None = None,
) -> None:
    """Reads at random are the reference's, or say that a version is forgotten, and which is not."""
    reader, log_id = Reader(redis, archive=archive), log.identity.log_id
    for _ in range(times):
        first = (await reader.head(log_id)).first_version
        low, high = rng.randint(0, log.version), rng.randint(max(1, first), log.version)
        if 0 < low < first:
            with pytest.raises(Refusal) as caught:
                await read_diff(reader, log, low, high)
            assert caught.value.code is ErrorCode.FORGOTTEN_VERSION
            assert caught.value.details["first_version"] == first
        elif low <= high:
            expected = expected_diff(log, low, high)
            assert await read_diff(reader, log, low, high) == expected
            assert await stream_diff(reader, log, low, high) == expected
        await check_entries(reader, log, high)
        searched = await Lookups(redis, archive).searched(
            log_id, [b"key 1", b"key 2", b"none"], high
        )
        assert searched == {
            known.token: place_of(known.version, known.command_index)
            for known in log.contents(high)
            if known.token in (b"key 1", b"key 2")
        }
    await check_histories(reader, log)


async def check_entries(reader: Reader, log: GrownLog, at: int) -> None:
    tokens = [b"key %d" % number for number in range(KEYS)]
    live = {known.token: known for known in log.contents(at)}
    _, found = await reader.entries(log.identity.log_id, tokens, at)
    assert found == [
        EntryValue(token, b"", live[token].value, live[token].version)
        for token in tokens
        if token in live
    ]


async def check_histories(reader: Reader, log: GrownLog) -> None:
    log_id = log.identity.log_id
    head = await reader.head(log_id)
    first = max(1, head.first_version)
    token = b"key 3"
    steps, rest = await reader.history(log_id, head, token, log.version + 1, 10_000)
    known = [
        at
        for at in range(log.version, first - 1, -1)
        if any(command.token == token for command, _ in log.effects[at])
    ]
    assert ([step.version for step in steps], rest) == (known, None)
    told, rest = await reader.summaries(log_id, head, log.version + 1, 10_000)
    assert ([each.version for each in told], rest) == (
        list(range(log.version, first - 1, -1)),
        None,
    )

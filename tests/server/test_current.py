"""A key at the head: in one call where the entry is at hand and small, and found all the same."""

from collections.abc import AsyncIterator

import pytest
from indelible_protocol.commands import Command, Op
from indelible_protocol.errors import ErrorCode
from indelible_protocol.ids import LogId
from indelible_server.store import current
from indelible_server.store.admission import admit_opaque
from indelible_server.store.committing import Commits
from indelible_server.store.connection import connect
from indelible_server.store.covering import Covering
from indelible_server.store.errors import Refusal
from indelible_server.store.forgetting import Forgetting
from indelible_server.store.reading import Reader
from redis.asyncio import Redis

from tests.support.engines import Engine
from tests.support.grown_logs import new_log

LARGE = b"v" * (current.MAX_BYTES + 1)


@pytest.fixture
async def redis(engine: Engine) -> AsyncIterator[Redis]:
    clients = connect(engine.url, connections=4, timeout_seconds=10.0)
    yield clients.commands
    await clients.close()


async def test_the_current_entry_is_told_wherever_it_is_and_however_large(redis: Redis) -> None:
    log = await new_log(redis)
    log_id, reader = log.identity.log_id, Reader(redis)
    sets = [Command(Op.UPSERT, b"a", value=b"1"), Command(Op.UPSERT, b"large", value=LARGE)]
    for commands in (
        [*sets, Command(Op.UPSERT, b"b", value=b"2")],
        [Command(Op.UPSERT, b"a", value=b"3")],
        [Command(Op.DELETE, b"b")],
    ):
        await Commits(redis).commit(log.identity, admit_opaque(log.identity, commands, b"", None))
    expected = {b"a": [(b"3", 2)], b"large": [(LARGE, 1)], b"b": [], b"never": []}
    for _ in ("all in the stream", "version 1 forgotten"):
        for key, entries in expected.items():
            head, found = await reader.entries(log_id, [key], None)
            assert head.version == 3
            assert [(each.value, each.version) for each in found] == entries
        assert await _is_at_hand(redis, log_id) == {b"a"}
        await Forgetting(redis).begin(log_id, 2)
        await Forgetting(redis).run(log_id, 2)


async def _is_at_hand(redis: Redis, log_id: LogId) -> set[bytes]:
    found = {
        key: await current.read(redis, Covering(redis, 0), log_id, key) for key in (b"a", b"large")
    }
    return {key for key, entry in found.items() if entry is not None}


async def test_a_key_of_no_log_is_refused(redis: Redis) -> None:
    with pytest.raises(Refusal) as refused:
        await Reader(redis).entries(LogId(bytes(32)), [b"a"], None)
    assert refused.value.code is ErrorCode.NONEXISTENT_LOG

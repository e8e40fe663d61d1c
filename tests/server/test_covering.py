"""What covers a version is written after that version was read, whoever shares the write."""

import asyncio

from indelible_protocol.commands import Command, Op
from indelible_protocol.ids import LogId
from indelible_server.store.admission import admit_opaque
from indelible_server.store.committing import Commits
from indelible_server.store.connection import connect
from indelible_server.store.covering import Covering

from tests.support.engines import Engine
from tests.support.grown_logs import new_log
from tests.support.polling import until


class Held(Covering):
    """Its writes are done at once, and over when `let_go` is set."""

    let_go: asyncio.Event

    async def _write(self, log_id: LogId) -> int:
        version = await super()._write(log_id)
        await self.let_go.wait()
        return version


async def test_a_write_that_ends_just_now_covers_nothing_that_came_after_it(engine: Engine) -> None:
    clients = connect(engine.url, connections=4, timeout_seconds=10.0)
    try:
        log = await new_log(clients.commands)
        commits = Commits(clients.commands)

        async def commit(value: bytes) -> int:
            sets = [Command(Op.UPSERT, b"k", value=value)]
            admitted = admit_opaque(log.identity, sets, b"", None)
            return (await commits.commit(log.identity, admitted)).version

        covering = Held(clients.commands, 1)
        covering.let_go = asyncio.Event()
        log_id, first = log.identity.log_id, await commit(b"1")
        early = asyncio.ensure_future(covering.cover(log_id, first, None))
        await until(lambda: covering.is_covered(log_id, first, None))
        second = await commit(b"2")
        covering.let_go.set()
        [write] = covering._covering.values()
        while not write.done():  # noqa: ASYNC110 - in the round in which nobody has heard of it
            await asyncio.sleep(0)
        assert covering._covering
        await covering.cover(log_id, second, None)
        await early
    finally:
        await clients.close()

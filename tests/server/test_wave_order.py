"""Whose handlers go on first when several logs move in the same moment.

What is read tells that there is nothing new, so no wave writes; who has been answered is told by
`take`, as by a wave that has written.
"""

import asyncio
from collections.abc import Sequence
from typing import cast

from aiohttp.test_utils import make_mocked_request
from indelible_protocol import limits
from indelible_protocol.commands import LogKind
from indelible_protocol.ids import LogId, PublicKey
from indelible_protocol.messages import Form
from indelible_server.api import waves
from indelible_server.api.pages import Pages
from indelible_server.api.request_ids import ID
from indelible_server.api.waves import Parked, Waves, the_question
from indelible_server.store.admission import LogIdentity
from indelible_server.store.recent import Asked, Recent
from indelible_server.store.shared_reads import SharedReads

QUICK, SLOW = LogId(bytes(32)), LogId(bytes([1]) * 32)
MANY = 100


class Moving:
    """Two logs: the read of SLOW's version ends when `go_on` is set."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        reads = SharedReads(self._read, part_of=lambda asked: asked.log_id[0])
        self.waves = Waves(reads, cast("Pages", None), shared_caching=False)

    async def _read(self, asked: Sequence[Asked]) -> list[Recent | None]:
        if any(one.log_id == SLOW for one in asked):
            await self.go_on.wait()
        return [None] * len(asked)

    async def begin(self, log_id: LogId, count: int, *, answered: bool) -> list[Parked]:
        """Returns when the wave has come as far as it can."""
        crowd = [_parked(log_id) for _ in range(count)]
        if answered:
            for one in crowd:
                one.take()
        self.waves.begin(log_id, [set(crowd)], 1, b"")
        for _ in range(20):
            await asyncio.sleep(0)
        return crowd


def _parked(log_id: LogId) -> Parked:
    request = make_mocked_request("GET", "/")
    request[ID] = "0" * 16
    identity = LogIdentity(
        log_id=log_id,
        tenant="acme",
        database="default",
        kind=LogKind.OPAQUE,
        name=b"name",
        group="",
        owner=PublicKey(bytes(32)),
        max_commands=limits.MAX_COMMANDS,
        max_commit_bytes=limits.MAX_COMMIT_BYTES,
        incarnation=1,
    )
    return Parked(request, identity, 1, the_question("command", 100, None, Form.MSGPACK))


def _told(crowd: Sequence[Parked]) -> int:
    return sum(one.outcome.done() for one in crowd)


async def test_answers_of_other_logs_go_out_before_the_handlers_of_many_go_on() -> None:
    moving = Moving()
    await moving.begin(SLOW, 1, answered=False)
    crowd = await moving.begin(QUICK, MANY, answered=True)
    assert _told(crowd) == 0
    moving.go_on.set()
    assert {await one.outcome for one in crowd} == {"answered"}


async def test_handlers_wait_for_the_answers_of_others_for_half_a_second_at_most() -> None:
    moving = Moving()
    await moving.begin(SLOW, 1, answered=False)
    crowd = await moving.begin(QUICK, MANY, answered=True)
    started = asyncio.get_running_loop().time()
    assert {await one.outcome for one in crowd} == {"answered"}
    assert asyncio.get_running_loop().time() - started >= waves._OTHERS_FIRST_SECONDS / 2


async def test_handlers_of_a_few_go_on_at_once() -> None:
    moving = Moving()
    await moving.begin(SLOW, 1, answered=False)
    crowd = await moving.begin(QUICK, 10, answered=True)
    assert _told(crowd) == 10


async def test_who_is_not_answered_yet_waits_for_nobody() -> None:
    moving = Moving()
    await moving.begin(SLOW, 1, answered=False)
    crowd = await moving.begin(QUICK, MANY, answered=False)
    assert _told(crowd) == MANY
    assert crowd[0].outcome.result() == "moved"

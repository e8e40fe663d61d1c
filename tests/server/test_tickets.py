"""Commits that compete for a log: one after the other, each judged on what it was just told."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from indelible_protocol import paths
from indelible_server.api.app import _drain
from indelible_server.api.tickets import MAX_TRIES, Tickets
from indelible_server.store.names import Scope

from tests.server.test_lane import Stand, stand_on
from tests.server.test_service import b64
from tests.support.engines import Engine
from tests.support.polling import until

NEVER_SECONDS = 60.0  # what takes as long has failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """`version` is -1 where none is told."""

    status: int
    version: int
    details: dict[str, Any]

    @property
    def ticket(self) -> str | None:
        ticket: str | None = self.details.get("ticket")
        return ticket


class Crowd:
    """Writes one log, whose tickets have bounds that the test chooses."""

    def __init__(self, stand: Stand, http: aiohttp.ClientSession) -> None:
        self.stand = stand
        self._http = http
        self._writes = 0

    def bound(self, **bounds: Any) -> Tickets:
        chosen = {"lease_seconds": NEVER_SECONDS, "most_wait_seconds": NEVER_SECONDS, **bounds}
        self.stand.services.tickets = Tickets(**chosen)
        return self.stand.services.tickets

    async def commit(
        self, expected: int | None, ticket: str | None = None, key: str = "k"
    ) -> Answer:
        """Sets the key to what it never was, on condition of a version; None: on none."""
        self._writes += 1
        value = b64(f"write {self._writes}")
        commands: list[dict[str, Any]] = [{"type": "Upsert", "key": b64(key), "value": value}]
        if expected is not None:
            commands.insert(0, {"type": "ExpectVersion", "version": expected})
        headers = {} if ticket is None else {"Indelible-Ticket": ticket}
        path = f"{paths.of_log(paths.COMMITS, self.stand.log)}?conflict=entries"
        async with self._http.post(path, json={"commands": commands}, headers=headers) as answer:
            body = await answer.json()
            version = int(answer.headers.get("Indelible-Version", -1))
            return Answer(status=answer.status, version=version, details=body.get("details", {}))

    async def first(self) -> str:
        """The ticket of one who was too late."""
        await self.commit(None)
        answer = await self.commit(0, "wanted")
        assert (answer.status, answer.version) == (412, 1)
        assert answer.ticket is not None
        return answer.ticket

    async def stands(self, expected: int, ticket: str = "wanted") -> "asyncio.Task[Answer]":
        """One more that stands in the line."""
        tickets = self.stand.services.tickets
        before = tickets.standing
        asking = asyncio.create_task(self.commit(expected, ticket))
        await until(lambda: tickets.standing == before + 1)
        return asking


@pytest.fixture
async def crowd(engine: Engine) -> AsyncIterator[Crowd]:
    async with stand_on(engine) as stand:
        headers = {"Authorization": f"Bearer {stand.apikey}"}
        async with aiohttp.ClientSession(stand.url, headers=headers) as http:
            yield Crowd(stand, http)


async def test_a_newcomer_that_knows_the_head_does_not_beat_who_has_the_ticket(
    crowd: Crowd,
) -> None:
    tickets = crowd.bound()
    ticket = await crowd.first()
    newcomer = await crowd.stands(1)
    won = await crowd.commit(1, ticket)
    assert (won.status, won.version) == (201, 2)
    told = await newcomer
    assert (told.status, told.version) == (412, 2)
    assert told.details["entries"][0]["version"] == 2
    assert told.ticket not in (None, ticket)
    assert (await crowd.commit(2, told.ticket)).status == 201
    assert not tickets.must_stand(crowd.stand.log, "wanted")


async def test_those_in_line_are_judged_first_come_first_served(crowd: Crowd) -> None:
    crowd.bound()
    ticket: str | None = await crowd.first()
    line = [await crowd.stands(1) for _ in range(5)]
    for version, following in enumerate(line, 1):
        assert not any(one.done() for one in line[version - 1 :])
        assert (await crowd.commit(version, ticket)).status == 201
        told = await following
        assert (told.status, told.version) == (412, version + 1)
        ticket = told.ticket
    assert ticket is not None


async def test_who_succeeds_in_its_turn_lets_the_next_one_in(crowd: Crowd) -> None:
    crowd.bound()
    ticket = await crowd.first()
    right, behind = await crowd.stands(2), await crowd.stands(1)
    assert (await crowd.commit(1, ticket)).version == 2
    assert ((await right).status, (await right).version) == (201, 3)
    assert ((await behind).status, (await behind).version) == (412, 3)


async def test_those_too_late_at_the_same_time_get_their_turns_too(crowd: Crowd) -> None:
    crowd.bound()
    await crowd.commit(None)

    async def attempts_of_one() -> int:
        told = await crowd.commit(0, "wanted")
        attempts = 1
        while told.status != 201:
            assert told.ticket is not None
            told = await crowd.commit(told.version, told.ticket)
            attempts += 1
        return attempts

    attempts = await asyncio.gather(*(attempts_of_one() for _ in range(8)))
    assert await crowd.stand.version() == 1 + 8
    assert sum(attempts) <= 3 * 8, attempts


async def test_one_that_dies_with_the_ticket_delays_the_others_by_its_lease(crowd: Crowd) -> None:
    crowd.bound(lease_seconds=0.5)
    began = time.monotonic()
    ticket = await crowd.first()
    assert (await crowd.commit(1, "wanted")).status == 201
    assert 0.45 < time.monotonic() - began < NEVER_SECONDS / 2
    assert (await crowd.commit(1, ticket)).ticket not in (None, ticket)  # as any other by now


async def test_one_that_is_slower_than_its_lease_is_judged_at_once(crowd: Crowd) -> None:
    """All others may be as slow: then nobody was faster."""
    tickets = crowd.bound(lease_seconds=0.1)
    ticket = await crowd.first()
    await until(lambda: not tickets.must_stand(crowd.stand.log, "wanted"))
    crowd.bound()
    told = await crowd.commit(0, "wanted")
    behind = await crowd.stands(1)
    assert (await crowd.commit(1, ticket)).status == 201
    late = await crowd.commit(1, told.ticket)
    assert (late.status, late.version) == (412, 2)
    assert not behind.done()
    assert (await crowd.commit(2, late.ticket)).status == 201
    assert (await behind).version == 3


async def test_who_leaves_the_line_is_passed_over(crowd: Crowd) -> None:
    crowd.bound()
    ticket = await crowd.first()
    leaving, behind = await crowd.stands(1), await crowd.stands(1)
    leaving.cancel()
    await until(lambda: crowd.stand.services.tickets.standing == 1)
    assert (await crowd.commit(1, ticket)).status == 201
    assert (await behind).version == 2


async def test_who_does_not_ask_is_answered_at_once_without_a_ticket(crowd: Crowd) -> None:
    crowd.bound()
    ticket = await crowd.first()
    late = await crowd.commit(0)
    assert (late.status, late.version, late.ticket) == (412, 1, None)
    assert (await crowd.commit(1)).status == 201
    assert (await crowd.commit(None)).status == 201
    beaten = await crowd.commit(1, ticket)
    assert (beaten.status, beaten.version) == (412, 3)
    assert (await crowd.commit(3, beaten.ticket)).status == 201


async def test_a_turn_ends_after_some_tries(crowd: Crowd) -> None:
    crowd.bound()
    ticket: str | None = await crowd.first()
    behind = await crowd.stands(1)
    for _ in range(MAX_TRIES - 1):
        ticket = (await crowd.commit(0, ticket)).ticket
        assert ticket is not None
        assert not behind.done()
    assert (await crowd.commit(0, ticket)).ticket is None
    assert (await behind).status == 201


async def test_a_turn_is_not_made_longer_by_another_try(crowd: Crowd) -> None:
    tickets = crowd.bound()
    first = await crowd.first()
    lapse = tickets._out[first].lapse
    again = (await crowd.commit(0, first)).ticket
    assert again not in (None, first)
    later = tickets._out[str(again)].lapse
    assert lapse is not None
    assert later is not None
    assert lapse.cancelled()
    assert later.when() == lapse.when()


async def test_who_stood_for_too_long_is_judged_and_keeps_its_place(crowd: Crowd) -> None:
    tickets = crowd.bound(most_wait_seconds=0.3)
    ticket = await crowd.first()
    told = await crowd.commit(0, "wanted")
    assert (told.status, told.version) == (412, 1)
    assert told.ticket not in (None, ticket)
    tickets._most_wait_seconds = NEVER_SECONDS
    behind = await crowd.stands(1)
    back = await crowd.stands(1, str(told.ticket))
    assert (await crowd.commit(1, ticket)).status == 201
    first = await back
    assert (first.status, first.version) == (412, 2)
    assert not behind.done()
    assert (await crowd.commit(2, first.ticket)).status == 201
    assert (await behind).version == 3


async def test_a_line_that_is_full_makes_nobody_wait(crowd: Crowd) -> None:
    crowd.bound(max_in_line=2)
    ticket = await crowd.first()
    line = [await crowd.stands(1) for _ in range(2)]
    late = await crowd.commit(0, "wanted")
    assert (late.status, late.version, late.ticket) == (412, 1, None)
    assert (await crowd.commit(1, ticket)).status == 201
    assert (await line[0]).version == 2


async def test_those_who_stand_hold_no_more_than_so_many_bytes(crowd: Crowd) -> None:
    crowd.bound(max_standing_bytes=40_000)
    await crowd.first()
    line = [await crowd.stands(1) for _ in range(2)]
    late = await crowd.commit(0, "wanted")
    assert (late.status, late.ticket) == (412, None)
    for one in line:
        one.cancel()


async def test_a_drain_judges_at_once_those_who_stand(crowd: Crowd) -> None:
    crowd.bound()
    await crowd.first()
    line = [await crowd.stands(0) for _ in range(3)]
    await _drain(crowd.stand.services, [], asyncio.Event())
    for one in line:
        assert ((await one).status, (await one).ticket) == (412, None)
    assert (await crowd.commit(0, "wanted")).ticket is None


async def test_a_refusal_that_is_no_conflict_ends_the_turn(crowd: Crowd) -> None:
    crowd.bound()
    ticket = await crowd.first()
    behind = await crowd.stands(1)
    assert (await crowd.commit(1, ticket, key="")).status == 400
    assert not behind.done()  # it was no commit: the ticket still holds
    crowd.stand.services.committer._max_in_flight = 0
    assert (await crowd.commit(1, ticket)).status == 503
    assert (await behind).status == 503
    assert not crowd.stand.services.tickets.must_stand(crowd.stand.log, "wanted")


async def test_a_ticket_is_of_one_log(crowd: Crowd) -> None:
    crowd.bound()
    ticket = await crowd.first()
    services, here = crowd.stand.services, crowd.stand.log
    tenant = (await services.authenticator.judge(crowd.stand.apikey)).tenant
    opened = await services.logs.create_opaque(Scope(tenant=tenant), b"other", "")
    crowd.stand.log = opened.description.identity.log_id
    await crowd.first()
    behind = await crowd.stands(0, ticket)
    crowd.stand.log = here
    assert (await crowd.commit(1, ticket)).status == 201
    assert not behind.done()
    behind.cancel()

"""Which ticket a transaction shows: none that nobody gave it, and none where there is no time."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from aiohttp import web
from indelible import AsyncClient, AsyncTransaction, Profile
from indelible_protocol import messages
from indelible_protocol.errors import ErrorCode
from indelible_protocol.messages import Form

from tests.client.double import Double
from tests.support.service import Service


class Shown(Double):
    """Passes all on, and keeps the tickets that were shown with commits."""

    def __init__(self, service_url: str) -> None:
        super().__init__(service_url)
        self.tickets: list[str | None] = []
        self.lies: list[web.Response] = []
        self.respond = self._note

    def _note(self, request: web.Request) -> web.Response | None:
        if request.method != "POST" or not request.path.endswith("/commits"):
            return None
        self.tickets.append(request.headers.get("Indelible-Ticket"))
        return self.lies.pop() if self.lies else None


@pytest.fixture
async def shown(service: Service) -> AsyncIterator[Shown]:
    made = Shown(service.url)
    async with made:
        yield made


async def race(profile: Profile, shown: Shown, timeout_seconds: float = 30.0) -> None:
    """A transaction that another beats once."""
    async with (
        AsyncClient(profile) as rivals,
        AsyncClient(
            replace(profile, endpoint_url=shown.url), timeout_seconds=timeout_seconds
        ) as client,
    ):
        rival = await rivals.log("counters", create=True)
        log = await client.log("counters")
        seen: list[int] = []

        async def increment(transaction: AsyncTransaction) -> None:
            count = await transaction.get("count", 0)
            if not seen:
                await rival.set("count", 10)
            seen.append(count)
            transaction.set("count", count + 1)

        await log.transact(increment)
        assert seen == [0, 10]
        assert await rival.get("count") == 11


async def test_a_transaction_takes_its_ticket_along(profile: Profile, shown: Shown) -> None:
    await race(profile, shown)
    wanted, ticket = shown.tickets
    assert wanted == "wanted"
    assert ticket not in (None, "wanted")


async def test_who_has_little_time_does_not_stand_in_line(profile: Profile, shown: Shown) -> None:
    await race(profile, shown, timeout_seconds=3.5)
    assert shown.tickets == [None, None]


async def test_other_commits_show_no_ticket(profile: Profile, shown: Shown) -> None:
    async with AsyncClient(replace(profile, endpoint_url=shown.url)) as client:
        log = await client.log("counters", create=True)
        await log.set("count", 1)
        await log.set("count", 2, expect_version=1)
    assert shown.tickets == [None, None]


def conflict(ticket: object) -> web.Response:
    code = ErrorCode.UNEXPECTED_VERSION
    details = {"current_version": 0, "ticket": ticket}
    problem = messages.problem(code, "too late", details, request_id="", url="")
    return web.Response(
        status=code.http_status,
        body=messages.encode(problem, Form.MSGPACK),
        content_type=messages.PROBLEM_TYPES[Form.MSGPACK],
    )


@pytest.mark.parametrize("ticket", [7, None, "", "a\r\nX: b", "x" * 65, "é"])
async def test_a_ticket_that_can_be_none_is_not_shown(
    profile: Profile, shown: Shown, ticket: object
) -> None:
    async with AsyncClient(replace(profile, endpoint_url=shown.url)) as client:
        log = await client.log("counters", create=True)
        shown.lies = [conflict(ticket)]

        async def write(transaction: AsyncTransaction) -> None:
            transaction.set("count", 1)

        await log.transact(write)
    assert shown.tickets == ["wanted", "wanted"]

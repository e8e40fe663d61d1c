"""The schedule: its table as a function, and run to its end on a clock of the test's."""

from collections.abc import AsyncIterator
from itertools import pairwise

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from indelible_protocol.errors import ErrorCode
from indelible_server.store.errors import Refusal
from indelible_server.store.webhook_records import Delivery
from indelible_server.webhooks.schedule import (
    MAX_PAUSE_SECONDS,
    RETRY_SECONDS,
    next_attempt,
    verdict_of,
)

from tests.support.engines import Engine
from tests.support.webhooks import Received, Receiver, accept, answering
from tests.webhooks.workshop import Workshop, workshop

DAY = 86_400


@pytest.fixture
async def shop(engine: Engine) -> AsyncIterator[Workshop]:
    async with workshop(engine) as made:
        yield made


@given(st.integers(1, 9), st.floats(0, 1))
def test_a_pause_is_drawn_from_nothing_to_the_tables(failures: int, fraction: float) -> None:
    pause = next_attempt(failures, "failed", None, fraction).pause_seconds
    assert pause == fraction * RETRY_SECONDS[failures]


@given(st.integers(1, 9), st.floats(0, 1), st.none() | st.floats(0, 10 * DAY))
def test_who_asks_for_time_gets_the_tables_pause_and_what_it_asks_for_up_to_a_day(
    failures: int, fraction: float, asked: float | None
) -> None:
    pause = next_attempt(failures, "slow", asked, fraction).pause_seconds
    assert pause is not None
    assert RETRY_SECONDS[failures] <= pause <= MAX_PAUSE_SECONDS
    assert pause >= min(asked or 0, MAX_PAUSE_SECONDS)


def test_the_tenth_failure_is_the_last() -> None:
    assert next_attempt(9, "failed", None, 1.0).pause_seconds == DAY
    assert next_attempt(10, "failed", 5.0, 1.0).pause_seconds is None


@pytest.mark.parametrize(
    ("verdict", "statuses"),
    [
        ("delivered", (200, 201, 202, 204, 299)),
        ("failed", (None, 100, 301, 302, 303, 304, 307, 308, 400, 401, 404, 408, 500, 503, 599)),
        ("slow", (429, 502, 504)),
        ("gone", (410,)),
    ],
)
def test_what_a_status_means(verdict: str, statuses: tuple[int | None, ...]) -> None:
    assert {verdict_of(status) for status in statuses} == {verdict}


async def test_the_schedule_runs_to_its_last_attempt_though_memory_is_lost_at_each_step(
    shop: Workshop, target: Receiver
) -> None:
    log = await shop.make_log()
    webhook_id = await shop.subscribe(target.url + "/hook", log_id=log.log_id)
    await shop.work()
    assert (await shop.webhook(webhook_id)).state == "active"
    target.behaviours["/hook"] = answering(500)
    await shop.commit(log)

    def sent() -> list[Received]:
        return [r for r in target.of_type("log.updated") if r.id.endswith(":1")]

    for attempt, pause in enumerate(RETRY_SECONDS):
        if pause:
            shop.clock.pass_seconds(pause - 0.001)
            await shop.work()
            assert len(sent()) == attempt, "too early"
            shop.clock.pass_seconds(0.001)
        assert len(target.of_type("log.updated")) == attempt, "what comes meanwhile waits"
        await shop.work()
        await shop.work()
        assert len(sent()) == attempt + 1
        await shop.commit(log)
    assert len({(r.id, r.body) for r in sent()}) == 1
    seconds = [int(r.headers["webhook-timestamp"]) for r in sent()]
    assert [b - a for a, b in pairwise(seconds)] == [*RETRY_SECONDS[1:]]
    [letter] = await shop.deliveries(webhook_id, "dead")
    assert [attempt.status for attempt in letter.attempts] == [500] * len(RETRY_SECONDS)
    assert letter.attempts[0].answer == "this is 500"

    target.behaviours["/hook"] = accept
    shop.clock.pass_seconds(5)
    await shop.work()
    told = [r.event["data"] for r in target.of_type("log.updated")[len(sent()) :]]
    assert [(d["fromVersion"], d["toVersion"]) for d in told] == [(1, 10), (1, 10), (10, 11)]
    assert await shop.webhooks.replay(shop.scope, webhook_id, letter.created_ms) == 1
    await shop.work()
    assert (sent()[-1].id, sent()[-1].body) == (sent()[0].id, sent()[0].body)
    assert len(sent()) == len(RETRY_SECONDS) + 1
    assert (await shop.deliveries(webhook_id))[0].state == "delivered"
    assert await shop.webhooks.replay(shop.scope, webhook_id, 0) == 0


async def test_a_replayed_delivery_that_fails_has_the_whole_schedule_again(
    shop: Workshop, target: Receiver
) -> None:
    log = await shop.make_log()
    webhook_id = await shop.subscribe(target.url + "/hook", log_id=log.log_id)
    await shop.work()
    target.behaviours["/hook"] = answering(500)
    await shop.commit(log)
    for _ in range(2):
        for pause in RETRY_SECONDS:
            shop.clock.pass_seconds(pause)
            await shop.work()
        assert len(await shop.deliveries(webhook_id, "dead")) == 1
        target.behaviours["/hook"] = accept  # a success between: five days are not up
        await shop.commit(log)
        await shop.work()
        target.behaviours["/hook"] = answering(500)
        assert await shop.webhooks.replay(shop.scope, webhook_id, 0) == 1
    first = target.of_type("log.updated")[0].id
    sent = [r for r in target.of_type("log.updated") if r.id == first]
    assert len(sent) == 2 * len(RETRY_SECONDS)


async def test_five_days_of_nothing_but_failures_disable(shop: Workshop, target: Receiver) -> None:
    log = await shop.make_log()
    webhook_id = await shop.subscribe(target.url + "/hook", log_id=log.log_id)
    await shop.work()
    target.behaviours["/hook"] = answering(503)
    while (await shop.webhook(webhook_id)).state == "active":
        await shop.commit(log)
        shop.clock.pass_seconds(3_600)
        await shop.work()
        assert shop.clock.ms < 1_800_000_000_000 + 7 * DAY * 1_000
    webhook = await shop.webhook(webhook_id)
    assert (webhook.state, webhook.reason) == ("disabled", "nothing but failures for five days")
    failing_ms = shop.clock.ms - webhook.failing_since_ms
    assert 5 * DAY * 1_000 <= failing_ms < 6 * DAY * 1_000
    count = len(target.requests)
    shop.clock.pass_seconds(DAY)
    await shop.work()
    assert len(target.requests) == count

    target.behaviours["/hook"] = accept
    await shop.webhooks.enable(shop.scope, webhook_id)
    await shop.work()
    assert target.requests[count].type == "webhook.challenge"
    assert [r.type for r in target.requests[count + 1 :]][:1] == ["log.updated"]
    webhook = await shop.webhook(webhook_id)
    assert (webhook.state, webhook.failing_since_ms) == ("active", 0)


@pytest.mark.parametrize(("header", "seconds"), [("120", 120), ("999999", DAY), ("soon", 5)])
async def test_retry_after_is_honoured_up_to_a_day(
    shop: Workshop, target: Receiver, header: str, seconds: int
) -> None:
    log = await shop.make_log()
    await shop.subscribe(target.url + "/hook", log_id=log.log_id)
    await shop.work()
    target.behaviours["/hook"] = answering(429, **{"Retry-After": header})
    await shop.commit(log)
    shop.fraction = 0.0
    await shop.work()
    shop.clock.pass_seconds(seconds - 0.001)
    await shop.work()
    assert len(target.of_type("log.updated")) == 1
    shop.clock.pass_seconds(0.002)
    await shop.work()
    assert len(target.of_type("log.updated")) == 2


async def test_410_disables_at_once_and_what_waits_is_kept(
    shop: Workshop, target: Receiver
) -> None:
    log = await shop.make_log()
    webhook_id = await shop.subscribe(target.url + "/hook", log_id=log.log_id)
    await shop.work()
    target.behaviours["/hook"] = answering(410)
    await shop.commit(log)
    await shop.work()
    webhook = await shop.webhook(webhook_id)
    assert (webhook.state, webhook.reason) == ("disabled", "it answered 410 Gone")
    await shop.commit(log)
    target.behaviours["/hook"] = accept
    await shop.webhooks.enable(shop.scope, webhook_id)
    await shop.work()
    told = [r.event["data"] for r in target.of_type("log.updated")]
    assert [(d["fromVersion"], d["toVersion"]) for d in told] == [(0, 1), (0, 1), (1, 2)]


async def test_a_url_that_does_not_repeat_the_challenge_is_sent_nothing_else(
    shop: Workshop, target: Receiver
) -> None:
    target.answers_challenges = False
    log = await shop.make_log()
    webhook_id = await shop.subscribe(target.url + "/hook", log_id=log.log_id)
    await shop.commit(log)
    for pause in RETRY_SECONDS:
        shop.clock.pass_seconds(pause)
        await shop.work()
    assert {r.type for r in target.requests} == {"webhook.challenge"}
    assert len(target.requests) == len(RETRY_SECONDS)
    assert (await shop.webhook(webhook_id)).reason == "the challenge was not answered"
    assert await shop.deliveries(webhook_id, "pending") == []


async def test_tests_pass_a_delivery_that_waits_and_are_bounded(
    shop: Workshop, target: Receiver
) -> None:
    log = await shop.make_log()
    webhook_id = await shop.subscribe(target.url + "/hook", log_id=log.log_id)
    await shop.work()
    target.behaviours["/hook"] = answering(500)
    await shop.commit(log)
    for pause in RETRY_SECONDS[:3]:
        shop.clock.pass_seconds(pause)
        await shop.work()
    target.behaviours["/hook"] = accept

    async def trigger(number: int) -> None:
        test = Delivery(
            delivery_id=f"{webhook_id}:test:{number}",
            type="webhook.test",
            created_ms=shop.clock(),
            body=b'{"type":"webhook.test"}',
        )
        await shop.webhooks.trigger(shop.scope, webhook_id, test)

    for number in range(9):
        await trigger(number)
    with pytest.raises(Refusal) as caught:
        await trigger(9)
    assert caught.value.code is ErrorCode.QUOTA_EXCEEDED
    await shop.work()
    assert len(target.of_type("webhook.test")) == 9
    assert len(target.of_type("log.updated")) == 3


async def test_an_answer_is_kept_to_its_first_256_bytes(shop: Workshop, target: Receiver) -> None:
    async def long(_received: Received) -> web.Response:
        return web.Response(status=500, body=b"\xff" + b"x" * 1_000_000)

    log = await shop.make_log()
    webhook_id = await shop.subscribe(target.url + "/hook", log_id=log.log_id)
    await shop.work()
    target.behaviours["/hook"] = long
    await shop.commit(log)
    await shop.work()
    [waiting] = await shop.deliveries(webhook_id, "pending")
    assert waiting.attempts[0].answer == "\ufffd" + "x" * 255

"""What a client asks about webhooks, on a service that calls receivers; both twins."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from indelible import (
    AsyncClient,
    AsyncLog,
    Delivery,
    NotFoundError,
    RequestError,
    UnavailableError,
    Webhook,
    WebhookError,
    webhooks,
)

from tests.client.conftest import OpenClient, profile_of
from tests.client.wire import Wire
from tests.support.polling import until
from tests.support.service import Service, make_tenant, store_of
from tests.support.webhooks import Received, Receiver, answering, receiver

NOWHERE = "http://127.0.0.1:9/hook"  # for what need not be received


@pytest.fixture
async def service(hooking_service: Service) -> Service:
    customer_id, apikey = await make_tenant(*await store_of(hooking_service))
    return replace(hooking_service, customer_id=customer_id, apikey=apikey)


@pytest.fixture
async def target() -> AsyncIterator[Receiver]:
    async with receiver() as made:
        yield made


async def state_of(client: AsyncClient, webhook: Webhook, state: str) -> Webhook:
    """The webhook, once it is in that state."""
    found = webhook

    async def reached() -> bool:
        nonlocal found
        found = await client.webhooks.get(webhook.webhook_id)
        return found.state == state

    await until(reached, what=f"{webhook.webhook_id} {state}")
    return found


def verified(received: Received, webhook: Webhook) -> webhooks.Event:
    key = webhook.secret or webhook.keys[0].public_key
    assert key is not None
    return webhooks.verify(received.headers, received.body, key)


async def test_a_webhook_is_challenged_then_told_and_its_log_opens_the_event(
    client: AsyncClient, log: AsyncLog, target: Receiver
) -> None:
    made = await client.webhooks.create(target.url + "/hook", log="config", payload="diff")
    assert (made.state, made.log_id, made.group) == ("unverified", log.log_id, None)
    assert (made.payload, made.signature, made.pending, made.dead) == ("diff", "hmac", 0, 0)
    assert datetime.now(UTC) - made.created < timedelta(minutes=1)
    assert made.secret is not None
    assert made.secret not in repr(made)
    await state_of(client, made, "active")
    assert verified(target.requests[0], made).type == "webhook.challenge"
    await log.set("theme", "dark")
    (received,) = await target.until(1)
    event = verified(received, made)
    assert (event.log_id, event.from_version, event.to_version) == (log.log_id, 0, 1)
    assert event.diff is not None
    diff = await log.delivered(event)
    assert (diff.from_version, diff.to_version) == (0, 1)
    assert [(c.op, c.key, c.value) for c in diff.changes] == [("add", "theme", "dark")]


async def test_a_thin_event_is_opened_by_asking_and_another_logs_is_refused(
    client: AsyncClient, log: AsyncLog, target: Receiver
) -> None:
    made = await client.webhooks.create(target.url, log="config", signature="ed25519")
    assert made.secret is None
    (key,) = made.keys
    assert key.public_key is not None
    assert key.public_key.startswith("whpk_")
    assert key.until is None
    await state_of(client, made, "active")
    await log.set("theme", "dark")
    event = verified((await target.until(1))[0], made)
    assert event.diff is None
    assert [c.value for c in (await log.delivered(event)).changes] == ["dark"]
    other = await client.log("other", create=True)
    with pytest.raises(RequestError, match="not about versions of 'other'"):
        await other.delivered(event)
    challenge = verified(target.requests[0], made)
    with pytest.raises(RequestError, match="not about versions"):
        await log.delivered(challenge)


async def test_only_versions_that_change_the_keys_are_told_and_the_service_sees_tokens(
    client: AsyncClient, log: AsyncLog, target: Receiver
) -> None:
    keys = ["canary-key", "size"]
    made = await client.webhooks.create(target.url, log="config", keys=keys)
    assert len(made.tokens) == 2
    assert all(len(token) == 32 for token in made.tokens)
    await state_of(client, made, "active")
    for key, told in (("canary-key", 1), ("size", 2)):
        await log.set("theme", key)  # no event is about this one alone
        version = (await log.set(key, 1)).version
        received = (await target.until(told))[-1]
        assert verified(received, made).to_version == version
    assert len(target.of_type("log.updated")) == 2
    assert b"canary-key" not in b"".join(each.body for each in target.requests)


async def test_a_group_every_log_and_an_id_can_be_followed(
    client: AsyncClient, log: AsyncLog
) -> None:
    by_id = await client.webhooks.create(NOWHERE, log_id=log.log_id)
    of_group = await client.webhooks.create(NOWHERE, group="site", description="for the site")
    of_all = await client.webhooks.create(NOWHERE)
    assert (by_id.log_id, by_id.group) == (log.log_id, None)
    assert (of_group.log_id, of_group.group) == (None, "site")
    assert (of_all.log_id, of_all.group, of_all.tokens) == (None, None, ())
    listed = [each async for each in client.webhooks.list()]
    assert [each.webhook_id for each in listed] == [
        each.webhook_id for each in (by_id, of_group, of_all)
    ]
    assert [each.secret for each in listed] == [None] * 3
    assert listed[1].description == "for the site"


async def test_lists_come_in_pages_whole(client: AsyncClient) -> None:
    made = {(await client.webhooks.create(f"{NOWHERE}/{n}")).webhook_id for n in range(3)}
    view = client.webhooks.list()
    for _ in range(2):
        assert {each.webhook_id async for each in view} == made


async def test_deliveries_tell_every_attempt(
    client: AsyncClient, log: AsyncLog, target: Receiver
) -> None:
    made = await client.webhooks.create(target.url + "/hook", log="config")
    await state_of(client, made, "active")
    target.behaviours["/hook"] = answering(503)
    await log.set("theme", "dark")
    await target.until(1)
    attempts = (await delivery_of(client, made, attempts=1)).attempts
    assert (attempts[0].status, attempts[0].answer) == (503, "this is 503")
    assert attempts[0].error == ""
    target.behaviours.clear()
    done = await delivery_of(client, made, attempts=2)
    assert done.state == "delivered"
    assert (done.from_version, done.to_version, done.log_id) == (0, 1, log.log_id)
    assert [each.status for each in done.attempts] == [503, 200]
    assert {verified(each, made).id for each in target.of_type("log.updated")} == {done.delivery_id}
    assert [each async for each in client.webhooks.deliveries(made.webhook_id, state="dead")] == []
    assert (await client.webhooks.get(made.webhook_id)).last_attempt == done.attempts[-1]


async def delivery_of(client: AsyncClient, webhook: Webhook, *, attempts: int) -> Delivery:
    """The newest, once it has had so many attempts."""
    found: list[Delivery] = []

    async def tried() -> bool:
        view = client.webhooks.deliveries(webhook.webhook_id)
        found[:] = [each async for each in view if each.type == "log.updated"]
        return bool(found) and len(found[0].attempts) >= attempts

    await until(tried, within_seconds=30)
    return found[0]


async def test_a_rotated_key_signs_beside_the_old_one(
    client: AsyncClient, log: AsyncLog, target: Receiver
) -> None:
    made = await client.webhooks.create(target.url, log="config")
    await state_of(client, made, "active")
    rotated = await client.webhooks.rotate_secret(made.webhook_id)
    assert rotated.secret not in (None, made.secret)
    assert [key.until is None for key in rotated.keys] == [True, False]
    assert rotated.keys[1].until is not None
    assert rotated.keys[1].until - datetime.now(UTC) > timedelta(hours=23)
    await log.set("theme", "dark")
    (received,) = await target.until(1)
    assert verified(received, made) == verified(received, rotated)
    # A third ends the first at once.
    await client.webhooks.rotate_secret(made.webhook_id)
    await log.set("theme", "light")
    received = (await target.until(2))[1]
    assert verified(received, rotated).to_version == 2
    with pytest.raises(WebhookError, match="altered"):
        verified(received, made)


async def test_a_test_event_can_be_triggered(client: AsyncClient, target: Receiver) -> None:
    made = await client.webhooks.create(target.url)
    await state_of(client, made, "active")
    delivery_id = await client.webhooks.trigger(made.webhook_id)
    (received,) = await target.until(1, "webhook.test")
    event = verified(received, made)
    assert (event.id, event.log_id, event.data) == (delivery_id, None, {})


async def test_what_says_it_is_gone_is_disabled_until_it_is_enabled_again(
    client: AsyncClient, log: AsyncLog, target: Receiver
) -> None:
    made = await client.webhooks.create(target.url + "/hook", log="config")
    await state_of(client, made, "active")
    target.behaviours["/hook"] = answering(410)
    await log.set("theme", "dark")
    disabled = await state_of(client, made, "disabled")
    assert disabled.reason
    target.behaviours.clear()
    assert (await client.webhooks.enable(made.webhook_id)).state == "unverified"
    enabled = await state_of(client, made, "active")
    assert enabled.reason == ""


async def test_nothing_died_so_nothing_is_replayed(client: AsyncClient) -> None:
    made = await client.webhooks.create(NOWHERE)
    ago = datetime.now(UTC) - timedelta(days=2)
    assert await client.webhooks.replay(made.webhook_id, since=ago) == 0
    with pytest.raises(RequestError, match="time zone"):
        await client.webhooks.replay(made.webhook_id, since=ago.replace(tzinfo=None))


async def test_a_deleted_webhook_is_not_there(client: AsyncClient) -> None:
    made = await client.webhooks.create(NOWHERE)
    await client.webhooks.delete(made.webhook_id)
    assert [each async for each in client.webhooks.list()] == []
    calls = client.webhooks
    for call in (calls.get, calls.delete, calls.enable, calls.rotate_secret, calls.trigger):
        with pytest.raises(NotFoundError, match="NONEXISTENT_WEBHOOK"):
            await call(made.webhook_id)
    with pytest.raises(NotFoundError):
        [each async for each in calls.deliveries(made.webhook_id)]


async def test_another_tenants_webhooks_are_not_there(
    client: AsyncClient, open_client: OpenClient, hooking_service: Service
) -> None:
    made = await client.webhooks.create(NOWHERE)
    customer_id, apikey = await make_tenant(*await store_of(hooking_service))
    foreign = replace(hooking_service, customer_id=customer_id, apikey=apikey)
    other = open_client(profile_of(foreign))
    with pytest.raises(NotFoundError):
        await other.webhooks.get(made.webhook_id)
    assert [each async for each in other.webhooks.list()] == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"log": "config", "group": "site"}, "one of them"),
        ({"log": "config", "log_id": "00" * 32}, "one of them"),
        ({"keys": ["a"]}, "give its name"),
        ({"group": "site", "keys": ["a"]}, "give its name"),
        ({"log_id": "00" * 31}, "64 hexadecimal digits"),
        ({"log_id": "config"}, "64 hexadecimal digits"),
        ({"log": "config", "keys": [7]}, "mode string"),
        ({"log": "config", "payload": "fat"}, "payload"),
        ({"log": "config", "signature": "rsa"}, "signature"),
    ],
    ids=str,
)
async def test_what_cannot_be_followed_is_refused(
    client: AsyncClient, log: AsyncLog, settings: dict[str, object], words: str
) -> None:
    with pytest.raises(RequestError, match=words):
        await client.webhooks.create(NOWHERE, **settings)  # type: ignore[arg-type]
    assert [each async for each in client.webhooks.list()] == []


@pytest.mark.parametrize("webhook_id", ["", "../logs", "wh_a/b", "wh_?x", "wh_%2e", "é", None, 7])
async def test_what_is_no_id_never_reaches_a_url(client: AsyncClient, webhook_id: str) -> None:
    with pytest.raises(RequestError, match="a webhook's id"):
        await client.webhooks.get(webhook_id)


async def test_a_log_that_is_not_there_cannot_be_followed(client: AsyncClient) -> None:
    with pytest.raises(NotFoundError):
        await client.webhooks.create(NOWHERE, log="nothing")
    with pytest.raises(NotFoundError):
        await client.webhooks.create(NOWHERE, log_id="00" * 32)


async def test_making_one_whose_answer_is_lost_is_not_repeated(
    service: Service, open_client: OpenClient
) -> None:
    """A second would have a key that the first has not."""
    async with Wire(service.url) as wire:
        client = open_client(profile_of(service, url=wire.url))
        wire.lose_answers = 1
        with pytest.raises(UnavailableError) as caught:
            await client.webhooks.create(NOWHERE)
        assert caught.value.may_have_applied
        assert wire.requests == 1
        (made,) = [each async for each in client.webhooks.list()]
        wire.lose_answers = 1
        with pytest.raises(UnavailableError):
            await client.webhooks.rotate_secret(made.webhook_id)
        assert len((await client.webhooks.get(made.webhook_id)).keys) == 2
        wire.lose_answers = 1
        await client.webhooks.delete(made.webhook_id)  # was done by the try before
        assert [each async for each in client.webhooks.list()] == []

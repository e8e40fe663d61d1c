"""From a commit to a receiver: what arrives, in what order, and how it is signed."""

import asyncio
import base64
import json
from functools import partial

import pytest
import standardwebhooks
from aiohttp import web
from indelible_protocol.webhooks import Key, signed_text

from tests.support.polling import until
from tests.support.service import Service, make_tenant, store_of
from tests.support.webhooks import (
    Received,
    Receiver,
    WebhookApi,
    answering,
    b64,
    in_url,
    stalled,
    webhook_api,
)


async def test_a_commit_is_delivered_and_verified_by_an_independent_library(
    api: WebhookApi, target: Receiver
) -> None:
    log_id = await api.make_log("orders", group="shop")
    await api.commit(log_id)
    made = await api.create(f"{target.url}/hook", log=log_id)
    assert made["state"] == "unverified"
    await api.until_state(made["webhook_id"], "active")
    assert await api.commit(log_id) == 2
    [received] = await target.until(1)
    event = standardwebhooks.Webhook(made["secret"]).verify(received.body, received.headers)
    assert event["type"] == "log.updated"
    assert event["data"] == {
        "log": in_url(log_id),
        "group": "shop",
        "fromVersion": 1,
        "toVersion": 2,
    }
    assert received.id == f"{made['webhook_id']}:{in_url(log_id)}:2"
    assert received.headers["content-type"] == "application/json"
    assert "." not in received.id, "what is signed is separated by full stops"


async def test_ed25519_deliveries_are_verified_with_the_public_key(
    api: WebhookApi, target: Receiver
) -> None:
    log_id = await api.make_log("orders")
    made = await api.create(f"{target.url}/hook", log=log_id, signature="ed25519")
    assert "secret" not in made
    public = Key.read(made["keys"][0]["public_key"])
    await api.until_state(made["webhook_id"], "active")
    await api.commit(log_id)
    [received] = await target.until(1)
    scheme, _, signature = received.headers["webhook-signature"].partition(",")
    text = signed_text(received.id, int(received.headers["webhook-timestamp"]), received.body)
    assert scheme == "v1a"
    assert public.signed(text, base64.b64decode(signature))


async def test_a_rotated_secret_signs_beside_the_one_before(
    api: WebhookApi, target: Receiver
) -> None:
    log_id = await api.make_log("orders")
    made = await api.create(f"{target.url}/hook", log=log_id)
    webhook_id = made["webhook_id"]
    await api.until_state(webhook_id, "active")
    secrets = [made["secret"]]
    for count in (1, 2):
        rotated = await api.ask("POST", f"/v2/webhooks/{webhook_id}/rotate-secret")
        secrets.append(rotated["secret"])
        assert len(rotated["webhook"]["keys"]) == 2, "at most two are active"
        await api.commit(log_id)
        received = (await target.until(count))[-1]
        for secret in secrets[-2:]:
            standardwebhooks.Webhook(secret).verify(received.body, received.headers)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(secrets[0]).verify(received.body, received.headers)
    assert made["secret"] not in json.dumps(await api.get(webhook_id))


async def test_a_group_is_followed_with_logs_that_come_later_and_says_when_one_goes(
    api: WebhookApi, target: Receiver
) -> None:
    old = await api.make_log("old", group="shop")
    await api.commit(old)
    made = await api.create(f"{target.url}/hook", group="shop")
    await api.until_state(made["webhook_id"], "active")
    new, other = await api.make_log("new", group="shop"), await api.make_log("x", group="y")
    for log_id in (other, new, old):
        await api.commit(log_id)
    received = await target.until(2)
    told = {(r.event["data"]["log"], r.event["data"]["fromVersion"]) for r in received}
    assert told == {(in_url(new), 0), (in_url(old), 1)}
    await api.delete_log(new)
    [gone] = await target.until(1, "log.deleted")
    assert gone.event["data"] == {"log": in_url(new), "group": "shop"}
    assert len(target.of_type("log.updated")) == 2


async def test_a_database_is_followed_whole(api: WebhookApi, target: Receiver) -> None:
    made = await api.create(f"{target.url}/hook")
    await api.until_state(made["webhook_id"], "active")
    logs = [await api.make_log(f"log-{n}", group=f"g{n}") for n in range(5)]
    for log_id in logs:
        await api.commit(log_id)
    received = await target.until(5)
    assert {r.event["data"]["log"] for r in received} == {in_url(log_id) for log_id in logs}


async def test_tokens_filter_versions_and_what_is_skipped_is_not_told_later(
    api: WebhookApi, target: Receiver
) -> None:
    log_id = await api.make_log("orders")
    made = await api.create(f"{target.url}/hook", log=log_id, tokens=[b64("wanted")])
    await api.until_state(made["webhook_id"], "active")
    for _ in range(5):
        await api.commit(log_id, "other")
        await asyncio.sleep(0.02)
    await api.commit(log_id, "wanted")
    [received] = await target.until(1)
    assert received.event["data"]["toVersion"] == 6
    await api.commit(log_id, "other")
    await api.commit(log_id, "wanted")
    assert (await target.until(2))[1].event["data"]["toVersion"] == 8


async def test_a_diff_is_sent_along_as_the_api_answers_it_unless_it_is_large(
    api: WebhookApi, target: Receiver
) -> None:
    log_id = await api.make_log("orders")
    made = await api.create(f"{target.url}/hook", log=log_id, payload="diff")
    await api.until_state(made["webhook_id"], "active")
    await api.commit(log_id, "k", "small")
    [received] = await target.until(1)
    answered = await api.ask("GET", f"/v2/logs/{in_url(log_id)}/diff?from=0&to=1")
    assert received.event["data"]["diff"] == answered
    await api.commit(log_id, "k", "x" * 30_000)
    assert (await target.until(2))[1].event["data"]["diff"] is None


async def test_what_comes_while_an_endpoint_is_busy_is_told_at_once_and_in_order(
    api: WebhookApi, target: Receiver
) -> None:
    log_id = await api.make_log("orders")
    made = await api.create(f"{target.url}/hook", log=log_id)
    await api.until_state(made["webhook_id"], "active")
    go_on = asyncio.Event()

    async def busy(_received: Received) -> web.Response:
        await go_on.wait()
        return web.json_response({})

    target.behaviours["/hook"] = busy
    await api.commit(log_id)
    await target.until(1)
    for _ in range(50):
        await api.commit(log_id)
    go_on.set()

    def told() -> list[tuple[int, int]]:
        data = [r.event["data"] for r in target.of_type("log.updated")]
        return [(each["fromVersion"], each["toVersion"]) for each in data]

    await until(lambda: told()[-1][1] == 51)
    assert [low for low, _ in told()] == [0, *(high for _, high in told()[:-1])]
    assert len(told()) <= 3, "the last hints may come a little later"


async def test_a_stalled_endpoint_delays_no_other(api: WebhookApi, target: Receiver) -> None:
    log_id = await api.make_log("orders")
    for path in ("/good", "/bad"):
        made = await api.create(target.url + path, log=log_id)
        await api.until_state(made["webhook_id"], "active")
    target.behaviours["/bad"] = stalled
    for count in range(1, 6):
        await api.commit(log_id)
        good = partial(target.of_type, "log.updated", "/good")
        await until(lambda: len(good()) == count, within_seconds=5.0)  # noqa: B023


async def test_attempts_are_listed_with_status_time_and_words(
    api: WebhookApi, target: Receiver
) -> None:
    log_id = await api.make_log("orders")
    made = await api.create(f"{target.url}/hook", log=log_id)
    webhook_id = made["webhook_id"]
    await api.until_state(webhook_id, "active")
    target.behaviours["/hook"] = answering(500)
    await api.commit(log_id)

    async def failed() -> bool:
        waiting = await api.deliveries(webhook_id, "?state=pending")
        return bool(waiting and waiting[0]["attempts"])

    await until(failed)
    [waiting] = await api.deliveries(webhook_id, "?state=pending")
    assert waiting["state"] == "pending"
    assert waiting["due_ms"] > waiting["created_ms"]
    attempt = waiting["attempts"][0]
    assert (attempt["status"], attempt["answer"]) == (500, "this is 500")
    shown = await api.get(webhook_id)
    assert (shown["pending"], shown["dead"]) == (1, 0)
    assert shown["last_attempt"]["status"] == 500


async def test_a_test_event_is_sent_on_demand(api: WebhookApi, target: Receiver) -> None:
    made = await api.create(f"{target.url}/hook")
    await api.until_state(made["webhook_id"], "active")
    triggered = await api.ask("POST", f"/v2/webhooks/{made['webhook_id']}/trigger", expected=202)
    [received] = await target.until(1, "webhook.test")
    assert received.id == triggered["delivery_id"]
    standardwebhooks.Webhook(made["secret"]).verify(received.body, received.headers)


async def test_pages_of_webhooks_and_deliveries_lead_from_one_to_the_next(
    api: WebhookApi, target: Receiver
) -> None:
    made = [await api.create(f"{target.url}/{n}", description=str(n)) for n in range(5)]
    found, cursor = [], ""
    while True:
        page = await api.ask("GET", f"/v2/webhooks?limit=2{cursor}")
        found += [each["webhook_id"] for each in page["webhooks"]]
        if page["cursor"] is None:
            break
        cursor = f"&cursor={page['cursor']}"
    assert found == [each["webhook_id"] for each in made]
    webhook_id = found[0]
    await api.until_state(webhook_id, "active")
    sent = []
    for count in range(7):
        answer = await api.ask("POST", f"/v2/webhooks/{webhook_id}/trigger")
        sent.append(answer["delivery_id"])
        await target.until(count + 1, "webhook.test")

    async def all_over() -> bool:
        return not await api.deliveries(webhook_id, "?state=pending")

    await until(all_over)
    ids, cursor = [], ""
    while True:
        page = await api.ask("GET", f"/v2/webhooks/{webhook_id}/deliveries?limit=3{cursor}")
        ids += [each["delivery_id"] for each in page["deliveries"]]
        if page["cursor"] is None:
            break
        cursor = f"&cursor={page['cursor']}"
    assert ids[:-1] == sent[::-1]
    assert ":challenge:" in ids[-1]


async def test_a_deleted_webhook_is_sent_nothing_more(api: WebhookApi, target: Receiver) -> None:
    log_id = await api.make_log("orders")
    made = await api.create(f"{target.url}/hook", log=log_id)
    await api.until_state(made["webhook_id"], "active")
    path = f"/v2/webhooks/{made['webhook_id']}"
    await api.ask("DELETE", path, expected=204)
    for method, rest in (
        ("GET", ""), ("DELETE", ""), ("POST", "/enable"), ("POST", "/rotate-secret"),
        ("POST", "/trigger"), ("GET", "/deliveries"),
    ):  # fmt: skip
        told = await api.ask(method, path + rest, expected=404)
        assert told["code"] == "NONEXISTENT_WEBHOOK"
    await api.commit(log_id)
    kept = await api.create(f"{target.url}/kept", log=log_id)
    await api.until_state(kept["webhook_id"], "active")
    await api.commit(log_id)
    await until(lambda: bool(target.of_type("log.updated", "/kept")))
    assert target.of_type("log.updated", "/hook") == []


async def test_another_tenants_webhook_is_as_good_as_none(
    api: WebhookApi, target: Receiver, hooking_service: Service
) -> None:
    made = await api.create(f"{target.url}/hook")
    _, apikey = await make_tenant(*await store_of(hooking_service))
    async with webhook_api(hooking_service.url, apikey) as stranger:
        for webhook_id in (made["webhook_id"], "wh_" + "0" * 16, "wh_x", "..", "%00"):
            told = await stranger.ask("GET", f"/v2/webhooks/{webhook_id}", expected=404)
            assert told["code"] in ("NONEXISTENT_WEBHOOK", "NO_SUCH_ROUTE")
        assert (await stranger.ask("GET", "/v2/webhooks"))["webhooks"] == []
        log_id = await api.make_log("orders")
        body = {"url": target.url, "log": log_id}
        told = await stranger.ask("POST", "/v2/webhooks", body, expected=404)
        assert told["code"] == "NONEXISTENT_LOG"


@pytest.mark.parametrize(
    "members",
    [
        {"url": ""}, {"url": "nowhere"}, {"url": "ftp://example.org"}, {"url": "https://"},
        {"url": "https://a:b@example.org"}, {"url": "https://example.org/#x"},
        {"url": "https://example.org:99999"}, {"url": "https://exämple.org"},
        {"url": "https://example.org/ x"}, {"url": "https://[::1"}, {"url": "x" * 3_000},
        {"log": "AAAA"}, {"log": "A" * 43 + "=", "group": "g"}, {"group": "g" * 300},
        {"payload": "fat"}, {"signature": "none"}, {"tokens": [""]}, {"unknown": 1},
        {"description": "x" * 257},
    ],
    ids=str,
)  # fmt: skip
async def test_what_cannot_be_subscribed_is_refused(
    api: WebhookApi, members: dict[str, object]
) -> None:
    status = 413 if len(str(members.get("group", ""))) > 256 else 400
    body = {"url": "https://example.org/hook"} | members
    told = await api.ask("POST", "/v2/webhooks", body, expected=status)
    assert told["code"] in ("BAD_REQUEST", "TOO_LARGE")

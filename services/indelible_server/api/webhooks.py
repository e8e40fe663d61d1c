"""Handlers of the native API for webhooks. Makes nothing be sent: that is another process's."""

import secrets
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web
from indelible_protocol import messages, paths, webhooks
from indelible_protocol.errors import ErrorCode, ProtocolError
from indelible_protocol.ids import LogId
from msgspec import UNSET

from indelible_server.api.messages import answer, read_message
from indelible_server.api.parameters import CURSOR, DELIVERY_STATE, PAGE, Query
from indelible_server.api.requests import check_key, scope_of
from indelible_server.api.services import SERVICES, Services
from indelible_server.store.logs import check_group, nonexistent
from indelible_server.store.names import Scope
from indelible_server.store.webhook_records import (
    Attempt,
    Delivery,
    DeliveryState,
    Webhook,
    event_body,
)
from indelible_server.store.webhooks import ShownWebhook, Subscription, nonexistent_webhook

_STATES: dict[str, DeliveryState] = {
    "pending": "pending",
    "delivered": "delivered",
    "dead": "dead",
}


async def create(request: web.Request) -> web.Response:
    scope = await scope_of(request)
    Query(request, ())
    services = request.app[SERVICES]
    asked = await read_message(request, messages.CreateWebhook)
    subscription = await _subscription(services, scope, asked)
    webhook = await services.webhooks.create(
        scope, subscription, most=services.settings.max_tenant_webhooks
    )
    told = _message(services, ShownWebhook(webhook=webhook, pending=0, dead=0))
    if webhook.signature == "hmac":
        told.secret = webhook.last_key(services.secret).spelled()
    location = paths.of_webhook(paths.WEBHOOK, webhook.webhook_id)
    return answer(request, told, status=201, headers={"Location": location})


async def _subscription(
    services: Services, scope: Scope, asked: messages.CreateWebhook
) -> Subscription:
    if asked.log is not UNSET and asked.group is not UNSET:
        raise ProtocolError("log or group expected, not both")
    check_url(asked.url, allow_private=services.settings.webhook_allow_private)
    log_id, group = None, None
    if asked.log is not UNSET:
        log_id = LogId(asked.log)
        identity = await services.logs.identify(scope.tenant, log_id)
        if identity.database != scope.database:
            raise nonexistent()
        await services.logs.describe(identity)
        for token in asked.tokens:
            check_key(token, identity)
    if asked.group is not UNSET:
        group = asked.group
        check_group(group)
    return Subscription(
        url=asked.url,
        log_id=log_id,
        group=group,
        tokens=frozenset(asked.tokens),
        payload=asked.payload,
        signature=asked.signature,
        description=asked.description,
    )


def check_url(url: str, *, allow_private: bool) -> None:
    """Its shape; where it may lead is judged when it is connected to.

    Raises:
        ProtocolError.
    """
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ProtocolError("url: visible ASCII expected (a name in its xn-- form)")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ProtocolError("url is none that can be called") from None
    if parts.scheme not in (("https", "http") if allow_private else ("https",)):
        raise ProtocolError("url: https:// expected")
    if not host or port == 0:
        raise ProtocolError("url: a host expected, as in https://example.org/hook")
    if "@" in parts.netloc:
        raise ProtocolError("url: no user or password expected; deliveries are signed")
    if parts.fragment:
        raise ProtocolError("url: no fragment expected")


async def list_webhooks(request: web.Request) -> web.Response:
    scope = await scope_of(request)
    services = request.app[SERVICES]
    query = Query(request, (CURSOR, PAGE))
    after = _place(services, query, "webhooks", scope, "") or 0
    page, rest = await services.webhooks.page(scope, after, query.whole(PAGE))
    return answer(
        request,
        messages.Webhooks(
            webhooks=[_message(services, shown) for shown in page],
            cursor=_cursor(services, "webhooks", scope, "", rest),
        ),
    )


async def describe(request: web.Request) -> web.Response:
    scope, webhook_id = await _asked(request)
    services = request.app[SERVICES]
    return answer(request, _message(services, await services.webhooks.get(scope, webhook_id)))


async def delete(request: web.Request) -> web.Response:
    scope, webhook_id = await _asked(request)
    await request.app[SERVICES].webhooks.delete(scope, webhook_id)
    return web.Response(status=204)


async def enable(request: web.Request) -> web.Response:
    scope, webhook_id = await _asked(request)
    services = request.app[SERVICES]
    return answer(request, _message(services, await services.webhooks.enable(scope, webhook_id)))


async def rotate_secret(request: web.Request) -> web.Response:
    scope, webhook_id = await _asked(request)
    services = request.app[SERVICES]
    shown = await services.webhooks.rotate(scope, webhook_id)
    told = messages.RotatedSecret(webhook=_message(services, shown))
    if shown.webhook.signature == "hmac":
        told.secret = shown.webhook.last_key(services.secret).spelled()
    return answer(request, told)


async def trigger(request: web.Request) -> web.Response:
    scope, webhook_id = await _asked(request)
    services = request.app[SERVICES]
    now_ms = services.webhooks.now_ms()
    delivery = Delivery(
        delivery_id=f"{webhook_id}:test:{secrets.token_hex(8)}",
        type=webhooks.TEST,
        created_ms=now_ms,
        body=event_body(webhooks.TEST, now_ms, {}),
    )
    await services.webhooks.trigger(scope, webhook_id, delivery)
    return answer(request, messages.Triggered(delivery_id=delivery.delivery_id), status=202)


async def deliveries(request: web.Request) -> web.Response:
    scope = await scope_of(request)
    services = request.app[SERVICES]
    webhook_id = _webhook_id(request)
    query = Query(request, (DELIVERY_STATE, CURSOR, PAGE))
    state = _STATES.get(query.choice(DELIVERY_STATE))
    pinned = f"{webhook_id}:{state or ''}"
    before = _place(services, query, "deliveries", scope, pinned)
    found, rest = await services.webhooks.deliveries(
        scope, webhook_id, state, before, query.whole(PAGE)
    )
    return answer(
        request,
        messages.Deliveries(
            deliveries=[_delivery(each) for each in found],
            cursor=_cursor(services, "deliveries", scope, pinned, rest),
        ),
    )


async def replay(request: web.Request) -> web.Response:
    scope, webhook_id = await _asked(request)
    asked = await read_message(request, messages.Replay)
    count = await request.app[SERVICES].webhooks.replay(scope, webhook_id, asked.since)
    return answer(request, messages.Replayed(replayed=count))


async def _asked(request: web.Request) -> tuple[Scope, str]:
    scope = await scope_of(request)
    Query(request, ())
    return scope, _webhook_id(request)


def _webhook_id(request: web.Request) -> str:
    """
    Raises:
        Refusal: NONEXISTENT_WEBHOOK for what no webhook's id is shaped like.
    """
    webhook_id = request.match_info["webhook_id"]
    digits = webhook_id.removeprefix("wh_")
    if len(webhook_id) != 19 or len(digits) != 16 or not set(digits) <= set("0123456789abcdef"):
        raise nonexistent_webhook()
    return webhook_id


def _place(services: Services, query: Query, purpose: str, scope: Scope, pinned: str) -> int | None:
    cursor = query.text(CURSOR)
    if cursor is None:
        return None
    *belongs, place = services.cursors.open(purpose, cursor, 4)
    if belongs != [scope.tenant, scope.database, pinned] or not isinstance(place, int):
        raise ProtocolError("the cursor belongs to another listing", ErrorCode.BAD_CURSOR)
    return place


def _cursor(
    services: Services, purpose: str, scope: Scope, pinned: str, place: int | None
) -> str | None:
    if place is None:
        return None
    return services.cursors.seal(purpose, [scope.tenant, scope.database, pinned, place])


def _message(services: Services, shown: ShownWebhook) -> messages.Webhook:
    webhook = shown.webhook
    last = webhook.last_attempt
    return messages.Webhook(
        webhook_id=webhook.webhook_id,
        url=webhook.url,
        tokens=sorted(webhook.tokens),
        payload=webhook.payload,
        signature=webhook.signature,
        description=webhook.description,
        state=webhook.state,
        created_ms=webhook.created_ms,
        keys=_keys(services, webhook),
        pending=shown.pending,
        dead=shown.dead,
        log=UNSET if webhook.log_id is None else webhook.log_id,
        group=UNSET if webhook.group is None else webhook.group,
        reason=webhook.reason or UNSET,
        last_attempt=UNSET if last is None else _attempt(last),
    )


def _keys(services: Services, webhook: Webhook) -> list[messages.WebhookKey]:
    """Those that sign now, the newest first."""
    now_ms = services.webhooks.now_ms()
    return [
        messages.WebhookKey(
            since_ms=key.since_ms,
            until_ms=UNSET if key.until_ms is None else key.until_ms,
            public_key=UNSET
            if webhook.signature == "hmac"
            else key.derived(services.secret, webhook).public().spelled(),
        )
        for key in webhook.signing(now_ms)
    ]


def _attempt(attempt: Attempt) -> messages.Attempt:
    return messages.Attempt(
        at_ms=attempt.at_ms,
        status=attempt.status,
        took_ms=attempt.took_ms,
        answer=attempt.answer,
        error=UNSET if attempt.error is None else attempt.error,
    )


def _delivery(delivery: Delivery) -> messages.Delivery:
    fields: dict[str, Any] = {
        name: UNSET if value is None else value
        for name, value in (
            ("log_id", delivery.log_id),
            ("from_version", delivery.from_version),
            ("to_version", delivery.to_version),
            ("due_ms", delivery.due_ms),
        )
    }
    return messages.Delivery(
        delivery_id=delivery.delivery_id,
        type=delivery.type,
        state=delivery.state,
        created_ms=delivery.created_ms,
        attempts=[_attempt(attempt) for attempt in delivery.attempts],
        **fields,
    )

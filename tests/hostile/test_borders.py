"""Every route against every kind of caller. The routes come from the router: a new one is in."""

import asyncio
import base64
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from indelible_protocol.ids import to_base64url
from indelible_server.api.app import make_app
from indelible_server.api.services import make_services
from indelible_server.settings import Settings
from indelible_server.store.connection import connect
from indelible_server.store.tenants import Tenants

from tests.hostile.wire import RawAnswer, exchange, request
from tests.support.service import Service, make_tenant, store_of

# Whoever reaches the listener may ask these; nothing in them is a tenant's.
PUBLIC = {"/livez", "/readyz", "/metrics", "/errors", "/v2/openapi.json", "/v2/docs"}
# Routes whose body names the caller, and the caller's own names for things.
BY_BODY = re.compile(r"/v1/log/(create|update|diff)")
OWN = re.compile(r"/v2/names/\{name\}|/v2/logs|/v2/wait|/v2/webhooks.*")

NO_WEBHOOK = "wh_" + "0" * 16


@dataclass(frozen=True, slots=True)
class Route:
    method: str
    path: str

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    customer_id: str
    apikey: str


def routes() -> Iterator[Route]:
    """All that the process serves, from its own router."""
    clients = connect("unix:///nowhere", connections=1, timeout_seconds=1)
    app = make_app(make_services(Settings(), bytes(32), clients, lambda point: None))
    for route in app.router.routes():
        assert route.resource is not None
        yield Route(route.method, route.resource.canonical)


ROUTES = sorted({route for route in routes() if route.method != "HEAD"}, key=str)
GUARDED = [route for route in ROUTES if route.path not in PUBLIC]


def spelled(route: Route, log_id: str, caller: Tenant | None) -> bytes:
    """A request to `route` that is right but for its caller."""
    path = route.path.format(log_id=log_id, name="dmlzaXRz", key="aw", webhook_id=NO_WEBHOOK)
    if "{name}" in route.path:
        path += "?kind=opaque"
    if BY_BODY.fullmatch(route.path):
        members: dict[str, object] = {"logName": "visits"}
        if caller is not None:
            authinfo = {"customer_id": caller.customer_id, "apikey": caller.apikey}
            members = {"authinfo": authinfo, **members}
        body = json.dumps(members).encode()
        if route.path.endswith("update"):
            body += b'{"type":"Upsert","key":"aw==","value":"dg=="}'
        return request(route.method, path, body=body)
    headers = [] if caller is None else [f"Authorization: Bearer {caller.apikey}"]
    body = {
        "/v2/logs/{log_id}/commits": b'{"commands":[{"type":"Delete","key":"aw=="}]}',
        "/v2/logs/{log_id}/entries:batchGet": b'{"keys":["aw=="]}',
        "/v2/wait": b'{"logs":[{"log_id":"' + b"A" * 43 + b'=","version":0}],"wait":0}',
    }.get(route.path, b"{}")
    if route.method in ("GET", "DELETE"):
        return request(route.method, path, *headers)
    return request(route.method, path, *headers, "Content-Type: application/json", body=body)


async def answer_to(service: Service, raw: bytes) -> RawAnswer:
    closing = raw.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
    [answer] = (await exchange(service.url, closing)).answers
    return answer


async def make_stranger(service: Service) -> Tenant:
    customer_id, apikey = await make_tenant(*await store_of(service))
    return Tenant(customer_id=customer_id, apikey=apikey)


async def make_log(service: Service) -> str:
    """The id, as in URLs, of an opaque log `visits` with an entry `k`."""
    me = Tenant(customer_id=service.customer_id, apikey=service.apikey)
    made = await answer_to(service, spelled(Route("PUT", "/v2/names/{name}"), "", me))
    assert made.status == 201
    log_id = base64.b64decode(json.loads(made.body)["description"]["log_id"])
    answer = await answer_to(service, spelled(Route("POST", "/v1/log/update"), "", me))
    assert answer.status == 200, answer.body
    return to_base64url(log_id)


def bare(answer: RawAnswer) -> tuple[int, bytes, bytes]:
    """The answer without what differs between any two: the request's id and the time."""
    head = re.sub(rb"(?im)^(date|indelible-request-id):.*\r$", b"", answer.head)
    body = re.sub(rb'"request_id":"[0-9a-f]+"', b"", answer.body)
    return answer.status, head, body


def test_the_router_is_read() -> None:
    assert len(GUARDED) >= 16
    assert Route("POST", "/v2/logs/{log_id}/commits") in GUARDED


@pytest.mark.parametrize("route", GUARDED, ids=str)
async def test_who_has_no_valid_key_is_refused(service: Service, route: Route) -> None:
    url, secret = await store_of(service)
    log_id = await make_log(service)
    stranger = await make_stranger(service)
    clients = connect(url, connections=1, timeout_seconds=5.0)
    try:
        tenants = Tenants(clients.commands, secret)
        [name] = [t.name for t in await tenants.list() if t.tenant_id == stranger.customer_id]
        await tenants.revoke_key(name, stranger.apikey)
    finally:
        await clients.close()
    key_id, right = service.apikey.split("_", 2)[1:]
    strange_id, strange = stranger.apikey.split("_", 2)[1:]
    callers = {
        "no key": None,
        "an empty key": "",
        "garbage": "x" * 80,
        "a long key": "ik_" + "a" * 4_000,
        "a revoked key": stranger.apikey,
        "an unknown id": f"ik_{'0' * 16}_{right}",
        "another's secret": f"ik_{key_id}_{strange}",
        "another's id": f"ik_{strange_id}_{right}",
        "the id alone": f"ik_{key_id}_",
        "an altered secret": service.apikey[:-1] + ("A" if service.apikey[-1] != "A" else "B"),
        "a shorter secret": service.apikey[:-1],
        "a longer secret": service.apikey + "A",
        "the wrong case": service.apikey.swapcase(),
        "a pattern": "ik_" + "*" * 16 + "_*",
        "a key of the store": "ik_}:meta00000000000_x",
    }
    for what, apikey in callers.items():
        caller = (
            None
            if apikey is None
            else Tenant(customer_id=service.customer_id, apikey=apikey)
        )  # fmt: skip
        answer = await answer_to(service, spelled(route, log_id, caller))
        assert (answer.status, answer.code) == (401, "BAD_API_KEY"), what


@pytest.mark.parametrize("route", [r for r in GUARDED if not BY_BODY.fullmatch(r.path)], ids=str)
async def test_another_scheme_of_authorization_is_no_key(service: Service, route: Route) -> None:
    log_id = await make_log(service)
    basic = base64.b64encode(f"{service.customer_id}:{service.apikey}".encode()).decode()
    for words in (
        f"Basic {basic}", service.apikey, f"Bearer{service.apikey}", "Bearer", "Bearer null",
        f"Token {service.apikey}", f"Bearer {service.customer_id}", f"Bearer {service.apikey} x",
    ):  # fmt: skip
        raw = spelled(route, log_id, Tenant(customer_id="", apikey="THE-KEY"))
        raw = raw.replace(b"Bearer THE-KEY", words.encode())
        answer = await answer_to(service, raw)
        assert (answer.status, answer.code) == (401, "BAD_API_KEY"), words


@pytest.mark.parametrize("route", GUARDED, ids=str)
async def test_another_tenants_log_is_as_good_as_none(service: Service, route: Route) -> None:
    """To a stranger a log that is there and one that is not are the same, byte for byte."""
    log_id, absent = await make_log(service), to_base64url(bytes(32))
    stranger = await make_stranger(service)
    if BY_BODY.fullmatch(route.path):
        theirs = Tenant(customer_id=service.customer_id, apikey=stranger.apikey)
        answer = await answer_to(service, spelled(route, "", theirs))
        assert (answer.status, answer.code) == (401, "BAD_API_KEY")
    foreign, none = await asyncio.gather(
        *(answer_to(service, spelled(route, which, stranger)) for which in (log_id, absent))
    )
    if "{log_id}" in route.path:
        assert (foreign.status, foreign.code) == (404, "NONEXISTENT_LOG")
        assert bare(foreign) == bare(none)
    elif not (OWN.fullmatch(route.path) or BY_BODY.fullmatch(route.path)):
        pytest.fail(f"say in this test what {route} may show to a stranger")
    assert to_base64url(base64.urlsafe_b64decode(log_id + "=")).encode() not in foreign.body
    me = Tenant(customer_id=service.customer_id, apikey=service.apikey)
    mine = await answer_to(service, spelled(Route("GET", "/v2/logs/{log_id}"), log_id, me))
    assert json.loads(mine.body)["version"] == 1


async def test_a_stranger_lists_waits_and_opens_nothing_of_mine(service: Service) -> None:
    log_id = await make_log(service)
    stranger = await make_stranger(service)
    key = f"Authorization: Bearer {stranger.apikey}"
    standard = base64.b64encode(base64.urlsafe_b64decode(log_id + "=")).decode()
    watched = json.dumps({"logs": [{"log_id": standard, "version": 0}], "wait": 0}).encode()
    absent = json.dumps({"logs": [{"log_id": "A" * 43 + "=", "version": 0}], "wait": 0}).encode()
    headers = (key, "Content-Type: application/json")
    mine, none = [
        json.loads(
            (await answer_to(service, request("POST", "/v2/wait", *headers, body=body))).body
        )
        for body in (watched, absent)
    ]
    assert (mine["moved"], none["moved"]) == ([], [])
    assert mine["gone"] == [standard]
    listed = await answer_to(service, request("GET", "/v2/logs?group=", key))
    assert json.loads(listed.body)["logs"] == []
    opened = await answer_to(service, request("GET", "/v2/names/dmlzaXRz?kind=opaque", key))
    assert (opened.status, opened.code) == (404, "NONEXISTENT_LOG")


async def test_a_cursor_of_mine_is_of_no_use_to_a_stranger(service: Service) -> None:
    me = f"Authorization: Bearer {service.apikey}"
    headers = (me, "Content-Type: application/json")
    for name in ("YQ", "Yg", "Yw"):
        raw = request("PUT", f"/v2/names/{name}?kind=opaque", *headers, body=b"{}")
        assert (await answer_to(service, raw)).status == 201
    page = json.loads((await answer_to(service, request("GET", "/v2/logs?limit=1", me))).body)
    stranger = await make_stranger(service)
    key = f"Authorization: Bearer {stranger.apikey}"
    answer = await answer_to(service, request("GET", f"/v2/logs?cursor={page['cursor']}", key))
    assert (answer.status, answer.code) == (400, "BAD_CURSOR")
    other = (me, "Indelible-Database: other")
    answer = await answer_to(service, request("GET", f"/v2/logs?cursor={page['cursor']}", *other))
    assert (answer.status, answer.code) == (400, "BAD_CURSOR")


@pytest.mark.parametrize("route", [r for r in GUARDED if "{log_id}" in r.path], ids=str)
async def test_a_log_of_another_database_is_as_good_as_none(service: Service, route: Route) -> None:
    log_id, absent = await make_log(service), to_base64url(bytes(32))
    me = Tenant(customer_id=service.customer_id, apikey=service.apikey)
    elsewhere = b"\r\nIndelible-Database: other\r\n"
    foreign, none = [
        await answer_to(service, spelled(route, which, me).replace(b"\r\n", elsewhere, 1))
        for which in (log_id, absent)
    ]
    assert (foreign.status, foreign.code) == (404, "NONEXISTENT_LOG")
    assert bare(foreign) == bare(none)


@pytest.mark.parametrize("route", [r for r in ROUTES if r.path in PUBLIC], ids=str)
async def test_public_routes_tell_nothing_of_a_tenant(service: Service, route: Route) -> None:
    log_id = await make_log(service)
    answer = await answer_to(service, request(route.method, route.path))
    assert answer.status == 200
    raw = base64.urlsafe_b64decode(log_id + "=")
    for secret in (service.customer_id, service.apikey, log_id, raw.hex(), "visits", "dmlzaXRz"):
        assert secret.encode() not in answer.body

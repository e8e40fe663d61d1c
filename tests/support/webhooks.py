"""Receivers of webhooks, and what a tenant asks the service about them.

A receiver is a real HTTP server on loopback with any number of endpoints (paths). It notes
every request whole and answers as the test says. Knows nothing of the product's code.
"""

import asyncio
import base64
import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web

from tests.support.polling import until


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    at: float
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def event(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.body)
        return told

    @property
    def type(self) -> str:
        return str(self.event["type"])


Behaviour = Callable[[Received], Awaitable[web.StreamResponse]]


async def accept(_received: Received) -> web.Response:
    return web.json_response({})


def answering(status: int, **headers: str) -> Behaviour:
    async def behaviour(_received: Received) -> web.Response:
        return web.Response(status=status, headers=headers, text=f"this is {status}")

    return behaviour


@dataclass(slots=True)
class Receiver:
    """`behaviours` by path; challenges are answered unless `answers_challenges` is False."""

    url: str = ""
    requests: list[Received] = field(default_factory=list)
    behaviours: defaultdict[str, Behaviour] = field(
        default_factory=lambda: defaultdict(lambda: accept)
    )
    answers_challenges: bool = True

    async def handle(self, request: web.Request) -> web.StreamResponse:
        received = Received(
            at=time.monotonic(),
            path=request.path,
            headers={name.lower(): value for name, value in request.headers.items()},
            body=await request.read(),
        )
        self.requests.append(received)
        if self.answers_challenges and received.type == "webhook.challenge":
            return web.json_response({"challenge": received.event["data"]["challenge"]})
        return await self.behaviours[request.path](received)

    def of_type(self, kind: str, path: str | None = None) -> list[Received]:
        return [r for r in self.requests if r.type == kind and path in (None, r.path)]

    async def until(self, count: int, kind: str = "log.updated", **how: float) -> list[Received]:
        await until(lambda: len(self.of_type(kind)) >= count, what=f"{count} {kind}", **how)
        return self.of_type(kind)


@asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", made.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1_024).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield made
    finally:
        await runner.cleanup()


class WebhookApi:
    """What a tenant asks, in JSON; raises on any answer that is not `expected`."""

    def __init__(self, session: aiohttp.ClientSession, url: str, apikey: str) -> None:
        self._session = session
        self._url = url
        self._headers = {"Authorization": f"Bearer {apikey}"}

    async def ask(
        self, method: str, path: str, body: Any = None, *, expected: int | None = None
    ) -> Any:
        async with self._session.request(
            method, self._url + path, json=body, headers=self._headers
        ) as response:
            told = await response.json() if response.content_length else None
            assert expected in (None, response.status), (response.status, told)
            assert expected is not None or response.status < 400, (response.status, told)
            return told

    async def create(self, url: str, **members: Any) -> dict[str, Any]:
        body = {"url": url, **members}
        made: dict[str, Any] = await self.ask("POST", "/v2/webhooks", body, expected=201)
        return made

    async def get(self, webhook_id: str) -> dict[str, Any]:
        found: dict[str, Any] = await self.ask("GET", f"/v2/webhooks/{webhook_id}")
        return found

    async def until_state(self, webhook_id: str, state: str, **how: float) -> dict[str, Any]:
        async def reached() -> bool:
            return bool((await self.get(webhook_id))["state"] == state)

        await until(reached, what=f"{webhook_id} {state}", **how)
        return await self.get(webhook_id)

    async def deliveries(self, webhook_id: str, query: str = "") -> list[dict[str, Any]]:
        path = f"/v2/webhooks/{webhook_id}/deliveries{query}"
        found: list[dict[str, Any]] = (await self.ask("GET", path))["deliveries"]
        return found

    async def make_log(self, name: str, group: str = "") -> str:
        """Its id, as JSON spells bytes."""
        spelled = base64.urlsafe_b64encode(name.encode()).rstrip(b"=").decode()
        made = await self.ask("PUT", f"/v2/names/{spelled}?kind=opaque", {"group": group})
        log_id: str = made["description"]["log_id"]
        return log_id

    async def commit(self, log_id: str, key: str = "k", value: str | None = None) -> int:
        fresh = value if value is not None else str(time.monotonic_ns())
        command = {"type": "Upsert", "key": b64(key), "value": b64(fresh)}
        path = f"/v2/logs/{in_url(log_id)}/commits"
        answer = await self.ask("POST", path, {"commands": [command]})
        version: int = answer["version"]
        return version

    async def delete_log(self, log_id: str) -> None:
        await self.ask("DELETE", f"/v2/logs/{in_url(log_id)}", expected=204)


@asynccontextmanager
async def webhook_api(url: str, apikey: str) -> AsyncIterator[WebhookApi]:
    async with aiohttp.ClientSession() as session:
        yield WebhookApi(session, url, apikey)


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def in_url(log_id: str) -> str:
    """A log id in the spelling of URLs and of events."""
    return log_id.translate(str.maketrans("+/", "-_")).rstrip("=")


async def stalled(_received: Received) -> web.Response:
    await asyncio.sleep(3_600)
    raise AssertionError

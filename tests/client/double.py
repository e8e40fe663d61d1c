"""A service that lies: passes requests on to the real one, and changes what it answers."""

from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer
from indelible_protocol import messages
from indelible_protocol.errors import ProtocolError
from indelible_protocol.messages import Form, Message

M = TypeVar("M", bound=Message)
Tamper = Callable[[Any], Any]


class Double:
    """Use as `async with`; then `url` stands for the service at `service_url`.

    `tamper` gets the answers of one type, decoded, and gives back the message to answer with
    instead. Messages as they were when no tampering is set.
    """

    def __init__(self, service_url: str) -> None:
        self._service_url = service_url
        self._kind: type[Message] | None = None
        self._tamper: Tamper = lambda message: message
        self.answered: list[Any] = []
        self.respond: Callable[[web.Request], web.Response | None] = lambda request: None
        app = web.Application(client_max_size=64 << 20)
        app.router.add_route("*", "/{path:.*}", self._pass)
        self._server = TestServer(app)

    @property
    def url(self) -> str:
        return str(self._server.make_url("")).rstrip("/")

    def tamper(self, kind: type[M], tamper: Callable[[M], Any]) -> None:
        self._kind, self._tamper = kind, tamper

    def honest(self) -> None:
        self._kind = None

    async def __aenter__(self) -> "Double":
        self._session = aiohttp.ClientSession(auto_decompress=False)
        await self._server.start_server()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        await self._server.close()
        await self._session.close()

    async def _pass(self, request: web.Request) -> web.Response:
        own = self.respond(request)
        if own is not None:
            return own
        headers = {
            name: value
            for name, value in request.headers.items()
            if name not in ("Host", "Content-Length")
        }
        async with self._session.request(
            request.method,
            self._service_url + request.raw_path,
            headers=headers,
            data=await request.read(),
        ) as answer:
            body = await answer.read()
            if self._kind is not None and answer.status < 300:
                body = self._tampered(body, self._kind)
            return web.Response(
                status=answer.status,
                body=body,
                headers={
                    name: value
                    for name, value in answer.headers.items()
                    if name not in ("Content-Length", "Date", "Server")
                },
            )

    def _tampered(self, body: bytes, kind: type[Message]) -> bytes:
        try:
            message = messages.decode(body, kind, Form.MSGPACK)
        except ProtocolError:
            return body  # an answer of another type
        self.answered.append(message)
        return messages.encode(self._tamper(message), Form.MSGPACK)

"""What is answered below the routes: to a head that cannot be read, to an unknown Expect.

aiohttp would quote the offending header to its sender and to the log, and it may hold an API
key. Knows nothing of what a request is about.
"""

from collections.abc import Awaitable, Callable
from typing import Any, cast

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler
from indelible_protocol.errors import ErrorCode

from indelible_server.api.messages import problem
from indelible_server.api.request_ids import REQUEST_ID, new_request_id

log = structlog.get_logger("indelible_server.api")


Around = Callable[[web.Request, Handler], Awaitable[web.StreamResponse]]


async def refusing(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPExpectationFailed:
        return _refused(request, "Expect: 100-continue is all that may be expected")


class Runner(web.AppRunner):
    """aiohttp's, with connections that refuse in our own words, and `around` each request."""

    def __init__(self, app: web.Application, *, around: Around = refusing, **options: Any) -> None:
        super().__init__(app, **options)
        self._around = around

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        options = {k: v for k, v in self._kwargs.items() if k != "handler_cancellation"}
        around, handler = self._around, server.request_handler
        return _Server(
            lambda request: around(cast(web.Request, request), handler),
            request_factory=server.request_factory,
            handler_cancellation=server.handler_cancellation,
            **options,
        )


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


class _Connection(web.RequestHandler):
    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """`message` and `exc` quote what was sent: neither is told, here or in the log."""
        if request.writer.output_size > 0:
            raise ConnectionError("part of an answer is out; another cannot follow")
        if status < 500:
            return _refused(request, "the head or the framing of the request is no valid HTTP")
        request_id = new_request_id()
        log.error("request.failed", request_id=request_id, route="unknown", exc_info=exc)
        return _answer(request, ErrorCode.INTERNAL_ERROR, "the server failed", request_id)


def _refused(request: web.BaseRequest, message: str) -> web.Response:
    request_id = new_request_id()
    log.info("request.unreadable", request_id=request_id)
    return _answer(request, ErrorCode.BAD_REQUEST, message, request_id)


def _answer(
    request: web.BaseRequest, code: ErrorCode, message: str, request_id: str
) -> web.Response:
    response = problem(request, code, message, {}, request_id=request_id)
    response.headers[REQUEST_ID] = request_id
    response.force_close()
    return response

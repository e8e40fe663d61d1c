"""What happens below the routes: heads that cannot be read, and requests that need no route.

aiohttp would quote an offending header to its sender and to the log, and it may hold an API
key. What a lane takes does not go through aiohttp's tasks, routes and answers. Knows nothing
of what a request is about.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Protocol, cast

import structlog
from aiohttp import web
from aiohttp.http import RawRequestMessage
from aiohttp.typedefs import Handler
from indelible_protocol.errors import ErrorCode

from indelible_server.api.heads import RequestHead, framed, parsed
from indelible_server.api.messages import problem
from indelible_server.api.request_ids import REQUEST_ID, new_request_id

log = structlog.get_logger("indelible_server.api")


Around = Callable[[web.Request, Handler], Awaitable[web.StreamResponse]]


async def refusing(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPExpectationFailed:
        return _refused(request, "Expect: 100-continue is all that may be expected")


class Body(Protocol):
    """That of a request which has arrived whole: aiohttp's, or a `_Body`."""

    total_bytes: int

    def read_nowait(self) -> bytes:
        """Takes it: a lane that leaves the request to the routes must not have."""


class Lane(Protocol):
    """A way for some requests past the routes."""

    def begin(self, connection: "LanedConnection", head: RequestHead, body: Body) -> bool:
        """Takes a request that has arrived whole: True, and then `connection.answer` is called
        once, now or later. Or leaves it to the routes, as it was."""


class Runner(web.AppRunner):
    """aiohttp's, with connections that refuse in our own words, `around` each request that takes
    the routes, and the lane, if there is one, for those that need not."""

    def __init__(
        self,
        app: web.Application,
        *,
        around: Around = refusing,
        lane: Lane | None = None,
        **options: Any,
    ) -> None:
        super().__init__(app, **options)
        self._around = around
        slots = {
            slot for one in web.RequestHandler.__mro__ for slot in getattr(one, "__slots__", ())
        }
        self._lane = lane if slots >= _INSIDES else None

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        options = {k: v for k, v in self._kwargs.items() if k != "handler_cancellation"}
        around, handler = self._around, server.request_handler
        return _Server(
            lambda request: around(cast(web.Request, request), handler),
            self._lane,
            request_factory=server.request_factory,
            handler_cancellation=server.handler_cancellation,
            **options,
        )


class _Server(web.Server):
    def __init__(self, handler: Any, lane: Lane | None, **options: Any) -> None:
        super().__init__(handler, **options)
        self._lane = lane

    def __call__(self) -> web.RequestHandler:
        connection = LanedConnection(self, loop=self._loop, **self._kwargs)
        if self._lane is not None:
            connection.lane = self._lane
            connection._messages = cast("deque[Any]", _Messages())
        return connection


# What a lane touches of aiohttp's connection. Where it is missing, every request takes the routes.
_INSIDES = frozenset(
    {
        *("_waiter", "_messages", "_msg_queue_resume_size", "_buffer_paused", "_reading_paused"),
        *("_keepalive_timeout", "_next_keepalive_close_time", "_close", "_force_close"),
    }
)


class _Messages(list[Any]):
    """What aiohttp calls of a deque, for a few: an empty deque takes 0.7 KiB of each connection."""

    __slots__ = ()

    def popleft(self) -> Any:
        return self.pop(0)


class _Answered(NamedTuple):
    """In place of an answer that is out: that one would take 2 KiB of each connection."""

    keep_alive: bool


_ANSWERED = (_Answered(False), _Answered(True))


class _Body:
    __slots__ = ("_data", "total_bytes")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.total_bytes = len(data)

    def read_nowait(self) -> bytes:
        return self._data


_UNKNOWN = -1


class LanedConnection(web.RequestHandler):
    """aiohttp's connection; `lane` is offered each request that finds it idle.

    aiohttp's own task sleeps on `_waiter` while there is nothing to do. It is not woken for what
    the lane takes, and what comes meanwhile waits its turn among `_messages`. A plain request that
    comes whole, where the one before has ended, does not even pass aiohttp's parser: `_missing`
    are the bytes until such an end, `_UNKNOWN` from the first request on that is not plain.
    """

    __slots__ = ("_is_choosing", "_missing", "_under_way", "lane")

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.lane: Lane | None = None
        self._under_way = False
        self._is_choosing = False
        self._missing = 0

    def data_received(self, data: bytes) -> None:
        waiter = None if self.lane is None else self._waiter
        whole = self._whole(data) if self._missing != _UNKNOWN and data else None
        if waiter is None or waiter.done():
            super().data_received(data)
            return
        if whole is not None and not self._messages and not self._under_way:
            if not self._offers(*whole):
                super().data_received(data)  # which wakes aiohttp's task
            return
        self._waiter = None  # so that nobody is woken yet
        try:
            super().data_received(data)
        finally:
            self._waiter = waiter
        self._choose()

    def _whole(self, data: bytes) -> tuple[RequestHead, Body] | None:
        """The request that `data` is, if a lane reads such a one. Counts what is missing."""
        if self._missing:
            self._missing = max(self._missing - len(data), _UNKNOWN)
            return None
        found = framed(data)
        if found is None:
            self._missing = _UNKNOWN
            return None
        size, body_at, head = found
        self._missing = max(size - len(data), _UNKNOWN)
        return None if self._missing or head is None else (head, _Body(data[body_at:]))

    def _offers(self, head: RequestHead, body: Body) -> bool:
        """Whether the lane takes it."""
        is_ending = self.transport is None or self._close or self._force_close
        if self.lane is None or is_ending or self.writing_paused:
            return False
        self._under_way = True  # until it is answered, which may be at once
        if self.lane.begin(self, head, body):
            return True
        self._under_way = False
        return False

    def _choose(self) -> None:
        """Offers what came to the lane; the first that it leaves goes to aiohttp's task."""
        if self._is_choosing:
            return
        self._is_choosing = True
        try:
            while self._messages and not self._under_way and self.transport is not None:
                message, body = self._messages[0]
                head = None
                if type(message) is RawRequestMessage and body.is_eof():
                    head = parsed(message)
                if head is not None and self._offers(head, body):
                    self._forget_first()
                else:
                    if self._waiter is not None and not self._waiter.done():
                        self._waiter.set_result(None)
                    return
        finally:
            self._is_choosing = False

    def _forget_first(self) -> None:
        """As aiohttp's task does with what it takes."""
        self._messages.popleft()
        if self._parser is not None:
            self._parser.message_consumed()
        if self._buffer_paused and len(self._messages) <= self._msg_queue_resume_size:
            self._resume_reading_if_drained()

    def answer(self, data: bytes, *, close: bool) -> bool:
        """The answer to what the lane took; False if nobody is there any more."""
        self._under_way = False
        transport = self.transport
        if transport is None or transport.is_closing():
            return False
        transport.write(data)
        if close:
            self.force_close()
            return True
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        if self._messages:
            self._choose()
        return True

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """aiohttp's task keeps what this gives until the next answer, and asks it one thing."""
        resp, reset = await super().finish_response(request, resp, start_time)
        return cast(web.StreamResponse, _ANSWERED[bool(resp.keep_alive)]), reset

    def resume_reading(self, resume_parser: bool = True) -> None:
        """aiohttp parses nothing once more after each body that was read, paused or not."""
        if self.lane is None or self._reading_paused:
            super().resume_reading(resume_parser)

    def _process_keepalive(self) -> None:
        if self._under_way:
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        super()._process_keepalive()

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

"""What surrounds every request: its id, its one log line, its errors as problems."""

import time
from typing import Any

import structlog
from aiohttp import web
from aiohttp.hdrs import METH_ALL
from aiohttp.typedefs import Handler
from indelible_protocol.errors import ErrorCode, ProtocolError

from indelible_server.api.messages import explained, problem
from indelible_server.api.request_ids import ID, REQUEST_ID, new_request_id
from indelible_server.api.services import SERVICES
from indelible_server.store.errors import Refusal
from indelible_server.telemetry import AnsweredRequest, log_request

log = structlog.get_logger("indelible_server.api")

TENANT = web.RequestKey("tenant", str)
CODE = web.RequestKey("code", str)
WAITED = web.RequestKey("waited", bool)
STREAMED = web.RequestKey("streamed", bool)  # its answer is under way, until somebody leaves


async def canonical_line(request: web.Request, handler: Handler) -> web.StreamResponse:
    """One log line and one observation per request; the answer carries the request's id.

    Goes around the whole application, not between it and a handler: a long poll holds one
    frame less while it waits, and two less than if errors had a coroutine of their own.
    """
    request_id = request[ID] = new_request_id()
    started = time.perf_counter()
    status = None
    try:
        try:
            response = await handler(request)
        except Exception as error:
            response = _problem(request, error, request_id)
        status = response.status
        response.headers[REQUEST_ID] = request_id
        if request.app[SERVICES].draining:
            response.force_close()
        return response
    finally:
        if status is None:  # the client left
            status = 200 if request.get(STREAMED) else 499
        _observe(request, request_id, status, time.perf_counter() - started)


def _problem(request: web.Request, error: Exception, request_id: str) -> web.Response:
    code, message, details = _told(request, error, request_id)
    request[CODE] = code.name
    response = problem(request, code, message, details, request_id=request_id)
    if isinstance(error, web.HTTPExpectationFailed):  # whether a body follows is not known
        response.force_close()
    return response


def _told(
    request: web.Request, error: Exception, request_id: str
) -> tuple[ErrorCode, str, dict[str, Any]]:
    match error:
        case Refusal() | ProtocolError() if error.code is not ErrorCode.INTERNAL_ERROR:
            return explained(error)
        case web.HTTPRequestEntityTooLarge():
            most = request.app._client_max_size
            return ErrorCode.TOO_LARGE, f"the body is larger than {most} bytes", {}
        case web.HTTPNotFound():
            return ErrorCode.NO_SUCH_ROUTE, "there is nothing at this path", {}
        case web.HTTPMethodNotAllowed():
            methods = ", ".join(sorted(error.allowed_methods))
            return ErrorCode.METHOD_NOT_ALLOWED, f"the methods here are {methods}", {}
        case web.HTTPExpectationFailed():
            told = "Expect: 100-continue is all that may be expected"
            return ErrorCode.BAD_REQUEST, told, {}
    log.error("request.failed", exc_info=error, request_id=request_id, route=_route(request))
    return explained(error)


def _observe(request: web.Request, request_id: str, status: int, seconds: float) -> None:
    route = _route(request)
    method = request.method if request.method in METH_ALL else "other"  # any word can be sent
    waited = request.get(WAITED, False)
    counts = request.app[SERVICES].metrics.requests
    counts.add(route, method, status, None if waited else seconds)
    log_request(
        AnsweredRequest(
            request_id=request_id,
            method=method,
            route=route,
            status=status,
            code=request.get(CODE),
            tenant=request.get(TENANT),
            took_ms=round(seconds * 1_000, 2),
            waited=waited,
            size_bytes=request.content_length,
        )
    )


def _route(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "unknown"

"""What surrounds every request: its id, its one log line, its errors as problems."""

import time

import structlog
from aiohttp import web
from aiohttp.hdrs import METH_ALL
from aiohttp.typedefs import Handler
from indelible_protocol.errors import ErrorCode, ProtocolError

from indelible_server.api.messages import problem
from indelible_server.api.request_ids import ID, REQUEST_ID, new_request_id
from indelible_server.api.services import SERVICES
from indelible_server.store.errors import Refusal
from indelible_server.telemetry import AnsweredRequest, log_request

log = structlog.get_logger("indelible_server.api")

TENANT = web.RequestKey("tenant", str)
CODE = web.RequestKey("code", str)
WAITED = web.RequestKey("waited", bool)
STREAMED = web.RequestKey("streamed", bool)  # its answer is under way, until somebody leaves


@web.middleware
async def canonical_line(request: web.Request, handler: Handler) -> web.StreamResponse:
    """One log line and one observation per request; the answer carries the request's id."""
    request_id = request[ID] = new_request_id()
    started = time.perf_counter()
    status = None
    try:
        response = await _answered(request, handler, request_id)
        status = response.status
        response.headers[REQUEST_ID] = request_id
        if request.app[SERVICES].draining:
            response.force_close()
        return response
    finally:
        if status is None:  # the client left
            status = 200 if request.get(STREAMED) else 499
        _observe(request, request_id, status, time.perf_counter() - started)


async def _answered(request: web.Request, handler: Handler, request_id: str) -> web.StreamResponse:
    try:
        return await handler(request)
    except Refusal as refusal:
        code, message, details = refusal.code, refusal.message, refusal.details
    except ProtocolError as error:
        code, message, details = error.code, str(error), {}
    except web.HTTPRequestEntityTooLarge:
        code, details = ErrorCode.TOO_LARGE, {}
        message = f"the body is larger than {request.app._client_max_size} bytes"
    except web.HTTPNotFound:
        code, message, details = ErrorCode.NO_SUCH_ROUTE, "there is nothing at this path", {}
    except web.HTTPMethodNotAllowed as error:
        code, details = ErrorCode.METHOD_NOT_ALLOWED, {}
        message = f"the methods here are {', '.join(sorted(error.allowed_methods))}"
    except Exception:
        log.exception("request.failed", request_id=request_id, route=_route(request))
        code, details = ErrorCode.INTERNAL_ERROR, {}
        message = "the server failed; its log tells more under this request_id"
    request[CODE] = code.name
    return problem(request, code, message, details, request_id=request_id)


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

"""Reading requests and writing answers in the form that was asked for."""

import asyncio
from collections.abc import Mapping
from typing import Any, TypeVar

from aiohttp import web
from indelible_protocol import limits, messages
from indelible_protocol.errors import ErrorCode, ProtocolError
from indelible_protocol.messages import Form, Message

from indelible_server.api.services import SERVICES
from indelible_server.store.errors import Refusal

ERRORS_PATH = "/errors"  # served by every API process, so that the link leads somewhere

M = TypeVar("M", bound=Message)

_FORMS = {form.value: form for form in Form}


def answer_form(request: web.BaseRequest) -> Form:
    """What `Accept` names, else the form of the request's body, else JSON."""
    body_form = Form.MSGPACK if request.content_type == Form.MSGPACK.value else Form.JSON
    return accepted_form(request.headers.get("Accept", ""), body_form)


def accepted_form(accept: str, otherwise: Form) -> Form:
    if accept in _FORMS:
        return _FORMS[accept]
    return next((form for name, form in _FORMS.items() if name in accept), otherwise)


def header(request: web.Request, name: str) -> str | None:
    """A header that has one meaning: read twice, by us and by a proxy, it must not have two.

    Raises:
        ProtocolError: it stands twice.
    """
    values = request.headers.getall(name, ())
    if len(values) > 1:
        raise ProtocolError(f"the header {name} stands twice")
    return values[0] if values else None


def body_form(request: web.Request) -> Form:
    """
    Raises:
        Refusal: UNSUPPORTED_MEDIA.
    """
    header(request, "Content-Type")
    try:
        form = Form(request.content_type)
    except ValueError:
        raise Refusal(
            ErrorCode.UNSUPPORTED_MEDIA,
            f"Content-Type {request.content_type[:80]!r}; application/msgpack or "
            "application/json expected",
        ) from None
    if (request.charset or "utf-8").lower() != "utf-8":
        raise Refusal(ErrorCode.UNSUPPORTED_MEDIA, "charset=utf-8 or none expected")
    return form


async def read_bytes(request: web.Request) -> bytes:
    """The body, whole, within the deadline.

    Raises:
        Refusal: UNSUPPORTED_MEDIA for a compressed one, TOO_LARGE, REQUEST_TIMEOUT.
        ProtocolError: its framing is broken.
    """
    for name, plain in (("Content-Encoding", "identity"), ("Transfer-Encoding", "chunked")):
        encoding = header(request, name)
        if encoding is not None and encoding.strip().lower() != plain:
            raise Refusal(ErrorCode.UNSUPPORTED_MEDIA, f"{name}: bodies are taken as they are only")
    if (request.content_length or 0) > limits.MAX_BODY_BYTES:
        raise Refusal(ErrorCode.TOO_LARGE, f"the body is larger than {limits.MAX_BODY_BYTES} bytes")
    seconds = request.app[SERVICES].settings.body_seconds
    try:
        async with asyncio.timeout(seconds):
            return await request.read()
    except web.RequestPayloadError:
        raise ProtocolError("the body's framing is broken") from None
    except TimeoutError:
        raise Refusal(
            ErrorCode.REQUEST_TIMEOUT, f"the body did not arrive within {seconds:g} s"
        ) from None


async def read_message(request: web.Request, kind: type[M]) -> M:
    form = body_form(request)
    return messages.decode(await read_bytes(request), kind, form)


def answer(
    request: web.Request,
    message: Message | bytes,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    """`message` may be encoded already, in the form that the request asks for."""
    form = answer_form(request)
    body = message if isinstance(message, bytes) else messages.encode(message, form)
    return web.Response(status=status, body=body, content_type=form.value, headers=headers)


def explained(error: Exception) -> tuple[ErrorCode, str, dict[str, Any]]:
    """What is told of an error: its code, for people, for programs."""
    if isinstance(error, Refusal):
        return error.code, error.message, error.details
    if isinstance(error, ProtocolError):
        return error.code, str(error), {}
    told = "the server failed; its log tells more under this request_id"
    return ErrorCode.INTERNAL_ERROR, told, {}


def problem(
    request: web.BaseRequest,
    code: ErrorCode,
    message: str,
    details: dict[str, Any],
    *,
    request_id: str,
    status: int | None = None,
) -> web.Response:
    headers, body = problem_parts(
        code, message, details, request_id=request_id, form=answer_form(request)
    )
    return web.Response(status=status or code.http_status, body=body, headers=headers)


def retry_after(code: ErrorCode, details: dict[str, Any]) -> dict[str, str]:
    """The header that tells when to try again; none where that would be of no use."""
    if code.http_status in (429, 503):
        return {"Retry-After": str(details.get("retry_after_seconds", 1))}
    return {}


def problem_parts(
    code: ErrorCode, message: str, details: dict[str, Any], *, request_id: str, form: Form
) -> tuple[dict[str, str], bytes]:
    """Headers and body of the answer that tells an error."""
    body = messages.problem(
        code, message, details, request_id=request_id, url=f"{ERRORS_PATH}#{code.name}"
    )
    headers = {"Cache-Control": "no-store", "Content-Type": messages.PROBLEM_TYPES[form]}
    headers |= retry_after(code, details)
    if "current_version" in details:
        headers["Indelible-Version"] = str(details["current_version"])
    return headers, messages.encode(body, form)

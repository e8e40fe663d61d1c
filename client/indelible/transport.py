"""Requests to the service: one attempt each, and what went wrong in this library's words.

Owns the connections, the timeouts and the bounds on an answer. Speaks msgpack both ways;
follows no redirect, unpacks no compressed answer, keeps no cookie and uses no proxy of the
environment. Never tries again: that is for callers, who know what may be repeated.
"""

import asyncio
import io
import os
import socket
import ssl
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Generic, NoReturn, TypeVar

import aiohttp
import msgpack
import msgspec
from indelible_protocol import limits, messages, paths
from indelible_protocol.errors import ErrorCode, ProtocolError
from indelible_protocol.messages import Form, Message

from indelible.errors import (
    ConfigError,
    ConflictError,
    DeniedError,
    IndelibleError,
    NotFoundError,
    RequestError,
    UnavailableError,
    VerificationError,
)

MAX_ANSWER_BYTES = 4 * limits.MAX_PAGE_BYTES
MAX_IN_FLIGHT = 64  # requests but waits, for each client
CONNECT_SECONDS = 5.0
ATTEMPT_SECONDS = 10.0
WAIT_MARGIN_SECONDS = 5.0
MAX_TICKET_CHARS = 64
IN_ONE_PIECE_BYTES = 1 << 18  # more would hold the event loop, and aiohttp warns of it at 1 MiB

_FORMS = {
    Form.MSGPACK.value: Form.MSGPACK,
    Form.JSON.value: Form.JSON,
    messages.PROBLEM_TYPES[Form.MSGPACK]: Form.MSGPACK,
    messages.PROBLEM_TYPES[Form.JSON]: Form.JSON,
}
# What OpenSSL calls an answer that is no TLS.
_NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")
_CODES = {code.name: code for code in ErrorCode}
_CLASSES: Mapping[ErrorCode, type[IndelibleError]] = {
    ErrorCode.BAD_API_KEY: DeniedError,
    ErrorCode.UNAUTHORIZED_OPERATION: DeniedError,
    ErrorCode.NONEXISTENT_VERSION: NotFoundError,
    ErrorCode.NONEXISTENT_LOG: NotFoundError,
    ErrorCode.NONEXISTENT_KEY: NotFoundError,
    ErrorCode.NONEXISTENT_WEBHOOK: NotFoundError,
    ErrorCode.LOG_REPLACED: NotFoundError,
    ErrorCode.FORGOTTEN_VERSION: NotFoundError,
    ErrorCode.TRANSACTION_CONFLICT: UnavailableError,
    ErrorCode.UNEXPECTED_VERSION: ConflictError,
    ErrorCode.UNEXPECTED_VALUE: ConflictError,
    ErrorCode.NONEXISTENT_VALUE: ConflictError,
    ErrorCode.UNEXPECTED_ENTRY: ConflictError,
    ErrorCode.LOG_EXISTS: ConflictError,
    ErrorCode.RATE_LIMITED: UnavailableError,
    ErrorCode.OVERLOADED: UnavailableError,
    ErrorCode.OUTCOME_UNKNOWN: UnavailableError,
    ErrorCode.NOT_DURABLE: UnavailableError,
    ErrorCode.STORAGE_FULL: UnavailableError,
    ErrorCode.QUOTA_EXCEEDED: UnavailableError,
    ErrorCode.INTERNAL_ERROR: UnavailableError,
    ErrorCode.REQUEST_TIMEOUT: UnavailableError,
}

# `forget`, too, may be sent twice: what is done already is not done again.
_POSTS_THAT_READ = tuple(
    path.removeprefix(paths.LOG) for path in (paths.BATCH_GET, paths.WAIT, paths.FORGET)
)

A = TypeVar("A", bound=Message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request(Generic[A]):
    """`answer` is the message that a 2xx with a body holds; None where there is no body.

    `wait_seconds` is how long the service may let it wait before it answers.
    """

    method: str
    path: str
    answer: type[A] | None = None
    query: Mapping[str, str] | None = None
    body: Message | None = None
    wait_seconds: float = 0.0
    ticket: str = ""

    @property
    def changes(self) -> bool:
        """Whether it may have had an effect when its answer is lost."""
        return self.method != "GET" and not self.path.endswith(_POSTS_THAT_READ)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer(Generic[A]):
    """`message` is None for a 204. `log_version` is the log's current version, None where
    the answer is not about one log. `interval` is what to ask with next, where one was sent.
    `closing`: the service is going away."""

    status: int
    message: A | None
    log_version: int | None
    interval: int | None
    closing: bool
    request_id: str


class OversizeError(VerificationError):
    """An answer beyond MAX_ANSWER_BYTES: asking for less may help."""


@dataclass(slots=True)
class _Connections:
    """What belongs to one process and its event loop."""

    pid: int
    loop: asyncio.AbstractEventLoop
    session: aiohttp.ClientSession
    in_flight: asyncio.Semaphore


# A forked child must not close its parent's connections, nor say goodbye on them.
_of_other_processes: list[_Connections] = []


class Pool:
    """The connections of a transport; apart from it, so that they can outlive and end it."""

    def __init__(self) -> None:
        self._connections: _Connections | None = None
        self.closed = False

    def ready(self, make_session: Callable[[], aiohttp.ClientSession]) -> _Connections:
        """
        Raises:
            RequestError: closed, or of another event loop.
        """
        loop = asyncio.get_running_loop()
        if self.closed:
            raise RequestError("the client is closed")
        mine = self._connections
        if mine is not None and mine.pid != os.getpid():
            _of_other_processes.append(mine)
            mine = None
        if mine is None:
            mine = self._connections = _Connections(
                pid=os.getpid(),
                loop=loop,
                session=make_session(),
                in_flight=asyncio.Semaphore(MAX_IN_FLIGHT),
            )
        if mine.loop is not loop:
            raise RequestError(
                "an AsyncClient belongs to the event loop it was first used in: "
                "make one client for each loop"
            )
        return mine

    async def close(self) -> None:
        self.closed = True
        connections, self._connections = self._connections, None
        if connections is not None and connections.pid == os.getpid():
            await connections.session.close()


class Transport:
    """The connections of one client to one endpoint. Opened with its first request."""

    def __init__(
        self, endpoint_url: str, apikey: str, *, database: str, tls: ssl.SSLContext | None
    ) -> None:
        self._base_url = endpoint_url.rstrip("/")
        self._tls = tls
        self._headers = {
            "Authorization": f"Bearer {apikey}",
            "Accept": Form.MSGPACK.value,
            "Accept-Encoding": "identity",
            "User-Agent": f"indelible/{version('indelible')}",
        }
        if database != "default":
            self._headers["Indelible-Database"] = database
        self.pool = Pool()

    def __repr__(self) -> str:
        return f"<Transport to {self._base_url}>"

    async def close(self) -> None:
        await self.pool.close()

    async def send(self, request: Request[A], timeout_seconds: float) -> Answer[A]:
        """One attempt, which takes at most `timeout_seconds`, and ATTEMPT_SECONDS beyond the
        time that the request itself waits.

        Raises:
            UnavailableError: no answer; `may_have_applied` unless it certainly had no effect.
            VerificationError: an answer that no conforming server gives.
            IndelibleError: the class that the service's error code stands for.
        """
        connections = self.pool.ready(self._session)
        if request.wait_seconds:
            return await self._exchange(connections.session, request, timeout_seconds)
        try:
            async with asyncio.timeout(timeout_seconds):
                await connections.in_flight.acquire()
        except TimeoutError:
            raise UnavailableError(
                f"{MAX_IN_FLIGHT} requests were under way all the time"
            ) from None
        try:
            return await self._exchange(connections.session, request, timeout_seconds)
        finally:
            connections.in_flight.release()

    async def stream(self, request: Request[A]) -> AsyncGenerator[A, None]:
        """One attempt at an answer of many messages, each given as soon as it is whole.

        Ends when the answer does, whether it was cut off or not: the last message tells. Bounded
        by the silence between two pieces alone. Leaving it before its end closes the connection.

        Raises:
            As `send`.
        """
        assert request.answer is not None
        session = self.pool.ready(self._session).session
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_SECONDS, sock_read=ATTEMPT_SECONDS
        )
        try:
            async with session.request(
                request.method,
                self._base_url + request.path,
                params=request.query,
                timeout=timeout,
                allow_redirects=False,
            ) as response:
                if response.status != 200 or response.content_type != Form.MSGPACK.value:
                    answer = _read(request, response, await _body_of(response))
                    raise _wrong(response, f"an answer with status {answer.status}")
                messages_of = _Messages(response)
                async for piece in response.content.iter_any():
                    for data in messages_of.whole_in(piece):
                        try:
                            message = messages.decode(data, request.answer, Form.MSGPACK)
                        except ProtocolError as error:
                            raise _wrong(response, f"a message that is none: {error}") from error
                        yield message
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            self._fail(request, error)

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=self._tls or True),
            headers=self._headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
        )

    async def _exchange(
        self, session: aiohttp.ClientSession, request: Request[A], timeout_seconds: float
    ) -> Answer[A]:
        data: bytes | io.BytesIO | None = None
        headers = {}
        if request.ticket:
            headers["Indelible-Ticket"] = request.ticket
        if request.body is not None:
            data = messages.encode(request.body, Form.MSGPACK)
            if len(data) > IN_ONE_PIECE_BYTES:
                data = io.BytesIO(data)
            headers["Content-Type"] = Form.MSGPACK.value
        most_seconds = ATTEMPT_SECONDS
        if request.wait_seconds:
            most_seconds = request.wait_seconds + WAIT_MARGIN_SECONDS
        timeout = aiohttp.ClientTimeout(
            total=max(0.001, min(most_seconds, timeout_seconds)), sock_connect=CONNECT_SECONDS
        )
        try:
            async with session.request(
                request.method,
                self._base_url + request.path,
                params=request.query,
                data=data,
                headers=headers,
                timeout=timeout,
                allow_redirects=False,
                middlewares=_ONCE if request.method == "DELETE" else None,
            ) as response:
                return _read(request, response, await _body_of(response))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            self._fail(request, error)

    def _fail(self, request: Request[Any], error: Exception) -> NoReturn:
        """Raises what a foreign exception means here."""
        where = self._base_url
        if self.pool.closed and not request.changes:
            raise RequestError("the client was closed meanwhile") from error
        if _is_distrust(error):
            raise ConfigError(f"no trusted connection to {where}: {said(error)}") from error
        # Every one of these came before the request was sent.
        unsent = isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
        if isinstance(error, aiohttp.ClientConnectorError):
            message = f"no connection to {where}: {said(error)}"
        elif isinstance(error, TimeoutError):
            message = f"no answer from {where} in time"
        else:
            message = f"the connection to {where} was lost: {said(error)}"
        raise UnavailableError(message, may_have_applied=request.changes and not unsent) from error


class _LostError(aiohttp.ClientError):
    """A connection that ended under a request."""


async def _once(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Keeps aiohttp from sending a DELETE again by itself: that it had been done by the first
    would look as if there had been nothing to delete."""
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise _LostError(str(error)) from error


_ONCE = (_once,)


def _is_distrust(error: Exception) -> bool:
    """Whether TLS failed for a reason that will not pass: not because the peer went away."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return True
    return isinstance(error, aiohttp.ClientConnectorSSLError) and not isinstance(
        error.os_error, ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError
    )


def said(error: Exception) -> str:
    """What happened, without a library's words about where."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        cause: object = error.certificate_error
        return str(getattr(cause, "verify_message", cause))
    if not isinstance(error, aiohttp.ClientConnectorError):
        return str(error) or type(error).__name__
    failed = error.os_error
    if isinstance(failed, ssl.SSLError):
        no_tls = failed.reason in _NO_TLS
        return "what answers there does not speak TLS" if no_tls else failed.reason or str(failed)
    if isinstance(failed, socket.gaierror) or not failed.errno:
        return failed.strerror or str(failed)
    return os.strerror(failed.errno)


class _Messages:
    """Cuts what comes into messages, in memory for one of them."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self._unpacker = msgpack.Unpacker(max_buffer_size=0)
        self._rest = bytearray()
        self._taken = 0

    def whole_in(self, piece: bytes) -> Iterator[bytes]:
        """
        Raises:
            VerificationError: no msgpack, or a message larger than any answer of the protocol.
        """
        self._unpacker.feed(piece)
        self._rest += piece
        while True:
            try:
                self._unpacker.skip()
            except msgpack.OutOfData:
                break
            except (ValueError, msgpack.UnpackException) as error:
                raise _wrong(self._response, "an answer that is no msgpack") from error
            size = self._unpacker.tell() - self._taken
            self._taken += size
            yield bytes(self._rest[:size])
            del self._rest[:size]
        if len(self._rest) > MAX_ANSWER_BYTES:
            raise OversizeError(
                f"a message of more than {MAX_ANSWER_BYTES} bytes",
                request_id=_request_id(self._response),
            )


async def _body_of(response: aiohttp.ClientResponse) -> bytes:
    """
    Raises:
        VerificationError: compressed, or larger than any answer of the protocol.
    """
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        raise _wrong(response, f"the answer is compressed ({encoding}), which was not asked for")
    pieces = []
    size = 0
    async for piece in response.content.iter_any():
        size += len(piece)
        if size > MAX_ANSWER_BYTES:
            response.close()
            raise OversizeError(
                f"an answer of more than {MAX_ANSWER_BYTES} bytes",
                request_id=_request_id(response),
            )
        pieces.append(piece)
    return b"".join(pieces)


def _read(request: Request[A], response: aiohttp.ClientResponse, body: bytes) -> Answer[A]:
    if response.status >= 300:
        raise _error_of(request, response, body)
    message = None
    if request.answer is not None and response.status != 204:
        form = _FORMS.get(response.content_type)
        if form is None:
            if request.changes:  # something took it: whether that was the service is not known
                raise _wrong(response, f"an answer of type {response.content_type}", body)
            raise _unknown_peer(request, response)
        try:
            message = messages.decode(body, request.answer, form)
        except ProtocolError as error:
            raise _wrong(response, f"an answer that is none: {error}", body) from error
    elif body and response.status == 204:
        raise _wrong(response, "an empty answer with a body", body)
    return Answer(
        status=response.status,
        message=message,
        log_version=_number(response, "Indelible-Version"),
        interval=_number(response, "Indelible-Interval"),
        closing=response.headers.get("Connection", "").lower() == "close",
        request_id=_request_id(response),
    )


def _error_of(
    request: Request[Any], response: aiohttp.ClientResponse, body: bytes
) -> IndelibleError:
    form = _FORMS.get(response.content_type)
    if form is None:
        return _unknown_peer(request, response)
    try:
        problem = messages.decode(body, messages.Problem, form)
    except ProtocolError:
        return _unknown_peer(request, response)
    code = _CODES.get(problem.code)
    request_id = problem.request_id or _request_id(response)
    kind = _kind_of(code, response.status)
    if kind is ConflictError:
        return ConflictError(
            problem.message,
            index=_whole(problem.details.get("index")),
            current_version=_whole(problem.details.get("current_version")),
            sealed=_entries(problem.details.get("entries")),
            ticket=_ticket(problem.details.get("ticket")),
            code=code,
            request_id=request_id,
        )
    if kind is UnavailableError:
        return UnavailableError(
            problem.message,
            retry_after_seconds=_retry_after(response),
            retryable=problem.retryable,
            may_have_applied=problem.may_have_applied and request.changes,
            code=code,
            request_id=request_id,
        )
    return kind(problem.message, code=code, request_id=request_id)


def _ticket(value: object) -> str:
    """An empty one for what cannot stand in a header."""
    if not isinstance(value, str) or len(value) > MAX_TICKET_CHARS:
        return ""
    return value if value.isascii() and value.isprintable() else ""


def _entries(value: object) -> list[messages.Entry] | None:
    if value is None:
        return None
    try:
        return msgspec.convert(value, list[messages.Entry])
    except msgspec.ValidationError:
        return None  # the caller reads them instead


def _kind_of(code: ErrorCode | None, status: int) -> type[IndelibleError]:
    """By the code; for a code that is newer than this client, by the status."""
    if code is not None:
        return _CLASSES.get(code, RequestError)
    if status in (401, 403):
        return DeniedError
    if status in (404, 410):
        return NotFoundError
    if status == 412:
        return ConflictError
    return UnavailableError if status == 429 or status >= 500 else RequestError


def _unknown_peer(request: Request[Any], response: aiohttp.ClientResponse) -> IndelibleError:
    """Something answered that is not the service: a proxy, a wrong address."""
    status = response.status
    said = f"HTTP status {status} ({response.content_type}) that is not the service's"
    if status == 429 or status >= 500:
        return UnavailableError(
            f"{said}: something before it, perhaps",
            retry_after_seconds=_retry_after(response),
            may_have_applied=request.changes and status >= 500,
        )
    if status == 413:
        return RequestError(f"{said}: too large for something before it")
    if status in (401, 403, 407):
        return DeniedError(f"{said}: something before it, perhaps")
    if 300 <= status < 400:
        return ConfigError(f"{said}, a redirect; endpoint_url must name the service itself")
    return ConfigError(f"{said}: is endpoint_url right?")


def _wrong(response: aiohttp.ClientResponse, message: str, body: bytes = b"") -> VerificationError:
    return VerificationError(
        f"{response.method} {response.url.path}: {message}",
        evidence={"status": response.status, "body": body},
        request_id=_request_id(response),
    )


def _request_id(response: aiohttp.ClientResponse) -> str:
    return response.headers.get("Indelible-Request-Id", "")[:128]


def _number(response: aiohttp.ClientResponse, header: str) -> int | None:
    text = response.headers.get(header)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 16):
        raise _wrong(response, f"{header} is no whole number")
    return int(text)


def _retry_after(response: aiohttp.ClientResponse) -> float | None:
    """Seconds; the header's other form, a date, is not worth a clock."""
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) <= 6 else None


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None

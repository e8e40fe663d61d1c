"""Commits past the routes: from aiohttp's parser to the store and back, without a task.

Takes what is plain: a whole commit with usual headers, of an API key and to a log that are known.
All else takes the routes. Both judge by the same functions (`auth`, `bodies`, `committing`), so
it makes no difference but the time: aiohttp's tasks, routing, requests and answers cost more than
all that is ours.
"""

import asyncio
import time
from functools import cache, lru_cache, partial
from http import HTTPStatus

import structlog
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http import SERVER_SOFTWARE, HttpVersion11, RawRequestMessage
from aiohttp.streams import StreamReader
from indelible_protocol import limits, messages, paths
from indelible_protocol.commands import LogKind
from indelible_protocol.errors import ErrorCode, ProtocolError
from indelible_protocol.ids import parse_log_id
from indelible_protocol.messages import Form
from indelible_protocol.semantics import Acknowledged
from indelible_protocol.signing import SignedCommit

from indelible_server.api.bodies import admit, committed
from indelible_server.api.committing import crowded
from indelible_server.api.connections import LanedConnection
from indelible_server.api.messages import accepted_form, explained, problem_parts
from indelible_server.api.request_ids import new_request_id
from indelible_server.api.requests import DEFAULT_DATABASE
from indelible_server.api.services import Services
from indelible_server.store.admission import LogIdentity, admit_sealed
from indelible_server.store.committing import Outcome
from indelible_server.store.errors import Refusal
from indelible_server.telemetry import AnsweredRequest, log_request

log = structlog.get_logger("indelible_server.api")

_BEFORE, _AFTER = paths.COMMITS.split("{log_id}")
_PATH_CHARS = len(_BEFORE) + 43 + len(_AFTER)  # unpadded base64 of 32 bytes
_FORMS = {form.value: form for form in Form}
_READ = {
    b"authorization": "authorization",
    b"content-type": "content-type",
    b"accept": "accept",
    b"idempotency-key": "idempotency-key",
    b"indelible-database": "indelible-database",
}
_UNUSUAL = frozenset({b"expect", b"content-encoding", b"transfer-encoding", b"upgrade"})
_log_id_of = lru_cache(maxsize=1 << 14)(parse_log_id)


class CommitLane:
    def __init__(self, services: Services) -> None:
        self._services = services
        self._control: set[asyncio.Task[None]] = set()

    def begin(
        self, connection: LanedConnection, message: RawRequestMessage, body: StreamReader
    ) -> bool:
        """Whether it takes the request. Nothing is refused here that the routes would not."""
        path = message.path
        if (
            message.method != "POST"
            or len(path) != _PATH_CHARS
            or not (path.startswith(_BEFORE) and path.endswith(_AFTER))
            or message.version != HttpVersion11
            or message.should_close
            or message.upgrade
            or body.total_bytes > limits.MAX_BODY_BYTES
            or self._services.draining
        ):
            return False
        committer = self._services.committer
        if committer.is_crowded() and not self._has_room(message):
            self._refuse(connection, message, body)
            return True
        headers = _headers(message)
        form = _FORMS.get(headers.get("content-type", "")) if headers else None
        if not headers or form is None:
            return False
        scheme, _, apikey = headers.get("authorization", "").partition(" ")
        credential = self._services.authenticator.known(apikey.strip())
        if scheme.lower() != "bearer" or credential is None:
            return False
        try:
            identity = self._services.logs.known(_log_id_of(path[len(_BEFORE) : -len(_AFTER)]))
        except ProtocolError:
            return False
        database = headers.get("indelible-database", DEFAULT_DATABASE)
        if (
            identity is None
            or identity.tenant != credential.tenant
            or identity.database != database
        ):
            return False
        request = _Request(self._services, connection, identity, form, body, headers)
        try:
            turn = self._services.authenticator.admit(credential)
        except Refusal as refusal:
            request.refuse(refusal)
            return True
        if turn is None:
            self._commit(request)
        else:
            turn.add_done_callback(partial(self._commit, request))
        return True

    def _has_room(self, message: RawRequestMessage) -> bool:
        """For a tenant that is known, and has less in flight than others."""
        apikey = message.headers.get("Authorization", "").partition(" ")[2]
        credential = self._services.authenticator.known(apikey.strip())
        return credential is not None and not self._services.committer.has_its_share(
            credential.tenant
        )

    def _refuse(
        self, connection: LanedConnection, message: RawRequestMessage, body: StreamReader
    ) -> None:
        """At once, whatever it asks for: there is too much to look at it all."""
        self._services.committer.count_refused()
        request_id = new_request_id()
        _observe(self._services, request_id, 503, 0.0, body.total_bytes, ErrorCode.OVERLOADED)
        form = accepted_form(message.headers.get("Accept", ""), Form.MSGPACK)
        headers, told = _crowded(form)
        answer = told.replace(_NO_ID, request_id.encode())
        connection.answer(_answer_bytes(503, headers, request_id, answer), close=False)

    def _commit(self, request: "_Request", _turn: object = None) -> None:
        if request.is_gone:  # while it waited for its turn
            request.observe(499, None)
            return
        try:
            self._services.committer.check(request.identity.tenant)  # before it costs much
            admitted = admit(request.identity, request.form, request.data, request.key)
            if isinstance(admitted, SignedCommit):
                task = asyncio.ensure_future(self._commit_control(request, admitted))
                self._control.add(task)
                task.add_done_callback(self._control.discard)
                return
            self._services.committer.begin(request.identity, admitted, request.settle)
        except Exception as error:
            request.refuse(error)

    async def _commit_control(self, request: "_Request", commit: SignedCommit) -> None:
        """Its admission needs a read of the store."""
        try:
            head = await self._services.logs.control_head(request.identity)
            admitted = admit_sealed(request.identity, commit, head)
            self._services.committer.begin(request.identity, admitted, request.settle)
        except Exception as error:
            request.refuse(error)


class _Request:
    """One commit under way, and its answer."""

    __slots__ = (
        *("_accept", "_connection", "_id", "_services", "_started"),
        *("data", "form", "identity", "key"),
    )

    def __init__(
        self,
        services: Services,
        connection: LanedConnection,
        identity: LogIdentity,
        form: Form,
        body: StreamReader,
        headers: dict[str, str],
    ) -> None:
        self._services = services
        self._connection = connection
        self._id = new_request_id()
        self._started = time.perf_counter()
        self._accept = accepted_form(headers.get("accept", ""), form)
        self.identity = identity
        self.form = form
        self.data = body.read_nowait()
        self.key = headers.get("idempotency-key") if identity.kind is LogKind.OPAQUE else None

    @property
    def is_gone(self) -> bool:
        return self._connection.transport is None

    def settle(self, outcome: Outcome) -> None:
        try:
            if isinstance(outcome, Acknowledged):
                self._acknowledge(outcome)
            else:
                self.refuse(outcome)
        except Exception as error:
            log.exception(
                "request.failed", request_id=self._id, route=paths.COMMITS, exc_info=error
            )
            self._connection.force_close()

    def _acknowledge(self, outcome: Acknowledged) -> None:
        answer = messages.encode(
            committed(outcome, self._services.settings.durability), self._accept
        )
        headers = {
            "Indelible-Version": str(outcome.version),
            "Indelible-Incarnation": str(self.identity.incarnation),
            "Content-Type": self._accept.value,
        }
        self._answer(201 if outcome.changed else 200, None, headers, answer)

    def refuse(self, error: Exception) -> None:
        if isinstance(error, (Refusal, ProtocolError)):
            code, message, details = explained(error)
        else:
            log.error("request.failed", request_id=self._id, route=paths.COMMITS, exc_info=error)
            code, details = ErrorCode.INTERNAL_ERROR, {}
            message = "the server failed; its log tells more under this request_id"
        headers, body = problem_parts(
            code, message, details, request_id=self._id, form=self._accept
        )
        self._answer(code.http_status, code, headers, body)

    def _answer(
        self, status: int, code: ErrorCode | None, headers: dict[str, str], body: bytes
    ) -> None:
        """The line first, as for every request."""
        self.observe(499 if self.is_gone else status, code)
        close = self._services.draining
        answer = _answer_bytes(status, headers, self._id, body, close=close)
        self._connection.answer(answer, close=close)

    def observe(self, status: int, code: ErrorCode | None) -> None:
        _observe(
            *(self._services, self._id, status, time.perf_counter() - self._started),
            *(len(self.data), code, self.identity.tenant),
        )


def _observe(
    services: Services,
    request_id: str,
    status: int,
    seconds: float,
    size_bytes: int,
    code: ErrorCode | None,
    tenant: str | None = None,
) -> None:
    services.metrics.requests.add(paths.COMMITS, "POST", status, seconds)
    log_request(
        AnsweredRequest(
            request_id=request_id,
            method="POST",
            route=paths.COMMITS,
            status=status,
            code=code.name if code is not None else None,
            tenant=tenant,
            took_ms=round(seconds * 1_000, 2),
            waited=False,
            size_bytes=size_bytes,
        )
    )


def _answer_bytes(
    status: int, headers: dict[str, str], request_id: str, body: bytes, *, close: bool = False
) -> bytes:
    told = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\n{told}indelible-request-id: {request_id}\r\n"
        f"Content-Length: {len(body)}\r\nDate: {rfc822_formatted_time()}\r\n"
        f"Server: {SERVER_SOFTWARE}\r\n{_CLOSE if close else ''}\r\n"
    )
    return head.encode("ascii") + body


@cache
def _crowded(form: Form) -> tuple[dict[str, str], bytes]:
    """What is told when there is too much, with `_NO_ID` for the request's id."""
    error = crowded()
    return problem_parts(
        error.code, error.message, error.details, request_id=_NO_ID.decode(), form=form
    )


_NO_ID = b"0" * 16
_CLOSE = "Connection: close\r\n"
_REASONS = {status.value: status.phrase for status in HTTPStatus}


def _headers(message: RawRequestMessage) -> dict[str, str] | None:
    """Those that a commit is read by; None if one stands twice, or any is unusual."""
    found: dict[str, str] = {}
    for raw_name, value in message.raw_headers:
        lower = raw_name.lower()
        name = _READ.get(lower)
        if name is not None:
            if name in found or not value.isascii():
                return None
            found[name] = value.decode("ascii")
        elif lower in _UNUSUAL:
            return None
    return found

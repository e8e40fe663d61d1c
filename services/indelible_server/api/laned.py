"""A request past the routes: what every lane knows it by, and its answer, written at once.

Owns the bytes of an answer: the same, whichever way a request took. Knows nothing of what is
asked.
"""

import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from http import HTTPStatus
from typing import NamedTuple

import structlog
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http import SERVER_SOFTWARE
from indelible_protocol.errors import ErrorCode, ProtocolError
from indelible_protocol.ids import LogId, parse_log_id
from indelible_protocol.messages import Form

from indelible_server.api.connections import Body, Lane, LanedConnection
from indelible_server.api.heads import RequestHead
from indelible_server.api.messages import explained, problem_parts
from indelible_server.api.request_ids import new_request_id
from indelible_server.api.requests import DEFAULT_DATABASE, is_database
from indelible_server.api.services import Services
from indelible_server.store.admission import LogIdentity
from indelible_server.store.errors import Refusal
from indelible_server.store.logs import nonexistent
from indelible_server.store.tenants import Credential
from indelible_server.telemetry import AnsweredRequest, log_request

log = structlog.get_logger("indelible_server.api")

FORMS = {form.value: form for form in Form}
ID_CHARS = 43  # a log's id in a path: unpadded base64 of 32 bytes

_CLOSE = "Connection: close\r\n"
_REASONS = {status.value: status.phrase for status in HTTPStatus}
_log_id_of = lru_cache(maxsize=1 << 14)(parse_log_id)


class Lanes:
    """Several of them: a request takes the first that takes it."""

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self._lanes = lanes

    def begin(self, connection: LanedConnection, head: RequestHead, body: Body) -> bool:
        for lane in self._lanes:  # noqa: SIM110 - any() makes a generator for each request
            if lane.begin(connection, head, body):
                return True
        return False


class Asker(NamedTuple):
    """Who asks, about which log in which database."""

    credential: Credential
    database: str
    log_id: LogId


def credential_of(services: Services, head: RequestHead) -> Credential | None:
    """None if its key is not known of late."""
    scheme, _, apikey = head.headers.get("authorization", "").partition(" ")
    return services.authenticator.known(apikey.strip()) if scheme.lower() == "bearer" else None


def asker_of(services: Services, head: RequestHead, log_id: str) -> Asker | None:
    """None if the routes have to look for the key, or to say what is wrong with the rest."""
    credential = credential_of(services, head)
    database = head.headers.get("indelible-database", DEFAULT_DATABASE)
    if credential is None or not is_database(database):
        return None
    try:
        return Asker(credential, database, _log_id_of(log_id))
    except ProtocolError:
        return None


class LanedRequest:
    """One request under way, and its answer in the form `accept`. `size_bytes` is its body's.

    `identity` is the log's, from when `begin` goes on.
    """

    __slots__ = (
        *("_asker", "_connection", "_id", "_method", "_route", "_size_bytes"),
        *("_started", "accept", "identity", "services"),
    )

    identity: LogIdentity

    def __init__(
        self,
        services: Services,
        connection: LanedConnection,
        operation: tuple[str, str],
        asker: Asker,
        accept: Form,
        size_bytes: int | None,
    ) -> None:
        """`operation` is its method and its route."""
        self._method, self._route = operation
        self._connection = connection
        self._id = new_request_id()
        self._started = time.perf_counter()
        self.accept = accept
        self._size_bytes = size_bytes
        self.services = services
        self._asker = asker

    @property
    def tenant(self) -> str:
        return self._asker.credential.tenant

    @property
    def is_gone(self) -> bool:
        return self._connection.transport is None

    def begin(self, go_on: Callable[[], None]) -> None:
        """Calls `go_on` when it is the tenant's turn and the log is known, unless the client has
        left by then."""
        try:
            turn = self.services.authenticator.admit(self._asker.credential)
        except Refusal as refusal:
            self.refuse(refusal)
            return

        def identified(found: LogIdentity | Refusal) -> None:
            try:
                if self.is_gone:
                    self.observe(499, None)
                elif isinstance(found, Refusal):
                    self.refuse(found)
                elif (found.tenant, found.database) != (self.tenant, self._asker.database):
                    self.refuse(nonexistent())
                else:
                    self.identity = found
                    go_on()
            except Exception as error:
                self.fail(error)

        def in_turn(_turn: object = None) -> None:
            known = self.services.logs.known(self._asker.log_id)
            if known is not None:
                identified(known)
            elif self.is_gone:
                self.observe(499, None)
            else:
                self.services.logs.begin_identify(self._asker.log_id, identified)

        if turn is None:
            in_turn()
        else:
            turn.add_done_callback(in_turn)

    def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        """`body` is in the form that was asked for."""
        headers["Content-Type"] = self.accept.value
        self._answer(status, None, headers, body)

    def refuse(self, error: Exception) -> None:
        code, message, details = explained(error)
        if code is ErrorCode.INTERNAL_ERROR:
            log.error("request.failed", request_id=self._id, route=self._route, exc_info=error)
        headers, body = problem_parts(code, message, details, request_id=self._id, form=self.accept)
        self._answer(code.http_status, code, headers, body)

    def fail(self, error: Exception) -> None:
        """Not even a refusal could be told."""
        log.exception("request.failed", request_id=self._id, route=self._route, exc_info=error)
        self._connection.force_close()

    def _answer(
        self, status: int, code: ErrorCode | None, headers: dict[str, str], body: bytes
    ) -> None:
        """The line first, as for every request."""
        self.observe(499 if self.is_gone else status, code)
        close = self.services.draining
        answer = answer_bytes(status, headers, self._id, body, close=close)
        self._connection.answer(answer, close=close)

    def observe(self, status: int, code: ErrorCode | None) -> None:
        seconds = time.perf_counter() - self._started
        self.services.metrics.requests.add(self._route, self._method, status, seconds)
        log_request(
            AnsweredRequest(
                request_id=self._id,
                method=self._method,
                route=self._route,
                status=status,
                code=code.name if code is not None else None,
                tenant=self.tenant,
                took_ms=round(seconds * 1_000, 2),
                waited=False,
                size_bytes=self._size_bytes,
            )
        )


def answer_bytes(
    status: int, headers: dict[str, str], request_id: str, body: bytes, *, close: bool = False
) -> bytes:
    told = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\n{told}indelible-request-id: {request_id}\r\n"
        f"Content-Length: {len(body)}\r\nDate: {rfc822_formatted_time()}\r\n"
        f"Server: {SERVER_SOFTWARE}\r\n{_CLOSE if close else ''}\r\n"
    )
    return head.encode("ascii") + body

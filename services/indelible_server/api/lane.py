"""Commits past the routes: from aiohttp's parser to the store and back, without a task.

Takes what is plain: a whole commit with usual headers, of an API key that is known. All else takes
the routes. Both judge by the same functions (`auth`, `bodies`, `committing`), so it makes no
difference but the time: aiohttp's tasks, routing, requests and answers cost more than all that is
ours.
"""

import asyncio
from functools import lru_cache, partial

from aiohttp.helpers import rfc822_formatted_time
from indelible_protocol import limits, messages, paths
from indelible_protocol.commands import LogKind
from indelible_protocol.messages import Form
from indelible_protocol.semantics import Acknowledged
from indelible_protocol.signing import SignedCommit

from indelible_server.api.bodies import admit, committed
from indelible_server.api.committing import crowded
from indelible_server.api.connections import Body, LanedConnection
from indelible_server.api.heads import RequestHead
from indelible_server.api.laned import (
    FORMS,
    ID_CHARS,
    Asker,
    LanedRequest,
    answer_bytes,
    asker_of,
    credential_of,
)
from indelible_server.api.messages import accepted_form, problem_parts
from indelible_server.api.request_ids import new_request_id
from indelible_server.api.services import Services
from indelible_server.store.admission import admit_sealed
from indelible_server.store.committing import Outcome

_COMMIT = ("POST", paths.COMMITS)
_BEFORE, _AFTER = paths.COMMITS.split("{log_id}")
_PATH_CHARS = len(_BEFORE) + ID_CHARS + len(_AFTER)
_NO_ID = "0" * 16


class CommitLane:
    def __init__(self, services: Services) -> None:
        self._services = services
        self._control: set[asyncio.Task[None]] = set()

    def begin(self, connection: LanedConnection, head: RequestHead, body: Body) -> bool:
        """Whether it takes the request. Nothing is refused here that the routes would not."""
        path = head.target
        if (
            head.method != "POST"
            or len(path) != _PATH_CHARS
            or not (path.startswith(_BEFORE) and path.endswith(_AFTER))
            or body.total_bytes > limits.MAX_BODY_BYTES
            or self._services.draining
        ):
            return False
        committer = self._services.committer
        if committer.is_crowded() and not self._has_room(head):
            self._refuse(connection, head)
            return True
        asker = asker_of(self._services, head, path[len(_BEFORE) : -len(_AFTER)])
        form = FORMS.get(head.headers.get("content-type", ""))
        if asker is None or form is None:
            return False
        request = _Request(self._services, connection, asker, form, body, head)
        request.begin(partial(self._commit, request))
        return True

    def _has_room(self, head: RequestHead) -> bool:
        """For a tenant that is known, and has less in flight than others."""
        credential = credential_of(self._services, head)
        return credential is not None and not self._services.committer.has_its_share(
            credential.tenant
        )

    def _refuse(self, connection: LanedConnection, head: RequestHead) -> None:
        """At once, whatever it asks for: there is too much to look at it all."""
        self._services.committer.count_shed()
        self._services.metrics.requests.add(paths.COMMITS, "POST", 503, 0.0)
        request_id = new_request_id()
        form = accepted_form(head.headers.get("accept", ""), Form.MSGPACK)
        parts = _crowded(form, rfc822_formatted_time())
        connection.answer(request_id.encode().join(parts), close=False)

    def _commit(self, request: "_Request") -> None:
        try:
            self._services.committer.check(request.tenant)  # before it costs much
            identity = request.identity
            key = request.key if identity.kind is LogKind.OPAQUE else None
            admitted = admit(identity, request.form, request.data, key)
            if isinstance(admitted, SignedCommit):
                task = asyncio.ensure_future(self._commit_control(request, admitted))
                self._control.add(task)
                task.add_done_callback(self._control.discard)
                return
            self._services.committer.begin(identity, admitted, request.settle)
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


class _Request(LanedRequest):
    """One commit under way, and its answer."""

    __slots__ = ("data", "form", "key")

    def __init__(
        self,
        services: Services,
        connection: LanedConnection,
        asker: Asker,
        form: Form,
        body: Body,
        head: RequestHead,
    ) -> None:
        accept = accepted_form(head.headers.get("accept", ""), form)
        self.data = body.read_nowait()
        super().__init__(services, connection, _COMMIT, asker, accept, len(self.data))
        self.form = form
        self.key = head.headers.get("idempotency-key")

    def settle(self, outcome: Outcome) -> None:
        try:
            if isinstance(outcome, Acknowledged):
                self._acknowledge(outcome)
            else:
                self.refuse(outcome)
        except Exception as error:
            self.fail(error)

    def _acknowledge(self, outcome: Acknowledged) -> None:
        answer = messages.encode(committed(outcome, self.services.settings.durability), self.accept)
        headers = {
            "Indelible-Version": str(outcome.version),
            "Indelible-Incarnation": str(self.identity.incarnation),
        }
        self.answer(201 if outcome.changed else 200, headers, answer)


@lru_cache(maxsize=8)
def _crowded(form: Form, _date: str) -> list[bytes]:
    """What is told in this second when there is too much: the parts around the request's id."""
    error = crowded()
    headers, body = problem_parts(
        error.code, error.message, error.details, request_id=_NO_ID, form=form
    )
    return answer_bytes(503, headers, _NO_ID, body).split(_NO_ID.encode())

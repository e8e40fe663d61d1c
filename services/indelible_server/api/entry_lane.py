"""Keys' entries past the routes, as commits go (`lane`).

Takes what is plain: a GET of one key, at the head or at a version, by an API key that is known.
What is not at hand in one call is looked for as the routes would.
"""

import asyncio
from functools import partial

from indelible_protocol import messages, paths
from indelible_protocol.errors import ProtocolError
from indelible_protocol.ids import from_base64url, parse_version
from indelible_protocol.messages import Form

from indelible_server.api.connections import Body, LanedConnection
from indelible_server.api.diff_headers import place
from indelible_server.api.diffs import the_entry
from indelible_server.api.heads import RequestHead
from indelible_server.api.laned import FORMS, ID_CHARS, LanedRequest, asker_of
from indelible_server.api.messages import accepted_form
from indelible_server.api.requests import check_key
from indelible_server.api.services import Services
from indelible_server.store.entries import EntryValue
from indelible_server.store.errors import Refusal
from indelible_server.store.reading import Head

_Found = tuple[Head, list[EntryValue]]
_ENTRY = ("GET", paths.ENTRY)
_BEFORE, _rest = paths.ENTRY.split("{log_id}")
_BETWEEN = _rest.removesuffix("{key}")
_ID_END = len(_BEFORE) + ID_CHARS
_KEY_AT = _ID_END + len(_BETWEEN)


class EntryLane:
    def __init__(self, services: Services) -> None:
        self._services = services
        self._looking: set[asyncio.Task[None]] = set()

    def begin(self, connection: LanedConnection, head: RequestHead, body: Body) -> bool:
        """Whether it takes the request. Nothing is refused here that the routes would not."""
        path = head.target
        if (
            head.method != "GET"
            or not path.startswith(_BEFORE)
            or not path.startswith(_BETWEEN, _ID_END)
            or body.total_bytes
            or self._services.draining
        ):
            return False
        asker = asker_of(self._services, head, path[len(_BEFORE) : _ID_END])
        if asker is None:
            return False
        form = FORMS.get(head.headers.get("content-type", Form.JSON.value))
        name, asks, version = path[_KEY_AT:].partition("?at=")
        try:
            key = from_base64url(name, "key")
            at = parse_version(version, "at") if asks else None
        except ProtocolError:
            return False
        if form is None:
            return False
        accept = accepted_form(head.headers.get("accept", ""), form)
        request = LanedRequest(self._services, connection, _ENTRY, asker, accept, None)
        request.begin(partial(self._read, request, key, at))
        return True

    def _read(self, request: LanedRequest, key: bytes, at: int | None) -> None:
        found = partial(self._found, request, key)
        try:
            check_key(key, request.identity)
            if at is not None:
                self._begin_looking(request, key, at)
                return
            self._services.reader.begin_entry(request.identity.log_id, key, found)
        except Exception as error:
            request.refuse(error)

    def _found(self, request: LanedRequest, key: bytes, found: _Found | Refusal | None) -> None:
        if found is None:
            self._begin_looking(request, key, None)
        elif isinstance(found, Refusal):
            request.refuse(found)
        else:
            _answer(request, found, None)

    def _begin_looking(self, request: LanedRequest, key: bytes, at: int | None) -> None:
        task = asyncio.ensure_future(self._look_for(request, key, at))
        self._looking.add(task)
        task.add_done_callback(self._looking.discard)

    async def _look_for(self, request: LanedRequest, key: bytes, at: int | None) -> None:
        reader, log_id = self._services.reader, request.identity.log_id
        try:
            found = await reader.entries(log_id, [key], at)
        except Exception as error:
            request.refuse(error)
        else:
            _answer(request, found, at)


def _answer(request: LanedRequest, found: _Found, at: int | None) -> None:
    head, entries = found
    try:
        body = messages.encode(the_entry(head, entries, at), request.accept)
        request.answer(200, place(request.identity, head), body)
    except Exception as error:
        request.refuse(error)

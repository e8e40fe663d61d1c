"""Handlers of the native API that read: diffs and waits, entries, histories, versions."""

import time
from collections.abc import Sequence

from aiohttp import web
from indelible_protocol import messages
from indelible_protocol.diff import Order
from indelible_protocol.errors import ErrorCode, ProtocolError
from msgspec import UNSET, Struct

from indelible_server.api import streaming
from indelible_server.api.cache_headers import Kind, is_known
from indelible_server.api.diff_headers import for_caches, page_headers, place
from indelible_server.api.messages import answer, answer_form, read_message
from indelible_server.api.middlewares import WAITED
from indelible_server.api.pages import Wanted
from indelible_server.api.parameters import (
    AT,
    CURSOR,
    DIFF_LIMIT,
    FRESH,
    FROM,
    INTERVAL,
    LIMIT,
    ORDER,
    TO,
    WAIT,
    Query,
)
from indelible_server.api.requests import check_key, key_of, log_of
from indelible_server.api.services import SERVICES, Services
from indelible_server.api.waves import Parked, Sent, the_question
from indelible_server.store.admission import LogIdentity
from indelible_server.store.entries import EntryValue
from indelible_server.store.errors import Refusal
from indelible_server.store.nets import Position
from indelible_server.store.reading import Head, check_version
from indelible_server.store.recent import Recent

DIFF_PARAMETERS = (FROM, TO, ORDER, WAIT, DIFF_LIMIT, CURSOR, INTERVAL, FRESH)


class _DiffRequest(Struct, frozen=True, kw_only=True):
    """What is asked for; `to_version` None is the current one, `limit` 0 all of it, as a stream.

    `interval` None: the asker shares the answer with nobody.
    """

    from_version: int
    to_version: int | None
    order: Order
    wait_seconds: float
    limit: int
    start: Position | None = None
    interval: int | None = None
    fresh: bool = False


async def diff(request: web.Request) -> web.StreamResponse:
    identity = await log_of(request)
    services = request.app[SERVICES]
    asked = _read_diff(request, services, identity)
    if asked.fresh:
        await services.covering.fence(identity.log_id)
    if asked.to_version is not None or asked.start is not None:
        head = await services.head(identity.log_id)
        return await _page(request, identity, Recent(head, None), asked)
    deadline = time.monotonic() + asked.wait_seconds
    is_over = False
    while True:
        listening = services.wakeups.listening(identity.log_id)
        recent = await services.recent(identity.log_id, asked.from_version)
        head = recent.head
        if head.version != asked.from_version or not asked.wait_seconds:
            return await _page(request, identity, recent, asked)
        seconds = deadline - time.monotonic()
        if is_over or seconds <= 0.0:
            return _nothing_new(services, identity, head, asked)
        request[WAITED] = True
        question = the_question(asked.order, asked.limit, asked.interval, answer_form(request))
        parked = Parked(request, identity, head.version, question)
        await services.waiting.enter(identity.tenant, parked, seconds, listening)
        try:
            outcome = await parked.outcome
        finally:
            services.waiting.leave(identity.tenant, parked)
        if outcome == "answered":
            return Sent()
        if not await services.waiting.needs_read(outcome, identity.log_id):
            return _nothing_new(services, identity, head, asked, closing=outcome == "draining")
        is_over = outcome == "timeout"


def _nothing_new(
    services: Services,
    identity: LogIdentity,
    head: Head,
    asked: _DiffRequest,
    *,
    closing: bool = False,
) -> web.Response:
    kind: Kind = "passing" if closing or asked.interval is None else "quiet"
    shared = services.settings.shared_caching
    headers = place(identity, head) | for_caches(kind, asked.interval, shared=shared)
    response = web.Response(status=204, headers=headers)
    if closing:
        response.force_close()
    return response


async def _page(
    request: web.Request, identity: LogIdentity, recent: Recent, asked: _DiffRequest
) -> web.StreamResponse:
    services, head = request.app[SERVICES], recent.head
    wanted = Wanted(
        from_version=asked.from_version,
        to_version=head.version if asked.to_version is None else asked.to_version,
        order=asked.order,
        start=asked.start,
        limit=asked.limit,
    )
    check_version(wanted.from_version, head, "from")
    check_version(wanted.to_version, head, "to")
    kind: Kind = "fixed"
    if asked.to_version is None and asked.interval is None:
        kind = "current"
    elif asked.to_version is None:
        kind = "moved" if wanted.to_version > wanted.from_version else "quiet"
    form = answer_form(request)
    shared = services.settings.shared_caching
    headers = page_headers(identity, head, wanted, form, asked.interval, kind=kind, shared=shared)
    if is_known(headers["ETag"], request.headers.getall("If-None-Match", ())):
        return web.Response(status=304, headers=headers)
    if not asked.limit:
        stream = services.pages.stream(identity, head, wanted, form)
        return await streaming.send(request, stream, headers)
    page = await services.pages.page(identity, head, wanted, form, recent.changes)
    return answer(request, page.body, headers=headers)


def _read_diff(request: web.Request, services: Services, identity: LogIdentity) -> _DiffRequest:
    query = Query(request, DIFF_PARAMETERS)
    from_version, to_version = query.version(FROM), query.version(TO)
    order: Order = "key" if query.choice(ORDER) == "key" else "command"
    limit = query.whole(DIFF_LIMIT)
    wait_seconds = query.seconds(WAIT)
    interval = query.version(INTERVAL)
    fresh = query.choice(FRESH) == "1"
    cursor = query.text(CURSOR)
    if cursor is None:
        return _DiffRequest(
            from_version=from_version or 0,
            to_version=to_version,
            order=order,
            wait_seconds=wait_seconds,
            limit=limit,
            interval=interval,
            fresh=fresh,
        )
    log_id, incarnation, low, high, pinned_order, at, adds = services.cursors.open(
        "diff", cursor, 7
    )
    if (
        (log_id, incarnation) != (identity.log_id, identity.incarnation)
        or from_version not in (None, low)
        or to_version not in (None, high)
        or (query.text(ORDER) is not None and order != pinned_order)
    ):
        raise ProtocolError("the cursor belongs to another diff", ErrorCode.BAD_CURSOR)
    assert isinstance(low, int)
    assert isinstance(high, int)
    assert isinstance(at, (int, bytes))
    return _DiffRequest(
        from_version=low,
        to_version=high,
        order="key" if pinned_order == "key" else "command",
        wait_seconds=0.0,
        limit=limit,
        start=Position(at, bool(adds)),
        interval=interval,
        fresh=fresh,
    )


async def commits(request: web.Request) -> web.Response:
    identity = await log_of(request)
    reader = request.app[SERVICES].reader
    query = Query(request, (FROM, TO))
    head = await reader.head(identity.log_id)
    low, high = query.version(FROM) or 0, query.version(TO)
    high = head.version if high is None else high
    if low > high:
        raise ProtocolError(f"from is {low}, at most to ({high}) expected")
    found = await reader.commits(identity.log_id, head, low, high)
    stored = [
        messages.StoredCommit(
            version=version.version,
            time_ms=version.time_ms,
            header=version.header,
            signature=version.signature,
            body=version.body,
        )
        for version in found
    ]
    return answer(
        request,
        messages.Commits(commits=stored, to=found[-1].version if found else low),
        headers=place(identity, head),
    )


async def entry(request: web.Request) -> web.Response:
    identity = await log_of(request)
    key = key_of(request, identity)
    at = Query(request, (AT,)).version(AT)
    head, found = await request.app[SERVICES].reader.entries(identity.log_id, [key], at)
    return answer(request, the_entry(head, found, at), headers=place(identity, head))


def the_entry(head: Head, found: Sequence[EntryValue], at: int | None) -> messages.Entry:
    """
    Raises:
        Refusal: NONEXISTENT_KEY.
    """
    if not found:
        raise Refusal(
            ErrorCode.NONEXISTENT_KEY,
            f"the key holds no value at version {head.version if at is None else at}",
            {"current_version": head.version},
        )
    return entry_message(found[0])


async def batch_get(request: web.Request) -> web.Response:
    identity = await log_of(request)
    Query(request, ())
    asked = await read_message(request, messages.BatchGet)
    tokens = [check_key(key, identity) for key in asked.keys]
    at = None if asked.at is UNSET else asked.at
    head, found = await request.app[SERVICES].reader.entries(identity.log_id, tokens, at)
    return answer(
        request,
        messages.Entries(
            version=head.version if at is None else at,
            entries=[entry_message(value) for value in found],
        ),
        headers=place(identity, head),
    )


async def history(request: web.Request) -> web.Response:
    identity = await log_of(request)
    services = request.app[SERVICES]
    key = key_of(request, identity)
    head, before, limit = await _page_below(request, identity, "history", key)
    steps, rest = await services.reader.history(identity.log_id, head, key, before, limit)
    return answer(
        request,
        messages.History(
            changes=[
                messages.KeyChange(
                    op="remove" if step.entry is None else "set",
                    version=step.version,
                    time_ms=step.time_ms,
                    sealed_key=b"" if step.entry is None else step.entry.sealed_key,
                    value=b"" if step.entry is None else step.entry.value,
                )
                for step in steps
            ],
            cursor=_cursor_below(services, identity, "history", key, rest),
            first_version=head.first_version,
        ),
        headers=place(identity, head),
    )


async def versions(request: web.Request) -> web.Response:
    identity = await log_of(request)
    services = request.app[SERVICES]
    head, before, limit = await _page_below(request, identity, "versions", b"")
    found, rest = await services.reader.summaries(identity.log_id, head, before, limit)
    return answer(
        request,
        messages.Versions(
            versions=[
                messages.VersionInfo(
                    version=summary.version,
                    time_ms=summary.time_ms,
                    writer=summary.writer,
                    source=summary.source,
                    commands=summary.commands,
                    changes=summary.changes,
                    stored_bytes=summary.stored_bytes,
                    header=summary.header,
                )
                for summary in found
            ],
            cursor=_cursor_below(services, identity, "versions", b"", rest),
            first_version=head.first_version,
        ),
        headers=place(identity, head),
    )


async def _page_below(
    request: web.Request, identity: LogIdentity, purpose: str, key: bytes
) -> tuple[Head, int, int]:
    """The head, the version that a newest-first page lies below, and the page's limit."""
    services = request.app[SERVICES]
    query = Query(request, (CURSOR, LIMIT))
    limit = query.whole(LIMIT)
    head = await services.reader.head(identity.log_id)
    cursor = query.text(CURSOR)
    if cursor is None:
        return head, head.version + 1, limit
    *belongs, before = services.cursors.open(purpose, cursor, 4)
    if belongs != [identity.log_id, identity.incarnation, key] or not isinstance(before, int):
        raise ProtocolError("the cursor belongs to something else", ErrorCode.BAD_CURSOR)
    return head, min(before, head.version + 1), limit


def _cursor_below(
    services: Services, identity: LogIdentity, purpose: str, key: bytes, rest: int | None
) -> str | None:
    if rest is None:
        return None
    return services.cursors.seal(purpose, [identity.log_id, identity.incarnation, key, rest])


def entry_message(value: EntryValue) -> messages.Entry:
    return messages.Entry(
        key=value.key, sealed_key=value.sealed_key, value=value.value, version=value.version
    )

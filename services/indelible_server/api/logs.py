"""Handlers of the native API that make, list, describe and delete logs, and commit to them."""

from functools import partial

from aiohttp import web
from indelible_protocol import limits, messages, paths
from indelible_protocol.commands import LogKind
from indelible_protocol.errors import ErrorCode, ProtocolError
from indelible_protocol.semantics import Acknowledged
from indelible_protocol.signing import SignedCommit
from msgspec import to_builtins

from indelible_server.api.bodies import admit, committed, signed_commit
from indelible_server.api.diffs import entry_message
from indelible_server.api.messages import (
    answer,
    body_form,
    header,
    read_bytes,
    read_message,
)
from indelible_server.api.middlewares import WAITED
from indelible_server.api.parameters import CONFLICT, CURSOR, GROUP, KIND, LIMIT, TICKET, Query
from indelible_server.api.requests import log_of, name_of, scope_of
from indelible_server.api.services import SERVICES, Services
from indelible_server.api.tickets import CONFLICTS
from indelible_server.store.admission import Admitted, LogIdentity, admit_sealed
from indelible_server.store.errors import Refusal
from indelible_server.store.logs import LogDescription, OpenedLog
from indelible_server.store.reading import Reader


async def create(request: web.Request) -> web.Response:
    scope = await scope_of(request)
    services = request.app[SERVICES]
    if Query(request, (KIND,)).choice(KIND) == "opaque":
        name = name_of(request, LogKind.OPAQUE)
        asked = await read_message(request, messages.CreateOpaque)
        opened = await services.logs.create_opaque(scope, name, asked.group)
    else:
        name = name_of(request, LogKind.SEALED)
        sealed = await read_message(request, messages.CreateSealed)
        genesis = signed_commit(sealed.genesis)
        opened = await services.logs.create_sealed(scope, name, genesis, sealed.group)
    return _opened(request, opened)


async def open_name(request: web.Request) -> web.Response:
    scope = await scope_of(request)
    word = Query(request, (KIND,)).choice(KIND)
    kind = LogKind.OPAQUE if word == "opaque" else LogKind.SEALED
    opened = await request.app[SERVICES].logs.open_name(scope, kind, name_of(request, kind))
    return _opened(request, opened)


async def list_logs(request: web.Request) -> web.Response:
    scope = await scope_of(request)
    services = request.app[SERVICES]
    query = Query(request, (GROUP, CURSOR, LIMIT))
    limit = query.whole(LIMIT)
    group, cursor = query.text(GROUP), query.text(CURSOR)
    pinned = [scope.tenant, scope.database, group]
    after = b""
    if cursor is not None:
        *belongs, position = services.cursors.open("logs", cursor, 4)
        if belongs != pinned or not isinstance(position, bytes):
            raise ProtocolError("the cursor belongs to another listing", ErrorCode.BAD_CURSOR)
        after = position
    version = None if group is None else await services.logs.group_version(scope, group)
    page, rest = await services.logs.list_logs(scope, group, after, limit)
    return answer(
        request,
        messages.Listing(
            logs=[_description(description) for description in page],
            cursor=None if rest is None else services.cursors.seal("logs", [*pinned, rest]),
            version=version,
        ),
    )


async def describe(request: web.Request) -> web.Response:
    identity = await log_of(request)
    Query(request, ())
    description = await request.app[SERVICES].logs.describe(identity)
    return answer(request, _description(description), headers=_place(description))


async def delete(request: web.Request) -> web.Response:
    identity = await log_of(request)
    Query(request, ())
    services = request.app[SERVICES]
    version = await services.logs.delete(identity)
    services.wakeups.hint(identity.log_id, limits.MAX_VERSION + 1)
    headers = {
        "Indelible-Version": str(version),
        "Indelible-Incarnation": str(identity.incarnation),
    }
    return web.Response(status=204, headers=headers)


async def commit(request: web.Request) -> web.Response:
    identity = await log_of(request)
    wants_entries = Query(request, (CONFLICT,)).choice(CONFLICT) == "entries"
    services = request.app[SERVICES]
    form = body_form(request)
    data = await read_bytes(request)
    key = header(request, "Idempotency-Key") if identity.kind is LogKind.OPAQUE else None
    admitted = admit(identity, form, data, key)
    if isinstance(admitted, SignedCommit):
        admitted = admit_sealed(identity, admitted, await services.logs.control_head(identity))
    judge = partial(_judged, services, identity, admitted, wants_entries)
    ticket = header(request, TICKET.name)
    if ticket is None:
        outcome = await judge()
    else:
        request[WAITED] = services.tickets.must_stand(identity.log_id, ticket)
        outcome = await services.tickets.judged(identity.log_id, ticket, len(data), judge)
    return answer(
        request,
        committed(outcome, services.settings.durability),
        status=201 if outcome.changed else 200,
        headers={
            "Indelible-Version": str(outcome.version),
            "Indelible-Incarnation": str(identity.incarnation),
        },
    )


async def _judged(
    services: Services, identity: LogIdentity, admitted: Admitted, wants_entries: bool
) -> Acknowledged:
    try:
        return await services.committer.commit(identity, admitted)
    except Refusal as refusal:
        if wants_entries and refusal.code in CONFLICTS:
            await _add_entries(refusal, services.reader, identity, admitted)
        raise


async def _add_entries(
    refusal: Refusal, reader: Reader, identity: LogIdentity, admitted: Admitted
) -> None:
    """Tells the loser what its keys hold now, so that it need not read before it tries again."""
    tokens = list({command.token: None for command in admitted.submission.located.commands})
    if len(tokens) > limits.MAX_CONFLICT_ENTRIES:
        return
    head, found = await reader.entries(identity.log_id, tokens, None)
    if sum(len(entry.sealed_key) + len(entry.value) for entry in found) > limits.MAX_PAGE_BYTES:
        return
    refusal.details["current_version"] = head.version
    refusal.details["entries"] = [
        to_builtins(entry_message(entry), builtin_types=(bytes,)) for entry in found
    ]


def _commit(commit: SignedCommit) -> messages.Commit:
    return messages.Commit(header=commit.header, signature=commit.signature, body=commit.body)


def _opened(request: web.Request, opened: OpenedLog) -> web.Response:
    return answer(
        request,
        messages.Opened(
            description=_description(opened.description),
            genesis=_commit(opened.genesis),
            control=[_commit(commit) for commit in opened.control],
        ),
        status=201 if opened.created else 200,
        headers={
            **_place(opened.description),
            "Location": paths.of_log(paths.LOG, opened.description.identity.log_id),
        },
    )


def _place(description: LogDescription) -> dict[str, str]:
    return {
        "Indelible-Version": str(description.version),
        "Indelible-Incarnation": str(description.identity.incarnation),
    }


def _description(description: LogDescription) -> messages.Description:
    identity = description.identity
    return messages.Description(
        log_id=identity.log_id,
        kind="sealed" if identity.kind is LogKind.SEALED else "opaque",
        name=identity.name,
        group=identity.group,
        incarnation=identity.incarnation,
        version=description.version,
        first_version=description.first_version,
        created_ms=description.created_ms,
        updated_ms=description.updated_ms,
        entries=description.entries,
        stored_bytes=description.stored_bytes,
        max_commands=identity.max_commands,
        max_commit_bytes=identity.max_commit_bytes,
        generation=description.generation,
        epoch=description.epoch,
        ctl_seq=description.ctl_seq,
        name_ct=description.name_ct,
    )

"""The original's three verbs, as calls to the same store as the native API's.

Decodes, asks, encodes. Knows nothing of Redis, and decides nothing about logs.
"""

from collections.abc import Awaitable, Callable

from aiohttp import web
from indelible_protocol.commands import LogKind
from indelible_protocol.errors import ErrorCode, ProtocolError

from indelible_server.api.messages import read_bytes, retry_after
from indelible_server.api.middlewares import CODE, TENANT, WAITED
from indelible_server.api.services import SERVICES
from indelible_server.api.v1 import answers, body
from indelible_server.store.admission import admit_opaque
from indelible_server.store.errors import DamagedError, Refusal
from indelible_server.store.names import Scope
from indelible_server.store.reading import check_version
from indelible_server.store.waiters import Waiter


def routes() -> list[web.RouteDef]:
    verbs = create, update, diff
    return [web.post(f"/v1/log/{verb.__name__}", _in_original_words(verb)) for verb in verbs]


async def create(request: web.Request) -> bytes:
    asked = body.decode(await read_bytes(request), body.CreateRequest)
    scope = await _scope(request, asked)
    logs = request.app[SERVICES].logs
    await logs.create_opaque(scope, asked.log_name.encode(), asked.log_group)
    return b""


async def update(request: web.Request) -> bytes:
    asked, rest = body.decode_update(await read_bytes(request))
    scope = await _scope(request, asked)
    commands = body.decode_commands(rest)
    services = request.app[SERVICES]
    log = await services.logs.resolve_name(scope, LogKind.OPAQUE, asked.log_name.encode())
    admitted = admit_opaque(log, commands, asked.update_source.encode(), None)
    await services.committer.commit(log, admitted)
    return b""


async def diff(request: web.Request) -> bytes:
    asked = body.decode(await read_bytes(request), body.DiffRequest)
    scope = await _scope(request, asked)
    services = request.app[SERVICES]
    log = await services.logs.resolve_name(scope, LogKind.OPAQUE, asked.log_name.encode())
    head = await services.reader.head(log.log_id)
    check_version(asked.from_version, head, "fromVersion")
    if asked.wait_seconds and asked.to_version is None and asked.from_version == head.version:
        request[WAITED] = True
        waiter = Waiter(log.log_id, head.version)
        outcome = await services.waiting.wait(scope.tenant, waiter, asked.wait_seconds)
        if await services.waiting.needs_read(outcome, log.log_id):
            head = await services.reader.head(log.log_id)
    to_version = head.version if asked.to_version is None else asked.to_version
    span = asked.from_version, to_version
    start = answers.page_start(asked.pagination_options)
    page = await services.reader.page(log.log_id, head, *span, asked.order, start, asked.limit)
    return answers.encode_diff(*span, page.changes, answers.next_page_options(page.rest))


async def _scope(request: web.Request, asked: body.Request) -> Scope:
    """
    Raises:
        Refusal: BAD_API_KEY, also when the key is another customer's.
    """
    credential = await request.app[SERVICES].authenticator.authenticate(asked.apikey)
    if credential.tenant != asked.customer_id:
        raise Refusal(ErrorCode.BAD_API_KEY, "the API key is not one of this customer_id")
    request[TENANT] = credential.tenant
    return Scope(tenant=credential.tenant)


def _in_original_words(
    verb: Callable[[web.Request], Awaitable[bytes]],
) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answered(request: web.Request) -> web.Response:
        try:
            return web.Response(body=await verb(request), content_type="application/json")
        except DamagedError:
            raise  # is logged, and told in the same members
        except Refusal as refusal:
            code, message, details = refusal.code, refusal.message, refusal.details
        except ProtocolError as error:
            code, message, details = error.code, str(error), {}
        except web.HTTPRequestEntityTooLarge:
            code, message, details = ErrorCode.TOO_LARGE, "the body is too large", {}
        request[CODE] = code.name
        status, text = answers.encode_error(code, message, details)
        return web.Response(
            status=status,
            body=text,
            content_type="application/json",
            headers=retry_after(code, details),
        )

    return answered

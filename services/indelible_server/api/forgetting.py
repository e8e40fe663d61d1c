"""The handler of the native API that forgets versions."""

from aiohttp import web
from indelible_protocol import messages

from indelible_server.api.diff_headers import place
from indelible_server.api.messages import answer, read_message
from indelible_server.api.parameters import Query
from indelible_server.api.requests import log_of
from indelible_server.api.services import SERVICES

ANSWER_SECONDS = 3.0


async def forget(request: web.Request) -> web.Response:
    """Begun by one request, goes on in the background, is asked about by the next."""
    identity = await log_of(request)
    Query(request, ())
    asked = await read_message(request, messages.Forget)
    services = request.app[SERVICES]
    await services.forgets.begin(identity, asked.before)
    told = await services.forgets.go_on(identity.log_id, asked.before, ANSWER_SECONDS)
    head = await services.head(identity.log_id)
    headers = place(identity, head)
    return answer(request, told, status=200 if told.done else 202, headers=headers)

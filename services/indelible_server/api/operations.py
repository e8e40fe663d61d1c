"""What operators ask (alive, ready, what does it count), and what an error code means."""

from aiohttp import web
from indelible_protocol.errors import ErrorCode
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from indelible_server.api.services import SERVICES


async def livez(_request: web.Request) -> web.Response:
    """The event loop turns."""
    return web.json_response({"alive": True})


async def readyz(request: web.Request) -> web.Response:
    """The write path works as promised; otherwise the reasons why not."""
    services = request.app[SERVICES]
    reasons = services.unready()
    return web.json_response(
        {
            "ready": not reasons,
            "reasons": list(reasons),
            "durability": services.settings.durability,
            "replicas": services.durability.replicas,
        },
        status=503 if reasons else 200,
    )


async def metrics(request: web.Request) -> web.Response:
    body = generate_latest(request.app[SERVICES].metrics.registry)
    return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})


async def errors(_request: web.Request) -> web.Response:
    """Where the `type` of every problem leads: the table of error codes."""
    rows = "".join(
        f"<tr id={code.name}><td>{code.name}<td>{code.number}<td>{code.http_status}"
        f"<td>{'yes' if code.retryable else ''}<td>{'yes' if code.may_have_applied else ''}"
        for code in ErrorCode
    )
    page = (
        "<!doctype html><html lang=en><title>Indelible: error codes</title>"
        "<table><tr><th>code<th>number<th>HTTP<th>retryable<th>may have applied"
    )
    return web.Response(text=page + rows + "</table>", content_type="text/html")


def routes() -> list[web.RouteDef]:
    return [
        web.get("/livez", livez),
        web.get("/readyz", readyz),
        web.get("/metrics", metrics),
    ]

"""/livez, /readyz and /metrics of a process without the API."""

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from indelible_server.settings import SettingsError, parse_address
from indelible_server.telemetry import Metrics


@asynccontextmanager
async def listening(
    address: str,
    metrics: Metrics,
    is_ready: Callable[[], bool],
    listener: socket.socket | None = None,
) -> AsyncIterator[None]:
    """Answers on `listener`, or at `address`, while the block runs; nowhere if that is empty."""
    if not address:
        yield
        return

    async def livez(_request: web.Request) -> web.Response:
        return web.json_response({"alive": True})

    async def readyz(_request: web.Request) -> web.Response:
        ready = is_ready()
        return web.json_response({"ready": ready}, status=200 if ready else 503)

    async def told(_request: web.Request) -> web.Response:
        body = generate_latest(metrics.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes(
        [web.get("/livez", livez), web.get("/readyz", readyz), web.get("/metrics", told)]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    host, port = parse_address(address, "operations_listen")
    try:
        site = web.SockSite(runner, listener) if listener else web.TCPSite(runner, host, port)
        await site.start()
        yield
    except OSError as error:
        raise SettingsError(f"cannot listen on {address}: {error.strerror or error}") from error
    finally:
        await runner.cleanup()

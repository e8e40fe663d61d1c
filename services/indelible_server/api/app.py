"""The API process: its routes, its start, and its end.

An end answers every long poll at once and finishes every commit; it does not need the store,
which a process manager may be stopping at the same time.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from functools import partial
from pathlib import Path

import structlog
from aiohttp import web
from indelible_protocol import limits

from indelible_server.api import openapi, operations, routes
from indelible_server.api.connections import Around, Lane, Runner, refusing
from indelible_server.api.entry_lane import EntryLane
from indelible_server.api.lane import CommitLane
from indelible_server.api.laned import Lanes
from indelible_server.api.messages import ERRORS_PATH
from indelible_server.api.middlewares import canonical_line
from indelible_server.api.services import SERVICES, Services, make_services
from indelible_server.api.v1.handlers import routes as v1_routes
from indelible_server.process import FINISH_SECONDS, RETIRING_SECONDS, reach
from indelible_server.settings import Settings, SettingsError, parse_address
from indelible_server.store import functions
from indelible_server.store.connection import Clients, connect, end_tasks
from indelible_server.telemetry import Metrics

log = structlog.get_logger("indelible_server.api")

PREPARING_SECONDS = 2.0  # for which who connects may be left waiting for the store
CLOSE_SECONDS = 0.5
LINGER_SECONDS = 0.5
LINGER_STEP_SECONDS = 0.05
BACKLOG = 1_024
MAX_HEADER_BYTES = 8_190


def make_app(services: Services) -> web.Application:
    app = web.Application(client_max_size=limits.MAX_BODY_BYTES)
    app[SERVICES] = services
    app.add_routes(routes.routes())
    app.add_routes(openapi.routes())
    app.add_routes([web.get(ERRORS_PATH, operations.errors)])
    app.add_routes(v1_routes())
    if not services.settings.operations_listen:
        app.add_routes(operations.routes())
    return app


async def run(
    settings: Settings,
    secret: bytes,
    stop: asyncio.Event,
    *,
    listening: Callable[[str], None] = lambda url: None,
    ready: asyncio.Event | None = None,
    failpoint: str | None = None,
    metrics: Metrics | None = None,
    listener: socket.socket | None = None,
    operations_listener: socket.socket | None = None,
    retiring: asyncio.Event | None = None,
) -> None:
    """Serves until `stop` is set, then drains; in no hurry while `retiring` is set. Accepts on
    the listeners that it is given, else on its own.

    `listening` is told the URL once the socket is open; `ready` is set once the store is
    loaded with our functions and holds what is promised.
    """
    clients = connect(
        settings.redis,
        connections=settings.store_connections,
        timeout_seconds=settings.store_seconds,
        wait_replicas=settings.wait_replicas,
    )
    services = make_services(settings, secret, clients, partial(reach, failpoint), metrics)
    background_stop = asyncio.Event()
    preparing = asyncio.create_task(_prepare(services, clients))
    try:
        if listener is not None:  # who connects meanwhile waits there, and is not refused
            await asyncio.wait([preparing], timeout=PREPARING_SECONDS)
        runners = await _listen(services, listening, listener, operations_listener)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(services.wakeups.run(background_stop))
            tasks.create_task(services.durability.run(background_stop))
            tasks.create_task(services.quotas.run(background_stop))
            tasks.create_task(_tell_ready(preparing, ready))
            await stop.wait()
            await end_tasks(preparing)
            await _drain(services, runners, retiring or asyncio.Event())
            background_stop.set()
    finally:
        await end_tasks(preparing)
        await services.forgets.close()
        await clients.close()


async def _listen(
    services: Services,
    listening: Callable[[str], None],
    listener: socket.socket | None,
    operations_listener: socket.socket | None,
) -> list[web.AppRunner]:
    settings = services.settings
    tls = _tls(settings)
    app, lane = make_app(services), Lanes([CommitLane(services), EntryLane(services)])
    runners = [await _site(app, settings.listen, settings, tls, listener, canonical_line, lane)]
    scheme = "https" if tls else "http"
    url = f"{scheme}://{_authority(runners[0])}"
    log.info("api.listening", url=url, durability=settings.durability)
    if settings.operations_listen:
        app = web.Application()
        app[SERVICES] = services
        app.add_routes(operations.routes())
        site = _site(app, settings.operations_listen, settings, None, operations_listener)
        runners.append(await site)
        log.info("operations.listening", url=f"http://{_authority(runners[1])}")
    listening(url)
    return runners


async def _site(
    app: web.Application,
    address: str,
    settings: Settings,
    tls: ssl.SSLContext | None,
    listener: socket.socket | None = None,
    around: Around = refusing,
    lane: Lane | None = None,
) -> web.AppRunner:
    runner = Runner(
        app,
        around=around,
        lane=lane,
        access_log=None,
        handler_cancellation=True,
        auto_decompress=False,
        keepalive_timeout=settings.idle_seconds,
        shutdown_timeout=CLOSE_SECONDS,
        max_line_size=MAX_HEADER_BYTES,
        max_field_size=MAX_HEADER_BYTES,
    )
    await runner.setup()
    if listener is not None:
        await web.SockSite(runner, listener, ssl_context=tls, backlog=BACKLOG).start()
        return runner
    host, port = parse_address(address, "listen")
    try:
        await web.TCPSite(runner, host, port, ssl_context=tls, backlog=BACKLOG).start()
    except OSError as error:
        await runner.cleanup()
        raise SettingsError(
            f"cannot listen on {address}: {error.strerror or error}; choose another address"
        ) from error
    return runner


def _authority(runner: web.AppRunner) -> str:
    host, port = runner.addresses[0][:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _tls(settings: Settings) -> ssl.SSLContext | None:
    if not settings.tls_cert:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for path in (settings.tls_cert, settings.tls_key):
        if not Path(path).is_file():
            raise SettingsError(f"{path}: there is no such file")
    try:
        context.load_cert_chain(settings.tls_cert, settings.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"{settings.tls_cert}, {settings.tls_key}: {error}") from error
    return context


async def _prepare(services: Services, clients: Clients) -> None:
    """However long the store takes to come up, and to hold what is promised."""
    await functions.keep_loading(clients.commands)
    services.loaded.set()
    await services.durability.check()
    while not services.durability.durable:
        await asyncio.sleep(functions.LOAD_PAUSE_SECONDS)
        await services.durability.check()


async def _tell_ready(preparing: "asyncio.Task[None]", ready: asyncio.Event | None) -> None:
    try:
        await preparing
    except asyncio.CancelledError:  # the process ends before
        return
    log.info("api.ready")
    if ready is not None:
        ready.set()


async def _drain(services: Services, runners: list[web.AppRunner], retiring: asyncio.Event) -> None:
    log.info("api.draining", waiters=services.wakeups.waiter_count)
    services.draining = True
    for runner in runners:
        for site in list(runner.sites):
            await site.stop()
    services.wakeups.drain()
    services.tickets.drain()
    async with asyncio.TaskGroup() as ends:
        finishing = ends.create_task(services.committer.finish(FINISH_SECONDS))
        # A closing connection does not wait long for its answer: a thousand ends take longer.
        ends.create_task(services.waiting.until_nobody(FINISH_SECONDS))
        ends.create_task(_until_closed(runners, retiring))
    late = finishing.result() + await services.committer.finish(FINISH_SECONDS)
    for runner in runners:
        await runner.cleanup()
    log.info("api.drained", unfinished_commits=late)


async def _until_closed(runners: list[web.AppRunner], retiring: asyncio.Event) -> None:
    """While connections are in use: each answer closes its own, so nobody meets a closed one.

    Those that are idle end too soon for somebody, unless there is time for their usual end,
    after `idle_seconds`.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    while any(runner.server and runner.server.connections for runner in runners):
        patience_seconds = RETIRING_SECONDS if retiring.is_set() else LINGER_SECONDS
        if loop.time() - began > patience_seconds:
            break
        await asyncio.sleep(LINGER_STEP_SECONDS)

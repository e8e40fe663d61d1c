"""Runs the service: settings in, exit code out.

Joins an engine (embedded or external), the services, and the process that carries them.
"""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Literal

import msgspec

from indelible_server import operations, process
from indelible_server.api.app import FINISH_SECONDS, run
from indelible_server.embedded import EmbeddedEngine, EngineError, running_engine_url
from indelible_server.materializer import service as materializer_service
from indelible_server.settings import (
    Settings,
    SettingsError,
    note_address,
    read_secret,
    secret_path,
    surroundings,
    with_archive,
)
from indelible_server.store.addresses import check_store
from indelible_server.store.watched_objects import watched_objects
from indelible_server.supervising import Supervisor
from indelible_server.telemetry import Metrics, configure_logging
from indelible_server.webhooks import service as webhooks_service

ENGINE_STOP_SECONDS = 10.0
ENGINE_PAUSE_SECONDS = 0.5

Part = Literal["api", "materializer", "webhooks"]
PARTS: tuple[Part, ...] = ("api", "materializer", "webhooks")


def serve(settings: Settings, *, only: Part | None = None) -> int:
    """Until SIGTERM or SIGINT. The exit code: 0, or 1 with a sentence on stderr."""
    parts = PARTS if only is None else (only,)
    configure_logging(settings.log_level, settings.log_format)
    around = surroundings()
    check_store(settings)
    secret = read_secret(settings)
    metrics = Metrics()
    watched_objects(with_archive(settings).archive, metrics)  # a mistake is told at once
    is_supervisor = settings.processes > 1 and "api" in parts
    ready = {part: asyncio.Event() for part in parts}
    supervised = asyncio.Event()
    retiring = asyncio.Event()
    grace_seconds = FINISH_SECONDS + ENGINE_STOP_SECONDS
    if around.lifeline is not None:  # the supervisor knows better when it is too late
        grace_seconds += process.RETIRING_SECONDS
    failures: list[str] = []
    listener, operations_listener = (
        None if descriptor is None else socket.socket(fileno=descriptor)
        for descriptor in (around.listener, around.operations_listener)
    )

    def operations_address(found: Settings) -> tuple[str, socket.socket | None]:
        """Where a part answers operators that has no API beside it, which would."""
        return ("", None) if "api" in parts else (found.operations_listen, operations_listener)

    async def api(found: Settings, stop: asyncio.Event) -> None:
        await run(
            found,
            secret,
            stop,
            listening=lambda address: note_address(settings, address),
            ready=ready["api"],
            failpoint=around.failpoint,
            metrics=metrics,
            listener=listener,
            operations_listener=operations_listener,
            retiring=retiring,
        )

    async def webhooks(found: Settings, stop: asyncio.Event) -> None:
        alone, own = operations_address(found)
        async with operations.listening(alone, metrics, ready["webhooks"].is_set, own):
            await webhooks_service.run(
                found, secret, stop, metrics=metrics, ready=ready["webhooks"]
            )

    async def materializer(found: Settings, stop: asyncio.Event) -> None:
        alone, own = operations_address(found)
        async with operations.listening(alone, metrics, ready["materializer"].is_set, own):
            await materializer_service.run(
                found,
                stop,
                metrics=metrics,
                ready=ready["materializer"],
                failpoint=around.failpoint,
            )

    running = {"api": api, "materializer": materializer, "webhooks": webhooks}

    async def one_part(part: Part, found: Settings, stop: asyncio.Event) -> None:
        """However it ends, the others are told: what connects may swallow a cancellation."""
        try:
            await running[part](found, stop)
        except SettingsError as error:
            failures.append(str(error))
        finally:
            stop.set()

    async def several(found: Settings, stop: asyncio.Event) -> None:
        supervisor = Supervisor(
            msgspec.structs.replace(found, data="", secret_file=str(secret_path(settings))),
            parts,
            grace_seconds=FINISH_SECONDS + ENGINE_STOP_SECONDS / 2,
        )
        try:
            await supervisor.run(
                stop,
                listening=lambda address: note_address(settings, address),
                ready=supervised,
            )
        except SettingsError as error:
            failures.append(str(error))
        finally:
            stop.set()

    async def all_parts(stop: asyncio.Event) -> None:
        try:
            async with _store_url(settings, parts, around.runtime_dir, stop) as url:
                if not url:
                    return
                found = msgspec.structs.replace(with_archive(settings), redis=url)
                if is_supervisor:
                    await several(found, stop)
                    return
                async with asyncio.TaskGroup() as tasks:
                    for part in parts:
                        tasks.create_task(one_part(part, found, stop))
        except EngineError as error:
            failures.append(str(error))
            stop.set()

    async def until_ready() -> None:
        for event in [supervised] if is_supervisor else ready.values():
            await event.wait()

    code = process.run(
        {" and ".join(parts): all_parts},
        ready=until_ready,
        notify_socket=around.notify_socket,
        watchdog_seconds=around.watchdog_seconds,
        grace_seconds=grace_seconds,
        lifeline=around.lifeline,
        retiring=retiring,
    )
    for text in failures:
        print(f"error: {text}", file=sys.stderr)  # noqa: T201 - the command line's own words
    return 1 if failures else code


@asynccontextmanager
async def _store_url(
    settings: Settings, parts: Collection[Part], runtime_dir: Path | None, stop: asyncio.Event
) -> AsyncIterator[str]:
    """The external store's, or that of an engine which lives as long as the context.

    Without the API the folder's engine is another process's, and waited for; empty if `stop`
    is set before it is there.
    """
    if settings.redis:
        yield settings.redis
        return
    if "api" not in parts:
        yield await _awaited_engine(Path(settings.data), stop)
        return
    engine = await EmbeddedEngine.start(Path(settings.data), runtime_dir=runtime_dir)
    supervising = asyncio.create_task(engine.supervise())
    try:
        yield engine.url
    finally:
        supervising.cancel()
        with suppress(asyncio.CancelledError):
            await supervising
        await engine.stop()


async def _awaited_engine(data: Path, stop: asyncio.Event) -> str:
    while not stop.is_set():
        url = await running_engine_url(data)
        if url is not None:
            return url
        with suppress(TimeoutError):
            async with asyncio.timeout(ENGINE_PAUSE_SECONDS):
                await stop.wait()
    return ""

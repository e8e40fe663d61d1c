"""Runs the service: settings in, exit code out.

Joins an engine (embedded or external), the services, and the process that carries them. What the
services are made of is nearly all of a start: it is imported while the engine starts, and by a
supervisor never.
"""

import asyncio
import gc
import socket
import sys
from collections.abc import AsyncIterator, Collection
from contextlib import (
    AbstractAsyncContextManager,
    asynccontextmanager,
    nullcontext,
    suppress,
)
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Literal

import msgspec

from indelible_server import process
from indelible_server.embedded import EmbeddedEngine, EngineError, running_engine_url
from indelible_server.process import FINISH_SECONDS
from indelible_server.settings import (
    Settings,
    SettingsError,
    Surroundings,
    note_address,
    read_secret,
    secret_path,
    surroundings,
    with_archive,
)
from indelible_server.store.addresses import check_store
from indelible_server.store.watched_objects import watched_objects
from indelible_server.telemetry import Metrics, configure_logging

ENGINE_STOP_SECONDS = 10.0
ENGINE_PAUSE_SECONDS = 0.5

Part = Literal["api", "materializer", "webhooks"]
PARTS: tuple[Part, ...] = ("api", "materializer", "webhooks")
_MODULES = {
    "api": "indelible_server.api.app",
    "materializer": "indelible_server.materializer.service",
    "webhooks": "indelible_server.webhooks.service",
}


def serve(settings: Settings, *, only: Part | None = None) -> int:
    """Until SIGTERM or SIGINT. The exit code: 0, or 1 with a sentence on stderr."""
    configure_logging(settings.log_level, settings.log_format)
    around = surroundings()
    check_store(settings)
    metrics = Metrics()
    watched_objects(with_archive(settings).archive, metrics)  # a mistake is told at once
    service = _Service(
        settings=settings,
        parts=PARTS if only is None else (only,),
        around=around,
        secret=read_secret(settings),
        metrics=metrics,
        listener=_inherited(around.listener),
        operations_listener=_inherited(around.operations_listener),
    )
    grace_seconds = FINISH_SECONDS + ENGINE_STOP_SECONDS
    if around.lifeline is not None:  # the supervisor knows better when it is too late
        grace_seconds += process.RETIRING_SECONDS
    code = process.run(
        {" and ".join(service.parts): service.run},
        ready=service.until_ready,
        notify_socket=around.notify_socket,
        watchdog_seconds=around.watchdog_seconds,
        grace_seconds=grace_seconds,
        lifeline=around.lifeline,
        retiring=service.retiring,
    )
    for text in service.failures:
        print(f"error: {text}", file=sys.stderr)  # noqa: T201 - the command line's own words
    return 1 if service.failures else code


def _inherited(descriptor: int | None) -> socket.socket | None:
    return None if descriptor is None else socket.socket(fileno=descriptor)


@dataclass(slots=True, kw_only=True)
class _Service:
    """The parts that run in this process, or under its supervision. `failures` are sentences for
    whoever started it."""

    settings: Settings
    parts: tuple[Part, ...]
    around: Surroundings
    secret: bytes
    metrics: Metrics
    listener: socket.socket | None
    operations_listener: socket.socket | None
    retiring: asyncio.Event = field(default_factory=asyncio.Event)
    failures: list[str] = field(default_factory=list)
    _supervised: asyncio.Event = field(default_factory=asyncio.Event)
    _ready: dict[Part, asyncio.Event] = field(
        default_factory=lambda: {part: asyncio.Event() for part in PARTS}
    )

    @property
    def _is_supervisor(self) -> bool:
        return self.settings.processes > 1 and "api" in self.parts

    async def run(self, stop: asyncio.Event) -> None:
        runtime_dir = self.around.runtime_dir
        importing = asyncio.ensure_future(asyncio.to_thread(self._import_parts))
        try:
            async with _store_url(self.settings, self.parts, runtime_dir, stop) as url:
                await importing
                if not url:
                    return
                found = msgspec.structs.replace(with_archive(self.settings), redis=url)
                if self._is_supervisor:
                    await self._supervise(found, stop)
                    return
                async with asyncio.TaskGroup() as tasks:
                    for part in self.parts:
                        tasks.create_task(self._run_part(part, found, stop))
        except EngineError as error:
            self.failures.append(str(error))
            stop.set()

    def _import_parts(self) -> None:
        """Nothing is collected meanwhile: what is imported stays."""
        if self._is_supervisor:
            return
        gc.disable()
        try:
            for part in self.parts:
                import_module(_MODULES[part])
        finally:
            gc.enable()

    async def until_ready(self) -> None:
        if self._is_supervisor:
            await self._supervised.wait()
            return
        for part in self.parts:
            await self._ready[part].wait()

    async def _run_part(self, part: Part, found: Settings, stop: asyncio.Event) -> None:
        """However it ends, the others are told: what connects may swallow a cancellation."""
        running = {
            "api": self._run_api,
            "materializer": self._run_materializer,
            "webhooks": self._run_webhooks,
        }
        try:
            await running[part](found, stop)
        except SettingsError as error:
            self.failures.append(str(error))
        finally:
            stop.set()

    async def _supervise(self, found: Settings, stop: asyncio.Event) -> None:
        from indelible_server.supervising import Supervisor  # a process alone starts without it

        secret_file = str(secret_path(self.settings))
        supervisor = Supervisor(
            msgspec.structs.replace(found, data="", secret_file=secret_file),
            self.parts,
            grace_seconds=FINISH_SECONDS + ENGINE_STOP_SECONDS / 2,
        )
        try:
            await supervisor.run(stop, listening=self._note_address, ready=self._supervised)
        except SettingsError as error:
            self.failures.append(str(error))
        finally:
            stop.set()

    async def _run_api(self, found: Settings, stop: asyncio.Event) -> None:
        from indelible_server.api.app import run

        await run(
            found,
            self.secret,
            stop,
            listening=self._note_address,
            ready=self._ready["api"],
            failpoint=self.around.failpoint,
            metrics=self.metrics,
            listener=self.listener,
            operations_listener=self.operations_listener,
            retiring=self.retiring,
        )

    async def _run_materializer(self, found: Settings, stop: asyncio.Event) -> None:
        from indelible_server.materializer import service

        ready = self._ready["materializer"]
        async with self._operations(found, ready):
            await service.run(
                found, stop, metrics=self.metrics, ready=ready, failpoint=self.around.failpoint
            )

    async def _run_webhooks(self, found: Settings, stop: asyncio.Event) -> None:
        from indelible_server.webhooks import service

        ready = self._ready["webhooks"]
        async with self._operations(found, ready):
            await service.run(found, self.secret, stop, metrics=self.metrics, ready=ready)

    def _operations(
        self, found: Settings, ready: asyncio.Event
    ) -> AbstractAsyncContextManager[None]:
        """Answers operators, unless the API is beside it, which does."""
        if "api" in self.parts:
            return nullcontext()
        from indelible_server import operations

        return operations.listening(
            found.operations_listen, self.metrics, ready.is_set, self.operations_listener
        )

    def _note_address(self, address: str) -> None:
        note_address(self.settings, address)


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

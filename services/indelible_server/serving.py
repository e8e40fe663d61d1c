"""Runs the service: settings in, exit code out.

Joins an engine (embedded or external), the services, and the process that carries them.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec

from indelible_server import process
from indelible_server.api.app import FINISH_SECONDS, run
from indelible_server.embedded import EmbeddedEngine, EngineError
from indelible_server.settings import (
    Settings,
    SettingsError,
    note_address,
    read_secret,
    surroundings,
)
from indelible_server.telemetry import configure_logging

ENGINE_STOP_SECONDS = 10.0


def serve(settings: Settings) -> int:
    """Until SIGTERM or SIGINT. The exit code: 0, or 1 with a sentence on stderr."""
    configure_logging(settings.log_level, settings.log_format)
    around = surroundings()
    secret = read_secret(settings)
    ready = asyncio.Event()
    failures: list[str] = []

    async def api(stop: asyncio.Event) -> None:
        try:
            async with _store_url(settings, around.runtime_dir) as url:
                await run(
                    msgspec.structs.replace(settings, redis=url),
                    secret,
                    stop,
                    listening=lambda address: note_address(settings, address),
                    ready=ready,
                    failpoint=around.failpoint,
                )
        except (EngineError, SettingsError) as error:
            failures.append(str(error))
            stop.set()

    async def until_ready() -> None:
        await ready.wait()

    code = process.run(
        {"api": api},
        ready=until_ready,
        notify_socket=around.notify_socket,
        watchdog_seconds=around.watchdog_seconds,
        grace_seconds=FINISH_SECONDS + ENGINE_STOP_SECONDS,
    )
    for text in failures:
        print(f"error: {text}", file=sys.stderr)  # noqa: T201 - the command line's own words
    return 1 if failures else code


@asynccontextmanager
async def _store_url(settings: Settings, runtime_dir: Path | None) -> AsyncIterator[str]:
    """The external store's, or that of an engine which lives as long as the context."""
    if settings.redis:
        yield settings.redis
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

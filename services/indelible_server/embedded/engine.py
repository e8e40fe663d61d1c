"""The life of an embedded engine: start or adopt, watch, restart, stop.

Owns the one process that serves a data folder. The engine is in a session of its own and
holds `engine.lock`, so it outlives a supervisor that is killed, and the next one adopts it.
Whether an engine lives is judged by that lock alone: a pid may be a zombie, or another's.
"""

import asyncio
import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import structlog

from indelible_server.embedded.binaries import EngineBinary, choose
from indelible_server.embedded.folder import DataFolder, EngineError, RecordedEngine, sign_lock
from indelible_server.embedded.probe import Condition, condition
from indelible_server.embedded.running import folders_engine, socket_url

LOOK_SECONDS = 0.05
START_LOOK_SECONDS = 0.01
STOP_SECONDS = 10.0
SETTLED_SECONDS = 10.0
MAX_RESTART_DELAY_SECONDS = 5.0

# Paths are relative to the engine's working folder, so their length and letters are no matter.
_FLAGS = {
    "port": "0",
    "unixsocketperm": "700",
    "daemonize": "no",
    "supervised": "no",
    "save": "",
    "appendonly": "yes",
    "appendfsync": "always",
    "no-appendfsync-on-rewrite": "no",
    "aof-timestamp-enabled": "yes",
    "aof-load-truncated": "yes",
    "maxmemory": "0",
    "maxmemory-policy": "noeviction",
}

log = structlog.get_logger(__name__)


class EmbeddedEngine:
    """A running engine on a data folder that this process owns until `stop`."""

    binary: EngineBinary
    pid: int
    adopted: bool = False

    def __init__(
        self, folder: DataFolder, chosen: EngineBinary, owner_lock: int, ready_seconds: float
    ) -> None:
        self._folder = folder
        self._chosen = chosen
        self._owner_lock: int | None = owner_lock
        self._ready_seconds = ready_seconds
        self._socket: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._exited = True
        self._up_since = 0.0
        self._changing = asyncio.Lock()

    @property
    def url(self) -> str:
        """For the Redis client; the same over restarts of the engine."""
        return socket_url(self._socket)

    @classmethod
    async def start(
        cls,
        data_dir: Path,
        *,
        binary: Path | None = None,
        runtime_dir: Path | None = None,
        ready_seconds: float = 30.0,
    ) -> "EmbeddedEngine":
        """Make the folder if need be, then start its engine or adopt the one that lives.

        `binary` overrides the search for an engine. `runtime_dir` is where the socket's
        folder is made, if it can be ($XDG_RUNTIME_DIR); else in the temporary folder.
        `ready_seconds` is how long the engine may make no progress: a long append-only
        file may take longer to load.

        Raises:
            EngineError: nothing was started, and nothing is left locked.
        """
        folder = DataFolder(data_dir)
        folder.make()
        owner_lock = folder.take_owner_lock()
        try:
            chosen = await asyncio.to_thread(choose, folder.recorded_engine(), binary)
            engine = cls(folder, chosen, owner_lock, ready_seconds)
            await engine._adopt_or_launch(runtime_dir)
        except BaseException:
            os.close(owner_lock)
            raise
        return engine

    async def supervise(self) -> None:
        """Start the engine again whenever it is gone, until cancelled or stopped."""
        failures = 0
        while True:
            await self._until_unusable()
            if self._stopped():
                return
            lived_seconds = time.monotonic() - self._up_since
            failures = 0 if lived_seconds > SETTLED_SECONDS else failures + 1
            log.error(
                "engine.exited",
                pid=self.pid,
                exit_code=self._reap(),
                lived_seconds=round(lived_seconds, 3),
            )
            while not await self._start_again(restart_delay_seconds(failures)):
                failures += 1

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL after 10 s; then release the locks and remove the socket.

        `supervise` then ends by itself. A second call does nothing.
        """
        async with self._changing:
            owner_lock, self._owner_lock = self._owner_lock, None
            if owner_lock is None:
                return
            try:
                if await self._end():
                    self._folder.discard_socket()
                    log.info("engine.stopped", pid=self.pid)
                else:
                    log.error("engine.lingered", pid=self.pid)
            finally:
                os.close(owner_lock)

    def _stopped(self) -> bool:
        return self._owner_lock is None

    # Becoming ready.

    async def _adopt_or_launch(self, runtime_dir: Path | None) -> None:
        """Whichever is possible first: the engine that holds the lock may just be dying."""
        patience = _Patience(self._ready_seconds)
        while (engine_lock := self._folder.take_engine_lock()) is None:
            found = await folders_engine(self._folder)
            if found is not None and not found.loading:
                self._socket, self.adopted = self._folder.recorded_socket(), True
                self._take_over(found)
                log.info("engine.adopted", pid=self.pid, engine=found.binary.name)
                return
            if patience.ended(found and found.loaded_bytes):
                raise EngineError(
                    f"{self._folder.path} is served by an engine that is not ready at "
                    f"{self._folder.recorded_socket()}: stop {self._folder.engine_holder()}, "
                    "then start again."
                )
            await asyncio.sleep(LOOK_SECONDS)
        await self._launch(engine_lock, runtime_dir)

    async def _launch(self, engine_lock: int, runtime_dir: Path | None = None) -> None:
        """Start the chosen engine and wait until it serves. Closes `engine_lock` in any case."""
        began = time.monotonic()
        try:
            await self._refuse_if_served()
            self._record_engine()
            self._place_socket(runtime_dir)
            await asyncio.to_thread(self._folder.sync_store)
            process, log_start_bytes = self._spawn(engine_lock)
        finally:
            os.close(engine_lock)
        try:
            found = await self._until_ready(process, log_start_bytes)
        except BaseException:
            process.kill()
            process.wait()
            self._folder.discard_socket()
            raise
        self._process, self.adopted = process, False
        self._take_over(found)
        log.info(
            "engine.started",
            pid=self.pid,
            engine=self._chosen.name,
            engine_version=self._chosen.version,
            binary=str(self._chosen.path),
            took_ms=round((time.monotonic() - began) * 1000),
        )

    async def _refuse_if_served(self) -> None:
        living = await folders_engine(self._folder)
        if living is not None:
            raise EngineError(
                f"process {living.pid} serves {self._folder.path} although engine.lock is free "
                f"(was that file removed?): stop process {living.pid} first."
            )

    def _record_engine(self) -> None:
        """Before the engine sees the folder: from then on an older one must not."""
        engine = RecordedEngine(name=self._chosen.name, version=self._chosen.version)
        if self._folder.recorded_engine() != engine:
            self._folder.record_engine(engine)
            log.info("engine.recorded", engine=engine.name, engine_version=engine.version)

    def _place_socket(self, runtime_dir: Path | None) -> None:
        if self._socket is None:
            self._folder.discard_socket()
            self._socket = self._folder.place_socket(runtime_dir)
        else:
            self._folder.renew_socket(self._socket)

    def _spawn(self, engine_lock: int) -> tuple[subprocess.Popen[bytes], int]:
        """The process, and the size of the log before its first word."""
        flags = {**_FLAGS, "unixsocket": str(self._socket)}
        words = [word for name, value in flags.items() for word in (f"--{name}", value)]
        output = self._folder.open_log()
        try:
            log_start_bytes = os.fstat(output).st_size
            process = subprocess.Popen(  # noqa: S603 - a judged binary, no shell
                [self._chosen.path, *words],
                cwd=self._folder.store,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(engine_lock,),
                start_new_session=True,
                umask=0o077,
            )
        except OSError as error:
            reason = error.strerror
            raise EngineError(f"{self._chosen.path} cannot be run ({reason}).") from error
        finally:
            os.close(output)
        sign_lock(engine_lock, process.pid)
        return process, log_start_bytes

    async def _until_ready(
        self, process: subprocess.Popen[bytes], log_start_bytes: int
    ) -> Condition:
        assert self._socket is not None
        patience = _Patience(self._ready_seconds)
        while True:
            found = await condition(self._socket)
            if found is not None and not found.loading:
                return found
            if process.poll() is not None:
                raise EngineError(self._failure("ended at its start", log_start_bytes))
            if patience.ended(found and found.loaded_bytes):
                waited = f"was not ready after {self._ready_seconds:g} s"
                raise EngineError(self._failure(waited, log_start_bytes))
            await asyncio.sleep(START_LOOK_SECONDS)

    def _failure(self, what: str, log_start_bytes: int) -> str:
        if self._folder.disk_is_full():
            return f"the disk of {self._folder.path} is full: free some space, then start again."
        tail = self._folder.log_tail(log_start_bytes)
        engine = f"{self._chosen.name} {self._chosen.version}"
        return (
            f"{engine} {what} on {self._folder.path}. Its last words ({self._folder.log}):\n{tail}"
        )

    def _take_over(self, found: Condition) -> None:
        self.binary, self.pid, self._exited = found.binary, found.pid, False
        self._up_since = time.monotonic()

    # Watching.

    async def _until_unusable(self) -> None:
        """Return once the engine is gone; end it if its socket is, as it cannot make another."""
        assert self._socket is not None
        while not self._is_gone():
            if not self._folder.is_there(self._socket):
                async with self._changing:
                    if not self._stopped():
                        log.error("engine.lost_socket", pid=self.pid, socket=str(self._socket))
                        await self._end()
            await asyncio.sleep(LOOK_SECONDS)

    async def _start_again(self, delay_seconds: float) -> bool:
        """True if there is nothing more to do: the engine serves, or the owner stopped it."""
        await asyncio.sleep(delay_seconds)
        async with self._changing:
            if self._stopped():
                return True
            try:
                engine_lock = self._folder.take_engine_lock()
                if engine_lock is None:
                    raise EngineError(f"a child of the engine still holds {self._folder.path}")
                await self._launch(engine_lock)
            except EngineError as error:
                log.error("engine.start_failed", error=str(error))
                return False
            return True

    # Ending.

    def _is_gone(self) -> bool:
        # The lock alone would do, but for someone who removes its file.
        if self._process is not None and self._process.poll() is None:
            return False
        return self._folder.engine_is_gone()

    async def _end(self) -> bool:
        """False if it does not even go by SIGKILL (stuck in the kernel)."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if not self._exited and not self._is_gone():
                with suppress(ProcessLookupError):
                    os.kill(self.pid, number)
            if await self._gone_within(STOP_SECONDS):
                return True
        return False

    async def _gone_within(self, seconds: float) -> bool:
        give_up_at = time.monotonic() + seconds
        while not self._is_gone():
            if time.monotonic() > give_up_at:
                return False
            await asyncio.sleep(START_LOOK_SECONDS)
        return True

    def _reap(self) -> int | None:
        """The exit code of an engine that is gone (-9 for SIGKILL); None for an adopted one.

        From here on its pid may be another's and is not signalled.
        """
        self._exited = True
        process, self._process = self._process, None
        return None if process is None else process.wait()


class _Patience:
    """Ends after `seconds` in which what it was shown did not change."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._shown: object = None
        self._ends_at = time.monotonic() + seconds

    def ended(self, shown: object) -> bool:
        if shown != self._shown:
            self._shown, self._ends_at = shown, time.monotonic() + self._seconds
        return time.monotonic() > self._ends_at


def restart_delay_seconds(failures: int) -> float:
    """`failures`: how many times in a row the engine failed to start or soon died."""
    if failures == 0:
        return 0.0
    return float(min(MAX_RESTART_DELAY_SECONDS, 0.1 * 2 ** min(failures - 1, 10)))

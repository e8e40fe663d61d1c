"""Services in one process: how they end, on signals and on each other's failures."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from indelible_server.process import Service, serve
from indelible_server.settings import surroundings
from structlog.testing import capture_logs

# Two services and a way to see what became of them; argv[1] chooses how `second` behaves.
PROGRAM = """
import asyncio, os, sys, time
from indelible_server.process import run

async def first(stop):
    print("first started", flush=True)
    await stop.wait()
    await asyncio.sleep(0.05)
    print("first finished", flush=True)

async def second(stop):
    print("second started", flush=True)
    if sys.argv[1] == "crash":
        raise RuntimeError("on purpose")
    await stop.wait()
    if sys.argv[1] == "hang":
        await asyncio.sleep(3600)
    if sys.argv[1] == "block":
        print("blocking", flush=True)
        time.sleep(3600)

sys.exit(run({"first": first, "second": second}, grace_seconds=0.3))
"""


class Program:
    def __init__(self, behaviour: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, behaviour], stdout=subprocess.PIPE, text=True
        )

    def await_line(self, text: str) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if text in line:
                return
        pytest.fail(f"{text!r} was never told")

    def end(self) -> tuple[int, str]:
        output, _ = self.process.communicate(timeout=20)
        return self.process.returncode, output


@pytest.fixture
def behaviour() -> str:
    return "good"


@pytest.fixture
def program(behaviour: str) -> Iterator[Program]:
    started = Program(behaviour)
    yield started
    if started.process.poll() is None:
        started.process.kill()
        started.process.communicate()


async def until_stopped(stop: asyncio.Event) -> None:
    await stop.wait()


# Signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_lets_every_service_finish(program: Program, number: signal.Signals) -> None:
    program.await_line("second started")
    program.process.send_signal(number)
    code, output = program.end()
    assert code == 0
    assert "first finished" in output
    assert f"signal={number.name}" in output


@pytest.mark.parametrize("behaviour", ["hang"])
def test_service_that_overruns_its_grace_is_cut_off(program: Program) -> None:
    program.await_line("second started")
    began = time.monotonic()
    program.process.send_signal(signal.SIGTERM)
    code, output = program.end()
    assert code == 1
    assert "first finished" in output
    assert "service.overran" in output
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("behaviour", ["block"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_second_signal_ends_even_a_blocked_process_at_once(
    program: Program, number: signal.Signals
) -> None:
    program.await_line("second started")
    program.process.send_signal(signal.SIGTERM)
    program.await_line("blocking")
    program.process.send_signal(number)
    code, _ = program.end()
    assert code == 128 + number


@pytest.mark.parametrize("behaviour", ["crash"])
def test_crash_of_one_service_ends_the_process_with_a_failure(program: Program) -> None:
    code, output = program.end()
    assert code == 1
    assert "first finished" in output
    assert "on purpose" in output


# Services


async def test_crash_stops_the_others_and_is_told() -> None:
    seen: list[str] = []

    async def crashing(stop: asyncio.Event) -> None:
        raise RuntimeError("on purpose")

    async def finishing(stop: asyncio.Event) -> None:
        await stop.wait()
        seen.append("finished")

    with capture_logs() as events:
        code = await serve({"bad": crashing, "good": finishing}, asyncio.Event())
    assert code == 1
    assert seen == ["finished"]
    (event,) = events
    assert (event["event"], event["service"], event["exc_info"]) == ("service.crashed", "bad", True)


async def test_service_that_ends_too_early_stops_the_others() -> None:
    async def ending(stop: asyncio.Event) -> None:
        return

    with capture_logs() as events:
        code = await serve({"short": ending, "long": until_stopped}, asyncio.Event())
    assert code == 1
    assert [(event["event"], event["service"]) for event in events] == [("service.ended", "short")]


async def test_crash_while_finishing_is_a_failure_too() -> None:
    async def crashing_late(stop: asyncio.Event) -> None:
        await stop.wait()
        raise RuntimeError("on purpose")

    stop = asyncio.Event()
    stop.set()
    with capture_logs() as events:
        assert await serve({"late": crashing_late, "good": until_stopped}, stop) == 1
    assert [event["event"] for event in events] == ["service.crashed"]


async def test_stop_from_outside_ends_well() -> None:
    stop = asyncio.Event()
    serving = asyncio.create_task(serve({"a": until_stopped, "b": until_stopped}, stop))
    await asyncio.sleep(0)
    assert not serving.done()
    stop.set()
    assert await serving == 0


async def test_services_in_grace_are_not_cancelled_before_it_ends() -> None:
    cancelled = asyncio.Event()
    finished = asyncio.Event()

    async def slow(stop: asyncio.Event) -> None:
        await stop.wait()
        await asyncio.sleep(0.1)
        finished.set()

    async def endless(stop: asyncio.Event) -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            assert finished.is_set()
            cancelled.set()
            raise

    stop = asyncio.Event()
    stop.set()
    with capture_logs() as events:
        assert await serve({"slow": slow, "endless": endless}, stop, grace_seconds=0.3) == 1
    assert cancelled.is_set()
    assert [(each["event"], each["service"]) for each in events] == [("service.overran", "endless")]


async def test_services_nest() -> None:
    async def crashing(stop: asyncio.Event) -> None:
        raise RuntimeError("on purpose")

    async def inner(stop: asyncio.Event) -> None:
        codes.append(await serve({"crashing": crashing, "other": until_stopped}, stop))

    codes: list[int] = []
    with capture_logs():
        await serve({"inner": inner, "outer": until_stopped}, asyncio.Event())
    assert codes == [1]


# The service manager


@pytest.fixture(params=["path", "abstract"])
def manager(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    """What systemd listens on, by path or in Linux's abstract namespace."""
    if request.param == "abstract" and sys.platform != "linux":
        pytest.skip("there is no abstract namespace here")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        monkeypatch.chdir(tmp_path)  # a path of any length, by a short name
        listener.bind("notify" if request.param == "path" else f"\0indelible-test-{os.getpid()}")
        listener.setblocking(False)
        yield listener


def address_of(manager: socket.socket) -> str:
    name = manager.getsockname()
    return "@" + name[1:].decode() if isinstance(name, bytes) else str(name)  # a NUL before


async def next_message(manager: socket.socket) -> str:
    async with asyncio.timeout(5):
        return (await asyncio.get_running_loop().sock_recv(manager, 100)).decode()


async def test_manager_is_told_of_readiness_life_and_end(manager: socket.socket) -> None:
    stop, ready = asyncio.Event(), asyncio.Event()
    serving = asyncio.create_task(
        serve(
            {"one": until_stopped},
            stop,
            ready=ready.wait,
            notify_socket=address_of(manager),
            watchdog_seconds=0.2,
        )
    )
    assert await next_message(manager) == "STATUS=starting"
    began = time.monotonic()
    assert [await next_message(manager) for _ in range(3)] == ["WATCHDOG=1"] * 3
    assert 0.1 < time.monotonic() - began < 0.4, "not twice in every watchdog interval"
    ready.set()
    while (message := await next_message(manager)) == "WATCHDOG=1":
        pass
    assert message == "READY=1\nSTATUS=at work"
    stop.set()
    assert await serving == 0
    messages = []
    while True:
        try:
            messages.append(manager.recv(100))
        except BlockingIOError:
            break
    while messages[0] == b"WATCHDOG=1":  # it beat once more before it was asked to stop
        del messages[0]
    assert messages == [b"STOPPING=1\nSTATUS=finishing what was begun"]


async def test_service_that_crashes_before_it_is_ready_is_never_called_ready(
    manager: socket.socket,
) -> None:
    async def crashing(stop: asyncio.Event) -> None:
        raise RuntimeError("on purpose")

    services: dict[str, Service] = {"crashing": crashing}
    never = asyncio.Event()
    with capture_logs():
        code = await serve(
            services, asyncio.Event(), ready=never.wait, notify_socket=address_of(manager)
        )
    assert code == 1
    assert await next_message(manager) == "STATUS=starting"
    assert (await next_message(manager)).startswith("STOPPING=1\n")
    with pytest.raises(BlockingIOError):
        manager.recv(100)


async def test_failure_to_become_ready_ends_the_process() -> None:
    async def failing() -> None:
        raise RuntimeError("on purpose")

    with capture_logs() as events:
        assert await serve({"one": until_stopped}, asyncio.Event(), ready=failing) == 1
    assert [event["event"] for event in events] == ["process.never_ready"]


async def test_manager_that_is_gone_is_no_reason_to_fail(tmp_path: Path) -> None:
    stop = asyncio.Event()
    stop.set()
    with capture_logs() as events:
        code = await serve({"one": until_stopped}, stop, notify_socket=str(tmp_path / "absent"))
    assert code == 0
    assert {event["event"] for event in events} == {"notification.failed"}


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_watchdog_is_fed_only_by_the_process_that_is_watched(
    environ: dict[str, str], seconds: float | None
) -> None:
    assert surroundings(environ).watchdog_seconds == seconds


def test_start_imports_nothing_for_people_and_leaves_the_collector_at_work() -> None:
    program = (
        "import gc, sys\n"
        "from indelible_server.__main__ import _imports_kept\n"
        "with _imports_kept():\n"
        "    import indelible_server.serving\n"
        "print(gc.isenabled(), [name for name in sys.modules if name.startswith('rich')])\n"
        "import rich.console\n"  # who wants it later finds it
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.stdout == "True []\n", ended.stderr
    assert ended.returncode == 0, ended.stderr

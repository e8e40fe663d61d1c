"""Runs services side by side in one process. Owns signals, the order of an end, and what a
service manager is told (systemd's notification protocol).

A service is a coroutine that works until its event is set. Knows nothing of what they do.
"""

import asyncio
import gc
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType

import structlog

Service = Callable[[asyncio.Event], Awaitable[None]]
Ready = Callable[[], Awaitable[object]]

FINISH_SECONDS = 3.0  # that a service has for what is under way when it ends
# The longest that a process takes to end whose successor is at work.
RETIRING_SECONDS = 60.0

log = structlog.get_logger(__name__)

# Allocations until the young are collected; young collections until the middle-aged are; theirs.
_COLLECTIONS = (10_000, 20, 50)


def run(
    services: Mapping[str, Service],
    *,
    ready: Ready | None = None,
    notify_socket: str | None = None,
    watchdog_seconds: float | None = None,
    grace_seconds: float = 10.0,
    lifeline: int | None = None,
    retiring: asyncio.Event | None = None,
) -> int:
    """`serve` in a new event loop until SIGTERM or SIGINT. The exit code: 0 or 1.

    A second signal ends the process on the spot, with 128 + its number, whatever the
    services are doing. `lifeline` is a supervisor's pipe: when nobody has its other end any
    more, that is a signal too; and then signals may come twice, from a service manager and
    from the supervisor, which also ends what takes too long. SIGUSR1 is then an end without
    hurry, because another process has taken over: it sets `retiring`, until SIGTERM comes.
    """

    async def until_signalled() -> int:
        stop = asyncio.Event()
        supervised = None if lifeline is None else retiring or asyncio.Event()
        with _signals_set(stop, supervised), _lifeline_sets(lifeline, stop):
            return await serve(
                services,
                stop,
                ready=ready,
                notify_socket=notify_socket,
                watchdog_seconds=watchdog_seconds,
                grace_seconds=grace_seconds,
            )

    return asyncio.run(until_signalled())


async def serve(
    services: Mapping[str, Service],
    stop: asyncio.Event,
    *,
    ready: Ready | None = None,
    notify_socket: str | None = None,
    watchdog_seconds: float | None = None,
    grace_seconds: float = 10.0,
) -> int:
    """Run all services until `stop` is set or one of them ends; then set `stop` for all.

    `ready` returns when the services can do their work (without it: at once); then READY=1
    goes to `notify_socket`, and at the end STOPPING=1, each with a STATUS for people; WATCHDOG=1
    goes there twice in every `watchdog_seconds`. After `stop` the services have `grace_seconds`
    to return; those that have not are cancelled.
    Needs no signal handlers, so a service may call it to run services of its own.

    Returns 0 if `stop` came from outside and every service returned in time, else 1.
    """
    manager = _ServiceManager(notify_socket)
    ended: list[str] = []
    manager.tell("STATUS=starting")
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(_until_end(name, service, stop, ended), name=name)
            for name, service in services.items()
        ]
        attendants = [group.create_task(_until_ready(ready, manager, stop, ended))]
        if watchdog_seconds is not None:
            attendants.append(group.create_task(manager.keep_alive(watchdog_seconds / 2)))
        try:
            await stop.wait()
        finally:
            manager.tell("STOPPING=1", "STATUS=finishing what was begun")
            attendants[0].cancel()
        late = await _late(tasks, grace_seconds)
        for task in late:
            log.error("service.overran", service=task.get_name(), grace_seconds=grace_seconds)
            task.cancel()
        for task in attendants:
            task.cancel()
    return 1 if ended or late else 0


async def _until_end(name: str, service: Service, stop: asyncio.Event, ended: list[str]) -> None:
    """Run one service; whatever way it ends before `stop`, it ends the others."""
    try:
        await service(stop)
    except Exception:
        log.exception("service.crashed", service=name)
        ended.append(name)
    else:
        if not stop.is_set():
            log.error("service.ended", service=name)
            ended.append(name)
    finally:
        stop.set()


async def _until_ready(
    ready: Ready | None, manager: "_ServiceManager", stop: asyncio.Event, ended: list[str]
) -> None:
    try:
        if ready is not None:
            await ready()
    except Exception:
        log.exception("process.never_ready")
        ended.append("ready")
        stop.set()
    else:
        _spare_the_collector()
        manager.tell("READY=1", "STATUS=at work")


def _spare_the_collector() -> None:
    """What is there from the start stays, and is looked through no more; the rest less often.

    A full collection halts the process for 10–20 µs a waiter, and there is one whenever a
    quarter more waits than at the last.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECTIONS)


async def _late(tasks: list[asyncio.Task[None]], grace_seconds: float) -> set[asyncio.Task[None]]:
    if not tasks:
        return set()
    _, late = await asyncio.wait(tasks, timeout=grace_seconds)
    return late


class _ServiceManager:
    """The other end of NOTIFY_SOCKET, or nobody. Never a reason to fail or to wait.

    Source: sd_notify(3), the datagrams it describes.
    """

    def __init__(self, notify_socket: str | None) -> None:
        self._address = notify_socket

    def tell(self, *assignments: str) -> None:
        if self._address is None:
            return
        message = "\n".join(assignments)
        # A leading @ stands for the NUL of Linux's abstract namespace.
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.sendto(message.encode(), address)
        except OSError as error:
            log.warning("notification.failed", message=message, error=error.strerror)

    async def keep_alive(self, every_seconds: float) -> None:
        """Sent from the event loop: a loop that is stuck sends nothing and is restarted."""
        while True:
            self.tell("WATCHDOG=1")
            await asyncio.sleep(every_seconds)


@contextmanager
def _signals_set(stop: asyncio.Event, retiring: asyncio.Event | None) -> Iterator[None]:
    """SIGTERM and SIGINT set `stop`; the next one exits, even from a stuck loop, unless a
    supervisor is there to see to that (`retiring` is not None)."""
    loop = asyncio.get_running_loop()
    seen = False

    def handle(number: int, _frame: FrameType | None) -> None:
        nonlocal seen
        if seen and retiring is None:
            os._exit(128 + number)
        seen = True
        loop.call_soon_threadsafe(_stop_for, number, stop, retiring)

    numbers = [signal.SIGTERM, signal.SIGINT]
    if retiring is not None:
        numbers.append(signal.SIGUSR1)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            with suppress(TypeError):  # a handler that was not set from Python
                signal.signal(number, handler)


@contextmanager
def _lifeline_sets(lifeline: int | None, stop: asyncio.Event) -> Iterator[None]:
    if lifeline is None:
        yield
        return
    loop = asyncio.get_running_loop()

    def ended() -> None:
        loop.remove_reader(lifeline)
        log.error("process.orphaned")
        stop.set()

    loop.add_reader(lifeline, ended)
    try:
        yield
    finally:
        loop.remove_reader(lifeline)


def _stop_for(number: int, stop: asyncio.Event, retiring: asyncio.Event | None) -> None:
    log.info("process.stopping", signal=signal.Signals(number).name)
    if retiring is not None and number == signal.SIGUSR1:
        retiring.set()
    elif retiring is not None:
        retiring.clear()
    stop.set()


def reach(failpoint: str | None, point: str) -> None:
    """Dies at the failpoint named in the environment: fault tests force crashes with it."""
    if point == failpoint:
        os.kill(os.getpid(), signal.SIGKILL)

"""Several processes behind one port. Owns the listening sockets, and the start, the end and the
replacement of the processes that accept on them.

Each API process has a socket of its own (SO_REUSEPORT: the kernel spreads connections), but the
socket belongs to this process and is handed down. While one is replaced, or has crashed, its
connections wait for the next instead of being reset. Knows nothing of what the processes do.
"""

import asyncio
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import msgspec
import structlog
from msgspec import Struct

from indelible_server.process import RETIRING_SECONDS
from indelible_server.settings import (
    Settings,
    SettingsError,
    environment_for,
    parse_address,
)

BACKLOG = 1_024
EXIT_USAGE = 2
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0
REPLACEMENT_SECONDS = 30.0
STUCK_SECONDS = 30.0
WORKED_SECONDS = 60.0

log = structlog.get_logger(__name__)


@dataclass(kw_only=True, slots=True)
class _Notices(asyncio.DatagramProtocol):
    """What a process tells of itself by systemd's notification protocol."""

    heard_at: float
    ready: asyncio.Event = field(default_factory=asyncio.Event)

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.heard_at = asyncio.get_running_loop().time()
        if b"READY=1" in data.splitlines():
            self.ready.set()


class _Worker(Struct, kw_only=True, eq=False):
    """One process. `ended` gives its exit code."""

    process: asyncio.subprocess.Process
    notices: _Notices
    ended: "asyncio.Task[int]"
    started_at: float

    def signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            self.process.send_signal(number)

    async def becomes_ready(self, within_seconds: float | None) -> bool:
        """False if it ends first, or needs longer."""
        ready = asyncio.create_task(self.notices.ready.wait())
        await asyncio.wait(
            {ready, self.ended}, timeout=within_seconds, return_when=asyncio.FIRST_COMPLETED
        )
        ready.cancel()
        return self.notices.ready.is_set() and not self.ended.done()


class _Seat(Struct, kw_only=True, eq=False):
    """The place of one process among the others; processes come and go, it stays."""

    part: str
    number: int
    settings: Settings
    listener: socket.socket | None
    operations_listener: socket.socket | None
    worker: _Worker | None = None


class Supervisor:
    """Runs `settings.processes` API processes, and one of each other part.

    SIGHUP replaces them one by one by processes that start anew, with the program that is
    installed by then: a successor is ready before its predecessor is told to end, which then
    takes its time.
    """

    def __init__(self, settings: Settings, parts: Sequence[str], *, grace_seconds: float) -> None:
        self._settings = settings
        self._parts = parts
        self._grace_seconds = grace_seconds
        self._seats: list[_Seat] = []
        self._folder = Path()
        self._lifeline = -1
        self._starts = 0
        self._workers: set[_Worker] = set()
        self._rolling: asyncio.Task[None] | None = None
        self._retirements: set[asyncio.Task[None]] = set()

    async def run(
        self, stop: asyncio.Event, *, listening: Callable[[str], None], ready: asyncio.Event
    ) -> None:
        """Until `stop` is set, and then until all have ended.

        Raises:
            SettingsError: the address cannot be listened on, or a process refuses its settings.
        """
        with ExitStack() as held:
            self._folder = Path(
                held.enter_context(tempfile.TemporaryDirectory(prefix="indelible-"))
            )
            self._lifeline = held.enter_context(_lifeline())
            self._seats = list(self._make_seats(held, listening))
            held.enter_context(_on_hangup(self._roll))
            try:
                async with asyncio.TaskGroup() as tasks:
                    keeping = [tasks.create_task(self._keep(seat, stop)) for seat in self._seats]
                    keeping.append(tasks.create_task(self._tell_when_ready(ready)))
                    await stop.wait()
                    for task in keeping:
                        task.cancel()
            except* SettingsError as group:
                raise group.exceptions[0] from None
            finally:
                await self._end_all()

    def _make_seats(self, held: ExitStack, listening: Callable[[str], None]) -> Iterator[_Seat]:
        settings = self._settings
        host, port = parse_address(settings.listen, "listen")
        number = 0
        for part in self._parts:
            for _ in range(settings.processes if part == "api" else 1):
                listener = None
                if part == "api":
                    if not number:
                        _check_free(host, port)
                    listener = held.enter_context(_listener(host, port))
                    port = listener.getsockname()[1]
                operations_listener = None
                if settings.operations_listen:
                    first_host, first = parse_address(settings.operations_listen, "operations")
                    operations_listener = held.enter_context(
                        _listener(first_host, first and first + number, shared=False)
                    )
                yield _Seat(
                    part=part,
                    number=number,
                    settings=msgspec.structs.replace(settings, processes=1),
                    listener=listener,
                    operations_listener=operations_listener,
                )
                number += 1
        scheme = "https" if settings.tls_cert else "http"
        url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
        log.info("supervisor.listening", url=url, processes=settings.processes)
        listening(url)

    async def _keep(self, seat: _Seat, stop: asyncio.Event) -> None:
        """Starts the seat's process, and another whenever one ends that was not told to."""
        pause = FIRST_PAUSE_SECONDS
        loop = asyncio.get_running_loop()
        seat.worker = await self._start(seat)
        while True:
            worker = seat.worker
            code = await self._end_of(worker, seat)
            if seat.worker is not worker:
                continue
            log.error("worker.ended", part=seat.part, number=seat.number, code=code)
            if code == EXIT_USAGE:
                stop.set()
                raise SettingsError(f"the {seat.part} process refuses its settings")
            if loop.time() - worker.started_at > WORKED_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            seat.worker = await self._start(seat)

    async def _end_of(self, worker: _Worker, seat: _Seat) -> int:
        """The exit code; a process that has said nothing for too long is killed."""
        loop = asyncio.get_running_loop()
        while True:
            silent = loop.time() - worker.notices.heard_at
            if silent > STUCK_SECONDS:
                log.error("worker.stuck", part=seat.part, number=seat.number, seconds=round(silent))
                worker.signal(signal.SIGKILL)
            done, _ = await asyncio.wait({worker.ended}, timeout=max(1.0, STUCK_SECONDS - silent))
            if done:
                return worker.ended.result()

    async def _start(self, seat: _Seat) -> _Worker:
        loop = asyncio.get_running_loop()
        self._starts += 1
        address = str(self._folder / str(self._starts))
        notices = _Notices(heard_at=loop.time())
        transport, _ = await loop.create_datagram_endpoint(
            lambda: notices, local_addr=address, family=socket.AF_UNIX
        )
        listener, operations_listener = (
            each.fileno() if each else None for each in (seat.listener, seat.operations_listener)
        )
        handed = {self._lifeline, listener, operations_listener} - {None}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "indelible_server", seat.part),
            stdin=asyncio.subprocess.DEVNULL,
            env=environment_for(
                seat.settings,
                notify_socket=address,
                watchdog_seconds=STUCK_SECONDS,
                lifeline=self._lifeline,
                listener=listener,
                operations_listener=operations_listener,
            ),
            pass_fds=cast("set[int]", handed),
            start_new_session=True,  # Ctrl-C is for the supervisor, which tells them
        )
        log.info("worker.started", part=seat.part, number=seat.number, pid=process.pid)

        async def end() -> int:
            code = await process.wait()
            transport.close()
            os.unlink(address)
            return code

        worker = _Worker(
            process=process,
            notices=notices,
            ended=asyncio.create_task(end()),
            started_at=loop.time(),
        )
        self._workers.add(worker)
        worker.ended.add_done_callback(lambda _: self._workers.discard(worker))
        return worker

    async def _tell_when_ready(self, ready: asyncio.Event) -> None:
        for seat in self._seats:
            while True:
                if seat.worker is not None and await seat.worker.becomes_ready(None):
                    break
                await asyncio.sleep(FIRST_PAUSE_SECONDS)
        log.info("supervisor.ready")
        ready.set()

    def _roll(self) -> None:
        if self._rolling is None or self._rolling.done():
            self._rolling = asyncio.ensure_future(self._replace_all())

    async def _replace_all(self) -> None:
        log.info("supervisor.replacing")
        for seat in self._seats:
            if not await self._replace(seat):
                return
        await asyncio.gather(*self._retirements)
        self._retirements.clear()
        log.info("supervisor.replaced")

    async def _replace(self, seat: _Seat) -> bool:
        """False if the new process does not become ready: the old one stays, and the others."""
        new, old = await self._start(seat), seat.worker
        if not await new.becomes_ready(REPLACEMENT_SECONDS):
            log.error("supervisor.replacement_failed", part=seat.part, number=seat.number)
            new.signal(signal.SIGKILL)
            await new.ended
            return False
        seat.worker = new
        if old is not None:
            self._retirements.add(asyncio.create_task(self._retire(old)))
        return True

    async def _retire(self, worker: _Worker) -> None:
        """Its successor is at work: connections that are idle may come to their usual end."""
        worker.signal(signal.SIGUSR1)
        await asyncio.wait({worker.ended}, timeout=RETIRING_SECONDS + self._grace_seconds)
        await self._end(worker)

    async def _end_all(self) -> None:
        rolling = {*self._retirements, *([self._rolling] if self._rolling else [])}
        for task in rolling:
            task.cancel()
        if rolling:
            await asyncio.wait(rolling)
        await asyncio.gather(*(self._end(worker) for worker in list(self._workers)))

    async def _end(self, worker: _Worker) -> None:
        worker.signal(signal.SIGTERM)
        _, late = await asyncio.wait({worker.ended}, timeout=self._grace_seconds)
        if late:
            worker.signal(signal.SIGKILL)
            await worker.ended


def _check_free(host: str, port: int) -> None:
    """SO_REUSEPORT would share the port with another service of this user without a word.

    Raises:
        SettingsError: somebody listens there.
    """
    _listener(host, port, shared=False).close()


def _listener(host: str, port: int, *, shared: bool = True) -> socket.socket:
    """
    Raises:
        SettingsError: the address is no address, or not free.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _cannot_listen(host, port, error) from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise _cannot_listen(host, port, error) from error
    return listener


def _cannot_listen(host: str, port: int, error: OSError) -> SettingsError:
    return SettingsError(
        f"cannot listen on {host}:{port}: {error.strerror or error}; choose another address"
    )


@contextmanager
def _lifeline() -> Iterator[int]:
    """The reading end of a pipe whose other end closes when this process ends, however it ends."""
    reader, writer = os.pipe()
    try:
        yield reader
    finally:
        os.close(writer)
        os.close(reader)


@contextmanager
def _on_hangup(call: Callable[[], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, call)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)

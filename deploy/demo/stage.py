"""What the demo stands on: a folder, a server, processes; and how all of it ends.

Owns every process that the demo starts and the words that it prints. Knows nothing of the
tour's steps. Nothing that it starts is left running, whichever way the demo ends.
"""

import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console

READY_SECONDS = 60.0
STEP_SECONDS = 20.0
LOOK_SECONDS = 0.02
_OURS = ".made-by-the-demo"
_ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class DemoError(Exception):
    """A step that did not hold; its text is a sentence."""


class Interrupted(KeyboardInterrupt):
    """A signal asks the demo to end; to libraries it is what ^C is."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


def check(held: bool, what: str) -> None:
    if not held:
        raise DemoError(what)


def until(condition: Callable[[], Any], what: str, within_seconds: float = STEP_SECONDS) -> Any:
    """What `condition` gives, as soon as it is true."""
    deadline = time.monotonic() + within_seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise DemoError(f"{what} (waited {within_seconds:.0f} s)")
        time.sleep(LOOK_SECONDS)
    return found


class Stage:
    """Processes, files and printed lines of one demo."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.profile = folder / "profile.json"
        self.server_log = folder / "server.log"
        self.url = ""
        self.console = Console(highlight=False, soft_wrap=True)
        self._processes: list[subprocess.Popen[str]] = []
        self._is_starting = False
        self._interruption: Interrupted | None = None
        # Settings of the user's own service must not reach this one.
        self._environ = {k: v for k, v in os.environ.items() if not k.startswith("INDELIBLE_")}

    def say(self, label: str, text: str) -> None:
        self.console.print(f"[bold cyan]{label:<10}[/]", end=" ")
        self.console.print(text, markup=False)

    def show(self, text: str, colour: str = "default") -> None:
        self.console.print(" " * 11 + text, markup=False, style=colour)

    def start(self, *arguments: str, log: Path | None = None) -> "subprocess.Popen[str]":
        """A process in a group of its own: ^C reaches the demo alone, which then ends it."""
        output = log.open("w") if log else subprocess.PIPE
        self._is_starting = True
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT if log else None,
            env=self._environ,
            text=True,
            bufsize=1,
            process_group=0,
        )
        self._processes.append(process)
        self._is_starting = False
        if log:
            assert not isinstance(output, int)
            output.close()
        if self._interruption is not None:
            raise self._interruption
        return process

    def interrupt(self, interruption: Interrupted) -> None:
        """
        Raises:
            Interrupted: at once, or when the process that is being started can be ended.
        """
        if not self._is_starting:
            raise interruption
        self._interruption = interruption

    def run(self, *arguments: str) -> str:
        """What the command prints on stdout."""
        done = subprocess.run(
            arguments, capture_output=True, text=True, env=self._environ, timeout=READY_SECONDS
        )
        check(done.returncode == 0, f"{' '.join(arguments[:3])} failed: {done.stderr.strip()}")
        return done.stdout

    def next_line(self, process: "subprocess.Popen[str]", what: str) -> dict[str, Any]:
        """The next line of a process's output, as JSON; one line at a time is ever there."""
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], STEP_SECONDS)
        line = process.stdout.readline() if ready else ""
        check(line.endswith("\n"), what)
        decoded: dict[str, Any] = json.loads(line)
        return decoded

    # The server.

    def serve(self, program: str, *arguments: str) -> None:
        """Returns once it is ready.

        Raises:
            DemoError: it ended, or did not get ready in time; with its last words.
        """
        server = self.start(program, *arguments, log=self.server_log)

        def ready() -> bool:
            check(server.poll() is None, f"the server ended: {self.server_log.read_text()[-500:]}")
            return bool(self.events("api.ready"))

        until(ready, "the server was not ready", READY_SECONDS)
        self.url = self.events("api.listening")[-1]["url"]

    def events(self, name: str) -> list[dict[str, Any]]:
        """The server's log lines with that event."""
        lines = self.server_log.read_text().splitlines(keepends=True)
        decoded = [json.loads(line) for line in lines if line[0] == "{" and line[-1] == "\n"]
        return [line for line in decoded if line["event"] == name]

    def metric(self, name: str) -> float:
        lines = self.get("/metrics", {}).splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(name + " "))

    def get(self, path: str, headers: Mapping[str, str]) -> str:
        address = urlsplit(self.url)
        assert address.hostname is not None
        connection = HTTPConnection(address.hostname, address.port, timeout=STEP_SECONDS)
        try:
            connection.request("GET", path, headers=dict(headers))
            answer = connection.getresponse()
            text = answer.read().decode()
        except (OSError, HTTPException) as error:
            raise DemoError(f"the server does not answer on {path}: {error}") from error
        finally:
            connection.close()
        check(answer.status == 200, f"the server answers {answer.status} on {path}")
        return text

    def engine_pid(self) -> int:
        pid: int = self.events("engine.started")[-1]["pid"]
        return pid

    # The end.

    def end(self) -> None:
        """Ends what was started, the server first: it takes its engine along.

        Raises:
            DemoError: something had to be killed.
        """
        for process in self._processes:
            if process.poll() is None:
                process.terminate()
        lingering = []
        for process in self._processes:
            try:
                process.wait(STEP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                lingering.append(process.pid)
        self._processes.clear()
        lock = self.data / "engine.lock"
        if _holder(lock):  # only if the server was killed: its engine outlives it by design
            pid = int(lock.read_text())
            os.kill(pid, signal.SIGKILL)
            lingering.append(pid)
        check(not lingering, f"processes {lingering} did not end when asked to and were killed")


@contextmanager
def stage(folder: Path) -> Iterator[Stage]:
    """An empty folder and nothing running in it; whatever happens, nothing runs afterwards.

    Raises:
        DemoError: the folder is not the demo's to remove.
        Interrupted: SIGINT, SIGTERM or SIGHUP came.
    """
    _clear(folder)
    set_up = Stage(folder)

    def interrupt(number: int, _frame: FrameType | None) -> None:
        for each in _ENDING_SIGNALS:  # cleaning up is not interrupted
            signal.signal(each, signal.SIG_IGN)
        set_up.interrupt(Interrupted(number))

    before = {number: signal.signal(number, interrupt) for number in _ENDING_SIGNALS}
    try:
        yield set_up
    finally:
        for number in _ENDING_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        set_up.end()
        for number, handler in before.items():
            signal.signal(number, handler)


def _clear(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()):
        check((folder / _OURS).exists(), f"{folder} holds other files: choose another --folder")
        for name in ("owner.lock", "engine.lock"):
            pid = _holder(folder / "data" / name)
            check(not pid, f"process {pid} of an earlier demo uses {folder}: end it first")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _OURS).touch()


def _holder(lock: Path) -> str:
    """Who holds the lock, as it says itself; empty if nobody does."""
    try:
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return ""
    except BlockingIOError:
        return lock.read_text().strip()
    return ""

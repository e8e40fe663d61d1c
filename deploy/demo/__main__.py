"""Walks the tour: create, update, follow, conflict, what is stored, crash. Exits 0 if all held.

Every step is checked, not only shown. Whatever happens, all that was started is ended.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import indelible
from indelible import Upsert
from rich.console import Console

BIN = Path(sys.executable).parent
DEFAULT_PORT = 8480
READY_SECONDS = 60.0
STOP_SECONDS = 20.0
ORDERS = {
    "order-1": {"date": "2020-01-07", "revenue": 25},
    "order-2": {"date": "2020-01-08", "revenue": 40},
}
SECRETS = [b"orders", b"order-1", b"order-2", b"revenue", b"2020-01-08"]


class DemoError(Exception):
    """A step that did not hold."""


class Stage:
    """What the demo starts, and its words."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.profile = folder / "profile.json"
        self.server_log = folder / "server.log"
        self.processes: list[subprocess.Popen[str]] = []
        self.console = Console(highlight=False, soft_wrap=True)

    def say(self, label: str, text: str) -> None:
        self.console.print(f"[bold cyan]{label:<10}[/] {text}")

    def show(self, sign: str, text: str) -> None:
        colour = {"+": "green", "-": "red"}.get(sign, "dim")
        self.console.print(f"           [{colour}]{sign} {text}[/]")

    def start(self, *arguments: str, log: Path | None = None) -> "subprocess.Popen[str]":
        output = log.open("w") if log else subprocess.PIPE
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT if log else None,
            text=True,
        )
        self.processes.append(process)
        return process

    def run(self, *arguments: str) -> str:
        done = subprocess.run(arguments, capture_output=True, text=True)
        if done.returncode:
            raise DemoError(f"{' '.join(arguments[:3])} failed: {done.stderr.strip()}")
        return done.stdout

    def events(self) -> Iterator[dict[str, object]]:
        for line in self.server_log.read_text().splitlines():
            if line.startswith("{") and line.endswith("}"):
                yield json.loads(line)

    def await_event(self, name: str, count: int = 1) -> dict[str, object]:
        """The `count`th log event of that name, as soon as it is there."""
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            found = [event for event in self.events() if event["event"] == name]
            if len(found) >= count:
                return found[count - 1]
            if self.processes[0].poll() is not None:
                break
            time.sleep(0.02)
        raise DemoError(f"the server did not say {name}: {self.server_log.read_text()[-2_000:]}")

    def end(self) -> None:
        for process in reversed(self.processes):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def stage(folder: Path) -> Iterator[Stage]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    set_up = Stage(folder)
    try:
        yield set_up
    finally:
        set_up.end()


def check(held: bool, what: str) -> None:
    if not held:
        raise DemoError(what)


def set_up(show: Stage) -> None:
    server = str(BIN / "indelible-server")
    for port in (DEFAULT_PORT, 0):  # 0: any free one
        listen = f"127.0.0.1:{port}"
        arguments = ("all", "--data", str(show.data), "--listen", listen)
        process = show.start(server, *arguments, log=show.server_log)
        try:
            show.await_event("api.ready")
            break
        except DemoError:
            if port == 0 or "cannot listen" not in show.server_log.read_text():
                raise
            process.wait(STOP_SECONDS)
            show.processes.remove(process)
    engine = show.await_event("engine.started")
    url = show.await_event("api.listening")["url"]
    show.say(
        "store",
        f"{engine['engine']} {engine['engine_version']} (from the wheel), data in {show.data}, "
        "fsync on every write",
    )
    show.say("server", str(url))
    credentials = show.folder / "credentials.json"
    credentials.write_text(show.run(server, "tenant", "create", "demo", "--data", str(show.data)))
    credentials.chmod(0o600)
    show.run(
        str(BIN / "indelible"), "init", "--credentials", str(credentials), "--profile",
        str(show.profile),
    )  # fmt: skip
    show.say("key", f"new master key in {show.profile} (mode 600): the server never sees it")


def tour(show: Stage, client: indelible.Client) -> dict[str, object]:
    log = client.log("orders", create=True, group="shop")
    show.say("1 create", f'log "orders" at version {log.version}')
    check(log.version == 0, "a new log is at version 0")

    started = time.perf_counter()
    commit = log.update([Upsert(key, value) for key, value in ORDERS.items()], source="demo")
    took_ms = (time.perf_counter() - started) * 1_000
    show.say(
        "2 update", f"2 commands in one transaction: version {commit.version}, {took_ms:.1f} ms"
    )
    check(commit.version == 1, "one transaction makes one version")

    follower = show.start(
        sys.executable, "-m", "deploy.demo.follow", str(show.profile), "orders", "1"
    )
    assert follower.stdout is not None
    follower.stdout.readline()
    time.sleep(0.3)  # the follower is asleep in its long poll, which is what is to be shown
    sent_at = time.time()
    log.set("order-1", {"date": "2020-01-07", "revenue": 30})
    woken = json.loads(follower.stdout.readline())
    wake_ms = (woken["received_at"] - sent_at) * 1_000
    show.say(
        "3 follow",
        f"another process woke {wake_ms:.1f} ms after the write was sent: "
        f"v{woken['from']}..v{woken['to']}",
    )
    for op, key, value in woken["changes"]:
        show.show("+" if op == "add" else "-", f"{key}  {json.dumps(value)}")
    check([change[0] for change in woken["changes"]] == ["remove", "add"], "the diff is net")
    follower.wait(STOP_SECONDS)

    conflict = refused_update(log)
    check(conflict.current_version == 2, "a conflict tells the current version")
    show.say(
        "4 conflict",
        f"expect_version=1 refused: the log is at {conflict.current_version} ({word(conflict)})",
    )
    old = {entry.key: entry.value for entry in log.at(1)}
    check(old == ORDERS, "old versions stay readable")
    show.say("", f"version 1 still reads order-1 = {json.dumps(old['order-1'])}")
    return {entry.key: entry.value for entry in log}


def refused_update(log: indelible.Log) -> indelible.ConflictError:
    try:
        log.update([Upsert("order-2", None)], expect_version=1)
    except indelible.ConflictError as conflict:
        return conflict
    raise DemoError("a stale write was accepted")


def word(error: indelible.IndelibleError) -> str:
    return f"{error.code.name} {error.code.number}" if error.code else "no code"


def show_what_is_stored(show: Stage) -> None:
    profile = json.loads(show.profile.read_text())
    secrets = [*SECRETS, profile["master_key_base64"].encode(), profile["apikey"].encode()]
    files = [path for path in (show.data / "store").rglob("*") if path.is_file()]
    files += [show.server_log, show.data / "engine.log"]
    stored = b"".join(path.read_bytes() for path in files)
    found = [secret for secret in secrets if secret in stored]
    check(not found, f"plaintext in the store: {found}")
    aof = max(files, key=lambda path: path.stat().st_size).read_bytes()
    at = aof.rfind(b"indlcmt1")
    show.say(
        "5 sealed",
        f"what the server stored: …{aof[at + 300 : at + 324].hex()}…; no name, key, value, "
        f"API key or master key in its {len(stored) // 1024} KB of files and log lines",
    )


def crash(show: Stage, client: indelible.Client, contents: dict[str, object]) -> None:
    engine = show.await_event("engine.started")
    pid = engine["pid"]
    assert isinstance(pid, int)
    os.kill(pid, signal.SIGKILL)
    started = time.monotonic()
    show.await_event("engine.started", count=2)
    log = client.log("orders")
    after = {entry.key: entry.value for entry in log}
    check(log.version == 2, "every version is still there")
    check(after == contents, "and holds the same")
    took_ms = (time.monotonic() - started) * 1_000
    show.say(
        "6 crash",
        f"store killed with -9; {took_ms:.0f} ms later 2 of 2 versions are back, same contents",
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(".demo"), help="removed first")
    folder = parser.parse_args().folder
    try:
        with stage(folder) as show:
            set_up(show)
            with indelible.Client(show.profile) as client:
                contents = tour(show, client)
                show_what_is_stored(show)
                crash(show, client, contents)
        show.console.print(
            "[bold green]✓[/] all six steps held; nothing is left running. "
            "Next: make serve · README.md"
        )
    except (DemoError, indelible.IndelibleError, OSError) as error:
        print(f"error: the demo stopped: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

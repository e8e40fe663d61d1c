"""Walks the tour: create, update, follow, conflict, what is stored, crash. Exits 0 if all held.

Every step is checked, not only shown.
"""

import argparse
import base64
import json
import os
import signal
import sys
import time
from pathlib import Path

import indelible
from indelible import Upsert

from deploy.demo.stage import DemoError, Interrupted, Stage, check, stage, until

BIN = Path(sys.executable).parent
PORT = 8480
ORDERS = {
    "order-1": {"date": "2020-01-07", "revenue": 25},
    "order-2": {"date": "2020-01-08", "revenue": 40},
}
SOURCE = "till-7"
# What must be nowhere in the store: the log's name, its keys, parts of its values, the source.
PLAINTEXT = [b"orders", b"order-1", b"order-2", b"revenue", b"2020-01-0", SOURCE.encode()]

Contents = dict[str, object]


def set_up(show: Stage) -> None:
    server = str(BIN / "indelible-server")
    data = ("--data", str(show.data))
    start_server(show, server, "all", *data)
    engine = show.events("engine.started")[0]
    show.say(
        "store",
        f"{engine['engine']} {engine['engine_version']}, private, in {show.data}; "
        "fsync before every answer",
    )
    show.say("server", show.url)
    credentials = show.folder / "credentials.json"
    credentials.touch(mode=0o600)
    credentials.write_text(show.run(server, "tenant", "create", "demo", *data))
    init = ("init", "--credentials", str(credentials), "--profile", str(show.profile))
    show.run(str(BIN / "indelible"), *init)
    show.say("key", f"new master key in {show.profile} (mode 600): the server never sees it")


def start_server(show: Stage, *arguments: str) -> None:
    """On the usual port, or on any other if that one is taken."""
    try:
        show.serve(*arguments, "--listen", f"127.0.0.1:{PORT}")
    except DemoError:
        if "cannot listen" not in show.server_log.read_text():
            raise
        show.serve(*arguments, "--listen", "127.0.0.1:0")


def create_and_update(show: Stage, client: indelible.Client) -> indelible.Log:
    log = client.log("orders", create=True, group="shop")
    check(log.version == 0, "a new log is not at version 0")
    show.say("1 create", 'log "orders" at version 0')
    started = time.perf_counter()
    commit = log.update([Upsert(key, value) for key, value in ORDERS.items()], source=SOURCE)
    took_ms = (time.perf_counter() - started) * 1_000
    check(commit.version == 1, "one transaction did not make one version")
    show.say("2 update", f"2 commands in one transaction: version 1, {took_ms:.1f} ms")
    return log


def follow(show: Stage, log: indelible.Log) -> None:
    reader = show.start(sys.executable, "-m", "deploy.demo.follow", str(show.profile), "orders")
    until(lambda: show.metric("indelible_waiters") == 1, "the follower did not begin to wait")
    sent_at = time.time()
    log.set("order-1", {"date": "2020-01-07", "revenue": 30})
    woken = show.next_line(reader, "the follower was not woken")
    wake_ms = (woken["received_at"] - sent_at) * 1_000
    check((woken["from"], woken["to"]) == (1, 2), "the follower was woken with other versions")
    check(
        woken["changes"]
        == [
            ["remove", "order-1", ORDERS["order-1"]],
            ["add", "order-1", {"date": "2020-01-07", "revenue": 30}],
        ],
        "the diff is not what was changed",
    )
    show.say(
        "3 follow", f"another process, asleep, has the diff v1..v2 {wake_ms:.1f} ms after the write"
    )
    for op, key, value in woken["changes"]:
        sign, colour = ("+", "green") if op == "add" else ("-", "red")
        show.show(f"{sign} {key}  {json.dumps(value)}", colour)


def refuse_conflict(show: Stage, log: indelible.Log) -> None:
    refused = conflict_of(log)
    check(refused.current_version == 2, "a conflict does not tell the current version")
    word = f"{refused.code.name} {refused.code.number}" if refused.code else "no code"
    show.say("4 conflict", f"expect_version=1 is refused: the log is at 2 ({word})")
    old = contents(log, 1)
    check(old == ORDERS, "version 1 does not read as it was written")
    show.show(f"version 1 still reads order-1 = {json.dumps(old['order-1'])}")


def conflict_of(log: indelible.Log) -> indelible.ConflictError:
    try:
        log.update([Upsert("order-2", None)], expect_version=1)
    except indelible.ConflictError as conflict:
        return conflict
    raise DemoError("a write that expected an old version was accepted")


def contents(log: indelible.Log, version: int) -> Contents:
    return {entry.key: entry.value for entry in log.at(version)}


def show_what_is_stored(show: Stage, log: indelible.Log) -> None:
    """The first entry as its reader and as the server sees it, then a search in all files."""
    stored = first_change(show, log)
    key, value = (base64.b64decode(stored[name]) for name in ("key", "value"))
    show.say("5 sealed", f"you read       order-1  {json.dumps(ORDERS['order-1'])}")
    show.show(f"server stores  {key.hex()[:24]}…  {value.hex()[:40]}…")
    profile = json.loads(show.profile.read_text())
    master_key, secret = profile["master_key_base64"], profile["apikey"].split("_", 2)[2]
    secrets = [*PLAINTEXT, master_key.encode(), base64.b64decode(master_key), secret.encode()]
    paths = [path for path in show.data.rglob("*") if path.is_file()]
    searched = b"".join(path.read_bytes() for path in (*paths, show.server_log))
    check(value in searched, "the search does not even find what the server stores")
    found = sum(text in searched for text in secrets)
    check(found == 0, f"{found} of {len(secrets)} texts that only members may read were found")
    show.show(
        f"no name, key, value, source, API key or master key in {len(searched):,} bytes: "
        "all files and log lines"
    )


def first_change(show: Stage, log: indelible.Log) -> dict[str, str]:
    """The first of version 1, as the server gives it to anybody with the API key."""
    apikey = json.loads(show.profile.read_text())["apikey"]
    log_id = base64.urlsafe_b64encode(bytes.fromhex(log.log_id)).decode().rstrip("=")
    path = f"/v2/logs/{log_id}/diff?from=0&to=1"
    change: dict[str, str] = json.loads(show.get(path, {"Authorization": f"Bearer {apikey}"}))[
        "changes"
    ][0]
    return change


def crash(show: Stage, log: indelible.Log) -> None:
    before = {version: contents(log, version) for version in (1, 2)}
    killed = show.engine_pid()
    os.kill(killed, signal.SIGKILL)
    started = time.monotonic()
    until(lambda: show.engine_pid() != killed, "the store was not started again")
    after = {version: contents(log, version) for version in (1, 2)}
    took_ms = (time.monotonic() - started) * 1_000
    check(log.version == 2 and after == before, "the store came back with other contents")
    show.say(
        "6 crash", f"store killed with -9; {took_ms:.0f} ms later 2 of 2 versions read as before"
    )


def walk(folder: Path) -> None:
    with stage(folder) as show:
        set_up(show)
        with indelible.Client(show.profile) as client:
            log = create_and_update(show, client)
            follow(show, log)
            refuse_conflict(show, log)
            show_what_is_stored(show, log)
            crash(show, log)
    show.console.print("[bold green]✓[/] all six steps held; nothing is left running. Next:")
    show.show("make serve    a service that keeps its data in .data")
    show.show("make test     every fast test, on a real engine")
    show.show("README.md     make a profile, write ten lines of Python")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.demo", description=__doc__)
    parser.add_argument(
        "--folder", type=Path, default=Path(".demo"), help="its files; emptied first (.demo)"
    )
    try:
        walk(parser.parse_args().folder)
    except Interrupted as interrupted:
        return interrupted.exit_code
    except (DemoError, indelible.IndelibleError, OSError) as error:
        print(f"error: the demo stopped: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Forty mistakes that users make: each ends with its exit code, says what happened and what to
do next, shows no traceback and repeats no secret.
"""

import base64
import http.server
import json
import os
import shlex
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import Any

import indelible
import pytest

from tests.cli.conftest import Cli
from tests.support.service import SERVER, Service


@dataclass(frozen=True)
class World:
    """What the mistakes are made in: a healthy service and all that may be wrong around it."""

    folder: Path
    service: Service
    secrets: tuple[str, ...]


class _WrongClock(http.server.BaseHTTPRequestHandler):
    """A service that is fine, a day ago."""

    def do_GET(self) -> None:
        body = json.dumps({"ready": True, "reasons": [], "durability": "strict"}).encode()
        self.send_response_only(200)
        self.send_header("Date", formatdate(time.time() - 86_400, usegmt=True))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def world(service: Service, profile_file: Path, tmp_path: Path) -> Iterator[World]:
    good = json.loads(profile_file.read_text())

    def write(name: str, members: Any, mode: int = 0o600) -> None:
        path = tmp_path / name
        path.write_text(members if isinstance(members, str) else json.dumps(members))
        path.chmod(mode)

    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        closed_port = closed.getsockname()[1]
    stale = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _WrongClock)
    threading.Thread(target=stale.serve_forever, daemon=True).start()
    write("no-json.json", "endpoint_url = http://")
    write("extra.json", good | {"note": "x"})
    write("missing.json", {k: v for k, v in good.items() if k != "apikey"})
    write("short-key.json", good | {"master_key_base64": base64.b64encode(b"short").decode()})
    write("readable.json", good, 0o644)
    write("down.json", good | {"endpoint_url": f"http://127.0.0.1:{closed_port}"})
    write("tls.json", good | {"endpoint_url": good["endpoint_url"].replace("http", "https")})
    write("far.json", good | {"endpoint_url": "http://192.0.2.1:8480"})
    write("no-url.json", good | {"endpoint_url": "localhost:8480"})
    write("bad-key.json", good | {"apikey": "ik_0123456789abcdef_" + "x" * 43})
    write("clock.json", good | {"endpoint_url": f"http://127.0.0.1:{stale.server_port}"})
    other_key = base64.b64encode(os.urandom(32)).decode()
    write("other.json", good | {"master_key_base64": other_key})
    write("credentials.json", {k: good[k] for k in ("endpoint_url", "customer_id", "apikey")})
    write("credentials-key.json", good)
    (tmp_path / "folder").mkdir()
    (tmp_path / "latin.txt").write_bytes("café".encode("latin-1"))
    (tmp_path / "big.json").write_text(json.dumps("x" * (1 << 21)))
    with indelible.Client(profile_file) as client:
        log = client.log("config", create=True, group="site")
        log.set("theme", "dark")
        log.set("theme", "light")
        client.log("bytes", create=True, value_mode="binary")
        gone = client.log("gone", create=True)
        gone.drop()
    yield World(
        tmp_path, service, (good["apikey"].rpartition("_")[2], good["master_key_base64"], other_key)
    )
    stale.shutdown()
    stale.server_close()


# what is typed, the exit code, and what the error must tell
MISTAKES: dict[str, tuple[str, int, str]] = {
    "no command of that name": ("sett config a 1", 2, 'Did you mean "set"'),
    "an option that is none": ("ls --grup x", 2, "--grup"),
    "an argument missing": ("history config", 2, "KEY"),
    "a key without its value": ("set config a", 2, "KEY VALUE pairs expected, not 1"),
    "no key to get": ("get config", 2, "which KEY"),
    "no log to follow": ("follow", 2, "which LOG"),
    "no profile": ("ls --profile nowhere.json", 1, "indelible init"),
    "a profile that is a folder": ("ls --profile folder", 1, "Is a directory"),
    "a profile that is no JSON": ("ls --profile no-json.json", 1, "no-json.json"),
    "a profile with a member too many": ("ls --profile extra.json", 1, "note"),
    "a profile with a member missing": ("ls --profile missing.json", 1, "apikey"),
    "a master key that is too short": ("ls --profile short-key.json", 1, "32 expected"),
    "a profile that others may read": ("ls --profile readable.json", 1, "chmod"),
    "an endpoint without a scheme": ("ls --profile no-url.json", 1, "endpoint_url"),
    "the service is down": ("ls --profile down.json --timeout-seconds 1", 6, "indelible doctor"),
    "TLS to a port without": ("ls --profile tls.json --timeout-seconds 1", 1, "trusted"),
    "plain HTTP to another machine": ("ls --profile far.json", 1, "https"),
    "an API key that nobody knows": ("ls --profile bad-key.json", 5, "BAD_API_KEY"),
    "another master key": ("get config theme --profile other.json", 3, "NONEXISTENT_LOG"),
    "a certificate file that is not there": (
        "ls --profile tls.json --ca-file absent.pem",
        1,
        "absent.pem",
    ),
    "a database with a bad name": ("ls --database a/b", 2, "Indelible-Database"),
    "no time to try": ("ls --timeout-seconds 0", 2, "more than 0"),
    "a form that is none": ("ls -o yaml", 2, "yaml"),
    "a log that is not there": ("cat nothing", 3, "indelible create"),
    "a log that was dropped": ("cat gone", 3, "NONEXISTENT_LOG"),
    "an empty name": ("create ''", 2, "not empty"),
    "a name that is too long": ("create " + "n" * 1_100, 2, "1024"),
    "a name with a control character": ("create 'a\tb'", 2, "control character"),
    "other modes than the log's": ("create config --group site --value-mode string", 2, "json"),
    "another group than the log's": ("create config --group shop", 4, "LOG_EXISTS"),
    "a key that holds nothing": ("get config nothing", 3, "indelible cat"),
    "JSON without its quotes": ("set config theme dark", 2, "'\"dark\"'"),
    "base64 that is none": ("set bytes k '***'", 2, "base64"),
    "a file that is not there": ("set config a @absent.json", 2, "absent.json"),
    "a file that is no UTF-8": ("set config a @latin.txt", 2, "UTF-8"),
    "stdin for two values": ("set config - -", 2, "already"),
    "a value that is too large": ("set config big @big.json", 2, "TOO_LARGE"),
    "a conflict": ("set config theme 1 --expect-version 1", 4, "indelible diff"),
    "a key that is there already": ("set config theme 1 --absent", 4, "UNEXPECTED_VALUE"),
    "a version that is not there yet": ("cat config --at 99", 3, "indelible versions"),
    "a version below zero": ("cat config --at -1", 2, "-1"),
    "a range that is none": ("diff config 1-2", 2, "A..B"),
    "an age that is none": ("follow config --since yesterday", 2, "10m"),
    "two places to begin": ("follow config --since 5m -n 3", 2, "one of them"),
    "dropping unasked": ("drop config", 2, "--yes"),
    "a profile that is there already": ("init --credentials credentials.json", 4, "--force"),
    "credentials that are not there": ("init --credentials absent.json", 1, "absent.json"),
    "credentials with a master key": (
        "init --credentials credentials-key.json --profile new.json",
        1,
        "master_key_base64",
    ),
    "a profile in a place that is none": (
        "init --credentials credentials.json --profile latin.txt/profile.json",
        1,
        "latin.txt",
    ),
    "a clock that is off": ("doctor --profile clock.json", 1, "clock"),
    "doctor without a service": ("doctor --profile down.json", 1, "indelible-server all"),
    "doctor with an unknown API key": ("doctor --profile bad-key.json", 1, "tenant key add"),
}


def test_there_are_forty() -> None:
    assert len(MISTAKES) + len(SERVER_MISTAKES) >= 40


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_with_its_next_step(cli: Cli, world: World, mistake: str) -> None:
    typed, code, told = MISTAKES[mistake]
    done = cli(*shlex.split(typed), stdin=b"1")
    said = done.out + done.err
    assert done.code == code, said
    assert told in said
    assert done.err.startswith(("error: ", "indelible on Python"))
    assert "next: " in done.err or "doctor" in typed
    assert "Traceback" not in said
    for secret in world.secrets:
        assert secret not in said


# arguments of indelible-server; {data} is the folder of a running service
SERVER_MISTAKES: dict[str, tuple[str, str]] = {
    "neither data nor redis": ("all", "--data DIR"),
    "both": ("all --data x --redis redis://127.0.0.1", "one of them"),
    "redis without its secret file": ("api --redis redis://127.0.0.1:1", "--secret-file"),
    "a secret file that is not there": (
        "api --redis redis://127.0.0.1:1 --secret-file absent",
        "head -c 32 /dev/urandom",
    ),
    "a second start on the same data": ("all --data {data} --listen 127.0.0.1:0", "{data}"),
    "a port that is taken": ("all --data new --listen {address}", "cannot listen"),
    "an address that is none": ("all --data new --listen 8480", "HOST:PORT"),
    "a setting out of range": ("all --data new --max-wait-seconds 61", "max_wait_seconds"),
    "a certificate without its key": ("all --data new --tls-cert c.pem", "--tls-key"),
    "a certificate that is not there": (
        "all --data new --tls-cert c.pem --tls-key k.pem --listen 127.0.0.1:0",
        "c.pem",
    ),
    "a folder that is a file": ("all --data latin.txt --listen 127.0.0.1:0", "latin.txt"),
    "data of another engine": ("all --data other-engine --listen 127.0.0.1:0", "keydb"),
    "a tenant that is not there": ("tenant delete nobody --yes --data {data}", "nobody"),
}


@pytest.mark.parametrize("mistake", SERVER_MISTAKES)
def test_an_operators_mistake_is_told_without_a_traceback(world: World, mistake: str) -> None:
    typed, told = SERVER_MISTAKES[mistake]
    data = world.service.arguments[-1]
    address = world.service.url.removeprefix("http://")
    typed, told = (text.format(data=data, address=address) for text in (typed, told))
    other = world.folder / "other-engine"
    (other / "store").mkdir(parents=True)
    (other / "ENGINE").write_text("keydb 6.3.4\n")
    done = subprocess.run(
        [*SERVER, *typed.split()],
        cwd=world.folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode in (1, 2), said
    assert told in said
    assert "Traceback" not in said

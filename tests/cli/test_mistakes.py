"""Mistakes that users and operators make: each ends with its exit code, says what happened and
what to do next, shows no traceback and repeats no secret. Nothing that they do changes anything.
"""

import asyncio
import base64
import http.server
import io
import json
import os
import re
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import Any

import indelible
import pytest
from indelible_protocol import paths
from indelible_server.__main__ import main as server
from indelible_server.store.connection import connect
from indelible_server.store.tenants import Tenants

from tests.cli.conftest import COMMAND, Cli, with_new_tenant
from tests.client.conftest import profile_of
from tests.support.service import SERVER, Service, store_of


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


@contextmanager
def _web_server(certificate: Path | None = None) -> Iterator[int]:
    """Its port; with TLS if there is a certificate."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _WrongClock)
    if certificate is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def _certificate(folder: Path) -> Path:
    """One that signs itself, with its key in the same file."""
    path = folder / "self-signed.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "9", "-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", str(folder / "key.pem"), "-out", str(path)],
        capture_output=True, check=True,
    )  # fmt: skip
    path.write_text(path.read_text() + (folder / "key.pem").read_text())
    return path


async def _revoked_key(service: Service) -> str:
    url, secret = await store_of(service)
    clients = connect(url, connections=1, timeout_seconds=5.0)
    try:
        tenants = Tenants(clients.commands, secret)
        name = f"revoked {os.urandom(8).hex()}"
        _, apikey = await tenants.create(name)
        await tenants.revoke_key(name, apikey)
        return apikey
    finally:
        await clients.close()


def _closed_port() -> int:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port: int = closed.getsockname()[1]
        return port


def _make_an_opaque_log(service: Service, name: str) -> None:
    request = urllib.request.Request(
        f"{service.url}{paths.name(name.encode())}?kind=opaque",
        data=b"{}",
        method="PUT",
        headers={
            "Authorization": f"Bearer {service.apikey}",
            "Content-Type": "application/json",
        },
    )
    urllib.request.urlopen(request).close()


@pytest.fixture(scope="module")
def world(shared_service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    service, folder = with_new_tenant(shared_service), tmp_path_factory.mktemp("world")
    profile = profile_of(service).save(folder / "profile.json")
    good = json.loads(profile.read_text())
    secrets = [good["apikey"].split("_", 2)[2], good["master_key_base64"], "canary"]

    def write(name: str, mode: int = 0o600, **wrong: str) -> None:
        path = folder / f"{name}.json"
        path.write_text(json.dumps(good | wrong))
        path.chmod(mode)

    with ExitStack() as around:
        https = good["endpoint_url"].replace("http:", "https:")
        certificate = _certificate(folder)
        write("extra", note="x")
        write("short-key", master_key_base64=base64.b64encode(b"short").decode())
        write("readable", 0o644)
        write("down", endpoint_url=f"http://127.0.0.1:{_closed_port()}")
        write("tls", endpoint_url=https)
        write("far", endpoint_url="http://192.0.2.1:8480")
        write("no-url", endpoint_url="localhost:8480")
        write("bad-key", apikey="ik_0123456789abcdef_" + "canary" * 7 + "x")
        write("revoked", apikey=asyncio.run(_revoked_key(service)))
        write("other", master_key_base64=base64.b64encode(os.urandom(32)).decode())
        write("clock", endpoint_url=f"http://127.0.0.1:{around.enter_context(_web_server())}")
        port = around.enter_context(_web_server(certificate))
        write("self-signed", endpoint_url=f"https://127.0.0.1:{port}")
        secrets.append(json.loads((folder / "other.json").read_text())["master_key_base64"])
        for name, members in {
            "missing.json": {k: v for k, v in good.items() if k != "apikey"},
            "credentials.json": {k: v for k, v in good.items() if k != "master_key_base64"},
            "credentials-key.json": good,
            "big.json": "x" * (1 << 21),
        }.items():
            (folder / name).write_text(json.dumps(members))
            (folder / name).chmod(0o600)
        (folder / "no-json.json").write_text("endpoint_url = http://canary")
        (folder / "no-json.json").chmod(0o600)
        (folder / "deep.json").write_text("[" * 200 + "]" * 200)
        (folder / "secret.txt").write_text("canary, and no JSON")
        (folder / "folder").mkdir()
        (folder / "latin.txt").write_bytes("café".encode("latin-1"))
        (folder / "other-engine/store").mkdir(parents=True)
        (folder / "other-engine/ENGINE").write_text("keydb 6.3.4\n")
        with indelible.Client(profile) as client:
            log = client.log("config", create=True, group="site")
            log.set("theme", "dark")
            log.set("theme", "light")
            client.log("bytes", create=True, value_mode="binary")
            client.log("packed", create=True, value_mode="msgpack")
            client.log("gone", create=True).drop()
            _make_an_opaque_log(service, "theirs")
            yield World(folder, service, tuple(secrets))
            assert log.version == 2
            assert {each.name for each in client.logs()} == {"config", "bytes", "packed", "theirs"}


# what is typed, the exit code, and what the error must tell
MISTAKES: dict[str, tuple[str, int, str]] = {
    "no command of that name": ("sett config a 1", 2, 'Did you mean "set"'),
    "an option that is none": ("ls --grup x", 2, "--grup"),
    "options before the command": ("-o json ls", 2, "behind the command"),
    "a secret as an option": ("ls --apikey=canary", 2, "--apikey"),
    "a value that looks like an option": ("set config theme -x", 2, "behind --"),
    "a command of another program": ("help", 2, "indelible --help"),
    "a shell that is none": ("completion tcsh", 2, "fish"),
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
    "another web server": ("ls --profile clock.json", 1, "is endpoint_url right"),
    "a certificate that nobody vouches for": ("ls --profile self-signed.json", 1, "self-signed"),
    "TLS to a port without": ("ls --profile tls.json --timeout-seconds 1", 1, "does not speak TLS"),
    "plain HTTP to another machine": ("ls --profile far.json", 1, "--allow-plain-http"),
    "an API key that nobody knows": ("ls --profile bad-key.json", 5, "BAD_API_KEY"),
    "an API key that was revoked": ("ls --profile revoked.json", 5, "tenant key add"),
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
    "a log that was dropped": ("cat gone", 3, "indelible create gone"),
    "a log of another program": ("cat theirs", 3, "original API"),
    "a log to follow that is not there": ("follow config nothing", 3, "'nothing'"),
    "an empty name": ("create ''", 2, "not empty"),
    "a name that is too long": ("create " + "n" * 1_100, 2, "1024"),
    "a name with a control character": ("create 'a\tb'", 2, "control character"),
    "other modes than the log's": ("create config --group site --value-mode string", 2, "json"),
    "another group than the log's": ("create config --group shop", 4, "LOG_EXISTS"),
    "a key that holds nothing": ("get config nothing", 3, "indelible cat"),
    "JSON without its quotes": ("set config theme dark", 2, "'\"dark\"'"),
    "no JSON in a file": ("set config theme @secret.txt", 2, "double quotes"),
    "no JSON in a key's file": ("set packed k @secret.txt", 2, "mode msgpack"),
    "base64 that is none": ("set bytes k 'canary*'", 2, "base64"),
    "base64 in JSON that is none": ('set packed k \'{"$bytes": "canary*"}\'', 2, "base64"),
    "JSON that is too deep": ("set config k @deep.json", 2, "nested"),
    "a number that is none": ("set config k NaN", 2, "JSON"),
    "half a character": ("set config k '\"\\ud800\"'", 2, "half a character"),
    "a file that is not there": ("set config a @absent.json", 2, "absent.json"),
    "a file that is a folder": ("set config a @folder", 2, "Is a directory"),
    "no file's name": ("set config a @", 2, "@@"),
    "a file that is no UTF-8": ("set config a @latin.txt", 2, "UTF-8"),
    "stdin for two values": ("set config - -", 2, "already"),
    "a value that is too large": ("set config big @big.json", 2, "TOO_LARGE"),
    "a conflict": ("set config theme 1 --expect-version 1", 4, "indelible diff config 1.."),
    "a key that is there already": ("set config theme 1 --absent", 4, "theme holds another value"),
    "a version that is not there yet": ("cat config --at 99", 3, "indelible versions"),
    "a version to follow that is not there yet": ("follow config --since v99", 3, "version 2"),
    "a version below zero": ("cat config --at -1", 2, "-1"),
    "a version beyond all": ("diff config " + "9" * 23, 2, "2^53-1"),
    "a count below zero": ("versions config -n -1", 2, "-1"),
    "minutes that are none": ("stats config --minutes 0", 2, ">= 1"),
    "a range that is none": ("diff config 1-2", 2, "A..B"),
    "an age that is none": ("follow config --since yesterday", 2, "10m"),
    "an age beyond all calendars": ("follow config --since 9999999d", 2, "calendars"),
    "two places to begin": ("follow config --since 5m -n 3", 2, "one of them"),
    "dropping unasked": ("drop config", 2, "--yes"),
    "no webhook command of that name": ("webhook lisen", 2, "indelible webhook --help"),
    "nowhere to forward to": ("webhook listen config", 2, "indelible webhook listen --help"),
    "a place to forward to that is none": (
        "webhook listen config --forward-to localhost:3000",
        2,
        "http://localhost:3000",
    ),
    "a log to listen to that is not there": (
        "webhook listen nothing --forward-to http://localhost:3",
        3,
        "'nothing'",
    ),
    "a group to listen to that is empty": (
        "webhook listen --group nothing --forward-to http://localhost:3",
        3,
        "no log",
    ),
    "keys of no log": (
        "webhook listen --key a --forward-to http://localhost:3",
        2,
        "indelible webhook listen --help",
    ),
    "nowhere to show a webhook's key": (
        "webhook listen config -q --forward-to http://localhost:3",
        2,
        "--secret-file",
    ),
    "a webhook's key that is none": (
        "webhook listen config --secret-file secret.txt --forward-to http://localhost:3",
        1,
        "whsec_",
    ),
    "a webhook's key that is a folder": (
        "webhook listen config --secret-file folder --forward-to http://localhost:3",
        1,
        "Is a directory",
    ),
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
    "a file to import that is not there": ("import absent.jsonl", 1, "absent.jsonl"),
    "a file to import that is no export": ("import secret.txt", 1, "indelible export"),
    "a file to export to that is there": ("export config latin.txt", 1, "another FILE"),
    "doctor with a profile that others may read": (
        "doctor --profile readable.json",
        1,
        "next: chmod 600 readable.json",
    ),
    "doctor without a profile": ("doctor --profile nowhere.json", 1, "next: make one"),
    "doctor with TLS to a port without": ("doctor --profile tls.json", 1, "--ca-file"),
    "doctor with a certificate that nobody vouches for": (
        "doctor --profile self-signed.json",
        1,
        "--ca-file",
    ),
    "doctor with a certificate that ends soon": (
        "doctor --profile self-signed.json --ca-file self-signed.pem",
        1,
        "renew",
    ),
    "a clock that is off": ("doctor --profile clock.json", 1, "clock"),
    "doctor without a service": ("doctor --profile down.json", 1, "indelible-server all"),
    "doctor with an unknown API key": ("doctor --profile bad-key.json", 1, "tenant key add"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_with_its_next_step(
    cli_of: Callable[[Path], Cli], world: World, mistake: str
) -> None:
    typed, code, told = MISTAKES[mistake]
    done = cli_of(world.folder / "profile.json")(*shlex.split(typed), stdin=b"1")
    said = done.out + done.err
    assert done.code == code, said
    assert told in said
    if typed.startswith("doctor"):
        assert re.search(r"✗ .*\n    next: .", done.out)
        assert re.fullmatch(r"error: \d of \d checks failed\n", done.err)
    else:
        assert re.fullmatch(r"error: .+\n  next: .+\n", done.err), said
        assert done.out == ""
    assert "Traceback" not in said
    assert "{" not in done.err  # a place that was not filled
    for secret in world.secrets:
        assert secret not in said


# arguments, exit code, and what must be told
LOCKED = {
    "a profile": (["ls", "--profile", "locked.json"], 1, "Permission denied"),
    "a value": (["set", "config", "theme", "@locked.json"], 2, "Permission denied"),
    "credentials": (["init", "--credentials", "locked.json"], 1, "Permission denied"),
    "an export": (["import", "locked.json"], 1, "Permission denied"),
    "a place for a profile": (
        ["init", "--credentials", "credentials.json", "--profile", "locked/profile.json"],
        1,
        "locked/profile.json cannot be written",
    ),
    "a place for an export": (["export", "config", "locked/x.jsonl"], 1, "Permission denied"),
}


@pytest.mark.parametrize("what", LOCKED)
def test_a_file_that_is_not_ours_to_open_is_told(world: World, what: str) -> None:
    arguments, code, told = LOCKED[what]
    locked = world.folder / "locked.json"
    locked.write_bytes((world.folder / "profile.json").read_bytes())
    locked.chmod(0o000)
    (world.folder / "locked").mkdir(mode=0o500, exist_ok=True)
    command: tuple[str, ...] = COMMAND
    if os.geteuid() == 0:  # who may open everything, unless that is taken away
        if shutil.which("setpriv") is None:
            pytest.skip("root may open everything")
        command = ("setpriv", "--inh-caps=-all", "--bounding-set=-all", *command)
    done = subprocess.run(
        [*command, *arguments],
        cwd=world.folder,
        env=os.environ | {"INDELIBLE_PROFILE": str(world.folder / "profile.json")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert told in done.stderr
    assert re.fullmatch(r"error: .+\n  next: .+\n", done.stderr)


# arguments of indelible-server, exit code, and what must be told
USAGE_OF_SERVER: dict[str, tuple[str, int, str]] = {
    "no command": ("", 2, "usage: "),
    "no command of that name": ("al", 2, "choose from"),
    "an option that is none": ("all --dta x", 2, "--dta"),
    "neither data nor redis": ("all", 2, "--data DIR"),
    "both": ("all --data x --redis redis://127.0.0.1", 2, "one of them"),
    "redis without its secret file": ("api --redis redis://127.0.0.1:1", 2, "--secret-file FILE"),
    "an address that is none": ("all --data new --listen 8480", 2, "HOST:PORT expected"),
    "a setting out of range": ("all --data new --max-wait-seconds 61", 2, "<= 60"),
    "a setting that is no number": ("all --data new --max-wait-seconds x", 2, "`float`"),
    "a certificate without its key": ("all --data new --tls-cert c.pem", 2, "--tls-key"),
    "a tenant to delete, and nobody who says yes": ("tenant delete acme --data x", 1, "--yes"),
}
# {data} is the folder of a running service, {address} where it listens
SERVER_MISTAKES: dict[str, tuple[str, int, str]] = {
    "a store of another kind": (
        "api --redis http://127.0.0.1:1 --secret-file absent",
        2,
        "redis, rediss or unix expected",
    ),
    "a cluster that is not said to be one": (
        "webhooks --redis redis://127.0.0.1:1,127.0.0.1:2 --secret-file absent",
        2,
        "?cluster=true",
    ),
    "a secret file that is not there": (
        "api --redis redis://127.0.0.1:1 --secret-file absent",
        2,
        "head -c 32 /dev/urandom",
    ),
    "a secret file that is too short": (
        "api --redis redis://127.0.0.1:1 --secret-file latin.txt",
        2,
        "32 or more expected",
    ),
    "a second start on the same data": (
        "all --data {data} --listen 127.0.0.1:0",
        1,
        "stop that one first",
    ),
    "a port that is taken": ("all --data new --listen {address}", 1, "choose another"),
    "a certificate that is not there": (
        "all --data new --tls-cert c.pem --tls-key k.pem --listen 127.0.0.1:0",
        1,
        "c.pem: there is no such file",
    ),
    "a folder that is a file": (
        "all --data latin.txt --listen 127.0.0.1:0",
        2,
        "choose another",
    ),
    "data of another engine": (
        "all --data other-engine --listen 127.0.0.1:0",
        1,
        "Install an engine of the folder's kind",
    ),
    "a tenant that is not there": ("tenant delete nobody --yes --data {data}", 1, "tenant list"),
}


def test_there_are_enough() -> None:
    assert len(MISTAKES) + len(LOCKED) >= 40
    assert len(USAGE_OF_SERVER) + len(SERVER_MISTAKES) >= 15


@pytest.mark.parametrize("mistake", USAGE_OF_SERVER)
def test_wrong_usage_of_the_server_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, mistake: str
) -> None:
    typed, code, told = USAGE_OF_SERVER[mistake]
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with pytest.raises(SystemExit) as ended:
        server(typed.split())
    assert ended.value.code == code
    said = capsys.readouterr()
    assert told in said.err
    assert "error: " in said.err
    assert said.out == ""


@pytest.mark.parametrize("mistake", SERVER_MISTAKES)
def test_an_operators_mistake_is_told_without_a_traceback(world: World, mistake: str) -> None:
    typed, code, told = SERVER_MISTAKES[mistake]
    data = world.service.arguments[-1]
    address = world.service.url.removeprefix("http://")
    done = subprocess.run(
        [*SERVER, *typed.format(data=data, address=address).split()],
        cwd=world.folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert told in done.stderr
    assert "error: " in done.stderr
    assert "Traceback" not in done.stdout + done.stderr

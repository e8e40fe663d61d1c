"""A command line in this process, and the same as a process of its own."""

import asyncio
import base64
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import indelible
import pytest
from indelible import Profile
from indelible.cli import run

from tests.client.conftest import profile_of
from tests.support.service import SERVER, Service, make_tenant, store_of
from tests.support.webhooks import Receiver, receiver


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


COMMAND = (sys.executable, "-c", "import indelible.cli; indelible.cli.main()")
Cli = Callable[..., Done]


@pytest.fixture
def profile_file(service: Service, tmp_path: Path) -> Path:
    return profile_of(service).save(tmp_path / "profile.json")


@pytest.fixture
def cli(cli_of: Callable[[Path], Cli], profile_file: Path) -> Cli:
    """`cli("get", "config", "theme", stdin=b"…")`, with a profile of this test's own."""
    return cli_of(profile_file)


@pytest.fixture
def cli_of(monkeypatch: pytest.MonkeyPatch, capfdbinary: Any) -> Callable[[Path], Cli]:
    """A command line with the profile of that path, in its folder."""

    def make(profile: Path) -> Cli:
        monkeypatch.setenv("INDELIBLE_PROFILE", str(profile))
        monkeypatch.setenv("COLUMNS", "100")
        monkeypatch.chdir(profile.parent)
        return call

    def call(*arguments: str, stdin: bytes = b"") -> Done:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capfdbinary.readouterr()
        code = run(arguments)
        out, err = capfdbinary.readouterr()
        return Done(code, out.decode(errors="surrogateescape"), err.decode())

    return make


@pytest.fixture
def target() -> Iterator[Receiver]:
    """A receiver of webhooks, in a loop of its own: a command blocks this one's thread."""
    opened: Future[tuple[Receiver, Callable[[], object]]] = Future()

    async def receive() -> None:
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        async with receiver() as made:
            opened.set_result((made, partial(loop.call_soon_threadsafe, done.set)))
            await done.wait()

    thread = threading.Thread(target=asyncio.run, args=(receive(),))
    thread.start()
    made, close = opened.result(10)
    yield made
    close()
    thread.join()


@pytest.fixture
def blocking(profile_file: Path) -> Any:
    with indelible.Client(profile_file) as client:
        yield client


def process(
    arguments: Sequence[str],
    profile: Path,
    *,
    env: dict[str, str] | None = None,
    stdin: Any = subprocess.DEVNULL,
    stdout: Any = subprocess.PIPE,
) -> "subprocess.Popen[str]":
    """The command as a process, which ends with the test; stderr is a pipe."""
    started = subprocess.Popen(
        [*COMMAND, *arguments],
        stdin=stdin,
        stdout=stdout,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env=os.environ | {"INDELIBLE_PROFILE": str(profile)} | (env or {}),
    )
    _started.append(started)
    return started


_started: "list[subprocess.Popen[str]]" = []


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    yield
    while _started:
        with _started.pop() as left, suppress(ProcessLookupError):
            left.kill()


def with_new_tenant(service: Service) -> Service:
    """The service, with the credentials of a tenant that nobody else uses."""
    customer_id, apikey = asyncio.run(_new_tenant(service))
    return replace(service, customer_id=customer_id, apikey=apikey)


async def _new_tenant(service: Service) -> tuple[str, str]:
    return await make_tenant(*await store_of(service))


def profile_of_new_tenant(service: Service, folder: Path) -> Path:
    """Of a service that a test started by itself, its data in a folder."""
    made = subprocess.run(
        [*SERVER, "tenant", "create", "acme", *service.arguments[1:], "--endpoint", service.url],
        capture_output=True,
        check=True,
    )
    key = base64.b64encode(os.urandom(32)).decode()
    return Profile(**json.loads(made.stdout), master_key_base64=key).save(folder / "own.json")

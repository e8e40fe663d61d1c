"""A command line in this process, and the same as a process of its own."""

import base64
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import indelible
import pytest
from indelible import Profile
from indelible.cli.app import run

from tests.client.conftest import profile_of
from tests.support.service import SERVER, Service


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


Cli = Callable[..., Done]


@pytest.fixture
def profile_file(service: Service, tmp_path: Path) -> Path:
    return profile_of(service).save(tmp_path / "profile.json")


@pytest.fixture
def cli(
    profile_file: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: Any, tmp_path: Path
) -> Cli:
    """`cli("get", "config", "theme", stdin=b"…")`, with a profile of this test's own."""
    monkeypatch.setenv("INDELIBLE_PROFILE", str(profile_file))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str, stdin: bytes = b"") -> Done:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capfdbinary.readouterr()
        code = run(arguments)
        out, err = capfdbinary.readouterr()
        return Done(code, out.decode(errors="surrogateescape"), err.decode())

    return call


@pytest.fixture
def blocking(profile_file: Path) -> Any:
    with indelible.Client(profile_file) as client:
        yield client


def process(arguments: Sequence[str], profile: Path, **settings: Any) -> "subprocess.Popen[str]":
    """The command as a process; stdout and stderr are pipes."""
    return subprocess.Popen(
        [sys.executable, "-c", "import indelible.cli; indelible.cli.main()", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"INDELIBLE_PROFILE": str(profile)} | settings,
    )


def profile_of_new_tenant(service: Service, folder: Path) -> Path:
    """Of a service that a test started by itself, its data in a folder."""
    made = subprocess.run(
        [*SERVER, "tenant", "create", "acme", *service.arguments[1:], "--endpoint", service.url],
        capture_output=True,
        check=True,
    )
    key = base64.b64encode(os.urandom(32)).decode()
    return Profile(**json.loads(made.stdout), master_key_base64=key).save(folder / "own.json")

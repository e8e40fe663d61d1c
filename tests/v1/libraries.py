"""The two client libraries under test: the published one, and ours in its place.

A script is written once, with the published library's import line; run with ours, that line
names `indelible.v1`. Owns the published library's own virtual environment; knows nothing of
the service.
"""

import fcntl
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PUBLISHED = "indelible-log==0.4.6"
SCRIPTS = Path(__file__).parent / "scripts"
RUN_SECONDS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """`module` is what its scripts import, `python` the interpreter that has it."""

    module: str
    python: Path

    def start(self, script: str, *arguments: str | int | Path) -> "subprocess.Popen[str]":
        text = (SCRIPTS / f"{script}.py").read_text().replace("indelible_log", self.module)
        return subprocess.Popen(
            [self.python, "-W", "error", "-c", text, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
        )

    def run(self, script: str, *arguments: str | int | Path, stdin: Any = None) -> Any:
        """What the script printed, which is JSON."""
        return result_of(self.start(script, *arguments), stdin)


def result_of(process: "subprocess.Popen[str]", stdin: Any = None) -> Any:
    try:
        printed, complaint = process.communicate(
            None if stdin is None else json.dumps(stdin), timeout=RUN_SECONDS
        )
    finally:
        process.kill()
    assert process.returncode == 0, complaint
    return json.loads(printed.splitlines()[-1])


def ours() -> Library:
    return Library(module="indelible.v1", python=Path(sys.executable))


def published(folder: Path) -> Library:
    """The published library, installed below `folder` if it is not there yet.

    Any number of processes may ask at once.
    """
    home = folder / PUBLISHED
    python = home / "bin" / "python"
    done = home / "installed"
    with _lock(folder / f"{PUBLISHED}.lock"):
        if not done.exists():
            shutil.rmtree(home, ignore_errors=True)
            _install(home, python)
            done.touch()
    return Library(module="indelible_log", python=python)


def _install(home: Path, python: Path) -> None:
    # As in the Makefile: uv where it is, else the pip of this interpreter or of its base,
    # for neither need be in the environment that runs the tests.
    if uv := shutil.which("uv"):
        _run(uv, "venv", "-q", "--python", sys.executable, home)
        _run(uv, "pip", "install", "-q", "--python", python, PUBLISHED)
        return
    _run(sys.executable, "-m", "venv", "--without-pip", home)
    has_pip = importlib.util.find_spec("pip") is not None
    installer = sys.executable if has_pip else Path(sys.base_prefix) / "bin" / "python3"
    pip = (installer, "-m", "pip", "--disable-pip-version-check", "--python", python)
    _run(*pip, "install", "-q", PUBLISHED)


def _run(*command: str | Path) -> None:
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

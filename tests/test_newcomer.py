"""A newcomer's path: a clone, an empty home, the README's commands and nothing else.

Ends with two terminals that follow each other's changes, within the time that the README says.
"""

import os
import re
import select
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.documents import commands_in
from tests.support.polling import until
from tests.support.ports import free_port
from tests.test_guides import README, ROOT

STATED_SECONDS = 120
_BLOCK = re.compile(r"^```console\n(.*?)^```", re.M | re.S)


class Terminal:
    """A shell that is typed into; what it prints comes back line by line."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self._shell = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=folder,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            bufsize=1,
            process_group=0,
        )
        self.said = ""

    def type(self, line: str) -> None:
        assert self._shell.stdin is not None
        self._shell.stdin.write(line + "\n")

    def expect(self, line: str, within_seconds: float = STATED_SECONDS) -> None:
        """Reads on until those words came."""
        assert self._shell.stdout is not None
        deadline = time.monotonic() + within_seconds
        while time.monotonic() < deadline:
            ready, _, _ = select.select([self._shell.stdout], [], [], 0.2)
            if ready:
                said = os.read(self._shell.stdout.fileno(), 65_536).decode()
                assert said, f"the shell ended before {line!r}: {self.said}"
                self.said += said
            _, found, after = self.said.partition(line)
            if found:
                self.said = after
                return
        raise AssertionError(f"{line!r} did not come: {self.said}")

    def end(self) -> None:
        os.killpg(self._shell.pid, signal.SIGTERM)
        self._shell.communicate(timeout=20)  # closes its pipes too


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What is committed, and what is about to be."""
    folder = tmp_path / "indelible"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
    changed = subprocess.run(
        ["git", "ls-files", "--modified", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in changed.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture
def open_terminal(clone: Path, tmp_path: Path) -> Iterator[Callable[[], Terminal]]:
    home = tmp_path / "home"
    home.mkdir()
    kept = {k: v for k, v in os.environ.items() if k.startswith(("PIP_", "UV_", "SSL_"))}
    path = os.pathsep.join(p for p in os.environ["PATH"].split(os.pathsep) if ".venv" not in p)
    env = kept | {"HOME": str(home), "PATH": path, "LANG": "C.UTF-8", "NO_COLOR": "1"}
    opened = []

    def open_one() -> Terminal:
        opened.append(Terminal(clone, env))
        return opened[-1]

    yield open_one
    for terminal in opened:
        terminal.end()


async def until_followed(port: str) -> None:
    url = f"http://127.0.0.1:{port}/metrics"

    def waiters() -> bool:
        with urllib.request.urlopen(url) as answer:
            return b"\nindelible_waiters 1.0\n" in answer.read()

    await until(waiters, within_seconds=30)


@pytest.mark.timeout(300)
@pytest.mark.skipif(
    not (ROOT / ".git").exists() or shutil.which("git") is None, reason="this is no git checkout"
)
async def test_from_a_clone_to_two_terminals_in_the_stated_time(
    open_terminal: Callable[[], Terminal],
) -> None:
    readme = README.read_text()
    assert "takes two minutes" in readme
    port = str(free_port())
    set_up, service, typed = (
        next(text.replace("8480", port) for text in _BLOCK.findall(readme) if mark in text)
        for mark in ("make setup", "tenant create", "one$")
    )
    started = time.monotonic()
    one, two = open_terminal(), open_terminal()
    for command, _ in [*commands_in(set_up), *commands_in(service)]:
        one.type(command)
        if command.endswith("&"):
            one.expect("api.ready")
    one.type("echo set up")
    one.expect("set up")
    two.type(". .venv/bin/activate")
    last = one
    for line in typed.splitlines():
        name, sign, rest = line[:3], line[3:4], line[5:]
        if name in ("one", "two") and sign == "$":
            last = one if name == "one" else two
            last.type(rest)
            if "follow" in rest:
                await until_followed(port)
        elif name in ("one", "two") and sign == ">":
            (one if name == "one" else two).expect(rest)
        else:
            last.expect(line)
    # And the other way round: the second follows, somebody else changes.
    two.type("indelible follow config --since v1 --once")
    three = open_terminal()
    three.type(". .venv/bin/activate && indelible set config theme '\"light\"'")
    three.expect("v2")
    two.expect('+ theme\t"light"')
    assert time.monotonic() - started < STATED_SECONDS

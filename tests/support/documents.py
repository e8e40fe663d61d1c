"""Runs the blocks of a document in order, as a newcomer would type them.

In a `console` block, `$ ` begins a command, and what stands below it is what the command must
print (`…` stands for anything). Variables and functions outlive their block. A `python` block
is a program of its own; one with a title is a file of that name, for a console block to run. A
block that is not run says why, in a comment before it.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.support.polling import until
from tests.support.ports import free_port

_BLOCK = re.compile(
    r"(?:^<!-- (?P<note>[^\n]*?) -->\n)?"
    r"^```(?P<kind>\w+)(?: title=\"(?P<file>[\w.]+)\")?\n(?P<text>.*?)^```",
    re.M | re.S,
)
DEFAULT_PORT = "8480"
OTHER_PORT = "8481"  # of a reader's own programs
_READY = (b"api.ready", b"Running on")  # what programs say when they listen
# Every command runs in a shell that begins where the last one ended.
_SHELL = """
[ -f .shell ] && . ./.shell
set -euo pipefail
{command}
declare -p | grep -vE '^declare -[a-zA-Z]*r' > .shell; declare -f >> .shell
"""


class Block(NamedTuple):
    kind: str
    text: str
    file: str = ""


def blocks_of(document: Path) -> list[Block]:
    """Those that are run."""
    found = []
    for match in _BLOCK.finditer(document.read_text()):
        if match["note"] is None:
            found.append(Block(match["kind"], match["text"], match["file"] or ""))
        else:
            assert match["note"].startswith("not run: "), match["note"]
    return found


def commands_in(text: str) -> Iterator[tuple[str, str]]:
    """Each command of a console block, and what it is said to print."""
    for piece in re.split(r"^\$ ", text, flags=re.M)[1:]:
        lines = piece.splitlines()
        count = 1
        while lines[count - 1].endswith("\\"):
            count += 1
        yield "\n".join(lines[:count]), "\n".join(lines[count:]).strip()


class Reader:
    """Types what documents say into a folder of its own; its service is on `port`."""

    def __init__(self, folder: Path, port: int) -> None:
        self._folder = folder
        self._ports = {DEFAULT_PORT: str(port), OTHER_PORT: str(free_port())}
        self._env = {k: v for k, v in os.environ.items() if not k.startswith("INDELIBLE_")} | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(folder),
            "XDG_CONFIG_HOME": str(folder / "config"),
            "NO_COLOR": "1",
            "PYTHONUNBUFFERED": "1",
        }
        self._background: list[subprocess.Popen[bytes]] = []

    async def type(self, block: Block) -> None:
        text = re.sub("|".join(self._ports), lambda match: self._ports[match[0]], block.text)
        if block.file:
            (self._folder / block.file).write_text(text)
            return
        if block.kind == "python":
            self._run([sys.executable, "-c", text])
            return
        assert block.kind == "console", block.kind
        for command, expected in commands_in(text):
            if command.endswith(" &"):
                await self._start(command.removesuffix(" &"))
                continue
            printed = self._run(["bash", "-c", _SHELL.format(command=command)])
            pattern = re.escape(expected).replace("…", ".*")
            assert not expected or re.fullmatch(pattern, printed.strip(), re.S), (
                f"$ {command}\n{printed}\nand not\n{expected}"
            )

    async def _start(self, command: str) -> None:
        log_file = self._folder / f"background-{len(self._background)}.log"
        with log_file.open("wb") as log:
            process = subprocess.Popen(
                command.split(),
                cwd=self._folder,
                env=self._env,
                stdout=log,
                stderr=log,
                process_group=0,
            )
        self._background.append(process)

        def is_ready() -> bool:
            assert process.poll() is None, log_file.read_text()
            return any(words in log_file.read_bytes() for words in _READY)

        await until(is_ready, within_seconds=30)

    def _run(self, arguments: list[str]) -> str:
        done = subprocess.run(
            arguments,
            cwd=self._folder,
            env=self._env,
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, f"{arguments[-1]}\n{done.stdout}{done.stderr}"
        return done.stdout

    def end(self) -> None:
        for process in self._background:
            process.terminate()
        for process in self._background:
            process.wait(20)


@contextmanager
def reader(folder: Path, port: int) -> Iterator[Reader]:
    """A reader whose background processes end with the block."""
    typing = Reader(folder, port)
    try:
        yield typing
    finally:
        typing.end()

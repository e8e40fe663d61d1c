"""The README's blocks are run, in order, as a newcomer would type them.

A block that is not run says why in a comment before it. Only the port differs from the text:
a free one takes the place of the default.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.polling import until

README = Path(__file__).parents[1] / "README.md"
BLOCK = re.compile(
    r"(?:^<!-- (?P<note>.*?) -->\n)?^```(?P<kind>\w+)\n(?P<text>.*?)^```", re.M | re.S
)
DEFAULT_PORT = "8480"


def blocks() -> list[tuple[str, str]]:
    """(kind, text) of the blocks that are run."""
    found = []
    for match in BLOCK.finditer(README.read_text()):
        if match["note"] is None:
            found.append((match["kind"], match["text"]))
        else:
            assert match["note"].startswith("not run: "), match["note"]
    return found


async def test_every_block_of_the_readme_works(tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed; the README uses it")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
    }
    server: subprocess.Popen[bytes] | None = None
    kinds = [kind for kind, _ in blocks()]
    assert kinds.count("python") >= 1
    assert kinds.count("console") >= 2
    try:
        for kind, text in blocks():
            text = text.replace(DEFAULT_PORT, str(port))
            if kind == "python":
                run([sys.executable, "-c", text], tmp_path, env)
                continue
            assert kind == "console", kind
            script = [line.removeprefix("$ ") for line in text.splitlines() if line[:2] == "$ "]
            for line in script:
                if line.endswith(" &"):
                    with (tmp_path / "server.log").open("wb") as log:
                        server = subprocess.Popen(
                            line.removesuffix(" &").split(), cwd=tmp_path, env=env, stderr=log
                        )
                    await until(lambda: says_ready(tmp_path), within_seconds=30)
            foreground = "\n".join(line for line in script if not line.endswith(" &"))
            run(["bash", "-euo", "pipefail", "-c", foreground], tmp_path, env)
    finally:
        if server is not None:
            server.terminate()
            server.wait(20)


def says_ready(folder: Path) -> bool:
    return b"api.ready" in (folder / "server.log").read_bytes()


def run(arguments: list[str], cwd: Path, env: dict[str, str]) -> None:
    done = subprocess.run(
        arguments,
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"{arguments[-1]}\n{done.stdout}{done.stderr}"

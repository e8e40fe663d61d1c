"""The Procfile, started by honcho as a developer starts it."""

import os
import subprocess
import sys
import urllib.request
from pathlib import Path

from tests.support.polling import until
from tests.support.ports import free_port

ROOT = Path(__file__).parents[2]
READY_SECONDS = 30.0


async def test_procfile_starts_a_service_that_gets_ready_and_ends_with_it(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / ".venv").symlink_to(sys.prefix)  # paths in the file start at the project's root
    honcho = [sys.executable, "-m", "honcho", "--procfile", str(ROOT / "Procfile")]
    log_file = tmp_path / "honcho.log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [*honcho, "--app-root", str(tmp_path), "start"],
            env=os.environ | {"PORT": str(port)},
            stdout=log,
            stderr=log,
        )
    try:
        await until(lambda: process.poll() is not None or ready(port), within_seconds=READY_SECONDS)
        assert process.poll() is None, log_file.read_text()
        process.terminate()
        process.wait(20)
        assert not ready(port)
        said = log_file.read_text()
        assert "api.drained" in said, "killed before it had drained"
        assert "engine.stopped" in said
    finally:
        if process.poll() is None:
            process.terminate()  # not kill: that leaves the service behind
            process.wait(20)


def ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False

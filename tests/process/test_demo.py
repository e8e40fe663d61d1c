"""The demo, as `make demo` runs it."""

import subprocess
import sys
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]


def test_the_demo_shows_six_steps_and_leaves_nothing_running(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    done = subprocess.run(
        [sys.executable, "-m", "deploy.demo", "--folder", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for step in ("1 create", "2 update", "3 follow", "4 conflict", "5 sealed", "6 crash"):
        assert step in done.stdout
    assert "\x1b" not in done.stdout  # no colours when it is not a terminal
    running = [p.info for p in psutil.process_iter(["cmdline"]) if mentions(p, folder)]
    assert running == []


def mentions(process: psutil.Process, folder: Path) -> bool:
    return any(str(folder) in argument for argument in process.info["cmdline"] or [])

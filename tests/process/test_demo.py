"""The demo, as `make demo` runs it: what it shows, and that it leaves nothing running."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from deploy.demo.__main__ import PORT

ROOT = Path(__file__).parents[2]
STEPS = ("1 create", "2 update", "3 follow", "4 conflict", "5 sealed", "6 crash")


@contextmanager
def demo(folder: Path) -> Iterator["subprocess.Popen[str]"]:
    arguments = [sys.executable, "-m", "deploy.demo", "--folder", str(folder)]
    process = subprocess.Popen(
        arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def running_in(folder: Path) -> list[str]:
    """Names of processes that mention the folder or work in it, as the engine does."""
    found = []
    for process in psutil.process_iter(["name", "cmdline", "cwd"]):
        words = [*(process.info["cmdline"] or []), process.info["cwd"] or ""]
        if any(str(folder) in word for word in words):
            found.append(process.info["name"])
    return found


def test_the_demo_shows_six_steps_on_a_free_port_and_leaves_nothing_running(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "demo"
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", PORT))
            taken.listen()
        except OSError:
            pass  # somebody else has taken it: as good
        with demo(folder) as process:
            shown, complaints = process.communicate(timeout=90)
    assert process.returncode == 0, shown + complaints
    assert complaints == ""
    lines = shown.splitlines()
    assert [line[:10].rstrip() for line in lines if line[0].isdigit()] == list(STEPS)
    assert f":{PORT}\n" not in shown
    assert "\x1b" not in shown  # no colours when it is not a terminal
    assert running_in(folder) == []
    assert not list((folder / "data").glob("socket"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_ends_what_it_started(tmp_path: Path, number: signal.Signals) -> None:
    folder = tmp_path / "demo"
    with demo(folder) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("1 create"):
                break
        assert len(running_in(folder)) >= 3  # the demo, its server, the engine
        process.send_signal(number)
        process.send_signal(number)  # an impatient second one
        _, complaints = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert complaints == ""
    assert running_in(folder) == []


def test_the_demo_takes_no_folder_that_holds_other_files(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("ten years")
    with demo(tmp_path) as process:
        _, complaints = process.communicate(timeout=60)
    assert process.returncode == 1
    assert complaints.startswith("error: the demo stopped: ")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]

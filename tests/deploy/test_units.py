"""The systemd units: each command, run as systemd would, tells systemd what it waits for.

systemd itself does not run here: its sandbox (the lines from CapabilityBoundingSet on) is
examined by systemd-analyze where that is installed, and never entered.
"""

import os
import re
import shlex
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import pytest

from tests.deploy.test_valkey_conf import engine_as_configured
from tests.support.ports import free_port

UNITS = Path(__file__).parents[2] / "deploy/systemd"
EMBEDDED = "indelible.service"
NAMES = (
    EMBEDDED,
    *(f"indelible-{part}.service" for part in ("api@", "materializer", "webhooks")),
)
PROGRAM = "/opt/indelible/bin/indelible-server"
PRIVILEGES = "# It binds no low port"
READY_SECONDS = 30.0
STOP_SECONDS = 20.0
WATCHDOG_SECONDS = 0.4

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="systemd is Linux's")


def service_lines(name: str) -> list[tuple[str, str]]:
    text = (UNITS / name).read_text().partition("[Service]\n")[2].partition("\n[Install]")[0]
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(key, value) for key, _, value in (line.partition("=") for line in lines)]


def value_of(name: str, key: str) -> str:
    (value,) = [value for found, value in service_lines(name) if found == key]
    return value


class Manager:
    """What stands in for systemd: starts a unit's command, and hears what that process says."""

    def __init__(self, name: str, folder: Path, port: int) -> None:
        self._name = name
        self._places = {"%S": str(folder), "%t": str(folder), "%d": str(folder), "%i": str(port)}
        self._log = folder / "unit.log"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind(f"\0indelible-units-{os.getpid()}-{port}")
        self._socket.settimeout(READY_SECONDS)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, environment_file: Mapping[str, str]) -> None:
        env = {k: v for k, v in os.environ.items() if not k.startswith("INDELIBLE_")}
        for assignment in (v for k, v in service_lines(self._name) if k == "Environment"):
            variable, _, value = self._placed(assignment).partition("=")
            env[variable] = value
        address = self._socket.getsockname()
        assert isinstance(address, bytes)
        env |= environment_file
        env["NOTIFY_SOCKET"] = "@" + address[1:].decode()
        env["WATCHDOG_USEC"] = str(int(WATCHDOG_SECONDS * 1e6))
        command = shlex.split(self._placed(value_of(self._name, "ExecStart")))
        assert command[0] == PROGRAM
        command[0] = str(Path(sys.executable).with_name("indelible-server"))
        with self._log.open("wb") as log:
            # The watched process is told its own id, as systemd tells it.
            self.process = subprocess.Popen(
                ["/bin/sh", "-c", 'WATCHDOG_PID=$$ exec "$@"', "sh", *command],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _placed(self, value: str) -> str:
        return re.sub("%[Stdi]", lambda specifier: self._places[specifier[0]], value)

    def heard_until(self, wanted: str) -> list[str]:
        """Assignments up to `wanted`; all from the main process, as NotifyAccess=main demands."""
        assert self.process is not None
        heard: list[str] = []
        deadline = time.monotonic() + READY_SECONDS
        while wanted not in heard:
            assert time.monotonic() < deadline, self._log.read_text()
            try:
                message, ancillary, _, _ = self._socket.recvmsg(4_096, socket.CMSG_SPACE(12))
            except TimeoutError:
                raise AssertionError(self._log.read_text()) from None
            ((_, _, credentials),) = ancillary
            sender, _, _ = struct.unpack("3i", credentials)
            assert sender == self.process.pid
            heard += message.decode().split("\n")
        return heard

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()  # not kill: that leaves its engine behind
            self.process.wait(STOP_SECONDS)
        self._socket.close()


@pytest.fixture
def managers() -> Iterator[list[Manager]]:
    started: list[Manager] = []
    yield started
    for manager in started:
        manager.end()


async def test_each_unit_tells_systemd_of_its_readiness_life_and_end(
    tmp_path: Path, managers: list[Manager]
) -> None:
    (tmp_path / "secret").write_text("s" * 40)
    async with engine_as_configured(tmp_path / "engine") as engine:
        for name in NAMES:
            manager = Manager(name, tmp_path, free_port())
            managers.append(manager)
            embedded = name == EMBEDDED
            external = "INDELIBLE_LISTEN" if embedded else "INDELIBLE_REDIS"
            manager.start({external: "127.0.0.1:0" if embedded else engine.url})
            assert manager.process is not None
            assert manager.heard_until("READY=1")[0] == "STATUS=starting"
            manager.heard_until("WATCHDOG=1")
            manager.heard_until("WATCHDOG=1")
            children = psutil.Process(manager.process.pid).children(recursive=True)
            assert bool(children) == embedded, "the embedded engine"
            manager.process.terminate()
            assert "READY=1" not in manager.heard_until("STOPPING=1")
            assert manager.process.wait(float(value_of(name, "TimeoutStopSec"))) == 0
            assert not any(child.is_running() for child in children), "left for systemd to kill"
    assert (tmp_path / "indelible/store").is_dir()
    assert {"%S/indelible", "StateDirectory=indelible"} <= set(
        re.split(r"\s", (UNITS / NAMES[0]).read_text())
    )


async def test_wrong_setting_ends_with_the_code_that_forbids_a_restart(
    tmp_path: Path, managers: list[Manager]
) -> None:
    for name in NAMES:
        manager = Manager(name, tmp_path, free_port())
        managers.append(manager)
        manager.start({"INDELIBLE_MAX_WAITERS": "many"})
        assert manager.process is not None
        code = manager.process.wait(READY_SECONDS)
        assert str(code) == value_of(name, "RestartPreventExitStatus")


@pytest.mark.parametrize("name", NAMES)
def test_every_line_of_a_service_stands_below_its_reason(name: str) -> None:
    text = (UNITS / name).read_text().partition("[Service]\n")[2].partition("\n[Install]")[0]
    above = ""
    for line in filter(None, text.splitlines()):
        assert line.startswith("# ") or above.startswith("# "), line
        above = line
    names = [key for key, _ in service_lines(name)]
    assert len(names) == len(set(names))
    assert value_of(name, "Type") == "notify"


def test_units_share_their_sandbox() -> None:
    keys = [
        [
            line
            for line in (UNITS / name).read_text().partition(PRIVILEGES)[2].splitlines()
            if not line.startswith("#")
        ]
        for name in NAMES
    ]
    assert keys[0] == keys[1] == keys[2]
    assert len(keys[0]) > 15


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize("name", NAMES)
def test_systemd_reads_each_unit_without_complaint(name: str, tmp_path: Path) -> None:
    unit = tmp_path / name.replace("@", "@8481")
    program = str(Path(sys.executable).with_name("indelible-server"))
    unit.write_text((UNITS / name).read_text().replace(PROGRAM, program))
    for question in (["verify", "--man=no"], ["security", "--offline=yes", "--threshold=25"]):
        done = subprocess.run(
            ["systemd-analyze", *question, str(unit)], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert unit.name not in done.stderr, done.stderr

"""Real services for tests: started as a user starts them, killed as a machine kills them.

Fixtures: `service` (one `indelible-server all` per worker, a fresh tenant per test) and
`start_service`, a factory for tests that want processes of their own.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from indelible_server.embedded import running_engine_url
from indelible_server.store.connection import connect
from indelible_server.store.tenants import Tenants

READY_SECONDS = 60.0
STOP_SECONDS = 20.0
API_KEY = re.compile(rb"ik_[0-9a-f]{16}_[A-Za-z0-9_-]{20}")
SERVER = (sys.executable, "-m", "indelible_server")


@dataclass(kw_only=True)
class Service:
    """One server process. `arguments` are those of `indelible-server`.

    `url` stays the same over `kill` and `start`; the log file holds all that it ever said.
    """

    arguments: Sequence[str]
    log_file: Path
    env: Mapping[str, str] = field(default_factory=dict)
    url: str = ""
    customer_id: str = ""
    apikey: str = ""
    process: "subprocess.Popen[bytes] | None" = None

    def start(self, *, until: str = "api.ready") -> None:
        """Returns when the process has logged the event `until`."""
        offset = self.log_file.stat().st_size if self.log_file.exists() else 0
        arguments = list(self.arguments)
        arguments += ["--listen", self.url.removeprefix("http://") or "127.0.0.1:0"]
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [*SERVER, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | self.env,
            )
        deadline = time.monotonic() + READY_SECONDS
        while True:
            for event in self.events(offset):
                if event["event"] in ("api.listening", "supervisor.listening"):
                    self.url = event["url"]
                if event["event"] == until:
                    return
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"not ready: {self.log_file.read_text()[offset:]}")
            time.sleep(0.02)

    def events(self, offset: int = 0) -> list[dict[str, Any]]:
        """Log events since byte `offset`; lines that are not JSON are left out."""
        found = []
        with self.log_file.open("rb") as log:
            log.seek(offset)
            for line in log:
                if line.startswith(b"{") and line.endswith(b"}\n"):
                    found.append(json.loads(line))
        return found

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def kill(self) -> None:
        """SIGKILL, and its end awaited."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(STOP_SECONDS)

    def terminate(self) -> int:
        """SIGTERM; the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_SECONDS)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.terminate()


StartService = Callable[..., Service]


@pytest.fixture
def start_service(tmp_path: Path) -> Iterator[StartService]:
    """Starts services that end with the test: `start_service("all", "--data", folder)`."""
    started: list[Service] = []

    def start(
        *arguments: str, env: Mapping[str, str] | None = None, until: str = "api.ready"
    ) -> Service:
        log_file = tmp_path / f"service-{len(started)}.log"
        service = Service(arguments=arguments, log_file=log_file, env=env or {})
        started.append(service)
        service.start(until=until)
        return service

    yield start
    for service in started:
        service.stop()


@pytest.fixture(scope="session")
def shared_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    data = folder / "data"
    service = Service(arguments=("all", "--data", str(data)), log_file=folder / "service.log")
    service.start()
    yield service
    service.stop()
    for path in (service.log_file, *filter(Path.is_file, data.rglob("*"))):
        assert not API_KEY.search(path.read_bytes()), f"an API key of some test is in {path}"


@pytest.fixture
async def service(shared_service: Service) -> Service:
    """The worker's service with a tenant of this test's own."""
    tenant_id, apikey = await make_tenant(*await store_of(shared_service))
    return Service(
        arguments=shared_service.arguments,
        log_file=shared_service.log_file,
        url=shared_service.url,
        customer_id=tenant_id,
        apikey=apikey,
        process=shared_service.process,
    )


async def store_of(service: Service) -> tuple[str, bytes]:
    """URL of the engine of a service that was started with `--data`, and the server's secret."""
    data = Path(service.arguments[service.arguments.index("--data") + 1])
    url = await running_engine_url(data)
    assert url is not None
    return url, (data / "secret").read_bytes().strip()


async def make_tenant(redis_url: str, secret: bytes) -> tuple[str, str]:
    """Id and API key of a new tenant in the store, without starting a process for it."""
    clients = connect(redis_url, connections=1, timeout_seconds=5.0)
    try:
        return await Tenants(clients.commands, secret).create(os.urandom(8).hex())
    finally:
        await clients.close()

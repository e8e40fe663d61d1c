"""The services that the cases run against."""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.conformance.http import Caller, Target
from tests.support.engines import redis_server
from tests.support.service import SERVER, Service

KINDS = ("one process", "two processes", "two processes, Redis")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("conformance")
    group.addoption("--url", help="a service that is there, for tests/conformance")
    group.addoption("--second-url", help="another process of it")
    group.addoption("--credentials", help="file with customer_id and apikey of a tenant of it")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "target" in metafunc.fixturenames:
        given = metafunc.config.getoption("--url", None)
        kinds = ("given",) if given else KINDS
        metafunc.parametrize("target", kinds, indirect=True, scope="session")


@pytest.fixture(scope="session")
def target(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Target]:
    if request.param == "given":
        path = request.config.getoption("--credentials")
        credentials = json.loads(Path(path).read_text())
        urls = [request.config.getoption(name, None) for name in ("--url", "--second-url")]
        yield Target(
            [url for url in urls if url], credentials["customer_id"], credentials["apikey"]
        )
        return
    with _started(request.param, tmp_path_factory.mktemp("conformance")) as started:
        yield started


@contextmanager
def _started(kind: str, folder: Path) -> Iterator[Target]:
    with ExitStack() as stack:
        services: list[Service] = []

        def start(*arguments: str) -> Service:
            service = Service(arguments=arguments, log_file=folder / f"{len(services)}.log")
            stack.callback(service.stop)
            services.append(service)
            service.start()
            return service

        if kind == "two processes, Redis":
            store = ["--redis", stack.enter_context(_redis(folder))]
            (folder / "secret").write_bytes(b"s" * 32)
            store += ["--secret-file", str(folder / "secret")]
            start("api", *store)
        else:
            start("all", "--data", str(folder / "data"))
            socket = (folder / "data/socket").read_text().strip()
            store = ["--redis", f"unix://{socket}"]
            store += ["--secret-file", str(folder / "data/secret")]
        if kind != "one process":
            start("api", *store)
        made = subprocess.run(
            [*SERVER, "tenant", "create", "conformance", *store], capture_output=True, check=True
        )
        credentials = json.loads(made.stdout)
        urls = [service.url for service in services]
        yield Target(urls, credentials["customer_id"], credentials["apikey"])


@contextmanager
def _redis(folder: Path) -> Iterator[str]:
    server = redis_server()
    if server is None:
        pytest.skip("no redis-server on PATH, and INDELIBLE_TEST_REDIS_SERVER is unset")
    socket = folder / "redis.sock"
    settings = ["--port", "0", "--appendonly", "yes", "--appendfsync", "always", "--save"]
    process = subprocess.Popen(
        [str(server), *settings, "", "--unixsocket", str(socket), "--dir", str(folder)],
        stdout=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 20
        while not socket.exists():
            assert time.monotonic() < deadline, "redis-server did not start"
            time.sleep(0.02)
        yield f"unix://{socket}"
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="session")
def caller(target: Target) -> Iterator[Caller]:
    asking = Caller(target)
    yield asking
    asking.close()


@pytest.fixture
def log_name(request: pytest.FixtureRequest) -> str:
    """A name that no other case uses; as long as a service lives, it may hold what was there."""
    return f"{request.node.name}-{time.time_ns()}"[:200]

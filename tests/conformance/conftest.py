"""The services that the cases run against."""

import asyncio
import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from indelible_server.store.connection import connect
from indelible_server.store.tenants import Tenants

from tests.conformance.http import Caller, Credentials, Target
from tests.support.engines import redis_server
from tests.support.service import Service

KINDS = ("one process", "two processes", "two processes, Redis")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("conformance")
    group.addoption("--url", help="a service that is there, for tests/conformance")
    group.addoption("--second-url", help="another process of it")
    group.addoption("--credentials", help="file with customer_id and apikey of a tenant of it")
    group.addoption("--stranger-credentials", help="the same of another tenant of it")
    group.addoption("--revoked-credentials", help="the same of the first, the key being revoked")


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
        yield _given(request.config)
        return
    with _started(request.param, tmp_path_factory.mktemp("conformance")) as started:
        yield started


def _given(config: pytest.Config) -> Target:
    def read(option: str) -> Credentials | None:
        path = config.getoption(option)
        if path is None:
            return None
        held = json.loads(Path(path).read_text())
        return Credentials(held["customer_id"], held["apikey"])

    urls = [config.getoption(option) for option in ("--url", "--second-url")]
    me = read("--credentials")
    assert me is not None, "--url needs --credentials"
    return Target(
        [url for url in urls if url],
        me,
        stranger=read("--stranger-credentials"),
        revoked=read("--revoked-credentials"),
    )


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

        secret_file = folder / "secret"
        if kind == "two processes, Redis":
            url = stack.enter_context(_redis(folder))
            secret_file.write_bytes(b"s" * 32)
            start("api", "--redis", url, "--secret-file", str(secret_file))
        else:
            data = folder / "data"
            start("all", "--data", str(data))
            url = "unix://" + (data / "socket").read_text().strip()
            secret_file = data / "secret"
        if kind != "one process":
            start("api", "--redis", url, "--secret-file", str(secret_file))
        me, stranger, revoked = asyncio.run(_make_tenants(url, secret_file.read_bytes().strip()))
        yield Target([service.url for service in services], me, stranger=stranger, revoked=revoked)


async def _make_tenants(url: str, secret: bytes) -> tuple[Credentials, Credentials, Credentials]:
    """A tenant, a stranger to it, and a key of the tenant that was revoked."""
    clients = connect(url, connections=1, timeout_seconds=5.0)
    try:
        tenants = Tenants(clients.commands, secret)
        me = Credentials(*await tenants.create("conformance"))
        stranger = Credentials(*await tenants.create("stranger"))
        revoked = Credentials(me.customer_id, await tenants.add_key("conformance"))
        await tenants.revoke_key("conformance", revoked.apikey)
        return me, stranger, revoked
    finally:
        await clients.close()


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


@pytest.fixture(scope="session")
def stranger(target: Target) -> Iterator[Caller]:
    if target.stranger is None:
        pytest.skip("no --stranger-credentials")
    asking = Caller(target, by=target.stranger)
    yield asking
    asking.close()


@pytest.fixture
def log_name(request: pytest.FixtureRequest) -> str:
    """A name that no other case uses; as long as a service lives, it may hold what was there."""
    return f"{request.node.name}-{time.time_ns()}"[:200]

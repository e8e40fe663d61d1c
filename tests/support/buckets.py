"""A bucket of an S3 server, for tests of what is kept in one."""

import os
from collections.abc import Iterator
from urllib.request import Request, urlopen

import pytest


@pytest.fixture(scope="session")
def object_server() -> Iterator[str]:
    """URL of an S3 server in this process."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(object_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of a new bucket, as `--archive` takes it; the environment says how to reach it."""
    pytest.importorskip("obstore")
    name = f"bucket-{os.urandom(4).hex()}"
    for variable, value in (
        ("AWS_ENDPOINT_URL", object_server),
        ("AWS_ACCESS_KEY_ID", "anybody"),
        ("AWS_SECRET_ACCESS_KEY", "anything"),
        ("AWS_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(variable, value)
    urlopen(Request(f"{object_server}/{name}", method="PUT")).close()
    return f"s3://{name}"

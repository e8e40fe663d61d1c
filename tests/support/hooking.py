"""A service whose webhooks may lead to loopback, one for a worker's tests."""

from collections.abc import Iterator

import pytest

from tests.support.service import Service


@pytest.fixture(scope="session")
def hooking_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("webhooks")
    data = str(folder / "data")
    service = Service(
        arguments=(
            *("all", "--data", data, "--webhook-allow-private", "true"),
            *("--webhook-sweep-seconds", "1", "--webhook-seconds", "10"),
        ),
        log_file=folder / "service.log",
    )
    service.start()
    yield service
    service.stop()

"""One service whose webhooks may lead to loopback, for a worker's tests; a tenant for each."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support.service import Service, make_tenant, store_of
from tests.support.webhooks import Receiver, WebhookApi, receiver, webhook_api


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


@pytest.fixture
async def api(hooking_service: Service) -> AsyncIterator[WebhookApi]:
    _, apikey = await make_tenant(*await store_of(hooking_service))
    async with webhook_api(hooking_service.url, apikey) as asking:
        yield asking


@pytest.fixture
async def target() -> AsyncIterator[Receiver]:
    async with receiver() as made:
        yield made

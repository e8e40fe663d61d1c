"""A tenant for each test, and a receiver."""

from collections.abc import AsyncIterator

import pytest

from tests.support.service import Service, make_tenant, store_of
from tests.support.webhooks import Receiver, WebhookApi, receiver, webhook_api


@pytest.fixture
async def api(hooking_service: Service) -> AsyncIterator[WebhookApi]:
    _, apikey = await make_tenant(*await store_of(hooking_service))
    async with webhook_api(hooking_service.url, apikey) as asking:
        yield asking


@pytest.fixture
async def target() -> AsyncIterator[Receiver]:
    async with receiver() as made:
        yield made

"""Fixtures of the client's tests: profiles of the worker's service, and both twins.

A test that takes `open_client` runs twice: on AsyncClient, and on Client driven from a
thread through `tests.client.twins`.
"""

import base64
import os
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import indelible
import pytest
from indelible import AsyncClient, AsyncLog, Profile

from tests.client.twins import Threaded, Threads
from tests.support.service import Service

OpenClient = Callable[..., AsyncClient]


def profile_of(service: Service, *, master_key: bytes | None = None, url: str = "") -> Profile:
    key = os.urandom(32) if master_key is None else master_key
    return Profile(
        endpoint_url=url or service.url,
        customer_id=service.customer_id,
        apikey=service.apikey,
        master_key_base64=base64.b64encode(key).decode(),
    )


@pytest.fixture
def profile(service: Service) -> Profile:
    return profile_of(service)


@pytest.fixture(params=["async", "blocking"])
async def open_client(
    request: pytest.FixtureRequest, profile: Profile
) -> AsyncIterator[OpenClient]:
    """Makes clients, of the test's profile unless told otherwise; closes them."""
    threads = Threads()
    opened: list[AsyncClient] = []

    def make(profile: Profile = profile, **settings: Any) -> AsyncClient:
        if request.param == "async":
            client = AsyncClient(profile, **settings)
        else:
            blocking = indelible.Client(profile, **settings)
            client = cast(AsyncClient, Threaded(blocking, threads))
        opened.append(client)
        return client

    yield make
    for client in opened:
        await client.close()
    threads.close()


@pytest.fixture
def client(open_client: OpenClient) -> AsyncClient:
    return open_client()


@pytest.fixture
async def log(client: AsyncClient) -> AsyncLog:
    """An empty log, key_mode string and value_mode json."""
    return await client.log("config", create=True)

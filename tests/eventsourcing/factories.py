"""Factories for tests, found as an application finds its own."""

import asyncio
import os
from typing import Any
from unittest import TestCase

from eventsourcing.persistence import InfrastructureFactory
from eventsourcing.utils import Environment
from indelible.eventsourcing import Factory

from tests.support.service import Service, make_tenant, store_of


def tenant_of(service: Service) -> tuple[str, str]:
    """Id and API key of a new tenant."""

    async def make() -> tuple[str, str]:
        return await make_tenant(*await store_of(service))

    return asyncio.run(make())


def make_factory(name: str = "Shop", **variables: str) -> Factory:
    factory: Any = InfrastructureFactory.construct(Environment(name, os.environ | variables))
    assert isinstance(factory, Factory)
    return factory


def factory_for(test: TestCase) -> Factory:
    """Closed when the test ends."""
    factory = make_factory()
    test.addCleanup(factory.close)
    return factory

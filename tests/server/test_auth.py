"""An API key in use stays known without a wait, and a revoked one does not."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from indelible_protocol.errors import ErrorCode
from indelible_server.api.auth import REMEMBERED_SECONDS, RENEWED_SECONDS, Authenticator
from indelible_server.api.rates import Rates
from indelible_server.api.turns import Turns
from indelible_server.store.connection import connect
from indelible_server.store.errors import Refusal
from indelible_server.store.tenants import Tenants, public_id
from redis.asyncio import Redis

from tests.support.engines import Engine
from tests.support.polling import until


@dataclass
class Clock:
    seconds: float = 0.0

    def now(self) -> float:
        return self.seconds


@dataclass
class Stand:
    store: Redis
    tenants: Tenants
    authenticator: Authenticator
    apikey: str
    clock: Clock

    async def looks(self) -> int:
        found = (await self.store.info("commandstats")).get("cmdstat_hmget", {"calls": 0})
        return int(found["calls"])


@pytest.fixture
async def stand(engine: Engine) -> AsyncIterator[Stand]:
    clients = connect(engine.url, connections=4, timeout_seconds=5.0)
    tenants = Tenants(clients.commands, b"s" * 32)
    _, apikey = await tenants.create("tenant")
    clock = Clock()
    authenticator = Authenticator(tenants, Rates(1e6, clock.now), Turns(clock.now), clock.now)
    await authenticator.judge(apikey)
    yield Stand(clients.commands, tenants, authenticator, apikey, clock)
    await clients.close()


async def test_a_key_in_use_is_looked_up_once_in_a_while_and_nobody_waits(stand: Stand) -> None:
    before = await stand.looks()
    for age in range(10):
        stand.clock.seconds = age * RENEWED_SECONDS
        assert all(stand.authenticator.known(stand.apikey) for _ in range(64))
        await until(lambda: not stand.authenticator._renewing)
    each = (await stand.looks() - before) / 9
    assert each == 2, "the key and its tenant's quota"


async def test_a_key_that_nobody_brought_for_a_while_is_forgotten(stand: Stand) -> None:
    stand.clock.seconds = REMEMBERED_SECONDS
    assert stand.authenticator.known(stand.apikey) is None
    assert not stand.authenticator._renewing, "who needs it looks for itself"
    assert (await stand.authenticator.judge(stand.apikey)).key_id == public_id(stand.apikey)


async def test_a_revoked_key_ends_with_the_first_look(stand: Stand) -> None:
    await stand.tenants.revoke_key("tenant", stand.apikey)
    assert stand.authenticator.known(stand.apikey)
    stand.clock.seconds = RENEWED_SECONDS
    assert stand.authenticator.known(stand.apikey)
    await until(lambda: not stand.authenticator._renewing)
    assert stand.authenticator.known(stand.apikey) is None
    with pytest.raises(Refusal) as refused:
        await stand.authenticator.judge(stand.apikey)
    assert refused.value.code is ErrorCode.BAD_API_KEY

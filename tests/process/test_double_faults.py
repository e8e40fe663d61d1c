"""Two faults in a row: what the first left readable, the second must not take back."""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from indelible_server.embedded import running_engine_url

from tests.support.native_api import InDoubt, NativeApi, NotDone
from tests.support.operations import Command, Op
from tests.support.polling import until
from tests.support.powercut import PowerCut
from tests.support.service import Service, StartService, make_tenant


@asynccontextmanager
async def client_of(service: Service, data: Path) -> AsyncIterator[NativeApi]:
    store_url = await running_engine_url(data)
    assert store_url is not None
    _, apikey = await make_tenant(store_url, (data / "secret").read_bytes().strip())
    async with aiohttp.ClientSession() as session:
        yield NativeApi(session, endpoints=[service.url], apikey=apikey, rng=random.Random(1))


async def test_what_a_killed_engine_left_readable_survives_a_power_cut(
    start_service: StartService, powercut_library: Path, tmp_path: Path
) -> None:
    """A killed engine had written a commit and not synced it. Its successor serves the
    commit, and repeats its acknowledgement; so it must have made it durable before."""
    data = tmp_path / "data"
    power = PowerCut(powercut_library, data / "store", tmp_path / "power")
    service = await asyncio.to_thread(start_service, "all", "--data", str(data), env=power.env)
    async with client_of(service, data) as client:
        log_id = await client.create_log("log")
        commands = [Command(Op.UPSERT, "key", "value")]
        with power.stalled_disk():
            with pytest.raises(InDoubt):
                await client.commit(log_id, commands, idempotency_key="commit")
            kill_engine(service)

        async def is_back() -> bool:
            try:
                served = (await client.diff(log_id, 0)).to_version == 1
                return served and len(engine_pids(service)) == 2
            except (InDoubt, NotDone):
                return False

        await until(is_back, what="the restarted engine serves the commit")
        service.kill()
        kill_engine(service)
        power.cut(random.Random(1))
        await asyncio.to_thread(service.start)
        assert (await client.diff(log_id, 0)).to_version == 1, "a version was taken back"


def engine_pids(service: Service) -> list[int]:
    return [event["pid"] for event in service.events() if event["event"] == "engine.started"]


def kill_engine(service: Service) -> None:
    os.kill(engine_pids(service)[-1], signal.SIGKILL)

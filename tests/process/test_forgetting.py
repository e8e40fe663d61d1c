"""An API process that ends in the middle of forgetting: the next request goes on."""

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.service import Service, StartService, make_tenant, store_of

POINTS = ("after_floor", "after_trim")
OTHER_POINTS = (
    *("after_wish", "before_pieces", "before_listing", "before_floor"),
    *("before_trim", "before_sweep", "before_end"),
)
VERSIONS, BEFORE = 80, 70


@pytest.mark.parametrize(
    "point",
    [*POINTS, *(pytest.param(point, marks=pytest.mark.torture) for point in OTHER_POINTS)],
)
async def test_a_process_killed_in_the_middle_leaves_it_to_the_next_request(
    start_service: StartService, tmp_path: Path, point: str
) -> None:
    data = ("all", "--data", str(tmp_path / "data"))
    service = start_service(*data, env={"INDELIBLE_FAILPOINT": point})
    _, apikey = await make_tenant(*await store_of(service))
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {apikey}"}) as session:
        path = await made(session, service)
        whole = await read(session, service, f"{path}/diff?to={VERSIONS}")
        with pytest.raises(aiohttp.ClientError):
            await asked(session, service, path)
        assert service.process is not None
        assert await asyncio.to_thread(service.process.wait, 30) == -9
        service.env = {}
        await asyncio.to_thread(service.start)
        assert await read(session, service, f"{path}/diff?to={VERSIONS}") == whole
        told: Any = None
        status = 202
        while status == 202:
            status, told = await asked(session, service, path)
        assert (status, told["first_version"], told["done"]) == (200, BEFORE, True)
        assert await read(session, service, f"{path}/diff?to={VERSIONS}") == whole
        problem = await read(session, service, f"{path}/diff?from={BEFORE - 1}")
        assert problem["code"] == "FORGOTTEN_VERSION"


async def made(session: aiohttp.ClientSession, service: Service) -> str:
    async with session.put(f"{service.url}/v2/names/a3k?kind=opaque", json={}) as answer:
        log_id = (await answer.json())["description"]["log_id"]
    path = "/v2/logs/" + str(log_id).replace("+", "-").replace("/", "_").rstrip("=")
    for n in range(VERSIONS):
        command = {"type": "Upsert", "key": f"{n % 9:04}", "value": f"{n:04}"}
        url = f"{service.url}{path}/commits"
        async with session.post(url, json={"commands": [command]}) as answer:
            assert answer.status == 201
    return path


async def read(session: aiohttp.ClientSession, service: Service, path: str) -> Any:
    async with session.get(service.url + path) as answer:
        return await answer.json()


async def asked(session: aiohttp.ClientSession, service: Service, path: str) -> tuple[int, Any]:
    url = f"{service.url}{path}/forget"
    async with session.post(url, json={"before": BEFORE}) as answer:
        return answer.status, await answer.json()

"""What a tenant may keep: logs and bytes, refused with a code and a time, and for nobody else."""

import asyncio
import json
import re
from pathlib import Path

import aiohttp
import pytest
from indelible_protocol.ids import to_base64url

from tests.server.test_service import run_server
from tests.support.polling import until
from tests.support.service import Service, StartService

VALUE = "x" * 1_000


class Caller:
    """One tenant, with its API key."""

    def __init__(self, service: Service, credentials: dict[str, str]) -> None:
        self._url = service.url
        self._headers = {"Authorization": f"Bearer {credentials['apikey']}"}

    async def ask(self, method: str, path: str, body: object = None) -> aiohttp.ClientResponse:
        async with (
            aiohttp.ClientSession(self._url, headers=self._headers) as http,
            http.request(method, path, json=body) as answer,
        ):
            await answer.read()
            return answer

    async def make_log(self, name: str) -> aiohttp.ClientResponse:
        return await self.ask("PUT", f"/v2/names/{to_base64url(name.encode())}?kind=opaque", {})

    async def commit(self, log: str, number: int) -> aiohttp.ClientResponse:
        command = {"type": "Upsert", "key": f"{number:04}", "value": VALUE}
        return await self.ask("POST", f"{log}/commits", {"commands": [command]})


@pytest.fixture
async def tenants(start_service: StartService, tmp_path: Path) -> tuple[str, Caller, Caller]:
    """The data folder of a service with small quotas, and two tenants of it."""
    data = str(tmp_path / "data")
    service = await asyncio.to_thread(
        start_service,
        *("all", "--data", data),
        *("--max-tenant-logs", "3", "--max-tenant-stored-bytes", "20000"),
    )
    callers = []
    for name in ("one", "two"):
        made = await asyncio.to_thread(run_server, "tenant", "create", name, "--data", data)
        callers.append(Caller(service, json.loads(made.stdout)))
    return data, callers[0], callers[1]


async def refused(answer: aiohttp.ClientResponse) -> None:
    assert answer.status == 429
    problem = await answer.json(content_type=None)
    assert problem["code"] == "QUOTA_EXCEEDED"
    assert (problem["retryable"], problem["may_have_applied"]) == (False, False)
    assert int(answer.headers["Retry-After"]) == problem["details"]["retry_after_seconds"] > 0


async def test_logs_beyond_the_quota_are_refused_and_those_that_are_there_open(
    tenants: tuple[str, Caller, Caller],
) -> None:
    data, one, two = tenants
    assert [(await one.make_log(f"log {n}")).status for n in range(3)] == [201] * 3
    await refused(await one.make_log("log 3"))
    assert (await one.make_log("log 2")).status == 200
    assert (await two.make_log("log 3")).status == 201

    log = (await one.make_log("log 0")).headers["Location"]
    assert (await one.ask("DELETE", log)).status == 204
    assert (await one.make_log("log 3")).status == 201
    await refused(await one.make_log("log 4"))

    done = await asyncio.to_thread(
        run_server, "tenant", "quota", "one", "--logs", "4", "--data", data
    )
    assert done.returncode == 0, done.stderr
    assert (await one.make_log("log 4")).status == 201


async def test_bytes_beyond_the_quota_are_refused_until_a_log_is_deleted(
    tenants: tuple[str, Caller, Caller],
) -> None:
    _, one, two = tenants
    logs = [(await one.make_log(name)).headers["Location"] for name in ("first", "second")]
    versions = 0

    async def full() -> bool:
        nonlocal versions
        answer = await one.commit(logs[versions % 2], versions)
        versions += answer.status == 201
        return answer.status == 429

    await until(full, within_seconds=20)
    assert versions > 10
    await refused(await one.commit(logs[0], 1_000))
    head = await one.ask("GET", logs[0])
    assert (await head.json(content_type=None))["version"] == (versions + 1) // 2
    other = (await two.make_log("first")).headers["Location"]
    assert (await two.commit(other, 0)).status == 201

    assert (await one.ask("DELETE", logs[1])).status == 204

    async def allowed() -> bool:
        return (await one.commit(logs[0], 2_000)).status == 201

    await until(allowed, within_seconds=30)


@pytest.mark.parametrize("wrong", ["many", "0", "-1", "1.5"])
async def test_a_quota_that_is_no_number_above_zero_is_refused(tmp_path: Path, wrong: str) -> None:
    data = str(tmp_path / "data")
    run_server("tenant", "create", "one", "--data", data)
    done = run_server("tenant", "quota", "one", "--logs", wrong, "--data", data)
    assert done.returncode in (1, 2)
    assert re.search("error: .*(--logs|logs are)", done.stderr)
    none = run_server("tenant", "quota", "one", "--data", data)
    assert none.returncode == 2
    assert "give at least one of --requests-per-second, --logs, --stored-bytes" in none.stderr


async def test_long_polls_beyond_the_quota_are_refused_and_others_wait_on(
    start_service: StartService, tmp_path: Path
) -> None:
    data = str(tmp_path / "data")
    service = await asyncio.to_thread(
        start_service, "all", "--data", data, "--max-tenant-waiters", "5"
    )
    callers = []
    for name in ("one", "two"):
        made = await asyncio.to_thread(run_server, "tenant", "create", name, "--data", data)
        callers.append(Caller(service, json.loads(made.stdout)))
    one, two = callers
    log = (await one.make_log("log")).headers["Location"]
    other = (await two.make_log("log")).headers["Location"]
    waits = [asyncio.ensure_future(one.ask("GET", f"{log}/diff?from=0&wait=30")) for _ in range(5)]

    async def all_wait() -> bool:
        metrics = await (await one.ask("GET", "/metrics")).text()
        return "indelible_waiters 5.0" in metrics

    await until(all_wait, within_seconds=20)
    answer = await one.ask("GET", f"{log}/diff?from=0&wait=30")
    assert (answer.status, (await answer.json(content_type=None))["code"]) == (429, "RATE_LIMITED")
    assert int(answer.headers["Retry-After"]) > 0
    assert (await two.ask("GET", f"{other}/diff?from=0&wait=0.01")).status == 204
    assert (await one.commit(log, 0)).status == 201
    assert [(await wait).status for wait in waits] == [200] * 5

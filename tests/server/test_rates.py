"""What a tenant may send: the rate, the burst, and who is not held up by it."""

import asyncio
import json
from pathlib import Path

import aiohttp
import pytest
from indelible_protocol.errors import ErrorCode
from indelible_server.api.rates import Rates
from indelible_server.store.errors import Refusal

from tests.server.test_service import run_server
from tests.support.polling import until
from tests.support.service import Service, StartService


class Clock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def taken(rates: Rates, tenant: str, per_second: float | None = None) -> int:
    """How many in a row, until one is refused."""
    count = 0
    while True:
        try:
            rates.take(tenant, per_second)
        except Refusal:
            return count
        count += 1


def test_a_burst_of_two_seconds_passes_and_then_the_rate() -> None:
    clock = Clock()
    rates = Rates(5.0, clock)
    assert taken(rates, "a") == 10
    assert taken(rates, "b") == 10  # another tenant's bucket is its own
    clock.seconds += 0.19
    assert taken(rates, "a") == 0
    clock.seconds += 0.02
    assert taken(rates, "a") == 1
    clock.seconds += 3_600
    assert taken(rates, "a") == 10


@pytest.mark.parametrize(("rate", "seconds"), [(5.0, 1), (0.25, 4), (0.1, 10)])
def test_a_refusal_tells_how_long_to_wait(rate: float, seconds: int) -> None:
    clock = Clock()
    rates = Rates(1.0, clock)
    taken(rates, "a", rate)
    with pytest.raises(Refusal) as caught:
        rates.take("a", rate)
    assert caught.value.code is ErrorCode.RATE_LIMITED
    assert caught.value.details == {"retry_after_seconds": seconds}
    clock.seconds += seconds
    rates.take("a", rate)


async def statuses(service: Service, apikey: str, count: int) -> list[tuple[int, str | None]]:
    headers = {"Authorization": f"Bearer {apikey}"}
    async with aiohttp.ClientSession(service.url, headers=headers) as http:
        found = []
        for _ in range(count):
            async with http.get("/v2/logs") as answer:
                found.append((answer.status, answer.headers.get("Retry-After")))
        return found


async def test_one_tenant_over_its_rate_is_told_so_and_another_is_not(
    start_service: StartService, tmp_path: Path
) -> None:
    data = str(tmp_path / "data")
    service = await asyncio.to_thread(
        start_service, "all", "--data", data, "--tenant-requests-per-second", "0.5"
    )
    keys = {}
    for name in ("one", "two"):
        made = run_server("tenant", "create", name, "--data", data)
        keys[name] = json.loads(made.stdout)
    assert await statuses(service, keys["one"]["apikey"], 2) == [(200, None), (429, "2")]
    assert (await statuses(service, keys["two"]["apikey"], 1))[0] == (200, None)

    body = {"authinfo": {k: keys["one"][k] for k in ("customer_id", "apikey")}, "logName": "x"}
    async with (
        aiohttp.ClientSession(service.url) as http,
        http.post("/v1/log/create", json=body) as answer,
    ):
        assert (answer.status, (await answer.json())["code"]) == (429, "RATE_LIMITED")

    done = run_server("tenant", "quota", "one", "--requests-per-second", "1000", "--data", data)
    assert done.returncode == 0, done.stderr
    listed = [
        json.loads(line)
        for line in run_server("tenant", "list", "--data", data).stdout.splitlines()
    ]
    assert {each["name"]: each["quota"]["requests_per_second"] for each in listed} == {
        "one": 1_000.0,
        "two": None,
    }

    async def allowed() -> bool:
        return await statuses(service, keys["one"]["apikey"], 5) == [(200, None)] * 5

    await until(allowed, within_seconds=10)
    for wrong in ("fast", "0", "-1", "nan"):
        done = run_server("tenant", "quota", "one", "--requests-per-second", wrong, "--data", data)
        assert done.returncode in (1, 2)
        assert "error: " in done.stderr

"""Thousands of followers, a store that is away, a restart: all come back, and not all at once."""

import asyncio
import base64
import os
import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from indelible import AsyncClient, AsyncLog, Profile

from tests.process.test_waiting import until_waiting
from tests.support.deployment import Deployment, StartDeployment
from tests.support.herd import Herd, Task, herd
from tests.support.service import Service

BACK_SECONDS = 30.0
WOKEN_SECONDS = 10.0
WINDOW_SECONDS = 0.5
MOST_IN_A_WINDOW = 0.5  # of all who come back
MOST_ATTEMPTS = 3.0
COMMIT_SECONDS = 1.0
MOST_GROWTH = 1.2
HERDS = 2
_MAKING_AT_ONCE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Of one herd, of which there are HERDS; `away_seconds` is the store's absence."""

    followers: int
    logs: int
    away_seconds: float


@dataclass(slots=True, kw_only=True)
class Return:
    """How the herds came back. Moments are by the monotonic clock."""

    up_at: float
    told_at: list[float] = field(default_factory=list)
    woken_at: list[float] = field(default_factory=list)
    again_at: float = 0.0
    attempts: float = 0.0
    growth: float = 0.0
    commit_seconds: list[float] = field(default_factory=list)

    @property
    def back_seconds(self) -> float:
        return max(self.told_at) - self.up_at

    @property
    def woken_seconds(self) -> float:
        return max(self.woken_at) - self.again_at

    @property
    def most_in_a_window(self) -> float:
        """The largest share of all who were told within WINDOW_SECONDS."""
        moments = sorted(self.told_at)
        most = first = 0
        for last, moment in enumerate(moments):
            while moment - moments[first] > WINDOW_SECONDS:
                first += 1
            most = max(most, last - first + 1)
        return most / len(moments)

    @property
    def commit_p99_seconds(self) -> float:
        return sorted(self.commit_seconds)[int(0.99 * (len(self.commit_seconds) - 1))]

    def __str__(self) -> str:
        return (
            f"{len(self.told_at)} back in {self.back_seconds:.1f} s, "
            f"{self.most_in_a_window:.0%} at most in {WINDOW_SECONDS} s, "
            f"{self.attempts:.2f} attempts each; woken again in {self.woken_seconds:.2f} s; "
            f"{len(self.commit_seconds)} commits, p99 {self.commit_p99_seconds * 1e3:.0f} ms; "
            f"memory {self.growth:.2f} times that before"
        )


def memory_of(service: Service) -> int:
    status = Path(f"/proc/{service.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found
    return int(found[1])


async def diffs_answered(service: Service) -> int:
    """By the process since its start, whatever the answer was."""
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"{service.url}/metrics") as response,
    ):
        text = await response.text()
    counts = re.findall(r'^indelible_requests_total\{.*/diff".*\} (\S+)$', text, re.MULTILINE)
    assert counts
    return int(sum(map(float, counts)))


async def set_each(logs: Sequence[AsyncLog], value: str, took: list[float]) -> None:
    room = asyncio.Semaphore(_MAKING_AT_ONCE)

    async def set_one(log: AsyncLog) -> None:
        async with room:
            began = time.monotonic()
            await log.set("key", value)
            took.append(time.monotonic() - began)

    await asyncio.gather(*(set_one(log) for log in logs))


async def keep_committing(log: AsyncLog, took: list[float]) -> None:
    number = 0
    while True:
        number += 1
        began = time.monotonic()
        await log.set("key", f"{number}")
        took.append(time.monotonic() - began)
        await asyncio.sleep(0.02)


async def all_told(herds: Sequence[Herd], within_seconds: float) -> list[float]:
    async with asyncio.timeout(within_seconds):
        told = await asyncio.gather(*(each.told() for each in herds))
    return [moment for moments in told for moment in moments]


@asynccontextmanager
async def herds_of(
    deployment: Deployment, size: Size, *, jitter: bool
) -> AsyncIterator[tuple[list[AsyncLog], AsyncLog, list[Herd]]]:
    """Logs that are followed, one that is not, and the herds when all of them wait."""
    profile = {
        "endpoint_url": deployment.services[0].url,
        "customer_id": "herd",
        "apikey": deployment.apikey,
        "master_key_base64": base64.b64encode(os.urandom(32)).decode(),
    }
    async with AsyncExitStack() as leaving:
        client = await leaving.enter_async_context(AsyncClient(Profile(**profile)))
        names = [f"log-{number}" for number in range(size.logs)]
        logs = [await client.log(name, create=True) for name in names]
        beside = await client.log("beside", create=True)
        await set_each(logs, "0", [])
        task = Task(profile=profile, logs=names, followers=size.followers, after=1, jitter=jitter)
        herds = [await leaving.enter_async_context(herd(task)) for _ in range(HERDS)]
        await all_told(herds, 120)
        waiters = HERDS * size.followers
        await until_waiting(deployment.services[0], waiters, within_seconds=120)
        yield logs, beside, herds


async def restart_under(deployment: Deployment, size: Size, *, jitter: bool = True) -> Return:
    """The store is away, then the process is restarted and each log gets a version."""
    (service,) = deployment.services
    waiters = HERDS * size.followers
    async with herds_of(deployment, size, jitter=jitter) as (logs, beside, herds):
        before = memory_of(service)
        await deployment.engine.kill()
        await asyncio.sleep(size.away_seconds)
        await deployment.engine.start()
        await asyncio.to_thread(service.kill)
        await asyncio.to_thread(service.start)
        seen = Return(up_at=time.monotonic())
        committing = asyncio.create_task(keep_committing(beside, seen.commit_seconds))
        try:
            await set_each(logs, "1", seen.commit_seconds)
            seen.told_at = await all_told(herds, 2 * BACK_SECONDS)
            seen.attempts = await diffs_answered(service) / waiters
        finally:
            committing.cancel()
            await asyncio.gather(committing, return_exceptions=True)
        await until_waiting(service, waiters, within_seconds=60)
        seen.growth = memory_of(service) / before
        seen.again_at = time.monotonic()
        await set_each(logs, "2", [])
        seen.woken_at = await all_told(herds, 2 * BACK_SECONDS)
    print(seen)
    return seen


def expect_good_order(seen: Return) -> None:
    assert seen.back_seconds < BACK_SECONDS
    assert seen.most_in_a_window < MOST_IN_A_WINDOW, "a stampede"
    assert seen.attempts <= MOST_ATTEMPTS
    assert seen.commit_p99_seconds < COMMIT_SECONDS
    assert seen.growth < MOST_GROWTH
    assert seen.woken_seconds < WOKEN_SECONDS


SMALL = Size(followers=100, logs=10, away_seconds=1.0)
LARGE = Size(followers=5_000, logs=100, away_seconds=5.0)


async def test_a_herd_comes_back_in_good_order(deploy: StartDeployment) -> None:
    expect_good_order(await restart_under(await deploy(processes=1), SMALL))


async def test_a_herd_without_jitter_is_a_stampede(deploy: StartDeployment) -> None:
    """The control: pauses that nobody draws."""
    seen = await restart_under(await deploy(processes=1), SMALL, jitter=False)
    with pytest.raises(AssertionError, match="stampede"):
        expect_good_order(seen)


@pytest.mark.torture
async def test_ten_thousand_come_back_in_good_order(deploy: StartDeployment) -> None:
    expect_good_order(await restart_under(await deploy(processes=1), LARGE))

"""An engine, API processes on it, and one tenant: what a fault test breaks and mends.

Owns their order of start and end. Knows nothing of what clients do with them.
"""

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest_asyncio
from redis.asyncio import Redis

from tests.support.engines import Engine, start_engine
from tests.support.powercut import PowerCut
from tests.support.service import Service, make_tenant

FROZEN_SECONDS = 0.03
Window = tuple[int, int]  # first and last possible moment of a fault, in ns
NOTHING: Mapping[str, str] = MappingProxyType({})


class Processes:
    """`services` are API processes on one store; each keeps its URL over `kill` and `start`."""

    def __init__(self, folder: Path, store_url: str) -> None:
        self.store_url = store_url
        self.services: list[Service] = []
        self._started: list[Service] = []
        self._folder = folder
        self._secret = os.urandom(32).hex().encode()
        self._secret_file = folder / "secret"
        self._secret_file.write_bytes(self._secret)
        self._secret_file.chmod(0o600)
        self.tenant_id = ""
        self.apikey = ""

    @property
    def endpoints(self) -> list[str]:
        return [service.url for service in self.services]

    async def make_tenant(self) -> None:
        self.tenant_id, self.apikey = await make_tenant(self.store_url, self._secret)

    async def start_service(
        self,
        *arguments: str,
        store_url: str | None = None,
        env: Mapping[str, str] = NOTHING,
        listed: bool = True,
    ) -> Service:
        """One more API process; `store_url` leads it past a proxy. Unlisted ones are not
        among `endpoints`, so no load reaches them."""
        service = Service(
            arguments=(
                "api",
                *("--redis", store_url or self.store_url),
                *("--secret-file", str(self._secret_file)),
                *arguments,
            ),
            log_file=self._folder / f"api-{len(self._started)}.log",
            env=env,
        )
        self._started.append(service)
        await asyncio.to_thread(service.start)
        if listed:
            self.services.append(service)
        return service

    async def kill_a_process(self, rng: random.Random) -> Window:
        """kill -9 of an API process, and its next start."""
        service = rng.choice(self.services)
        fault = await frozen(service.pid)
        await asyncio.to_thread(service.kill)
        await asyncio.to_thread(service.start)
        return fault

    async def stop(self) -> None:
        for service in self._started:
            if service.process is not None and service.process.poll() is None:
                await asyncio.to_thread(service.kill)


class Deployment(Processes):
    """One engine and its API processes."""

    def __init__(self, folder: Path, engine: Engine, power: PowerCut | None) -> None:
        super().__init__(folder, engine.url)
        self.engine = engine
        self._power = power

    async def configure(self, setting: str, value: str) -> None:
        """Changes a setting of the running engine."""
        async with Redis.from_url(self.engine.url) as store:
            await store.config_set(setting, value)

    async def kill_engine(self) -> Window:
        """kill -9 and start again on what the process had written."""
        fault = await self._end_engine()
        await self.engine.start()
        return fault

    async def cut_power(self, rng: random.Random) -> Window:
        """kill -9 and start again on what had reached the disk.

        Every other time amid a rewrite of the append-only file: its files change names.
        """
        assert self._power is not None
        if rng.random() < 0.5:
            async with Redis.from_url(self.engine.url) as store:
                await store.bgrewriteaof()
            await asyncio.sleep(rng.uniform(0, 0.05))
        fault = await self._end_engine()
        self._power.cut(rng)
        await self.engine.start()
        return fault

    async def _end_engine(self) -> Window:
        fault = await frozen(self.engine.pid)
        await self.engine.kill()
        return fault

    async def stop(self) -> None:
        await super().stop()
        await self.engine.stop()


async def frozen(pid: int) -> Window:
    """Stops a process wherever it is, long enough for more requests to reach it.

    A kill then finds it at that same place, and with commits that nobody will answer.
    """
    os.kill(pid, signal.SIGSTOP)
    began_ns = time.monotonic_ns()
    await asyncio.sleep(FROZEN_SECONDS)
    return began_ns, time.monotonic_ns()


StartDeployment = Callable[..., Awaitable[Deployment]]


@pytest_asyncio.fixture
async def deploy(tmp_path: Path) -> AsyncIterator[StartDeployment]:
    """`await deploy(processes=2)`: a deployment of the test's own, ended with it.

    `power_cut` is the compiled library, for tests that cut the power; `engine_settings` go
    over strict ones, `engine_server` is another binary; `arguments` go to each API process.
    """
    made: list[Deployment] = []

    async def start(
        *arguments: str,
        processes: int = 2,
        power_cut: Path | None = None,
        engine_server: Path | None = None,
        engine_settings: Mapping[str, str] = NOTHING,
        env: Mapping[str, str] = NOTHING,
    ) -> Deployment:
        folder = tmp_path / f"deployment-{len(made)}"
        folder.mkdir()
        power = PowerCut(power_cut, folder / "data", folder / "power") if power_cut else None
        engine = await start_engine(
            folder / "data",
            server=engine_server,
            settings=engine_settings,
            env=power.env if power else None,
        )
        deployment = Deployment(folder, engine, power)
        made.append(deployment)
        await deployment.make_tenant()
        await asyncio.gather(
            *(deployment.start_service(*arguments, env=env) for _ in range(processes))
        )
        return deployment

    yield start
    for deployment in made:
        await deployment.stop()

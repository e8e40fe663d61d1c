"""Projections whose instances are killed: the derived log is what it would be had nobody died."""

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from indelible import AsyncClient, AsyncLog, AsyncProjection, AsyncTransaction, Diff, Upsert

from tests.client.conftest import profile_of
from tests.support.service import Service

# What an instance runs: derives, per group, the number and the sum of the source's entries.
INSTANCE = """
import asyncio, sys
from indelible import AsyncClient, AsyncProjection
from tests.process.test_projections import derive

async def main() -> None:
    async with AsyncClient(sys.argv[1]) as client:
        source, target = await client.log("source"), await client.log("target")
        await AsyncProjection(source, target, derive, max_versions=int(sys.argv[2])).run()

asyncio.run(main())
"""
GROUPS = 7
PER_COMMIT = 10


async def derive(diff: Diff, transaction: AsyncTransaction) -> None:
    held = await transaction.get_many([f"group-{n}" for n in range(GROUPS)])
    for change in diff.changes:
        group = f"group-{change.value % GROUPS}"
        count, total = held.get(group, [0, 0])
        sign = 1 if change.op == "add" else -1
        held[group] = [count + sign, total + sign * change.value]
    for group, numbers in held.items():
        transaction.set(group, numbers)


async def model_of(source: AsyncLog) -> dict[str, list[int]]:
    numbers = {f"group-{n}": [0, 0] for n in range(GROUPS)}
    async for entry in source:
        held = numbers[f"group-{entry.value % GROUPS}"]
        held[0] += 1
        held[1] += entry.value
    return numbers


class Instances:
    """Processes that derive; `kill` ends one with -9 and starts another in its place."""

    def __init__(self, profile: Path, max_versions: int) -> None:
        self._arguments = [sys.executable, "-c", INSTANCE, str(profile), str(max_versions)]
        self.running = [self._started(), self._started()]

    def _started(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(self._arguments, cwd=Path(__file__).parents[2])

    def kill(self, index: int) -> None:
        assert self.running[index].poll() is None, "an instance ended by itself"
        self.running[index].send_signal(signal.SIGKILL)
        self.running[index].wait(20)
        self.running[index] = self._started()


@contextmanager
def instances(profile: Path, max_versions: int) -> Iterator[Instances]:
    both = Instances(profile, max_versions)
    try:
        yield both
    finally:
        for process in both.running:
            process.kill()
            process.wait(20)


async def derive_under_kills(
    service: Service, tmp_path: Path, *, changes: int, kills: int, seed: int
) -> None:
    rng = random.Random(seed)
    profile = profile_of(service, master_key=os.urandom(32)).save(tmp_path / "profile.json")
    async with AsyncClient(profile) as client:
        source = await client.log("source", create=True)
        target = await client.log("target", create=True)
        projection = AsyncProjection(source, target, derive)
        written = 0
        with instances(profile, max_versions=3) as both:
            for _ in range(kills):
                before = await target.version
                for _ in range(changes // kills // PER_COMMIT):
                    keys = [rng.randrange(changes // 4) for _ in range(PER_COMMIT)]
                    await source.update([Upsert(f"k-{k}", written + n) for n, k in enumerate(keys)])
                    written += PER_COMMIT
                await until_after(target, before)
                await asyncio.sleep(rng.uniform(0.0, 0.02))  # into any moment of a step
                both.kill(rng.randrange(2))
            while await projection.position() < await source.version:
                await projection.step()
        derived = {e.key: e.value async for e in target if e.key != "position"}
        assert derived == await model_of(source)
        print(f"{written} changes, {kills} kills, {await target.version} steps")
        assert written == changes


async def until_after(log: AsyncLog, version: int) -> None:
    """Returns once somebody has made a version after that one."""
    async for _ in log.follow(version, max_wait_seconds=60.0):
        return
    raise AssertionError(f"nobody derived anything after version {version} for 60 s")


async def test_killed_instances_count_each_change_once(service: Service, tmp_path: Path) -> None:
    await derive_under_kills(service, tmp_path, changes=600, kills=6, seed=1)


@pytest.mark.torture
async def test_two_hundred_kills_over_twenty_thousand_changes(
    service: Service, tmp_path: Path
) -> None:
    await derive_under_kills(service, tmp_path, changes=20_000, kills=200, seed=2)

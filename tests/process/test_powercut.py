"""The simulated power cut: takes exactly what no fsync covered, and so has teeth."""

import asyncio
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from tests.support.engines import Engine, start_engine
from tests.support.polling import until
from tests.support.powercut import CutReport, PowerCut

SEEDS = range(8)  # enough for both sides of every choice that the cut makes


def run_and_cut(library: Path, folder: Path, seed: int, script: str) -> CutReport:
    """Runs `script` in `folder`, where `A` and `B` exist, then cuts the power."""
    data = folder / "data"
    data.mkdir(parents=True)
    (data / "A").write_text("old A")
    (data / "B").write_text("old B")
    power = PowerCut(library, data, folder / "power")
    sync_something = "f = os.open('Z', os.O_CREAT | os.O_WRONLY); os.fsync(f)"
    subprocess.run(
        [sys.executable, "-c", f"import os\n{sync_something}\n{script}"],
        cwd=data,
        env={**os.environ, **power.env},
        check=True,
    )
    return power.cut(random.Random(seed))


def contents(folder: Path) -> dict[str, str]:
    files = (folder / "data").iterdir()
    return {path.name: path.read_text() for path in files if path.name != "Z"}


def outcomes(library: Path, folder: Path, script: str) -> list[dict[str, str]]:
    """What a cut after `script` can leave, without repetitions."""
    found: list[dict[str, str]] = []
    for seed in SEEDS:
        run_and_cut(library, folder / str(seed), seed, script)
        left = contents(folder / str(seed))
        if left not in found:
            found.append(left)
    return found


OLD = {"A": "old A", "B": "old B"}


def test_synced_bytes_stay_and_later_ones_go(powercut_library: Path, tmp_path: Path) -> None:
    script = """
a = os.open("A", os.O_WRONLY | os.O_APPEND)
os.write(a, b" synced"); os.fdatasync(a); os.write(a, b" not synced")
"""
    assert outcomes(powercut_library, tmp_path, script) == [{**OLD, "A": "old A synced"}]


def test_a_file_that_was_never_synced_is_empty_or_gone(
    powercut_library: Path, tmp_path: Path
) -> None:
    script = "c = os.open('C', os.O_CREAT | os.O_WRONLY); os.write(c, b'new')"
    left = outcomes(powercut_library, tmp_path, script)
    assert sorted(left, key=len) == [OLD, {**OLD, "C": ""}]


def test_a_file_in_a_synced_folder_keeps_its_name_not_its_bytes(
    powercut_library: Path, tmp_path: Path
) -> None:
    script = """
c = os.open("C", os.O_CREAT | os.O_WRONLY); os.write(c, b"new")
os.fsync(os.open(".", os.O_RDONLY))
"""
    assert outcomes(powercut_library, tmp_path, script) == [{**OLD, "C": ""}]


REPLACE_A_BY_C = """
c = os.open("C", os.O_CREAT | os.O_WRONLY); os.write(c, b"new A"); os.fsync(c)
os.rename("C", "A")
"""


def test_a_rename_holds_only_once_its_folder_is_synced(
    powercut_library: Path, tmp_path: Path
) -> None:
    left = outcomes(powercut_library, tmp_path / "not synced", REPLACE_A_BY_C)
    assert len(left) == 2
    assert {**OLD, "A": "new A"} in left
    assert {**OLD, "C": "new A"} in left
    synced = REPLACE_A_BY_C + "os.fsync(os.open('.', os.O_RDONLY))"
    assert outcomes(powercut_library, tmp_path / "synced", synced) == [{**OLD, "A": "new A"}]


def test_moves_are_lost_from_the_last_backwards(powercut_library: Path, tmp_path: Path) -> None:
    left = outcomes(powercut_library, tmp_path, REPLACE_A_BY_C + "os.unlink('B')")
    assert {"A": "old A", "C": "new A"} not in left, "the unlink held, the rename before it not"
    assert len(left) == 3


def test_a_cut_of_what_was_not_watched_is_an_error(powercut_library: Path, tmp_path: Path) -> None:
    power = PowerCut(powercut_library, tmp_path / "data", tmp_path / "power")
    with pytest.raises(RuntimeError, match="nothing was synced"):
        power.cut(random.Random(0))


async def acked_writes_until_killed(engine: Engine, *, at_least: int) -> list[int]:
    """Numbers that the engine acknowledged to have added to its stream before a kill -9.

    Eight writers, and a rewrite of the append-only file in the midst of it.
    """
    acked: list[int] = []
    client = Redis(unix_socket_path=str(engine.socket), retry=Retry(NoBackoff(), 0))

    async def write(first: int) -> None:
        number = first
        while True:
            try:
                await client.xadd("stream", {"number": number})
            except (RedisError, OSError):
                return
            acked.append(number)
            number += 8

    async with asyncio.timeout(30), asyncio.TaskGroup() as writers:
        for first in range(8):
            writers.create_task(write(first))
        await until(lambda: len(acked) >= at_least // 2)
        await client.bgrewriteaof()
        await until(lambda: len(acked) >= at_least)
        await engine.kill()
    await client.aclose()
    return acked


async def numbers_in(engine: Engine) -> list[int]:
    async with Redis(unix_socket_path=str(engine.socket)) as client:
        entries = cast("list[tuple[bytes, dict[bytes, bytes]]]", await client.xrange("stream"))
    return [int(fields[b"number"]) for _, fields in entries]


async def lost_in_power_cuts(
    library: Path, folder: Path, *, appendfsync: str, cuts: int, rng: random.Random
) -> int:
    """How many acknowledged writes are gone after as many power cuts."""
    power = PowerCut(library, folder / "data", folder / "power")
    engine = await start_engine(
        folder / "data", settings={"appendfsync": appendfsync}, env=power.env
    )
    lost = 0
    try:
        for _ in range(cuts):
            acked = await acked_writes_until_killed(engine, at_least=rng.randint(500, 1_500))
            power.cut(rng)
            await engine.start()
            found = await numbers_in(engine)
            assert len(found) == len(set(found))
            lost += len(set(acked) - set(found))
            await engine.flush()
    finally:
        await engine.stop()
    return lost


async def test_a_power_cut_loses_nothing_acknowledged_with_fsync_always(
    powercut_library: Path, tmp_path: Path
) -> None:
    lost = await lost_in_power_cuts(
        powercut_library, tmp_path, appendfsync="always", cuts=5, rng=random.Random(1)
    )
    assert lost == 0


async def test_a_power_cut_loses_acknowledged_writes_with_fsync_every_second(
    powercut_library: Path, tmp_path: Path
) -> None:
    """The control: without it, the test above might cut nothing at all."""
    lost = await lost_in_power_cuts(
        powercut_library, tmp_path, appendfsync="everysec", cuts=3, rng=random.Random(2)
    )
    assert lost > 0

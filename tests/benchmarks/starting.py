"""Starts: of the service (G12), of the client's modules and its command line (G13).

All run from bytecode, as what is installed does, whatever this environment says of writing it.
"""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from tests.benchmarks.figures import Row, at_most, check
from tests.benchmarks.stage import Scale
from tests.support.engines import start_engine
from tests.support.service import SERVER

PATIENCE_SECONDS = 30.0
INDELIBLE = str(Path(sys.executable).with_name("indelible"))
TIMED_IMPORT = """
import time
began = time.process_time_ns()
import {}
print(time.process_time_ns() - began)
"""


async def service(scale: Scale) -> list[Row]:
    """On an empty folder that has been started once, so that neither side lays anything out."""
    with TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        environment = from_bytecode(folder / "bytecode")

        async def floor(number: int) -> float:
            began = time.perf_counter()
            importing = [sys.executable, "-c", "import aiohttp.web"]
            await asyncio.to_thread(run, importing, environment)
            engine = await start_engine(folder / "engine")
            took = time.perf_counter() - began
            await engine.stop()
            return took

        async def ours(number: int) -> float:
            return await asyncio.to_thread(start_to_ready, folder / "data", environment)

        await floor(-1)
        await ours(-1)
        pairs = await scale.in_turns("G12", floor, ours)
    return [
        Row(
            goal_id="G12",
            what="indelible-server all, start to ready",
            unit="ms",
            floor_name="import aiohttp.web, then the engine's start",
            floor=[took * 1e3 for took, _ in pairs],
            ours=[took * 1e3 for _, took in pairs],
            goal=at_most(1.5),
        )
    ]


def from_bytecode(folder: Path) -> Mapping[str, str]:
    """The environment of processes that keep their bytecode in `folder`, and find it there."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"PYTHONPYCACHEPREFIX": str(folder)}


def start_to_ready(data: Path, environment: Mapping[str, str]) -> float:
    """Seconds until the process says that it is ready; it is ended then.

    Raises:
        CheckFailed: it ended without being ready, or with another code than 0.
    """
    arguments = [*SERVER, "all", "--data", str(data), "--listen", "127.0.0.1:0"]
    began = time.perf_counter()
    took = 0.0
    with subprocess.Popen(
        arguments, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment
    ) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                if b'"api.ready"' in line:
                    took = time.perf_counter() - began
                    break
        finally:
            process.terminate()
            process.stderr.read()
    check(took > 0, "the service ended before it was ready")
    check(process.returncode == 0, f"the service ended with {process.returncode}")
    return took


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """`cpu_ms` is that of the process, its children included."""

    cpu_ms: float
    took_ms: float
    out: bytes


def run(arguments: Sequence[str], environment: Mapping[str, str]) -> Ran:
    """
    Raises:
        CheckFailed: it ended with another code than 0.
    """
    began = time.perf_counter()
    process = subprocess.Popen(
        arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=environment
    )
    assert process.stdout is not None
    out = process.stdout.read()
    process.stdout.close()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    check(process.returncode == 0, f"{arguments} ended with {process.returncode}")
    return Ran(
        cpu_ms=(usage.ru_utime + usage.ru_stime) * 1e3,
        took_ms=(time.perf_counter() - began) * 1e3,
        out=out,
    )


async def client(scale: Scale) -> list[Row]:
    """Short runs, so there are more of them; what Python compiles is there before the first."""
    pairs = scale.of(15, 3)
    with TemporaryDirectory(prefix="bench-") as bytecode:
        environment = from_bytecode(Path(bytecode))

        async def imported(name: str) -> float:
            ran = await asyncio.to_thread(
                run, [sys.executable, "-c", TIMED_IMPORT.format(name)], environment
            )
            return int(ran.out) / 1e6

        async def helped(*arguments: str) -> Ran:
            return await asyncio.to_thread(run, arguments, environment)

        await imported("aiohttp")
        await imported("indelible")
        await helped(INDELIBLE, "--help")
        imports = await scale.in_turns(
            "G13, import",
            lambda number: imported("aiohttp"),
            lambda number: imported("indelible"),
            pairs=pairs,
        )
        helps = await scale.in_turns(
            "G13, --help",
            lambda number: helped(sys.executable, "-c", "pass"),
            lambda number: helped(INDELIBLE, "--help"),
            pairs=pairs,
        )
        check(b"follow" in helps[0][1].out, "indelible --help does not list its commands")
    return [
        Row(
            goal_id="G13",
            what="import indelible: CPU",
            unit="ms",
            floor_name="import aiohttp",
            floor=[floor for floor, _ in imports],
            ours=[ours for _, ours in imports],
            goal=at_most(1.3),
        ),
        Row(
            goal_id="G13",
            what="indelible --help: CPU",
            unit="ms",
            floor_name="a bare Python",
            floor=[floor.cpu_ms for floor, _ in helps],
            ours=[ours.cpu_ms for _, ours in helps],
            goal=at_most(15),
            beside={"took_ms": median(ours.took_ms for _, ours in helps)},
        ),
    ]

"""The fuzz targets: on seeds and mutants, shortly under coverage, a million runs in torture."""

import random
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]
SHORT_RUNS = 5_000
RUNS = 1_000_000
MUTANTS = 3_000
needs_atheris = pytest.mark.skipif(
    find_spec("atheris") is None, reason="atheris is not installed: no wheel for this platform"
)


def fuzz(target: str, runs: int, folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "tests.fuzz.run", target, str(runs), str(folder / "corpus")],
        capture_output=True,
        text=True,
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
    )


def executed(done: "subprocess.CompletedProcess[str]") -> int:
    """It ends its last batch of mutants, so it may be some more than asked for."""
    found = re.search(r"number_of_executed_units: +(\d+)", done.stderr)
    assert found, done.stderr[-3_000:]
    return int(found[1])


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_their_mutants_fail_no_target(name: str) -> None:
    known = seeds(name)
    assert known
    for seed in known:
        TARGETS[name](seed)
    rng = random.Random(1)
    for _ in range(MUTANTS):
        mutant = bytearray(rng.choice(known))
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(mutant) + 1)
            mutant[at : at + rng.randint(0, 2)] = rng.randbytes(rng.randint(0, 2))
        TARGETS[name](bytes(mutant))


@needs_atheris
def test_a_short_fuzz_of_all_targets_finds_nothing(tmp_path: Path) -> None:
    done = fuzz("all", SHORT_RUNS, tmp_path)
    assert done.returncode == 0, done.stderr[-3_000:]
    assert executed(done) >= SHORT_RUNS


@needs_atheris
def test_a_fault_is_found_and_kept(tmp_path: Path) -> None:
    done = fuzz("planted", 1_000_000, tmp_path)
    assert done.returncode != 0
    assert "RuntimeError: found" in done.stdout + done.stderr
    [crash] = tmp_path.glob("crash-*")
    assert crash.read_bytes().startswith(b"!?")


@pytest.mark.torture
@needs_atheris
@pytest.mark.parametrize("name", TARGETS)
def test_a_million_runs_find_nothing(name: str, tmp_path: Path) -> None:
    done = fuzz(name, RUNS, tmp_path)
    assert done.returncode == 0, done.stderr[-3_000:]
    assert executed(done) >= RUNS

"""A million entries into a log and out of it again, killed on the way: *torture*."""

import random
import re
import signal
import time
from itertools import zip_longest
from pathlib import Path

import psutil
import pytest
from indelible import Client
from indelible.transferring import Export, Heading
from indelible.transferring.exports import Draft

from tests.cli.conftest import process, profile_of_new_tenant
from tests.support.service import StartService

ENTRIES = 1_000_000
KILLS = 3
MAX_RSS_MIB = 256
GIVE_UP_SECONDS = 1_500.0


class Run:
    """One command as a process: its greatest memory, and how far it said it was."""

    def __init__(self, arguments: list[str], profile: Path) -> None:
        self._process = process(arguments, profile)
        self._status = psutil.Process(self._process.pid)
        self.rss_mib = 0.0

    def watch(self, seconds: float) -> int:
        """Its exit code, if it ended within that time; it is killed otherwise, by SIGKILL."""
        deadline = time.monotonic() + seconds
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                self.rss_mib = max(self.rss_mib, self._status.memory_info().rss / 2**20)
            except psutil.NoSuchProcess:
                break
            time.sleep(0.1)
        self._process.kill()
        self.out, self.err = self._process.communicate()
        return self._process.returncode


def killed_on_the_way(arguments: list[str], profile: Path, seconds: float) -> float:
    """Runs the command to its end, through KILLS kills; its greatest memory in MiB."""
    rng = random.Random(7)
    began = time.monotonic()
    runs = []
    for _ in range(KILLS):
        runs.append(Run(arguments, profile))
        ended = runs[-1].watch(rng.uniform(0.5, 1.5) * seconds)
        assert ended == -signal.SIGKILL, runs[-1].out + runs[-1].err
        print(f"killed at {runs[-1].err.splitlines()[-1:]}")
    runs.append(Run(arguments, profile))
    assert runs[-1].watch(GIVE_UP_SECONDS) == 0, runs[-1].err
    print(runs[-1].out.strip(), f"{time.monotonic() - began:.0f} s with {KILLS} kills")
    assert "were there already" in runs[-1].out
    lines = [line for run in runs for line in run.err.splitlines()]
    for line in lines:
        print(line)
    moved = [line.split(" of ")[0] for line in lines if line.startswith(arguments[0])]
    done = [int(re.sub(r"\D", "", text)) for text in moved]
    assert done == sorted(set(done))
    assert len(done) > 1
    return max(run.rss_mib for run in runs)


@pytest.mark.torture
@pytest.mark.timeout(3_000)
def test_a_million_entries_go_in_and_out_through_kills_in_bounded_memory(
    start_service: StartService, tmp_path: Path
) -> None:
    service = start_service("all", "--data", str(tmp_path / "data"))
    profile = profile_of_new_tenant(service, tmp_path)
    source, back = tmp_path / "source.jsonl", tmp_path / "back.jsonl"
    heading = Heading(
        kind="entries",
        name="million",
        group="",
        log_id="00" * 32,
        key_mode="string",
        value_mode="json",
        version=1,
    )
    with source.open("w+b") as file:
        draft = Draft(file, heading)
        for n in range(ENTRIES):
            draft.add({"key": f"user-{n:07d}", "value": {"n": n, "é": "x" * 20}, "version": 1})
        draft.end()
    server = psutil.Process(service.pid)

    rss = killed_on_the_way(["import", str(source)], profile, 15.0)
    print(f"import: {rss:.0f} MiB; API: {server.memory_info().rss / 2**20:.0f} MiB")
    assert rss < MAX_RSS_MIB
    with Client(profile) as client:
        found = client.log("million").describe()
    assert found.entries == ENTRIES
    commits = found.version

    rss = killed_on_the_way(["export", "million", str(back)], profile, 15.0)
    print(f"export: {rss:.0f} MiB; API: {server.memory_info().rss / 2**20:.0f} MiB")
    assert rss < MAX_RSS_MIB
    pairs = zip_longest(Export(source).rows(), Export(back).rows())
    for ours, theirs in pairs:
        assert (ours["key"], ours["value"]) == (theirs["key"], theirs["value"])
    assert commits <= 1 + ENTRIES // 3_000  # full ones, each there once

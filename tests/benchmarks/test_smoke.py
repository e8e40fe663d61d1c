"""The benchmarks themselves: they run, they find wrong answers, they leave nothing behind.

No figure is judged here: that is for a machine that does nothing else.
"""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.benchmarks import profiles, suite
from tests.benchmarks.closed_loop import Load
from tests.benchmarks.figures import CheckFailed, Row, at_least, at_most, check, table, to_plain
from tests.benchmarks.stage import Scale, stage
from tests.benchmarks.suite import BENCHMARKS, Benchmark
from tests.benchmarks.updates import check_updates, noop_lanes, opaque_lane
from tests.benchmarks.workers import Worker
from tests.support.polling import until

ROOT = Path(__file__).parents[2]
TINY = Scale(pairs=1, seconds=0.1, quick=True)
SAMPLES = {"median", "low", "high", "samples"}


async def test_updates_and_wakes_run_and_their_document_has_the_promised_shape() -> None:
    chosen = [one for one in BENCHMARKS if one.goal_id in ("G1", "G4")]
    rows = await suite.run(TINY, chosen)
    document = json.loads(json.dumps(suite.document(rows, TINY)))
    assert document["form"] == suite.FORM
    assert [row["goal"] for row in document["rows"]] == ["G1", "G1", "G4", "G4"]
    for row in document["rows"]:
        assert row["failed"] is None
        assert set(row["floor"]) == SAMPLES | {"name"}
        assert set(row["ours"]) == set(row["ratio"]) == SAMPLES
        assert row["ratio"]["samples"] == [row["ours"]["median"] / row["floor"]["median"]]
        assert row["met"] in (True, False)
        assert row["peers"] == {}
    assert len(table(rows).splitlines()) == 2 + len(rows)


async def test_fast_answers_that_store_nothing_fail_the_check() -> None:
    async with stage() as stand:
        noop = await stand.floor("noop")
        logs = await stand.make_opaque_logs(2, "wrong")
        lanes = [opaque_lane([log], 0, stand.apikey) for log in logs]
        pids = {"server": noop.pid}
        load = Load(port=noop.port, lanes=noop_lanes(lanes), seconds=0.1, pids=pids, repeated=True)
        answers = await stand.load(load)
        assert answers.count > 0
        with pytest.raises(CheckFailed):
            await check_updates(stand, answers, [[log] for log in logs], [0, 0])


async def test_a_benchmark_whose_check_fails_is_a_failed_row_and_the_others_go_on() -> None:
    async def wrong(scale: Scale) -> list[Row]:
        check(False, "2 versions are missing")
        return []

    async def right(scale: Scale) -> list[Row]:
        return [Row(goal_id="G0", what="right", ours=[1.0], goal=at_least(1, of="ours"))]

    chosen = [
        Benchmark(goal_id="G0", what="wrong", measure=wrong),
        Benchmark(goal_id="G0", what="right", measure=right),
    ]
    failed, met = await suite.run(TINY, chosen)
    assert (failed.failed, failed.met) == ("2 versions are missing", False)
    assert (met.failed, met.met) == (None, True)
    assert "FAILED G0 wrong: 2 versions are missing" in table([failed, met])


async def test_what_a_worker_is_asked_fails_where_it_was_asked() -> None:
    worker = await Worker.start()
    try:
        with pytest.raises(CheckFailed, match="one is not two"):
            await worker.run(check, False, "one is not two")
        with pytest.raises(RuntimeError, match="TypeError"):
            await worker.run(check)
        assert await worker.run(len, "still there") == 11
    finally:
        await worker.stop()
    assert not psutil.pid_exists(worker.pid)


async def test_an_interrupt_ends_everything_that_was_started(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.benchmarks", "--quick", "--only", "G1"]
    with (tmp_path / "progress").open("wb") as errors:
        process = subprocess.Popen(
            [*command, "--out", str(tmp_path)],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
        )
    try:
        told = tmp_path / "progress"
        await until(lambda: "pair 1" in told.read_text(), within_seconds=30, what="a first pair")
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) >= 4  # engine, guardian, server, worker, floor
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        await until(lambda: process.poll() is not None, within_seconds=20, what="its end")
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
    assert process.returncode == 130
    assert not [child for child in children if child.is_running()]
    assert not (tmp_path / "figures.json").exists()


def test_a_ratio_is_taken_pair_by_pair_and_judged_by_its_median() -> None:
    row = Row(
        goal_id="G0", what="x", floor=[1.0, 2.0, 4.0], ours=[3.0, 4.0, 4.0], goal=at_most(2.0)
    )
    assert row.ratios == [3.0, 2.0, 1.0]
    assert row.met is True
    assert to_plain(row)["ratio"]["high"] == 3.0
    assert Row(goal_id="G0", what="x", ours=[1.0]).met is None


def test_a_function_weighs_what_it_does_itself_and_once_with_its_calls() -> None:
    weights = profiles.weigh("main;walk;walk;read 3\nmain;walk 1\n")
    assert [(one.function, one.own, one.total) for one in weights] == [
        ("read", 0.75, 0.75),
        ("walk", 0.25, 1.0),
        ("main", 0.0, 1.0),
    ]


def test_every_goal_that_is_measured_stands_in_the_readme() -> None:
    text = (Path(__file__).parent / "README.md").read_text()
    listed = re.findall(r"^\| ([A-Z]+\d*) \|", text, re.MULTILINE)
    assert listed == [one.goal_id for one in BENCHMARKS]

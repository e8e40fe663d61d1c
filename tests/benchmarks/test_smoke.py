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
from xml.etree import ElementTree

import psutil
import pytest
from indelible_protocol.ids import LogId

from tests.benchmarks import beside, plots, profiles, suite
from tests.benchmarks.__main__ import write_page
from tests.benchmarks.closed_loop import Load
from tests.benchmarks.figures import (
    CheckFailed,
    Point,
    Row,
    at_least,
    at_most,
    check,
    table,
    to_plain,
)
from tests.benchmarks.page import page
from tests.benchmarks.stage import Scale, SharedStage, stage
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
    document = json.loads(json.dumps(suite.document(rows, TINY, 0.0)))
    assert document["form"] == suite.FORM
    assert [row["goal"] for row in document["rows"]] == ["G1"] * 2 + ["G4"] * 4
    for row in document["rows"]:
        assert row["failed"] is None
        assert set(row["floor"]) == SAMPLES | {"name"}
        assert set(row["ours"]) == set(row["ratio"]) == SAMPLES
        assert row["ratio"]["samples"] == [row["ours"]["median"] / row["floor"]["median"]]
        assert row["met"] in (True, False)
        assert row["peers"] == {}
    assert len(table(rows).splitlines()) == 2 + len(rows)
    drawn = page(document)
    assert drawn.count("<tr>") == 1 + len(rows)
    assert "<script" not in drawn


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


async def test_benchmarks_share_a_stage_with_logs_of_their_own_until_one_fails_on_it() -> None:
    seen: list[tuple[int, LogId]] = []

    async def measure(scale: Scale) -> list[Row]:
        async with stage() as stand:
            (log_id,) = await stand.make_opaque_logs(1, "same")
            seen.append((stand.api.pid, log_id))
        check(len(seen) != 2, "the second goes wrong")
        return []

    async with SharedStage() as shared:
        took: dict[str, float] = {}
        chosen = [Benchmark(goal_id=goal, what="x", measure=measure) for goal in ("A", "B", "C")]
        (failed,) = await suite.run(TINY, chosen, shared, took)
        (first, log), (second, other), (third, _) = seen
        assert failed.goal_id == "B"
        assert first == second != third
        assert log != other
        assert not psutil.pid_exists(second)
        assert list(took) == ["A", "B", "C"]
    assert not psutil.pid_exists(third)


async def test_a_log_is_grown_to_as_many_versions_as_were_asked_for() -> None:
    async with stage() as stand:
        (log_id,) = await stand.make_opaque_logs(1, "grown")
        assert await stand.grow(log_id, 30, keys=4, value_bytes=20, batch=2) == 30
        assert await stand.versions_stored([log_id]) == [30]
        with pytest.raises(CheckFailed, match="5 keys in batches of 2"):
            await stand.grow(log_id, 1, keys=5, value_bytes=20, batch=2)


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


def test_the_page_has_a_curve_for_what_was_measured_at_several_sizes_and_says_what_failed() -> None:
    def at(size: float, cost: float) -> Row:
        point = Point(curve="a read", axis="versions", size=size, floor_size=10)
        floor, goal = [1.0, 2.0, 3.0], at_most(1.2)
        return Row(
            goal_id="G7", what="a <read>", floor=floor, ours=[cost] * 3, goal=goal, point=point
        )

    rows = [
        at(1e6, 4.0),
        at(1e3, 2.0),
        Row(goal_id="G8", what="a list", failed="3 & 4 are missing"),
    ]
    figures = {**suite.document(rows, TINY, 0.0), "profiles": {"commit": [], "wake": "no py-spy"}}
    other = Row(goal_id="G1", what="x", floor=[1.0], ours=[2.0], peers={"another": [4.0]})
    drawn = page(figures, suite.document([other], TINY, 0.0))
    (chart,) = plots.charts(figures["rows"])
    (curve,) = chart.curves
    assert [(dot.size, dot.cost) for dot in curve.dots] == [(10, 2.0), (1e3, 2.0), (1e6, 4.0)]
    assert drawn.count('<svg class="chart"') == 1
    assert drawn.count("<circle") == 3 + 2  # the curve's, and a mark for each row with a goal
    assert "a &lt;read&gt;" in drawn
    assert "3 &amp; 4 are missing" in drawn
    assert 'href="profile-commit.svg"' in drawn
    assert "wake path: no py-spy" in drawn
    assert re.search(r"another</td>.*0\.50</td>", drawn)
    ElementTree.fromstring(plots.drawn(chart))


def test_the_page_is_written_of_what_there_is(tmp_path: Path) -> None:
    assert "</html>" in write_page(tmp_path).read_text()
    (tmp_path / "figures.json").write_text(json.dumps(suite.document([], TINY, 0.0)))
    assert "A quick run" in write_page(tmp_path).read_text()


def test_systems_that_are_not_installed_are_reported_absent_with_how_to_install_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    told = [row.what for row in beside.absent(tmp_path)]
    for system in ("etcd is absent: there is no etcd on PATH", "Durable Streams is absent"):
        assert [what for what in told if what.startswith(system) and "install" in what]


@pytest.mark.torture
async def test_what_is_installed_is_measured_beside_ours_and_everything_is_ended() -> None:
    before = set(psutil.Process().children(recursive=True))
    rows = await suite.run(TINY, [suite.beside_peers(ROOT / ".bench" / "peers")])
    assert not [row.failed for row in rows if row.failed]
    assert {row.goal_id for row in rows} >= {"PEERS", "G4", "G11"}
    assert not set(psutil.Process().children(recursive=True)) - before


def test_every_goal_that_is_measured_stands_in_the_readme() -> None:
    text = (Path(__file__).parent / "README.md").read_text()
    listed = re.findall(r"^\| ([A-Z]+\d*) \|", text, re.MULTILINE)
    assert listed == [one.goal_id for one in BENCHMARKS]

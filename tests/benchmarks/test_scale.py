"""The page on scale: its second table follows from its first, and both from a run's figures."""

from dataclasses import asdict, fields, replace
from typing import Any

import pytest

from tests.benchmarks import scale
from tests.benchmarks.scale import PAGE, SOURCES, Inputs

ROUND = Inputs(**{field.name: 100.0 for field in fields(Inputs)})


def test_what_the_page_says_is_needed_follows_from_the_inputs_that_it_names() -> None:
    page = PAGE.read_text()
    assert scale.between(page, "needs") == scale.needs_table(scale.inputs_on(page))


def test_the_page_names_the_run_and_every_input_once() -> None:
    page = PAGE.read_text()
    assert scale.between(page, "inputs").startswith("Inputs of the run 20")
    run = scale.between(page, "inputs").splitlines()[0].removeprefix("Inputs of the run ")[:-1]
    assert scale.between(page, "inputs") == scale.inputs_table(scale.inputs_on(page), run)
    assert len(page.splitlines()) <= 120


def test_inputs_come_from_the_rows_of_a_run_and_from_nowhere_else() -> None:
    rows: list[dict[str, Any]] = [
        {
            "goal": source["goal"],
            "what": f"{source['row']}, and so on",
            "ours": {"median": 10.0 + number},
            "beside": {source["beside"]: 20.0 + number} if source["beside"] else {},
        }
        for number, source in enumerate(SOURCES.values())
    ]
    taken = asdict(scale.inputs_of({"rows": rows}))
    for number, (name, source) in enumerate(SOURCES.items()):
        if source["beside"]:
            assert taken[name] == 20.0 + number
    assert taken["api_single_us"] == 10.0
    with pytest.raises(LookupError, match="no row of G1 begins with 'opaque updates'"):
        scale.inputs_of({"rows": rows[2:]})


def test_loads_grow_with_what_they_are_made_of() -> None:
    logs, *_, commits, _, _, _ = before = scale.loads(ROUND)
    assert round(commits.api_cores) == 100  # 10⁶ a second of 100 µs each
    assert round(logs.store_gib * 2**30) == 100 * 1_000_000
    dearer = scale.loads(replace(ROUND, api_single_us=50.0, api_commit_us=75.0))
    assert round(dearer[4].api_cores) == 75  # 50 µs, times what a cluster adds
    assert dearer[0] == before[0]


def test_what_binds_is_what_asks_for_the_most_nodes() -> None:
    slow = scale.Load(what="x", api_cores=1_000, store_cores=10, store_gib=1)
    assert slow.binds == "API cores"
    assert scale.Load(what="x", store_gib=1_000, store_cores=10).binds == "store memory"
    assert scale.Load(what="x", disk_mb=10_000, store_cores=10).binds == "store disk"

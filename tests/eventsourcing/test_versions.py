"""Which versions an originator has, as runs: the same as a set of them, whatever they are."""

from hypothesis import given
from hypothesis import strategies as st
from indelible.eventsourcing.entries import (
    Runs,
    holds,
    marked,
    runs_of,
    runs_value,
    selected,
    with_version,
)

VERSIONS = st.lists(st.integers(min_value=-3, max_value=40), unique=True)
BOUND = st.none() | st.integers(min_value=-5, max_value=42)


def runs_with(versions: list[int]) -> Runs:
    runs: Runs = []
    for version in versions:
        assert not holds(runs, version)
        runs = with_version(runs, version)
        assert holds(runs, version)
    return runs


@given(VERSIONS, BOUND, BOUND, st.booleans())
def test_runs_select_what_a_set_would(
    versions: list[int], gt: int | None, lte: int | None, desc: bool
) -> None:
    runs = runs_of(runs_value(runs_with(versions)))
    expected = [
        version
        for version in sorted(versions, reverse=desc)
        if (gt is None or version > gt) and (lte is None or version <= lte)
    ]
    assert list(selected(runs, gt=gt, lte=lte, desc=desc)) == expected


def test_an_aggregate_of_any_length_is_one_run() -> None:
    assert runs_value(runs_with(list(range(1, 1_000)))) == [[1, 999, 1]]


def test_snapshots_taken_every_so_often_are_one_run() -> None:
    assert runs_value(runs_with(list(range(50, 5_000, 50)))) == [[50, 4_950, 50]]


@given(st.lists(st.integers(min_value=1, max_value=250), min_size=1))
def test_every_hundredth_notification_is_marked_once(sizes: list[int]) -> None:
    last, marks = 0, []
    for size in sizes:
        marks += marked(last + 1, last + size)
        last += size
    assert marks == [("mark", n) for n in range(1, last // 100 + 1)]

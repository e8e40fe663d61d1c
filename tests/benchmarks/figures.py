"""What a benchmark says: rows of paired samples, their goals, the table and the JSON of them.

Pure: measures nothing, prints nothing.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

TARGET = {"at least": "≥", "at most": "≤"}


class CheckFailed(Exception):
    """The answers of a run were not right: its figures count for nothing."""


def check(holds: bool, otherwise: str) -> None:
    """
    Raises:
        CheckFailed: with the sentence `otherwise`.
    """
    if not holds:
        raise CheckFailed(otherwise)


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A bound on the ratio of ours to the floor, or on ours alone."""

    bound: Literal["at least", "at most"]
    limit: float
    of: Literal["ratio", "ours"] = "ratio"

    def is_met(self, value: float) -> bool:
        return value >= self.limit if self.bound == "at least" else value <= self.limit

    def __str__(self) -> str:
        return f"{TARGET[self.bound]} {self.limit:g}" + (" itself" if self.of == "ours" else "")


def at_least(limit: float, of: Literal["ratio", "ours"] = "ratio") -> Goal:
    return Goal(bound="at least", limit=limit, of=of)


def at_most(limit: float, of: Literal["ratio", "ours"] = "ratio") -> Goal:
    return Goal(bound="at most", limit=limit, of=of)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Median, least and most of some samples."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> "Spread":
        return cls(median=statistics.median(samples), low=min(samples), high=max(samples))


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """Where a row lies on a curve of cost against size: ours at `size`, the floor at
    `floor_size`, in `axis` (logs, versions). Rows of one goal and `curve` make one curve."""

    curve: str
    axis: str
    size: float
    floor_size: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table.

    `floor` and `ours` are samples in `unit`, measured in turns, so that sample i of one belongs
    to sample i of the other; the ratio is taken pair by pair. `peers` are samples of other
    systems in the same place. `beside` are figures without a goal. A row that `failed` has a
    reason and counts for nothing.
    """

    goal_id: str
    what: str
    unit: str = ""
    floor_name: str = ""
    floor: Sequence[float] = ()
    ours: Sequence[float] = ()
    goal: Goal | None = None
    beside: Mapping[str, float | str] = field(default_factory=dict)
    peers: Mapping[str, Sequence[float]] = field(default_factory=dict)
    point: Point | None = None
    failed: str | None = None

    @property
    def ratios(self) -> list[float]:
        if not self.floor:
            return []
        return [mine / least for mine, least in zip(self.ours, self.floor, strict=True)]

    @property
    def met(self) -> bool | None:
        """None where there is no goal, or nothing to judge it by."""
        samples = self.ratios if self.goal and self.goal.of == "ratio" else self.ours
        if self.failed is not None:
            return False
        if self.goal is None or not samples:
            return None
        return self.goal.is_met(statistics.median(samples))


def to_plain(row: Row) -> dict[str, Any]:
    """The row as JSON has it."""
    goal = row.goal
    return {
        "goal": row.goal_id,
        "what": row.what,
        "unit": row.unit,
        "floor": {"name": row.floor_name, **_samples(row.floor)} if row.floor else None,
        "ours": _samples(row.ours) if row.ours else None,
        "ratio": _samples(row.ratios) if row.ratios else None,
        "target": goal and {"bound": goal.bound, "limit": goal.limit, "of": goal.of},
        "met": row.met,
        "failed": row.failed,
        "peers": {name: _samples(samples) for name, samples in row.peers.items()},
        "beside": dict(row.beside),
        "point": row.point and asdict(row.point),
    }


def _samples(samples: Sequence[float]) -> dict[str, Any]:
    spread = Spread.of(samples)
    return {
        "median": spread.median,
        "low": spread.low,
        "high": spread.high,
        "samples": list(samples),
    }


def table(rows: Sequence[Row]) -> str:
    """For people: a line for each row, aligned; failures and what stands beside below it."""
    lines: list[tuple[str, ...]] = [
        ("goal", "what", "floor", "ours", "ratio (least–most)", "goal is", "met")
    ]
    for row in rows:
        lines.append(
            (
                row.goal_id,
                row.what + (f", {row.unit}" if row.unit else ""),
                short(Spread.of(row.floor).median) if row.floor else "–",
                short(Spread.of(row.ours).median) if row.ours else "–",
                _spread(row.ratios),
                str(row.goal) if row.goal else "–",
                "FAILED" if row.failed else {True: "yes", False: "no", None: "–"}[row.met],
            )
        )
        lines += [_peer_line(row, name, samples) for name, samples in row.peers.items()]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    drawn = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    drawn.insert(1, "  ".join("-" * width for width in widths))
    for row in rows:
        if row.failed:
            drawn.append(f"FAILED {row.goal_id} {row.what}: {row.failed}")
    return "\n".join(drawn)


def _peer_line(row: Row, name: str, samples: Sequence[float]) -> tuple[str, ...]:
    """Another system in the floor's place."""
    ratios = [ours / peer for ours, peer in zip(row.ours, samples, strict=True)]
    return ("", f"  {name}", short(Spread.of(samples).median), "", _spread(ratios), "–", "–")


def _spread(samples: Sequence[float]) -> str:
    if not samples:
        return "–"
    spread = Spread.of(samples)
    return f"{spread.median:.2f} ({spread.low:.2f}–{spread.high:.2f})"


def short(value: float) -> str:
    """Three digits that count, with thousands apart."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def percentile(sorted_samples: Sequence[float], share: float) -> float:
    """The sample below which `share` (0 to 1) of them lie."""
    return sorted_samples[min(len(sorted_samples) - 1, int(share * len(sorted_samples)))]

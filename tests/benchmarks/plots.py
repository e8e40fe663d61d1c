"""Curves of cost against size, and the mark of a figure beside its goal, as SVG without scripts.

Pure: takes what the JSON document of a run holds. Costs start at nothing unless they are too far
apart for that; sizes are logarithmic.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

WIDTH, HEIGHT = 460, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 14, 30, 44
_FAR_APART = 30.0  # costs: over that ratio their axis is logarithmic
_TICKS = 4
_MARK_WIDTH, _MARK_HEIGHT = 150, 18
_MARK_DECADES = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """A cost and its spread, at a size."""

    size: float
    cost: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    name: str
    dots: Sequence[Dot]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """Curves of one goal over one kind of size."""

    goal_id: str
    axis: str
    unit: str
    curves: Sequence[Curve]


def charts(rows: Sequence[dict[str, Any]]) -> list[Chart]:
    """Of all rows that lie on a curve, in the order in which they come."""
    found: dict[tuple[str, str, str], dict[str, dict[float, Dot]]] = {}
    for row in rows:
        point, ours, floor = row.get("point"), row["ours"], row["floor"]
        if not point or not ours:
            continue
        curves = found.setdefault((row["goal"], point["axis"], row["unit"]), {})
        dots = curves.setdefault(point["curve"], {})
        dots[point["size"]] = _dot(point["size"], ours)
        if floor and point["floor_size"] is not None:
            dots[point["floor_size"]] = _dot(point["floor_size"], floor)
    return [
        Chart(
            goal_id=goal_id,
            axis=axis,
            unit=unit,
            curves=[
                Curve(name=name, dots=[dots[size] for size in sorted(dots)])
                for name, dots in curves.items()
            ],
        )
        for (goal_id, axis, unit), curves in found.items()
    ]


def _dot(size: float, samples: dict[str, Any]) -> Dot:
    return Dot(size=size, cost=samples["median"], low=samples["low"], high=samples["high"])


@dataclass(frozen=True, slots=True)
class _Scale:
    """From what is measured to where it is drawn."""

    least: float
    most: float
    start: float
    end: float
    logarithmic: bool

    def at(self, value: float) -> float:
        low, high, here = self.least, self.most, value
        if self.logarithmic:
            low, high, here = (math.log10(max(each, 1e-12)) for each in (low, high, here))
        share = (here - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.end - self.start)

    @property
    def ticks(self) -> list[float]:
        if self.logarithmic:
            first, last = math.floor(math.log10(self.least)), math.ceil(math.log10(self.most))
            return [
                10.0**power
                for power in range(first, last + 1)
                if self.least <= 10.0**power <= self.most
            ]
        step = _round_step((self.most - self.least) / _TICKS)
        count = int((self.most - self.least) / step + 1e-9)
        return [self.least + number * step for number in range(count + 1)]


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(each * power for each in (1, 2, 5, 10) if each * power >= step * 0.999)


def drawn(chart: Chart) -> str:
    dots = [dot for curve in chart.curves for dot in curve.dots]
    sizes = [dot.size for dot in dots]
    least, most = min(dot.low for dot in dots), max(dot.high for dot in dots)
    far = least > 0 and most / least > _FAR_APART
    costs = _Scale(
        least * 0.8 if far else 0.0, most * 1.1 or 1.0, HEIGHT - _BOTTOM, _TOP, logarithmic=far
    )
    across = _Scale(min(sizes), max(sizes), _LEFT + 10, WIDTH - _RIGHT - 10, logarithmic=True)
    title = f"{chart.goal_id}: cost by {chart.axis}, {chart.unit}"
    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(title)}">',
        f'<text class="title" x="{_LEFT}" y="18">{escape(title)}</text>',
        *_grid(costs, across, sorted(set(sizes))),
        f'<text class="tick" text-anchor="end" x="{WIDTH - _RIGHT}" y="{HEIGHT - 6}">'
        f"{escape(chart.axis)}</text>",
    ]
    for number, curve in enumerate(chart.curves):
        parts += _curve(curve, number, costs, across)
    return "\n".join([*parts, "</svg>"])


def _grid(costs: _Scale, across: _Scale, sizes: Sequence[float]) -> list[str]:
    parts = []
    for tick in costs.ticks:
        y = costs.at(tick)
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="tick" text-anchor="end" x="{_LEFT - 6}" y="{y + 4:.1f}">'
            f"{tick:,.6g}</text>"
        )
    for size in sizes:
        x = across.at(size)
        parts.append(
            f'<text class="tick" text-anchor="middle" x="{x:.1f}" y="{HEIGHT - _BOTTOM + 18}">'
            f"{size:,.0f}</text>"
        )
    return parts


def _curve(curve: Curve, number: int, costs: _Scale, across: _Scale) -> list[str]:
    places = [(across.at(dot.size), costs.at(dot.cost), dot) for dot in curve.dots]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in places)
    parts = [f'<g class="curve-{number % 6}"><polyline points="{line}"/>']
    for x, y, dot in places:
        said = f"{curve.name}, {dot.size:,.0f}: {dot.cost:,.4g} ({dot.low:,.4g}–{dot.high:,.4g})"
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{costs.at(dot.low):.1f}" '
            f'y2="{costs.at(dot.high):.1f}"/>'
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4"><title>{escape(said)}</title></circle>'
        )
    parts.append("</g>")
    return parts


def mark(samples: dict[str, Any], limit: float, *, met: bool) -> str:
    """The figure's median and spread on a logarithmic line, the goal in its middle."""

    def at(value: float) -> float:
        decades = math.log10(max(value, 1e-9) / limit)
        share = max(-1.0, min(1.0, decades / _MARK_DECADES))
        return _MARK_WIDTH / 2 + share * (_MARK_WIDTH / 2 - 6)

    middle, y = _MARK_WIDTH / 2, _MARK_HEIGHT / 2
    low, here, high = at(samples["low"]), at(samples["median"]), at(samples["high"])
    return (
        f'<svg class="mark" viewBox="0 0 {_MARK_WIDTH} {_MARK_HEIGHT}" aria-hidden="true">'
        f'<line class="grid" x1="0" x2="{_MARK_WIDTH}" y1="{y}" y2="{y}"/>'
        f'<line class="goal" x1="{middle}" x2="{middle}" y1="1" y2="{_MARK_HEIGHT - 1}"/>'
        f'<g class="{"met" if met else "missed"}">'
        f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}"/>'
        f'<circle cx="{here:.1f}" cy="{y}" r="4"/></g></svg>'
    )

"""The figures of a run as one page that any browser opens: no scripts, nothing loaded.

Pure: makes text of the JSON documents of a run and of a run beside other systems.
"""

from collections.abc import Sequence
from html import escape
from statistics import median
from typing import Any

from tests.benchmarks import plots
from tests.benchmarks.figures import TARGET, short

Document = dict[str, Any]
_PLOTTED = ("G7", "G8", "G14")
_STYLE = """
:root { color-scheme: light dark; --ink: #1c2127; --soft: #5f6b76; --line: #d9dee3;
  --paper: #fff; --met: #1a7f4b; --missed: #c2410c; --failed: #b91c1c; --shade: #f5f7f9;
  --c0: #2563ae; --c1: #c2570c; --c2: #1a7f4b; --c3: #8b3fa0; --c4: #806300; --c5: #b0275f; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ec; --soft: #9aa5b0; --line: #3a424b;
  --paper: #14181c; --met: #4ec98a; --missed: #f59657; --failed: #f87171; --shade: #1d2329;
  --c0: #7ab3f0; --c1: #f0a26a; --c2: #6fd3a0; --c3: #cf9be0; --c4: #d8bd55; --c5: #f08bb2; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 76rem; margin: 2rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.5rem; margin-bottom: .25rem; } h2 { font-size: 1.15rem; margin-top: 2.25rem; }
p { margin: .25rem 0 .75rem; color: var(--soft); max-width: 48rem; } a { color: var(--c0); }
.charts { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: 0; flex: 1 1 26rem; max-width: 36rem; border: 1px solid var(--line);
  border-radius: 6px; padding: .5rem; }
figcaption { font-size: 13px; } figcaption span { margin-right: 1.25rem; white-space: nowrap; }
svg { display: block; } .chart { width: 100%; height: auto; } .mark { width: 150px; height: 18px; }
svg text { fill: var(--ink); font: 12px system-ui, sans-serif; } .chart .tick { fill: var(--soft); }
.chart .title { font-weight: 600; font-size: 13px; } .grid { stroke: var(--line); }
.goal { stroke: var(--soft); stroke-width: 2; } polyline { fill: none; }
g line, g polyline { stroke: currentColor; stroke-width: 2; } g circle { fill: currentColor; }
.curve-0 { color: var(--c0); } .curve-1 { color: var(--c1); } .curve-2 { color: var(--c2); }
.curve-3 { color: var(--c3); } .curve-4 { color: var(--c4); } .curve-5 { color: var(--c5); }
.table { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: 14px; }
th { text-align: left; color: var(--soft); font-weight: 600; }
td, th { padding: .3rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
td small { display: block; color: var(--soft); }
tr.peer td { border-bottom: none; color: var(--soft); padding: 0 .6rem; }
.met { color: var(--met); } .missed { color: var(--missed); }
.failed { color: var(--failed); font-weight: 600; }
"""


def page(figures: Document | None, peers: Document | None = None) -> str:
    """`figures` are those of a run, `peers` those of a run beside other systems; either may
    be absent."""
    made = [document for document in (figures, peers) if document]
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>Indelible: figures</title>\n<style>{_STYLE}</style>\n</head>\n<body>",
        "<h1>Indelible: figures</h1>",
        *(_about(document) for document in made[:1]),
    ]
    if figures:
        parts += [*_curves(figures["rows"]), *_profiles(figures)]
        parts += ["<h2>Goals</h2>", *_goals(figures["rows"])]
    if peers:
        parts += ["<h2>Beside other systems</h2>", _about(peers), *_goals(peers["rows"])]
    return "\n".join([*parts, "</body>\n</html>\n"])


def _about(document: Document) -> str:
    machine = document["machine"]
    kind = "A quick run, its figures are rough: " if document["quick"] else ""
    return (
        f"<p>{kind}{escape(document['made_at'])}, {machine['cores']} cores, "
        f"Python {escape(machine['python'])}, {escape(machine['system'])}; "
        f"{document['pairs']} pairs of {document['sample_seconds']:g} s, "
        f"{document['took_seconds']:.0f} s in all; load before it "
        f"{machine['load_before']:.1f}.</p>"
    )


def _curves(rows: Sequence[dict[str, Any]]) -> list[str]:
    charts = [chart for chart in plots.charts(rows) if chart.goal_id in _PLOTTED]
    if not charts:
        return []
    parts = ["<h2>Cost against size</h2>", "<p>Medians, with the least and most beside.</p>"]
    parts.append('<div class="charts">')
    for chart in charts:
        names = "".join(
            f'<span class="curve-{number % 6}">● {escape(curve.name)}</span>'
            for number, curve in enumerate(chart.curves)
        )
        parts.append(f"<figure>{plots.drawn(chart)}<figcaption>{names}</figcaption></figure>")
    return [*parts, "</div>"]


def _profiles(figures: Document) -> list[str]:
    """Links to what lies beside the page; the reason where there is nothing."""
    parts = []
    for path, found in figures.get("profiles", {}).items():
        if isinstance(found, str):
            parts.append(f"{escape(path)} path: {escape(found)}")
        else:
            parts.append(
                f'{escape(path)} path: <a href="profile-{path}.svg">flame graph</a>, '
                f'<a href="profile-{path}.txt">functions</a>'
            )
    return ["<h2>Where the time goes</h2>", f"<p>{'; '.join(parts)}.</p>"] if parts else []


def _goals(rows: Sequence[dict[str, Any]]) -> list[str]:
    heads = ["<th></th><th>what</th>"]
    heads += [f'<th class="n">{head}</th>' for head in ("floor", "ours", "ratio", "goal")]
    parts = [
        "<p>The line in each mark is the goal; a mark that spans it was measured on a busy "
        "machine, or is that close.</p>",
        '<div class="table"><table>',
        f"<tr>{''.join(heads)}<th></th><th>met</th></tr>",
    ]
    for row in rows:
        parts.append(_line(row))
        parts += [_peer(row, name, samples) for name, samples in row["peers"].items()]
    return [*parts, "</table></div>"]


def _line(row: dict[str, Any]) -> str:
    floor, ours, ratio, target = row["floor"], row["ours"], row["ratio"], row["target"]
    unit = f" {escape(row['unit'])}" if row["unit"] else ""
    judged = (ratio if target["of"] == "ratio" else ours) if target else None
    word, kind = {True: ("yes", "met"), False: ("no", "missed"), None: ("–", "")}[row["met"]]
    if row["failed"]:
        word, kind = "FAILED", "failed"
    mark = plots.mark(judged, target["limit"], met=row["met"]) if judged else ""
    said = escape(row["what"]) + (
        f"<small>{escape(row['failed'])}</small>" if row["failed"] else ""
    )
    cells = [
        f"<td>{escape(row['goal'])}</td><td>{said}</td>",
        f'<td class="n">{short(floor["median"])}{unit}<small>{escape(floor["name"])}</small></td>'
        if floor
        else '<td class="n">–</td>',
        f'<td class="n">{short(ours["median"])}{unit}</td>' if ours else '<td class="n">–</td>',
        f'<td class="n">{_range(ratio)}</td>',
        f'<td class="n">{_target(target)}</td><td>{mark}</td>',
        f'<td class="{kind}">{word}</td>',
    ]
    return f"<tr>{''.join(cells)}</tr>"


def _peer(row: dict[str, Any], name: str, samples: dict[str, Any]) -> str:
    pairs = zip(row["ours"]["samples"], samples["samples"], strict=True)
    ratio = median(mine / theirs for mine, theirs in pairs)
    return (
        f'<tr class="peer"><td></td><td>&emsp;{escape(name)}</td>'
        f'<td class="n">{short(samples["median"])} {escape(row["unit"])}</td><td></td>'
        f'<td class="n">{ratio:.2f}</td><td></td><td></td><td></td></tr>'
    )


def _range(ratio: dict[str, Any] | None) -> str:
    if ratio is None:
        return "–"
    return f"{ratio['median']:.2f} ({ratio['low']:.2f}–{ratio['high']:.2f})"


def _target(target: dict[str, Any] | None) -> str:
    if target is None:
        return "–"
    itself = " itself" if target["of"] == "ours" else ""
    return f"{TARGET[target['bound']]} {target['limit']:,g}{itself}"

"""What a million logs, waiters and commits a second take, computed from a run's figures.

Run: `python -m tests.benchmarks.scale [FIGURES]`. Takes the inputs from `.bench/figures.json`
and writes them, and what follows from them, into the two marked tables of `services/SCALE.md`.
Without figures there, the second table is computed from the page's own inputs. Measures
nothing; the words around the tables are the page's.
"""

import json
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "services" / "SCALE.md"
FIGURES = Path(".bench/figures.json")
MILLION = 1_000_000
_PRIMARIES = 3  # of the cluster that is measured

# A machine that anybody has, and how full it may be: bursts and the loss of a node need the rest.
NODE_CORES, NODE_GIB, NODE_GBIT, NODE_DISK_MB = 16, 64, 10, 1_000
FULL = 0.6
REPLICAS = 1  # of each primary; its work is taken to be the primary's
POLL_SECONDS = 60  # a wait that nothing happens in is asked again


def _input(what: str, unit: str, goal: str, row: str, beside: str = "") -> dict[str, str]:
    """Where an input comes from: the row that begins with `row`, its median or what is `beside`."""
    return {"what": what, "unit": unit, "goal": goal, "row": row, "beside": beside}


SOURCES = {
    "api_single_us": _input("API, a commit of one command", "µs", "G1", "opaque updates"),
    "store_single_us": _input("store, the same", "µs", "G1", "opaque updates", "engine_cpu_us"),
    "api_commit_us": _input("API, the same on a cluster, WAIT 1", "µs", "G15", "opaque updates"),
    "primary_us": _input(
        "one primary of three, the same", "µs", "G15", "opaque updates", "primary_cpu_us"
    ),
    "api_sealed_us": _input("API, a sealed commit, verified", "µs", "G2", "sealed, signed"),
    "store_sealed_us": _input("store, the same", "µs", "G2", "sealed, signed", "engine_cpu_us"),
    "api_batch_us": _input("API, a sealed commit of 100", "µs", "G2", "sealed commits of 100"),
    "store_batch_us": _input(
        "store, the same", "µs", "G2", "sealed commits of 100", "engine_cpu_us"
    ),
    "api_wake_us": _input(
        "API, a commit, the wake of its one waiter, the next wait",
        "µs",
        "G4",
        "wake of one waiter at another process: write",
        "server_cpu_us",
    ),
    "api_waiter_us": _input(
        "API, a wait and its answer, in a crowd",
        "µs",
        "G5",
        "wake of",
        "server_cpu_us_per_waiter",
    ),
    "waiter_kib": _input("API, memory of a waiter", "KiB", "G6", "memory of an idle"),
    "kernel_kib": _input(
        "kernel, both ends of its connection",
        "KiB",
        "G6",
        "memory of an idle",
        "kernel_kib_both_ends",
    ),
    "log_bytes": _input("store, memory of a log of one value", "B", "G11", "memory of a log"),
    "value_bytes": _input(
        "store, memory of a value of 100 B, written singly",
        "B",
        "G11",
        "memory of a live value of 100 B written singly",
    ),
    "batched_bytes": _input(
        "store, the same in commits of 100",
        "B",
        "G11",
        "memory of a live value of 100 B written in",
    ),
    "disk_bytes": _input("disk, a commit of 256 B", "B", "G11", "an update of"),
    "request_bytes": _input("wire, its request", "B", "G11", "an update of", "request_bytes"),
    "answer_bytes": _input("wire, its answer", "B", "G11", "an update of", "answer_bytes"),
    "to_store_bytes": _input("wire, to the store", "B", "G11", "an update of", "to_store_bytes"),
    "from_store_bytes": _input(
        "wire, from the store", "B", "G11", "an update of", "from_store_bytes"
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """One field for each of SOURCES, in its unit."""

    api_single_us: float
    store_single_us: float
    api_commit_us: float
    primary_us: float
    api_sealed_us: float
    store_sealed_us: float
    api_batch_us: float
    store_batch_us: float
    api_wake_us: float
    api_waiter_us: float
    waiter_kib: float
    kernel_kib: float
    log_bytes: float
    value_bytes: float
    batched_bytes: float
    disk_bytes: float
    request_bytes: float
    answer_bytes: float
    to_store_bytes: float
    from_store_bytes: float

    @property
    def on_a_cluster(self) -> tuple[float, float]:
        """What a commit costs there, to what it costs on one engine: of the API, of the store."""
        store = self.primary_us * _PRIMARIES / self.store_single_us
        return max(1.0, self.api_commit_us / self.api_single_us), max(1.0, store)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one workload asks of the API and of the store's primaries, all nodes together.

    Cores are those kept wholly busy; `disk_mb` a second.
    """

    what: str
    api_cores: float = 0.0
    api_gib: float = 0.0
    edge_gbit: float = 0.0
    store_cores: float = 0.0
    store_gib: float = 0.0
    store_gbit: float = 0.0
    disk_mb: float = 0.0

    @property
    def api_nodes(self) -> dict[str, float]:
        """Nodes that each resource would need by itself."""
        return {
            "API cores": self.api_cores / NODE_CORES / FULL,
            "API memory": self.api_gib / NODE_GIB / FULL,
            "API network": max(self.edge_gbit, self.store_gbit) / NODE_GBIT / FULL,
        }

    @property
    def store_nodes(self) -> dict[str, float]:
        """The primaries' alone; replicas take as many again."""
        return {
            "store cores": self.store_cores / NODE_CORES / FULL,
            "store memory": self.store_gib / NODE_GIB / FULL,
            "store network": self.store_gbit * (1 + REPLICAS) / NODE_GBIT / FULL,
            "store disk": self.disk_mb / NODE_DISK_MB / FULL,
        }

    @property
    def binds(self) -> str:
        nodes = self.api_nodes | self.store_nodes
        return max(nodes, key=lambda name: nodes[name])


def loads(inputs: Inputs) -> list[Load]:
    polls = MILLION / POLL_SECONDS
    return [
        _kept("10⁶ logs of one value of 256 B, idle", inputs.log_bytes * MILLION),
        _kept("10⁹ live values of 100 B, written singly", inputs.value_bytes * 1_000 * MILLION),
        _kept("10⁹ live values of 100 B, by 100", inputs.batched_bytes * 1_000 * MILLION),
        Load(
            what=f"10⁶ waiters, idle, each asking every {POLL_SECONDS} s",
            api_cores=polls * inputs.api_waiter_us / MILLION,
            api_gib=(inputs.waiter_kib + inputs.kernel_kib / 2) * MILLION / 2**20,
            edge_gbit=_gbit(polls * (inputs.request_bytes + inputs.answer_bytes)),
        ),
        _commits(
            inputs, "10⁶ commits/s, opaque", MILLION, inputs.api_single_us, inputs.store_single_us
        ),
        _commits(
            inputs, "10⁶ commits/s, sealed", MILLION, inputs.api_sealed_us, inputs.store_sealed_us
        ),
        _commits(
            inputs,
            "10⁶ commands/s, sealed by 100",
            MILLION / 100,
            inputs.api_batch_us,
            inputs.store_batch_us,
            commands=100,
        ),
        _commits(
            inputs,
            "10⁵ commits/s, each waking one",
            MILLION / 10,
            inputs.api_wake_us,
            inputs.store_single_us,
            wakes=1,
        ),
    ]


def _kept(what: str, store_bytes: float) -> Load:
    return Load(what=what, store_gib=store_bytes / 2**30)


def _commits(
    inputs: Inputs,
    what: str,
    per_second: float,
    api_us: float,
    store_us: float,
    *,
    commands: int = 1,
    wakes: int = 0,
) -> Load:
    """Costs of one engine become those of a cluster. A wake is taken to be as large as the commit;
    a batch, as its commands one by one."""
    edge = (inputs.request_bytes + inputs.answer_bytes) * (commands + wakes)
    inner = (inputs.to_store_bytes + inputs.from_store_bytes) * commands
    api_factor, store_factor = inputs.on_a_cluster
    return Load(
        what=what,
        api_cores=per_second * api_us * api_factor / MILLION,
        edge_gbit=_gbit(per_second * edge),
        store_cores=per_second * store_us * store_factor / MILLION,
        store_gbit=_gbit(per_second * inner),
        disk_mb=per_second * inputs.disk_bytes * commands / 1e6,
    )


def _gbit(bytes_a_second: float) -> float:
    return bytes_a_second * 8 / 1e9


def inputs_table(inputs: Inputs, run: str) -> str:
    lines = [
        f"Inputs of the run {run}:",
        "",
        "| input | figure | unit | row |",
        "|---|---|---|---|",
    ]
    for field in fields(Inputs):
        source = SOURCES[field.name]
        value = _rounded(getattr(inputs, field.name))
        lines.append(f"| {source['what']} | {value} | {source['unit']} | {source['goal']} |")
    return "\n".join(lines)


def needs_table(inputs: Inputs) -> str:
    lines = [
        "| load | API cores | GiB | Gbit/s | store cores | GiB | Gbit/s | disk MB/s "
        "| nodes, API + store | binds first |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for load in loads(inputs):
        api = math.ceil(max(load.api_nodes.values()))
        store = math.ceil(max(load.store_nodes.values())) * (1 + REPLICAS)
        figures = (
            *(load.api_cores, load.api_gib, load.edge_gbit),
            *(load.store_cores, load.store_gib, load.store_gbit, load.disk_mb),
        )
        cells = [_rounded(figure) if figure else "–" for figure in figures]
        lines.append(f"| {load.what} | {' | '.join(cells)} | {api} + {store} | {load.binds} |")
    return "\n".join(lines)


def _rounded(value: float) -> str:
    """Three digits that count; thousands apart."""
    digits = 2 - math.floor(math.log10(abs(value))) if value else 0
    return f"{round(value, digits):,.{max(0, digits)}f}"


def inputs_of(figures: dict[str, Any]) -> Inputs:
    """
    Raises:
        LookupError: the run has no such row.
    """
    return Inputs(**{name: _figure(figures["rows"], source) for name, source in SOURCES.items()})


def _figure(rows: Sequence[dict[str, Any]], source: dict[str, str]) -> float:
    """Of several rows that fit the last, which is that of the largest crowd; rounded as told."""
    fitting = [
        row
        for row in rows
        if row["goal"] == source["goal"]
        and row["what"].startswith(source["row"])
        and (not source["beside"] or source["beside"] in row["beside"])
    ]
    fitting = fitting if source["beside"] else fitting[:1]
    if not fitting:
        raise LookupError(f"no row of {source['goal']} begins with {source['row']!r}")
    row = fitting[-1]
    found = float(row["beside"][source["beside"]]) if source["beside"] else row["ours"]["median"]
    return float(_rounded(found).replace(",", ""))


def inputs_on(page: str) -> Inputs:
    """The page's own."""
    cells = re.findall(r"^\| [^|]+ \| ([\d.,]+) \| (?:µs|KiB|B) \| G\d+ \|$", page, re.MULTILINE)
    names = [field.name for field in fields(Inputs)]
    return Inputs(
        **{name: float(cell.replace(",", "")) for name, cell in zip(names, cells, strict=True)}
    )


def between(page: str, mark: str) -> str:
    """What stands between `<!-- mark -->` and `<!-- /mark -->`."""
    return page.split(f"<!-- {mark} -->\n")[1].split(f"\n<!-- /{mark} -->")[0]


def replaced(page: str, mark: str, text: str) -> str:
    head, foot = f"<!-- {mark} -->\n", f"\n<!-- /{mark} -->"
    return page.replace(f"{head}{between(page, mark)}{foot}", f"{head}{text}{foot}")


def main() -> int:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else FIGURES
    page = PAGE.read_text()
    if path.exists():
        figures = json.loads(path.read_text())
        kind = ", a quick one" if figures["quick"] else ""
        run = f"{figures['made_at']}{kind}, on {figures['machine']['cores']} cores"
        page = replaced(page, "inputs", inputs_table(inputs_of(figures), run))
    page = replaced(page, "needs", needs_table(inputs_on(page)))
    PAGE.write_text(page)
    print(between(page, "needs"))
    return 0


if __name__ == "__main__":
    sys.exit(main())

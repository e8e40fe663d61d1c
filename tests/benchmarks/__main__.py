"""`make bench`: every row measured, one table printed, one JSON file and one page written.

Run: `python -m tests.benchmarks [--quick] [--only G1,G4 | --peers] [--no-profiles]
[--out FOLDER]`. Ends with 1 if a row failed its checks, with 0 otherwise, whether goals are met
or not.
"""

import argparse
import asyncio
import json
import resource
import sys
from pathlib import Path

from tests.benchmarks.figures import table
from tests.benchmarks.page import page
from tests.benchmarks.stage import FULL, QUICK, progress
from tests.benchmarks.suite import BENCHMARKS, beside_peers, everything


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short samples; figures are rough")
    parser.add_argument("--only", metavar="GOALS", help="as G1,G4; all without it")
    parser.add_argument("--no-profiles", action="store_true", help="measure alone")
    parser.add_argument("--peers", action="store_true", help="ours beside other systems instead")
    parser.add_argument("--out", type=Path, default=Path(".bench"), help="folder (.bench)")
    asked = parser.parse_args()
    scale = QUICK if asked.quick else FULL
    names = set(asked.only.upper().split(",")) if asked.only else None
    chosen = [one for one in BENCHMARKS if names is None or one.goal_id in names]
    if names is not None and names != {one.goal_id for one in chosen}:
        parser.error(f"--only: there are {', '.join(one.goal_id for one in BENCHMARKS)}")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    asked.out.mkdir(parents=True, exist_ok=True)
    profiled = None if asked.no_profiles or asked.peers else asked.out
    if asked.peers:
        chosen = [beside_peers(asked.out / "peers")]
    try:
        rows, made = asyncio.run(everything(scale, chosen, profiled))
    except KeyboardInterrupt:
        progress("interrupted: what was started has been ended, nothing was written")
        return 130
    path = asked.out / ("peers.json" if asked.peers else "figures.json")
    path.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n")
    print(table(rows))
    drawn = write_page(asked.out)
    print(f"{drawn}: the same to look at, with plots")
    print(f"{path}: all samples; {made['took_seconds']:.0f} s")
    return 1 if any(row.failed for row in rows) else 0


def write_page(folder: Path) -> Path:
    """The page of the last run, and of the last beside other systems, if there were any."""
    documents = [
        json.loads(path.read_text()) if path.exists() else None
        for path in (folder / "figures.json", folder / "peers.json")
    ]
    path = folder / "figures.html"
    path.write_text(page(*documents))
    return path


if __name__ == "__main__":
    sys.exit(main())

# mypy: ignore-errors
"""Diffs of more than one page, by themselves and page by page in both orders."""

import json
import sys
from pathlib import Path

from indelible_log import Cmd, Log, profileFromJson

profile = profileFromJson(Path(sys.argv[1]).read_text())
log = Log(sys.argv[2], profile)
log.create()
log.update([Cmd.Insert(f"key {i}", i) for i in range(130)])
log.update(
    [
        *(Cmd.Update(f"key {i}", -i) for i in range(1, 60)),
        *(Cmd.Remove(f"key {i}", i) for i in range(60, 100)),
        *(Cmd.Insert(f"new {i}", i) for i in range(10)),
    ]
)


def told(change):
    entry = change["entry"]
    return [change["change"], entry["key"], entry["value"], change["version"]]


def paged(order, limit):
    changes, sizes, options = [], [], None
    while True:
        page = log.diff_page(1, 2, order_results_by=order, limit=limit, pagination_options=options)
        changes += map(told, page["page"])
        sizes.append(len(page["page"]))
        options = page["nextPageOptions"]
        if options is None:
            return {"changes": changes, "sizes": sizes}


diff = log.version_diff(1)
first_page = log.diff_page(0, 1)
print(
    json.dumps(
        {
            "now": [told(c) for c in log],
            "at 1": [told(c) for c in log.version(1)],
            "diff": [told(c) for c in diff.changes()],
            "by command": paged("command", None),
            "by key": paged("key", None),
            "by key, 7 at once": paged("key", 7),
            "default size": len(first_page["page"]),
            "one key": [
                told(c)
                for c in log.diff_page(
                    0,
                    order_results_by="key",
                    limit=1,
                    pagination_options={"skipToKey": "key 7"},
                )["page"]
            ],
        }
    )
)

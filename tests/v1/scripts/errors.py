# mypy: ignore-errors
"""Provokes every error that can occur, and tells what the exception said."""

import json
import sys
from pathlib import Path

from indelible_log import ApiErrorException, Cmd, Log, profileFromJson

profile = profileFromJson(Path(sys.argv[1]).read_text())
name = sys.argv[2]
log = Log(name, profile)
log.create("g")
log.update([Cmd.Upsert("a", 1)])
raw = Log(name + " raw", profile, "raw", "raw", encrypt=False)
raw.create()
absent = Log(name + " absent", profile)
stranger = Log(name, {**profile, "apikey": profile["apikey"][:-4] + "AAAA"})
renamed = Log(name, {**profile, "customer_id": "somebody-else"})
keyless = Log(name, {**profile, "apikey": ""})

CASES = {
    "wrong apikey": lambda: stranger.update([Cmd.Upsert("a", 1)]),
    "wrong apikey, create": stranger.create,
    "wrong apikey, diff": stranger.version_diff,
    "wrong customer": renamed.version_diff,
    "no apikey": keyless.version_diff,
    "other group": lambda: log.create("h"),
    "no group": log.create,
    "absent update": lambda: absent.update([Cmd.Upsert("a", 1)]),
    "absent diff": absent.version_diff,
    "behind": lambda: log.update([Cmd.ExpectVersion(0), Cmd.Upsert("a", 2)]),
    "ahead": lambda: log.update([Cmd.Upsert("a", 2), Cmd.ExpectVersion(2)]),
    "another value": lambda: log.update([Cmd.Upsert("b", 1), Cmd.Insert("a", 2)]),
    "no value": lambda: log.update([Cmd.Upsert("b", 1), Cmd.Update("c", 2)]),
    "from ahead": lambda: log.version_diff(2),
    "from ahead, waiting": lambda: log.version_diff(2, wait_seconds=60),
    "to ahead": lambda: log.version_diff(0, 2),
    "limit": lambda: log.diff_page(0, limit=51),
    "wait": lambda: log.diff_page(0, wait_seconds=61),
    "order": lambda: log.diff_page(0, order_results_by="value"),
    "options": lambda: log.diff_page(0, pagination_options={"skipToLine": 1}),
    "not base64": lambda: raw.update([Cmd.Upsert("a", "Zm9v")]),
    "no key": lambda: raw.update([Cmd.Upsert("", "Zm9v")]),
    "no commands": lambda: raw.update([]),
    "large value": lambda: raw.update([Cmd.Upsert("Zm9v", "AAAA" * 400_000)]),
    "large body": lambda: raw.update([Cmd.Upsert("Zm9v", "AAAA" * 600_000)]),
    "many commands": lambda: raw.update([Cmd.Upsert("Zm9v", "Zm9v")] * 4_097),
}

told = {}
for case, provoke in CASES.items():
    try:
        provoke()
    except ApiErrorException as error:
        told[case] = [
            error.code,
            error.codeNumber,
            bool(error.message),
            type(error.details).__name__,
        ]
    else:
        told[case] = None
# Nothing of all this took effect.
assert [(c["entry"]["key"], c["entry"]["value"]) for c in log] == [("a", 1)]
assert log.version_diff().to_version == 1
assert raw.version_diff().to_version == 0
print(json.dumps(told))

# mypy: ignore-errors
"""The tour's second window: one transaction that expects version 1."""

import json
import sys
from pathlib import Path

from indelible_log import Cmd, Log, profileFromJson

profile = profileFromJson(Path(sys.argv[1]).read_text())
log = Log(sys.argv[2], profile, encrypt=True, key_mode="string", value_mode="json")
log.update(
    update_source="window 2",
    commands=[
        Cmd.ExpectVersion(1),
        Cmd.Remove("foo", [1, 2, 3]),
        Cmd.Insert("bar", [4, 5, 6]),
    ],
)
print(json.dumps("written"))

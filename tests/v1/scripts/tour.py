# mypy: ignore-errors
"""The published tour: create, upsert, iterate, diff, wait for what another process writes."""

import json
import sys
from pathlib import Path

from indelible_log import Cmd, Log, profileFromJson


def say(**seen):
    print(json.dumps(seen), flush=True)


profile = profileFromJson(Path(sys.argv[1]).read_text())
log = Log(sys.argv[2], profile, encrypt=True, key_mode="string", value_mode="json")
log.create(log_group="mykey")
log.create(log_group="mykey")
empty = log.version_diff()
say(version=empty.to_version, entries=list(empty.changes()))

log.update(update_source="tour", commands=[Cmd.Upsert("foo", [1, 2, 3])])
nothing = log.version_diff(from_version=1)
say(entries=list(log), version=str(nothing), since=list(nothing.changes()))

say(waiting=True)
diff = log.version_diff(from_version=1, wait_seconds=60)
say(
    range=[diff.from_version, diff.to_version],
    changes=list(diff.changes()),
    before=list(log.version(1)),
    back=list(log.version_diff(2, 1).changes()),
)

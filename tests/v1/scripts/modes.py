# mypy: ignore-errors
"""Writes or reads one log for each combination of modes, encrypted and not."""

import itertools
import json
import sys
from pathlib import Path

from indelible_log import Cmd, Log, profileFromJson

profile = profileFromJson(Path(sys.argv[1]).read_text())
prefix, action = sys.argv[2:]

KEYS = {"string": "Schlüssel 🜁", "json": ["k", 1, None], "binary": b"\x00\xff", "raw": "a2V5"}
VALUES = {"string": "Grüße", "json": {"b": [2.5, None], "a": "é"}, "binary": b"", "raw": "AP8="}

seen = []
modes = itertools.product([True, False], ["string", "stringlist", "raw"], KEYS, VALUES)
for number, (encrypt, name_mode, key_mode, value_mode) in enumerate(modes):
    if encrypt and "raw" in (key_mode, value_mode):
        continue
    name = f"{prefix} {number} ü"
    if name_mode == "stringlist":
        name = [prefix, str(number), "ü", ""]
    elif name_mode == "raw" and encrypt:
        name = name.encode()
    log = Log(name, profile, key_mode, value_mode, encrypt, name_mode)
    if action == "write":
        log.create()
        log.update([Cmd.Upsert(KEYS[key_mode], VALUES[value_mode])])
    else:
        (change,) = log
        entry = change["entry"]
        assert (entry["key"], entry["value"]) == (KEYS[key_mode], VALUES[value_mode]), entry
        log.update([Cmd.Remove(KEYS[key_mode], VALUES[value_mode])])
        assert list(log) == []
    seen.append([encrypt, name_mode, key_mode, value_mode])
print(json.dumps(seen))

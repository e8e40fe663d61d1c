# mypy: ignore-errors
"""One of several redundant consumers of a log of amounts by customer.

The derived log holds each customer's sum and, in the same transaction, the version of the
source that the sums stand for: whoever commits first has counted, the others read again.
"""

import json
import sys
from pathlib import Path

from indelible_log import ApiErrorException, Cmd, Log, profileFromJson

profile = profileFromJson(Path(sys.argv[1]).read_text())
source = Log(sys.argv[2], profile)
derived = Log(sys.argv[2] + " sums", profile)
last_version = int(sys.argv[3])
derived.create()
print(json.dumps("ready"), flush=True)

counted = overtaken = 0
while True:
    snapshot = derived.version_diff()
    contents = {c["entry"]["key"]: c["entry"]["value"] for c in snapshot.changes()}
    position = contents.get("position", 0)
    if position == last_version:
        break
    diff = source.version_diff(from_version=position, wait_seconds=30)
    sums = {}
    for change in diff.changes():
        order = change["entry"]["value"]
        customer = "sum of " + order["customer"]
        sums.setdefault(customer, contents.get(customer, 0))
        sums[customer] += order["amount"] if change["change"] == "Add" else -order["amount"]
    try:
        derived.update(
            [
                Cmd.ExpectVersion(snapshot.to_version),
                Cmd.Upsert("position", diff.to_version),
                *(Cmd.Upsert(customer, total) for customer, total in sums.items()),
            ]
        )
        counted += 1
    except ApiErrorException as error:
        if error.code != "UNEXPECTED_VERSION":
            raise
        overtaken += 1
print(
    json.dumps(
        {
            "counted": counted,
            "overtaken": overtaken,
            "version": snapshot.to_version,
            "contents": contents,
        }
    )
)

"""The demo's reader: follows a log in a process of its own and prints one diff as JSON."""

import json
import sys
import time

import indelible


def main(profile: str, name: str) -> None:
    with indelible.Client(profile) as client:
        log = client.log(name)
        diff = next(iter(log.follow(after=log.version)))
        received = {
            "from": diff.from_version,
            "to": diff.to_version,
            "changes": [[change.op, change.key, change.value] for change in diff.changes],
            "received_at": time.time(),
        }
        print(json.dumps(received), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])

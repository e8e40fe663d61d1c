"""The reader of the demo: follows a log from another process and prints each diff as JSON."""

import json
import sys
import time

import indelible


def main(profile: str, name: str, diffs: int) -> None:
    with indelible.Client(profile) as client:
        log = client.log(name)
        print(json.dumps({"waiting_at": log.version}), flush=True)
        for diff in log.follow(after=log.version):
            changes = [[change.op, change.key, change.value] for change in diff.changes]
            print(
                json.dumps(
                    {
                        "from": diff.from_version,
                        "to": diff.to_version,
                        "changes": changes,
                        "received_at": time.time(),
                    }
                ),
                flush=True,
            )
            diffs -= 1
            if not diffs:
                return


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))

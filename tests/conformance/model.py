"""The log that reading cases are about: its commits, and what must be read from it.

Keys a, b, c over four versions; written out by hand, so that no code decides what is right.
"""

from tests.conformance.http import b64, upsert

NAME = "the log of the reading cases"
COMMITS = (
    (upsert("a", "1"), upsert("b", "1")),
    (upsert("a", "2"),),
    ({"type": "Delete", "key": b64("b")}, upsert("c", "1")),
    (upsert("a", "1"),),
)
# version → key → (value, the version that introduced it)
CONTENTS: tuple[dict[str, tuple[str, int]], ...] = (
    {},
    {"a": ("1", 1), "b": ("1", 1)},
    {"a": ("2", 2), "b": ("1", 1)},
    {"a": ("2", 2), "c": ("1", 3)},
    {"a": ("1", 4), "c": ("1", 3)},
)
HISTORIES = {
    "a": [("set", 4, "1"), ("set", 2, "2"), ("set", 1, "1")],
    "b": [("remove", 3, ""), ("set", 1, "1")],
    "c": [("set", 3, "1")],
    "d": [],
}
HEAD = len(COMMITS)


def net(first: int, last: int) -> set[tuple[str, str, str, int]]:
    """(op, key, value, version) of the smallest set of changes between two versions."""
    before, after = CONTENTS[first], CONTENTS[last]
    removed = {("remove", key, *held) for key, held in before.items() if after.get(key) != held}
    added = {("add", key, *held) for key, held in after.items() if before.get(key) != held}
    return removed | added

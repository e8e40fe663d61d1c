"""What is right, written out by hand: what commands do, and what a log with a past reads as."""

# A key holds the value "1", which commands name, or another, or nothing.
STATES = {"absent": None, "same": "1", "other": "2"}
# (command, state of the key) → by how much the version rises, or the code of its refusal
EFFECTS: dict[tuple[str, str], int | str] = {
    ("Upsert", "absent"): 1,
    ("Upsert", "same"): 0,
    ("Upsert", "other"): 1,
    ("Insert", "absent"): 1,
    ("Insert", "same"): 0,
    ("Insert", "other"): "UNEXPECTED_VALUE",
    ("Update", "absent"): "NONEXISTENT_VALUE",
    ("Update", "same"): 0,
    ("Update", "other"): 1,
    ("Remove", "absent"): 0,
    ("Remove", "same"): 1,
    ("Remove", "other"): 0,
    ("Delete", "absent"): 0,
    ("Delete", "same"): 1,
    ("Delete", "other"): 1,
    ("ExpectAbsent", "absent"): 0,
    ("ExpectAbsent", "same"): "UNEXPECTED_VALUE",
    ("ExpectAbsent", "other"): "UNEXPECTED_VALUE",
}
WITH_VALUE = ("Upsert", "Insert", "Update", "Remove")

NAME = "the log of the reading cases"
COMMITS = (
    (("Upsert", "a", "1"), ("Upsert", "b", "1")),
    (("Upsert", "a", "2"),),
    (("Delete", "b"), ("Upsert", "c", "1")),
    (("Upsert", "a", "1"),),
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

"""The contents of a log at any of its versions, folded from the commits it stores.

A second, deliberately plain reading of the command semantics: it shares no line with the
product, so that a mistake in one of the two shows. Knows nothing of clients or time.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from tests.support.operations import (
    Change,
    Command,
    Op,
    Stored,
    entry_digest,
    moved_digest,
)


class Entry(NamedTuple):
    value: str
    version: int


class Refusal(NamedTuple):
    code: str
    at: int  # the command's place in its commit


Effects = Mapping[str, str | None]  # key → its value after the commit, None if removed
Lookup = Callable[[str], Entry | None]


def judge(commands: Sequence[Command], version: int, lookup: Lookup) -> Effects | Refusal:
    """What `commands` do to a log at `version` whose entries `lookup` tells.

    Effects are net: a key whose value ends as it began is not among them.
    """
    now: dict[str, str | None] = {}
    for index, (op, key, value, expected) in enumerate(commands):
        entry = lookup(key)
        held = now.get(key, entry and entry.value)
        match op:
            case Op.INSERT if held not in (None, value):
                return Refusal("UNEXPECTED_VALUE", index)
            case Op.UPDATE if held is None:
                return Refusal("NONEXISTENT_VALUE", index)
            case Op.EXPECT_ABSENT if held is not None:
                return Refusal("UNEXPECTED_VALUE", index)
            case Op.EXPECT_ENTRY if entry is None or entry.version != expected or key in now:
                return Refusal("UNEXPECTED_ENTRY", index)
            case Op.EXPECT_VERSION if version != expected:
                return Refusal("UNEXPECTED_VERSION", index)
            case Op.UPSERT | Op.INSERT | Op.UPDATE if held != value:
                now[key] = value
            case Op.REMOVE if held == value:
                now[key] = None
            case Op.DELETE if held is not None:
                now[key] = None
    return {
        key: value
        for key, value in now.items()
        if value != ((entry := lookup(key)) and entry.value)
    }


class Timeline:
    """`stored` holds versions 1, 2, 3 … without gaps.

    `faults` lists the versions whose commit should not be in the log at all: refused at the
    version before, or without effect. They are taken as having none.
    """

    def __init__(self, stored: Sequence[Stored]) -> None:
        self.current = len(stored)
        self.faults: dict[int, str] = {}
        self._entries: dict[str, list[tuple[int, Entry | None]]] = defaultdict(list)
        self._touched: list[list[str]] = [[]]
        self._digests = [0]
        for commit in stored:
            self._add(commit)

    def _add(self, commit: Stored) -> None:
        version = commit.version
        effects = self.judge(commit.commands, version - 1)
        if isinstance(effects, Refusal):
            self.faults[version] = f"refused at {version - 1}: {effects.code} at {effects.at}"
            effects = {}
        elif not effects:
            self.faults[version] = f"without effect at {version - 1}"
        gone, come = [], []
        for key, value in effects.items():
            if old := self.entry(key, version - 1):
                gone.append(entry_digest(key, *old))
            new = None if value is None else Entry(value, version)
            if new:
                come.append(entry_digest(key, *new))
            self._entries[key].append((version, new))
        self._touched.append(list(effects))
        self._digests.append(moved_digest(self._digests[-1], gone=gone, come=come))

    def entry(self, key: str, version: int) -> Entry | None:
        story = self._entries.get(key)
        if not story:
            return None
        if story[-1][0] <= version:  # asked most: the newest
            return story[-1][1]
        at = bisect_right(story, version, key=lambda step: step[0])
        return story[at - 1][1] if at else None

    def live(self) -> dict[str, int]:
        """The keys that hold a value now, with the version that introduced it."""
        newest = ((key, story[-1][1]) for key, story in self._entries.items())
        return {key: entry.version for key, entry in newest if entry}

    def judge(self, commands: Sequence[Command], version: int) -> Effects | Refusal:
        return judge(commands, version, lambda key: self.entry(key, version))

    def digest(self, version: int) -> int:
        return self._digests[version]

    def net(self, from_version: int, to_version: int) -> list[Change]:
        """The smallest set of changes between two versions, sorted; either may be the later."""
        low, high = sorted((from_version, to_version))
        if high - low < len(self._entries):
            keys = {key for touched in self._touched[low + 1 : high + 1] for key in touched}
        else:
            keys = set(self._entries)
        changes = []
        for key in keys:
            old, new = self.entry(key, from_version), self.entry(key, to_version)
            if old == new:
                continue
            if old:
                changes.append(Change("remove", key, *old))
            if new:
                changes.append(Change("add", key, *new))
        return sorted(changes)

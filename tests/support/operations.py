"""What clients did to one log, and what the log held in the end: the checker's only input.

Pure records. Times are nanoseconds of one CLOCK_MONOTONIC, so all clients run on one
machine. Keys and values are text; a token names one commit, however often it was sent.
Knows no server, no encoding of the wire, and no rule.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from typing import NamedTuple

MARKER = "?"  # begins the keys that only ever appear in a commit's EXPECT_ABSENT marker


class Op(StrEnum):
    UPSERT = "upsert"
    INSERT = "insert"
    UPDATE = "update"
    REMOVE = "remove"
    DELETE = "delete"
    EXPECT_ABSENT = "expect_absent"
    EXPECT_ENTRY = "expect_entry"
    EXPECT_VERSION = "expect_version"


class Command(NamedTuple):
    """`version` is what EXPECT_ENTRY and EXPECT_VERSION name."""

    op: Op
    key: str = ""
    value: str = ""
    version: int = 0


class Change(NamedTuple):
    """`op` is `add` or `remove`; `version` introduced the entry that came or went."""

    op: str
    key: str
    value: str
    version: int


def marker(token: str) -> Command:
    """Names a commit inside its own bytes and has no effect: its key is never set.

    A value cannot do it: a commit that only deletes brings none.
    """
    return Command(Op.EXPECT_ABSENT, MARKER + token)


def token_of(commands: Iterable[Command]) -> str | None:
    """The token that the first marker among `commands` names."""
    for command in commands:
        if command.op is Op.EXPECT_ABSENT and command.key.startswith(MARKER):
            return command.key.removeprefix(MARKER)
    return None


_DIGEST_MODULUS = 1 << 128


def entry_digest(key: str, value: str, version: int) -> int:
    text = f"{len(key)}:{key}{len(value)}:{value}{version}"
    return int.from_bytes(blake2b(text.encode(), digest_size=16).digest(), "big")


def contents_digest(entries: Iterable[tuple[str, str, int]]) -> int:
    """One number for a set of (key, value, version), whatever their order.

    A sum, not an exclusive or: an entry that is told twice must not vanish.
    """
    return sum(entry_digest(*entry) for entry in entries) % _DIGEST_MODULUS


def moved_digest(digest: int, *, gone: Iterable[int], come: Iterable[int]) -> int:
    """`digest` after entries with the digests `gone` made way for those of `come`."""
    return (digest - sum(gone) + sum(come)) % _DIGEST_MODULUS


@dataclass(frozen=True, slots=True, kw_only=True)
class Acked:
    version: int
    changed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """`current` is the version at which the refusal was judged."""

    code: str
    index: int
    current: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Certainly not in, and not judged either: no room, overload."""

    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """The commit may be in, or may come in at any later time."""


Outcome = Acked | Rejected | Refused | Unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class Append:
    """One commit from its first send to its settled outcome.

    `ambiguous_sends` counts the sends whose own outcome stayed open (reset, timeout, 503
    with may_have_applied), also when a later send with the same key settled the commit.
    """

    token: str
    client: str
    commands: Sequence[Command]
    invoked_ns: int
    completed_ns: int
    outcome: Outcome
    ambiguous_sends: int = 0

    @property
    def observed(self) -> int | None:
        match self.outcome:
            case Acked(version=version):
                return version
            case Rejected(current=current):
                return current
            case Refused() | Unknown():
                return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """All contents at `version`. `pinned`: the reader named the version itself."""

    client: str
    invoked_ns: int
    completed_ns: int
    version: int
    digest: int
    pinned: bool = False

    @property
    def observed(self) -> int | None:
        return None if self.pinned else self.version


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffRead:
    """`current`: the log's version that the answer names beside the diff, if it does."""

    client: str
    invoked_ns: int
    completed_ns: int
    from_version: int
    to_version: int
    changes: Sequence[Change]
    current: int | None = None

    @property
    def observed(self) -> int | None:
        return self.current


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """`version` is None when the answer was "nothing after `since`"; `changes` is None when
    the answer tells the version alone."""

    client: str
    invoked_ns: int
    completed_ns: int
    deadline_ns: int
    since: int
    version: int | None
    changes: Sequence[Change] | None = None

    @property
    def observed(self) -> int | None:
        return self.since if self.version is None else self.version


Operation = Append | Read | DiffRead | Wait


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One version as the store itself holds it."""

    version: int
    commands: Sequence[Command]


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Everything about one log. `began_at` is its version before the first operation."""

    log: str
    operations: Sequence[Operation]
    stored: Sequence[Stored]
    began_at: int = 0

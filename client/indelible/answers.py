"""What a log answers with. Times are aware `datetime`s in UTC, versions whole numbers."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

from indelible.names import Name

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Commit:
    """`version` is the one that the commit made; if it changed nothing, the current one."""

    version: int
    changed: bool


# Tuples, because they come by the thousand and are pleasant to unpack.


class Entry(NamedTuple):
    """`version` is the one that introduced the entry."""

    key: Any
    value: Any
    version: int


class Change(NamedTuple):
    """An entry that came or went; `version` is the one that had introduced it."""

    op: Literal["add", "remove"]
    key: Any
    value: Any
    version: int


@dataclass(frozen=True, slots=True)
class Diff:
    """The smallest set of changes that leads from one version to the other.

    Empty when the versions between cancel each other out.
    """

    from_version: int
    to_version: int
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class KeyChange:
    """What a key held from `version` on; `value` is None where it was removed."""

    op: Literal["set", "remove"]
    value: Any
    version: int
    time: datetime


@dataclass(frozen=True, slots=True)
class Version:
    """A commit that took effect: when it did and what it says of itself.

    `writer` is the public key, in hexadecimal, of the identity that signed it; `source` is
    what its writer passed as such. `commands` counts what it held, `changes` the keys that
    it changed.
    """

    version: int
    time: datetime
    source: str
    writer: str
    commands: int
    changes: int
    stored_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """A log, and where it stands.

    `name` is None where another master key sealed it. A log of kind `opaque` was made
    through the original API or by other means without this library's sealing; open it with
    `indelible.v1`. `log_id` is in hexadecimal.
    """

    name: Name | None
    group: str
    kind: Literal["sealed", "opaque"]
    version: int
    first_version: int
    entries: int
    stored_bytes: int
    created: datetime
    updated: datetime
    log_id: str
    incarnation: int


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What a log has forgotten, or how far it is: `first_version` is the first that can be read.

    The bytes are those that the service stores of the log, without what its store adds to
    them. `handled` of `total` parts of the `step` (`base`, `trim`, `sweep`, `done`) are through.
    """

    first_version: int
    bytes_before: int
    bytes_now: int
    step: Literal["base", "trim", "sweep", "done"] = "done"
    handled: int = 0
    total: int = 0


def time_of(milliseconds: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=milliseconds)

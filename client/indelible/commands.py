"""What a commit asks for, in the user's words. `AsyncLog.update` takes a list of these."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Upsert:
    """Sets the key; no effect if it holds this value already."""

    key: Any
    value: Any


@dataclass(frozen=True, slots=True)
class Insert:
    """Sets the key; no effect if it holds this value, a conflict if it holds another."""

    key: Any
    value: Any


@dataclass(frozen=True, slots=True)
class Update:
    """Replaces the key's value; no effect if it is this one, a conflict if there is none."""

    key: Any
    value: Any


@dataclass(frozen=True, slots=True)
class Remove:
    """Removes the key if it holds this value; no effect otherwise."""

    key: Any
    value: Any


@dataclass(frozen=True, slots=True)
class Delete:
    """Removes the key whatever it holds; no effect if it is absent."""

    key: Any


@dataclass(frozen=True, slots=True)
class ExpectAbsent:
    """A conflict if the key holds a value."""

    key: Any


@dataclass(frozen=True, slots=True)
class ExpectEntry:
    """A conflict unless the key's entry was introduced at `version`."""

    key: Any
    version: int


Command = Upsert | Insert | Update | Remove | Delete | ExpectAbsent | ExpectEntry

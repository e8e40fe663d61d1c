"""What a commit asks for, in the user's words. `AsyncLog.update` takes a list of these."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Command:
    """What all of them are; none itself."""

    key: Any


@dataclass(frozen=True, slots=True)
class Upsert(Command):
    """Sets the key; no effect if it holds this value already."""

    value: Any


@dataclass(frozen=True, slots=True)
class Insert(Command):
    """Sets the key; no effect if it holds this value, a conflict if it holds another."""

    value: Any


@dataclass(frozen=True, slots=True)
class Update(Command):
    """Replaces the key's value; no effect if it is this one, a conflict if there is none."""

    value: Any


@dataclass(frozen=True, slots=True)
class Remove(Command):
    """Removes the key if it holds this value; no effect otherwise."""

    value: Any


@dataclass(frozen=True, slots=True)
class Delete(Command):
    """Removes the key whatever it holds; no effect if it is absent."""


@dataclass(frozen=True, slots=True)
class ExpectAbsent(Command):
    """A conflict if the key holds a value."""


@dataclass(frozen=True, slots=True)
class ExpectEntry(Command):
    """A conflict unless the key's entry was introduced at `version`."""

    version: int

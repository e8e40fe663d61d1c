"""What can be imported: its entries or its commits in an order that stays, from anywhere on.

Owns the meaning of an export's lines. Knows nothing of the log that they go to.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import closing
from datetime import datetime
from itertools import islice
from typing import Any, Protocol

from indelible.codec import TURN_SECONDS
from indelible.commands import Delete, Upsert
from indelible.errors import ExportError, RequestError
from indelible.modes import Mode, ModeName
from indelible.names import Name
from indelible.spelling import from_json, to_json
from indelible.transferring.exports import Export, Kind, is_whole
from indelible.transferring.marks import iso_of
from indelible.transferring.steps import Step

Row = tuple[Any, Any]  # a key and its value


class Original(Protocol):
    """`id` is 16 hexadecimal digits that tell it from any other, the same at every try.

    `total` counts its entries, or its versions if its kind is `commits`; None if that is not
    known beforehand.
    """

    @property
    def kind(self) -> Kind: ...
    @property
    def id(self) -> str: ...
    @property
    def name(self) -> Name: ...
    @property
    def group(self) -> str: ...
    @property
    def key_mode(self) -> ModeName: ...
    @property
    def value_mode(self) -> ModeName: ...
    @property
    def total(self) -> int | None: ...

    def rows(self, skip: int) -> AsyncGenerator[Row, None]:
        """Its entries behind the first `skip`."""

    def steps(self, after: int) -> AsyncGenerator[Step, None]:
        """Its commits of versions above `after`."""


class ExportOriginal:
    """A file of this library's."""

    def __init__(self, export: Export) -> None:
        heading = export.heading
        self._export = export
        self.kind = heading.kind
        self.name = heading.name
        self.group = heading.group
        self.key_mode = heading.key_mode
        self.value_mode = heading.value_mode
        # A longer export of the same log goes on where a shorter one ended.
        self.id = heading.log_id[:16] if self.kind == "commits" else export.digest[:16]
        self.total = heading.version if self.kind == "commits" else export.lines
        self._modes = Mode.named(self.key_mode), Mode.named(self.value_mode)

    async def rows(self, skip: int) -> AsyncGenerator[Row, None]:
        async for number, members in self._members(skip):
            key, value, _ = self._read(number, members, ("key", "value", "version"))
            yield self._of_key(number, key), self._of_value(number, value)

    async def steps(self, after: int) -> AsyncGenerator[Step, None]:
        async for number, members in self._members(0):
            if members.get("version", 0) > after:
                yield self._step(number, members)

    async def _members(self, skip: int) -> AsyncGenerator[tuple[int, dict[str, Any]], None]:
        """Lines with their numbers; other tasks have their turns meanwhile."""
        loop = asyncio.get_running_loop()
        turn_ends = loop.time() + TURN_SECONDS
        with closing(self._export.rows()) as rows:
            for number, members in islice(enumerate(rows, 1), skip, None):
                yield number, members
                if loop.time() > turn_ends:
                    await asyncio.sleep(0)
                    turn_ends = loop.time() + TURN_SECONDS

    def _step(self, number: int, members: dict[str, Any]) -> Step:
        names = ("version", "time", "source", "writer", "changes")
        version, time, source, writer, changes = self._read(number, members, names)
        try:
            moment = datetime.fromisoformat(time)
        except (TypeError, ValueError):
            raise self._fault(number, "time") from None
        if not is_whole(version) or not isinstance(source, str) or not isinstance(changes, list):
            raise self._fault(number, "version, source or changes")
        return Step(
            version=version,
            time=moment,
            source=source,
            writer=writer,
            changes=tuple(self._changes(number, changes)),
        )

    def _changes(self, number: int, changes: list[Any]) -> Iterator[Upsert | Delete]:
        for change in changes:
            match change:
                case {"set": key, "to": value}:
                    yield Upsert(self._of_key(number, key), self._of_value(number, value))
                case {"remove": key}:
                    yield Delete(self._of_key(number, key))
                case _:
                    raise self._fault(number, "change")

    def _read(self, number: int, members: dict[str, Any], names: tuple[str, ...]) -> list[Any]:
        if members.keys() != set(names):
            raise ExportError(
                f"{self._export.path} has a line {number:,} with other members than "
                f"{', '.join(names)}"
            )
        return [members[name] for name in names]

    def _of_key(self, number: int, spelled: Any) -> Any:
        return self._meant(number, spelled, self._modes[0], "key")

    def _of_value(self, number: int, spelled: Any) -> Any:
        return self._meant(number, spelled, self._modes[1], "value")

    def _meant(self, number: int, spelled: Any, mode: Mode, what: str) -> Any:
        try:
            return from_json(spelled, mode)
        except RequestError:
            raise self._fault(number, what) from None

    def _fault(self, number: int, what: str) -> ExportError:
        return ExportError(f"{self._export.path} has no {what} that can be read in line {number:,}")


def entry_members(key: Any, value: Any, version: int, modes: tuple[Mode, Mode]) -> dict[str, Any]:
    """A line of an entry."""
    return {"key": to_json(key, modes[0]), "value": to_json(value, modes[1]), "version": version}


def step_members(step: Step, modes: tuple[Mode, Mode]) -> dict[str, Any]:
    """A line of a commit."""
    assert step.time is not None, "steps of a log have their times"
    return {
        "version": step.version,
        "time": iso_of(step.time),
        "source": step.source,
        "writer": step.writer,
        "changes": [_change_members(change, modes) for change in step.changes],
    }


def _change_members(change: Upsert | Delete, modes: tuple[Mode, Mode]) -> dict[str, Any]:
    key = to_json(change.key, modes[0])
    if isinstance(change, Upsert):
        return {"set": key, "to": to_json(change.value, modes[1])}
    return {"remove": key}

"""Where a diff's changes are put in order: in memory while they are few, else in a file.

A change is a row: where it stands in the order (`at`: a place, or a token), whether it adds, and
the place of its entry. The file is a private temporary one, gone with its owner. Knows nothing
of logs.
"""

import sqlite3
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

MOST_IN_MEMORY = 50_000
ROW_BYTES = 250  # of one in memory, with what it refers to
FILE_BYTES = 4 << 20  # what an open file holds in memory
_SOME = 1_000

At = int | bytes
Start = tuple[At, bool]


class Row(NamedTuple):
    at: At
    adds: bool
    place: int


class Rows(Protocol):
    """Changes in order; `size_bytes` is what they hold in memory."""

    @property
    def size_bytes(self) -> int: ...

    def behind(self, start: Start | None, limit: int) -> Sequence[Row]:
        """At most `limit` rows: the first is at `start`, or the next behind it."""
        ...


class Listed:
    """Rows in memory."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows = sorted(rows)

    @property
    def size_bytes(self) -> int:
        return ROW_BYTES * (1 + len(self._rows))

    def behind(self, start: Start | None, limit: int) -> Sequence[Row]:
        first = 0 if start is None else bisect_left(self._rows, start)
        return self._rows[first : first + limit]


class Spool:
    """Rows in a file, and places by their keys' tokens, of two kinds."""

    def __init__(self) -> None:
        self._file = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._file.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -2048;"
            "CREATE TABLE rows (at, adds INT, place INT, PRIMARY KEY (at, adds)) WITHOUT ROWID;"
            "CREATE TABLE places (kind INT, token BLOB, place INT, PRIMARY KEY (kind, token))"
            " WITHOUT ROWID;"
            "BEGIN"
        )

    def __del__(self) -> None:
        self._file.close()

    @property
    def size_bytes(self) -> int:
        return FILE_BYTES

    def add(self, rows: Iterable[Row]) -> None:
        self._file.executemany("INSERT INTO rows VALUES (?, ?, ?)", rows)

    def behind(self, start: Start | None, limit: int) -> Sequence[Row]:
        found = self._file.execute(
            "SELECT at, adds, place FROM rows WHERE (at, adds) >= (?, ?) ORDER BY at, adds LIMIT ?",
            (*(start or (-1, False)), limit),
        )
        return [Row(at, bool(adds), place) for at, adds, place in found]

    def remember(self, kind: int, places: Iterable[tuple[bytes, int]]) -> None:
        rows = ((kind, token, place) for token, place in places)
        self._file.executemany("INSERT OR REPLACE INTO places VALUES (?, ?, ?)", rows)

    def recall(self, kind: int, token: bytes) -> int | None:
        found = self._file.execute(
            "SELECT place FROM places WHERE kind = ? AND token = ?", (kind, token)
        ).fetchone()
        return None if found is None else int(found[0])

    def forget(self, kind: int, token: bytes) -> None:
        self._file.execute("DELETE FROM places WHERE kind = ? AND token = ?", (kind, token))

    def some(self, kind: int) -> list[tuple[bytes, int]]:
        return self._file.execute(
            "SELECT token, place FROM places WHERE kind = ? LIMIT ?", (kind, _SOME)
        ).fetchall()


class Gathering:
    """Takes rows in any order, and places by token: the last one given for a token counts.

    Moves to a file when both together are more than `most`.
    """

    def __init__(self, most: int = MOST_IN_MEMORY) -> None:
        self._most = most
        self._rows: list[Row] = []
        self._places: tuple[dict[bytes, int], ...] = ({}, {})
        self._spool: Spool | None = None

    def add(self, rows: Iterable[Row]) -> None:
        if self._spool is not None:
            self._spool.add(rows)
        else:
            self._rows += rows
            self._move_if_many()

    def remember(self, kind: int, places: Iterable[tuple[bytes, int]]) -> None:
        if self._spool is not None:
            self._spool.remember(kind, places)
        else:
            self._places[kind].update(places)
            self._move_if_many()

    def recall(self, kind: int, token: bytes) -> int | None:
        if self._spool is not None:
            return self._spool.recall(kind, token)
        return self._places[kind].get(token)

    def take(self, kind: int, token: bytes) -> int | None:
        """Recalls it, and forgets it."""
        if self._spool is None:
            return self._places[kind].pop(token, None)
        found = self._spool.recall(kind, token)
        if found is not None:
            self._spool.forget(kind, token)
        return found

    def some(self, kind: int) -> list[tuple[bytes, int]]:
        """Some of those remembered; none when there are no more."""
        return self._spool.some(kind) if self._spool else list(self._places[kind].items())[:_SOME]

    def rows(self) -> Rows:
        """What was added; nothing may be added after it."""
        return self._spool or Listed(self._rows)

    def _move_if_many(self) -> None:
        if len(self._rows) + sum(map(len, self._places)) <= self._most:
            return
        self._spool = Spool()
        self._spool.add(self._rows)
        for kind, places in enumerate(self._places):
            self._spool.remember(kind, places.items())
            places.clear()
        self._rows.clear()

"""An export: a log's contents or its whole history as lines of JSON, in one file.

```
{"format":"indelible-export","format_version":1,"kind":"entries","name":"config", …}
{"key":"theme","value":"dark","version":17}
{"check":{"lines":1000,"version":17,"of_version":42,"sha256":"…"}}
{"end":{"lines":1,"sha256":"…"}}
```

Owns the lines, and the digests that tell a file which was cut off or altered from a whole
one: a digest covers every byte before its line. Checks stand between, so that an export that
was killed goes on behind the last of them. An export of the same versions is the same, byte
for byte. It is in clear, and its digests are no signature. Knows nothing of the service.
"""

import json
import os
from collections.abc import Generator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, Literal, Self

from indelible.errors import ExportError, IndelibleError
from indelible.modes import Mode, ModeName
from indelible.names import Name

Kind = Literal["entries", "commits"]

FORMAT = "indelible-export"
FORMAT_VERSION = 1
CHECK_LINES = 1_000
CHECK_BYTES = 1 << 20
MAX_LINE_BYTES = 64 << 20  # a full commit is below a quarter of it, however it is spelled

_CHECK = b'{"check":'
_END = b'{"end":'


@dataclass(frozen=True, slots=True, kw_only=True)
class Heading:
    """The first line: what the file holds. `version` is the one it was exported at.

    `kind` is `entries` (the contents at that version) or `commits` (all up to it). `log_id`
    is in hexadecimal.
    """

    kind: Kind
    name: Name
    group: str
    log_id: str
    key_mode: ModeName
    value_mode: ModeName
    version: int

    def members(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "kind": self.kind,
            "name": self.name,
            "group": self.group,
            "log_id": self.log_id,
            "key_mode": self.key_mode,
            "value_mode": self.value_mode,
            "version": self.version,
        }

    @classmethod
    def of_line(cls, line: bytes) -> Self:
        """
        Raises:
            ValueError: another line.
        """
        members = _object(line)
        if members.pop("format", None) != FORMAT:
            raise ValueError("it does not begin with the heading of an export")
        found = members.pop("format_version", None)
        if found != FORMAT_VERSION:
            raise ValueError(f"format_version is {found!r}, this library reads {FORMAT_VERSION}")
        try:
            heading = cls(**members)
            Mode.named(heading.key_mode)
            Mode.named(heading.value_mode)
        except (TypeError, IndelibleError) as error:
            raise ValueError(f"a heading that this library cannot read: {error}") from None
        if heading.kind not in ("entries", "commits") or not is_whole(heading.version):
            raise ValueError("a heading that this library cannot read")
        return heading


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """How far a file goes: lines of entries or commits, and the last of them.

    That line is of `version`, and the `of_version`-th of it.
    """

    lines: int = 0
    version: int = 0
    of_version: int = 0

    def after(self, version: int) -> "Position":
        """The position behind one more line, of `version`."""
        of_version = self.of_version + 1 if version == self.version else 1
        return Position(lines=self.lines + 1, version=version, of_version=of_version)


class Draft:
    """An export that is being written, to a stream or, through `resumed`, to a file."""

    def __init__(self, file: BinaryIO, heading: Heading) -> None:
        self._file = file
        self.heading = heading
        self.position = Position()
        self._digest = sha256()
        self._begin_segment()
        self._write(_spelled(heading.members()))

    def _begin_segment(self) -> None:
        self._lines_unchecked = self._bytes_unchecked = 0

    @classmethod
    def resumed(cls, file: BinaryIO, heading: Heading) -> Self:
        """The draft that `file` holds the beginning of; cut back to its last good check.

        The file's own heading counts: it may be of an earlier version than `heading`.

        Raises:
            ExportError: the file holds another log's export, or none.
        """
        first = file.readline(MAX_LINE_BYTES)
        if _begins(heading, first):  # killed in its first line
            file.seek(0)
            file.truncate()
            return cls(file, heading)
        found = _same(first, heading)
        draft = cls.__new__(cls)
        draft._file, draft.heading, draft.position = file, found, Position()
        draft._digest = sha256(first)
        draft._begin_segment()
        draft._skip_checked(len(first))
        return draft

    def _skip_checked(self, end: int) -> None:
        """Takes over what good checks cover; the rest is cut off. `end` is the heading's."""
        digest = self._digest.copy()
        at = end
        while (line := self._file.readline(MAX_LINE_BYTES)).endswith(b"\n"):
            if line.startswith(_END):
                break
            at += len(line)
            position = _checked(line, digest.hexdigest()) if line.startswith(_CHECK) else None
            digest.update(line)
            if position is not None:
                self.position, self._digest, end = position, digest.copy(), at
        self._file.seek(end)
        self._file.truncate()

    def add(self, members: Mapping[str, Any]) -> None:
        """One line more; `members` has a `version`, which never falls."""
        line = _spelled(members)
        self._write(line)
        self.position = self.position.after(members["version"])
        self._lines_unchecked += 1
        self._bytes_unchecked += len(line)
        if self._lines_unchecked >= CHECK_LINES or self._bytes_unchecked >= CHECK_BYTES:
            at = self.position
            check = {"lines": at.lines, "version": at.version, "of_version": at.of_version}
            self._write(_spelled({"check": check | {"sha256": self._digest.hexdigest()}}))
            self._begin_segment()

    def end(self) -> str:
        """The last line; the digest that it holds."""
        digest = self._digest.hexdigest()
        self._write(_spelled({"end": {"lines": self.position.lines, "sha256": digest}}))
        self._file.flush()
        return digest

    def _write(self, line: bytes) -> None:
        self._file.write(line)
        self._digest.update(line)


def _begins(heading: Heading, line: bytes) -> bool:
    """Whether `line` is the beginning of this heading's, of whatever version."""
    if line.endswith(b"\n"):
        return False
    fixed, _, _ = _spelled(heading.members()).rpartition(b'"version":')
    return fixed.startswith(line) or line.startswith(fixed)


def _same(line: bytes, wanted: Heading) -> Heading:
    """The heading in `line`, which is one of the same log."""
    try:
        found = _heading(line)
    except ExportError as error:
        raise ExportError(f"the file is no unfinished export ({error}): choose another") from None
    ours, theirs = wanted.members(), found.members()
    for name in ("log_id", "kind"):
        if ours[name] != theirs[name]:
            raise ExportError(
                f"the unfinished export that is there is of another log or kind ({name} is "
                f"{theirs[name]!r}, not {ours[name]!r}): remove it, or choose another file"
            )
    return found


class Export:
    """A finished export in a file, found to be whole."""

    def __init__(self, path: str | Path) -> None:
        """Reads all of it, to compare its digest.

        Raises:
            ExportError: no export, cut off or altered; nothing is known of what it holds.
        """
        self.path = Path(path)
        self.heading, self.lines, self.digest = self._read_through()

    def _read_through(self) -> tuple[Heading, int, str]:
        lines = 0
        with self._open() as file:
            first = file.readline(MAX_LINE_BYTES)
            heading = self._heading(first)
            digest = sha256(first)
            for line in iter(lambda: file.readline(MAX_LINE_BYTES), b""):
                if line.startswith(_END):
                    self._check_end(line, lines, digest.hexdigest())
                    if file.read(1):
                        raise self._fault("goes on behind its end")
                    return heading, lines, digest.hexdigest()
                if line.startswith(_CHECK):
                    if _checked(line, digest.hexdigest()) is None:
                        raise self._fault(f"was altered, at or before line {lines + 1:,}")
                else:
                    lines += 1
                digest.update(line)
        raise self._fault(f"was cut off behind line {lines:,}")

    def _heading(self, line: bytes) -> Heading:
        try:
            return _heading(line)
        except ExportError as error:
            raise self._fault(f"is no export: {error}") from None

    def _check_end(self, line: bytes, lines: int, digest: str) -> None:
        if not line.endswith(b"\n"):
            raise self._fault(f"was cut off behind line {lines:,}")
        try:
            end = _object(line)["end"]
            if (end["lines"], end["sha256"]) == (lines, digest):
                return
        except (ValueError, TypeError, KeyError):
            pass
        raise self._fault("was altered: its last line is not of what stands before it")

    def rows(self) -> Generator[dict[str, Any], None, None]:
        """The lines of entries or commits, as objects.

        Raises:
            ExportError: it is not the file any more that it was.
        """
        count, digest = 0, sha256()
        with self._open() as file:
            digest.update(file.readline(MAX_LINE_BYTES))
            for line in iter(lambda: file.readline(MAX_LINE_BYTES), b""):
                if line.startswith(_END):
                    break
                digest.update(line)
                if not line.startswith(_CHECK):
                    count += 1
                    try:
                        yield _object(line)
                    except ValueError as error:
                        raise self._fault(f"has no object in line {count:,}: {error}") from None
        if digest.hexdigest() != self.digest:
            raise self._fault("was changed while it was read")

    def _open(self) -> BinaryIO:
        try:
            return self.path.open("rb")
        except OSError as error:
            raise ExportError(f"{self.path} cannot be read: {error.strerror}") from error

    def _fault(self, what: str) -> ExportError:
        return ExportError(f"{self.path} {what}")


def create_private(path: Path, *, unless: Path) -> BinaryIO:
    """Opens `path` to read and write, made with mode 0600 if it is not there; locked.

    Raises:
        ExportError: it cannot be opened, another process is writing it, or there is the file
            `unless`.
    """
    if unless.exists():
        raise ExportError(f"{unless} is there already: remove it, or choose another file")
    try:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b")
    except OSError as error:
        raise ExportError(f"{path} cannot be written: {error.strerror}") from error
    with suppress(ImportError):  # Windows keeps a second writer away by itself
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            raise ExportError(f"another process is writing {path}") from None
    return file


def is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _heading(line: bytes) -> Heading:
    try:
        return Heading.of_line(line)
    except ValueError as error:
        raise ExportError(str(error)) from None


def _checked(line: bytes, digest: str) -> Position | None:
    """What a check says, if its digest is the one of what stands before it."""
    try:
        check = dict(_object(line)["check"])
        return Position(**check) if check.pop("sha256") == digest else None
    except (ValueError, TypeError, KeyError):
        return None


def _spelled(members: Mapping[str, Any]) -> bytes:
    try:
        return _ENCODER.encode(members).encode() + b"\n"
    except ValueError as error:  # written by other means than this library
        version = members.get("version")
        raise ExportError(f"version {version} holds what JSON cannot spell: {error}") from None


def _object(line: bytes) -> dict[str, Any]:
    """
    Raises:
        ValueError: not an object of JSON.
    """
    try:
        members = _DECODER.decode(line.decode())
    except RecursionError:
        raise ValueError("nested too deep") from None
    if not isinstance(members, dict):
        raise ValueError("an object expected")
    return members


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


# Made once: a file has a million lines.
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)
_DECODER = json.JSONDecoder(parse_constant=_no_constant)

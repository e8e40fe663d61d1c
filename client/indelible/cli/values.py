"""Names, keys, values, versions and ranges, as they are typed.

A VALUE (or KEY) may be `-` or `@-`, which is read from stdin, or `@FILE`; `@@` begins one that
starts with a single @. Arguments can be seen by others on the machine, files and stdin cannot.
"""

import json
import re
import shlex
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from indelible.errors import RequestError
from indelible.modes import Mode
from indelible.names import Name
from indelible.spelling import from_json

STDIN = ("-", "@-")  # the second is what the command line makes of the first
_IN_QUOTES = "a string stands in double quotes"
_MAX_QUOTED = 60  # characters of what was typed that an error repeats

_RANGE = re.compile(r"(?:v?(\d+))?(\.\.)?(?:v?(\d+))?")
_AGE = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


class Typed:
    """What one command line says; stdin can be read once."""

    def __init__(self) -> None:
        self._stdin_for = ""

    def value(self, text: str, mode: Mode, what: str) -> Any:
        """`what` is said in errors: the argument's name.

        Raises:
            RequestError: not readable, or not of this mode.
        """
        if text in STDIN:
            return _of_bytes(self._stdin(what), mode, what)
        if text.startswith("@@"):
            text = text[1:]
        elif text.startswith("@"):
            return _of_bytes(_file(text[1:], what), mode, what)
        return _of_text(text, mode, what)

    def _stdin(self, what: str) -> bytes:
        if self._stdin_for:
            raise RequestError(f"{what} is -, but stdin was read for {self._stdin_for} already")
        self._stdin_for = what
        return sys.stdin.buffer.read()


def _file(name: str, what: str) -> bytes:
    if not name:
        raise RequestError(f"{what} is @ without a file's name; a lone @ is written @@")
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise RequestError(
            f"{what} is to be read from {name}, which cannot be read: {error.strerror}; "
            "a value that begins with @ is written @@…"
        ) from error


def _of_bytes(data: bytes, mode: Mode, what: str) -> Any:
    if mode is Mode.BINARY:
        return data
    try:
        text = data.decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise RequestError(f"{what} is not UTF-8 (byte {error.start})") from None
    return text if mode is Mode.STRING else _of_json(text, mode, what, _IN_QUOTES)


def _of_text(text: str, mode: Mode, what: str) -> Any:
    if mode is Mode.STRING:
        return text
    if mode is Mode.BINARY:
        return _meant(text, mode, what)
    quoted = shlex.quote(json.dumps(text, ensure_ascii=False))
    hint = f"a string is written {quoted}" if len(quoted) <= _MAX_QUOTED else _IN_QUOTES
    return _of_json(text, mode, what, hint)


def _of_json(text: str, mode: Mode, what: str, hint: str) -> Any:
    try:
        spelled = json.loads(text)
    except (ValueError, RecursionError) as error:
        # The decoder's own words: they name a place, and never quote the text.
        raise RequestError(
            f"{what} is not JSON ({error}), which values of mode {mode.word} are: {hint}"
        ) from None
    return _meant(spelled, mode, what)


def _meant(spelled: Any, mode: Mode, what: str) -> Any:
    try:
        return from_json(spelled, mode)
    except RequestError as error:
        raise RequestError(f"{what}: {error}") from None


def log_name(text: str) -> Name:
    """A name; `["a", "b"]` is one of parts."""
    if text.startswith("["):
        try:
            parts = json.loads(text)
        except (ValueError, RecursionError):
            return text
        if isinstance(parts, list) and all(isinstance(part, str) for part in parts):
            return parts
    return text


def name_text(name: Name | None) -> str:
    """How `log_name` reads it; `?` for one that another master key sealed."""
    if name is None:
        return "?"
    return name if isinstance(name, str) else json.dumps(list(name), ensure_ascii=False)


def version_range(text: str) -> tuple[int | None, int | None]:
    """A..B, A.., ..B or A; None where nothing stands.

    Raises:
        RequestError: none of these.
    """
    match = _RANGE.fullmatch(text)
    if match is None or not text:
        raise RequestError(f"{text!r} is no range of versions: A..B expected, as 12..15 or 12..")
    first, last = (None if group is None else int(group) for group in match.group(1, 3))
    return first, last


def time_ago(text: str) -> datetime | None:
    """When it was `10m`, `90s`, `2h`, `1d` ago; None for anything else.

    Raises:
        RequestError: longer ago than calendars go.
    """
    match = _AGE.fullmatch(text)
    if match is None:
        return None
    try:
        return datetime.now(UTC) - timedelta(seconds=float(match[1]) * _SECONDS[match[2]])
    except OverflowError:
        raise RequestError(f"{text} ago is before all calendars") from None


def one_version(text: str) -> int:
    digits = text.removeprefix("v")
    if not digits.isdecimal():
        raise RequestError(f"{text!r} is neither a version (as v120) nor an age (as 10m)")
    return int(digits)

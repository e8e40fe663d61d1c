"""What a command prints: data on stdout in the form asked for, notes on stderr.

A terminal gets colours and no control characters of other people's; a file or a pipe gets the
data alone.
"""

import json
import os
import sys
import unicodedata
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, TextIO

from indelible.cli.options import Common
from indelible.modes import Mode
from indelible.spelling import to_json

STYLES = {"add": "32", "remove": "31", "head": "36", "dim": "2", "bold": "1", "bad": "31;1"}
PREFIX_STYLES = ("36", "33", "35", "34", "32", "31")


def wants_colour(stream: TextIO, choice: str) -> bool:
    if choice != "auto":
        return choice == "always"
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def printable(text: str) -> str:
    """`text` on one line, its control characters spelled out."""
    if text.isprintable():
        return text
    return "".join(
        repr(c)[1:-1] if unicodedata.category(c) in ("Cc", "Zl", "Zp", "Cf", "Cs") else c
        for c in text
    )


def shown(value: Any, mode: Mode) -> str:
    """A key or a value on one line."""
    if mode is Mode.STRING:
        return printable(value)
    if mode is Mode.BINARY:
        return str(to_json(value, mode))
    return printable(dumps(to_json(value, mode)))


def moment(time: datetime) -> str:
    """For people: in their own time zone, named."""
    return f"{time.astimezone():%Y-%m-%d %H:%M:%S%z}"


def plural(count: int, noun: str, nouns: str = "") -> str:
    return f"{count:,} {noun if count == 1 else nouns or noun + 's'}"


def dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(", ", ": "))


class Output:
    """`form` is text, json (one document) or ndjson (one line an item)."""

    def __init__(self, common: Common) -> None:
        self.form = common.output
        self._quiet = common.quiet
        self._colour = wants_colour(sys.stdout, common.color)

    @property
    def is_text(self) -> bool:
        return self.form == "text"

    def styled(self, text: str, style: str) -> str:
        code = STYLES.get(style, style)
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour else text

    def line(self, text: str) -> None:
        sys.stdout.write(text + "\n")

    def item(self, text: str, members: Mapping[str, Any]) -> None:
        """One thing, in the form asked for."""
        self.line(text if self.is_text else dumps(members))

    def items(self, items: Iterable[tuple[str, Mapping[str, Any]]], *, title: str = "") -> None:
        """Many things as they come; in the form json, one array of them. `title` stands above
        the first in the form text."""
        if self.form != "json":
            for text, members in items:
                if title and self.is_text:
                    self.line(title)
                title = ""
                self.item(text, members)
            return
        before = "["
        for _, members in items:
            sys.stdout.write(f"{before}\n{dumps(members)}")
            before = ","
        self.line("[]" if before == "[" else "\n]")

    def flush(self) -> None:
        sys.stdout.flush()

    def note(self, text: str) -> None:
        if not self._quiet:
            sys.stderr.write(text + "\n")

"""What an import writes behind the source of each of its commits: where it comes from.

`deploy [imported v12 of 3f2a9c1152ab77de, 2026-01-07T10:00:00.123Z]` is version 12 of the
log whose id begins so, made at that time with the source `deploy`; `v12 1/2` is the first
half of one that did not fit into one commit here. `[imported 4097-8192 of …]` holds those
entries of the export whose digest begins so. An import that was interrupted finds here how
far it got, so it needs no other memory.
"""

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime

_OF = r"of ([0-9a-f]{16})"
_TIME = r"(?:, (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z))?"
_VERSION = re.compile(rf"(?s:(.*?)) ?\[imported v([1-9]\d{{0,15}})(?: (\d+)/(\d+))? {_OF}{_TIME}\]")
_ENTRIES = re.compile(rf"(?s:(.*?)) ?\[imported (\d+)-(\d+) {_OF}\]")
_MAX_SOURCE_BYTES = 3_900  # what 4,096 bytes of sealed source have room for, and some


@dataclass(frozen=True, slots=True, kw_only=True)
class OfVersion:
    """The commit that a version was imported from: that one's log, source and time.

    `log_id` is the first 16 hexadecimal digits; `time` is None where it was not known.
    """

    log_id: str
    version: int
    time: datetime | None
    source: str
    part: int = 1
    parts: int = 1

    def spelled(self) -> str:
        """The source to commit with. A long original one loses its end to the mark."""
        part = f" {self.part}/{self.parts}" if self.parts > 1 else ""
        time = "" if self.time is None else f", {iso_of(self.time)}"
        mark = f"[imported v{self.version}{part} of {self.log_id}{time}]"
        source = _shortened(self.source, _MAX_SOURCE_BYTES - len(mark) - 1)
        return f"{source} {mark}" if source else mark

    @property
    def is_shortened(self) -> bool:
        return origin_of(self.spelled()) != self


@dataclass(frozen=True, slots=True, kw_only=True)
class OfEntries:
    """Which entries of an export a version holds, the first being 1.

    `digest` is the first 16 hexadecimal digits of the export's.
    """

    digest: str
    first: int
    last: int

    def spelled(self) -> str:
        return f"[imported {self.first}-{self.last} of {self.digest}]"


def origin_of(source: str) -> OfVersion | OfEntries | None:
    """What a version with this source was imported from; None if it was not.

    Whoever may write to a log can write this too: it tells no more than its writer does.
    """
    if match := _VERSION.fullmatch(source):
        text, version, part, parts, log_id, time = match.groups()
        found = OfVersion(log_id=log_id, version=int(version), time=_time_of(time), source=text)
        return replace(found, part=int(part), parts=int(parts)) if part else found
    if match := _ENTRIES.fullmatch(source):
        return OfEntries(digest=match[4], first=int(match[2]), last=int(match[3]))
    return None


def iso_of(time: datetime) -> str:
    """To the millisecond, as `2026-01-07T10:00:00.123Z`."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _time_of(text: str | None) -> datetime | None:
    try:
        return None if text is None else datetime.fromisoformat(text)
    except ValueError:  # as of the 31st of February
        return None


def _shortened(source: str, most_bytes: int) -> str:
    data = source.encode()
    if len(data) <= most_bytes:
        return source
    return data[: most_bytes - 3].decode(errors="ignore") + "…"

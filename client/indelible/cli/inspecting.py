"""`indelible stats` and `indelible doctor`: how a log does, and what stands in the way."""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from indelible.answers import Version
from indelible.cli.options import DEFAULT, Common, flag
from indelible.cli.output import Output, moment, plural
from indelible.cli.probing import Finding, Probe
from indelible.cli.reading import description_members
from indelible.cli.sessions import log_of
from indelible.cli.values import name_text
from indelible.errors import IndelibleError

_BLOCKS = " ▁▂▃▄▅▆▇█"
_MAX_MINUTES = 24 * 60


class UnhealthyError(IndelibleError):
    """Something that `doctor` looked at is not as it should be; it has said what."""


def stats(
    log: str,
    /,
    *,
    plot: Annotated[bool, flag("Draw versions and bytes per minute.")] = False,
    minutes: Annotated[
        int,
        Parameter(help="How far back, up to a day.", validator=Number(gte=1, lte=_MAX_MINUTES)),
    ] = 60,
    common: Common = DEFAULT,
) -> None:
    """Print how large a log is and how quickly it grows.

    Parameters
    ----------
    log
        The log's name.
    """
    output = Output(common)
    now = datetime.now(UTC)
    begin = now - timedelta(minutes=minutes)
    with log_of(common, log) as opened:
        found = opened.describe()
        recent = list(takewhile(lambda version: version.time > begin, opened.versions()))
        size = sum(version.stored_bytes for version in recent)
        members: dict[str, Any] = description_members(found) | {
            "minutes": minutes,
            "recent_versions": len(recent),
            "recent_bytes": size,
        }
        entries = plural(found.entries, "entry", "entries")
        lines = [
            f"{name_text(found.name)} at v{found.version}, {entries}",
            f"{plural(found.stored_bytes, 'byte')} of commits since {moment(found.created)}",
            f"last {minutes} min: {plural(len(recent), 'version')}, {plural(size, 'byte')}, "
            f"{len(recent) / minutes:.1f} versions a minute",
        ]
        if plot:
            lines += _plots(recent, begin, minutes)
        output.item("\n".join(lines), members)


def _plots(recent: list[Version], begin: datetime, minutes: int) -> Iterator[str]:
    """Two rows of columns, each column as many minutes as needed to fit the terminal."""
    width = max(10, min(minutes, shutil.get_terminal_size().columns - 20))
    span = minutes / width
    counts: Counter[int] = Counter()
    sizes: Counter[int] = Counter()
    for version in recent:
        column = min(width - 1, int((version.time - begin).total_seconds() / 60 / span))
        counts[column] += 1
        sizes[column] += version.stored_bytes
    for title, columns in (("versions/min", counts), ("bytes/min", sizes)):
        most = max(columns.values(), default=0)
        bars = "".join(_bar(columns[column], most) for column in range(width))
        yield f"{title:<13}{bars}  most {most / span:,.0f}"
    yield f"{'':<13}{f'-{minutes} min':<{width - 3}}now"


def _bar(value: int, most: int) -> str:
    return _BLOCKS[-(-value * (len(_BLOCKS) - 1) // most)] if most else _BLOCKS[0]


def doctor(*, common: Common = DEFAULT) -> None:
    """Look at everything between here and the service, and say how to mend what is wrong.

    Exit code 1 if anything is wrong.
    """
    output = Output(common)
    findings = []

    def found(finding: Finding) -> None:
        findings.append(finding)
        if output.is_text:
            sign = output.styled("✓", "add") if finding.ok else output.styled("✗", "bad")
            output.line(f"{sign} {finding.what}: {finding.seen}")
            if not finding.ok:
                output.line(f"    next: {finding.fix}")
            output.flush()

    _look(Probe(common), found)
    if not output.is_text:
        output.items(
            ("", {"what": f.what, "ok": f.ok, "seen": f.seen, "fix": f.fix}) for f in findings
        )
    wrong = sum(not finding.ok for finding in findings)
    if wrong:
        raise UnhealthyError(f"{wrong} of {plural(len(findings), 'check')} failed")


def _look(probe: Probe, found: Callable[[Finding], None]) -> None:
    """The first checks need those before them; the last ones need all of the first."""
    found(probe.libraries())
    for check in (probe.profile, probe.transport, probe.reachable):
        finding = check()
        found(finding)
        if not finding.ok:
            return
    for check in (probe.ready, probe.clock, probe.apikey):
        found(check())

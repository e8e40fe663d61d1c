"""Commands that read: ls, get, cat, diff, versions, history."""

import sys
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from indelible_protocol.errors import ErrorCode

from indelible.answers import Change, Description, Entry
from indelible.cli.options import AT_LEAST_0, DEFAULT, Common, flag
from indelible.cli.output import Output, moment, plural, shown
from indelible.cli.sessions import client_of, log_of, modes_of
from indelible.cli.values import Typed, name_text, version_range
from indelible.errors import NotFoundError, RequestError
from indelible.modes import Mode
from indelible.spelling import to_json

if TYPE_CHECKING:
    from indelible.blocking import Log

_COUNTED = 10_000  # changes held back so that the first line can tell their number

At = Annotated[int | None, Parameter(help="As it was at this version.", validator=AT_LEAST_0)]
Count = Annotated[
    int | None,
    Parameter(name=["--count", "-n"], help="At most so many.", validator=AT_LEAST_0),
]


def ls(
    *,
    group: Annotated[str | None, Parameter(help="Only the logs of this group.")] = None,
    common: Common = DEFAULT,
) -> None:
    """List logs, oldest first. A name that another master key sealed is shown as ?."""
    output = Output(common)
    with client_of(common) as client:
        title = output.styled(_ROW.format("VERSION", "ENTRIES", "BYTES", "NAME"), "dim")
        output.items(map(_listed, client.logs(group=group)), title=title)


_ROW = "{:>8} {:>8} {:>11}  {}"


def _listed(found: Description) -> tuple[str, dict[str, Any]]:
    name = name_text(found.name) + (f"  [{found.group}]" if found.group else "")
    if found.kind == "opaque":
        name += "  (opaque)"
    row = _ROW.format(f"v{found.version}", found.entries, f"{found.stored_bytes:,}", name)
    return row, description_members(found)


def description_members(found: Description) -> dict[str, Any]:
    return {
        "name": found.name,
        "group": found.group,
        "kind": found.kind,
        "version": found.version,
        "entries": found.entries,
        "stored_bytes": found.stored_bytes,
        "created": found.created.isoformat(),
        "updated": found.updated.isoformat(),
        "log_id": found.log_id,
    }


def get(
    log: str,
    /,
    *keys: str,
    at: At = None,
    raw: Annotated[bool, flag("The value's own bytes, and nothing after them.")] = False,
    common: Common = DEFAULT,
) -> None:
    """Print the value of a key; of several, each with its key. Exit code 3 if one has none.

    Parameters
    ----------
    log
        The log's name.
    keys
        KEY [KEY ...]; each may be - (stdin) or @FILE.
    """
    if not keys or (raw and len(keys) > 1):
        raise RequestError("one KEY expected" if raw else "which KEY?")
    output, typed, missing = Output(common), Typed(), list[str]()
    with log_of(common, log) as opened:
        modes = modes_of(opened)
        wanted = [typed.value(text, modes[0], "KEY") for text in keys]
        at = opened.version if at is None and len(keys) > 1 else at
        found = _found(opened, wanted, at, missing)
        if len(keys) > 1:
            output.items(
                (
                    f"{shown(entry.key, modes[0])}\t{_value_text(entry.value, modes[1])}",
                    _entry_members(*entry, modes),
                )
                for entry in found
            )
        else:
            for entry in found:
                if raw:
                    sys.stdout.buffer.write(modes[1].encode(entry.value))
                else:
                    text = _value_text(entry.value, modes[1])
                    output.item(text, _entry_members(*entry, modes))
    if missing:
        when = "" if at is None else f" at v{at}"
        raise NotFoundError(
            f"{log} holds nothing under {', '.join(missing)}{when}",
            code=ErrorCode.NONEXISTENT_KEY,
        )


def _found(log: "Log", keys: list[Any], at: int | None, missing: list[str]) -> Iterator[Entry]:
    """What the keys hold; those that hold nothing go to `missing`."""
    for key in keys:
        entry = log.entry(key, at=at)
        if entry is None:
            missing.append(shown(key, Mode.named(log.key_mode)))
        else:
            yield entry


def _value_text(value: Any, mode: Mode) -> str:
    """Strings as they are where no terminal would obey them."""
    if mode is Mode.STRING and not sys.stdout.isatty():
        return str(value)
    return shown(value, mode)


def _entry_members(key: Any, value: Any, version: int, modes: tuple[Mode, Mode]) -> dict[str, Any]:
    return {"key": to_json(key, modes[0]), "value": to_json(value, modes[1]), "version": version}


def cat(log: str, /, *, at: At = None, common: Common = DEFAULT) -> None:
    """Print every entry, in the order in which they were last changed.

    Parameters
    ----------
    log
        The log's name.
    """
    output = Output(common)
    with log_of(common, log) as opened:
        modes = modes_of(opened)
        entries = opened if at is None else opened.at(at)
        output.items(
            (
                f"{shown(key, modes[0])}\t{shown(value, modes[1])}",
                _entry_members(key, value, version, modes),
            )
            for key, value, version in entries
        )


def diff(
    log: str,
    versions: Annotated[str | None, Parameter(name="A..B", allow_leading_hyphen=True)] = None,
    /,
    *,
    stat: Annotated[bool, flag("Only how many keys came, went and changed.")] = False,
    common: Common = DEFAULT,
) -> None:
    """Print what leads from one version to another; backwards if A is the later one.

    Parameters
    ----------
    log
        The log's name.
    versions
        As 12..15 or 12.. (to the current one); without it, what the last commit changed.
    """
    output = Output(common)
    with log_of(common, log) as opened:
        current = opened.version
        first, last = (current - 1, None) if versions is None else version_range(versions)
        first = max(first or 0, 0)
        last = current if last is None else last
        changes = iter(opened.diff(first, last))
        if stat:
            _print_counts(output, first, last, changes)
            return
        modes = modes_of(opened)
        if not output.is_text:
            output.items(("", change_members(change, modes)) for change in changes)
            return
        held = list(islice(changes, _COUNTED))
        more = "" if len(held) < _COUNTED else "at least "
        _print_head(output, first, last, f"{more}{plural(len(held), 'change')}")
        for change in chain(held, changes):
            output.line(change_line(output, change, modes))


def change_members(change: Change, modes: tuple[Mode, Mode]) -> dict[str, Any]:
    return {"op": change.op, **_entry_members(change.key, change.value, change.version, modes)}


def change_line(output: Output, change: Change, modes: tuple[Mode, Mode]) -> str:
    sign = "+" if change.op == "add" else "-"
    text = f"{sign} {shown(change.key, modes[0])}\t{shown(change.value, modes[1])}"
    return output.styled(text, change.op)


def _print_head(output: Output, first: int, last: int, rest: str) -> None:
    versions = plural(abs(last - first), "version")
    output.line(output.styled(f"v{first}..v{last} ({versions}, {rest})", "head"))


def _print_counts(output: Output, first: int, last: int, changes: Iterable[Change]) -> None:
    added, removed, changed, before = 0, 0, 0, None
    for change in changes:
        if change.op == "remove":
            removed += 1
        elif before is not None and before.op == "remove" and before.key == change.key:
            removed, changed = removed - 1, changed + 1
        else:
            added += 1
        before = change
    counts = {"from": first, "to": last, "added": added, "removed": removed, "changed": changed}
    text = f"v{first}..v{last}: {added:,} added, {removed:,} removed, {changed:,} changed"
    output.item(text, counts)


def versions(log: str, /, *, count: Count = None, common: Common = DEFAULT) -> None:
    """List the commits that took effect, newest first: when, by whom, from which source.

    Parameters
    ----------
    log
        The log's name.
    """
    output = Output(common)
    with log_of(common, log) as opened:
        output.items(islice(_version_rows(output, opened), count))
        _note_forgotten(output, opened)


def _version_rows(output: Output, log: "Log") -> Iterator[tuple[str, dict[str, Any]]]:
    for each in log.versions():
        source = f"  {shown(each.source, Mode.STRING)}" if each.source else ""
        text = (
            f"{output.styled(f'v{each.version}', 'head')}  {moment(each.time)}  "
            f"{plural(each.changes, 'change')}, {each.stored_bytes:,} bytes{source}"
        )
        yield (
            text,
            {
                "version": each.version,
                "time": each.time.isoformat(),
                "source": each.source,
                "writer": each.writer,
                "commands": each.commands,
                "changes": each.changes,
                "stored_bytes": each.stored_bytes,
            },
        )


def history(log: str, key: str, /, *, count: Count = None, common: Common = DEFAULT) -> None:
    """List what a key has held, newest first.

    Parameters
    ----------
    log
        The log's name.
    key
        The key; it may be - (stdin) or @FILE.
    """
    output = Output(common)
    with log_of(common, log) as opened:
        key_mode, value_mode = modes_of(opened)
        steps = opened.history(Typed().value(key, key_mode, "KEY"))
        output.items(
            (
                f"{output.styled(f'v{step.version}', 'head')}  "
                f"{moment(step.time)}  "
                + (
                    output.styled("removed", "remove")
                    if step.op == "remove"
                    else shown(step.value, value_mode)
                ),
                {
                    "op": step.op,
                    "version": step.version,
                    "time": step.time.isoformat(),
                    "value": None if step.op == "remove" else to_json(step.value, value_mode),
                },
            )
            for step in islice(steps, count)
        )
        _note_forgotten(output, opened)


def _note_forgotten(output: Output, log: "Log") -> None:
    """What such a list cannot show."""
    first = log.describe().first_version if output.is_text else 0
    if first > 1:
        output.note(f"-- what came before v{first} is forgotten --")

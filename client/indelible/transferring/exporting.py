"""From a log to an export, in bounded memory; one that was killed goes on where it was."""

import os
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Literal

from indelible.answers import Description
from indelible.errors import ExportError, NotFoundError, VerificationError
from indelible.handle import Handle
from indelible.log import AsyncLog
from indelible.modes import Mode
from indelible.transferring.exports import Draft, Heading, Kind, create_private
from indelible.transferring.originals import entry_members, step_members
from indelible.transferring.steps import entries_at, steps_after

Phase = Literal["exporting", "importing", "comparing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a transfer is. `unit` says what `done` and `total` count; None if not known.

    `resumed` of what is done was done before this try.
    """

    phase: Phase
    done: int
    total: int | None
    unit: Literal["entries", "versions"]
    resumed: int = 0


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """`lines` counts entries, or commits; `resumed` of them stood in the file already."""

    kind: Kind
    version: int
    lines: int
    resumed: int
    digest: str


async def export_log(
    log: AsyncLog,
    target: str | Path | BinaryIO,
    *,
    history: bool = False,
    at: int | None = None,
    on_progress: OnProgress | None = None,
) -> Exported:
    """Writes the contents of the log, or its `history`, as lines of JSON: in clear.

    At the current version, or `at` one; of a log that has forgotten its first versions, at one
    from its first on, and without its history. A file is written as `TARGET.partial`, which becomes
    `TARGET` when it is whole; called again after it was killed, it goes on with what stands
    there, to the version that was current when it began. A stream (opened `"wb"`) is written
    from its beginning.

    Raises:
        ExportError: TARGET is there already, or TARGET.partial is something else.
        NotFoundError: there is no version `at`, or it is forgotten; or the beginning of the
            history is.
        VerificationError: the service gave other entries than it has.
    """
    found = await log.describe()
    heading = _heading(log, found, "commits" if history else "entries", at)
    if not isinstance(target, str | Path):
        return await _export(log._handle, Draft(target, heading), found, on_progress)
    path = Path(target)
    partial = path.with_name(path.name + ".partial")
    with create_private(partial, unless=path) as file:
        draft = Draft.resumed(file, heading)
        if at is not None and draft.heading.version != at:
            raise ExportError(
                f"{partial} is an export at version {draft.heading.version}, not {at}: "
                "remove it, or choose another file"
            )
        if draft.heading.version < found.first_version:
            raise ExportError(
                f"{partial} is an export at version {draft.heading.version}, and those before "
                f"{found.first_version} have been forgotten since: remove it, and begin again"
            )
        done = await _export(log._handle, draft, found, on_progress)
        os.fsync(file.fileno())
        _rename(partial, path)
    return done


def _rename(partial: Path, path: Path) -> None:
    try:
        os.link(partial, path)  # fails if somebody made it meanwhile
    except FileExistsError:
        raise ExportError(f"{path} is there by now: the export is in {partial}") from None
    except OSError:  # a file system without links
        partial.replace(path)
        return
    with suppress(OSError):
        partial.unlink()


def _heading(log: AsyncLog, found: Description, kind: Kind, at: int | None) -> Heading:
    first = found.first_version
    if first > 1 and kind == "commits":
        raise NotFoundError(
            f"the versions before {first} of {log.name!r} are forgotten, and its history is not "
            "whole: export what it holds, without its history"
        )
    if at is not None and at < first:
        raise NotFoundError(
            f"the versions before {first} of {log.name!r} are forgotten: export it at version "
            f"{first} or later, not at {at}"
        )
    if at is not None and at > found.version:
        raise NotFoundError(f"{log.name!r} is at version {found.version}, there is no {at} yet")
    return Heading(
        kind=kind,
        name=log.name,
        group=log.group,
        log_id=log.log_id,
        key_mode=log.key_mode,
        value_mode=log.value_mode,
        version=found.version if at is None else at,
    )


async def _export(
    handle: Handle, draft: Draft, found: Description, on_progress: OnProgress | None
) -> Exported:
    heading, resumed = draft.heading, draft.position
    # How many entries an earlier version had, nobody tells: then it goes by versions.
    by_entries = heading.kind == "entries" and heading.version == found.version
    progress = Progress(
        phase="exporting",
        done=resumed.lines if by_entries else resumed.version,
        total=found.entries if by_entries else heading.version,
        unit="entries" if by_entries else "versions",
        resumed=resumed.lines if by_entries else resumed.version,
    )
    tell = on_progress or (lambda progress: None)
    tell(progress)
    if heading.kind == "commits":
        written = _write_commits(handle, draft)
    else:
        written = _write_entries(handle, draft, found.first_version)
    async with aclosing(written) as versions:
        async for version in versions:
            tell(replace(progress, done=draft.position.lines if by_entries else version))
    lines = draft.position.lines
    if (by_entries or heading.kind == "commits") and lines != progress.total:
        raise VerificationError(
            f"the service told of {progress.total:,} {heading.kind} in {handle.name!r}, and gave "
            f"{lines:,}",
            evidence={"description": found},
        )
    return Exported(
        kind=heading.kind,
        version=heading.version,
        lines=lines,
        resumed=resumed.lines,
        digest=draft.end(),
    )


async def _write_entries(handle: Handle, draft: Draft, first: int) -> AsyncGenerator[int, None]:
    """Yields the versions up to which all is written."""
    at, modes = draft.position, _modes(handle)
    # The last version may be there in part.
    after, skip = max(at.version - 1, 0), at.of_version
    async with aclosing(entries_at(handle, draft.heading.version, after, first=first)) as scans:
        async for scanned in scans:
            for entry in scanned.entries[skip:]:
                draft.add(entry_members(entry.key, entry.value, entry.version, modes))
            skip = max(0, skip - len(scanned.entries))
            yield scanned.version


async def _write_commits(handle: Handle, draft: Draft) -> AsyncGenerator[int, None]:
    modes = _modes(handle)
    async with aclosing(
        steps_after(handle, draft.position.version, draft.heading.version)
    ) as steps:
        async for step in steps:
            draft.add(step_members(step, modes))
            yield step.version


def _modes(handle: Handle) -> tuple[Mode, Mode]:
    return handle.membership.key_mode, handle.membership.value_mode

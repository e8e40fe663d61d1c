"""Whether a log holds what it was imported from: entry by entry, or version by version.

Reads both sides once more, in pages, and compares the bytes of keys and values.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from indelible.codec import in_turns
from indelible.commands import Delete, Upsert
from indelible.errors import VerificationError
from indelible.handle import Handle
from indelible.transferring.marks import OfEntries, OfVersion, origin_of
from indelible.transferring.originals import Original, Row
from indelible.transferring.steps import Step, steps_after
from indelible.transferring.streams import chunks, in_order

CHUNK_ROWS = 1_000

_Changes = list[tuple[bytes, bytes | None]]  # of keys; None where one was removed


async def differing(handle: Handle, rows: Sequence[Row]) -> list[int]:
    """Which of `rows` the log does not hold now."""
    codec = handle.codec
    tokens = await in_turns(rows, lambda row: codec.token(row[0]))
    found = {
        entry.key: entry async for page in handle.remote.entries(tokens, None) for entry in page
    }
    held = [found[token] for token in tokens if token in found]
    values = await handle.opened(held, lambda codec, entry: codec.value(entry.key, entry))
    value_of = {
        entry.key: codec.value_bytes(value) for entry, value in zip(held, values, strict=True)
    }
    return [
        index
        for index, (token, row) in enumerate(zip(tokens, rows, strict=True))
        if value_of.get(token) != codec.value_bytes(row[1])
    ]


async def check_rows(
    handle: Handle, original: Original, *, alone: bool
) -> AsyncGenerator[int, None]:
    """Yields how many of the original's entries were found in the log.

    Raises:
        VerificationError: one was not; or, if they are `alone` there, there are others.
    """
    done = 0

    async def compared(rows: list[Row]) -> tuple[int, int]:
        return len(rows), len(await differing(handle, rows))

    counts = in_order(compared, chunks(original.rows(0), CHUNK_ROWS))
    async with aclosing(counts):
        async for count, wrong in counts:
            if wrong:
                raise VerificationError(
                    f"of {count:,} entries after the {done:,}th, {wrong:,} are not in the log "
                    f"{handle.name!r} as they were imported: somebody else writes to it, or the "
                    "service is wrong"
                )
            done += count
            yield done
    entries = (await handle.remote.describe()).entries
    if alone and entries != done:
        raise VerificationError(
            f"the log {handle.name!r} holds {entries:,} entries, {done:,} were imported: two of "
            "their keys are the same here, or somebody else writes to it"
        )


async def check_steps(
    handle: Handle, original: Original, version: int
) -> AsyncGenerator[int, None]:
    """Yields the versions of the original whose changes the log has, it being at `version`.

    Raises:
        VerificationError: a version of the log changed something else than its original, or
            came from elsewhere.
    """
    at = 0
    async with aclosing(_arrivals(handle, version)) as arrivals:
        arrival = await anext(arrivals, None)
        async with aclosing(original.steps(0)) as steps:
            async for step in steps:
                changes = await _encoded(handle, step.changes)
                if arrival is not None and arrival.mark.version == step.version:
                    if arrival.changes != changes or arrival.mark != _as_marked(
                        original, step, arrival.mark
                    ):
                        raise _unlike(handle, step)
                    at = arrival.at
                    arrival = await anext(arrivals, None)
                elif not await _holds(handle, changes, at):
                    raise _unlike(handle, step)
                yield step.version
        if arrival is not None:
            raise VerificationError(
                f"the log {handle.name!r} has a version {arrival.at} that its original does not "
                "have: somebody else writes to it, or the service is wrong"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Arrival:
    """What of an original's version the log has: at its version `at`, and those before it
    that hold other parts."""

    at: int
    mark: OfVersion
    changes: _Changes


async def _arrivals(handle: Handle, version: int) -> AsyncGenerator[_Arrival, None]:
    before: _Changes = []
    async with aclosing(steps_after(handle, 0, version)) as steps:
        async for step in steps:
            if not step.changes:  # a control commit of this log's
                continue
            mark = origin_of(step.source)
            if not isinstance(mark, OfVersion):
                raise VerificationError(
                    f"version {step.version} of the log {handle.name!r} was not imported"
                )
            changes = before + await _encoded(handle, step.changes)
            if mark.part == mark.parts:
                yield _Arrival(at=step.version, mark=mark, changes=changes)
            before = changes if mark.part < mark.parts else []


async def _encoded(handle: Handle, changes: Sequence[Upsert | Delete]) -> _Changes:
    codec = handle.codec

    def encoded(change: Upsert | Delete) -> tuple[bytes, bytes | None]:
        value = codec.value_bytes(change.value) if isinstance(change, Upsert) else None
        return codec.key_bytes(change.key), value

    return await in_turns(changes, encoded)


def _as_marked(original: Original, step: Step, found: OfVersion) -> OfVersion | OfEntries | None:
    """What `found` should be, a source that was too long for it included."""
    mark = OfVersion(
        log_id=original.id,
        version=step.version,
        time=step.time,
        source=step.source,
        part=found.part,
        parts=found.parts,
    )
    return origin_of(mark.spelled())


async def _holds(handle: Handle, changes: _Changes, at: int) -> bool:
    """Whether `changes` had no effect on the log at `at`: so it is when the original had
    spelled a value in another way, and came back to it."""
    if not changes:
        return True
    wanted = {handle.membership.keys.token(key): value for key, value in changes}
    found = {
        entry.key: handle.codec.value_bytes(handle.codec.value(entry.key, entry))
        async for page in handle.remote.entries(list(wanted), at)
        for entry in page
    }
    return all(found.get(token) == value for token, value in wanted.items())


def _unlike(handle: Handle, step: Step) -> VerificationError:
    return VerificationError(
        f"version {step.version} of the original is not in the log {handle.name!r} as it was "
        "imported: somebody else writes to it, or the service is wrong"
    )

"""Into a sealed log: entries by the batch, or a history commit by commit; each exactly once.

How far an import got is read from the log itself: each of its commits says in its source
what it holds, and enters only at the version that is its own. In the end the log is compared
with the original. Owns the order of all that; knows nothing of where the original is kept.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Literal

from indelible_protocol.commands import Command as SealedCommand
from indelible_protocol.commands import encode
from indelible_protocol.errors import ErrorCode

from indelible.answers import Commit
from indelible.client import AsyncClient
from indelible.codec import in_turns
from indelible.commands import Command, Upsert
from indelible.errors import ConflictError, NotFoundError, OutcomeUnknownError, RequestError
from indelible.handle import Handle
from indelible.log import AsyncLog
from indelible.names import Name
from indelible.opening import Membership
from indelible.transferring.comparing import CHUNK_ROWS, check_rows, check_steps, differing
from indelible.transferring.exporting import OnProgress, Progress
from indelible.transferring.marks import OfEntries, OfVersion, origin_of
from indelible.transferring.originals import Original
from indelible.transferring.steps import Step, steps_after
from indelible.transferring.streams import ahead, chunks
from indelible.writing import Writer, draft


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What an import came to. `done` counts entries or versions (`unit` says which), `resumed`
    those of them that an earlier try had brought; `version` is the log's now.

    `shortened` counts sources that lost their end to the mark of where they come from.
    """

    name: Name
    version: int
    unit: Literal["entries", "versions"]
    done: int
    resumed: int
    commits: int
    shortened: int


@dataclass(slots=True, kw_only=True)
class _Packing:
    """Commands that will be one commit."""

    membership: Membership
    commands: list[Command] = field(default_factory=list)
    sealed: list[SealedCommand] = field(default_factory=list)
    size_bytes: int = 0

    def fits(self, sealed: SealedCommand) -> bool:
        """True of any command while there is none: the service has the last word."""
        return not self.sealed or (
            len(self.sealed) < self.membership.max_commands
            and self.size_bytes + len(encode(sealed)) <= self.membership.max_commit_bytes
        )

    def add(self, command: Command, sealed: SealedCommand) -> None:
        self.commands.append(command)
        self.sealed.append(sealed)
        self.size_bytes += len(encode(sealed))


@dataclass(frozen=True, slots=True)
class _Batch:
    """One commit to be: `done` is how far the original is in once it is."""

    packing: _Packing
    _: KW_ONLY
    source: str
    done: int
    shortened: bool = False


@dataclass(slots=True, kw_only=True)
class _Import:
    """One import under way."""

    log: AsyncLog
    original: Original
    tell: OnProgress
    done: int = 0  # of the original
    expected: int | None = None  # the version that the log is at; None where others may write
    commits: int = 0
    shortened: int = 0
    writer: Writer = field(init=False)

    def __post_init__(self) -> None:
        self.writer = Writer(self.handle)

    @property
    def handle(self) -> Handle:
        return self.log._handle

    async def run(self, *, into_existing: bool) -> Imported:
        await self._place(into_existing=into_existing)
        resumed = self.done
        progress = Progress(
            phase="importing",
            done=resumed,
            total=self.original.total,
            unit="versions" if self.original.kind == "commits" else "entries",
            resumed=resumed,
        )
        self.tell(progress)
        async with aclosing(ahead(self._batches())) as batches:
            async for batch in batches:
                await self._write(batch)
                self.tell(replace(progress, done=batch.done))
        compared = await self._compare(replace(progress, phase="comparing", done=0, resumed=0))
        return Imported(
            name=self.log.name,
            version=await self.log.version,
            unit=progress.unit,
            done=compared,
            resumed=resumed,
            commits=self.commits,
            shortened=self.shortened,
        )

    async def _place(self, *, into_existing: bool) -> None:
        """Finds out where to begin.

        Raises:
            ConflictError: the log holds something else than the beginning of this import.
        """
        version = await self.log.version
        if into_existing:
            if self.original.kind == "commits":
                raise RequestError(
                    "a history is imported into an empty log: in another its versions would not "
                    "be what they were"
                )
            return
        self.expected = version
        if version == 0:
            return
        first, last = await self._origin_at(1), await self._origin_at(version)
        match first, last:
            case OfEntries(first=1), OfEntries() if (
                self.original.kind == "entries" and first.digest == last.digest == self.original.id
            ):
                self.done = last.last
            case OfVersion(), OfVersion() if (
                self.original.kind == "commits" and first.log_id == last.log_id == self.original.id
            ):
                # Parts of an unfinished one that are there already have no effect again.
                self.done = last.version - (last.part < last.parts)
            case _:
                raise ConflictError(
                    f"the log {self.log.name!r} is not empty (version {version}) and not the "
                    "beginning of this import: choose another name, or say into_existing "
                    "(--into-existing) to add entries to what it holds",
                    current_version=version,
                )

    async def _origin_at(self, version: int) -> OfVersion | OfEntries | None:
        async with aclosing(steps_after(self.handle, version - 1, version)) as steps:
            async for step in steps:
                return origin_of(step.source)
        return None

    # Writing

    def _batches(self) -> AsyncGenerator[_Batch, None]:
        if self.original.kind == "commits":
            return self._batches_of_steps()
        return self._batches_of_rows()

    async def _batches_of_steps(self) -> AsyncGenerator[_Batch, None]:
        async with aclosing(self.original.steps(self.done)) as steps:
            async for step in steps:
                if not step.changes:  # a control commit: the original's members, not ours
                    continue
                for batch in await self._batches_of(step):
                    yield batch

    async def _batches_of(self, step: Step) -> list[_Batch]:
        """One, unless sealing made the step too large for a commit."""
        parts = [_Packing(membership=self.handle.membership)]
        for command, sealed in await self._sealed(step.changes, f"version {step.version}"):
            if not parts[-1].fits(sealed):
                parts.append(_Packing(membership=self.handle.membership))
            parts[-1].add(command, sealed)
        batches = []
        for number, part in enumerate(parts, 1):
            mark = OfVersion(
                log_id=self.original.id,
                version=step.version,
                time=step.time,
                source=step.source,
                part=number,
                parts=len(parts),
            )
            shortened = mark.is_shortened
            batches.append(
                _Batch(part, source=mark.spelled(), done=step.version, shortened=shortened)
            )
        return batches

    async def _batches_of_rows(self) -> AsyncGenerator[_Batch, None]:
        """Full ones. Where others may write, of those entries alone that are not there yet."""
        packing = _Packing(membership=self.handle.membership)
        begun = seen = self.done
        async with aclosing(chunks(self.original.rows(self.done), CHUNK_ROWS)) as parts:
            async for rows in parts:
                wanted: Sequence[int] = range(len(rows))
                if self.expected is None:
                    wanted = await differing(self.handle, rows)
                commands = [Upsert(*rows[index]) for index in wanted]
                sealed = await self._sealed(commands, f"an entry after the {seen:,}th")
                for index, each in zip(wanted, sealed, strict=True):
                    if not packing.fits(each[1]):
                        yield self._batch_of_rows(packing, begun + 1, seen + index)
                        begun = seen + index
                        packing = _Packing(membership=self.handle.membership)
                    packing.add(*each)
                seen += len(rows)
        if packing.commands:
            yield self._batch_of_rows(packing, begun + 1, seen)

    def _batch_of_rows(self, packing: _Packing, first: int, last: int) -> _Batch:
        mark = OfEntries(digest=self.original.id, first=first, last=last)
        return _Batch(packing, source=mark.spelled(), done=last)

    async def _sealed(
        self, commands: Sequence[Command], where: str
    ) -> list[tuple[Command, SealedCommand]]:
        codec = self.handle.codec
        try:
            sealed = await in_turns(commands, codec.sealed)
        except RequestError as error:
            raise RequestError(f"{where}: {error}", code=error.code) from error
        return list(zip(commands, sealed, strict=True))

    async def _write(self, batch: _Batch) -> None:
        try:
            done = await self._committed(batch)
        except ConflictError as error:
            raise ConflictError(
                f"somebody else writes to the log {self.log.name!r} while it is imported: {error}",
                index=error.index,
                current_version=error.current_version,
                code=error.code,
                request_id=error.request_id,
            ) from error
        self.commits += done.changed
        self.shortened += batch.shortened
        self.done = batch.done
        if self.expected is not None:
            self.expected = done.version

    async def _committed(self, batch: _Batch) -> Commit:
        made = await draft(
            batch.packing.membership,
            batch.packing.sealed,
            expect_version=self.expected,
            source=batch.source,
        )
        try:
            return await self.writer.commit(made)
        except OutcomeUnknownError as error:
            return await self.writer.settle(error.commit_id)
        except RequestError as error:
            if error.code not in (ErrorCode.STALE_EPOCH, ErrorCode.IDEMPOTENCY_EXPIRED):
                raise
        return await self.log.update(
            batch.packing.commands, expect_version=self.expected, source=batch.source
        )

    # Comparing

    async def _compare(self, progress: Progress) -> int:
        """How many entries were found, or the last version that was."""
        self.tell(progress)
        done = 0
        if self.original.kind == "commits":
            checked = check_steps(self.handle, self.original, self.expected or 0)
        else:
            checked = check_rows(self.handle, self.original, alone=self.expected is not None)
        async with aclosing(checked):
            async for done in checked:
                self.tell(replace(progress, done=done))
        return done


async def import_original(
    client: AsyncClient,
    original: Original,
    name: Name | None = None,
    *,
    group: str | None = None,
    into_existing: bool = False,
    on_progress: OnProgress | None = None,
) -> Imported:
    """Copies `original` into the log of this name, or of its own; made if it is not there.

    The log must be empty, or hold the beginning of this very import, which then goes on; or
    `into_existing` adds entries to what it holds. `group` is for a log that is made: the
    original's, unless it is given.

    Raises:
        ConflictError: the log holds something else, or somebody else writes to it.
        RequestError: the log has other modes, or cannot hold a key or value.
        VerificationError: in the end the log is not as the original.
    """
    log = await _open(client, original, original.name if name is None else name, group)
    tell = on_progress or (lambda progress: None)
    return await _Import(log=log, original=original, tell=tell).run(into_existing=into_existing)


async def _open(client: AsyncClient, original: Original, name: Name, group: str | None) -> AsyncLog:
    key_mode, value_mode = original.key_mode, original.value_mode
    try:
        return await client.log(name, key_mode=key_mode, value_mode=value_mode, group=group or "")
    except NotFoundError:
        return await client.log(
            name,
            create=True,
            key_mode=key_mode,
            value_mode=value_mode,
            group=original.group if group is None else group,
        )

"""A log, as its reader and writer sees it; the asynchronous twin of `blocking.Log`.

Says what each verb means; how commits are settled is `writing`'s, how a log is followed
`watching`'s.
"""

from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import aclosing
from pathlib import Path
from typing import Any, Generic, TypeVar

from indelible_protocol import messages
from indelible_protocol.errors import ErrorCode
from indelible_protocol.ids import KeyToken

from indelible import watching
from indelible.answers import (
    Change,
    Commit,
    Description,
    Diff,
    Entry,
    Forgotten,
    KeyChange,
    Version,
    time_of,
)
from indelible.codec import Codec, check_version, in_turns
from indelible.commands import Command, Delete, Upsert
from indelible.errors import CommitId, DeniedError, NotFoundError, RequestError
from indelible.handle import Handle
from indelible.mirroring import AsyncMirror
from indelible.modes import ModeName
from indelible.names import Name
from indelible.remote import in_range
from indelible.transacting import MAX_ATTEMPTS, AsyncTransaction, Transacted, Turns, transact
from indelible.webhooks import Event
from indelible.writing import Draft, Writer, draft, forget_draft

T = TypeVar("T")
R = TypeVar("R")


class AsyncView(Generic[T]):
    """Something that can be read, and read again: every `async for` starts anew.

    Comes in pages from the service while it is read; pinned to its versions, so that every
    reading gives the same.
    """

    def __init__(self, pages: Callable[[], AsyncIterator[list[T]]]) -> None:
        self.pages = pages

    async def __aiter__(self) -> AsyncIterator[T]:
        async for page in self.pages():
            for item in page:
                yield item


class AsyncLog(AsyncView[Entry]):
    """A versioned map, sealed by this side. Made by `AsyncClient.log`.

    Version 0 is empty. Each `update` that changes something makes the next version; `set`,
    `set_many` and `delete` are short for updates. `async for entry in log` reads the
    contents at the version that is current when the loop begins.
    """

    def __init__(self, handle: Handle) -> None:
        super().__init__(lambda: self._entries(None))
        self._handle = handle
        self._writer = Writer(handle)
        self._turns = Turns()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"

    @property
    def name(self) -> Name:
        return self._handle.name

    @property
    def group(self) -> str:
        return self._handle.group

    @property
    def log_id(self) -> str:
        """In hexadecimal. A log that is dropped and made again has another."""
        return self._handle.membership.log_id.hex()

    @property
    def key_mode(self) -> ModeName:
        return self._handle.membership.key_mode.word

    @property
    def value_mode(self) -> ModeName:
        return self._handle.membership.value_mode.word

    # Writing

    async def set(
        self, key: Any, value: Any, *, expect_version: int | None = None, source: str = ""
    ) -> Commit:
        """Sets one key. See `update`."""
        return await self.update([Upsert(key, value)], expect_version=expect_version, source=source)

    async def set_many(
        self, items: Mapping[Any, Any], *, expect_version: int | None = None, source: str = ""
    ) -> Commit:
        """Sets every key of `items`, in one commit. See `update`."""
        commands = [Upsert(key, value) for key, value in items.items()]
        return await self.update(commands, expect_version=expect_version, source=source)

    async def delete(
        self, key: Any, *, expect_version: int | None = None, source: str = ""
    ) -> Commit:
        """Removes one key, if it is there. See `update`."""
        return await self.update([Delete(key)], expect_version=expect_version, source=source)

    async def update(
        self,
        commands: Iterable[Command],
        *,
        expect_version: int | None = None,
        source: str = "",
    ) -> Commit:
        """One commit: all of `commands` in order, or none of them.

        With `expect_version`, only if the log is at that version. `source` says who or what
        made the commit; it is sealed, and `versions` tells it. At most 4,096 commands and
        1 MiB.

        Raises:
            ConflictError: a command's condition or the expected version does not hold.
            OutcomeUnknownError: the service did not answer in time; see `settle`.
        """
        return await self._update(commands, expect_version, source)

    async def _update(
        self,
        commands: Iterable[Command],
        expect_version: int | None,
        source: str,
        *,
        ticket: str = "",
    ) -> Commit:
        if expect_version is not None:
            check_version(expect_version, "expect_version")
        wanted = _listed(commands)
        try:
            draft = await self._draft(wanted, expect_version, source)
            return await self._writer.commit(draft, ticket=ticket)
        except RequestError as error:
            if error.code is ErrorCode.STALE_EPOCH:
                await self._handle.refresh()
            elif error.code is ErrorCode.IDEMPOTENCY_EXPIRED:
                await self._handle.remote.describe()  # this handle slept for too many versions
            else:
                raise
        draft = await self._draft(wanted, expect_version, source)
        return await self._writer.commit(draft, ticket=ticket)

    async def transact(
        self,
        decide: Callable[[AsyncTransaction], Awaitable[R]],
        *,
        max_attempts: int = MAX_ATTEMPTS,
        source: str = "",
    ) -> Transacted[R]:
        """Reads, decides and commits as if nobody else wrote meanwhile.

        `decide(transaction)` reads and writes through the transaction, and runs again, on
        what the log holds by then, when another commit came between: it must do nothing else
        that counts. What it raises ends the transaction, and nothing is written. If it
        writes nothing, nothing is committed.

        Raises:
            ConflictError: others were first `max_attempts` times in a row.
            OutcomeUnknownError: the service did not answer in time; see `settle`.
        """
        return await transact(self, decide, max_attempts=max_attempts, source=source)

    async def _draft(
        self, commands: Sequence[Command], expect_version: int | None, source: str
    ) -> Draft:
        membership, codec = self._handle.membership, self._handle.codec
        if len(commands) > membership.max_commands:  # before they are sealed
            raise RequestError(
                f"{len(commands)} commands in one commit, at most {membership.max_commands} "
                "are allowed (max_commands)",
                code=ErrorCode.TOO_LARGE,
            )
        return await draft(
            membership,
            await in_turns(commands, codec.sealed),
            expect_version=expect_version,
            source=source,
        )

    async def settle(self, commit_id: CommitId) -> Commit:
        """The outcome of a commit that ended in OutcomeUnknownError.

        The same commit is sent again: if it is in the log, this is its answer; if it is not,
        it is judged now. Either way it enters at most once.

        Raises:
            ConflictError: it is not in, and will not be.
            OutcomeUnknownError: still no answer.
        """
        return await self._writer.settle(commit_id)

    # Reading

    @property
    def version(self) -> Coroutine[Any, Any, int]:
        """The current version, asked for anew: `await log.version`."""
        return self._version()

    async def _version(self) -> int:
        return (await self._handle.remote.describe()).version

    async def get(self, key: Any, default: Any = None, *, at: int | None = None) -> Any:
        """The key's value now, or at a version; `default` if it has none."""
        entry = await self.entry(key, at=at)
        return default if entry is None else entry.value

    async def entry(self, key: Any, *, at: int | None = None) -> Entry | None:
        """The key's entry, with the version that introduced it; None if there is none."""
        _check_at(at)
        token = self._handle.codec.token(key)
        found = await self._handle.remote.entry(token, at)
        if found is None:
            return None
        (value,) = await self._handle.opened([found], lambda codec, it: codec.value(token, it))
        return Entry(key, value, found.version)

    async def get_many(self, keys: Iterable[Any], *, at: int | None = None) -> dict[Any, Any]:
        """The values of those keys that have one, all at the same version."""
        _check_at(at)
        wanted = [_hashable(key) for key in keys]
        asked = dict(zip(await in_turns(wanted, self._handle.codec.token), wanted, strict=True))
        values = {}
        async for page in self._handle.remote.entries(list(asked), at):
            opened = await self._handle.opened(page, lambda codec, it: codec.value(it.key, it))
            for entry, value in zip(page, opened, strict=True):
                values[asked[KeyToken(entry.key)]] = value
        return values

    def at(self, version: int, *, streamed: bool = False) -> AsyncView[Entry]:
        """The entries at a version, in the order in which they were last changed.

        `streamed` as in `diff`.
        """
        check_version(version, "version")
        return AsyncView(lambda: self._entries(version, streamed=streamed))

    def diff(
        self, from_version: int, to_version: int | None = None, *, streamed: bool = False
    ) -> AsyncView[Change]:
        """The smallest set of changes that turns the contents at one version into another's.

        A replaced value is a `remove` and then an `add`. Backwards if `from_version` is the
        later one. Without `to_version`, to the version that is current when the view is read
        first; it keeps to that one. `streamed`: all in one answer, which is faster for who reads
        many to the end, and for nobody else.
        """
        check_version(from_version, "from_version")
        if to_version is not None:
            check_version(to_version, "to_version")
        pinned = to_version

        async def pages() -> AsyncIterator[list[Change]]:
            nonlocal pinned
            async with aclosing(self._diff(from_version, pinned, streamed)) as found:
                async for page in found:
                    pinned = page.to_version
                    yield await self._handle.opened(page.changes, Codec.change)

        return AsyncView(pages)

    def _diff(
        self, from_version: int, to_version: int | None, streamed: bool
    ) -> AsyncGenerator[messages.Diff, None]:
        remote = self._handle.remote
        read = remote.streamed_diff if streamed else remote.diff
        return read(from_version, to_version)

    async def _entries(
        self, version: int | None, *, streamed: bool = False
    ) -> AsyncIterator[list[Entry]]:
        """What a diff from the empty log adds."""
        async with aclosing(self._diff(0, version, streamed)) as pages:
            async for page in pages:
                changes = await self._handle.opened(page.changes, Codec.change)
                yield [Entry(change.key, change.value, change.version) for change in changes]

    async def follow(
        self,
        after: int | None = None,
        *,
        position: str | Path | None = None,
        max_wait_seconds: float | None = None,
    ) -> AsyncGenerator[Diff, None]:
        """Every change after a version, as it comes: diffs without gap or repetition.

        Without `after`, from the current version on. Goes on through restarts of the service
        and lost connections. Ends when no version came for `max_wait_seconds`; without it,
        never.

        `position` names a file that remembers, over restarts of this process, which diffs
        the loop is done with: a diff counts as done when the next one is asked for, so the
        one that a crash interrupted comes again. `after` is where to begin when there is no
        such file yet.

        Raises:
            NotFoundError: the log was dropped, or there is no version `after`.
        """
        if after is not None:
            check_version(after, "after")
        diffs = watching.follow(
            self._handle, after, position=position, max_wait_seconds=max_wait_seconds
        )
        async with aclosing(diffs):
            async for diff in diffs:
                yield diff

    def mirror(self) -> AsyncMirror:
        """The log's contents as a mapping that follows it; use it in a `with` block."""
        return AsyncMirror(self)

    def history(self, key: Any) -> AsyncView[KeyChange]:
        """What the key has held, newest first."""
        token = self._handle.codec.token(key)

        async def pages() -> AsyncIterator[list[KeyChange]]:
            async for page in self._handle.remote.history(token):
                yield await self._handle.opened(
                    page, lambda codec, change: codec.key_change(token, change)
                )

        return AsyncView(pages)

    def versions(self) -> AsyncView[Version]:
        """The commits that took effect, newest first: when, by whom, with which `source`."""

        async def pages() -> AsyncIterator[list[Version]]:
            async for page in self._handle.remote.versions():
                yield await self._handle.opened(page, Codec.version)

        return AsyncView(pages)

    async def delivered(self, event: Event) -> Diff:
        """What a verified event of a webhook says that changed.

        Opened from the sealed diff that came with it; asked for if it was too large to come, or
        the webhook is a thin one.

        Raises:
            RequestError: the event is not about versions of this log.
        """
        low, high = event.from_version, event.to_version
        if event.log_id != self.log_id or low is None or high is None:
            raise RequestError(f"the event {event.type} is not about versions of {self.name!r}")
        if event.diff is None:
            return Diff(low, high, tuple([change async for change in self.diff(low, high)]))
        carried = in_range(event.diff)
        return Diff(low, high, tuple(await self._handle.opened(carried.changes, Codec.change)))

    # The log itself

    async def describe(self) -> Description:
        """Where the log stands, and what the service knows of it."""
        return described(await self._handle.remote.describe(), self.name)

    async def forget(
        self, before: int, *, on_progress: Callable[[Forgotten], None] | None = None
    ) -> Forgotten:
        """Makes `before` the first version that can be read; there is no way back.

        Contents from there on stay as they are, with the versions that introduced their
        entries; earlier versions, what they held and who made them are gone, and what they
        took is given back. Interrupted, or called again, it goes on where it was. The log
        keeps a record of it that this profile signs, which makes a version.

        Raises:
            NotFoundError: there is no version `before` yet.
        """
        check_version(before, "before")
        if before == 0:
            raise RequestError("before is 0: there is nothing below it to forget")
        remote = self._handle.remote
        try:
            told = await remote.forget(before)
        except DeniedError as error:
            if error.code is not ErrorCode.UNAUTHORIZED_OPERATION:
                raise
            await self._sign_forget(before)
            told = await remote.forget(before)
        while not told.done:
            if on_progress is not None:
                on_progress(forgotten(told))
            told = await remote.forget(before)
        return forgotten(told)

    async def _sign_forget(self, before: int) -> None:
        handle = self._handle
        if before > (await handle.remote.describe()).version:
            raise NotFoundError(
                f"{self.name!r} has no version {before} yet", code=ErrorCode.NONEXISTENT_VERSION
            )
        await handle.refresh()
        try:
            await self._writer.commit(forget_draft(handle.membership, before))
        except RequestError as error:
            if error.code is not ErrorCode.STALE_EPOCH:
                raise
            await handle.refresh()
            await self._writer.commit(forget_draft(handle.membership, before))
        await handle.refresh()

    async def drop(self) -> None:
        """Deletes the log and all its versions; there is no way back.

        The name is free again, for another log.
        """
        await self._handle.remote.drop()


def forgotten(told: messages.Forgotten) -> Forgotten:
    return Forgotten(
        told.first_version,
        told.bytes_before,
        told.bytes_now,
        told.step,
        told.handled,
        told.total,
    )


def described(description: messages.Description, name: Name | None) -> Description:
    return Description(
        name=name,
        group=description.group,
        kind=description.kind,
        version=description.version,
        first_version=description.first_version,
        entries=description.entries,
        stored_bytes=description.stored_bytes,
        created=time_of(description.created_ms),
        updated=time_of(description.updated_ms),
        log_id=description.log_id.hex(),
        incarnation=description.incarnation,
    )


def _listed(commands: Iterable[Command]) -> list[Command]:
    if isinstance(commands, Command):
        raise RequestError(f"a list of commands expected, not one {type(commands).__name__}")
    return list(commands)


def _check_at(at: int | None) -> None:
    if at is not None:
        check_version(at, "at")


def _hashable(key: Any) -> Any:
    try:
        hash(key)
    except TypeError:
        raise RequestError(
            f"a key of type {type(key).__name__} cannot be a key of the answer: pass lists as "
            "tuples, or ask with `entry`"
        ) from None
    return key

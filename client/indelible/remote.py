"""The service as messages: what may be asked of it and of one log, with retries.

Requests that change nothing are tried again until their deadline; making and dropping a log
too, because the service takes them twice. A commit is sent once: `writing` knows when the
same bytes may go again. Knows nothing of keys, and sees sealed bytes only.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import TypeVar

from indelible_protocol import limits, messages, paths
from indelible_protocol.errors import ErrorCode
from indelible_protocol.ids import LogId
from indelible_protocol.messages import Message

from indelible.errors import NotFoundError, RequestError, UnavailableError, VerificationError
from indelible.retry import Attempts
from indelible.transport import Answer, OversizeError, Request, Transport

A = TypeVar("A", bound=Message)
P = TypeVar("P", messages.History, messages.Versions)


class Service:
    """The requests of one client. Each call takes at most `timeout_seconds`, retries and all."""

    def __init__(self, transport: Transport, timeout_seconds: float) -> None:
        self.transport = transport
        self.timeout_seconds = timeout_seconds

    async def ask(
        self,
        request: Request[A],
        timeout_seconds: float | None = None,
        *,
        may_repeat: bool = True,
    ) -> Answer[A]:
        """The answer to a request that may be sent twice; if it may not, it is sent again only
        when it certainly had no effect."""
        attempts = Attempts(self.timeout_seconds if timeout_seconds is None else timeout_seconds)
        while True:
            try:
                return await self.transport.send(request, attempts.remaining_seconds)
            except UnavailableError as error:
                if not error.retryable or (error.may_have_applied and not may_repeat):
                    raise
                await attempts.pause(error)

    async def message(self, request: Request[A], timeout_seconds: float | None = None) -> A:
        return held(await self.ask(request, timeout_seconds))

    async def remove(self, path: str, gone: ErrorCode) -> None:
        """Deletes what is at `path`; `gone` is what the service says of it from then on."""
        attempts = Attempts(self.timeout_seconds)
        request: Request[Message] = Request(method="DELETE", path=path)
        in_doubt = False
        while True:
            try:
                await self.transport.send(request, attempts.remaining_seconds)
                return
            except UnavailableError as error:
                if not (error.retryable or error.may_have_applied):
                    raise
                in_doubt = in_doubt or error.may_have_applied
                await attempts.pause(error)
            except NotFoundError as error:
                if in_doubt and error.code is gone:
                    return  # by the try whose answer was lost
                raise

    async def opened(self, name: bytes) -> messages.Opened:
        """
        Raises:
            NotFoundError: no sealed log has this name token.
        """
        return await self.message(
            Request(method="GET", path=paths.name(name), answer=messages.Opened)
        )

    async def create(self, name: bytes, genesis: messages.Commit, group: str) -> messages.Opened:
        """The log of this name: the one that `genesis` makes, or that was there before."""
        body = messages.CreateSealed(genesis=genesis, group=group)
        return await self.message(
            Request(method="PUT", path=paths.name(name), answer=messages.Opened, body=body)
        )

    async def logs(self, group: str | None) -> AsyncIterator[list[messages.Description]]:
        """Pages, oldest log first."""
        async for listing in self.listings(group):
            yield listing.logs

    async def listings(self, group: str | None) -> AsyncIterator[messages.Listing]:
        """The same, as they came."""
        query = {} if group is None else {"group": group}
        cursor: str | None = ""
        while cursor is not None:
            request = Request(
                method="GET",
                path=paths.LOGS,
                answer=messages.Listing,
                query={**query, "cursor": cursor} if cursor else query,
            )
            listing = await self.message(request)
            yield listing
            cursor = listing.cursor


class RemoteLog:
    """One log at the service, and the newest version that any answer about it told."""

    def __init__(self, service: Service, log_id: LogId, version: int) -> None:
        self.service = service
        self.log_id = log_id
        self.known_version = version

    async def describe(self) -> messages.Description:
        return await self._get(self._path(paths.LOG), messages.Description)

    async def drop(self) -> None:
        await self.service.remove(self._path(paths.LOG), ErrorCode.LOG_REPLACED)

    async def forget(self, before: int) -> messages.Forgotten:
        """One step of it; to be asked again until it is done."""
        body = messages.Forget(before=before)
        path = self._path(paths.FORGET)
        return await self._ask(
            Request(method="POST", path=path, answer=messages.Forgotten, body=body)
        )

    async def commit(
        self, commit: messages.Commit, timeout_seconds: float, *, ticket: str = ""
    ) -> Answer[messages.Committed]:
        """One attempt. With a ticket, or TICKET_WANTED, a conflict tells what the commit's keys
        hold, and may give a ticket for the next; shown where there is time to stand in line."""
        may_stand = timeout_seconds > 2 * limits.MAX_TICKET_WAIT_SECONDS
        request = Request(
            method="POST",
            path=self._path(paths.COMMITS),
            answer=messages.Committed,
            query={"conflict": "entries"} if ticket else None,
            body=commit,
            ticket=ticket if may_stand else "",
        )
        return self._noted(await self.service.transport.send(request, timeout_seconds))

    async def diff(
        self, from_version: int, to_version: int | None
    ) -> AsyncGenerator[messages.Diff, None]:
        """Pages; every one has the versions of the first.

        `to_version` None is the version that is current when the first page is answered.
        """
        query = {"from": str(from_version)}
        if to_version is not None:
            query["to"] = str(to_version)
        first = await self._get(self._path(paths.DIFF), messages.Diff, query)
        if first.from_version != from_version or to_version not in (None, first.to_version):
            raise _contradiction(first, from_version, to_version)
        yield in_range(first)
        async for page in self.rest_of(first):
            yield page

    async def streamed_diff(
        self, from_version: int, to_version: int | None
    ) -> AsyncGenerator[messages.Diff, None]:
        """The same pages, all in one answer as long as it lasts: for who reads to the end.

        An answer that is cut off is gone on with behind its last whole page.
        """
        query = {"from": str(from_version), "limit": "0"}
        if to_version is not None:
            query["to"] = str(to_version)
        attempts = Attempts(self.service.timeout_seconds)
        cursor: str | None = ""
        while cursor is not None:
            request = Request(
                method="GET", path=self._path(paths.DIFF), answer=messages.Diff, query=query
            )
            try:
                async with aclosing(self.service.transport.stream(request)) as pages:
                    async for page in pages:
                        wanted = (
                            from_version,
                            page.to_version if to_version is None else to_version,
                        )
                        if (page.from_version, page.to_version) != wanted:
                            raise _contradiction(page, from_version, to_version)
                        to_version, cursor = page.to_version, page.cursor
                        attempts = Attempts(self.service.timeout_seconds)
                        yield in_range(page)
                if cursor is not None:
                    raise UnavailableError("the answer was cut off")
            except UnavailableError as error:
                if not error.retryable:
                    raise
                await attempts.pause(error)
            query = {"cursor": cursor, "limit": "0"} if cursor else query

    async def rest_of(self, first: messages.Diff) -> AsyncIterator[messages.Diff]:
        """The pages after `first`."""
        cursor = first.cursor
        while cursor is not None:
            page = await self._get(self._path(paths.DIFF), messages.Diff, {"cursor": cursor})
            if (page.from_version, page.to_version) != (first.from_version, first.to_version):
                raise _contradiction(page, first.from_version, first.to_version)
            if not page.changes and page.cursor is not None:
                raise VerificationError(
                    "a page without changes, but with a next one", evidence={"page": page}
                )
            yield in_range(page)
            cursor = page.cursor

    async def next_diff(
        self, from_version: int, *, wait_seconds: float, interval: int | None = None
    ) -> Answer[messages.Diff]:
        """One attempt: the first page of what came after `from_version`, or a 204.

        With `interval` (what the last answer told, 0 at first) all who follow the log ask with
        the same URL, and a proxy may ask once for all: the answer can be some seconds old.
        """
        query = {"from": str(from_version)}  # in the order of the alphabet: one spelling for all
        if interval is not None:
            query["interval"] = str(interval)
        query["wait"] = f"{wait_seconds:.3f}".rstrip("0").rstrip(".")
        request = Request(
            method="GET",
            path=self._path(paths.DIFF),
            answer=messages.Diff,
            query=query,
            wait_seconds=wait_seconds,
        )
        answer = self._noted(await self.service.transport.send(request, float("inf")))
        if answer.message is not None:
            self.checked(answer.message, from_version)
        return answer

    def checked(self, first: messages.Diff, from_version: int) -> messages.Diff:
        """The first page of what came after `from_version`, which it was asked or waited for."""
        if first.from_version != from_version or first.to_version < from_version:
            raise _contradiction(first, from_version, None)
        return in_range(first)

    async def entry(self, token: bytes, at: int | None) -> messages.Entry | None:
        """None for a key that has no value."""
        query = {} if at is None else {"at": str(at)}
        path = paths.of_key(paths.ENTRY, self.log_id, token)
        try:
            return await self._get(path, messages.Entry, query)
        except NotFoundError as error:
            if error.code is ErrorCode.NONEXISTENT_KEY:
                return None
            raise

    async def snapshot(self, tokens: Sequence[bytes], at: int | None) -> messages.Entries:
        """Those that exist, all of one version; in one answer."""
        batch = messages.BatchGet(keys=list(tokens))
        if at is not None:
            batch.at = at
        path = self._path(paths.BATCH_GET)
        return await self._ask(
            Request(method="POST", path=path, answer=messages.Entries, body=batch)
        )

    async def entries(
        self, tokens: Sequence[bytes], at: int | None
    ) -> AsyncIterator[list[messages.Entry]]:
        """Those that exist, in pages that are all of one version."""
        start, count = 0, limits.DEFAULT_PAGE
        while start < len(tokens):
            asked = tokens[start : start + count]
            try:
                found = await self.snapshot(asked, at)
            except (OversizeError, RequestError) as error:
                if count == 1 or not _too_large(error):
                    raise
                count //= 2
                continue
            start += count
            if at not in (None, found.version):
                raise VerificationError(
                    f"entries at version {found.version} instead of {at}",
                    evidence={"entries": found},
                )
            if not {entry.key for entry in found.entries} <= set(asked):
                raise VerificationError(
                    "entries of keys that were not asked for", evidence={"entries": found}
                )
            at = found.version
            yield found.entries

    async def history(self, token: bytes) -> AsyncIterator[list[messages.KeyChange]]:
        """Pages, newest change first."""
        path = paths.of_key(paths.HISTORY, self.log_id, token)
        async for page in self._pages(path, messages.History):
            yield page.changes

    async def versions(self) -> AsyncIterator[list[messages.VersionInfo]]:
        """Pages, newest version first."""
        async for page in self._pages(self._path(paths.VERSIONS), messages.Versions):
            yield page.versions

    async def _pages(self, path: str, kind: type[P]) -> AsyncIterator[P]:
        cursor: str | None = ""
        while cursor is not None:
            query = {"cursor": cursor} if cursor else {}
            page = await self._get(path, kind, query)
            yield page
            cursor = page.cursor

    async def _get(self, path: str, kind: type[A], query: Mapping[str, str] | None = None) -> A:
        return await self._ask(Request(method="GET", path=path, answer=kind, query=query))

    async def _ask(self, request: Request[A]) -> A:
        return held(self._noted(await self.service.ask(request)))

    def _noted(self, answer: Answer[A]) -> Answer[A]:
        if answer.log_version is not None:
            self.known_version = max(self.known_version, answer.log_version)
        return answer

    def _path(self, template: str) -> str:
        return paths.of_log(template, self.log_id)


def held(answer: Answer[A]) -> A:
    """The message of an answer that must have one."""
    if answer.message is None:
        raise VerificationError(
            "an empty answer where one was due",
            evidence={"status": answer.status},
            request_id=answer.request_id,
        )
    return answer.message


def _too_large(error: OversizeError | RequestError) -> bool:
    return isinstance(error, OversizeError) or error.code is ErrorCode.TOO_LARGE


def _contradiction(
    page: messages.Diff, from_version: int, to_version: int | None
) -> VerificationError:
    return VerificationError(
        f"a diff from {page.from_version} to {page.to_version} where one from {from_version} to "
        f"{'the current version' if to_version is None else to_version} was asked for",
        evidence={"from": page.from_version, "to": page.to_version},
    )


def in_range(page: messages.Diff) -> messages.Diff:
    """
    Raises:
        VerificationError: an entry that cannot have come or gone between the two versions.
    """
    kept = min(page.from_version, page.to_version)
    most = max(page.from_version, page.to_version)
    # Going forward the adds are what is new; going back, the removes are.
    new = "add" if page.from_version <= page.to_version else "remove"
    for change in page.changes:
        if not (kept < change.version <= most if change.op == new else change.version <= kept):
            raise VerificationError(
                f"a diff from {page.from_version} to {page.to_version} with an {change.op} of "
                f"an entry of version {change.version}",
                evidence={"change": change},
            )
    return page

"""Reads all of a log in bounded memory: its contents at a version, or commit by commit.

A long log's diff from the empty one is more than a service wants to fold for each page. So
both walk through the commits themselves, a page at a time: the contents are those of their
keys that still hold what they set, and what a commit changed is asked for together with its
neighbours, as long as no key comes twice. Of commits that are forgotten, that diff alone tells
what is left.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

from indelible_protocol import messages, paths
from indelible_protocol.commands import SETS, Command
from indelible_protocol.errors import ProtocolError
from indelible_protocol.records import CommitKind, Header
from indelible_protocol.signing import read_body

from indelible.answers import Entry
from indelible.codec import Codec, in_turns
from indelible.commands import Delete, Upsert
from indelible.errors import VerificationError
from indelible.handle import Handle
from indelible.remote import RemoteLog
from indelible.transferring.streams import each, in_order
from indelible.transport import Request

_ASKED_KEYS = 1_000
_RUN_COMMITS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A version as what it changed: keys set and keys removed, each key once.

    `writer` is its public key in hexadecimal; it and `time` are None where they are not
    known. Without changes for a control commit.
    """

    version: int
    time: datetime | None
    source: str
    writer: str | None
    changes: tuple[Upsert | Delete, ...]


class Scanned(NamedTuple):
    """Entries, in the order of their versions, of all versions up to `version`."""

    version: int
    entries: list[Entry]


class ReadCommit(NamedTuple):
    """A commit as stored, and what its bytes say; without commands if it is a control commit."""

    stored: messages.StoredCommit
    header: Header
    commands: list[Command]


async def entries_at(
    handle: Handle, version: int, after: int = 0, *, first: int = 0
) -> AsyncGenerator[Scanned, None]:
    """The contents at `version`, of them those that came in after `after`.

    Ordered by the command that brought them, so that where a reader stopped is where it can
    go on. `first` is the first version that can be read.
    """
    if after < first:
        async with aclosing(_left_until(handle, version, after, first)) as scans:
            async for scan in scans:
                yield scan
        after = first
    async with aclosing(commit_pages(handle.remote, after, version)) as pages:
        async for page in pages:
            scanned = _last(page)
            places: dict[tuple[int, bytes], tuple[int, bytes]] = {}
            tokens: dict[bytes, None] = {}
            for commit in page:
                for index, command in enumerate(commit.commands):
                    if command.op in SETS:
                        places[commit.stored.version, command.token] = (index, command.value)
                        tokens[command.token] = None
            found: list[tuple[int, int, messages.Entry]] = []
            async with aclosing(_living(handle, list(tokens), version)) as living:
                async for entry in living:
                    if after < entry.version <= scanned:
                        found.append((entry.version, _index_in(places, entry), entry))
            found.sort(key=lambda item: item[:2])
            opened = await handle.opened([entry for _, _, entry in found], Codec.entry)
            yield Scanned(scanned, opened)
            after = scanned


async def _left_until(
    handle: Handle, version: int, after: int, until: int
) -> AsyncGenerator[Scanned, None]:
    """Those that came in after `after`, and by `until`; a version's may be in two of them."""
    async with aclosing(handle.remote.diff(0, version)) as pages:
        async for page in pages:
            wanted = [change for change in page.changes if after < change.version <= until]
            if wanted:
                versions = [change.version for change in wanted]
                if versions != sorted(versions):
                    raise VerificationError(
                        "a diff that is not in the order of its commands",
                        evidence={"versions": versions},
                    )
                after = max(after, versions[-1] - 1)
                changes = await handle.opened(wanted, Codec.change)
                yield Scanned(versions[-1], [Entry(*change[1:]) for change in changes])
            if page.changes and page.changes[-1].version > until:
                return


def _index_in(places: dict[tuple[int, bytes], tuple[int, bytes]], entry: messages.Entry) -> int:
    index, value = places.get((entry.version, entry.key), (-1, b""))
    if value != entry.value:
        raise VerificationError(
            f"an entry that the commit of version {entry.version} did not bring",
            evidence={"entry": entry},
        )
    return index


async def _living(
    handle: Handle, tokens: Sequence[bytes], version: int
) -> AsyncGenerator[messages.Entry, None]:
    """The entries that these keys have at `version`."""
    asked = each(tokens[at : at + _ASKED_KEYS] for at in range(0, len(tokens), _ASKED_KEYS))
    answers = in_order(partial(_entries, handle, version), asked)
    async with aclosing(answers):
        async for entries in answers:
            for entry in entries:
                yield entry


async def _entries(handle: Handle, version: int, tokens: Sequence[bytes]) -> list[messages.Entry]:
    """What a key holds now is cheap to tell, what it held once is not: asked where it counts."""
    remote = handle.remote
    now = [entry async for page in remote.entries(tokens, None) for entry in page]
    if remote.known_version == version:
        return now
    found = [entry for entry in now if entry.version <= version]
    known = {entry.key for entry in found}
    rest = [token for token in tokens if token not in known]
    if rest:
        found += [entry async for page in remote.entries(rest, version) for entry in page]
    return found


async def steps_after(handle: Handle, after: int, to: int) -> AsyncGenerator[Step, None]:
    """What each version in (after, to] changed."""
    async with aclosing(commit_pages(handle.remote, after, to)) as pages:
        async for page in pages:
            async with aclosing(in_order(partial(_steps_of, handle), each(_runs(page)))) as answers:
                async for steps in answers:
                    for step in steps:
                        yield step


def _runs(page: Sequence[ReadCommit]) -> Iterator[list[ReadCommit]]:
    """Neighbours of which no two name one key: what they change together, each changed alone."""
    run: list[ReadCommit] = []
    keys: set[bytes] = set()
    for commit in page:
        named = {command.token for command in commit.commands}
        if len(run) == _RUN_COMMITS or not keys.isdisjoint(named):
            yield run
            run, keys = [], set()
        run.append(commit)
        keys |= named
    if run:
        yield run


async def _steps_of(handle: Handle, run: Sequence[ReadCommit]) -> list[Step]:
    version_of = {
        command.token: commit.stored.version for commit in run for command in commit.commands
    }
    changes: dict[int, dict[Any, Upsert | Delete]] = {}
    first, last = run[0].stored.version, _last(run)
    async for page in handle.remote.diff(first - 1, last):
        opened = await handle.opened(page.changes, Codec.change)
        for sealed, change in zip(page.changes, opened, strict=True):
            version = version_of.get(sealed.key)
            if version is None or (change.op == "add" and change.version != version):
                raise VerificationError(
                    f"a diff from {first - 1} to {last} with a change that no commit between "
                    "them made",
                    evidence={"change": sealed},
                )
            made = Delete(change.key) if change.op == "remove" else Upsert(*change[1:3])
            changes.setdefault(version, {})[sealed.key] = made  # an add after its remove
    return await in_turns(
        run, lambda commit: _step(handle.codec, commit, changes.get(commit.stored.version, {}))
    )


def _step(codec: Codec, commit: ReadCommit, changes: dict[Any, Upsert | Delete]) -> Step:
    stored, header = commit.stored, commit.header
    told = codec.version(
        messages.VersionInfo(
            version=stored.version,
            time_ms=stored.time_ms,
            writer=header.writer,
            source=header.memo_ct,
            commands=header.command_count,
            changes=len(changes),
            stored_bytes=len(stored.header) + len(stored.signature) + len(stored.body),
            header=stored.header,
        )
    )
    return Step(
        version=stored.version,
        time=told.time,
        source=told.source,
        writer=told.writer,
        changes=tuple(changes.values()),
    )


async def commit_pages(
    remote: RemoteLog, after: int, to: int
) -> AsyncGenerator[list[ReadCommit], None]:
    """The commits of the versions in (after, to]; the next page comes while one is used."""
    task: asyncio.Task[messages.Commits] | None = None
    try:
        while after < to:
            task = task or asyncio.create_task(_commits(remote, after, to))
            page, task = await task, None
            after = page.to
            if after < to:
                task = asyncio.create_task(_commits(remote, after, to))
            yield await in_turns(page.commits, _decoded)
    finally:
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def _commits(remote: RemoteLog, after: int, to: int) -> messages.Commits:
    page = await remote.service.message(
        Request(
            method="GET",
            path=paths.of_log(paths.COMMITS, remote.log_id),
            answer=messages.Commits,
            query={"from": str(after), "to": str(to)},
        )
    )
    versions = [commit.version for commit in page.commits]
    if not versions or versions != list(range(after + 1, page.to + 1)) or page.to > to:
        raise VerificationError(
            f"commits {versions[:1]} to {versions[-1:]} where those of ({after}, {to}] were "
            "asked for",
            evidence={"versions": versions, "to": page.to},
        )
    return page


def _decoded(stored: messages.StoredCommit) -> ReadCommit:
    try:
        header = Header.decode(stored.header)
        commands = read_body(header, stored.body).commands
    except ProtocolError as error:
        raise VerificationError(
            f"the commit of version {stored.version} cannot be read: {error}",
            evidence={"header": stored.header},
        ) from error
    return ReadCommit(stored, header, commands if header.kind is CommitKind.DATA else [])


def _last(page: Sequence[ReadCommit]) -> int:
    return page[-1].stored.version

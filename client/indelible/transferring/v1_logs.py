"""A log of the original client as something to import.

Reads through `indelible.v1`, in threads, so it works with whatever service speaks that
protocol; with the keys of the original's profile. That protocol tells neither times nor
sources of versions: where the service also speaks ours, they are taken from there. Knows
nothing of the log that it becomes.
"""

import asyncio
from base64 import b64encode, standard_b64decode
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from hashlib import sha256
from typing import Any, Literal, Self, TypeVar

import nacl.exceptions
from indelible_protocol import messages, paths
from indelible_protocol.errors import ErrorCode
from indelible_protocol.ids import LogId

from indelible import v1
from indelible.answers import time_of
from indelible.client import AsyncClient
from indelible.commands import Delete, Upsert
from indelible.config import Profile
from indelible.errors import (
    ConfigError,
    DeniedError,
    IndelibleError,
    NotFoundError,
    RequestError,
    UnavailableError,
    UnsealError,
)
from indelible.modes import ModeName
from indelible.names import Name
from indelible.remote import RemoteLog
from indelible.retry import Attempts
from indelible.transferring.exports import Kind
from indelible.transferring.originals import Row
from indelible.transferring.steps import Step, commit_pages
from indelible.transferring.streams import each, in_order
from indelible.transport import Request

V1Mode = Literal["string", "json", "binary", "raw"]
TIMEOUT_SECONDS = 60.0

T = TypeVar("T")
_Told = dict[int, tuple[datetime, str]]  # time and source of versions

# Raw values are base64 text there; here they are the bytes that it stands for.
_MODES: dict[str, ModeName] = {
    "string": "string",
    "json": "json",
    "binary": "binary",
    "raw": "binary",
}
_KINDS: dict[str, type[IndelibleError]] = {
    ErrorCode.BAD_API_KEY.name: DeniedError,
    ErrorCode.NONEXISTENT_LOG.name: NotFoundError,
    ErrorCode.NONEXISTENT_VERSION.name: NotFoundError,
}


@dataclass(frozen=True, kw_only=True)
class V1Original:
    """The contents of such a log at `version`, or its history up to there."""

    log: v1.Log
    kind: Kind
    version: int

    group = ""

    @classmethod
    async def of(cls, log: v1.Log, *, history: bool) -> Self:
        """
        Raises:
            NotFoundError, DeniedError, UnavailableError: as the service says.
        """
        page = await _read(lambda: log.diff_page(0, None, limit=1))
        return cls(log=log, kind="commits" if history else "entries", version=page["toVersion"])

    @property
    def id(self) -> str:
        """Of the log; and of the version, whose contents it is."""
        told = [self.log.profile["endpoint_url"], self.log.remote_name]
        if self.kind == "entries":
            told.append(str(self.version))
        return sha256("\0".join(told).encode()).hexdigest()[:16]

    @property
    def name(self) -> Name:
        name: Name = self.log.orig_name
        return name

    @property
    def key_mode(self) -> ModeName:
        return _MODES[self.log.key_mode]

    @property
    def value_mode(self) -> ModeName:
        return _MODES[self.log.value_mode]

    @property
    def total(self) -> int | None:
        return self.version if self.kind == "commits" else None

    async def rows(self, skip: int) -> AsyncGenerator[Row, None]:
        options: dict[str, Any] | None = None
        done = 0
        while True:
            page = await _read(
                partial(self.log.diff_page, 0, self.version, pagination_options=options)
            )
            for change in page["page"]:
                done += 1
                if done > skip:
                    yield self._key(change), self._value(change)
            options = page["nextPageOptions"]
            if options is None:
                return

    async def steps(self, after: int) -> AsyncGenerator[Step, None]:
        versions = each(range(after + 1, self.version + 1))
        changed = in_order(lambda version: _read(partial(self._changes, version)), versions)
        async with self._told(after) as told, aclosing(changed):
            version = after
            async for changes in changed:
                version += 1
                time, source = await told(version)
                yield Step(version=version, time=time, source=source, writer=None, changes=changes)

    def _changes(self, version: int) -> tuple[Upsert | Delete, ...]:
        made: dict[str, Upsert | Delete] = {}
        for change in self.log.version_diff(version - 1, version).changes():
            token = self.log.key_transformer.encode(change["entry"]["key"])
            key = self._key(change)
            if change["change"] == "Add":  # stands behind the Remove of what it replaces
                made[token] = Upsert(key, self._value(change))
            else:
                made[token] = Delete(key)
        return tuple(made.values())

    def _key(self, change: dict[str, Any]) -> Any:
        return _meant(change["entry"]["key"], self.log.key_mode)

    def _value(self, change: dict[str, Any]) -> Any:
        return _meant(change["entry"]["value"], self.log.value_mode)

    @asynccontextmanager
    async def _told(self, after: int) -> AsyncGenerator[Callable[[int], Any], None]:
        """Tells time and source of one version after the other."""
        async with _native(self.log) as remote:
            if remote is None:
                yield _nothing_told
                return
            told: _Told = {}
            async with aclosing(commit_pages(remote, after, self.version)) as pages:

                async def tell(version: int) -> tuple[datetime, str]:
                    if version not in told:
                        told.clear()
                        for commit in await anext(pages):
                            source = commit.header.memo_ct.decode(errors="replace")
                            told[commit.stored.version] = time_of(commit.stored.time_ms), source
                    return told[version]

                yield tell


async def _nothing_told(version: int) -> tuple[None, str]:
    return None, ""


@asynccontextmanager
async def _native(log: v1.Log) -> AsyncGenerator[RemoteLog | None, None]:
    """The same log through our protocol; None if the service does not speak it."""
    profile = Profile(
        endpoint_url=log.profile["endpoint_url"],
        customer_id=log.profile["customer_id"],
        apikey=log.profile["apikey"],
        master_key_base64=b64encode(log.profile["master_key"]).decode(),
    )
    async with AsyncClient(profile, allow_plain_http=log._allow_plain_http) as client:
        service = client._service
        request = Request(
            method="GET",
            path=paths.name(log.remote_name.encode()),
            answer=messages.Opened,
            query={"kind": "opaque"},
        )
        try:
            opened = await service.message(request)
        except (ConfigError, DeniedError, NotFoundError, RequestError):
            yield None  # it was read a moment ago: who refuses does not know our protocol
            return
        found = opened.description
        yield RemoteLog(service, LogId(found.log_id), found.version)


async def _read(work: Callable[[], T]) -> T:
    """`work` in a thread, again and again where the service is away for a while."""

    def translated() -> T:
        with _translated():
            return work()

    attempts = Attempts(TIMEOUT_SECONDS)
    while True:
        try:
            return await asyncio.to_thread(translated)
        except UnavailableError as error:
            await attempts.pause(error)


@contextmanager
def _translated() -> Iterator[None]:
    """Foreign exceptions in this library's words."""
    try:
        yield
    except v1.ApiErrorException as error:
        kind = _KINDS.get(error.code, UnavailableError)
        raise kind(f"the original's service refused: {error}") from error
    except nacl.exceptions.CryptoError as error:
        raise UnsealError(
            "the original log does not open with this profile's master key: another profile "
            "sealed it, or it is not encrypted"
        ) from error
    except OSError as error:
        raise UnavailableError(f"no answer from the original's service: {error}") from error
    except (ValueError, TypeError) as error:
        raise UnsealError(
            f"the original log was written in other modes than those given: {error}"
        ) from error


def _meant(value: Any, mode: str) -> Any:
    return standard_b64decode(value) if mode == "raw" else value

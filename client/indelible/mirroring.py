"""Mirrors: a log's contents in memory, kept up to date by following it.

Owns the copy and the task that follows. Reading it asks nobody; a mirror that can no longer
follow says so at the next read instead of growing stale in silence.
"""

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from indelible.answers import Diff
from indelible.errors import IndelibleError, RequestError

if TYPE_CHECKING:
    from indelible.log import AsyncLog


class AsyncMirror(Mapping[Any, Any]):
    """A log's live contents, as a mapping that cannot be written. Use as `async with`.

    Every single access sees one version whole. Lists among the keys are tuples here.
    """

    def __init__(self, log: "AsyncLog") -> None:
        self._log = log
        self._entries: dict[Any, Any] = {}
        self._version = 0
        self._error: BaseException | None = None
        self._lock = threading.Lock()  # the blocking twin is read from other threads
        self._moved = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        version = await self._log.version
        async for key, value, _ in self._log.at(version):
            self._entries[_hashable(key)] = value
        self._version = version
        self._task = asyncio.create_task(self._follow())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Follows no further; what is here stays as it is."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _follow(self) -> None:
        try:
            async for diff in self._log.follow(self._version):
                self._apply(diff)
                async with self._moved:
                    self._moved.notify_all()
        except IndelibleError as error:
            self._error = error
            async with self._moved:
                self._moved.notify_all()

    def _apply(self, diff: Diff) -> None:
        with self._lock:
            for change in diff.changes:  # removes come before the adds of their keys
                if change.op == "remove":
                    del self._entries[_hashable(change.key)]
                else:
                    self._entries[_hashable(change.key)] = change.value
            self._version = diff.to_version

    @property
    def version(self) -> int:
        """What is mirrored now.

        Raises:
            IndelibleError: why it can no longer follow.
        """
        self._check()
        return self._version

    async def reached(self, version: int) -> int:
        """Returns once the mirror is at `version` or after it; which one.

        Raises:
            IndelibleError: why it can no longer follow.
        """
        async with self._moved:
            await self._moved.wait_for(lambda: self._version >= version or self._error is not None)
        self._check()
        return self._version

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def __getitem__(self, key: Any) -> Any:
        with self._lock:
            self._check()
            return self._entries[key]

    def __len__(self) -> int:
        with self._lock:
            self._check()
            return len(self._entries)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.snapshot())

    def snapshot(self) -> dict[Any, Any]:
        """A copy of all entries at one version."""
        with self._lock:
            self._check()
            return dict(self._entries)


def _hashable(key: Any) -> Any:
    if isinstance(key, list):
        return tuple(_hashable(item) for item in key)
    if isinstance(key, dict):
        raise RequestError("a log whose keys are objects cannot be mirrored as a mapping")
    return key

"""Transactions: read, decide, commit if nothing came between, else once more.

Optimistic: nobody is ever locked out. A transaction reads at one version and commits on
condition that the log is still at it. The answer to a conflict tells what the keys that it
wrote hold now, so that a loser tries again at once, without reading them; and it may give a
ticket, with which the next try comes before the others'. Without one, who lost more often
waits a while, and reads anew: what was told before the wait is no longer so where others
write all the time. Transactions of one log in one process take turns, so that they do not
beat each other.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from indelible_protocol import messages
from indelible_protocol.errors import ErrorCode
from indelible_protocol.ids import KeyToken
from indelible_protocol.messages import TICKET_WANTED

from indelible.answers import Commit
from indelible.commands import Command, Delete, Upsert
from indelible.errors import ConflictError, RequestError
from indelible.retry import Backoff

if TYPE_CHECKING:
    from indelible.log import AsyncLog

T = TypeVar("T")

MAX_ATTEMPTS = 50
TURN_SECONDS = 1.0
EAGER_ATTEMPTS = 2  # after a conflict, with what its answer told
BACKOFF = Backoff(first_seconds=0.004, most_seconds=2.0)
_ABSENT = object()


@dataclass(frozen=True, slots=True)
class Transacted(Generic[T]):
    """What the function returned when its commit entered, and that commit."""

    value: T
    commit: Commit


class Turns:
    """Whose transaction is next, among those of one log in one process.

    A turn is a courtesy: whoever waits for TURN_SECONDS goes ahead without, so that a slow
    function holds nobody up for long, and one transaction within another ends.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def take(self) -> bool:
        """Whether it is to be given back."""
        try:
            async with asyncio.timeout(TURN_SECONDS):
                return await self._lock.acquire()
        except TimeoutError:
            return False

    async def give_back(self) -> None:
        self._lock.release()


class AsyncTransaction:
    """What a function reads and writes in `transact`. Reads see the transaction's own writes."""

    def __init__(self, log: "AsyncLog") -> None:
        self._log = log
        self._version: int | None = None
        self._known: dict[KeyToken, Any] = {}
        self._writes: dict[KeyToken, Command] = {}
        self._failures = 0
        self._ticket = TICKET_WANTED

    @property
    def version(self) -> int | None:
        """What the log was at when this was read; None before the first read."""
        return self._version

    async def get(self, key: Any, default: Any = None) -> Any:
        """The key's value at the transaction's version; `default` if it has none."""
        return (await self.get_many([key])).get(key, default)

    async def get_many(self, keys: Iterable[Any]) -> dict[Any, Any]:
        """The values of those keys that have one."""
        tokens = {self._log._handle.codec.token(key): key for key in keys}
        await self._read([token for token in tokens if token not in self._known])
        found = {}
        for token, key in tokens.items():
            value = self._value(token)
            if value is not _ABSENT:
                found[key] = value
        return found

    def set(self, key: Any, value: Any) -> None:
        """Sets the key, if the transaction commits."""
        self._writes[self._log._handle.codec.token(key)] = Upsert(key, value)

    def delete(self, key: Any) -> None:
        """Removes the key, if the transaction commits; no error if it is absent."""
        self._writes[self._log._handle.codec.token(key)] = Delete(key)

    def _value(self, token: KeyToken) -> Any:
        write = self._writes.get(token)
        if write is None:
            return self._known[token]
        return write.value if isinstance(write, Upsert) else _ABSENT

    async def _read(self, tokens: list[KeyToken]) -> None:
        if not tokens:
            return
        entries = await self._log._handle.remote.snapshot(tokens, self._version)
        self._version = entries.version
        await self._learn(tokens, entries.entries)

    async def _learn(self, tokens: Iterable[KeyToken], entries: list[messages.Entry]) -> None:
        values = await self._log._handle.opened(entries, lambda codec, it: codec.value(it.key, it))
        held = dict(zip([KeyToken(entry.key) for entry in entries], values, strict=True))
        for token in tokens:
            self._known[token] = held.get(token, _ABSENT)

    async def _conclude(self, max_attempts: int, source: str) -> Commit | None:
        """The commit of what was written; None if another was first: decide again.

        Raises:
            ConflictError: another was first `max_attempts` times in a row.
        """
        if self._version is None:
            self._version = await self._log.version
        if not self._writes:
            return Commit(self._version, changed=False)
        try:
            return await self._log._update(
                self._writes.values(), self._version, source, ticket=self._ticket
            )
        except ConflictError as conflict:
            self._failures += 1
            if conflict.code is not ErrorCode.UNEXPECTED_VERSION:
                raise
            if self._failures >= max_attempts:
                raise
            await self._begin_again(conflict)
            return None

    async def _begin_again(self, conflict: ConflictError) -> None:
        written = list(self._writes)
        self._known.clear()
        self._writes.clear()
        self._version = None
        self._ticket = conflict.ticket or TICKET_WANTED
        if self._failures > EAGER_ATTEMPTS and not conflict.ticket:
            await asyncio.sleep(BACKOFF.delay_seconds(self._failures - EAGER_ATTEMPTS))
        elif conflict.sealed is not None:
            self._version = conflict.current_version
            await self._learn(written, list(conflict.sealed))


def check_attempts(max_attempts: int) -> None:
    if max_attempts < 1:
        raise RequestError(f"max_attempts is {max_attempts}, 1 or more expected")


async def transact(
    log: "AsyncLog",
    decide: Callable[[AsyncTransaction], Awaitable[T]],
    *,
    max_attempts: int,
    source: str,
) -> Transacted[T]:
    """See `AsyncLog.transact`."""
    check_attempts(max_attempts)
    transaction = AsyncTransaction(log)
    taken = await log._turns.take()
    try:
        while True:
            value = await decide(transaction)
            commit = await transaction._conclude(max_attempts, source)
            if commit is not None:
                return Transacted(value, commit)
    finally:
        if taken:
            await log._turns.give_back()

"""The blocking twins of AsyncClient and AsyncLog: the same methods, without await.

One implementation, the asynchronous one, runs in a background thread that all blocking
clients of a process share. Threads may share a client. Ctrl-C cancels the call that waits,
and leaving a `for` loop closes what it read from.
"""

import asyncio
import weakref
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypeVar, cast

from indelible.answers import (
    Change,
    Commit,
    Description,
    Diff,
    Entry,
    Forgotten,
    KeyChange,
    Version,
)
from indelible.client import TIMEOUT_SECONDS, AsyncClient
from indelible.commands import Command
from indelible.config import Profile
from indelible.errors import CommitId
from indelible.log import AsyncLog, AsyncView
from indelible.mirroring import AsyncMirror
from indelible.modes import ModeName
from indelible.names import Name
from indelible.notifying import AsyncWebhooks, Delivery, DeliveryState, Webhook
from indelible.portal import END, Stream, call, finish
from indelible.projecting import MAX_VERSIONS, POSITION_KEY, AsyncProjection
from indelible.transacting import MAX_ATTEMPTS, AsyncTransaction, Transacted, check_attempts
from indelible.webhooks import Event

T = TypeVar("T")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])


def _like(twin: object) -> Callable[[F], F]:
    """Takes over the twin's docstring."""

    def document(method: F) -> F:
        method.__doc__ = twin.__doc__
        return method

    return document


def _steps(iterator: AsyncIterator[T]) -> Generator[T, None, None]:
    stream = Stream(iterator)
    try:
        while (item := call(stream.step)) is not END:
            yield cast(T, item)
    finally:
        finish(stream.close)


class View(Generic[T]):
    """Something that can be read, and read again: every `for` starts anew.

    Comes in pages from the service while it is read; pinned to its versions, so that every
    reading gives the same.
    """

    def __init__(self, view: AsyncView[T]) -> None:
        self._view = view

    def __iter__(self) -> Generator[T, None, None]:
        for page in _steps(self._view.pages()):
            yield from page


class Transaction:
    """What a function reads and writes in `transact`. Reads see the transaction's own writes."""

    def __init__(self, transaction: AsyncTransaction) -> None:
        self._transaction = transaction

    @property
    @_like(AsyncTransaction.version)
    def version(self) -> int | None:
        return self._transaction.version

    @_like(AsyncTransaction.get)
    def get(self, key: Any, default: Any = None) -> Any:
        return call(self._transaction.get, key, default)

    @_like(AsyncTransaction.get_many)
    def get_many(self, keys: Iterable[Any]) -> dict[Any, Any]:
        return call(self._transaction.get_many, keys)

    @_like(AsyncTransaction.set)
    def set(self, key: Any, value: Any) -> None:
        self._transaction.set(key, value)

    @_like(AsyncTransaction.delete)
    def delete(self, key: Any) -> None:
        self._transaction.delete(key)


class Mirror(Mapping[Any, Any]):
    """A log's live contents, as a mapping that cannot be written. Use as `with`.

    Every single access sees one version whole. Lists among the keys are tuples here.
    """

    def __init__(self, mirror: AsyncMirror) -> None:
        self._mirror = mirror

    def __enter__(self) -> Self:
        call(self._mirror.__aenter__)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    @_like(AsyncMirror.close)
    def close(self) -> None:
        call(self._mirror.close)

    @property
    @_like(AsyncMirror.version)
    def version(self) -> int:
        return self._mirror.version

    @_like(AsyncMirror.reached)
    def reached(self, version: int) -> int:
        return call(self._mirror.reached, version)

    @_like(AsyncMirror.snapshot)
    def snapshot(self) -> dict[Any, Any]:
        return self._mirror.snapshot()

    def __getitem__(self, key: Any) -> Any:
        return self._mirror[key]

    def __len__(self) -> int:
        return len(self._mirror)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._mirror)


class Log(View[Entry]):
    """A versioned map, sealed by this side. Made by `Client.log`.

    Version 0 is empty. Each `update` that changes something makes the next version; `set`,
    `set_many` and `delete` are short for updates. `for entry in log` reads the contents at
    the version that is current when the loop begins.
    """

    def __init__(self, log: AsyncLog) -> None:
        super().__init__(log)
        self._log = log

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"

    @property
    def name(self) -> Name:
        return self._log.name

    @property
    def group(self) -> str:
        return self._log.group

    @property
    @_like(AsyncLog.log_id)
    def log_id(self) -> str:
        return self._log.log_id

    @property
    def key_mode(self) -> ModeName:
        return self._log.key_mode

    @property
    def value_mode(self) -> ModeName:
        return self._log.value_mode

    @_like(AsyncLog.set)
    def set(
        self, key: Any, value: Any, *, expect_version: int | None = None, source: str = ""
    ) -> Commit:
        return call(self._log.set, key, value, expect_version=expect_version, source=source)

    @_like(AsyncLog.set_many)
    def set_many(
        self, items: Mapping[Any, Any], *, expect_version: int | None = None, source: str = ""
    ) -> Commit:
        return call(self._log.set_many, items, expect_version=expect_version, source=source)

    @_like(AsyncLog.delete)
    def delete(self, key: Any, *, expect_version: int | None = None, source: str = "") -> Commit:
        return call(self._log.delete, key, expect_version=expect_version, source=source)

    @_like(AsyncLog.update)
    def update(
        self,
        commands: Iterable[Command],
        *,
        expect_version: int | None = None,
        source: str = "",
    ) -> Commit:
        return call(self._log.update, commands, expect_version=expect_version, source=source)

    @_like(AsyncLog.transact)
    def transact(
        self,
        decide: Callable[[Transaction], R],
        *,
        max_attempts: int = MAX_ATTEMPTS,
        source: str = "",
    ) -> Transacted[R]:
        check_attempts(max_attempts)
        transaction = AsyncTransaction(self._log)
        taken = call(self._log._turns.take)
        try:
            while True:
                value = decide(Transaction(transaction))
                commit = call(transaction._conclude, max_attempts, source)
                if commit is not None:
                    return Transacted(value, commit)
        finally:
            if taken:
                call(self._log._turns.give_back)

    @_like(AsyncLog.settle)
    def settle(self, commit_id: CommitId) -> Commit:
        return call(self._log.settle, commit_id)

    @property
    def version(self) -> int:
        """The current version, asked for anew."""
        return call(lambda: self._log.version)

    @_like(AsyncLog.get)
    def get(self, key: Any, default: Any = None, *, at: int | None = None) -> Any:
        return call(self._log.get, key, default, at=at)

    @_like(AsyncLog.entry)
    def entry(self, key: Any, *, at: int | None = None) -> Entry | None:
        return call(self._log.entry, key, at=at)

    @_like(AsyncLog.get_many)
    def get_many(self, keys: Iterable[Any], *, at: int | None = None) -> dict[Any, Any]:
        return call(self._log.get_many, keys, at=at)

    def __contains__(self, key: Any) -> bool:
        # Without this, `in` would read the whole log and compare keys with entries.
        return self.entry(key) is not None

    @_like(AsyncLog.at)
    def at(self, version: int, *, streamed: bool = False) -> View[Entry]:
        return View(self._log.at(version, streamed=streamed))

    @_like(AsyncLog.diff)
    def diff(
        self, from_version: int, to_version: int | None = None, *, streamed: bool = False
    ) -> View[Change]:
        return View(self._log.diff(from_version, to_version, streamed=streamed))

    @_like(AsyncLog.follow)
    def follow(
        self,
        after: int | None = None,
        *,
        position: str | Path | None = None,
        max_wait_seconds: float | None = None,
    ) -> Generator[Diff, None, None]:
        return _steps(self._log.follow(after, position=position, max_wait_seconds=max_wait_seconds))

    @_like(AsyncLog.mirror)
    def mirror(self) -> Mirror:
        return Mirror(self._log.mirror())

    @_like(AsyncLog.history)
    def history(self, key: Any) -> View[KeyChange]:
        return View(self._log.history(key))

    @_like(AsyncLog.versions)
    def versions(self) -> View[Version]:
        return View(self._log.versions())

    @_like(AsyncLog.describe)
    def describe(self) -> Description:
        return call(self._log.describe)

    @_like(AsyncLog.delivered)
    def delivered(self, event: Event) -> Diff:
        return call(self._log.delivered, event)

    @_like(AsyncLog.forget)
    def forget(
        self, before: int, *, on_progress: Callable[[Forgotten], None] | None = None
    ) -> Forgotten:
        return call(self._log.forget, before, on_progress=on_progress)

    @_like(AsyncLog.drop)
    def drop(self) -> None:
        call(self._log.drop)


class Projection:
    """Derives `target` from `source`. `derive(diff, transaction)` reads and writes the target.

    `derive` gets the net changes of up to `max_versions` versions of the source, and may run
    again for the same ones if another instance was first: only what it does through the
    transaction counts once. The target's keys are strings or JSON, its values JSON or msgpack;
    `position_key` is the projection's own.
    """

    def __init__(
        self,
        source: Log,
        target: Log,
        derive: Callable[[Diff, Transaction], None],
        *,
        position_key: str = POSITION_KEY,
        max_versions: int = MAX_VERSIONS,
    ) -> None:
        async def in_a_thread(diff: Diff, transaction: AsyncTransaction) -> None:
            # `derive` blocks on the transaction, whose loop this is.
            await asyncio.to_thread(derive, diff, Transaction(transaction))

        self._projection = AsyncProjection(
            source._log,
            target._log,
            in_a_thread,
            position_key=position_key,
            max_versions=max_versions,
        )

    @_like(AsyncProjection.position)
    def position(self) -> int:
        return call(self._projection.position)

    @_like(AsyncProjection.step)
    def step(self) -> Diff | None:
        return call(self._projection.step)

    @_like(AsyncProjection.run)
    def run(self) -> None:
        call(self._projection.run)


class Webhooks:
    """The webhooks of the database. Made by a client."""

    def __init__(self, webhooks: AsyncWebhooks) -> None:
        self._webhooks = webhooks

    @_like(AsyncWebhooks.create)
    def create(
        self,
        url: str,
        *,
        log: Name | None = None,
        log_id: str | None = None,
        group: str | None = None,
        keys: Iterable[Any] = (),
        payload: Literal["thin", "diff"] = "thin",
        signature: Literal["hmac", "ed25519"] = "hmac",
        description: str = "",
    ) -> Webhook:
        return call(
            self._webhooks.create,
            url,
            log=log,
            log_id=log_id,
            group=group,
            keys=keys,
            payload=payload,
            signature=signature,
            description=description,
        )

    @_like(AsyncWebhooks.list)
    def list(self) -> View[Webhook]:
        return View(self._webhooks.list())

    @_like(AsyncWebhooks.get)
    def get(self, webhook_id: str) -> Webhook:
        return call(self._webhooks.get, webhook_id)

    @_like(AsyncWebhooks.delete)
    def delete(self, webhook_id: str) -> None:
        call(self._webhooks.delete, webhook_id)

    @_like(AsyncWebhooks.enable)
    def enable(self, webhook_id: str) -> Webhook:
        return call(self._webhooks.enable, webhook_id)

    @_like(AsyncWebhooks.rotate_secret)
    def rotate_secret(self, webhook_id: str) -> Webhook:
        return call(self._webhooks.rotate_secret, webhook_id)

    @_like(AsyncWebhooks.trigger)
    def trigger(self, webhook_id: str) -> str:
        return call(self._webhooks.trigger, webhook_id)

    @_like(AsyncWebhooks.deliveries)
    def deliveries(self, webhook_id: str, *, state: DeliveryState | None = None) -> View[Delivery]:
        return View(self._webhooks.deliveries(webhook_id, state=state))

    @_like(AsyncWebhooks.replay)
    def replay(self, webhook_id: str, *, since: datetime) -> int:
        return call(self._webhooks.replay, webhook_id, since=since)


class Client:
    """A connection to the service with one profile's keys. Use as `with`, or `close`."""

    @_like(AsyncClient.__init__)
    def __init__(
        self,
        profile: Profile | str | Path | None = None,
        *,
        database: str = "default",
        timeout_seconds: float = TIMEOUT_SECONDS,
        ca_file: str | Path | None = None,
        allow_plain_http: bool = False,
    ) -> None:
        self._client = AsyncClient(
            profile,
            database=database,
            timeout_seconds=timeout_seconds,
            ca_file=ca_file,
            allow_plain_http=allow_plain_http,
        )
        # For a client that nobody closes: once neither it nor a log of it is there any more,
        # or at the end of the process.
        transport = self._client._transport
        weakref.finalize(transport, finish, transport.pool.close)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._client!r}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    @_like(AsyncClient.close)
    def close(self) -> None:
        finish(self._client.close)

    @_like(AsyncClient.log)
    def log(
        self,
        name: Name,
        *,
        create: bool = False,
        key_mode: ModeName | None = "string",
        value_mode: ModeName | None = "json",
        group: str = "",
    ) -> Log:
        return Log(
            call(
                self._client.log,
                name,
                create=create,
                key_mode=key_mode,
                value_mode=value_mode,
                group=group,
            )
        )

    @_like(AsyncClient.logs)
    def logs(self, *, group: str | None = None) -> View[Description]:
        return View(self._client.logs(group=group))

    @_like(AsyncClient.follow_many)
    def follow_many(
        self, logs: Mapping[Log, int | None], *, max_wait_seconds: float | None = None
    ) -> Generator[tuple[Log, Diff | None], None, None]:
        twins = {log._log: log for log in logs}
        after = {log._log: version for log, version in logs.items()}
        moves = self._client.follow_many(after, max_wait_seconds=max_wait_seconds)
        for log, diff in _steps(moves):
            yield twins[log], diff

    @_like(AsyncClient.follow_group)
    def follow_group(
        self,
        group: str,
        *,
        after: Mapping[str, int] | None = None,
        from_start: bool = False,
        max_wait_seconds: float | None = None,
    ) -> Generator[tuple[Log, Diff | None], None, None]:
        twins: dict[AsyncLog, Log] = {}
        moves = self._client.follow_group(
            group, after=after, from_start=from_start, max_wait_seconds=max_wait_seconds
        )
        for log, diff in _steps(moves):
            yield twins.setdefault(log, Log(log)), diff

    @property
    @_like(AsyncClient.webhooks)
    def webhooks(self) -> Webhooks:
        return Webhooks(self._client.webhooks)

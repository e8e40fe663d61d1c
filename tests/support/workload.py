"""Clients that write, read and wait on a few logs at once, and write down what they saw.

Everything goes through the native HTTP API, to any of several processes. A commit whose
outcome stays open is sent again with the same idempotency key until it is settled or time
is up. Bounded in count and time. Judges nothing itself: `history` does.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import aiohttp

from tests.support.native_api import (
    Committed,
    InDoubt,
    NativeApi,
    NotDone,
    Unexpected,
    pause_before_retry,
)
from tests.support.operations import (
    Acked,
    Append,
    Change,
    Command,
    DiffRead,
    History,
    Op,
    Operation,
    Outcome,
    Read,
    Refused,
    Rejected,
    Unknown,
    Wait,
    contents_digest,
    marker,
)
from tests.support.polling import until
from tests.support.simulation import KEYS, some_commands
from tests.support.stored_log import disagreements, stored_versions
from tests.support.timeline import Entry

SECOND_NS = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """`sending` says what a client does about a commit in doubt: send it again under the
    `same key`; send it under `another key`, which is wrong; or send each commit but `once`,
    without a key, and leave it in doubt. `value_bytes` is the least size of a value."""

    writers: int = 8
    readers: int = 4
    waiters: int = 4
    logs: int = 2
    settle_seconds: float = 20.0
    max_wait_seconds: float = 2.0
    repeat_share: float = 0.03
    value_bytes: int = 0
    sending: Literal["same key", "another key", "once"] = "same key"
    seed: int = 1


DEFAULT_LOAD = Load()


class _Log:
    """One log as the clients know it. `seen` is shared: some client saw it at `version`."""

    def __init__(self, name: str, log_id: bytes) -> None:
        self.name, self.id = name, log_id
        self.operations: list[Operation] = []
        self.version = 0
        self.contents: dict[str, Entry] = {}

    def saw(self, version: int, entries: Sequence[tuple[str, str, int]]) -> None:
        if version >= self.version:
            self.version = version
            self.contents = {key: Entry(value, at) for key, value, at in entries}

    def moved(self, from_version: int, to_version: int, changes: Sequence[Change]) -> None:
        if from_version != self.version:
            return
        for change in sorted(changes, reverse=True):  # removes first
            if change.op == "remove":
                self.contents.pop(change.key, None)
            else:
                self.contents[change.key] = Entry(change.value, change.version)
        self.version = to_version


class Workload:
    """Use as `async with`; entering makes the logs.

    `anomalies` are answers that have no place in a history: statuses and codes that the
    protocol does not foresee, another answer to the same idempotency key, a version gone.
    """

    def __init__(self, *, endpoints: Sequence[str], apikey: str, load: Load = DEFAULT_LOAD) -> None:
        self.anomalies: list[str] = []
        self.durabilities: set[str] = set()
        self.acked = 0  # commits
        self.unavailable = 0  # reads and waits that got no answer
        self.in_doubt = 0  # sends of commits whose own outcome stayed open
        self.refused: Counter[str] = Counter()  # commits certainly not in, by code
        self._endpoints, self._apikey, self._load = endpoints, apikey, load
        self._rng = random.Random(load.seed)
        self._logs: list[_Log] = []
        self._stopping = asyncio.Event()
        self._clients: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Workload":
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), skip_auto_headers=["User-Agent"]
        )
        self._api = NativeApi(
            self._session, endpoints=self._endpoints, apikey=self._apikey, rng=self._rng
        )
        salt = time.monotonic_ns()
        for number in range(self._load.logs):
            name = f"log-{salt}-{number}"
            self._logs.append(_Log(name, await self._api.create_log(name)))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._end_clients()
        await self._session.close()

    @property
    def log_ids(self) -> list[bytes]:
        return [log.id for log in self._logs]

    @property
    def operations(self) -> int:
        return sum(len(log.operations) for log in self._logs)

    def start(self) -> None:
        load = self._load
        bodies: list[tuple[str, int, Callable[[str, random.Random], Awaitable[None]]]] = [
            ("writer", load.writers, self._write),
            ("reader", load.readers, self._read),
            ("waiter", load.waiters, self._wait),
        ]
        for word, count, body in bodies:
            for number in range(count):
                name = f"{word}-{number}"
                self._clients.append(asyncio.create_task(self._loop(name, body), name=name))

    async def run(self, *, operations: int, within_seconds: float) -> None:
        """Starts the clients and stops them after so many operations."""
        self.start()
        await self.until_operations(operations, within_seconds=within_seconds)
        await self.finish()

    async def until_operations(self, operations: int, *, within_seconds: float) -> None:
        await until(
            lambda: self.operations >= operations or any(task.done() for task in self._clients),
            within_seconds=within_seconds,
            what=f"{operations} operations",
        )

    async def progress(self, acked: int, *, within_seconds: float = 30.0) -> None:
        """Returns after `acked` more commits were acknowledged."""
        goal = self.acked + acked
        await until(
            lambda: self.acked >= goal or any(task.done() for task in self._clients),
            within_seconds=within_seconds,
            what=f"{acked} more acknowledged commits",
        )

    async def repeat_acked(self, most: int) -> None:
        """Sends the last acknowledged commits of each log once more, under their keys."""
        for log in self._logs:
            acked = [
                (op, op.outcome)
                for op in log.operations
                if isinstance(op, Append) and isinstance(op.outcome, Acked)
            ]
            for op, outcome in acked[-most:]:
                await self._repeat(log, op.token, op.commands, outcome)

    async def finish(self) -> None:
        """Lets every client end its operation; then one last commit and read on each log."""
        self._stopping.set()
        async with asyncio.timeout(self._load.settle_seconds + 30):
            await asyncio.gather(*self._clients)
            for log in self._logs:
                token = f"last-{log.name}"
                await self._commit("writer-0", log, token, [Command(Op.UPSERT, KEYS[0], token)])
                await self._read_all("reader-0", log)

    async def histories(self, store_url: str) -> list[History]:
        """What happened on each log, with what the store holds of it now."""
        histories = []
        for log in self._logs:
            sent = [
                command
                for op in log.operations
                if isinstance(op, Append)
                for command in op.commands
            ]
            stored = await stored_versions(store_url, log.id, sent=sent)
            histories.append(History(log=log.name, operations=tuple(log.operations), stored=stored))
        return histories

    async def disagreements(self, store_url: str) -> list[str]:
        """Where parts of a log in the store do not fit together: commits torn in two."""
        return [
            f"{log.name}: {fault}"
            for log, history in zip(self._logs, await self.histories(store_url), strict=True)
            for fault in await disagreements(
                store_url, log.id, history.stored, keyed=self._load.sending != "once"
            )
        ]

    async def _end_clients(self) -> None:
        for task in self._clients:
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    async def _loop(self, name: str, body: Callable[[str, random.Random], Awaitable[None]]) -> None:
        rng = random.Random(f"{self._load.seed} {name}")
        failures = 0
        while not self._stopping.is_set():
            try:
                await body(name, rng)
                failures = 0
            except (NotDone, InDoubt):
                self.unavailable += 1
                failures += 1
                await pause_before_retry(rng, failures)
            except Unexpected as error:
                self.anomalies.append(f"{name}: {error}")
                for log in self._logs:  # a version may be gone: look again
                    log.version, log.contents = 0, {}
                await pause_before_retry(rng, failures := failures + 1)

    def _record(self, log: _Log, operation: Operation) -> None:
        log.operations.append(operation)
        if isinstance(operation, Append):
            self.acked += isinstance(operation.outcome, Acked)
            if isinstance(operation.outcome, Refused):
                self.refused[operation.outcome.code] += 1

    # Writers.

    async def _write(self, name: str, rng: random.Random) -> None:
        log = rng.choice(self._logs)
        token = f"{name}-{time.monotonic_ns()}"
        commands = [
            command._replace(value=command.value.ljust(self._load.value_bytes, "."))
            if command.value
            else command
            for command in some_commands(rng, token, log.version, log.contents)
        ]
        await self._commit(name, log, token, commands)

    async def _commit(self, name: str, log: _Log, token: str, commands: Sequence[Command]) -> None:
        if not commands or commands[0] != marker(token):
            commands = [marker(token), *commands]
        invoked_ns = time.monotonic_ns()
        outcome, doubts = await self._settle(log, token, commands, invoked_ns)
        self._record(
            log,
            Append(
                token=token,
                client=name,
                commands=tuple(commands),
                invoked_ns=invoked_ns,
                completed_ns=time.monotonic_ns(),
                outcome=outcome,
                ambiguous_sends=doubts,
            ),
        )
        repeats = self._load.sending == "same key" and self._rng.random() < self._load.repeat_share
        if repeats and isinstance(outcome, Acked):
            await self._repeat(log, token, commands, outcome)

    async def _settle(
        self, log: _Log, token: str, commands: Sequence[Command], invoked_ns: int
    ) -> tuple[Outcome, int]:
        """Sends until the outcome is known or time is up; how many sends stayed open."""
        doubts, attempt, reason = 0, 0, ""
        give_up_ns = invoked_ns + self._load.settle_seconds * SECOND_NS
        while time.monotonic_ns() < give_up_ns:
            key = {"same key": token, "another key": f"{token}/{attempt}", "once": None}
            attempt += 1
            try:
                answer = await self._api.commit(
                    log.id, commands, idempotency_key=key[self._load.sending]
                )
            except InDoubt:
                doubts += 1
                self.in_doubt += 1
            except NotDone as error:
                reason = str(error)
            else:
                if isinstance(answer, Committed):
                    self.durabilities.add(answer.durability)
                    return answer.outcome, doubts
                if isinstance(answer, Rejected) or not doubts:
                    return answer, doubts
            if self._load.sending == "once":
                break
            await pause_before_retry(self._rng, attempt)
        return (Unknown() if doubts else Refused(code=reason)), doubts

    async def _repeat(
        self, log: _Log, token: str, commands: Sequence[Command], outcome: Acked
    ) -> None:
        """Asks again for what is known: the answer is the same, and nothing more is done."""
        answer = await self._api.commit(log.id, commands, idempotency_key=token)
        if not isinstance(answer, Committed) or answer.outcome != outcome or not answer.repeated:
            self.anomalies.append(f"{token} was {outcome}; asked again: {answer}")

    # Readers.

    async def _read(self, name: str, rng: random.Random) -> None:
        log = rng.choice(self._logs)
        kind = rng.choice([self._read_all, self._read_entries, self._read_at, self._diff])
        await kind(name, log)

    async def _read_all(self, name: str, log: _Log) -> None:
        invoked_ns = time.monotonic_ns()
        answer = await self._api.diff(log.id, 0, limit=self._rng.choice([3, 1_000]))
        entries = [(change.key, change.value, change.version) for change in answer.changes]
        self._record_read(name, log, invoked_ns, answer.to_version, entries)
        log.saw(answer.to_version, entries)

    async def _read_entries(self, name: str, log: _Log) -> None:
        invoked_ns = time.monotonic_ns()
        answer = await self._api.entries(log.id, KEYS)
        self._record_read(name, log, invoked_ns, answer.version, answer.entries)
        log.saw(answer.version, answer.entries)

    async def _read_at(self, name: str, log: _Log) -> None:
        version = self._rng.randint(max(0, log.version - 200), log.version)
        invoked_ns = time.monotonic_ns()
        answer = await self._api.diff(log.id, 0, version)
        entries = [(change.key, change.value, change.version) for change in answer.changes]
        self._record_read(name, log, invoked_ns, version, entries, pinned=True)

    def _record_read(
        self,
        name: str,
        log: _Log,
        invoked_ns: int,
        version: int,
        entries: Sequence[tuple[str, str, int]],
        *,
        pinned: bool = False,
    ) -> None:
        self._record(
            log,
            Read(
                client=name,
                invoked_ns=invoked_ns,
                completed_ns=time.monotonic_ns(),
                version=version,
                digest=contents_digest(entries),
                pinned=pinned,
            ),
        )

    async def _diff(self, name: str, log: _Log) -> None:
        low = max(0, log.version - self._rng.choice([3, 30, 300]))
        ends = [self._rng.randint(low, log.version) for _ in range(2)]
        invoked_ns = time.monotonic_ns()
        answer = await self._api.diff(log.id, *ends, limit=self._rng.choice([2, 1_000]))
        self._record(
            log,
            DiffRead(
                client=name,
                invoked_ns=invoked_ns,
                completed_ns=time.monotonic_ns(),
                from_version=ends[0],
                to_version=ends[1],
                changes=tuple(answer.changes),
                current=answer.current,
            ),
        )

    # Waiters.

    async def _wait(self, name: str, rng: random.Random) -> None:
        wait_seconds = rng.uniform(0.2, self._load.max_wait_seconds)
        if rng.random() < 0.25:
            await self._wait_for_any(name, wait_seconds)
            return
        log = rng.choice(self._logs)
        since = max(0, log.version - rng.choice([0, 0, 0, 0, 5]))
        invoked_ns = time.monotonic_ns()
        answer = await self._api.wait(log.id, since, wait_seconds=wait_seconds)
        self._record(
            log,
            Wait(
                client=name,
                invoked_ns=invoked_ns,
                completed_ns=time.monotonic_ns(),
                deadline_ns=invoked_ns + int(wait_seconds * SECOND_NS),
                since=since,
                version=answer.to_version if answer else None,
                changes=tuple(answer.changes) if answer else None,
            ),
        )
        if answer:
            log.moved(since, answer.to_version, answer.changes)

    async def _wait_for_any(self, name: str, wait_seconds: float) -> None:
        known = {log.id: log.version for log in self._logs}
        invoked_ns = time.monotonic_ns()
        moved = await self._api.wait_for_any(known, wait_seconds=wait_seconds)
        for log in self._logs:
            if log.id not in moved and moved:
                continue  # another log ended the wait; this one may or may not have moved
            self._record(
                log,
                Wait(
                    client=name,
                    invoked_ns=invoked_ns,
                    completed_ns=time.monotonic_ns(),
                    deadline_ns=invoked_ns + int(wait_seconds * SECOND_NS),
                    since=known[log.id],
                    version=moved.get(log.id),
                ),
            )

"""Correct histories of one log, invented: no server, no clock, the same for the same seed.

Clients act on a virtual clock; a commit is judged and takes effect at one moment between
its send and its answer, or, when its outcome stays unknown, at any later moment or never.
What comes out is what a faultless service could have answered: the checker must find
nothing in it.
"""

import heapq
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

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
    Rejected,
    Stored,
    Unknown,
    Wait,
    contents_digest,
    marker,
)
from tests.support.timeline import Entry, Refusal, judge

MILLISECOND_NS = 1_000_000
KEYS = tuple(f"key-{number}" for number in range(8))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cast:
    """How many clients act, and how many operations each."""

    writers: int = 4
    readers: int = 2
    waiters: int = 2
    operations_each: int = 12
    unknown_share: float = 0.15


Contents = dict[str, Entry]


def difference(old: Contents, new: Contents) -> list[Change]:
    """The changes between two contents, whole: slow, and plainly right."""
    gone = [Change("remove", key, *entry) for key, entry in old.items() if new.get(key) != entry]
    come = [Change("add", key, *entry) for key, entry in new.items() if old.get(key) != entry]
    return gone + come


def some_commands(
    rng: random.Random, token: str, version: int, contents: Mapping[str, Entry]
) -> list[Command]:
    """A commit by a client that last saw `contents` at `version`: it is often out of date."""
    commands = [marker(token)]
    if rng.random() < 0.2:
        commands.append(Command(Op.EXPECT_VERSION, version=version))
    for number in range(rng.choice([1, 1, 1, 2, 3])):
        key, value = rng.choice(KEYS), f"{token}.{number}"
        held = contents.get(key)
        introduced = held.version if held else 1
        commands += rng.choice(
            [
                [Command(Op.UPSERT, key, value)],
                [Command(Op.UPSERT, key, value)],
                [Command(Op.INSERT, key, value)],
                [Command(Op.UPDATE, key, value)],
                [Command(Op.UPSERT, key, held.value if held else value)],
                [Command(Op.REMOVE, key, held.value if held else value)],
                [Command(Op.DELETE, key)],
                [Command(Op.EXPECT_ABSENT, key), Command(Op.UPSERT, key, value)],
                [Command(Op.EXPECT_ENTRY, key, version=introduced), Command(Op.DELETE, key)],
            ]
        )
    return commands


class _World:
    """A perfect log, and the events that are still to come."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.now_ns = 0
        self.states: list[Contents] = [{}]
        self.stored: list[Stored] = []
        self.operations: list[Operation] = []
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._order = count()
        self._woken: list[Callable[[], None]] = []

    @property
    def version(self) -> int:
        return len(self.stored)

    def later(self, low_ms: int, high_ms: int, action: Callable[[], None]) -> None:
        at_ns = self.now_ns + self.rng.randint(low_ms * MILLISECOND_NS, high_ms * MILLISECOND_NS)
        heapq.heappush(self._events, (at_ns, next(self._order), action))

    def run(self) -> None:
        while self._events:
            self.now_ns, _, action = heapq.heappop(self._events)
            action()

    def commit(self, commands: Sequence[Command]) -> Outcome:
        verdict = judge(commands, self.version, self.states[-1].get)
        if isinstance(verdict, Refusal):
            return Rejected(code=verdict.code, index=verdict.at, current=self.version)
        if not verdict:
            return Acked(version=self.version, changed=False)
        contents = dict(self.states[-1])
        version = self.version + 1
        for key, value in verdict.items():
            if value is None:
                del contents[key]
            else:
                contents[key] = Entry(value, version)
        self.states.append(contents)
        self.stored.append(Stored(version=version, commands=tuple(commands)))
        woken, self._woken = self._woken, []
        for wake in woken:
            self.later(1, 40, wake)
        return Acked(version=version, changed=True)

    def on_commit(self, action: Callable[[], None]) -> None:
        self._woken.append(action)


class _Client:
    def __init__(self, world: _World, name: str, operations: int) -> None:
        self.world, self.name, self.left = world, name, operations
        self.seen = 0
        world.later(0, 300, self.step)

    def step(self) -> None:
        if self.left:
            self.left -= 1
            self.act()

    def act(self) -> None:
        raise NotImplementedError

    def record(self, operation: Operation) -> None:
        self.world.operations.append(operation)
        self.world.later(0, 300, self.step)


class _Writer(_Client):
    def __init__(self, world: _World, name: str, cast: Cast) -> None:
        super().__init__(world, name, cast.operations_each)
        self.unknown_share = cast.unknown_share

    def act(self) -> None:
        world, rng = self.world, self.world.rng
        token = f"{self.name}-{self.left}"
        commands = some_commands(rng, token, self.seen, world.states[self.seen])
        invoked_ns = world.now_ns
        lost = rng.random() < self.unknown_share
        answers: list[Outcome] = []

        def answer() -> None:
            outcome = Unknown() if lost or not answers else answers[0]
            if isinstance(outcome, Acked):
                self.seen = outcome.version
            elif isinstance(outcome, Rejected):
                self.seen = outcome.current
            self.record(
                Append(
                    token=token,
                    client=self.name,
                    commands=tuple(commands),
                    invoked_ns=invoked_ns,
                    completed_ns=world.now_ns,
                    outcome=outcome,
                    ambiguous_sends=int(lost),
                )
            )

        def take_effect() -> None:
            answers.append(world.commit(commands))
            if not lost:
                world.later(1, 60, answer)

        if lost:
            world.later(20, 200, answer)
            if rng.random() < 0.7:
                world.later(1, 900, take_effect)
        else:
            world.later(1, 60, take_effect)


class _Reader(_Client):
    def act(self) -> None:
        world, rng = self.world, self.world.rng
        invoked_ns = world.now_ns
        kind = rng.choice(["read", "read", "pinned", "diff"])
        older = rng.randint(0, self.seen)

        def take_effect() -> None:
            current = world.version
            version = older if kind == "pinned" else current
            contents = world.states[version]
            low, high = rng.choice([(older, current), (current, older)])
            changes = tuple(difference(world.states[low], world.states[high]))
            digest = contents_digest((key, *entry) for key, entry in contents.items())

            def answer() -> None:
                self.seen = max(self.seen, current)
                if kind == "diff":
                    self.record(
                        DiffRead(
                            client=self.name,
                            invoked_ns=invoked_ns,
                            completed_ns=world.now_ns,
                            from_version=low,
                            to_version=high,
                            changes=changes,
                            current=current,
                        )
                    )
                    return
                self.record(
                    Read(
                        client=self.name,
                        invoked_ns=invoked_ns,
                        completed_ns=world.now_ns,
                        version=version,
                        digest=digest,
                        pinned=kind == "pinned",
                    )
                )

            world.later(1, 60, answer)

        world.later(1, 60, take_effect)


class _Waiter(_Client):
    def act(self) -> None:
        world = self.world
        invoked_ns, since = world.now_ns, self.seen
        patience_ms = world.rng.randint(300, 4_000)
        deadline_ns = invoked_ns + patience_ms * MILLISECOND_NS
        answered = False

        def look(*, last: bool = False) -> None:
            nonlocal answered
            if answered or (world.version == since and not last):
                return
            answered = True
            version = world.version if world.version > since else None
            world.later(1, 60, lambda: answer(version))

        def answer(version: int | None) -> None:
            self.seen = version if version is not None else since
            self.record(
                Wait(
                    client=self.name,
                    invoked_ns=invoked_ns,
                    completed_ns=world.now_ns,
                    deadline_ns=deadline_ns,
                    since=since,
                    version=version,
                    changes=tuple(difference(world.states[since], world.states[self.seen])),
                )
            )

        world.on_commit(look)
        world.later(1, 60, look)
        world.later(patience_ms, patience_ms, lambda: look(last=True))


DEFAULT_CAST = Cast()


def correct_history(seed: int, cast: Cast = DEFAULT_CAST) -> History:
    rng = random.Random(seed)
    world = _World(rng)
    for number in range(cast.writers):
        _Writer(world, f"writer-{number}", cast)
    for number in range(cast.readers):
        _Reader(world, f"reader-{number}", cast.operations_each)
    for number in range(cast.waiters):
        _Waiter(world, f"waiter-{number}", cast.operations_each)
    world.run()
    return History(
        log=f"seed-{seed}", operations=tuple(world.operations), stored=tuple(world.stored)
    )

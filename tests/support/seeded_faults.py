"""Faults to put into a correct history, one kind each, to see that the checker finds them.

Every kind takes a correct history and returns one that a faulty service could have left,
or None where that history offers no place for it. Knows nothing of how faults are found,
only which rules may find them.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tests.support.history import SECOND_NS
from tests.support.operations import (
    Acked,
    Append,
    Change,
    Command,
    DiffRead,
    History,
    Op,
    Operation,
    Read,
    Rejected,
    Stored,
    Unknown,
    Wait,
    marker,
    token_of,
)
from tests.support.timeline import Refusal, Timeline

Mutate = Callable[[random.Random, History], History | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """`rules`: at least one of these must be among the violations found."""

    name: str
    rules: frozenset[int]
    mutate: Mutate


FAULTS: list[Fault] = []


def fault(*rules: int) -> Callable[[Mutate], Mutate]:
    def register(mutate: Mutate) -> Mutate:
        name = mutate.__name__.replace("_", " ")
        FAULTS.append(Fault(name=name, rules=frozenset(rules), mutate=mutate))
        return mutate

    return register


# Reading a history.


def _made(history: History) -> list[Append]:
    """Acked appends that made a version, in version order."""
    return sorted(
        (
            op
            for op in history.operations
            if isinstance(op, Append) and isinstance(op.outcome, Acked) and op.outcome.changed
        ),
        key=lambda op: op.observed or 0,
    )


def _rejected(history: History) -> list[Append]:
    return [
        op
        for op in history.operations
        if isinstance(op, Append) and isinstance(op.outcome, Rejected)
    ]


def _unknown_in_log(history: History) -> list[tuple[Append, int]]:
    version_of = {token_of(commit.commands): commit.version for commit in history.stored}
    return [
        (op, version_of[op.token])
        for op in history.operations
        if isinstance(op, Append) and isinstance(op.outcome, Unknown) and op.token in version_of
    ]


def _heads(history: History) -> list[Read]:
    return [op for op in history.operations if isinstance(op, Read) and not op.pinned]


def _woken(history: History) -> list[Wait]:
    return [op for op in history.operations if isinstance(op, Wait) and op.version is not None]


def _diffs(history: History) -> list[DiffRead]:
    return [op for op in history.operations if isinstance(op, DiffRead) and op.changes]


def _known_before(history: History, time_ns: int) -> int:
    """The latest version that some completed operation had observed before `time_ns`."""
    known = (op.observed or 0 for op in history.operations if op.completed_ns < time_ns)
    return max(known, default=0)


def _last_ns(history: History) -> int:
    return max(op.completed_ns for op in history.operations)


# Changing one.


def _with(history: History, old: Operation, new: Operation) -> History:
    return replace(history, operations=tuple(new if op is old else op for op in history.operations))


def _storing(history: History, stored: Sequence[Stored]) -> History:
    return replace(history, stored=tuple(stored))


def _renumbered(stored: Sequence[Stored]) -> list[Stored]:
    return [replace(commit, version=number) for number, commit in enumerate(stored, 1)]


def _appended(history: History, commands: Sequence[Command]) -> History:
    commit = Stored(version=len(history.stored) + 1, commands=tuple(commands))
    return _storing(history, [*history.stored, commit])


# The log itself.


@fault(3, 7)
def the_tail_with_an_acked_commit_is_lost(rng: random.Random, history: History) -> History | None:
    made = _made(history)
    if not made:
        return None
    keep = rng.randrange(made[-1].observed or 0)
    return _storing(history, history.stored[:keep])


@fault(3)
def an_acked_commit_is_lost_and_later_ones_move_up(
    rng: random.Random, history: History
) -> History | None:
    if not (made := _made(history)):
        return None
    lost = rng.choice(made).token
    return _storing(
        history, _renumbered([c for c in history.stored if token_of(c.commands) != lost])
    )


@fault(1)
def a_version_is_missing(rng: random.Random, history: History) -> History | None:
    if len(history.stored) < 2:
        return None
    hole = rng.randrange(len(history.stored) - 1)
    return _storing(history, [*history.stored[:hole], *history.stored[hole + 1 :]])


@fault(1)
def a_version_is_used_twice(rng: random.Random, history: History) -> History | None:
    if len(history.stored) < 2:
        return None
    at = rng.randrange(1, len(history.stored))
    twin = replace(history.stored[at], version=at)
    return _storing(history, [*history.stored[:at], twin, *history.stored[at + 1 :]])


@fault(2)
def an_acked_commit_is_applied_twice(rng: random.Random, history: History) -> History | None:
    made = _made(history)
    return _appended(history, rng.choice(made).commands) if made else None


@fault(12)
def an_unknown_commit_is_applied_twice(rng: random.Random, history: History) -> History | None:
    places = _unknown_in_log(history)
    return _appended(history, rng.choice(places)[0].commands) if places else None


@fault(4)
def a_rejected_commit_is_in_the_log(rng: random.Random, history: History) -> History | None:
    rejected = _rejected(history)
    return _appended(history, rng.choice(rejected).commands) if rejected else None


@fault(4)
def a_commit_told_unchanged_is_in_the_log(rng: random.Random, history: History) -> History | None:
    if not (made := _made(history)):
        return None
    op = rng.choice(made)
    assert op.observed is not None
    return _with(history, op, replace(op, outcome=Acked(version=op.observed - 1, changed=False)))


@fault(5)
def nobody_sent_what_is_in_the_log(rng: random.Random, history: History) -> History | None:
    return _appended(history, [marker("stranger"), Command(Op.UPSERT, "key-1", "stranger.0")])


@fault(3)
def a_stored_value_is_altered(rng: random.Random, history: History) -> History | None:
    places = [op for op in _made(history) if op.commands[-1].op is Op.UPSERT]
    if not places:
        return None
    version = rng.choice(places).observed or 0
    commit = history.stored[version - 1]
    altered = commit.commands[-1]._replace(value="altered")
    stored = list(history.stored)
    stored[version - 1] = replace(commit, commands=(*commit.commands[:-1], altered))
    return _storing(history, stored)


@fault(3)
def a_commit_is_torn(rng: random.Random, history: History) -> History | None:
    places = [op for op in _made(history) if len(op.commands) > 2]
    if not places:
        return None
    version = rng.choice(places).observed or 0
    commit = history.stored[version - 1]
    stored = list(history.stored)
    stored[version - 1] = replace(commit, commands=commit.commands[:-1])
    return _storing(history, stored)


# Acks and rejections.


@fault(6)
def two_sequential_commits_are_swapped(rng: random.Random, history: History) -> History | None:
    made = _made(history)
    pairs = [(a, b) for a in made for b in made if a.completed_ns < b.invoked_ns]
    if not pairs:
        return None
    first, second = rng.choice(pairs)
    low, high = first.observed or 0, second.observed or 0
    stored = list(history.stored)
    stored[low - 1] = replace(stored[low - 1], commands=second.commands)
    stored[high - 1] = replace(stored[high - 1], commands=first.commands)
    history = _with(history, first, replace(first, outcome=second.outcome))
    return _storing(_with(history, second, replace(second, outcome=first.outcome)), stored)


@fault(3)
def two_acks_claim_one_version(rng: random.Random, history: History) -> History | None:
    made = _made(history)
    if len(made) < 2:
        return None
    op, other = rng.sample(made, 2)
    return _with(history, op, replace(op, outcome=other.outcome))


@fault(10)
def a_commit_is_applied_though_its_precondition_failed(
    rng: random.Random, history: History
) -> History | None:
    timeline = Timeline(history.stored)
    places = [
        op
        for op in _rejected(history)
        if isinstance(timeline.judge(op.commands, timeline.current), Refusal)
    ]
    if not places:
        return None
    op = rng.choice(places)
    acked = replace(
        op,
        outcome=Acked(version=timeline.current + 1, changed=True),
        completed_ns=_last_ns(history) + 1,
    )
    return _appended(_with(history, op, acked), op.commands)


@fault(10)
def a_commit_is_rejected_though_its_precondition_held(
    rng: random.Random, history: History
) -> History | None:
    if not (rejected := _rejected(history)):
        return None
    op = rng.choice(rejected)
    harmless = (marker(op.token), Command(Op.UPSERT, "key-1", op.token))
    return _with(history, op, replace(op, commands=harmless))


@fault(10)
def a_rejection_names_another_version(rng: random.Random, history: History) -> History | None:
    """The version cited is one at which the commit would have passed."""
    timeline = Timeline(history.stored)
    places = [
        (op, replace(op.outcome, current=version))
        for op in _rejected(history)
        if isinstance(op.outcome, Rejected)
        for version in range(op.outcome.current, timeline.current + 1)
        if not isinstance(timeline.judge(op.commands, version), Refusal)
    ]
    if not places:
        return None
    op, outcome = rng.choice(places)
    return _with(history, op, replace(op, outcome=outcome))


@fault(10)
def a_rejection_names_another_reason(rng: random.Random, history: History) -> History | None:
    if not (rejected := _rejected(history)):
        return None
    op = rng.choice(rejected)
    assert isinstance(op.outcome, Rejected)
    outcome = rng.choice(
        [
            replace(op.outcome, index=op.outcome.index + 1),
            replace(op.outcome, code="LOG_EXISTS"),
        ]
    )
    return _with(history, op, replace(op, outcome=outcome))


@fault(10)
def a_rejected_commit_is_told_unchanged(rng: random.Random, history: History) -> History | None:
    if not (rejected := _rejected(history)):
        return None
    op = rng.choice(rejected)
    assert isinstance(op.outcome, Rejected)
    return _with(history, op, replace(op, outcome=Acked(version=op.outcome.current, changed=False)))


@fault(10)
def a_commit_without_effect_makes_a_version(rng: random.Random, history: History) -> History | None:
    version = len(history.stored) + 1
    end_ns = _last_ns(history)
    empty = Append(
        token="empty",
        client="writer-0",
        commands=(marker("empty"), Command(Op.DELETE, "never-set")),
        invoked_ns=end_ns + 1,
        completed_ns=end_ns + 2,
        outcome=Acked(version=version, changed=True),
    )
    history = replace(history, operations=(*history.operations, empty))
    return _appended(history, empty.commands)


@fault(12)
def an_unknown_commit_took_effect_before_it_was_sent(
    rng: random.Random, history: History
) -> History | None:
    end_ns = _last_ns(history)
    places = [
        op for op, version in _unknown_in_log(history) if _known_before(history, end_ns) >= version
    ]
    if not places:
        return None
    op = rng.choice(places)
    return _with(history, op, replace(op, invoked_ns=end_ns, completed_ns=end_ns + SECOND_NS))


# Reads, diffs and waits.


@fault(6)
def a_read_is_stale(rng: random.Random, history: History) -> History | None:
    places = [
        (op, known) for op in _heads(history) if (known := _known_before(history, op.invoked_ns))
    ]
    if not places:
        return None
    op, known = rng.choice(places)
    version = rng.randrange(known)
    digest = Timeline(history.stored).digest(version)
    return _with(history, op, replace(op, version=version, digest=digest))


@fault(7)
def a_read_sees_a_commit_before_it_was_sent(rng: random.Random, history: History) -> History | None:
    places = [
        (op, made.observed or 0)
        for op in _heads(history)
        for made in _made(history)
        if op.completed_ns < made.invoked_ns
    ]
    if not places:
        return None
    op, version = rng.choice(places)
    digest = Timeline(history.stored).digest(version)
    return _with(history, op, replace(op, version=version, digest=digest))


@fault(8)
def a_read_tells_other_contents(rng: random.Random, history: History) -> History | None:
    reads = [op for op in history.operations if isinstance(op, Read)]
    if not reads:
        return None
    op = rng.choice(reads)
    return _with(history, op, replace(op, digest=op.digest ^ 1 << rng.randrange(128)))


@fault(9)
def a_diff_omits_a_change(rng: random.Random, history: History) -> History | None:
    if not (diffs := _diffs(history)):
        return None
    op = rng.choice(diffs)
    changes = list(op.changes)
    del changes[rng.randrange(len(changes))]
    return _with(history, op, replace(op, changes=tuple(changes)))


@fault(9)
def a_diff_tells_what_cancels_out(rng: random.Random, history: History) -> History | None:
    diffs = [op for op in history.operations if isinstance(op, DiffRead)]
    if not diffs:
        return None
    op = rng.choice(diffs)
    pair = (Change("add", "key-0", "brief", 1), Change("remove", "key-0", "brief", 1))
    return _with(history, op, replace(op, changes=(*op.changes, *pair)))


@fault(9)
def a_diff_names_another_introducing_version(
    rng: random.Random, history: History
) -> History | None:
    if not (diffs := _diffs(history)):
        return None
    op = rng.choice(diffs)
    changes = list(op.changes)
    at = rng.randrange(len(changes))
    changes[at] = changes[at]._replace(version=changes[at].version + 1)
    return _with(history, op, replace(op, changes=tuple(changes)))


@fault(9)
def a_diff_is_told_backwards(rng: random.Random, history: History) -> History | None:
    if not (diffs := _diffs(history)):
        return None
    op = rng.choice(diffs)
    return _with(history, op, replace(op, from_version=op.to_version, to_version=op.from_version))


@fault(9)
def a_wait_wakes_with_another_diff(rng: random.Random, history: History) -> History | None:
    places = [(op, op.changes) for op in _woken(history) if op.changes]
    if not places:
        return None
    op, changes = rng.choice(places)
    return _with(history, op, replace(op, changes=changes[1:]))


@fault(11)
def a_wake_up_is_lost(rng: random.Random, history: History) -> History | None:
    if not (woken := _woken(history)):
        return None
    op = rng.choice(woken)
    end_ns = op.completed_ns + 10 * SECOND_NS
    asleep = replace(op, version=None, changes=(), completed_ns=end_ns, deadline_ns=end_ns)
    return _with(history, op, asleep)


@fault(11)
def a_wake_up_is_late(rng: random.Random, history: History) -> History | None:
    if not (woken := _woken(history)):
        return None
    op = rng.choice(woken)
    return _with(history, op, replace(op, completed_ns=op.completed_ns + 20 * SECOND_NS))


@fault(11)
def a_wait_wakes_with_nothing_new(rng: random.Random, history: History) -> History | None:
    if not (woken := _woken(history)):
        return None
    op = rng.choice(woken)
    return _with(history, op, replace(op, version=op.since, changes=()))

"""The checker itself: silent on correct histories, and not deceived by any kind of fault."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from hashlib import sha256

import pytest
from indelible_protocol import commands as protocol
from indelible_protocol import semantics
from indelible_protocol.commands import LogKind
from indelible_protocol.semantics import LogState

from tests.support.history import check
from tests.support.operations import (
    Acked,
    Append,
    Command,
    History,
    Op,
    Operation,
    Rejected,
    Stored,
    Unknown,
    marker,
)
from tests.support.seeded_faults import FAULTS, Fault
from tests.support.simulation import KEYS, Cast, correct_history, some_commands
from tests.support.timeline import Entry, Refusal, Timeline, judge
from tests.support.vacuity import Guards, vacuities

CORRECT_HISTORIES = 300
SEEDS = 60
LONG = Cast(writers=6, readers=3, waiters=3, operations_each=40)


@cache
def history_of(seed: int) -> History:
    return correct_history(seed)


def test_correct_histories_raise_no_alarm() -> None:
    seen: Counter[str] = Counter()
    for seed in range(CORRECT_HISTORIES):
        history = history_of(seed)
        assert check(history) == [], f"seed {seed}"
        for op in history.operations:
            seen[type(op.outcome if isinstance(op, Append) else op).__name__] += 1
    # The histories hold enough of everything for silence to mean something.
    assert min(seen[kind] for kind in ("Acked", "Rejected", "Unknown")) > 1_500, seen
    assert min(seen[kind] for kind in ("Read", "DiffRead", "Wait")) > 1_500, seen


def test_a_long_correct_history_raises_no_alarm() -> None:
    history = correct_history(1, LONG)
    assert len(history.operations) == 480
    assert check(history) == []


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_every_seeded_fault_is_caught(fault: Fault) -> None:
    applicable = 0
    for seed in range(SEEDS):
        faulty = fault.mutate(random.Random(seed), history_of(seed))
        if faulty is None:
            continue
        applicable += 1
        found = {violation.rule for violation in check(faulty)}
        assert found & fault.rules, f"seed {seed}: found {sorted(found)}"
    print(f"{fault.name}: caught in all {applicable} of {SEEDS} histories that offer a place")
    assert applicable >= SEEDS * 0.8, f"only {applicable} of {SEEDS} histories offer a place"


def test_there_are_faults_of_every_rule() -> None:
    assert len(FAULTS) >= 15
    assert frozenset().union(*(fault.rules for fault in FAULTS)) == frozenset(range(1, 13))


def test_a_violation_names_its_rule_and_its_operations() -> None:
    fault = next(fault for fault in FAULTS if fault.name == "a read is stale")
    faulty = next(filter(None, (fault.mutate(random.Random(s), history_of(s)) for s in range(9))))
    violation = next(violation for violation in check(faulty) if violation.rule == 6)
    assert "Read(" in str(violation)
    assert str(violation).startswith(f"rule 6 in {faulty.log}: observed ")
    assert len(violation.operations) == 2  # the read, and the one that knew better


@pytest.mark.parametrize(
    ("commands", "verdict"),
    [
        ([Command(Op.UPSERT, "a", "1")], {}),
        ([Command(Op.UPSERT, "a", "2")], {"a": "2"}),
        ([Command(Op.UPSERT, "a", "2"), Command(Op.UPSERT, "a", "1")], {}),
        ([Command(Op.INSERT, "a", "1")], {}),
        ([Command(Op.INSERT, "a", "2")], Refusal("UNEXPECTED_VALUE", 0)),
        ([Command(Op.DELETE, "a"), Command(Op.INSERT, "a", "2")], {"a": "2"}),
        ([Command(Op.UPDATE, "b", "1")], Refusal("NONEXISTENT_VALUE", 0)),
        ([Command(Op.INSERT, "b", "1"), Command(Op.UPDATE, "b", "2")], {"b": "2"}),
        ([Command(Op.REMOVE, "a", "2")], {}),
        ([Command(Op.REMOVE, "a", "1")], {"a": None}),
        ([Command(Op.DELETE, "b")], {}),
        ([Command(Op.EXPECT_ABSENT, "a")], Refusal("UNEXPECTED_VALUE", 0)),
        ([Command(Op.DELETE, "a"), Command(Op.EXPECT_ABSENT, "a")], {"a": None}),
        ([Command(Op.EXPECT_ENTRY, "a", version=7)], {}),
        ([Command(Op.EXPECT_ENTRY, "a", version=8)], Refusal("UNEXPECTED_ENTRY", 0)),
        ([Command(Op.EXPECT_ENTRY, "b", version=7)], Refusal("UNEXPECTED_ENTRY", 0)),
        (
            [Command(Op.UPSERT, "a", "2"), Command(Op.EXPECT_ENTRY, "a", version=7)],
            Refusal("UNEXPECTED_ENTRY", 1),
        ),
        (
            [
                Command(Op.UPSERT, "a", "2"),
                Command(Op.UPSERT, "a", "1"),
                Command(Op.EXPECT_ENTRY, "a", version=7),
            ],
            Refusal("UNEXPECTED_ENTRY", 2),
        ),
        ([Command(Op.DELETE, "a"), Command(Op.EXPECT_VERSION, version=9)], {"a": None}),
        (
            [Command(Op.DELETE, "a"), Command(Op.EXPECT_VERSION, version=8)],
            Refusal("UNEXPECTED_VERSION", 1),
        ),
    ],
)
def test_verdicts_on_a_log_at_9_whose_a_is_1_since_7(
    commands: list[Command], verdict: object
) -> None:
    assert judge(commands, 9, {"a": Entry("1", 7)}.get) == verdict


def test_the_checker_reads_commands_as_the_protocol_does() -> None:
    """Two readings of one text, written apart: the checker's and the product's model."""
    for seed in range(40):
        rng = random.Random(seed)
        log = LogState(kind=LogKind.OPAQUE)
        timeline = Timeline(())
        stored: list[Stored] = []
        for number in range(40):
            contents = {key: entry for key in KEYS if (entry := timeline.entry(key, len(stored)))}
            seen = max(0, len(stored) - rng.choice([0, 1]))
            commands = some_commands(rng, f"{number}", seen, contents)
            verdict = timeline.judge(commands, len(stored))
            answer, effects = log.apply(submission(commands))
            if isinstance(answer, semantics.Rejected):
                assert verdict == Refusal(answer.code.name, answer.index or 0)
                continue
            assert not isinstance(verdict, Refusal)
            assert (bool(verdict), len(verdict)) == (answer.changed, len(effects))
            if verdict:
                stored.append(Stored(version=len(stored) + 1, commands=commands))
                timeline = Timeline(stored)
            assert log.version == len(stored)
        assert len(stored) > 10


def submission(commands: Sequence[Command]) -> semantics.Submission:
    """`commands` as the product's model takes them."""
    made = []
    for op, key, value, version in commands:
        data = value.encode()
        if op is Op.REMOVE:
            data = sha256(data).digest()
        elif op in (Op.EXPECT_ENTRY, Op.EXPECT_VERSION):
            data = version.to_bytes(8, "big")
        made.append(protocol.Command(protocol.Op[op.name], key.encode(), value=data))
    located = protocol.Located(made, [0] * (len(made) + 1))
    return semantics.Submission(commit_hash=b"", located=located)


GUARDS = Guards(min_operations=400, min_per_second=5, min_overlapping_clients=4)


def test_a_lively_history_is_not_vacuous() -> None:
    history = correct_history(1, LONG)
    settled = _settled(history)
    assert vacuities([settled], GUARDS) == []


def test_each_guard_refuses_the_run_that_proves_nothing() -> None:
    history = _settled(correct_history(1, LONG))
    agreeable = [
        op
        for op in history.operations
        if not (isinstance(op, Append) and isinstance(op.outcome, Rejected))
    ]
    alone = [op for op in history.operations if op.client == "writer-0"]
    # In doubt: no commit was, at the moment of this fault.
    fault_ns = max(op.completed_ns for op in history.operations) + 1
    runs = {
        "operations, ": ([history], replace(GUARDS, min_operations=482)),
        "a second before": ([history], replace(GUARDS, min_per_second=1_000)),
        "commits rejected": ([replace(history, operations=agreeable)], GUARDS),
        "clients overlap": ([replace(history, operations=alone)], GUARDS),
        "in doubt": ([history], replace(GUARDS, faults_ns=((fault_ns, fault_ns),))),
        "did not succeed": ([replace(history, operations=_unsettled(history))], GUARDS),
        "began at version": ([replace(history, began_at=3)], GUARDS),
    }
    for reason, (histories, guards) in runs.items():
        assert any(reason in told for told in vacuities(histories, guards)), reason


def _settled(history: History) -> History:
    """`history` with one more commit, acked."""
    end_ns = max(op.completed_ns for op in history.operations)
    last = Append(
        token="last",
        client="writer-0",
        commands=(marker("last"), Command(Op.UPSERT, "key-0", "last")),
        invoked_ns=end_ns + 1,
        completed_ns=end_ns + 2,
        outcome=Acked(version=len(history.stored) + 1, changed=True),
    )
    return replace(history, operations=(*history.operations, last))


def _unsettled(history: History) -> list[Operation]:
    last = history.operations[-1]
    assert isinstance(last, Append)
    return [*history.operations[:-1], replace(last, outcome=Unknown())]

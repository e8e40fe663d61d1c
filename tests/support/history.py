"""Decides whether a recorded history of one log is correct.

General linearizability is hard because the order is unknown; here the version is the order,
so one pass over the operations sorted by time decides it. Pure: takes what clients recorded
and what the store itself holds in the end; knows no server and starts nothing.

The rules:
 1 versions are 1..V, dense            2 each token is in the log at most once
 3 an acked commit stands at its version with its content
 4 what was rejected or changed nothing is not in the log
 5 nothing is in the log that nobody sent
 6 an operation invoked after another completed observes at least its version (an ack: more)
 7 a version is observed only after its commit was sent
 8 contents read at v are the fold of 1..v
 9 a diff is the net difference of the contents at its two versions (so diffs compose)
10 a commit's preconditions held at the version before it; a rejected one's failed, at the
   command and for the reason told, at the version told
11 a wait answers with a later version, in time; never "nothing" when there was something
12 a commit of unknown outcome is in the log once or not at all, and after it was sent
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from tests.support.operations import (
    Acked,
    Append,
    Change,
    DiffRead,
    History,
    Operation,
    Read,
    Refused,
    Rejected,
    Stored,
    Unknown,
    Wait,
    token_of,
)
from tests.support.timeline import Refusal, Timeline

SECOND_NS = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    rule: int
    log: str
    message: str
    operations: tuple[Operation | Stored, ...] = ()

    def __str__(self) -> str:
        lines = [f"rule {self.rule} in {self.log}: {self.message}"]
        return "\n    ".join(lines + [str(operation) for operation in self.operations])


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """How late a wait may be: seconds between the time that a later version was known to
    some client and the waiter's own deadline (`before_deadline_seconds`) or its answer
    (`to_wake_seconds`)."""

    before_deadline_seconds: float = 1.0
    to_wake_seconds: float = 5.0


DEFAULT_TOLERANCE = Tolerance()


def check(history: History, tolerance: Tolerance = DEFAULT_TOLERANCE) -> list[Violation]:
    """Every violation found, in no particular order; none for a correct history."""
    return _Check(history, tolerance).run()


class _Check:
    def __init__(self, history: History, tolerance: Tolerance) -> None:
        self.log = history.log
        self.operations = history.operations
        self.stored = history.stored
        self.tolerance = tolerance
        self.violations: list[Violation] = []
        self.appends = {op.token: op for op in self.operations if isinstance(op, Append)}
        self.timeline = Timeline(())

    def run(self) -> list[Violation]:
        self._tokens()
        if not self._dense():
            return self.violations  # without an order the other rules have no meaning
        self.timeline = Timeline(self.stored)
        self._order()
        known_ns = self._known_ns()
        for operation in self.operations:
            match operation:
                case Append():
                    self._append(operation)
                case Read():
                    self._read(operation)
                case DiffRead():
                    self._diff(operation)
                case Wait():
                    self._wait(operation, known_ns)
                case _:
                    assert_never(operation)
        for version, fault in self.timeline.faults.items():
            self._report(10, f"version {version} was {fault}", self.stored[version - 1])
        return self.violations

    def _report(self, rule: int, message: str, *operations: Operation | Stored) -> None:
        self.violations.append(
            Violation(rule=rule, log=self.log, message=message, operations=operations)
        )

    # Rules 1, 2, 4, 5: the log by itself, and against what was sent.

    def _dense(self) -> bool:
        versions = [commit.version for commit in self.stored]
        if versions == list(range(1, len(versions) + 1)):
            return True
        for before, commit in zip([0, *versions], self.stored, strict=False):
            if commit.version != before + 1:
                self._report(1, f"version {commit.version} follows {before}", commit)
                break
        return False

    def _tokens(self) -> None:
        places: dict[str | None, list[Stored]] = defaultdict(list)
        for commit in self.stored:
            places[token_of(commit.commands)].append(commit)
        for token, commits in places.items():
            append = self.appends.get(token) if token else None
            if append is None:
                self._report(5, f"nobody sent {token}", *commits)
                continue
            versions = [commit.version for commit in commits]
            if len(commits) > 1:
                rule = 12 if isinstance(append.outcome, Unknown) else 2
                self._report(rule, f"{token} is in the log at {versions}", append, *commits)
            if any(tuple(commit.commands) != tuple(append.commands) for commit in commits):
                self._report(3, f"{token} has other commands than were sent", append, *commits)
            match append.outcome:
                case Rejected() | Refused():
                    self._report(4, f"{token} was rejected but is at {versions}", append)
                case Acked(changed=False):
                    self._report(4, f"{token} changed nothing but is at {versions}", append)

    # Rules 6, 7, 12: real time.

    def _order(self) -> None:
        """One pass over all moments. At equal times an invocation comes first: the two
        operations then overlap, and overlapping ones may be ordered either way."""
        moments = sorted(
            moment
            for number, op in enumerate(self.operations)
            for moment in ((op.invoked_ns, 0, number), (op.completed_ns, 1, number))
        )
        version_of = {token_of(commit.commands): commit.version for commit in self.stored}
        floor = 0
        witness: Operation | None = None
        sent_ns = self._sent_ns()
        for _, completes, number in moments:
            op = self.operations[number]
            observed = op.observed
            if completes:
                if observed is not None and observed > floor:
                    floor, witness = observed, op
                continue
            if observed is not None:
                self._observation(op, observed, floor, witness)
                if observed <= self.timeline.current and op.completed_ns < sent_ns[observed]:
                    self._report(7, f"saw version {observed} before it was sent", op)
            if isinstance(op, Append) and isinstance(op.outcome, Unknown):
                version = version_of.get(op.token)
                if version is not None and version <= floor:
                    message = f"stands at {version}, but {floor} had been seen when it was sent"
                    self._report(12, message, op, *([witness] if witness else []))

    def _sent_ns(self) -> list[int]:
        """By version, when its commit was sent first; versions nobody sent count as always."""
        sent = [0]
        for commit in self.stored:
            append = self.appends.get(token_of(commit.commands) or "")
            sent.append(append.invoked_ns if append else 0)
        return sent

    def _observation(
        self, op: Operation, observed: int, floor: int, witness: Operation | None
    ) -> None:
        others = [witness] if witness else []
        makes_version = isinstance(op, Append) and op.outcome == Acked(
            version=observed, changed=True
        )
        if observed < floor:
            self._report(6, f"observed {observed} after {floor} was known", op, *others)
        elif makes_version and observed == floor:
            self._report(6, f"made version {observed}, which was known before", op, *others)
        if observed > self.timeline.current:
            rule = 3 if makes_version else 7
            self._report(rule, f"version {observed} is not in the log (lost or invented)", op)

    def _known_ns(self) -> list[float]:
        """By version, when some client first knew of it or of a later one."""
        known = [float("inf")] * (self.timeline.current + 2)
        for op in self.operations:
            if op.observed is not None and op.observed <= self.timeline.current:
                known[op.observed] = min(known[op.observed], op.completed_ns)
        for version in range(self.timeline.current - 1, -1, -1):
            known[version] = min(known[version], known[version + 1])
        return known

    # Rules 3, 8, 9, 10, 11: each answer against the log.

    def _append(self, op: Append) -> None:
        match op.outcome:
            case Acked(version=version, changed=True):
                if 0 < version <= self.timeline.current:
                    commit = self.stored[version - 1]
                    if token_of(commit.commands) != op.token:
                        self._report(3, f"version {version} holds another commit", op, commit)
            case Acked(version=version, changed=False):
                if self._exists(version) and self.timeline.judge(op.commands, version) != {}:
                    self._report(10, f"would have had an effect at {version}", op)
            case Rejected(code=code, index=index, current=current):
                if not self._exists(current):
                    return
                verdict = self.timeline.judge(op.commands, current)
                if verdict != Refusal(code, index):
                    self._report(10, f"at {current} the verdict is {verdict}", op)

    def _read(self, op: Read) -> None:
        if not self._exists(op.version):
            if op.pinned:
                self._report(7, f"read version {op.version}, which is not in the log", op)
        elif op.digest != self.timeline.digest(op.version):
            self._report(8, f"contents read at {op.version} are not those of the log", op)

    def _diff(self, op: DiffRead) -> None:
        for version in (op.from_version, op.to_version):
            if not self._exists(version):
                self._report(7, f"diff names version {version}, which is not in the log", op)
                return
        self._changes(op, op.changes, op.from_version, op.to_version)

    def _changes(
        self, op: Operation, changes: Sequence[Change], from_version: int, to_version: int
    ) -> None:
        net = self.timeline.net(from_version, to_version)
        if sorted(changes) != net:
            told, held = Counter(changes), Counter(net)
            message = f"diff lacks {list(held - told)[:3]}, has too much {list(told - held)[:3]}"
            self._report(9, message, op)

    def _wait(self, op: Wait, known_ns: Sequence[float]) -> None:
        if op.since > self.timeline.current:
            return
        next_known_ns = known_ns[op.since + 1]
        if op.version is None:
            until_ns = min(op.deadline_ns, op.completed_ns)
            grace_ns = self.tolerance.before_deadline_seconds * SECOND_NS
            if next_known_ns < until_ns - grace_ns:
                early = (until_ns - next_known_ns) / SECOND_NS
                self._report(11, f"told nothing after {op.since}, known {early:.3f} s before", op)
            return
        if op.version <= op.since:
            self._report(11, f"woke with {op.version}, not after {op.since}", op)
            return
        late = (op.completed_ns - max(next_known_ns, op.invoked_ns)) / SECOND_NS
        if late > self.tolerance.to_wake_seconds:
            self._report(11, f"woke {late:.3f} s after {op.since + 1} was known", op)
        if op.changes is not None and self._exists(op.version):
            self._changes(op, op.changes, op.since, op.version)

    def _exists(self, version: int) -> bool:
        return 0 <= version <= self.timeline.current

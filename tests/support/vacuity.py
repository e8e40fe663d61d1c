"""Says whether a recorded run was hard enough for its verdict to mean anything.

A checker that finds nothing in an idle run has shown nothing. Pure, like the checker, and
independent of it: a run is judged by what its clients did, never by the log's contents.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tests.support.history import SECOND_NS
from tests.support.operations import Acked, Append, History, Rejected


@dataclass(frozen=True, slots=True, kw_only=True)
class Guards:
    """What a run must have done for "no violations" to mean something.

    `faults_ns`: the moments of the kills, first and last possible; each must have left at
    least one send in doubt. The rate is that of the time before the first of them.
    """

    min_operations: int = 10_000
    min_per_second: float = 100.0
    min_rejected_share: float = 0.10
    min_overlapping_clients: int = 4
    faults_ns: Sequence[tuple[int, int]] = ()


def vacuities(histories: Sequence[History], guards: Guards) -> list[str]:
    """Why this run would prove nothing; empty for a run worth judging."""
    return [reason for guard in _GUARDS for reason in guard(histories, guards)]


def _too_few(histories: Sequence[History], guards: Guards) -> Iterator[str]:
    count = sum(len(history.operations) for history in histories)
    if count < guards.min_operations:
        yield f"{count} operations, {guards.min_operations} needed"


def _too_slow(histories: Sequence[History], guards: Guards) -> Iterator[str]:
    operations = [op for history in histories for op in history.operations]
    if not operations:
        return
    start_ns = min(op.invoked_ns for op in operations)
    last_ns = max(op.completed_ns for op in operations)
    end_ns = min((first_ns for first_ns, _ in guards.faults_ns), default=last_ns)
    done = sum(op.completed_ns <= end_ns for op in operations)
    per_second = done * SECOND_NS / max(1, end_ns - start_ns)
    if per_second < guards.min_per_second:
        yield f"{per_second:.0f} operations a second before any fault"


def _too_agreeable(histories: Sequence[History], guards: Guards) -> Iterator[str]:
    outcomes = [op.outcome for history in histories for op in _appends(history)]
    rejected = sum(isinstance(outcome, Rejected) for outcome in outcomes)
    if rejected < guards.min_rejected_share * max(1, len(outcomes)):
        yield f"{rejected} of {len(outcomes)} commits rejected"


def _harmless(histories: Sequence[History], guards: Guards) -> Iterator[str]:
    open_sends = [
        (op.invoked_ns, op.completed_ns)
        for history in histories
        for op in _appends(history)
        if op.ambiguous_sends
    ]
    for number, (first_ns, last_ns) in enumerate(guards.faults_ns):
        if not any(start <= last_ns and first_ns <= end for start, end in open_sends):
            yield f"fault {number} left no commit in doubt"


def _too_lonely(histories: Sequence[History], guards: Guards) -> Iterator[str]:
    widest = max((_most_overlapping_clients(history) for history in histories), default=0)
    if widest < guards.min_overlapping_clients:
        yield f"at most {widest} clients overlap on one log"


def _most_overlapping_clients(history: History) -> int:
    moments = sorted(
        moment
        for op in history.operations
        for moment in ((op.invoked_ns, 1, op.client), (op.completed_ns, 0, op.client))
    )
    active: Counter[str] = Counter()
    most = 0
    for _, starts, client in moments:
        active[client] += 1 if starts else -1
        if not active[client]:
            del active[client]
        most = max(most, len(active))
    return most


def _ends_badly(histories: Sequence[History], guards: Guards) -> Iterator[str]:
    for history in histories:
        last = max(_appends(history), key=lambda op: op.completed_ns, default=None)
        if last is None or not isinstance(last.outcome, Acked):
            yield f"{history.log}: the last commit did not succeed: {last}"


def _begins_used(histories: Sequence[History], guards: Guards) -> Iterator[str]:
    for history in histories:
        if history.began_at:
            yield f"{history.log}: began at version {history.began_at}"


def _appends(history: History) -> Iterator[Append]:
    return (op for op in history.operations if isinstance(op, Append))


_GUARDS: tuple[Callable[[Sequence[History], Guards], Iterator[str]], ...] = (
    _too_few,
    _too_slow,
    _too_agreeable,
    _harmless,
    _too_lonely,
    _ends_badly,
    _begins_used,
)

"""What a commit does to a log: the reference that the store's commit function must equal.

Defined on tokens and value ids alone, so a server, a replaying client and an auditor without
keys reach the same result. Pure: a judgement is returned, the log is moved on by `apply`.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from msgspec import Struct

from indelible_protocol import limits
from indelible_protocol.commands import SETS, Command, Located, LogKind, Op, entry_hash, value_id
from indelible_protocol.diff import Effect, Place
from indelible_protocol.errors import ErrorCode


class Entry(NamedTuple):
    """A live entry of the head index."""

    version: int
    command_index: int
    offset: int
    value_id: bytes
    entry_hash: bytes

    @property
    def place(self) -> Place:
        return Place(self.version, self.command_index, self.offset, self.entry_hash)


class Submission(Struct, frozen=True, kw_only=True):
    """What a commit asks for, read from its header and body.

    `writer_chain` identifies the idempotency record: writer ‖ chain in a sealed log, the
    idempotency key in an opaque one, None for a commit without one. `seq` is 0 in an opaque
    log. `next_epoch` is (generation, epoch) after a control commit.
    """

    commit_hash: bytes
    located: Located
    writer_chain: bytes | None = None
    seq: int = 0
    control: bool = False
    ctl_seq: int = 0
    epoch: tuple[int, int] = (0, 0)
    next_epoch: tuple[int, int] = (0, 0)
    expect_version: int | None = None
    seen_size: int = 0


class Acknowledged(Struct, frozen=True, kw_only=True):
    """`repeated`: the answer to an earlier send of the same commit."""

    version: int
    changed: bool
    repeated: bool = False


class Rejected(Struct, frozen=True, kw_only=True):
    """`index` is the command that failed, None where the header did."""

    code: ErrorCode
    index: int | None = None


class _Answer(NamedTuple):
    seq: int
    commit_hash: bytes
    version: int
    changed: bool


@dataclass(slots=True)
class LogState:
    """A log as its commits leave it."""

    kind: LogKind
    max_lag: int = limits.MAX_LAG
    version: int = 0
    ctl_seq: int = 0
    epoch: tuple[int, int] = (0, 0)
    live: dict[bytes, Entry] = field(default_factory=dict)
    answers: dict[bytes, _Answer] = field(default_factory=dict)

    def apply(self, submission: Submission) -> tuple[Acknowledged | Rejected, list[Effect]]:
        """Judges `submission` and, if it is acknowledged, moves the log on.

        The effects are those of the new version, by index; empty when there is none.
        """
        verdict = self._recall(submission) or self._header_fault(submission)
        if verdict is not None:
            return verdict, []
        judged = _Draft(self, submission).judge()
        if isinstance(judged, Rejected):
            return judged, []
        after, effects = judged
        changed = bool(effects) or submission.control
        if changed:
            self.version += 1
            for token, entry in after.items():
                if entry is None:
                    self.live.pop(token, None)
                else:
                    self.live[token] = entry
        if submission.control:
            self.ctl_seq += len(submission.located.commands)
            self.epoch = submission.next_epoch
        if submission.writer_chain is not None:
            self.answers[submission.writer_chain] = _Answer(
                submission.seq, submission.commit_hash, self.version, changed
            )
        return Acknowledged(version=self.version, changed=changed), effects

    def _recall(self, submission: Submission) -> Acknowledged | Rejected | None:
        """The answer that an earlier send of this commit got, or why it may not be judged."""
        if submission.writer_chain is None:
            return None
        answer = self.answers.get(submission.writer_chain)
        if answer is None:
            return None
        if self.kind is LogKind.SEALED:
            if self.version - answer.version > self.max_lag:
                return None
            if submission.seq > answer.seq:
                return None
            if submission.seq < answer.seq:
                return Rejected(code=ErrorCode.IDEMPOTENCY_EXPIRED)
        if submission.commit_hash != answer.commit_hash:
            return Rejected(code=ErrorCode.IDEMPOTENCY_MISMATCH)
        return Acknowledged(version=answer.version, changed=answer.changed, repeated=True)

    def _header_fault(self, submission: Submission) -> Rejected | None:
        """What the header alone gets wrong; an opaque log's header says nothing."""
        if self.kind is LogKind.OPAQUE:
            return None
        behind = self.version + 1 - submission.seen_size
        if behind < 0:
            return Rejected(code=ErrorCode.BAD_REQUEST)
        if behind > self.max_lag:
            return Rejected(code=ErrorCode.IDEMPOTENCY_EXPIRED)
        if submission.epoch != self.epoch:
            return Rejected(code=ErrorCode.STALE_EPOCH)
        if submission.ctl_seq > self.ctl_seq or (
            submission.control and submission.ctl_seq != self.ctl_seq
        ):
            return Rejected(code=ErrorCode.STALE_EPOCH)
        if submission.expect_version not in (None, self.version):
            return Rejected(code=ErrorCode.UNEXPECTED_VERSION)
        return None


class _Draft:
    """The keys that one commit touches, command by command."""

    def __init__(self, log: LogState, submission: Submission) -> None:
        self._log = log
        self._commands, self._offsets = submission.located
        self._control = submission.control
        self._before: dict[bytes, Entry | None] = {}
        self._after: dict[bytes, Entry | None] = {}
        self._alts: dict[bytes, tuple[bytes, ...]] = {}
        self._last: dict[bytes, int] = {}

    def judge(self) -> Rejected | tuple[dict[bytes, Entry | None], list[Effect]]:
        if self._control:
            return {}, []
        for index, command in enumerate(self._commands):
            code = self._run(index, command)
            if code is not None:
                return Rejected(code=code, index=index)
        return self._net()

    def _run(self, index: int, command: Command) -> ErrorCode | None:
        op, token = command.op, command.token
        if op is Op.EXPECT_VERSION:
            return None if command.version == self._log.version else ErrorCode.UNEXPECTED_VERSION
        if token not in self._after:
            self._before[token] = self._after[token] = self._log.live.get(token)
        current = self._after[token]
        if op is Op.EXPECT_ABSENT:
            return None if current is None else ErrorCode.UNEXPECTED_VALUE
        if op is Op.EXPECT_ENTRY:
            introduced = current is not None and token not in self._last
            if introduced and current is not None and current.version == command.version:
                return None
            return ErrorCode.UNEXPECTED_ENTRY
        if op is Op.DELETE:
            if current is not None:
                self._set(index, token, None, ())
            return None
        wanted = value_id(self._log.kind, command)
        same = current is not None and (
            current.value_id == wanted or current.value_id in command.alts
        )
        if op is Op.REMOVE:
            if same:
                self._set(index, token, None, ())
            return None
        assert op in SETS
        if same:
            return None
        if op is Op.INSERT and current is not None:
            return ErrorCode.UNEXPECTED_VALUE
        if op is Op.UPDATE and current is None:
            return ErrorCode.NONEXISTENT_VALUE
        offset = self._offsets[index]
        entry = Entry(self._log.version + 1, index, offset, wanted, entry_hash(command))
        self._set(index, token, entry, command.alts)
        return None

    def _set(self, index: int, token: bytes, entry: Entry | None, alts: tuple[bytes, ...]) -> None:
        self._after[token] = entry
        self._alts[token] = alts
        self._last[token] = index

    def _net(self) -> tuple[dict[bytes, Entry | None], list[Effect]]:
        """Keys that end as they were before the commit keep their entry."""
        changed: dict[bytes, Entry | None] = {}
        effects = []
        for token, index in self._last.items():
            before, after = self._before[token], self._after[token]
            if before is None and after is None:
                continue
            if before is not None and after is not None and self._same(token, before, after):
                continue
            changed[token] = after
            removed = None if before is None else before.place
            effects.append(Effect(index, self._offsets[index], after is not None, removed))
        effects.sort(key=lambda effect: effect.command_index)
        return changed, effects

    def _same(self, token: bytes, before: Entry, after: Entry) -> bool:
        return before.value_id == after.value_id or before.value_id in self._alts[token]

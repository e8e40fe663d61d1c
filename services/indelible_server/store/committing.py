"""Committing: one call of the commit function, and what its reply means.

Owns how a commit travels to the function. Knows nothing of HTTP, and nothing of how a commit
is admitted (`admission`).
"""

import struct
from collections.abc import Callable

import msgpack
from indelible_protocol.commands import SETS, LogKind, Op, entry_hash, value_id
from indelible_protocol.errors import ErrorCode
from indelible_protocol.semantics import Acknowledged, Submission
from redis.asyncio import Redis

from indelible_server.store import functions, keys
from indelible_server.store.admission import Admitted, LogIdentity
from indelible_server.store.errors import OutcomeUnknown, Refusal
from indelible_server.store.logs import KIND_WORDS, nonexistent, replaced

_POSITION = struct.Struct(">II")
_NO_PLACE = bytes(40)  # where a set has its position and entry hash


class Commits:
    """`reach` is called with the name of each failpoint that a commit passes."""

    def __init__(self, redis: Redis, *, reach: Callable[[str], None] = lambda point: None) -> None:
        self._redis = redis
        self.reach = reach

    async def commit(self, identity: LogIdentity, admitted: Admitted) -> Acknowledged:
        """Judged and, if it takes effect, durable when this returns.

        Raises:
            Refusal: the code that the commit function found, with the current version and
                the index of the command that failed where one did.
            OutcomeUnknown: it may or may not be in.
        """
        submission, commit = admitted.submission, admitted.commit
        log_keys = keys.of_log(identity.log_id).all()
        asked: list[functions.Argument] = [
            KIND_WORDS[identity.kind],
            submission.writer_chain or b"",
            submission.seq,
            submission.commit_hash,
        ]
        self.reach("before_commit_call")
        try:
            word, rest = await functions.call(
                self._redis,
                "commit",
                log_keys,
                [
                    *asked,
                    *_judged_by(admitted),
                    *(commit.header, commit.signature, commit.body),
                    *_pack_commands(identity.kind, submission),
                ],
            )
        except Refusal as refusal:
            if refusal.code is not ErrorCode.STORAGE_FULL or submission.writer_chain is None:
                raise
            word, rest = await functions.call(self._redis, "recall", log_keys, asked)
            if word != "repeated":
                raise refusal from None
        self.reach("after_commit_call")
        return _acknowledged(word, rest)


def _acknowledged(word: str, rest: functions.Reply) -> Acknowledged:
    if word == "committed":
        return Acknowledged(version=int(rest[0]), changed=True)
    if word == "unchanged":
        return Acknowledged(version=int(rest[0]), changed=False)
    if word == "repeated":
        return Acknowledged(version=int(rest[0]), changed=bool(rest[1]), repeated=True)
    if word == "deleted":
        raise replaced(int(rest[0]))
    if word == "absent":
        raise nonexistent()
    if word != "rejected":
        raise OutcomeUnknown(f"the commit function answered {word!r}")
    assert isinstance(rest[0], bytes)
    code, index, current = ErrorCode[rest[0].decode()], int(rest[1]), int(rest[2])
    details: dict[str, int] = {"current_version": current}
    where = ""
    if index >= 0:
        details["index"] = index
        where = f"command {index}: "
    raise Refusal(code, f"{where}{_REASONS[code]} (the log is at version {current})", details)


_REASONS = {
    ErrorCode.UNEXPECTED_VERSION: "the log is not at the expected version",
    ErrorCode.UNEXPECTED_VALUE: "the key holds another value",
    ErrorCode.NONEXISTENT_VALUE: "the key holds no value",
    ErrorCode.UNEXPECTED_ENTRY: "the key's entry is not the expected one",
    ErrorCode.STALE_EPOCH: "the commit's epoch or control sequence is not the log's",
    ErrorCode.IDEMPOTENCY_MISMATCH: "another commit was sent under the same idempotency key",
    ErrorCode.IDEMPOTENCY_EXPIRED: "the commit is behind what the log remembers",
    ErrorCode.BAD_REQUEST: "the commit has seen versions that do not exist",
    ErrorCode.WRONG_LOG_KIND: "the log is of the other kind",
}


def _judged_by(admitted: Admitted) -> list[functions.Argument]:
    asked = admitted.submission
    return [
        int(asked.control),
        asked.ctl_seq,
        *asked.epoch,
        *asked.next_epoch,
        admitted.next_ctl_head,
        "" if asked.expect_version is None else asked.expect_version,
        asked.seen_size,
    ]


def _pack_commands(kind: LogKind, submission: Submission) -> list[functions.Argument]:
    """Offsets and commands, as `commit.lua` takes them."""
    slot_of: dict[bytes, int] = {}
    ops, slots, offsets, values = [], [], [], []
    for index, (command, start, _) in enumerate(submission.commands):
        op = command.op
        ops.append(int(op))
        slots.append(slot_of.setdefault(command.token, len(slot_of) + 1))
        offsets.append(start)
        value = b""
        if op in SETS:
            value = _POSITION.pack(index, start) + entry_hash(command) + value_id(kind, command)
        elif op is Op.REMOVE:
            value = _NO_PLACE + command.value
        elif op in (Op.EXPECT_ENTRY, Op.EXPECT_VERSION):
            value = b"%d" % command.version
        values.append(value + b"".join(command.alts) if command.alts else value)
    commands = [ops, slots, list(slot_of), values]
    return [
        struct.pack(f">{len(offsets)}I", *offsets),
        msgpack.packb(commands, use_bin_type=False),  # the engine's msgpack knows no bin type
    ]

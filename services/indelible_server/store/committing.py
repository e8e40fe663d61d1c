"""Committing: one call of the commit function, and what its reply means.

Owns how a commit travels to the function. Knows nothing of HTTP, and nothing of how a commit
is admitted (`admission`).
"""

import asyncio
import struct
from collections.abc import Callable, Coroutine, Sequence
from functools import lru_cache, partial

import msgpack
from indelible_protocol.commands import SETS, LogKind, Op, entry_hash, value_id
from indelible_protocol.errors import ErrorCode
from indelible_protocol.ids import LogId
from indelible_protocol.semantics import Acknowledged, Submission
from redis.asyncio import Redis

from indelible_server.store import functions, keys
from indelible_server.store.admission import Admitted, LogIdentity
from indelible_server.store.batching import BatchingRedis
from indelible_server.store.cluster import Cluster
from indelible_server.store.connection import write_outcome
from indelible_server.store.covering import Covering
from indelible_server.store.errors import OutcomeUnknown, Refusal
from indelible_server.store.logs import KIND_WORDS, nonexistent, replaced

# An index entry but for its version: index, offset, entry hash, value id.
_ENTRY = struct.Struct(">II32s32s")
_NO_PLACE = bytes(40)  # where a set has its position and entry hash
# Where a reply has the log's version, which is covered: the call was waited for.
_TELLS_VERSION = {"committed": 0, "unchanged": 0, "repeated": 0, "rejected": 2}


@lru_cache(maxsize=1 << 12)  # of logs that were written of late
def _keys_of(log_id: LogId) -> tuple[str, ...]:
    return keys.of_log(log_id).all()


Outcome = Acknowledged | Refusal


_Reply = tuple[str, functions.Reply] | Refusal


class Commits:
    """`reach` is called with the name of each failpoint that a commit passes.

    `seconds` bounds a commit on a store whose client does not do so itself: one that waits for
    a connection, then for replicas.
    """

    def __init__(
        self,
        redis: Redis,
        covering: Covering | None = None,
        *,
        seconds: float = 60.0,
        reach: Callable[[str], None] = lambda point: None,
    ) -> None:
        self._redis = redis
        # Asked once: redis-py's classes are protocols, which take long to say what is one.
        self._batching = redis if isinstance(redis, (BatchingRedis, Cluster)) else None
        self._covering = covering or Covering(redis, 0)
        self._seconds = seconds
        self._tasks: set[asyncio.Task[None]] = set()
        self.reach = reach

    async def commit(self, identity: LogIdentity, admitted: Admitted) -> Acknowledged:
        """Judged and, if it takes effect, durable when this returns.

        Raises:
            Refusal: the code that the commit function found, with the current version and
                the index of the command that failed where one did.
            OutcomeUnknown: it may or may not be in.
        """
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.send(identity, admitted, partial(resolve, answer))
        return acknowledged(await answer)

    def send(
        self, identity: LogIdentity, admitted: Admitted, settle: Callable[[Outcome], None]
    ) -> None:
        """`commit` without a task: `settle` gets its outcome, whatever becomes of who asked."""
        submission, commit = admitted.submission, admitted.commit
        log_keys = _keys_of(identity.log_id)
        asked: list[functions.Argument] = [
            KIND_WORDS[identity.kind],
            submission.writer_chain or b"",
            submission.seq,
            submission.commit_hash,
        ]
        arguments = [
            *asked,
            *_judged_by(admitted),
            *(commit.header, commit.signature, commit.body),
            *_pack_commands(identity.kind, submission),
            self._covering.told(identity.log_id),
        ]

        def settled(reply: _Reply) -> None:
            if (
                isinstance(reply, Refusal)
                and reply.code is ErrorCode.STORAGE_FULL
                and submission.writer_chain is not None
            ):
                self._start(self._recall(identity.log_id, asked, reply, settle))
                return
            self.reach("after_commit_call")
            if not isinstance(reply, Refusal) and reply[0] in _TELLS_VERSION:
                version = int(reply[1][_TELLS_VERSION[reply[0]]])
                self._covering.note(identity.log_id, version)
            settle(_outcome(reply))

        self.reach("before_commit_call")
        if self._batching is not None:
            functions.ask(self._batching, "commit", log_keys, arguments, settled)
        else:
            self._start(self._call(log_keys, arguments, settled))

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _call(
        self,
        log_keys: Sequence[str],
        arguments: Sequence[functions.Argument],
        settled: Callable[[_Reply], None],
    ) -> None:
        reply: _Reply
        try:
            async with write_outcome(), asyncio.timeout(self._seconds):
                reply = await functions.call(self._redis, "commit", log_keys, arguments)
        except Refusal as refusal:
            reply = refusal
        except Exception as error:  # somebody waits for an answer, whatever it was
            reply = OutcomeUnknown(type(error).__name__)
        settled(reply)

    async def _recall(
        self,
        log_id: LogId,
        asked: Sequence[functions.Argument],
        refusal: Refusal,
        settle: Callable[[Outcome], None],
    ) -> None:
        """Memory is full, but this may be a commit that is in already."""
        try:
            log_keys = _keys_of(log_id)
            reply = await functions.call(self._redis, "recall", log_keys, asked)
        except Refusal as other:
            settle(other)
            return
        try:
            if reply[0] == "repeated":
                await self._covering.fence(log_id)  # recalling writes nothing
        except Refusal:
            settle(OutcomeUnknown("too few replicas hold it"))
        else:
            settle(_outcome(reply) if reply[0] == "repeated" else refusal)


def resolve(answer: "asyncio.Future[Outcome]", outcome: Outcome) -> None:
    """For a caller that waits, and may have left."""
    if not answer.done():
        answer.set_result(outcome)


def acknowledged(outcome: Outcome) -> Acknowledged:
    """
    Raises:
        Refusal: it was no acknowledgement.
    """
    if isinstance(outcome, Refusal):
        raise outcome
    return outcome


def _outcome(reply: _Reply) -> Outcome:
    if isinstance(reply, Refusal):
        return reply
    try:
        return _acknowledged(*reply)
    except Refusal as refusal:
        return refusal


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
    commands, offsets = submission.located
    ops, tokens, _, _, _ = zip(*commands, strict=True)
    slot_of = {token: slot for slot, token in enumerate(dict.fromkeys(tokens), 1)}
    values = []
    for index, command in enumerate(commands):
        op, _, _, held, alts = command
        value = b""
        if op in SETS:
            value = _ENTRY.pack(index, offsets[index], entry_hash(command), value_id(kind, command))
        elif op is Op.REMOVE:
            value = _NO_PLACE + held
        elif op is Op.EXPECT_ENTRY or op is Op.EXPECT_VERSION:
            value = b"%d" % command.version
        values.append(value + b"".join(alts) if alts else value)
    return [
        struct.pack(f">{len(commands)}I", *offsets[:-1]),
        _packer.pack([ops, [slot_of[token] for token in tokens], list(slot_of), values]),
    ]


_packer = msgpack.Packer(use_bin_type=False)  # the engine's msgpack knows no bin type

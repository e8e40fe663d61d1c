"""What a commit must be before the store is asked: bytes, caps, kind, log, writer, signature.

Pure. Turns what came over the wire into what the commit function takes; knows nothing of
Redis or HTTP.
"""

from collections.abc import Sequence
from itertools import accumulate

from indelible_protocol import limits
from indelible_protocol.commands import (
    Command,
    Located,
    LogKind,
    Op,
    check_data_commands,
    check_size,
    encode,
)
from indelible_protocol.errors import ErrorCode, ProtocolError
from indelible_protocol.ids import LogId, PublicKey
from indelible_protocol.merkle import root_of
from indelible_protocol.records import (
    CommitKind,
    ControlRecord,
    Epoch,
    Grant,
    Header,
    Meta,
    OpaqueGenesis,
    Role,
    SealedGenesis,
    commit_hash,
    log_id_of,
    read_control,
    unsigned_header,
)
from indelible_protocol.semantics import Submission
from indelible_protocol.signing import SignedCommit, read_body, verify_card, verify_commit
from msgspec import Struct

from indelible_server.store.errors import Refusal

# A `ctl_seq` that no log has: what is not linked to the log's last control record is stale, or is
# that very record sent again, and only the commit function knows what it has answered.
_NOT_LINKED = -1


class LogIdentity(Struct, frozen=True, kw_only=True):
    """What never changes about a log (but by restoring a backup, which raises `incarnation`)."""

    log_id: LogId
    tenant: str
    database: str
    kind: LogKind
    name: bytes
    group: str
    owner: PublicKey
    max_commands: int
    max_commit_bytes: int
    incarnation: int


class Admitted(Struct, frozen=True, kw_only=True):
    """A commit that may be judged: its bytes, and what they ask for."""

    commit: SignedCommit
    submission: Submission
    next_ctl_head: bytes = b""


class Founded(Struct, frozen=True, kw_only=True):
    """A sealed log's genesis commit, checked."""

    log_id: LogId
    genesis: SealedGenesis
    commit: SignedCommit
    ctl_seq: int
    ctl_head: bytes


def admit_sealed(
    log: LogIdentity, commit: SignedCommit, ctl_head: bytes, header: Header | None = None
) -> Admitted:
    """`ctl_head` is the hash of the log's last control record, for control commits; `header`
    the commit's own, where it is decoded already.

    Raises:
        ProtocolError, Refusal: the first thing that is wrong, with its code.
    """
    if log.kind is not LogKind.SEALED:
        raise Refusal(
            ErrorCode.WRONG_LOG_KIND,
            "a signed commit was sent to an opaque log; send commands (application/json or "
            "msgpack: {commands, source}) or use the original protocol",
        )
    header = header or Header.decode(commit.header)
    check_size(
        header.command_count,
        len(commit.body),
        max_commands=log.max_commands,
        max_bytes=log.max_commit_bytes,
    )
    if header.log_id != log.log_id:
        raise ProtocolError("the commit names another log than the URL")
    if header.kind is CommitKind.ATTEST_ONLY:
        raise ProtocolError("attest-only commits are not supported yet")
    verify_commit(commit, header)
    if header.writer != log.owner:
        raise Refusal(
            ErrorCode.UNAUTHORIZED_OPERATION,
            "only the log's owner may write; this commit is signed by another identity",
        )
    located = read_body(header, commit.body)
    commands = located.commands
    records: list[ControlRecord] = []
    if header.kind is CommitKind.CONTROL:
        records = read_control(commands, head=None)
        _check_control(records)
    else:
        check_data_commands(commands, LogKind.SEALED)
    epochs = [record.body for record in records if isinstance(record.body, Epoch)]
    epoch = (header.generation, header.epoch)
    return Admitted(
        commit=commit,
        submission=Submission(
            commit_hash=commit_hash(commit.header),
            located=located,
            writer_chain=header.writer + header.chain,
            seq=header.seq,
            control=bool(records),
            ctl_seq=_NOT_LINKED if records and records[0].prev != ctl_head else header.ctl_seq,
            epoch=epoch,
            next_epoch=(epochs[-1].generation, epochs[-1].epoch) if epochs else epoch,
            expect_version=header.expect_version,
            seen_size=header.seen_size,
        ),
        next_ctl_head=records[-1].hash if records else ctl_head,
    )


def _check_control(records: Sequence[ControlRecord]) -> None:
    for index, record in enumerate(records):
        if isinstance(record.body, SealedGenesis):
            raise ProtocolError(f"control record {index}: a log has one genesis")
        if isinstance(record.body, Grant):
            raise Refusal(
                ErrorCode.UNAUTHORIZED_OPERATION, "only the owner is a member of a log for now"
            )


def admit_opaque(
    log: LogIdentity, commands: Sequence[Command], source: bytes, idempotency_key: str | None
) -> Admitted:
    """Lays an opaque commit out; equal commands and source give equal bytes.

    Raises:
        ProtocolError, Refusal: the first thing that is wrong, with its code.
    """
    if log.kind is not LogKind.OPAQUE:
        raise Refusal(
            ErrorCode.WRONG_LOG_KIND, "this log is sealed: it takes signed commits of its owner"
        )
    if len(source) > limits.MAX_MEMO_BYTES:
        raise ProtocolError(
            f"source of {len(source)} bytes, at most {limits.MAX_MEMO_BYTES} are allowed",
            ErrorCode.TOO_LARGE,
        )
    check_data_commands(commands, LogKind.OPAQUE)
    commit, located = lay_out(log.log_id, CommitKind.DATA, commands, source)
    check_size(
        len(commands),
        len(commit.body),
        max_commands=log.max_commands,
        max_bytes=log.max_commit_bytes,
    )
    return Admitted(
        commit=commit,
        submission=Submission(
            commit_hash=commit_hash(commit.header),
            located=located,
            writer_chain=idempotency_key.encode() if idempotency_key else None,
        ),
    )


def lay_out(
    log_id: LogId, kind: CommitKind, commands: Sequence[Command], source: bytes = b""
) -> tuple[SignedCommit, Located]:
    """An unsigned commit: zero writer, no epoch, no time of its own."""
    pieces = list(map(encode, commands))
    offsets = list(accumulate(map(len, pieces), initial=0))
    header = unsigned_header(kind, log_id, len(pieces), root_of(pieces), offsets[-1], source)
    commit = SignedCommit(header=header, signature=b"", body=b"".join(pieces))
    return commit, Located(list(commands), offsets)


def found_sealed(commit: SignedCommit) -> Founded:
    """Checks the genesis commit of a sealed log, as PROTOCOL.md §6 lays it down.

    Raises:
        ProtocolError: the first thing that is wrong.
    """
    header = Header.decode(commit.header)
    check_size(
        header.command_count,
        len(commit.body),
        max_commands=limits.MAX_CONTROL_RECORDS,
        max_bytes=limits.MAX_COMMIT_BYTES,
    )
    records = read_control(read_body(header, commit.body).commands)
    bodies = [record.body for record in records]
    if [type(body) for body in bodies] != [SealedGenesis, Meta, Epoch, Grant]:
        raise ProtocolError("a genesis commit holds Genesis, Meta, Epoch and Grant, in this order")
    genesis, _, epoch, grant = bodies
    assert isinstance(genesis, SealedGenesis)
    assert isinstance(epoch, Epoch)
    assert isinstance(grant, Grant)
    log_id = log_id_of(genesis.encode())
    owner = genesis.owner
    verify_card(owner)
    for wrong, what in (
        (header.kind is not CommitKind.CONTROL, "is not a control commit"),
        (header.log_id != log_id, "does not name the log that its genesis makes"),
        (header.writer != owner.pk_sign, "is not signed by the owner"),
        ((header.generation, header.epoch) != (1, 1), "is not of generation 1, epoch 1"),
        ((epoch.generation, epoch.epoch) != (1, 1), "does not begin with epoch (1, 1)"),
        (header.ctl_seq != 0 or header.seen_size != 0, "has seen something before it"),
        (header.expect_version is not None, "expects a version"),
        (grant.card != owner or grant.role is not Role.ADMIN, "does not grant its owner"),
        (genesis.max_commands > limits.MAX_COMMANDS, "raises max_commands"),
        (genesis.max_commit_bytes > limits.MAX_COMMIT_BYTES, "raises max_commit_bytes"),
        (genesis.max_lag > limits.MAX_LAG, "raises max_lag"),
    ):
        if wrong:
            raise ProtocolError(f"the genesis commit {what}")
    verify_commit(commit, header)
    return Founded(
        log_id=log_id,
        genesis=genesis,
        commit=commit,
        ctl_seq=len(records),
        ctl_head=records[-1].hash,
    )


def found_opaque(genesis: OpaqueGenesis) -> tuple[LogId, SignedCommit]:
    """The id and the genesis commit of an opaque log: one bare Control command, unsigned."""
    record = genesis.encode()
    log_id = log_id_of(record)
    commit, _ = lay_out(log_id, CommitKind.CONTROL, [Command(Op.CONTROL, b"", b"", record)])
    return log_id, commit

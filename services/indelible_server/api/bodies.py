"""From the body of a commit to what may be judged, and from its outcome to the answer's body.

Knows messages and logs' kinds; nothing of HTTP, of who asks, nor of the store.
"""

from contextlib import suppress
from typing import TypeVar

from indelible_protocol import limits, messages
from indelible_protocol.commands import Command, LogKind, Op
from indelible_protocol.errors import ErrorCode, ProtocolError
from indelible_protocol.messages import Form, PlainCommand
from indelible_protocol.records import CommitKind, Header
from indelible_protocol.semantics import Acknowledged
from indelible_protocol.signing import SignedCommit
from msgspec import UNSET

from indelible_server.settings import Durability
from indelible_server.store.admission import Admitted, LogIdentity, admit_opaque, admit_sealed
from indelible_server.store.errors import Refusal

_KIND_WORDS = {LogKind.SEALED: "sealed", LogKind.OPAQUE: "opaque"}
_TAKES = {
    LogKind.SEALED: "signed commits of its owner",
    LogKind.OPAQUE: "commands in clear: {commands, source}",
}
_C = TypeVar("_C", messages.Commit, messages.PlainCommit)
_VISIBLE_ASCII = frozenset(map(chr, range(0x21, 0x7F)))


def admit(
    log: LogIdentity, form: Form, data: bytes, idempotency_key: str | None
) -> Admitted | SignedCommit:
    """What may be judged; or a control commit, which `admit_sealed` needs the log's head for.

    Raises:
        ProtocolError, Refusal: the first thing that is wrong, with its code.
    """
    if log.kind is LogKind.OPAQUE:
        if idempotency_key is not None:
            _check_idempotency_key(idempotency_key)
        plain = _decoded(data, messages.PlainCommit, form, LogKind.OPAQUE)
        commands = [_command(i, command) for i, command in enumerate(plain.commands)]
        return admit_opaque(log, commands, plain.source.encode(), idempotency_key)
    signed = signed_commit(_decoded(data, messages.Commit, form, LogKind.SEALED))
    header = Header.decode(signed.header)
    if header.kind is CommitKind.CONTROL:
        return signed
    return admit_sealed(log, signed, b"", header)


def committed(outcome: Acknowledged, durability: Durability) -> messages.Committed:
    return messages.Committed(
        version=outcome.version,
        changed=outcome.changed,
        repeated=outcome.repeated,
        durability=durability,
    )


def signed_commit(commit: messages.Commit) -> SignedCommit:
    return SignedCommit(header=commit.header, signature=commit.signature, body=commit.body)


def _decoded(data: bytes, kind: type[_C], form: Form, log_kind: LogKind) -> _C:
    """
    Raises:
        Refusal: WRONG_LOG_KIND for a message that is right, and for a log of the other kind.
        ProtocolError: it is neither.
    """
    try:
        return messages.decode(data, kind, form)
    except ProtocolError:
        other = messages.Commit if kind is messages.PlainCommit else messages.PlainCommit
        with suppress(ProtocolError):
            messages.decode(data, other, form)
            word, takes = _KIND_WORDS[log_kind], _TAKES[log_kind]
            reason = f"this log is {word}: it takes {takes}"
            raise Refusal(ErrorCode.WRONG_LOG_KIND, reason) from None
        raise


def _check_idempotency_key(key: str) -> None:
    if not 1 <= len(key) <= limits.MAX_IDEMPOTENCY_KEY_CHARS or not _VISIBLE_ASCII.issuperset(key):
        raise ProtocolError(
            f"Idempotency-Key: 1 to {limits.MAX_IDEMPOTENCY_KEY_CHARS} visible ASCII characters "
            "expected"
        )


# Each type's op, and whether it takes a key, a value, a version.
_KEY, _VALUE, _VERSION = 1, 2, 4
_SHAPES = {
    "Upsert": (Op.UPSERT, _KEY | _VALUE),
    "Insert": (Op.INSERT, _KEY | _VALUE),
    "Update": (Op.UPDATE, _KEY | _VALUE),
    "Remove": (Op.REMOVE, _KEY | _VALUE),
    "Delete": (Op.DELETE, _KEY),
    "ExpectVersion": (Op.EXPECT_VERSION, _VERSION),
    "ExpectAbsent": (Op.EXPECT_ABSENT, _KEY),
    "ExpectEntry": (Op.EXPECT_ENTRY, _KEY | _VERSION),
}
_MEMBERS = ((_KEY, "key"), (_VALUE, "value"), (_VERSION, "version"))


def _command(index: int, plain: PlainCommand) -> Command:
    op, expected = _SHAPES[plain.type]
    key, value, version = plain.key, plain.value, plain.version
    found = (
        (key is not UNSET and _KEY)
        | (value is not UNSET and _VALUE)
        | (version is not UNSET and _VERSION)
    )
    if found != expected:
        takes = " and ".join(name for bit, name in _MEMBERS if expected & bit)
        raise ProtocolError(f"command {index} ({plain.type}): takes {takes} and nothing else")
    if key is UNSET:
        key = b""
    if version is not UNSET:
        return Command.on_version(op, key, version)
    if value is UNSET:
        return Command(op, key)
    return Command.on_plain_value(op, key, value)

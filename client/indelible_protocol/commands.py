"""Commands of a commit: their layout, their checks, and what a value is identified by.

```
Command = u8 op ‖ vec2 token ‖ vec2 key_ct ‖ vec4 value ‖ vec2 alts
```

In a sealed log the token is 32 bytes, `key_ct` the sealed key and `value` the sealed value;
in an opaque log the token is the key's own bytes, `key_ct` is empty and `value` is the
value's own bytes. Knows nothing of headers, signatures or what a command does.
"""

import struct
from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from functools import lru_cache
from hashlib import sha256
from typing import Any, NamedTuple, cast

from indelible_protocol import limits
from indelible_protocol.errors import ErrorCode, ProtocolError
from indelible_protocol.ids import EntryHash, ValueId

TOKEN_BYTES = 32
MIN_SEALED_BYTES = 80  # 32 of SIV, 16 of tag, 32 of padded plaintext


class LogKind(IntEnum):
    """Fixed at creation: who encrypts, and so what the server may check."""

    SEALED = 1
    OPAQUE = 2


class Op(IntEnum):
    UPSERT = 1
    INSERT = 2
    UPDATE = 3
    REMOVE = 4
    DELETE = 5
    EXPECT_ABSENT = 6
    EXPECT_ENTRY = 7
    EXPECT_VERSION = 8
    CONTROL = 16


# Tuples: a member is compared by identity there, a set would call a hash of Python's for it.
SETS = (Op.UPSERT, Op.INSERT, Op.UPDATE)
_OPS = {int(op): op for op in Op}
# What is asked for each of thousands: finding a member by its name takes as long as much else.
_REMOVE, _EXPECT_VERSION, _SEALED = Op.REMOVE, Op.EXPECT_VERSION, LogKind.SEALED
_HEAD = struct.Struct(">BH")
_U16 = struct.Struct(">H")
_U32 = struct.Struct(">I")
_NO_ALTS = bytes(2)


class Command(NamedTuple):
    """One command, as in its bytes. (A tuple: 4,096 of them are decoded per request.)

    `value` is the sealed or plain value for the three sets, the 32-byte value id for REMOVE,
    a u64 version for EXPECT_ENTRY and EXPECT_VERSION, the control record for CONTROL, else
    empty. `alts` are up to eight ids of the same value under earlier epochs.
    """

    op: Op
    token: bytes
    key_ct: bytes = b""
    value: bytes = b""
    alts: tuple[bytes, ...] = ()

    @property
    def version(self) -> int:
        """The version that EXPECT_ENTRY or EXPECT_VERSION names."""
        return int.from_bytes(self.value, "big")

    @classmethod
    def on_version(cls, op: Op, token: bytes, version: int) -> "Command":
        """EXPECT_ENTRY on a key, or EXPECT_VERSION (whose token is empty)."""
        return cls(op, token, b"", version.to_bytes(8, "big"))

    @classmethod
    def on_plain_value(cls, op: Op, token: bytes, value: bytes) -> "Command":
        """A set or a REMOVE in an opaque log; a REMOVE keeps only the value's id."""
        return cls(op, token, b"", sha256(value).digest() if op is Op.REMOVE else value)


def encode(command: Command) -> bytes:
    op, token, key_ct, value, alts = command
    joined = b"".join(alts)
    return b"".join(
        (
            *(_HEAD.pack(op, len(token)), token, _U16.pack(len(key_ct)), key_ct),
            *(_U32.pack(len(value)), value, _U16.pack(len(joined)), joined),
        )
    )


def encode_body(commands: Iterable[Command]) -> bytes:
    """A commit's body: its commands back to back."""
    return b"".join(map(encode, commands))


class Located(NamedTuple):
    """Commands, and the byte of the body at which each begins; the last offset is their end."""

    commands: list[Command]
    offsets: list[int]


_new = cast("Callable[[type[Command], tuple[Any, ...]], Command]", tuple.__new__)


def decode_at(body: bytes, start: int) -> tuple[Command, int]:
    """The command whose bytes begin at `start`, and where they end.

    Raises:
        ProtocolError: an unknown op, a length past the end, or more alts than allowed.
    """
    try:
        op_number, length = _HEAD.unpack_from(body, start)
        at = start + 3 + length
        token = body[start + 3 : at]
        (length,) = _U16.unpack_from(body, at)
        key_ct = body[at + 2 : at + 2 + length]
        at += 2 + length
        (length,) = _U32.unpack_from(body, at)
        value = body[at + 4 : at + 4 + length]
        at += 4 + length
        (length,) = _U16.unpack_from(body, at)
        end = at + 2 + length
    except struct.error:
        raise ProtocolError(f"command at byte {start}: cut off") from None
    op = _OPS.get(op_number)
    if op is None:
        raise ProtocolError(f"command at byte {start}: unknown op {op_number}")
    if end > len(body):
        raise ProtocolError(f"command at byte {start}: cut off")
    if not length:  # as the constructor would, which takes as long as all the rest
        return _new(Command, (op, token, key_ct, value, ())), end
    if length % 32 or length > 32 * limits.MAX_ALTS:
        raise ProtocolError(
            f"command at byte {start}: alts have {length} bytes, "
            f"at most {limits.MAX_ALTS} ids of 32 expected"
        )
    alts = tuple(body[i : i + 32] for i in range(at + 2, end, 32))
    return Command(op, token, key_ct, value, alts), end


def decode_body(body: bytes, count: int) -> Located:
    """Exactly `count` commands that fill `body`.

    Neighbours are mostly alike: without alts, and with sealed keys of one length. What is like
    the command before it is read in one go, in half the time; all else is `decode_at`'s.
    """
    commands: list[Command] = []
    offsets = [0]
    at = 0
    unpack, size, key_bytes = _before_value(0)
    for _ in range(count):
        command = None
        if at + size <= len(body):
            number, token_length, token, key_length, key_ct, length = unpack(body, at)
            op, end = _OPS.get(number), at + size + length
            is_like = token_length == TOKEN_BYTES and key_length == key_bytes
            if is_like and op is not None and body[end : end + 2] == _NO_ALTS:
                command = _new(Command, (op, token, key_ct, body[at + size : end], ()))
                end += 2
        if command is None:
            command, end = decode_at(body, at)
            unpack, size, key_bytes = _before_value(len(command.key_ct))
        commands.append(command)
        offsets.append(end)
        at = end
    if at != len(body):
        raise ProtocolError(f"body: {len(body) - at} bytes after command {count}")
    return Located(commands, offsets)


@lru_cache(maxsize=1 << 10)
def _before_value(key_bytes: int) -> tuple[Callable[[bytes, int], tuple[Any, ...]], int, int]:
    """Reads a sealed command up to its value's length; in how many bytes; `key_bytes`."""
    layout = struct.Struct(f">BH{TOKEN_BYTES}sH{key_bytes}sI")
    return layout.unpack_from, layout.size, key_bytes


def check_count(count: int, *, max_commands: int) -> None:
    """Refuses an empty commit, and one of too many commands with TOO_LARGE."""
    if not count:
        raise ProtocolError("a commit holds at least one command")
    if count > max_commands:
        raise ProtocolError(
            f"{count} commands in one commit, at most {max_commands} are allowed (max_commands)",
            ErrorCode.TOO_LARGE,
        )


def check_size(count: int, body_bytes: int, *, max_commands: int, max_bytes: int) -> None:
    """Refuses a commit over its log's limits with TOO_LARGE, naming the limit."""
    check_count(count, max_commands=max_commands)
    if body_bytes > max_bytes:
        raise ProtocolError(
            f"commit of {body_bytes} bytes, at most {max_bytes} are allowed (max_commit_bytes)",
            ErrorCode.TOO_LARGE,
        )


def check_data_commands(commands: Sequence[Command], kind: LogKind) -> None:
    """Refuses commands that cannot stand in a data commit of a log of this kind.

    Raises:
        ProtocolError: naming the command's index and what was expected.
    """
    fault_of = _sealed_fault if kind is LogKind.SEALED else _opaque_fault
    for index, fault in enumerate(map(fault_of, commands)):
        if fault:
            raise ProtocolError(f"command {index} ({commands[index].op.name}): {fault}")


def _shape_fault(command: Command) -> str | None:
    """Of a command that is no set."""
    op, value = command.op, command.value
    if op is Op.REMOVE:
        if len(value) != 32:
            return f"value id has {len(value)} bytes, 32 expected"
    elif op in (Op.EXPECT_ENTRY, Op.EXPECT_VERSION):
        if len(value) != 8 or command.version > limits.MAX_VERSION:
            return "a version of 8 bytes up to 2^53-1 expected"
    elif op is Op.CONTROL:
        return "control records stand in control commits only"
    elif value:
        return "no value expected"
    if command.key_ct:
        return "no sealed key expected"
    if command.alts and op is not Op.REMOVE:
        return "no alts expected"
    return None


def _sealed_fault(command: Command) -> str | None:
    op, token, key_ct, value, _ = command
    is_set = op in SETS
    if not is_set:  # a set has no shape of its own
        fault = _shape_fault(command)
        if fault:
            return fault
        if op is _EXPECT_VERSION:
            return "the expected version of a sealed commit stands in its header"
    if len(token) != TOKEN_BYTES:
        return f"token has {len(token)} bytes, {TOKEN_BYTES} expected"
    if is_set:
        if not MIN_SEALED_BYTES <= len(key_ct) <= limits.MAX_SEALED_KEY_BYTES:
            return f"sealed key has {len(key_ct)} bytes"
        if not key_ct.startswith(token):
            return "sealed key does not begin with its token"
        if len(value) < MIN_SEALED_BYTES:
            return f"sealed value has {len(value)} bytes, {MIN_SEALED_BYTES} or more expected"
    return None


def _opaque_fault(command: Command) -> str | None:
    op, token, key_ct, _, alts = command
    fault = None if op in SETS else _shape_fault(command)
    if fault:
        return fault
    if op is _EXPECT_VERSION:
        return "no key expected" if token else None
    if not 1 <= len(token) <= limits.MAX_KEY_BYTES:
        return f"key has {len(token)} bytes, 1 to {limits.MAX_KEY_BYTES} expected"
    if key_ct:
        return "an opaque log has no sealed keys"
    if alts:
        return "an opaque log has no alts"
    return None


def value_id(kind: LogKind, command: Command) -> ValueId:
    """What "the same value" is judged by: 32 bytes.

    A sealed value begins with its SIV; an opaque one is hashed; REMOVE carries the id.
    """
    value = command.value
    if command.op is _REMOVE:
        return ValueId(value)
    return ValueId(value[:32] if kind is _SEALED else sha256(value).digest())


def entry_hash(command: Command) -> EntryHash:
    """SHA-256(vec2(key_ct) ‖ value): what the state digest and effects name an entry by."""
    _, _, key_ct, value, _ = command
    begun = _begin_entry(len(key_ct))()
    begun.update(key_ct + value)
    found: EntryHash = begun.digest()
    return found


@lru_cache(maxsize=1 << 8)
def _begin_entry(key_bytes: int) -> Callable[[], Any]:
    """Gives a begun hash; to copy one takes a quarter of the time that making one takes."""
    return sha256(_U16.pack(key_bytes)).copy

"""Sealed commits, laid out and signed as client/PROTOCOL.md says (§§4-6), and by nothing else.

A second opinion on the document: it imports nothing of the project. What §7 seals is opaque to a
service, so names, keys and values are only shaped as it says: a sealed key begins with its token,
a sealed value with its id.
"""

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from nacl.signing import SigningKey

SUITE = 1
ANY_VERSION = 2**64 - 1
ZERO = bytes(32)
OPS = {
    "Upsert": 1,
    "Insert": 2,
    "Update": 3,
    "Remove": 4,
    "Delete": 5,
    "ExpectAbsent": 6,
    "ExpectEntry": 7,
    "ExpectVersion": 8,
    "Control": 16,
}
SETS = ("Upsert", "Insert", "Update")
DATA, CONTROL, ATTEST_ONLY = 1, 2, 3
GENESIS, META, EPOCH, GRANT = 1, 2, 3, 4
READER, ADMIN = 1, 3
TIME_MS = 1_700_000_000_000


def u8(number: int) -> bytes:
    return struct.pack(">B", number)


def u16(number: int) -> bytes:
    return struct.pack(">H", number)


def u32(number: int) -> bytes:
    return struct.pack(">I", number)


def u64(number: int) -> bytes:
    return struct.pack(">Q", number)


def vec2(data: bytes) -> bytes:
    return u16(len(data)) + data


def vec4(data: bytes) -> bytes:
    return u32(len(data)) + data


def token(name: str) -> bytes:
    return sha256(b"token" + name.encode()).digest()


def sealed_key(name: str) -> bytes:
    """§7: the SIV, which is the token, then what it encrypts: 80 bytes for a short name."""
    return token(name) + bytes(48)


def value_id(text: str) -> bytes:
    return sha256(b"value" + text.encode()).digest()


def sealed_value(text: str) -> bytes:
    return value_id(text) + text.encode().ljust(48, b"\0")


@dataclass(frozen=True, kw_only=True)
class Command:
    op: int
    token: bytes = b""
    key_ct: bytes = b""
    value: bytes = b""
    alts: Sequence[bytes] = ()

    def encoded(self) -> bytes:
        parts = (vec2(self.token), vec2(self.key_ct), vec4(self.value), vec2(b"".join(self.alts)))
        return u8(self.op) + b"".join(parts)


def command(kind: str, key: str, value: str = "", *, alts: Sequence[str] = ()) -> Command:
    """Of what stands in §5's table, only what this kind of command takes."""
    held = b""
    if kind in SETS:
        held = sealed_value(value)
    elif kind == "Remove":
        held = value_id(value)
    return Command(
        op=OPS[kind],
        token=token(key),
        key_ct=sealed_key(key) if kind in SETS else b"",
        value=held,
        alts=[value_id(alt) for alt in alts],
    )


def upserting(key: str, value: str) -> Command:
    return command("Upsert", key, value)


def expecting_entry(key: str, version: int) -> Command:
    return Command(op=OPS["ExpectEntry"], token=token(key), value=u64(version))


def tree_hash(leaves: Sequence[bytes]) -> bytes:
    """RFC 6962, 2.1."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return sha256(b"\0" + leaves[0]).digest()
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return sha256(b"\1" + tree_hash(leaves[:split]) + tree_hash(leaves[split:])).digest()


@dataclass(frozen=True, kw_only=True)
class Header:
    log_id: bytes
    writer: bytes
    chain: bytes
    seq: int
    seen_size: int
    command_count: int
    body_root: bytes
    body_bytes: int
    magic: bytes = b"indlcmt1"
    suite: int = SUITE
    kind: int = DATA
    generation: int = 1
    epoch: int = 1
    ctl_seq: int = 4
    expect_version: int = ANY_VERSION
    seen_root: bytes = ZERO
    seen_state: bytes = ZERO
    seen_level: int = 0
    client_time_ms: int = TIME_MS
    memo_ct: bytes = b""

    def encoded(self) -> bytes:
        return b"".join(
            (
                self.magic,
                u16(self.suite),
                u8(self.kind),
                self.log_id,
                self.writer,
                self.chain,
                u64(self.seq),
                u32(self.generation),
                u32(self.epoch),
                u64(self.ctl_seq),
                u64(self.expect_version),
                u64(self.seen_size),
                self.seen_root,
                self.seen_state,
                u8(self.seen_level),
                u64(self.client_time_ms),
                u32(self.command_count),
                self.body_root,
                u64(self.body_bytes),
                vec2(self.memo_ct),
            )
        )


@dataclass(frozen=True, kw_only=True)
class Commit:
    """What `Commit` of the messages holds."""

    header: bytes
    signature: bytes
    body: bytes

    @property
    def message(self) -> dict[str, bytes]:
        return {"header": self.header, "signature": self.signature, "body": self.body}


@dataclass(frozen=True, kw_only=True)
class Identity:
    key: SigningKey = field(default_factory=SigningKey.generate)
    pk_box: bytes = field(default_factory=lambda: os.urandom(32))

    @property
    def pk_sign(self) -> bytes:
        return bytes(self.key.verify_key)

    def signature(self, context: bytes, data: bytes) -> bytes:
        return self.key.sign(context + data).signature

    def card(self) -> bytes:
        bare = b"indlcard" + u16(SUITE) + self.pk_sign + self.pk_box + u64(TIME_MS) + vec2(b"")
        return bare + self.signature(b"indelible/v1 card\n", bare)


@dataclass(frozen=True, kw_only=True)
class Genesis:
    """The record that a sealed log's id is the hash of."""

    owner: bytes
    random: bytes = field(default_factory=lambda: os.urandom(32))
    max_commands: int = 4_096
    max_commit_bytes: int = 1 << 20
    max_lag: int = 1 << 21
    flags: int = 0
    padding: int = 1
    name_ct: bytes = bytes(80)

    def encoded(self) -> bytes:
        return b"".join(
            (
                u8(1),
                u16(SUITE),
                vec2(self.owner),
                u8(0),
                self.random,
                u32(self.max_commands),
                u32(self.max_commit_bytes),
                u64(self.max_lag),
                u32(self.flags),
                u8(self.padding),
                ZERO,
                vec2(self.name_ct),
            )
        )


def epoch_record(generation: int, epoch: int, member: bytes, *, count: int = 1) -> bytes:
    """With a wrap for `member`; `count` is what it says of their number."""
    wraps = u16(count) + member + vec2(bytes(226))
    return u32(generation) + u32(epoch) + bytes(32) + wraps + vec2(b"")


def grant(card: bytes, role: int = ADMIN) -> bytes:
    return vec2(card) + u8(role) + vec2(bytes(226))


Record = tuple[int, bytes]


class SealedLog:
    """A sealed log and the identity that owns it; `genesis` are members of its genesis record."""

    def __init__(self, *, identity: Identity | None = None, **genesis: Any) -> None:
        self.owner = identity or Identity()
        self.genesis = Genesis(**{"owner": self.owner.card()} | genesis)
        self.log_id = sha256(b"indelible/v1/log-id\0" + self.genesis.encoded()).digest()
        self.control_head = ZERO

    def first_records(self) -> list[Record]:
        return [
            (GENESIS, self.genesis.encoded()),
            (META, vec2(bytes(80))),
            (EPOCH, epoch_record(1, 1, self.owner.pk_sign)),
            (GRANT, grant(self.genesis.owner)),
        ]

    def founding(self, records: Sequence[Record] | None = None, **members: Any) -> Commit:
        """The genesis commit."""
        self.control_head = ZERO
        commands = self.chained(records or self.first_records())
        return self.commit(
            commands, **{"kind": CONTROL, "seq": 1, "ctl_seq": 0, "seen_size": 0} | members
        )

    def chained(self, records: Sequence[Record]) -> list[Command]:
        """Control commands, each naming the record before it."""
        commands = []
        for kind, record in records:
            whole = u8(kind) + self.control_head + record
            commands.append(Command(op=OPS["Control"], value=whole))
            self.control_head = sha256(b"indelible/v1/control\0" + whole).digest()
        return commands

    def commit(
        self,
        commands: Sequence[Command | bytes],
        *,
        signer: Identity | None = None,
        body: bytes | None = None,
        **members: Any,
    ) -> Commit:
        """Signed by the owner unless told.

        Commands may be bytes; `body` is sent in place of theirs, and `members` of the header are
        taken as they are, whatever would be right.
        """
        by = signer or self.owner
        pieces = [each if isinstance(each, bytes) else each.encoded() for each in commands]
        right: dict[str, Any] = {
            "log_id": self.log_id,
            "writer": by.pk_sign,
            "chain": bytes(16),
            "command_count": len(pieces),
            "body_root": tree_hash(pieces),
            "body_bytes": sum(map(len, pieces)),
        }
        header = Header(**right | members).encoded()
        signature = by.signature(b"indelible/v1 commit\n", header)
        return Commit(
            header=header,
            signature=signature,
            body=b"".join(pieces) if body is None else body,
        )

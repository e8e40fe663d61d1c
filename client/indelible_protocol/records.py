"""Layouts of a commit's header, of the genesis, and of the control records.

Signed and hashed bytes are carried as they came: a decoded record keeps its own bytes, and
nothing is ever encoded again to be checked. Knows nothing of keys; signatures are checked
in `signing`. (Structs for their speed alone, of making one and of being defined: what is encoded
is laid out here.)
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from hashlib import sha256
from typing import TypeVar

from msgspec import Struct

from indelible_protocol import limits
from indelible_protocol.commands import Command, LogKind, Op
from indelible_protocol.encoding import Reader, u8, u16, u32, u64, vec2
from indelible_protocol.errors import ProtocolError
from indelible_protocol.ids import NO_CHAIN, NO_WRITER, ChainId, CommitHash, LogId, PublicKey

SUITE = 0x0001
_MAGIC = b"indlcmt1"
# A header but for its memo: magic, suite, kind, log id, writer, chain, seq, generation, epoch,
# ctl_seq, expected version, seen size, root, state and level, time; of the body count, root, size.
_FIXED = struct.Struct(">8sHB32s32s16sQIIQQQ32s32sBQI32sQ")
_ZERO32 = bytes(32)
_E = TypeVar("_E", bound=IntEnum)


class CommitKind(IntEnum):
    DATA = 1
    CONTROL = 2
    ATTEST_ONLY = 3


class Header(Struct, frozen=True, kw_only=True):
    """What a writer signs: 250 bytes and the memo, whatever the size of the batch.

    `expect_version` is None for "any". `seen_size` is the writer's known version + 1; root
    and state are zero at `seen_level` 0. `memo_ct` says who did it: sealed, or plain in an
    opaque log.
    """

    kind: CommitKind
    log_id: LogId
    writer: PublicKey = NO_WRITER
    chain: ChainId = NO_CHAIN
    seq: int = 0
    generation: int = 0
    epoch: int = 0
    ctl_seq: int = 0
    expect_version: int | None = None
    seen_size: int = 0
    seen_root: bytes = _ZERO32
    seen_state: bytes = _ZERO32
    seen_level: int = 0
    client_time_ms: int = 0
    command_count: int
    body_root: bytes
    body_bytes: int
    memo_ct: bytes = b""

    def encode(self) -> bytes:
        return _FIXED.pack(
            _MAGIC,
            SUITE,
            self.kind,
            self.log_id,
            self.writer,
            self.chain,
            self.seq,
            self.generation,
            self.epoch,
            self.ctl_seq,
            limits.NO_VERSION if self.expect_version is None else self.expect_version,
            self.seen_size,
            self.seen_root,
            self.seen_state,
            self.seen_level,
            self.client_time_ms,
            self.command_count,
            self.body_root,
            self.body_bytes,
        ) + vec2(self.memo_ct)

    @classmethod
    def decode(cls, data: bytes) -> "Header":
        """
        Raises:
            ProtocolError: another suite, an unknown kind or level, numbers beyond 2^53−1
                where versions stand, root or state set at level 0.
        """
        if len(data) < _FIXED.size:
            raise ProtocolError(
                f"commit header: {len(data)} bytes, {_FIXED.size} and a memo expected"
            )
        magic, suite, kind, *signed, time_ms, count, body_root, size = _FIXED.unpack_from(data)
        log_id, writer, chain, seq, generation, epoch, ctl_seq, expected, *seen = signed
        seen_size, root, state, level = seen
        if magic != _MAGIC or suite != SUITE:
            raise ProtocolError(f"commit header: it begins with 0x{data[:10].hex()}")
        if level > 2:
            raise ProtocolError(f"commit header: seen_level is {level}, 0 to 2 expected")
        if level == 0 and (root != _ZERO32 or state != _ZERO32):
            raise ProtocolError("commit header: root and state are zero at seen_level 0")
        reader = Reader(data, "commit header", position=_FIXED.size)
        memo_ct = reader.vec2(limits.MAX_MEMO_BYTES, "memo_ct")
        reader.end()
        return cls(
            kind=_member(CommitKind, kind, "commit header: kind"),
            log_id=LogId(log_id),
            writer=PublicKey(writer),
            chain=ChainId(chain),
            seq=_counter(seq, "seq"),
            generation=generation,
            epoch=epoch,
            ctl_seq=_counter(ctl_seq, "ctl_seq"),
            expect_version=(
                None if expected == limits.NO_VERSION else _counter(expected, "expect_version")
            ),
            seen_size=_counter(seen_size, "seen_size"),
            seen_root=root,
            seen_state=state,
            seen_level=level,
            client_time_ms=time_ms,
            command_count=count,
            body_root=body_root,
            body_bytes=size,
            memo_ct=memo_ct,
        )


def unsigned_header(
    kind: CommitKind, log_id: LogId, count: int, body_root: bytes, body_bytes: int, source: bytes
) -> bytes:
    """An opaque log's header: `Header.encode` with zeros where others sign and order."""
    return (
        b"".join((_MAGIC, u16(SUITE), u8(kind), log_id, _NO_WRITER_TO_TIME))
        + _UNSIGNED_END.pack(count, body_root, body_bytes, len(source))
        + source
    )


_NO_WRITER_TO_TIME = struct.pack(
    ">32s16sQIIQQQ32s32sBQ",
    *(NO_WRITER, NO_CHAIN, 0, 0, 0, 0, limits.NO_VERSION, 0, _ZERO32, _ZERO32, 0, 0),
)
_UNSIGNED_END = struct.Struct(">I32sQH")


def commit_hash(header: bytes) -> CommitHash:
    """What idempotency compares: SHA-256 of the header's bytes."""
    return CommitHash(sha256(header).digest())


class Card(Struct, frozen=True, kw_only=True):
    """An identity's public keys under its own signature (checked by `signing.verify_card`)."""

    pk_sign: PublicKey
    pk_box: bytes
    time_ms: int
    name: bytes
    signature: bytes = b""

    def core(self) -> bytes:
        """The signed part."""
        return b"".join(
            (b"indlcard", u16(SUITE), self.pk_sign, self.pk_box, u64(self.time_ms), vec2(self.name))
        )

    def encode(self) -> bytes:
        return self.core() + self.signature

    @classmethod
    def decode(cls, data: bytes) -> "Card":
        reader = Reader(data, "identity card")
        reader.constant(b"indlcard", "magic")
        reader.constant(u16(SUITE), "suite")
        card = cls(
            pk_sign=PublicKey(reader.take(32)),
            pk_box=reader.take(32),
            time_ms=reader.u64(),
            name=reader.vec2(256, "name"),
            signature=reader.take(64),
        )
        reader.end()
        return card


class SealedGenesis(Struct, frozen=True, kw_only=True):
    """What a sealed log is; its hash is the log's id.

    `limits` may lower the deployment's, never raise them. `flags` bit 0 asks for a Merkle
    map. `padding` 1 is PADMÉ. `name_ct` is the name sealed under the owner's keyring key.
    """

    owner: Card
    server_keys: tuple[bytes, ...] = ()
    random: bytes
    max_commands: int = limits.MAX_COMMANDS
    max_commit_bytes: int = limits.MAX_COMMIT_BYTES
    max_lag: int = limits.MAX_LAG
    flags: int = 0
    padding: int = 1
    witness_policy_hash: bytes = _ZERO32
    name_ct: bytes

    def encode(self) -> bytes:
        return b"".join(
            (
                u8(LogKind.SEALED),
                u16(SUITE),
                vec2(self.owner.encode()),
                u8(len(self.server_keys)),
                *map(vec2, self.server_keys),
                self.random,
                u32(self.max_commands),
                u32(self.max_commit_bytes),
                u64(self.max_lag),
                u32(self.flags),
                u8(self.padding),
                self.witness_policy_hash,
                vec2(self.name_ct),
            )
        )

    @classmethod
    def decode(cls, data: bytes) -> "SealedGenesis":
        reader = Reader(data, "genesis record")
        reader.constant(u8(LogKind.SEALED), "mode")
        reader.constant(u16(SUITE), "suite")
        owner = Card.decode(reader.vec2(limits.MAX_CARD_BYTES, "owner card"))
        count = reader.u8()
        if count > limits.MAX_SERVER_KEYS:
            raise ProtocolError(
                f"genesis record: {count} server keys, at most {limits.MAX_SERVER_KEYS}"
            )
        genesis = cls(
            owner=owner,
            server_keys=tuple(reader.vec2(512, "server key") for _ in range(count)),
            random=reader.take(32),
            max_commands=reader.u32(),
            max_commit_bytes=reader.u32(),
            max_lag=_counter(reader.u64(), "max_lag"),
            flags=reader.u32(),
            padding=reader.u8(),
            witness_policy_hash=reader.take(32),
            name_ct=reader.vec2(2 * limits.MAX_NAME_BYTES + 128, "name_ct"),
        )
        reader.end()
        for name, value in (
            ("max_commands", genesis.max_commands),
            ("max_commit_bytes", genesis.max_commit_bytes),
            ("max_lag", genesis.max_lag),
        ):
            if not value:
                raise ProtocolError(f"genesis record: {name} is 0")
        if genesis.flags > 1 or genesis.padding != 1:
            raise ProtocolError("genesis record: unknown flags or padding policy")
        return genesis


class OpaqueGenesis(Struct, frozen=True, kw_only=True):
    """What an opaque log is, made by the server: no keys, no epoch."""

    tenant: bytes
    database: bytes
    name: bytes
    group: bytes
    incarnation: int
    random: bytes

    def encode(self) -> bytes:
        return b"".join(
            (
                u8(LogKind.OPAQUE),
                u16(SUITE),
                vec2(self.tenant),
                vec2(self.database),
                vec2(self.name),
                vec2(self.group),
                u32(self.incarnation),
                self.random,
            )
        )


def log_id_of(genesis: bytes) -> LogId:
    """The id of the log that these genesis record bytes make."""
    return LogId(sha256(b"indelible/v1/log-id\x00" + genesis).digest())


class Meta(Struct, frozen=True, kw_only=True):
    """The log's modes, sealed; only members can read them."""

    meta_ct: bytes

    def encode(self) -> bytes:
        return vec2(self.meta_ct)

    @classmethod
    def decode(cls, data: bytes) -> "Meta":
        reader = Reader(data, "meta record")
        meta = cls(meta_ct=reader.vec2(1_024, "meta_ct"))
        reader.end()
        return meta


class Role(IntEnum):
    READER = 1
    WRITER = 2
    ADMIN = 3


class Wrap(Struct, frozen=True, kw_only=True):
    """A log's secrets in a sealed box, for the member whose signing key is named."""

    member: PublicKey
    box: bytes


class Epoch(Struct, frozen=True, kw_only=True):
    """New value secrets: their public commitment, wraps for the members, the way back.

    `prev_ct` seals the previous epoch's secret under this one; empty in epoch 1 and where
    readers get no history.
    """

    generation: int
    epoch: int
    key_commitment: bytes
    wraps: tuple[Wrap, ...] = ()
    prev_ct: bytes = b""

    def encode(self) -> bytes:
        return b"".join(
            (
                u32(self.generation),
                u32(self.epoch),
                self.key_commitment,
                u16(len(self.wraps)),
                *(wrap.member + vec2(wrap.box) for wrap in self.wraps),
                vec2(self.prev_ct),
            )
        )

    @classmethod
    def decode(cls, data: bytes) -> "Epoch":
        reader = Reader(data, "epoch record")
        generation, epoch, commitment = reader.u32(), reader.u32(), reader.take(32)
        count = reader.u16()
        if count > limits.MAX_WRAPS:
            raise ProtocolError(f"epoch record: {count} wraps, at most {limits.MAX_WRAPS}")
        wraps = tuple(
            Wrap(
                member=PublicKey(reader.take(32)),
                box=reader.vec2(limits.MAX_WRAP_BYTES, "wrap"),
            )
            for _ in range(count)
        )
        record = cls(
            generation=generation,
            epoch=epoch,
            key_commitment=commitment,
            wraps=wraps,
            prev_ct=reader.vec2(128, "prev_ct"),
        )
        reader.end()
        return record


class Grant(Struct, frozen=True, kw_only=True):
    """Makes the card's identity a member; `wrap` is the sealed box with the log's secrets."""

    card: Card
    role: Role
    wrap: bytes

    def encode(self) -> bytes:
        return vec2(self.card.encode()) + u8(self.role) + vec2(self.wrap)

    @classmethod
    def decode(cls, data: bytes) -> "Grant":
        reader = Reader(data, "grant record")
        grant = cls(
            card=Card.decode(reader.vec2(limits.MAX_CARD_BYTES, "card")),
            role=_member(Role, reader.u8(), "grant record: role"),
            wrap=reader.vec2(limits.MAX_WRAP_BYTES, "wrap"),
        )
        reader.end()
        return grant


class Forget(Struct, frozen=True, kw_only=True):
    """The owner's word that versions below `before` may be forgotten; it becomes the first."""

    before: int

    def encode(self) -> bytes:
        return u64(self.before)

    @classmethod
    def decode(cls, data: bytes) -> "Forget":
        """
        Raises:
            ProtocolError: version 0, or beyond 2^53−1.
        """
        reader = Reader(data, "forget record")
        before = reader.u64()
        reader.end()
        if not 1 <= before <= limits.MAX_VERSION:
            raise ProtocolError(f"forget record: before is {before}, 1 to 2^53-1 expected")
        return cls(before=before)


class ControlType(IntEnum):
    GENESIS = 1
    META = 2
    EPOCH = 3
    GRANT = 4
    REVOKE = 5
    SERVER_KEY = 6
    POLICY = 7
    OWNER_TRANSFER = 8
    FORGET = 9


ControlBody = SealedGenesis | Meta | Epoch | Grant | Forget
_DECODERS: dict[ControlType, Callable[[bytes], ControlBody]] = {
    ControlType.GENESIS: SealedGenesis.decode,
    ControlType.META: Meta.decode,
    ControlType.EPOCH: Epoch.decode,
    ControlType.GRANT: Grant.decode,
    ControlType.FORGET: Forget.decode,
}
_TYPES: dict[type, ControlType] = {
    SealedGenesis: ControlType.GENESIS,
    Meta: ControlType.META,
    Epoch: ControlType.EPOCH,
    Grant: ControlType.GRANT,
    Forget: ControlType.FORGET,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlRecord:
    """A link of the control chain: `u8 type ‖ prev[32] ‖ record`, `prev` the hash before."""

    prev: bytes
    body: ControlBody
    data: bytes = field(repr=False)

    @property
    def hash(self) -> bytes:
        return sha256(b"indelible/v1/control\x00" + self.data).digest()

    @classmethod
    def decode(cls, data: bytes) -> "ControlRecord":
        """
        Raises:
            ProtocolError: a type that this suite has no layout for yet, or bad bytes.
        """
        reader = Reader(data, "control record")
        kind = _member(ControlType, reader.u8(), "control record: type")
        prev = reader.take(32)
        decode = _DECODERS.get(kind)
        if decode is None:
            raise ProtocolError(f"control record: {kind.name} is not supported yet")
        return cls(prev=prev, body=decode(data[reader.position :]), data=data)


def control_chain(
    bodies: Sequence[ControlBody], *, head: bytes = _ZERO32
) -> tuple[ControlRecord, ...]:
    """Records for `bodies`, in order, linked behind the record whose hash is `head`."""
    records = []
    for body in bodies:
        data = u8(_TYPES[type(body)]) + head + body.encode()
        record = ControlRecord(prev=head, body=body, data=data)
        head = record.hash
        records.append(record)
    return tuple(records)


def control_commands(records: Sequence[ControlRecord]) -> list[Command]:
    return [Command(Op.CONTROL, b"", b"", record.data) for record in records]


def read_control(
    commands: Sequence[Command], *, head: bytes | None = _ZERO32
) -> list[ControlRecord]:
    """The records of a control commit, checked to be linked behind `head` (None: behind any).

    Raises:
        ProtocolError: another command among them, too many, or a broken link.
    """
    if not 1 <= len(commands) <= limits.MAX_CONTROL_RECORDS:
        raise ProtocolError(
            f"{len(commands)} control records, 1 to {limits.MAX_CONTROL_RECORDS} expected"
        )
    records = []
    for index, command in enumerate(commands):
        if command.op is not Op.CONTROL or command.token or command.key_ct or command.alts:
            raise ProtocolError(f"command {index}: a bare control record expected")
        record = ControlRecord.decode(command.value)
        if head is not None and record.prev != head:
            raise ProtocolError(f"control record {index} is not linked to the one before it")
        head = record.hash
        records.append(record)
    return records


def _counter(value: int, name: str) -> int:
    if value > limits.MAX_VERSION + 1:
        raise ProtocolError(f"{name} is {value}, at most 2^53 expected")
    return value


def _member(kind: type[_E], value: int, what: str) -> _E:
    try:
        return kind(value)
    except ValueError:
        raise ProtocolError(f"{what}: unknown number {value}") from None

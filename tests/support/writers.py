"""Writers of sealed and opaque commits at the level of bytes, without the client.

What they seal is filler of the right shape: the store judges tokens and value ids and never
looks inside. Signatures are real.
"""

from collections.abc import Sequence
from hashlib import sha256

import nacl.bindings
from indelible_protocol.commands import SETS, Command, LogKind, Op, encode, encode_body
from indelible_protocol.ids import ChainId, LogId, PublicKey
from indelible_protocol.merkle import root_of
from indelible_protocol.records import (
    Card,
    CommitKind,
    ControlBody,
    Epoch,
    Grant,
    Header,
    Meta,
    Role,
    SealedGenesis,
    control_chain,
    control_commands,
    log_id_of,
)
from indelible_protocol.signing import CARD_CONTEXT, SignedCommit, sign, sign_commit

FILLER = bytes(48)


def token_of(key: int) -> bytes:
    return sha256(b"key %d" % key).digest()


def value_id_of(value: int, *, epoch: int = 1) -> bytes:
    return sha256(b"value %d in epoch %d" % (value, epoch)).digest()


def sealed_command(op: Op, key: int, value: int, alts: Sequence[bytes] = ()) -> Command:
    token = token_of(key)
    if op in SETS:
        return Command(op, token, token + FILLER, value_id_of(value) + FILLER, tuple(alts))
    if op is Op.REMOVE:
        return Command(op, token, b"", value_id_of(value), tuple(alts))
    if op is Op.EXPECT_ENTRY:
        return Command.on_version(op, token, value)
    return Command(op, token)


def opaque_command(op: Op, key: int, value: int) -> Command:
    token = b"key %d" % key
    if op in (Op.EXPECT_ENTRY, Op.EXPECT_VERSION):
        return Command.on_version(op, b"" if op is Op.EXPECT_VERSION else token, value)
    if op in (Op.DELETE, Op.EXPECT_ABSENT):
        return Command(op, token)
    return Command.on_plain_value(op, token, b"value %d" % value)


def command(kind: LogKind, op: Op, key: int, value: int) -> Command:
    if kind is LogKind.OPAQUE:
        return opaque_command(op, key, value)
    return sealed_command(op, key, value)


class SealedWriter:
    """An owner: makes its log's genesis and signs commits to it."""

    def __init__(self, seed: bytes, *, max_lag: int) -> None:
        public, self.secret_key = nacl.bindings.crypto_sign_seed_keypair(seed)
        card = Card(pk_sign=PublicKey(public), pk_box=seed, time_ms=0, name=b"")
        card = Card(
            pk_sign=card.pk_sign,
            pk_box=card.pk_box,
            time_ms=0,
            name=b"",
            signature=sign(CARD_CONTEXT + card.core(), self.secret_key),
        )
        self.public_key = card.pk_sign
        self.token = sha256(b"name" + seed).digest()
        genesis = SealedGenesis(owner=card, random=seed, name_ct=b"name", max_lag=max_lag)
        self.log_id: LogId = log_id_of(genesis.encode())
        self.genesis = self._sign_control(
            [
                genesis,
                Meta(meta_ct=FILLER),
                Epoch(generation=1, epoch=1, key_commitment=seed),
                Grant(card=card, role=Role.ADMIN, wrap=FILLER),
            ],
            head=bytes(32),
            ctl_seq=0,
            epoch=1,
            chain=ChainId(bytes(16)),
            seq=0,
            seen_size=0,
        )
        self.ctl_head = self._head

    def _sign_control(
        self,
        bodies: Sequence[ControlBody],
        *,
        head: bytes,
        ctl_seq: int,
        epoch: int,
        chain: ChainId,
        seq: int,
        seen_size: int,
    ) -> SignedCommit:
        records = control_chain(bodies, head=head)
        self._head = records[-1].hash
        commands = control_commands(records)
        body = encode_body(commands)
        header = Header(
            kind=CommitKind.CONTROL,
            log_id=self.log_id,
            writer=self.public_key,
            chain=chain,
            seq=seq,
            generation=1,
            epoch=epoch,
            ctl_seq=ctl_seq,
            seen_size=seen_size,
            command_count=len(commands),
            body_root=root_of([encode(command) for command in commands]),
            body_bytes=len(body),
        )
        return sign_commit(header, body, self.secret_key)

    def next_epoch(
        self, *, head: bytes, ctl_seq: int, epoch: int, chain: ChainId, seq: int, seen_size: int
    ) -> SignedCommit:
        """A control commit that begins epoch `epoch` + 1."""
        body = Epoch(generation=1, epoch=epoch + 1, key_commitment=bytes(32))
        return self._sign_control(
            [body],
            head=head,
            ctl_seq=ctl_seq,
            epoch=epoch,
            chain=chain,
            seq=seq,
            seen_size=seen_size,
        )

    def commit(
        self,
        commands: Sequence[Command],
        *,
        chain: ChainId,
        seq: int,
        seen_size: int,
        epoch: int = 1,
        ctl_seq: int = 4,
        expect_version: int | None = None,
    ) -> SignedCommit:
        pieces = [encode(command) for command in commands]
        body = b"".join(pieces)
        header = Header(
            kind=CommitKind.DATA,
            log_id=self.log_id,
            writer=self.public_key,
            chain=chain,
            seq=seq,
            generation=1,
            epoch=epoch,
            ctl_seq=ctl_seq,
            expect_version=expect_version,
            seen_size=seen_size,
            command_count=len(commands),
            body_root=root_of(pieces),
            body_bytes=len(body),
        )
        return sign_commit(header, body, self.secret_key)

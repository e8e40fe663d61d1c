"""Founding a log, and checking the one that the service answers a name with.

A log's id is the hash of its genesis, so nothing that hangs from the genesis can be another
log's; that it is the log of this name, and ours, is told by the sealed name and the owner's
card within it. Owns those checks and the unwrapping of the log's secrets. Pure: random bytes
and the time come in as arguments, and nothing is asked of the service.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn

from indelible_protocol import messages
from indelible_protocol.commands import encode_body
from indelible_protocol.encoding import u8
from indelible_protocol.errors import ProtocolError
from indelible_protocol.ids import LogId
from indelible_protocol.records import (
    CommitKind,
    ControlRecord,
    Epoch,
    Grant,
    Header,
    Meta,
    Role,
    SealedGenesis,
    control_chain,
    control_commands,
    log_id_of,
    read_control,
)
from indelible_protocol.signing import (
    SignedCommit,
    body_root,
    read_body,
    sign_commit,
    verify_card,
    verify_commit,
)

from indelible.errors import UnsealError, VerificationError
from indelible.keyring import Identity, unwrap, wrap
from indelible.modes import Mode
from indelible.sealing import SECRET_BYTES, LogKeys, LogSecrets

_GENESIS_RECORDS = (SealedGenesis, Meta, Epoch, Grant)
_RECORD_AT = 33  # behind the record's type and the hash before it


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """What opening a log gives: its modes and keys, and the control records behind them."""

    log_id: LogId
    incarnation: int
    key_mode: Mode
    value_mode: Mode
    keys: LogKeys = field(repr=False)
    ctl_seq: int
    ctl_head: bytes
    max_commands: int
    max_commit_bytes: int


def found_log(
    identity: Identity,
    name: bytes,
    key_mode: Mode,
    value_mode: Mode,
    *,
    now_ms: int,
    random_bytes: Callable[[int], bytes],
) -> messages.Commit:
    """The genesis commit of a new log of this name, with secrets of its own."""
    card = identity.card(time_ms=now_ms)
    genesis = SealedGenesis(owner=card, random=random_bytes(32), name_ct=identity.seal_name(name))
    log_id = log_id_of(genesis.encode())
    secrets = LogSecrets(
        generation=1,
        epoch=1,
        generation_secret=random_bytes(SECRET_BYTES),
        epoch_secret=random_bytes(SECRET_BYTES),
    )
    meta_ct = LogKeys(log_id, [secrets]).seal_meta(u8(key_mode) + u8(value_mode))
    records = control_chain(
        (
            genesis,
            Meta(meta_ct=meta_ct),
            Epoch(generation=1, epoch=1, key_commitment=secrets.commitment(log_id)),
            Grant(card=card, role=Role.ADMIN, wrap=wrap(log_id, secrets, card)),
        )
    )
    commands = control_commands(records)
    body = encode_body(commands)
    header = Header(
        kind=CommitKind.CONTROL,
        log_id=log_id,
        writer=identity.pk_sign,
        generation=1,
        epoch=1,
        client_time_ms=now_ms,
        command_count=len(commands),
        body_root=body_root(commands),
        body_bytes=len(body),
    )
    signed = sign_commit(header, body, identity.secret_sign_key)
    return messages.Commit(header=signed.header, signature=signed.signature, body=signed.body)


def open_log(identity: Identity, name: bytes, opened: messages.Opened) -> Membership:
    """The membership that `opened` proves, if it is this identity's log of this name.

    Raises:
        VerificationError: another log, another owner, or a record that was altered.
        UnsealError: a name or secrets that do not open with this identity.
    """
    try:
        return _Opening(identity, opened).membership(name)
    except ProtocolError as error:
        raise _refused(f"its records do not hold together: {error}", opened) from error


def _refused(reason: str, opened: messages.Opened) -> VerificationError:
    return VerificationError(
        f"the service answered with a log that cannot be trusted: {reason}",
        evidence={"description": opened.description, "genesis": opened.genesis},
    )


class _Opening:
    """The checks, from the genesis to the last control record."""

    def __init__(self, identity: Identity, opened: messages.Opened) -> None:
        self._identity = identity
        self._opened = opened
        self._log_id = LogId(opened.description.log_id)
        self._epochs: list[tuple[Epoch, bytes | None]] = []
        self._ctl_seq = 0
        self._head = bytes(32)

    def membership(self, name: bytes) -> Membership:
        meta = self._check_genesis(name)
        for commit in self._opened.control:
            self._admit(self._records_of(commit))
        if self._ctl_seq != self._opened.description.ctl_seq:
            self._refuse("its control commits are not all there")
        keys = LogKeys(self._log_id, self._secrets())
        key_mode, value_mode = self._modes(keys, meta)
        description = self._opened.description
        return Membership(
            log_id=self._log_id,
            incarnation=description.incarnation,
            key_mode=key_mode,
            value_mode=value_mode,
            keys=keys,
            ctl_seq=self._ctl_seq,
            ctl_head=self._head,
            max_commands=description.max_commands,
            max_commit_bytes=description.max_commit_bytes,
        )

    def _check_genesis(self, name: bytes) -> Meta:
        records = self._records_of(self._opened.genesis)
        genesis, meta, epoch, grant = self._genesis_records(records)
        if log_id_of(records[0].data[_RECORD_AT:]) != self._log_id:
            self._refuse("its id is not the hash of its genesis")
        verify_card(genesis.owner)
        mine = (self._identity.pk_sign, self._identity.pk_box)
        if (genesis.owner.pk_sign, genesis.owner.pk_box) != mine:
            self._refuse("it belongs to another identity")
        if (grant.card.encode(), grant.role) != (genesis.owner.encode(), Role.ADMIN):
            self._refuse("its first member is not its owner")
        if (epoch.generation, epoch.epoch) != (1, 1):
            self._refuse("its first epoch is not the first")
        try:
            # Sealed under the name's token, so it opens for no other name.
            self._identity.open_name(self._identity.name_token(name), genesis.name_ct)
        except UnsealError as error:
            raise _refused("it has another name", self._opened) from error
        self._admit(records)
        return meta

    def _genesis_records(
        self, records: list[ControlRecord]
    ) -> tuple[SealedGenesis, Meta, Epoch, Grant]:
        bodies = [record.body for record in records]
        if len(bodies) == 4:
            genesis, meta, epoch, grant = bodies
            if (
                isinstance(genesis, SealedGenesis)
                and isinstance(meta, Meta)
                and isinstance(epoch, Epoch)
                and isinstance(grant, Grant)
            ):
                return genesis, meta, epoch, grant
        return self._refuse("its genesis has other records than Genesis, Meta, Epoch, Grant")

    def _records_of(self, commit: messages.Commit) -> list[ControlRecord]:
        """The records of a control commit that the owner signed at this place of the chain."""
        header = Header.decode(commit.header)
        if header.kind is not CommitKind.CONTROL or header.log_id != self._log_id:
            self._refuse("a control commit of another log, or none at all")
        if header.writer != self._identity.pk_sign:
            self._refuse("its records are signed by another identity")
        if header.ctl_seq != self._ctl_seq:
            self._refuse("its control commits are not all there, or in another order")
        signed = SignedCommit(header=commit.header, signature=commit.signature, body=commit.body)
        verify_commit(signed, header)
        commands = read_body(header, commit.body).commands
        return read_control(commands, head=self._head)

    def _admit(self, records: list[ControlRecord]) -> None:
        for record in records:
            match record.body:
                case Epoch() as epoch:
                    self._epochs.append((epoch, self._wrap_in(epoch)))
                case Grant() as grant if grant.card.pk_sign == self._identity.pk_sign:
                    epoch, _ = self._epochs[-1]
                    self._epochs[-1] = (epoch, grant.wrap)
        self._ctl_seq += len(records)
        self._head = records[-1].hash

    def _wrap_in(self, epoch: Epoch) -> bytes | None:
        for wrapped in epoch.wraps:
            if wrapped.member == self._identity.pk_sign:
                return wrapped.box
        return None

    def _secrets(self) -> list[LogSecrets]:
        """Of every epoch that was wrapped for this identity, oldest first."""
        secrets = [
            unwrap(
                box,
                self._identity,
                log_id=self._log_id,
                generation=epoch.generation,
                epoch=epoch.epoch,
                commitment=epoch.key_commitment,
            )
            for epoch, box in self._epochs
            if box is not None
        ]
        last = self._epochs[-1][0]
        if not secrets or (secrets[-1].generation, secrets[-1].epoch) != (
            last.generation,
            last.epoch,
        ):
            raise UnsealError("the log's current secrets are not wrapped for this profile's key")
        return secrets

    def _modes(self, keys: LogKeys, meta: Meta) -> tuple[Mode, Mode]:
        numbers = keys.open_meta(meta.meta_ct)
        try:
            key_mode, value_mode = map(Mode, numbers)
        except ValueError:
            self._refuse("its modes are none that this version knows")
        return key_mode, value_mode

    def _refuse(self, reason: str) -> NoReturn:
        raise _refused(reason, self._opened)

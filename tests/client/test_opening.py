"""Founding and opening logs without a service: what is believed, and what is refused."""

import dataclasses
import os
from hashlib import sha256
from typing import Any

import pytest
from indelible.errors import IndelibleError, UnsealError, VerificationError
from indelible.keyring import Identity, unwrap, wrap
from indelible.modes import Mode
from indelible.names import name_bytes
from indelible.opening import found_log, open_log
from indelible.sealing import LogSecrets
from indelible_protocol import messages, records
from indelible_protocol.commands import encode_body
from indelible_protocol.ids import LogId
from indelible_protocol.signing import body_root, read_body, sign_commit
from msgspec.structs import replace

ME = Identity.from_master_key(bytes(32))
OTHER = Identity.from_master_key(bytes([1]) * 32)
NAME = name_bytes("config")


def genesis_of(identity: Identity = ME, name: bytes = NAME) -> messages.Commit:
    return found_log(
        identity, name, Mode.STRING, Mode.JSON, now_ms=1_700_000_000_000, random_bytes=os.urandom
    )


def opened_with(
    genesis: messages.Commit, *control: messages.Commit, **changes: Any
) -> messages.Opened:
    header = records.Header.decode(genesis.header)
    members: dict[str, Any] = {
        "log_id": bytes(header.log_id),
        "kind": "sealed",
        "name": ME.name_token(NAME),
        "group": "",
        "incarnation": 1,
        "version": 0,
        "first_version": 0,
        "created_ms": 0,
        "updated_ms": 0,
        "entries": 0,
        "stored_bytes": 0,
        "max_commands": 4_096,
        "max_commit_bytes": 1 << 20,
        "generation": 1,
        "epoch": 1,
        "ctl_seq": 4,
        "name_ct": b"",
    }
    description = messages.Description(**members | changes)
    return messages.Opened(description=description, genesis=genesis, control=list(control))


def records_in(genesis: messages.Commit) -> list[records.ControlRecord]:
    header = records.Header.decode(genesis.header)
    return records.read_control(read_body(header, genesis.body).commands)


def resigned(
    genesis: messages.Commit,
    bodies: list[Any],
    *,
    signer: Identity = ME,
    head: bytes = bytes(32),
    **members: Any,
) -> messages.Commit:
    """The commit with other records, laid out and signed as a member with a key could."""
    chain = records.control_chain(bodies, head=head)
    commands = records.control_commands(chain)
    body = encode_body(commands)
    header = replace(
        records.Header.decode(genesis.header),
        writer=signer.pk_sign,
        command_count=len(commands),
        body_root=body_root(commands),
        body_bytes=len(body),
        **members,
    )
    signed = sign_commit(header, body, signer.secret_sign_key)
    return messages.Commit(header=signed.header, signature=signed.signature, body=signed.body)


def refuse(opened: messages.Opened, kind: type[IndelibleError] = VerificationError) -> str:
    with pytest.raises(kind) as caught:
        open_log(ME, NAME, opened)
    return str(caught.value)


def test_a_founded_log_opens_with_its_modes_and_secrets() -> None:
    genesis = genesis_of()
    membership = open_log(ME, NAME, opened_with(genesis))
    assert (membership.key_mode, membership.value_mode) == (Mode.STRING, Mode.JSON)
    assert membership.ctl_seq == 4
    assert (membership.keys.generation, membership.keys.epoch) == (1, 1)
    again = open_log(ME, NAME, opened_with(genesis))
    assert again.keys.seal_key(b"key") == membership.keys.seal_key(b"key")
    other = open_log(ME, NAME, opened_with(genesis_of()))
    assert other.keys.seal_key(b"key") != membership.keys.seal_key(b"key")


def test_a_genesis_is_laid_out_as_the_protocol_says() -> None:
    genesis = genesis_of()
    header = records.Header.decode(genesis.header)
    assert (header.kind, header.generation, header.epoch) == (records.CommitKind.CONTROL, 1, 1)
    assert (header.ctl_seq, header.seen_size, header.seq) == (0, 0, 0)
    kinds = [type(record.body) for record in records_in(genesis)]
    assert kinds == [records.SealedGenesis, records.Meta, records.Epoch, records.Grant]
    assert header.log_id == records.log_id_of(records_in(genesis)[0].data[33:])


def test_no_plaintext_is_in_a_genesis() -> None:
    name = name_bytes("canary-name")
    genesis = genesis_of(name=name)
    assert name not in genesis.header + genesis.body


def test_another_identity_does_not_open_it() -> None:
    with pytest.raises(VerificationError, match="signed by another identity"):
        open_log(OTHER, NAME, opened_with(genesis_of()))


def test_a_log_of_another_name_is_refused() -> None:
    assert "another name" in refuse(opened_with(genesis_of(name=name_bytes("other"))))


def test_another_log_id_is_refused() -> None:
    opened = opened_with(genesis_of(), log_id=sha256(b"x").digest())
    assert "another log" in refuse(opened)


def test_a_genesis_with_another_id_in_its_header_is_refused() -> None:
    genesis = genesis_of()
    bodies = [record.body for record in records_in(genesis)]
    log_id = LogId(sha256(b"x").digest())
    moved = resigned(genesis, bodies, log_id=log_id)
    assert "not the hash of its genesis" in refuse(opened_with(moved, log_id=log_id))


def test_every_altered_bit_of_a_genesis_is_refused() -> None:
    genesis = genesis_of()
    for part in ("header", "signature", "body"):
        data: bytes = getattr(genesis, part)
        for at in range(len(data)):
            altered = data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :]
            changed = messages.Commit(
                header=altered if part == "header" else genesis.header,
                signature=altered if part == "signature" else genesis.signature,
                body=altered if part == "body" else genesis.body,
            )
            description = opened_with(genesis).description
            opened = messages.Opened(description=description, genesis=changed, control=[])
            refuse(opened)


def test_a_genesis_that_somebody_else_signed_is_refused() -> None:
    genesis = genesis_of()
    bodies = [record.body for record in records_in(genesis)]
    forged = resigned(genesis, bodies, signer=OTHER)
    assert "signed by another identity" in refuse(opened_with(forged))


def test_a_log_that_the_service_founded_for_us_is_refused() -> None:
    """Everything in it is public but our signing key and the key of our names."""
    genesis = genesis_of(OTHER)
    first = records_in(genesis)[0].body
    assert isinstance(first, records.SealedGenesis)
    ours = replace(first, owner=ME.card(time_ms=0))
    bodies = [ours, *[record.body for record in records_in(genesis)][1:]]
    log_id = records.log_id_of(ours.encode())
    forged = resigned(genesis, bodies, signer=OTHER, log_id=log_id)
    assert "signed by another identity" in refuse(opened_with(forged))


def test_a_genesis_with_other_records_is_refused() -> None:
    genesis = genesis_of()
    bodies = [record.body for record in records_in(genesis)]
    for other in (bodies[:3], [*bodies, bodies[1]], [bodies[0], bodies[2], bodies[1], bodies[3]]):
        assert "other records" in refuse(opened_with(resigned(genesis, other)))


def test_an_owners_card_with_another_box_key_is_refused() -> None:
    genesis = genesis_of()
    bodies = [record.body for record in records_in(genesis)]
    assert isinstance(bodies[0], records.SealedGenesis)
    card = replace(bodies[0].owner, pk_box=OTHER.pk_box)
    first = replace(bodies[0], owner=card)
    log_id = records.log_id_of(first.encode())
    commit = resigned(genesis, [first, *bodies[1:]], log_id=log_id)
    assert "identity card" in refuse(opened_with(commit))


SECRETS = LogSecrets(
    generation=1, epoch=1, generation_secret=bytes(32), epoch_secret=bytes([7]) * 32
)


def regranted(box: bytes, **epoch_changes: Any) -> messages.Opened:
    """A genesis whose grant carries `box`; signed by its owner, as a careless one could."""
    genesis = genesis_of()
    first, meta, epoch, grant = [record.body for record in records_in(genesis)]
    assert isinstance(epoch, records.Epoch)
    assert isinstance(grant, records.Grant)
    bodies = [first, meta, replace(epoch, **epoch_changes), replace(grant, wrap=box)]
    return opened_with(resigned(genesis, bodies))


def test_a_wrap_for_another_member_is_refused() -> None:
    log_id = LogId(bytes(32))
    box = wrap(log_id, SECRETS, OTHER.card(time_ms=0))
    assert "not wrapped for this profile" in refuse(regranted(box), UnsealError)
    # Sealed to us, but naming another member within.
    payload_of_other = wrap(log_id, SECRETS, replace(OTHER.card(time_ms=0), pk_box=ME.pk_box))
    assert "another log, epoch or member" in refuse(regranted(payload_of_other))


def test_a_wrap_of_another_log_or_epoch_is_refused() -> None:
    card = ME.card(time_ms=0)
    log_id = LogId(sha256(b"log").digest())
    commitment = SECRETS.commitment(log_id)
    box = wrap(log_id, SECRETS, card)
    good: dict[str, Any] = {
        "log_id": log_id,
        "generation": 1,
        "epoch": 1,
        "commitment": commitment,
    }
    assert unwrap(box, ME, **good) == SECRETS
    for change in ({"log_id": LogId(bytes(32))}, {"generation": 2}, {"epoch": 2}):
        with pytest.raises(VerificationError, match="another log, epoch or member"):
            unwrap(box, ME, **good | change)


def test_a_wrap_that_is_not_what_the_record_commits_to_is_refused() -> None:
    """The server's own key, sealed to us in the right context: the commitment tells."""
    genesis = genesis_of()
    log_id = LogId(opened_with(genesis).description.log_id)
    first, meta, epoch, grant = [record.body for record in records_in(genesis)]
    assert isinstance(grant, records.Grant)
    forged = replace(grant, wrap=wrap(log_id, SECRETS, ME.card(time_ms=0)))
    opened = opened_with(resigned(genesis, [first, meta, epoch, forged]))
    assert "commits to" in refuse(opened)


@pytest.mark.parametrize("length", [0, 47, 48, 225, 226, 300])
def test_boxes_of_any_length_that_do_not_open_are_one_error(length: int) -> None:
    assert "not wrapped for this profile" in refuse(regranted(bytes(length)), UnsealError)


def rotated(genesis: messages.Commit, owner: Identity = ME) -> messages.Commit:
    """A control commit of the log's owner that starts its second epoch."""
    log_id = records.Header.decode(genesis.header).log_id
    chain = records_in(genesis)
    last = chain[3].body
    assert isinstance(last, records.Grant)
    old_epoch = chain[2].body
    assert isinstance(old_epoch, records.Epoch)
    old = unwrap(
        last.wrap,
        owner,
        log_id=log_id,
        generation=1,
        epoch=1,
        commitment=old_epoch.key_commitment,
    )
    new = dataclasses.replace(old, epoch=2, epoch_secret=os.urandom(32))
    record = records.Epoch(
        generation=1,
        epoch=2,
        key_commitment=new.commitment(log_id),
        wraps=(records.Wrap(member=owner.pk_sign, box=wrap(log_id, new, owner.card(time_ms=0))),),
    )
    return resigned(genesis, [record], signer=owner, head=chain[3].hash, ctl_seq=4, seen_size=1)


def test_a_later_epoch_is_taken_and_the_earlier_one_kept() -> None:
    genesis = genesis_of()
    before = open_log(ME, NAME, opened_with(genesis))
    control = rotated(genesis)
    after = open_log(ME, NAME, opened_with(genesis, control, ctl_seq=5, epoch=2))
    assert (after.keys.epoch, after.ctl_seq) == (2, 5)
    token = after.keys.token(b"key")
    assert token == before.keys.token(b"key")
    assert after.keys.open_value(token, before.keys.seal_value(token, b"old")) == b"old"


def test_control_commits_left_out_or_out_of_order_are_refused() -> None:
    genesis = genesis_of()
    control = rotated(genesis)
    assert "not all there" in refuse(opened_with(genesis, ctl_seq=5, epoch=2))
    assert "another order" in refuse(opened_with(genesis, control, control, ctl_seq=6, epoch=2))
    unlinked = resigned(genesis, [records.Meta(meta_ct=b"")], ctl_seq=4)
    assert "not linked" in refuse(opened_with(genesis, unlinked, ctl_seq=5))


def test_no_secret_of_an_identity_is_printed() -> None:
    shown = repr(ME) + repr(open_log(ME, NAME, opened_with(genesis_of())))
    for secret in (ME.secret_sign_key, ME.secret_box_key):
        assert secret.hex() not in shown
        assert repr(secret)[2:20] not in shown
    assert "secret" not in repr(ME)

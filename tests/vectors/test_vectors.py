"""Every layout that is stored or signed, against the bytes that were frozen in these files.

Both ways: what is given encodes to the bytes, and the bytes decode to what is given.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from indelible.keyring import Identity, unwrap
from indelible.modes import Mode
from indelible.names import name_bytes, name_of
from indelible.sealing import Kind, LogKeys, LogSecrets, Sealer, kdf, pad, padme
from indelible_protocol import diff, records
from indelible_protocol.commands import (
    Command,
    LogKind,
    Op,
    decode_at,
    decode_body,
    encode,
    encode_body,
    entry_hash,
)
from indelible_protocol.ids import ChainId, LogId, PublicKey
from indelible_protocol.signing import (
    SignedCommit,
    body_root,
    read_body,
    sign_commit,
    verify_card,
    verify_commit,
)

from tests.vectors import generate


def _vectors(name: str) -> Any:
    return json.loads((Path(__file__).parent / f"{name}.json").read_text())


def _octets(text: str) -> bytes:
    return bytes.fromhex(text)


def _secrets(members: dict[str, Any]) -> LogSecrets:
    return LogSecrets(
        generation=members["generation"],
        epoch=members["epoch"],
        generation_secret=_octets(members["generation_secret"]),
        epoch_secret=_octets(members["epoch_secret"]),
    )


def test_kdf() -> None:
    for vector in _vectors("kdf"):
        key = kdf(_octets(vector["prk"]), vector["label"], _octets(vector["context"]))
        assert key.hex() == vector["key"]


def test_identity_and_names() -> None:
    vectors = _vectors("names")
    identity = Identity.from_master_key(_octets(vectors["master_key"]))
    assert identity.pk_sign.hex() == vectors["pk_sign"]
    assert identity.pk_box.hex() == vectors["pk_box"]
    for vector in vectors["names"]:
        given = vector["name"]
        name = name_bytes(given)
        assert name.hex() == vector["bytes"]
        assert name_of(name) == (tuple(given) if isinstance(given, list) else given)
        assert identity.name_token(name).hex() == vector["token"]
        assert identity.seal_name(name).hex() == vector["name_ct"]
        opened = identity.open_name(_octets(vector["token"]), _octets(vector["name_ct"]))
        assert opened == name


@pytest.mark.parametrize("mode", ["string", "json", "msgpack", "binary"])
def test_modes(mode: str) -> None:
    for vector in _vectors("modes")[mode]:
        value = eval(vector["python"])
        assert Mode.named(mode).encode(value).hex() == vector["bytes"], vector
        decoded = Mode.named(mode).decode(_octets(vector["bytes"]))
        assert (type(decoded), decoded) == (type(value), value)
        if isinstance(value, float):
            assert repr(decoded) == repr(value)


def test_padme() -> None:
    for size, padded in _vectors("padme")["sizes"].items():
        assert padme(int(size)) == padded


def test_sealing() -> None:
    vectors = _vectors("sealing")
    secrets = _secrets(vectors["secrets"])
    log_id = LogId(_octets(vectors["log_id"]))
    assert secrets.commitment(log_id).hex() == vectors["key_commitment"]
    keys = LogKeys(log_id, [secrets])
    for vector in vectors["keys"]:
        assert keys.token(_octets(vector["key"])).hex() == vector["token"]
        assert keys.seal_key(_octets(vector["key"])).hex() == vector["sealed"]
        assert keys.open_key(_octets(vector["sealed"])).hex() == vector["key"]
    for vector in vectors["values"]:
        token, value = _octets(vector["token"]), _octets(vector["value"])
        assert keys.value_id(token, value).hex() == vector["value_id"]
        assert keys.seal_value(token, value).hex() == vector["sealed"]
        assert keys.open_value(token, _octets(vector["sealed"])) == value
    memo = vectors["memo"]
    place = (ChainId(_octets(memo["chain"])), memo["seq"])
    assert keys.seal_memo(*place, _octets(memo["memo"])).hex() == memo["sealed"]
    assert keys.open_memo(*place, _octets(memo["sealed"])).hex() == memo["memo"]
    meta = vectors["meta"]
    assert keys.seal_meta(_octets(meta["meta"])).hex() == meta["sealed"]
    assert keys.open_meta(_octets(meta["sealed"])).hex() == meta["meta"]


def test_sealing_with_given_keys() -> None:
    bare = _vectors("sealing")["bare"]
    sealer = Sealer(Kind.NAME, _octets(bare["siv_key"]), _octets(bare["encryption_key"]))
    assert pad(_octets(bare["plaintext"])).hex() == bare["padded"]
    assert sealer.seal(_octets(bare["token"]), _octets(bare["plaintext"])).hex() == bare["sealed"]
    opened = sealer.open(_octets(bare["token"]), _octets(bare["sealed"]))
    assert opened.hex() == bare["plaintext"]


def test_commands() -> None:
    vectors = _vectors("commands")
    commands = []
    for vector in vectors["commands"]:
        command = Command(
            Op[vector["op"]],
            _octets(vector["token"]),
            _octets(vector["key_ct"]),
            _octets(vector["value"]),
            tuple(map(_octets, vector["alts"])),
        )
        commands.append(command)
        assert encode(command).hex() == vector["encoded"]
        assert decode_at(_octets(vector["encoded"]), 0)[0] == command
        assert entry_hash(command).hex() == vector["entry_hash"]
    body = _octets(vectors["body"])
    assert encode_body(commands) == body
    assert decode_body(body, len(commands)).commands == commands
    for count, root in vectors["body_roots"].items():
        assert body_root(commands[: int(count)]).hex() == root


def test_headers_and_signatures() -> None:
    vectors = _vectors("header")
    identity = Identity.from_master_key(_octets(vectors["master_key"]))
    body = _octets(vectors["body"])
    for vector in vectors["headers"]:
        header = generate.header_of(vector["header"])
        encoded = _octets(vector["encoded"])
        assert header.encode() == encoded
        assert len(encoded) == 250 + len(header.memo_ct)
        assert records.Header.decode(encoded) == header
        assert records.commit_hash(encoded).hex() == vector["commit_hash"]
        signed = sign_commit(header, body, identity.secret_sign_key)
        assert signed.signature.hex() == vector["signature"]
        received = SignedCommit(header=encoded, signature=_octets(vector["signature"]), body=body)
        verify_commit(received, header)
        read_body(header, body)


def test_records() -> None:
    vectors = _vectors("records")
    given = vectors["card"]
    card = records.Card(
        pk_sign=PublicKey(_octets(given["pk_sign"])),
        pk_box=_octets(given["pk_box"]),
        time_ms=given["time_ms"],
        name=_octets(given["name"]),
        signature=_octets(given["signature"]),
    )
    verify_card(card)
    meta = records.Meta(meta_ct=_octets(vectors["meta"]["meta_ct"]))
    given = vectors["epoch"]
    epoch = records.Epoch(
        generation=given["generation"],
        epoch=given["epoch"],
        key_commitment=_octets(given["key_commitment"]),
        wraps=tuple(
            records.Wrap(member=PublicKey(_octets(member)), box=_octets(box))
            for member, box in given["wraps"]
        ),
        prev_ct=_octets(given["prev_ct"]),
    )
    given = vectors["grant"]
    grant = records.Grant(card=card, role=records.Role(given["role"]), wrap=_octets(given["wrap"]))
    kept: list[tuple[str, Any]] = [
        ("card", card),
        ("meta", meta),
        ("epoch", epoch),
        ("grant", grant),
    ]
    for name, record in kept:
        encoded = _octets(vectors[name]["encoded"])
        assert record.encode() == encoded
        assert type(record).decode(encoded) == record
    chain = vectors["chain"]
    made = records.control_chain((meta, epoch, grant), head=_octets(chain["head"]))
    assert [record.data.hex() for record in made] == chain["records"]
    assert [record.hash.hex() for record in made] == chain["hashes"]
    commands = [Command(Op.CONTROL, b"", b"", _octets(record)) for record in chain["records"]]
    assert records.read_control(commands, head=_octets(chain["head"])) == list(made)


def test_wrap() -> None:
    vector = _vectors("records")["wrap"]
    secrets = _secrets(vector["secrets"])
    log_id = LogId(_octets(vector["log_id"]))
    box = _octets(vector["box"])
    assert len(box) == 226
    opened = unwrap(
        box,
        Identity.from_master_key(_octets(vector["master_key"])),
        log_id=log_id,
        generation=secrets.generation,
        epoch=secrets.epoch,
        commitment=secrets.commitment(log_id),
    )
    assert opened == secrets


def test_genesis() -> None:
    vectors = _vectors("genesis")
    given = vectors["sealed"]
    sealed = records.SealedGenesis(
        owner=records.Card.decode(_octets(given["owner"])),
        server_keys=tuple(map(_octets, given["server_keys"])),
        random=_octets(given["random"]),
        max_commands=given["max_commands"],
        max_commit_bytes=given["max_commit_bytes"],
        max_lag=given["max_lag"],
        flags=given["flags"],
        padding=given["padding"],
        witness_policy_hash=_octets(given["witness_policy_hash"]),
        name_ct=_octets(given["name_ct"]),
    )
    encoded = _octets(given["encoded"])
    assert sealed.encode() == encoded
    assert records.SealedGenesis.decode(encoded) == sealed
    assert records.log_id_of(encoded).hex() == given["log_id"]
    given = vectors["opaque"]
    opaque = records.OpaqueGenesis(
        tenant=_octets(given["tenant"]),
        database=_octets(given["database"]),
        name=_octets(given["name"]),
        group=_octets(given["group"]),
        incarnation=given["incarnation"],
        random=_octets(given["random"]),
    )
    assert opaque.encode().hex() == given["encoded"]
    assert records.log_id_of(_octets(given["encoded"])).hex() == given["log_id"]
    assert {kind.name: kind.value for kind in LogKind} == vectors["kinds"]


def test_effects() -> None:
    vectors = _vectors("effects")
    effects = []
    for vector in vectors["effects"]:
        removed = None
        if vector["removed"] is not None:
            version, index, offset, entry = vector["removed"]
            removed = diff.Place(version, index, offset, _octets(entry))
        effects.append(
            diff.Effect(vector["command_index"], vector["offset"], vector["adds"], removed)
        )
    encoded = _octets(vectors["encoded"])
    assert diff.encode_effects(effects, vectors["offsets"]) == encoded
    assert diff.decode_effects(encoded) == effects

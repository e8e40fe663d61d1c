"""Writes the vectors beside this file: `python -m tests.vectors.generate`.

They were frozen when they were first written. Run it again only to add vectors; a change of
one that is there means that stored logs no longer open.
"""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

from indelible.keyring import Identity
from indelible.modes import Mode
from indelible.names import name_bytes
from indelible.sealing import Kind, LogKeys, LogSecrets, Sealer, kdf, pad, padme
from indelible_protocol import diff, records
from indelible_protocol.commands import Command, LogKind, Op, encode, encode_body, entry_hash
from indelible_protocol.ids import ChainId, LogId, PublicKey
from indelible_protocol.signing import body_root, sign_commit

FOLDER = Path(__file__).parent
MASTER_KEY = bytes(range(32))
LOG_ID = LogId(sha256(b"log").digest())
SECRETS = {
    "generation": 1,
    "epoch": 2,
    "generation_secret": sha256(b"generation").hexdigest(),
    "epoch_secret": sha256(b"epoch").hexdigest(),
}
PLAINTEXTS = ["", "61", "00", "00" * 28, "61" * 29, "c3a9f09f9c81", "ff" * 200, "7b7d" * 600]
NAMES: list[Any] = ["config", "a", "é🜁", "a b/c.d", ["config"], ["a", "b"], ["ab"], ["é", "🜁"]]
MODES: dict[str, list[str]] = {
    # The values as Python spells them: JSON could not tell 1 from 1.0, or bytes from text.
    "string": ["''", "'theme'", "'é🜁'", "'a\\x00b'"],
    "json": [
        "None",
        "True",
        "0",
        "-1",
        "2**70",
        "1.0",
        "1.5",
        "-0.0",
        "1e16",
        "1e-7",
        "1.7976931348623157e+308",
        "''",
        "'é\"\\\\/\\n\\x00'",
        "[]",
        "[1, 'a', None]",
        "{}",
        "{'b': 1, 'a': {'d': [], 'c': False}}",
        "{'é': 1, 'z': 2, 'Z': 3, '🜁': 4, '\\uffff': 5}",
    ],
    "msgpack": [
        "None",
        "True",
        "0",
        "127",
        "128",
        "255",
        "256",
        "65536",
        "2**32",
        "2**64 - 1",
        "-1",
        "-32",
        "-33",
        "-129",
        "-2**63",
        "1.0",
        "0.1",
        "'é'",
        "'a' * 32",
        "b'\\x00\\xff'",
        "b'x' * 256",
        "[]",
        "[1, [2, b'3']]",
        "list(range(16))",
        "{}",
        "{'b': 1, 'a': 2, 10: 3, 2: 4, b'a': 5, None: 6}",
        "{'aa': {'z': 1, 'y': 2}, 'b': 0}",
        "{str(i): i for i in range(17)}",
    ],
    "binary": ["b''", "b'\\x00\\xff'"],
}


def main() -> None:
    for name, vectors in {
        "kdf": kdf_vectors(),
        "names": names_vectors(),
        "modes": modes_vectors(),
        "padme": {"sizes": {str(n): padme(n) for n in (0, 32, 33, 100, 999, 1004, 2**20)}},
        "sealing": sealing_vectors(),
        "commands": command_vectors(),
        "header": header_vectors(),
        "records": record_vectors(),
        "genesis": genesis_vectors(),
        "effects": effect_vectors(),
    }.items():
        text = json.dumps(vectors, indent=1, ensure_ascii=False) + "\n"
        (FOLDER / f"{name}.json").write_text(text)


def kdf_vectors() -> Any:
    return [
        {
            "prk": MASTER_KEY.hex(),
            "label": label,
            "context": context,
            "key": kdf(MASTER_KEY, label, bytes.fromhex(context)).hex(),
        }
        for label, context in [("id/seed", ""), ("logname", "636f6e666967"), ("x", "00" * 40)]
    ]


def names_vectors() -> Any:
    identity = Identity.from_master_key(MASTER_KEY)
    return {
        "master_key": MASTER_KEY.hex(),
        "pk_sign": identity.pk_sign.hex(),
        "pk_box": identity.pk_box.hex(),
        "names": [
            {
                "name": name,
                "bytes": name_bytes(name).hex(),
                "token": identity.name_token(name_bytes(name)).hex(),
                "name_ct": identity.seal_name(name_bytes(name)).hex(),
            }
            for name in NAMES
        ],
    }


def modes_vectors() -> Any:
    return {
        mode: [
            {"python": text, "bytes": Mode.named(mode).encode(_value(text)).hex()} for text in texts
        ]
        for mode, texts in MODES.items()
    }


def _value(text: str) -> Any:
    return eval(text)


def sealing_vectors() -> Any:
    keys = _keys()
    token = sha256(b"token").digest()
    sealer = Sealer(Kind.NAME, bytes(32), bytes([1]) * 32)
    return {
        "log_id": LOG_ID.hex(),
        "secrets": SECRETS,
        "key_commitment": _secrets().commitment(LOG_ID).hex(),
        "keys": [
            {
                "key": key,
                "token": keys.token(bytes.fromhex(key)).hex(),
                "sealed": keys.seal_key(bytes.fromhex(key)).hex(),
            }
            for key in PLAINTEXTS
        ],
        "values": [
            {
                "token": token.hex(),
                "value": value,
                "value_id": keys.value_id(token, bytes.fromhex(value)).hex(),
                "sealed": keys.seal_value(token, bytes.fromhex(value)).hex(),
            }
            for value in PLAINTEXTS
        ],
        "memo": {
            "chain": "0f" * 16,
            "seq": 7,
            "memo": b"ci".hex(),
            "sealed": keys.seal_memo(ChainId(b"\x0f" * 16), 7, b"ci").hex(),
        },
        "meta": {"meta": "0102", "sealed": keys.seal_meta(b"\x01\x02").hex()},
        "bare": {
            "siv_key": "00" * 32,
            "encryption_key": "01" * 32,
            "token": token.hex(),
            "plaintext": b"bare".hex(),
            "padded": pad(b"bare").hex(),
            "sealed": sealer.seal(token, b"bare").hex(),
        },
    }


def _secrets() -> LogSecrets:
    return LogSecrets(
        generation=1,
        epoch=2,
        generation_secret=sha256(b"generation").digest(),
        epoch_secret=sha256(b"epoch").digest(),
    )


def _keys() -> LogKeys:
    return LogKeys(LOG_ID, [_secrets()])


def commands() -> list[Command]:
    keys = _keys()
    sealed_key = keys.seal_key(b"theme")
    token = sealed_key[:32]
    sealed_value = keys.seal_value(token, b'"dark"')
    ids = tuple(sha256(bytes([i])).digest() for i in range(8))
    return [
        Command(Op.UPSERT, token, sealed_key, sealed_value),
        Command(Op.INSERT, token, sealed_key, sealed_value, ids[:1]),
        Command(Op.UPDATE, token, sealed_key, sealed_value, ids),
        Command(Op.REMOVE, token, b"", sealed_value[:32]),
        Command(Op.DELETE, token),
        Command(Op.EXPECT_ABSENT, token),
        Command.on_version(Op.EXPECT_ENTRY, token, 7),
        Command.on_plain_value(Op.UPSERT, b"hits", b"1"),
        Command.on_plain_value(Op.REMOVE, b"hits", b"1"),
        Command.on_version(Op.EXPECT_VERSION, b"", 2**53 - 1),
        Command(Op.CONTROL, b"", b"", b"\x02" + bytes(32) + b"\x00\x00"),
    ]


def command_vectors() -> Any:
    return {
        "commands": [
            {
                "op": command.op.name,
                "token": command.token.hex(),
                "key_ct": command.key_ct.hex(),
                "value": command.value.hex(),
                "alts": [alt.hex() for alt in command.alts],
                "encoded": encode(command).hex(),
                "entry_hash": entry_hash(command).hex(),
            }
            for command in commands()
        ],
        "body": encode_body(commands()).hex(),
        "body_roots": {str(n): body_root(commands()[:n]).hex() for n in range(1, 12)},
    }


def header_vectors() -> Any:
    identity = Identity.from_master_key(MASTER_KEY)
    body = encode_body(commands()[:2])
    members: dict[str, Any] = {
        "log_id": LOG_ID.hex(),
        "writer": identity.pk_sign.hex(),
        "chain": "0f" * 16,
        "seq": 7,
        "generation": 1,
        "epoch": 2,
        "ctl_seq": 5,
        "expect_version": 41,
        "seen_size": 42,
        "client_time_ms": 1_700_000_000_123,
        "command_count": 2,
        "body_root": body_root(commands()[:2]).hex(),
        "body_bytes": len(body),
        "memo_ct": "",
    }
    variants: list[dict[str, Any]] = [
        {},
        {"expect_version": None},
        {"memo_ct": _keys().seal_memo(ChainId(b"\x0f" * 16), 7, b"ci").hex()},
        {"seq": 2**53, "expect_version": 2**53 - 1, "seen_size": 2**53},
        {"kind": "CONTROL"},
        {
            "seen_level": 2,
            "seen_root": sha256(b"root").hexdigest(),
            "seen_state": sha256(b"state").hexdigest(),
        },
    ]
    vectors = []
    for variant in variants:
        given = {"kind": "DATA", **members, **variant}
        header = header_of(given)
        signed = sign_commit(header, body, identity.secret_sign_key)
        vectors.append(
            {
                "header": given,
                "encoded": signed.header.hex(),
                "commit_hash": records.commit_hash(signed.header).hex(),
                "signature": signed.signature.hex(),
            }
        )
    return {"master_key": MASTER_KEY.hex(), "body": body.hex(), "headers": vectors}


def header_of(members: dict[str, Any]) -> records.Header:
    values: dict[str, Any] = {
        name: bytes.fromhex(value) if isinstance(value, str) else value
        for name, value in members.items()
        if name != "kind"
    }
    return records.Header(kind=records.CommitKind[members["kind"]], **values)


def record_vectors() -> Any:
    identity = Identity.from_master_key(MASTER_KEY)
    card = identity.card(time_ms=1_700_000_000_000, name="Zoë".encode())
    epoch = records.Epoch(
        generation=1,
        epoch=2,
        key_commitment=_secrets().commitment(LOG_ID),
        wraps=(
            records.Wrap(member=PublicKey(identity.pk_sign), box=b"\x0a" * 226),
            records.Wrap(member=PublicKey(bytes(32)), box=b"\x0b" * 226),
        ),
        prev_ct=b"\x0c" * 48,
    )
    grant = records.Grant(card=card, role=records.Role.READER, wrap=b"\x0d" * 226)
    meta = records.Meta(meta_ct=_keys().seal_meta(b"\x01\x02"))
    head = sha256(b"head").digest()
    chain = records.control_chain((meta, epoch, grant), head=head)
    return {
        "card": {
            "pk_sign": card.pk_sign.hex(),
            "pk_box": card.pk_box.hex(),
            "time_ms": card.time_ms,
            "name": card.name.hex(),
            "signature": card.signature.hex(),
            "encoded": card.encode().hex(),
        },
        "meta": {"meta_ct": meta.meta_ct.hex(), "encoded": meta.encode().hex()},
        "epoch": {
            "generation": epoch.generation,
            "epoch": epoch.epoch,
            "key_commitment": epoch.key_commitment.hex(),
            "wraps": [[wrap.member.hex(), wrap.box.hex()] for wrap in epoch.wraps],
            "prev_ct": epoch.prev_ct.hex(),
            "encoded": epoch.encode().hex(),
        },
        "grant": {
            "role": grant.role.value,
            "wrap": grant.wrap.hex(),
            "encoded": grant.encode().hex(),
        },
        "chain": {
            "head": head.hex(),
            "records": [record.data.hex() for record in chain],
            "hashes": [record.hash.hex() for record in chain],
        },
        "wrap": {
            "master_key": MASTER_KEY.hex(),
            "log_id": LOG_ID.hex(),
            "secrets": SECRETS,
            # A sealed box has a random key in it, so this one can only be opened.
            "box": _box(),
        },
    }


def _box() -> str:
    from indelible.keyring import wrap

    there = FOLDER / "records.json"
    if there.exists():
        return str(json.loads(there.read_text())["wrap"]["box"])
    identity = Identity.from_master_key(MASTER_KEY)
    return wrap(LOG_ID, _secrets(), identity.card(time_ms=0)).hex()


def genesis_vectors() -> Any:
    identity = Identity.from_master_key(MASTER_KEY)
    sealed = records.SealedGenesis(
        owner=identity.card(time_ms=1_700_000_000_000),
        server_keys=(b"key one", b"key two"),
        random=sha256(b"random").digest(),
        max_commands=100,
        max_commit_bytes=65_536,
        max_lag=1_000,
        flags=1,
        name_ct=identity.seal_name(b"config"),
    )
    opaque = records.OpaqueGenesis(
        tenant=b"t-1",
        database=b"default",
        name=b"visits",
        group=b"site",
        incarnation=2,
        random=sha256(b"random").digest(),
    )
    return {
        "sealed": {
            "owner": sealed.owner.encode().hex(),
            "server_keys": [key.hex() for key in sealed.server_keys],
            "random": sealed.random.hex(),
            "max_commands": sealed.max_commands,
            "max_commit_bytes": sealed.max_commit_bytes,
            "max_lag": sealed.max_lag,
            "flags": sealed.flags,
            "padding": sealed.padding,
            "witness_policy_hash": sealed.witness_policy_hash.hex(),
            "name_ct": sealed.name_ct.hex(),
            "encoded": sealed.encode().hex(),
            "log_id": records.log_id_of(sealed.encode()).hex(),
        },
        "opaque": {
            "tenant": opaque.tenant.hex(),
            "database": opaque.database.hex(),
            "name": opaque.name.hex(),
            "group": opaque.group.hex(),
            "incarnation": opaque.incarnation,
            "random": opaque.random.hex(),
            "encoded": opaque.encode().hex(),
            "log_id": records.log_id_of(opaque.encode()).hex(),
        },
        "kinds": {kind.name: kind.value for kind in LogKind},
    }


def effect_vectors() -> Any:
    place = diff.Place(3, 1, 64, sha256(b"entry").digest())
    effects = [
        diff.Effect(0, 0, True, None),
        diff.Effect(1, 312, True, place),
        diff.Effect(3, 1_048_000, False, diff.Place(2**53 - 1, 4_095, 1_048_000, bytes(32))),
    ]
    offsets = [0, 312, 700, 1_048_000]
    return {
        "effects": [
            {
                "command_index": effect.command_index,
                "offset": effect.offset,
                "adds": effect.adds,
                "removed": None
                if effect.removed is None
                else [*effect.removed[:3], effect.removed.entry_hash.hex()],
            }
            for effect in effects
        ],
        "offsets": offsets,
        "encoded": diff.encode_effects(effects, offsets).hex(),
    }


if __name__ == "__main__":
    main()

"""What is fuzzed: bytes in, nothing out. What is not refused must hold what is promised of it.

A target fails by an exception that its callers do not expect, or by an assertion. The first
byte of the input chooses between variants. Knows nothing of how inputs are found.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import pairwise
from typing import Any

from indelible.answers import time_of
from indelible.codec import Codec
from indelible.errors import UnsealError, VerificationError
from indelible.modes import Mode
from indelible.names import name_of
from indelible.opening import open_log
from indelible_protocol import messages
from indelible_protocol.commands import (
    LogKind,
    check_data_commands,
    decode_body,
    encode_body,
)
from indelible_protocol.diff import (
    Change,
    Effect,
    Fold,
    Place,
    by_key,
    decode_effects,
    encode_effects,
    inverted,
)
from indelible_protocol.errors import ProtocolError
from indelible_protocol.merkle import root_of
from indelible_protocol.messages import Form, Message
from indelible_protocol.records import CommitKind, ControlRecord, Header
from indelible_protocol.signing import SignedCommit
from indelible_server.api.documents import MAX_DEEP_CHARS
from indelible_server.api.v1 import body as v1
from indelible_server.store.admission import admit_opaque, admit_sealed, found_sealed
from indelible_server.store.errors import Refusal

from tests.fuzz import subject

FORMS = tuple(Form)
SEALED, OPAQUE = subject.log_identity(LogKind.SEALED), subject.log_identity(LogKind.OPAQUE)
REQUESTS = (
    messages.Commit,
    messages.CreateSealed,
    messages.CreateOpaque,
    messages.PlainCommit,
    messages.BatchGet,
    messages.Wait,
)
ANSWERS = (
    messages.Opened,
    messages.Diff,
    messages.Entry,
    messages.Entries,
    messages.History,
    messages.Versions,
    messages.Listing,
    messages.Problem,
)


def commit_decoder(data: bytes) -> None:
    """What a commit goes through before the store is asked, layer by layer."""
    variant, rest = data[:1], data[1:]
    with suppress(ProtocolError, Refusal):
        match variant[0] % 6 if variant else 0:
            case 0:
                header = Header.decode(rest)
                assert header.encode() == rest
            case 1:
                commands, _ = decode_body(rest[1:], rest[0] if rest else 0)
                assert encode_body(commands) == rest[1:]
                for kind in LogKind:
                    with suppress(ProtocolError):
                        check_data_commands(commands, kind)
            case 2:
                commit = _signed(rest, kind=CommitKind.DATA)
                admitted = admit_sealed(SEALED, commit, bytes(32))
                assert admitted.commit == commit
            case 3:
                admit_sealed(SEALED, _signed(rest, kind=CommitKind.CONTROL), bytes(32))
            case 4:
                found_sealed(_signed(rest))
            case _:
                _round_trip(rest, REQUESTS)


def _signed(rest: bytes, **members: object) -> SignedCommit:
    """Body `rest` behind its first byte, which counts the commands, under a true header."""
    count, body = (rest[0], rest[1:]) if rest else (0, b"")
    pieces = [body[start:end] for start, end in pairwise(decode_body(body, count).offsets)]
    commit = subject.signed(body, count, root_of(pieces), **members)
    return SignedCommit(header=commit.header, signature=commit.signature, body=body)


def _round_trip(rest: bytes, kinds: tuple[type[Message], ...]) -> Message | None:
    """The message that `rest` spells, which reads the same once it is encoded again."""
    if len(rest) < 2:
        return None
    kind, form = kinds[rest[0] % len(kinds)], FORMS[rest[1] % len(FORMS)]
    message = messages.decode(rest[2:], kind, form)
    for other in FORMS:
        if kind is messages.Problem and other is not form:
            continue  # its details are anything that one form can say
        with suppress(ProtocolError):  # JSON has limits that msgpack has not, and the other way
            assert messages.decode(messages.encode(message, other), kind, other) == message
    return message


def v1_body(data: bytes) -> None:
    """A v1 body; large ones, which are read by another way, read the same."""
    with suppress(ProtocolError):
        v1.decode(data, v1.CreateRequest)
    with suppress(ProtocolError):
        v1.decode(data, v1.DiffRequest)
    with suppress(ProtocolError):
        _, rest = v1.decode_update(data)
        commands = v1.decode_commands(rest)
        assert v1.decode_commands(rest + " " * MAX_DEEP_CHARS) == commands
        with suppress(Refusal):
            admit_opaque(OPAQUE, commands, b"", None)


def client_opener(data: bytes) -> None:
    """What the client does with an answer, be it sealed by a member or made up by the service."""
    variant, rest = data[:1], data[1:]
    mode = Mode(1 + (variant[0] // 5) % 4) if variant else Mode.STRING
    codec = Codec(subject.KEYS, mode, mode)
    with suppress(ProtocolError, VerificationError, UnsealError):
        match variant[0] % 5 if variant else 0:
            case 0:
                _open_answer(codec, _round_trip(rest, ANSWERS))
            case 1:
                token = subject.KEYS.token(b"key")
                sealed = subject.KEYS.seal_value(token, rest)
                codec.value(token, _entry(token, b"", sealed))
            case 2:
                key = subject.KEYS.seal_key(rest)
                value = subject.KEYS.seal_value(key[:32], rest)
                codec.entry(_entry(key[:32], key, value))
            case 3:
                record = ControlRecord.decode(rest)
                open_log(
                    subject.IDENTITY,
                    subject.NAME,
                    subject.opened(subject.control_commit(record), ctl_seq=5),
                )
            case _:
                codec.entry(_entry(rest[:32], rest[:112], rest[112:]))
                with suppress(ValueError):
                    name_of(rest)


def _entry(token: bytes, sealed_key: bytes, value: bytes) -> messages.Entry:
    return messages.Entry(key=token, sealed_key=sealed_key, value=value, version=1)


def _open_answer(codec: Codec, answer: Message | None) -> None:
    match answer:
        case messages.Opened():
            open_log(subject.IDENTITY, subject.NAME, answer)
        case messages.Diff():
            for change in answer.changes:
                codec.change(change)
        case messages.Entry():
            codec.entry(answer)
        case messages.Entries():
            for entry in answer.entries:
                codec.entry(entry)
        case messages.History():
            for step in answer.changes:
                codec.key_change(bytes(32), step)
        case messages.Versions():
            for info in answer.versions:
                codec.version(info)
        case messages.Listing():
            for description in answer.logs:
                time_of(description.created_ms)
                subject.IDENTITY.open_name(description.name, description.name_ct)


def diff_merge(data: bytes) -> None:
    """Stored effects, and their fold: of any effects it ends, of true ones it is the diff."""
    variant, rest = data[:1], data[1:]
    if variant and variant[0] % 2:
        _fold_history(rest[:100])
        return
    fold = Fold()
    with suppress(ProtocolError):
        for version, piece in enumerate(rest.split(b"|"), 1):
            for effect in decode_effects(piece):
                fold.add(version, bytes([effect.command_index % 4]), effect)
    changes = fold.changes()
    assert sorted(by_key(changes)) == sorted(changes)
    assert inverted(inverted(by_key(changes))) == by_key(changes)


def _fold_history(rest: bytes) -> None:
    """Three bits of each byte name a key, one says whether it is set, one ends the version."""
    contents: dict[bytes, Place] = {}
    states = [dict(contents)]
    fold, halves = Fold(), (Fold(), Fold())
    touched: dict[bytes, bool] = {}
    for index, byte in enumerate(rest):
        token = bytes([byte & 7])
        touched.pop(token, None)
        touched[token] = bool(byte & 8)
        if byte & 16 or index == len(rest) - 1:
            for key, effect in _commit(contents, touched, len(states)):
                fold.add(len(states), key, effect)
                halves[2 * index >= len(rest)].add(len(states), key, effect)
            states.append(dict(contents))
            touched = {}
    assert _applied(states[0], fold.changes()) == _bare(states[-1])
    assert _applied(states[-1], inverted(by_key(fold.changes()))) == _bare(states[0])
    between = _applied(states[0], halves[0].changes())
    assert _applied_bare(between, halves[1].changes()) == _bare(states[-1])


def _commit(
    contents: dict[bytes, Place], touched: Mapping[bytes, bool], version: int
) -> list[tuple[bytes, Effect]]:
    effects = []
    for index, (token, sets) in enumerate(touched.items()):
        before = contents.pop(token, None)
        if sets:
            contents[token] = Place(version, index, 2 * index, bytes(32))
        if sets or before:
            effects.append((token, Effect(index, 2 * index, sets, before)))
    offsets = [2 * index for index in range(len(touched))]
    stored = encode_effects([effect for _, effect in effects], offsets)
    assert decode_effects(stored) == sorted(effect for _, effect in effects)
    return effects


_Contents = dict[bytes, tuple[int, int, int]]


def _bare(contents: Mapping[bytes, Place]) -> _Contents:
    return {token: place[:3] for token, place in contents.items()}


def _applied(contents: Mapping[bytes, Place], changes: list[Change]) -> _Contents:
    return _applied_bare(_bare(contents), changes)


def _applied_bare(contents: _Contents, changes: list[Change]) -> _Contents:
    after = dict(contents)
    for change in changes:
        place = (change.version, change.command_index, change.offset)
        if change.op == "add":
            assert change.token not in after
            after[change.token] = place
        else:
            assert after.pop(change.token) == place
    return after


TARGETS: dict[str, Callable[[bytes], Any]] = {
    "commit_decoder": commit_decoder,
    "v1_body": v1_body,
    "client_opener": client_opener,
    "diff_merge": diff_merge,
}

"""Laws of every layout: what was encoded decodes to itself, and nothing else decodes."""

import re
from collections.abc import Callable
from hashlib import sha256
from itertools import pairwise
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from indelible_protocol import diff, limits, messages, records
from indelible_protocol.commands import (
    Command,
    LogKind,
    Op,
    check_data_commands,
    check_size,
    decode_at,
    decode_body,
    encode,
    encode_body,
)
from indelible_protocol.encoding import Reader, vec2, vec4
from indelible_protocol.errors import ErrorCode, ProtocolError
from indelible_protocol.ids import (
    ChainId,
    LogId,
    PublicKey,
    from_base64url,
    parse_log_id,
    parse_version,
    to_base64url,
)

hashes = st.binary(min_size=32, max_size=32)
counters = st.integers(0, 2**53)
u32s = st.integers(0, 2**32 - 1)
u64s = st.integers(0, 2**64 - 1)

commands = st.builds(
    Command,
    st.sampled_from(Op),
    st.binary(max_size=80),
    st.binary(max_size=200),
    st.binary(max_size=300),
    st.lists(hashes, max_size=limits.MAX_ALTS).map(tuple),
)
# Neighbours among these are often alike, which are read in another way.
alike_commands = st.builds(
    Command,
    st.sampled_from(Op),
    hashes,
    st.sampled_from([b"", bytes(80), bytes(112)]),
    st.binary(max_size=40),
    st.sampled_from([(), (), (), (bytes(32),)]),
)
bodies = st.lists(commands, min_size=1, max_size=3) | st.lists(alike_commands, min_size=1)
headers = st.builds(
    records.Header,
    kind=st.sampled_from(records.CommitKind),
    log_id=hashes.map(LogId),
    writer=hashes.map(PublicKey),
    chain=st.binary(min_size=16, max_size=16).map(ChainId),
    seq=counters,
    generation=u32s,
    epoch=u32s,
    ctl_seq=counters,
    expect_version=st.none() | counters,
    seen_size=counters,
    seen_root=hashes,
    seen_state=hashes,
    seen_level=st.integers(1, 2),
    client_time_ms=u64s,
    command_count=u32s,
    body_root=hashes,
    body_bytes=u64s,
    memo_ct=st.binary(max_size=300),
)
cards = st.builds(
    records.Card,
    pk_sign=hashes.map(PublicKey),
    pk_box=hashes,
    time_ms=u64s,
    name=st.binary(max_size=256),
    signature=st.binary(min_size=64, max_size=64),
)
wraps = st.builds(records.Wrap, member=hashes.map(PublicKey), box=st.binary(max_size=300))
metas = st.builds(records.Meta, meta_ct=st.binary(max_size=300))
epochs = st.builds(
    records.Epoch,
    generation=u32s,
    epoch=u32s,
    key_commitment=hashes,
    wraps=st.lists(wraps, max_size=3).map(tuple),
    prev_ct=st.binary(max_size=128),
)
grants = st.builds(
    records.Grant,
    card=cards,
    role=st.sampled_from(records.Role),
    wrap=st.binary(max_size=300),
)
geneses = st.builds(
    records.SealedGenesis,
    owner=cards,
    server_keys=st.lists(st.binary(max_size=100), max_size=3).map(tuple),
    random=hashes,
    max_commands=st.integers(1, 2**32 - 1),
    max_commit_bytes=st.integers(1, 2**32 - 1),
    max_lag=st.integers(1, 2**53),
    flags=st.integers(0, 1),
    witness_policy_hash=hashes,
    name_ct=st.binary(max_size=300),
)
RECORDS: list[tuple[str, Any, Callable[[bytes], Any]]] = [
    ("header", headers, records.Header.decode),
    ("card", cards, records.Card.decode),
    ("meta", metas, records.Meta.decode),
    ("epoch", epochs, records.Epoch.decode),
    ("grant", grants, records.Grant.decode),
    ("genesis", geneses, records.SealedGenesis.decode),
]
each_record = pytest.mark.parametrize(
    ("strategy", "decode"), [case[1:] for case in RECORDS], ids=[case[0] for case in RECORDS]
)


@each_record
@given(data=st.data())
def test_a_record_decodes_to_itself(
    strategy: st.SearchStrategy[Any], decode: Callable[[bytes], Any], data: st.DataObject
) -> None:
    record = data.draw(strategy)
    assert decode(record.encode()) == record


@each_record
@given(data=st.data())
def test_a_record_cut_anywhere_or_with_more_behind_it_is_refused(
    strategy: st.SearchStrategy[Any], decode: Callable[[bytes], Any], data: st.DataObject
) -> None:
    encoded = data.draw(strategy).encode()
    for length in range(len(encoded)):
        with pytest.raises(ProtocolError):
            decode(encoded[:length])
    with pytest.raises(ProtocolError):
        decode(encoded + b"\x00")


@each_record
@given(data=st.data())
def test_a_record_has_one_encoding(
    strategy: st.SearchStrategy[Any], decode: Callable[[bytes], Any], data: st.DataObject
) -> None:
    """Whatever decodes encodes to the same bytes: no two spellings of one record."""
    encoded = bytearray(data.draw(strategy).encode())
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] ^= data.draw(st.integers(1, 255))
    try:
        record = decode(bytes(encoded))
    except ProtocolError:
        return
    assert record.encode() == bytes(encoded)


@given(bodies)
def test_a_body_decodes_to_its_commands_and_their_places(given_commands: list[Command]) -> None:
    body = encode_body(given_commands)
    located = decode_body(body, len(given_commands))
    assert located.commands == given_commands
    pieces = [body[start:end] for start, end in pairwise(located.offsets)]
    assert pieces == list(map(encode, given_commands))


@given(
    st.lists(commands, min_size=1, max_size=3) | st.lists(alike_commands, min_size=2, max_size=3)
)
def test_a_body_cut_anywhere_or_with_more_behind_it_is_refused(
    given_commands: list[Command],
) -> None:
    body = encode_body(given_commands)
    for length in range(len(body)):
        with pytest.raises(ProtocolError):
            decode_body(body[:length], len(given_commands))
    with pytest.raises(ProtocolError):
        decode_body(body + b"\x00", len(given_commands))
    with pytest.raises(ProtocolError):
        decode_body(body, len(given_commands) - 1)


@given(bodies, st.data())
def test_a_body_is_judged_as_its_commands_are_one_by_one(
    given_commands: list[Command], data: st.DataObject
) -> None:
    changed = bytearray(encode_body(given_commands))
    at = data.draw(st.integers(0, len(changed) - 1))
    changed[at] ^= data.draw(st.integers(1, 255))
    body, count = bytes(changed), len(given_commands)
    singly: list[Command] = []
    start = 0
    try:
        for _ in range(count):
            command, start = decode_at(body, start)
            singly.append(command)
    except ProtocolError as error:
        with pytest.raises(ProtocolError, match=f"^{re.escape(str(error))}$"):
            decode_body(body, count)
        return
    if start == len(body):
        assert decode_body(body, count).commands == singly


def test_alts_are_whole_ids_and_at_most_eight() -> None:
    token = bytes(32)
    head = bytes([Op.REMOVE]) + vec2(token) + vec2(b"") + vec4(bytes(32))
    assert len(decode_body(head + vec2(bytes(32 * 8)), 1).commands[0].alts) == 8
    for alts in (bytes(31), bytes(33), bytes(32 * 9)):
        with pytest.raises(ProtocolError, match="alts"):
            decode_body(head + vec2(alts), 1)


@pytest.mark.parametrize("number", [0, 9, 15, 17, 255])
def test_an_unknown_op_is_refused(number: int) -> None:
    encoded = bytes([number]) + vec2(b"") + vec2(b"") + vec4(b"") + vec2(b"")
    with pytest.raises(ProtocolError, match="unknown op"):
        decode_body(encoded, 1)


TOKEN = sha256(b"token").digest()
SEALED = TOKEN + bytes(48)
GOOD_SEALED = [
    Command(Op.UPSERT, TOKEN, SEALED, SEALED),
    Command(Op.INSERT, TOKEN, SEALED, SEALED, (TOKEN,)),
    Command(Op.REMOVE, TOKEN, b"", TOKEN, (TOKEN,)),
    Command(Op.DELETE, TOKEN),
    Command(Op.EXPECT_ABSENT, TOKEN),
    Command.on_version(Op.EXPECT_ENTRY, TOKEN, 2**53 - 1),
]
BAD_SEALED = [
    Command(Op.UPSERT, TOKEN[:31], SEALED, SEALED),
    Command(Op.UPSERT, TOKEN, b"\x00" + SEALED[1:], SEALED),  # begins with another token
    Command(Op.UPSERT, TOKEN, SEALED[:79], SEALED),
    Command(Op.UPSERT, TOKEN, SEALED + bytes(limits.MAX_SEALED_KEY_BYTES), SEALED),
    Command(Op.UPSERT, TOKEN, SEALED, SEALED[:79]),
    Command(Op.REMOVE, TOKEN, b"", SEALED),
    Command(Op.REMOVE, TOKEN, SEALED, TOKEN),
    Command(Op.DELETE, TOKEN, b"", b"x"),
    Command(Op.DELETE, TOKEN, b"", b"", (TOKEN,)),
    Command(Op.EXPECT_ABSENT, TOKEN, SEALED),
    Command(Op.EXPECT_ENTRY, TOKEN, b"", bytes(7)),
    Command(Op.EXPECT_ENTRY, TOKEN, b"", (2**53).to_bytes(8, "big")),
    Command.on_version(Op.EXPECT_VERSION, b"", 1),
    Command(Op.CONTROL, b"", b"", b"\x02"),
]
GOOD_OPAQUE = [
    Command.on_plain_value(Op.UPSERT, b"k", b""),
    Command.on_plain_value(Op.REMOVE, b"k" * limits.MAX_KEY_BYTES, b"v"),
    Command.on_version(Op.EXPECT_VERSION, b"", 0),
]
BAD_OPAQUE = [
    Command(Op.UPSERT, b"", b"", b"v"),
    Command(Op.UPSERT, b"k" * (limits.MAX_KEY_BYTES + 1), b"", b"v"),
    Command(Op.UPSERT, b"k", b"sealed", b"v"),
    Command(Op.UPSERT, b"k", b"", b"v", (TOKEN,)),
    Command(Op.REMOVE, b"k", b"", b"v"),
    Command.on_version(Op.EXPECT_VERSION, b"k", 0),
    Command(Op.DELETE, b""),
]


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [(LogKind.SEALED, GOOD_SEALED, BAD_SEALED), (LogKind.OPAQUE, GOOD_OPAQUE, BAD_OPAQUE)],
    ids=["sealed", "opaque"],
)
def test_commands_that_a_log_of_this_kind_cannot_hold_are_refused(
    kind: LogKind, good: list[Command], bad: list[Command]
) -> None:
    check_data_commands(good, kind)
    for command in bad:
        with pytest.raises(ProtocolError, match=r"command 1 "):
            check_data_commands([good[0], command], kind)


def test_sizes_over_the_limits_are_too_large_and_name_the_limit() -> None:
    check_size(2, 10, max_commands=2, max_bytes=10)
    for count, size, limit in ((3, 10, "max_commands"), (2, 11, "max_commit_bytes")):
        with pytest.raises(ProtocolError, match=limit) as caught:
            check_size(count, size, max_commands=2, max_bytes=10)
        assert caught.value.code is ErrorCode.TOO_LARGE
    with pytest.raises(ProtocolError, match="at least one"):
        check_size(0, 0, max_commands=2, max_bytes=10)


@pytest.mark.parametrize(
    "change",
    [
        {"seen_level": 0, "seen_root": b"\x01" * 32},
        {"seen_level": 0, "seen_state": b"\x01" * 32},
        {"seen_level": 3},
        {"seq": 2**53 + 1},
        {"ctl_seq": 2**53 + 1},
        {"seen_size": 2**53 + 1},
        {"expect_version": 2**53 + 1},
    ],
)
def test_headers_that_nobody_may_sign_are_refused(change: dict[str, Any]) -> None:
    members: dict[str, Any] = {
        "kind": records.CommitKind.DATA,
        "log_id": LogId(bytes(32)),
        "command_count": 1,
        "body_root": bytes(32),
        "body_bytes": 1,
    }
    records.Header.decode(records.Header(**members).encode())
    with pytest.raises(ProtocolError):
        records.Header.decode(records.Header(**members | change).encode())


@given(hashes, hashes, st.integers(0, 4_096), st.integers(0, 2**40), st.binary(max_size=100))
def test_an_unsigned_header_is_a_header_with_nothing_signed(
    log_id: bytes, root: bytes, count: int, size: int, source: bytes
) -> None:
    for kind in (records.CommitKind.DATA, records.CommitKind.CONTROL):
        header = records.Header(
            kind=kind,
            log_id=LogId(log_id),
            command_count=count,
            body_root=root,
            body_bytes=size,
            memo_ct=source,
        )
        encoded = records.unsigned_header(kind, LogId(log_id), count, root, size, source)
        assert encoded == header.encode()
        assert records.Header.decode(encoded) == header
        for end in range(0, len(encoded), 7):
            with pytest.raises(ProtocolError):
                records.Header.decode(encoded[:end])


def test_a_msgpack_key_that_stands_twice_is_found_however_it_is_written() -> None:
    """Also where a number that is written too long makes up for what is lost, or the other way."""
    packed = msgpack.packb
    command = packed({"type": "Delete", "key": b"k"})
    wide = b"\x82" + packed("type") + packed("Delete") + packed("key") + b"\xc5\x00\x01k"
    twice = b"\x83" + command[1:] + packed("key") + packed(b"k")
    wide_twice = b"\x83" + wide[1:] + packed("type") + packed("Delete")
    for one, is_good in ((command, True), (wide, True), (twice, False), (wide_twice, False)):
        body = b"\x81" + packed("commands") + b"\x91" + one
        if is_good:
            assert (
                len(messages.decode(body, messages.PlainCommit, messages.Form.MSGPACK).commands)
                == 1
            )
        else:
            with pytest.raises(ProtocolError, match="twice"):
                messages.decode(body, messages.PlainCommit, messages.Form.MSGPACK)


def test_memo_and_vectors_are_capped_before_they_are_read() -> None:
    header = records.Header(
        kind=records.CommitKind.DATA,
        log_id=LogId(bytes(32)),
        command_count=1,
        body_root=bytes(32),
        body_bytes=1,
        memo_ct=bytes(limits.MAX_MEMO_BYTES + 1),
    ).encode()
    with pytest.raises(ProtocolError) as caught:
        records.Header.decode(header)
    assert caught.value.code is ErrorCode.TOO_LARGE
    with pytest.raises(ProtocolError) as caught:
        Reader(b"\xff\xff\xff\xff", "x").vec4(10, "field")
    assert caught.value.code is ErrorCode.TOO_LARGE


@given(st.lists(metas | epochs | grants, min_size=1, max_size=4), hashes)
def test_a_control_chain_reads_only_in_its_order(bodies: list[Any], head: bytes) -> None:
    chain = records.control_chain(bodies, head=head)
    linked = records.control_commands(chain)
    assert records.read_control(linked, head=head) == list(chain)
    with pytest.raises(ProtocolError, match="not linked"):
        records.read_control(linked, head=sha256(head).digest())
    if len(linked) > 1:
        with pytest.raises(ProtocolError, match="not linked"):
            records.read_control(linked[1:], head=head)
        with pytest.raises(ProtocolError, match="not linked"):
            records.read_control([linked[1], linked[0]], head=None)
    assert records.read_control(linked, head=None) == list(chain)


def test_a_control_commit_holds_one_to_sixteen_bare_records() -> None:
    chain = records.control_chain([records.Meta(meta_ct=b"")] * 17)
    linked = records.control_commands(chain)
    assert len(records.read_control(linked[:16])) == 16
    for refused in (
        [],
        linked,
        [linked[0]._replace(token=b"t")],
        [linked[0]._replace(key_ct=b"k")],
        [linked[0]._replace(alts=(bytes(32),))],
        [linked[0]._replace(op=Op.DELETE)],
    ):
        with pytest.raises(ProtocolError):
            records.read_control(refused)


@pytest.mark.parametrize("number", [0, 5, 6, 7, 8, 9, 255])
def test_control_records_of_other_types_are_refused(number: int) -> None:
    with pytest.raises(ProtocolError):
        records.ControlRecord.decode(bytes([number]) + bytes(32) + b"\x00\x00")


places = st.builds(diff.Place, u64s, u32s, u32s, hashes)
commands_done = st.tuples(u32s, st.booleans(), st.none() | places)


@given(st.lists(commands_done, max_size=5))
def test_effects_decode_to_themselves_and_not_when_cut(
    done: list[tuple[int, bool, diff.Place | None]],
) -> None:
    effects = [
        diff.Effect(index, offset, adds, removed)
        for index, (offset, adds, removed) in enumerate(done)
        if adds or removed
    ]
    encoded = diff.encode_effects(effects, [offset for offset, _, _ in done])
    assert diff.decode_effects(encoded) == effects
    assert bool(encoded) == bool(effects)
    for wrong in [encoded[:length] for length in range(1, len(encoded))] + [encoded + b"x"]:
        with pytest.raises(ProtocolError):
            diff.decode_effects(wrong)


@given(st.binary(max_size=100))
def test_base64url_has_one_spelling(data: bytes) -> None:
    text = to_base64url(data)
    assert from_base64url(text, "field") == data
    for other in (text + "=", text + "\n", " " + text, text + "+"):
        with pytest.raises(ProtocolError):
            from_base64url(other, "field")


def test_base64url_with_stray_bits_or_of_another_length_is_refused() -> None:
    for text in ("AB", "A", "AAB"):  # "AA" and "AAA" spell the same bytes
        with pytest.raises(ProtocolError):
            from_base64url(text, "field")
    with pytest.raises(ProtocolError):
        parse_log_id(to_base64url(bytes(31)))


@given(st.integers(0, 2**53 - 1))
def test_versions_have_one_spelling(version: int) -> None:
    assert parse_version(str(version), "from") == version


@pytest.mark.parametrize(
    "text",
    ["", "-1", "+1", "01", "1.0", "1e3", " 1", "1 ", "1\n", "٣", "9007199254740992", "9" * 40],
)
def test_other_spellings_of_versions_are_refused(text: str) -> None:
    with pytest.raises(ProtocolError):
        parse_version(text, "from")

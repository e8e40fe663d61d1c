"""Sealed commits with one thing wrong, and rightly signed but where the signature is that thing."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.conformance.http import JSON, Caller, url64
from tests.conformance.sealed import (
    ATTEST_ONLY,
    CONTROL,
    EPOCH,
    GENESIS,
    GRANT,
    META,
    OPS,
    READER,
    ZERO,
    Command,
    Commit,
    Genesis,
    Identity,
    Record,
    SealedLog,
    command,
    epoch_record,
    expecting_entry,
    grant,
    sealed_key,
    sealed_value,
    token,
    tree_hash,
    u8,
    u16,
    u64,
    upserting,
    value_id,
    vec2,
    vec4,
)
from tests.conformance.writer import Writer

GOOD = upserting("k", "1")
BAD = (400, "BAD_REQUEST")
TOO_LARGE = (413, "TOO_LARGE")
STALE = (409, "STALE_EPOCH")


@pytest.fixture(scope="module")
def writer(caller: Caller) -> Writer:
    """Of a log that every case leaves as it was."""
    made = Writer(caller, f"the sealed log of the refusals {time.time_ns()}")
    assert made.found().status == 201
    return made


def check_refused(writer: Writer, commit: Commit, refusal: tuple[int, str]) -> None:
    answer = writer.send(commit)
    assert answer.refusal == refusal, answer.content
    assert writer.read("").version == 0


HEADERS: dict[str, tuple[dict[str, Any], tuple[int, str]]] = {
    "another magic": ({"magic": b"indlcmt2"}, BAD),
    "another suite": ({"suite": 2}, BAD),
    "kind 0": ({"kind": 0}, BAD),
    "kind 4": ({"kind": 4}, BAD),
    "attest-only": ({"kind": ATTEST_ONLY}, BAD),
    "control with data commands": ({"kind": CONTROL}, BAD),
    "another log": ({"log_id": b"l" * 32}, BAD),
    "the next epoch": ({"epoch": 2}, STALE),
    "epoch 0": ({"epoch": 0}, STALE),
    "the next generation": ({"generation": 2}, STALE),
    "generation 0": ({"generation": 0}, STALE),
    "a control record to come": ({"ctl_seq": 5}, STALE),
    "a version to come": ({"expect_version": 1}, (412, "UNEXPECTED_VERSION")),
    "beyond the last version": ({"expect_version": 2**53 - 1}, (412, "UNEXPECTED_VERSION")),
    "no version at all": ({"expect_version": 2**64 - 2}, BAD),
    "more seen than there is": ({"seen_size": 2}, BAD),
    "seen beyond all numbers": ({"seen_size": 2**64 - 1}, BAD),
    "seq beyond all numbers": ({"seq": 2**64 - 1}, BAD),
    "ctl_seq beyond all numbers": ({"ctl_seq": 2**64 - 1}, BAD),
    "a level of 3": ({"seen_level": 3}, BAD),
    "a root at level 0": ({"seen_root": b"r" * 32}, BAD),
    "a state at level 0": ({"seen_state": b"s" * 32}, BAD),
    "no commands": ({"command_count": 0}, BAD),
    "one command more": ({"command_count": 2}, BAD),
    "too many commands": ({"command_count": 4_097}, TOO_LARGE),
    "2^32 - 1 commands": ({"command_count": 2**32 - 1}, TOO_LARGE),
    "another root": ({"body_root": b"r" * 32}, BAD),
    "the root of nothing": ({"body_root": tree_hash([])}, BAD),
    "the root of the leaf alone": ({"body_root": ZERO}, BAD),
    "a byte more": ({"body_bytes": len(GOOD.encoded()) + 1}, BAD),
    "a byte less": ({"body_bytes": len(GOOD.encoded()) - 1}, BAD),
    "2^64 - 1 bytes": ({"body_bytes": 2**64 - 1}, BAD),
    "a long memo": ({"memo_ct": b"m" * 4_097}, TOO_LARGE),
    "a short magic": ({"magic": b"indlcmt"}, BAD),
    "a short log id": ({"log_id": b"l" * 31}, BAD),
    "a byte too many": ({"chain": bytes(17)}, BAD),
}


@pytest.mark.parametrize("what", HEADERS)
def test_a_header_with_one_thing_wrong(writer: Writer, what: str) -> None:
    members, refusal = HEADERS[what]
    check_refused(writer, writer.signed(GOOD, **members), refusal)


class TestSignatures:
    @pytest.mark.parametrize("bit", [0, 255, 256, 511])
    def test_a_flipped_bit(self, writer: Writer, bit: int) -> None:
        commit = writer.signed(GOOD)
        signature = bytearray(commit.signature)
        signature[bit // 8] ^= 1 << bit % 8
        check_refused(writer, replace(commit, signature=bytes(signature)), (400, "BAD_SIGNATURE"))

    @pytest.mark.parametrize("length", [0, 1, 63, 65, 128])
    def test_of_another_length(self, writer: Writer, length: int) -> None:
        commit = writer.signed(GOOD)
        signature = (commit.signature * 2)[:length]
        check_refused(writer, replace(commit, signature=signature), (400, "BAD_SIGNATURE"))

    @pytest.mark.parametrize("context", [b"", b"indelible/v1 card\n", b"indelible/v1 commit"])
    def test_over_other_bytes(self, writer: Writer, context: bytes) -> None:
        commit = writer.signed(GOOD)
        signature = writer.log.owner.signature(context, commit.header)
        check_refused(writer, replace(commit, signature=signature), (400, "BAD_SIGNATURE"))

    @pytest.mark.parametrize("at", [8, 43, 75, 91, 99, 115, 190, 249])
    def test_of_a_header_that_was_altered(self, writer: Writer, at: int) -> None:
        commit = writer.signed(GOOD)
        header = bytearray(commit.header)
        header[at] ^= 1
        answer = writer.send(replace(commit, header=bytes(header)))
        assert answer.status == 400
        assert writer.read("").version == 0

    def test_of_another_body(self, writer: Writer) -> None:
        other = upserting("k", "2").encoded()
        check_refused(writer, replace(writer.signed(GOOD), body=other), BAD)

    def test_in_the_name_of_the_owner(self, writer: Writer) -> None:
        commit = writer.signed(GOOD, signer=Identity(), writer=writer.log.owner.pk_sign)
        check_refused(writer, commit, (400, "BAD_SIGNATURE"))

    def test_of_an_identity_that_is_no_member(self, writer: Writer) -> None:
        commit = writer.signed(GOOD, signer=Identity())
        check_refused(writer, commit, (403, "UNAUTHORIZED_OPERATION"))

    @pytest.mark.parametrize("key", [ZERO, b"\1" + bytes(31), b"\xff" * 32])
    def test_of_a_key_that_signs_for_all(self, writer: Writer, key: bytes) -> None:
        """Points of small order, and one that is none: libsodium's verification takes neither."""
        commit = writer.signed(GOOD, writer=key)
        forged = key[:32] + bytes(32)
        check_refused(writer, replace(commit, signature=forged), (400, "BAD_SIGNATURE"))


@pytest.mark.parametrize("cut", [0, 1, 8, 10, 100, 248, 249, 251])
def test_a_header_of_another_length(writer: Writer, cut: int) -> None:
    whole = writer.signed(GOOD).header
    header = (whole + b"\0")[:cut]
    signature = writer.log.owner.signature(b"indelible/v1 commit\n", header)
    body = GOOD.encoded()
    check_refused(writer, Commit(header=header, signature=signature, body=body), BAD)


KEY, VALUE, ID = sealed_key("k"), sealed_value("1"), value_id("1")
TOKEN = token("k")
BODIES: dict[str, Command | bytes] = {
    **{f"op {op}": replace(GOOD, op=op) for op in (0, 9, 15, 17, 255)},
    "a control record": Command(op=OPS["Control"], value=b"\2" + ZERO + vec2(bytes(80))),
    "an expected version": Command(op=OPS["ExpectVersion"], value=u64(0)),
    "an expected version of a key": Command(op=OPS["ExpectVersion"], token=TOKEN, value=u64(0)),
    **{
        f"{kind} on a token of {length} bytes": replace(
            command(kind, "k", "1"), token=(TOKEN * 2)[:length]
        )
        for kind in ("Upsert", "Remove", "Delete", "ExpectAbsent")
        for length in (0, 31, 33)
    },
    **{f"{kind} without a sealed key": replace(command(kind, "k", "1"), key_ct=b"")
       for kind in ("Upsert", "Insert", "Update")},
    **{f"{kind} of another's sealed key": replace(command(kind, "k", "1"), key_ct=sealed_key("l"))
       for kind in ("Upsert", "Insert", "Update")},
    **{f"{kind} with a sealed key": replace(command(kind, "k", "1"), key_ct=KEY)
       for kind in ("Remove", "Delete", "ExpectAbsent")},
    "a short sealed key": replace(GOOD, key_ct=KEY[:79]),
    "a long sealed key": replace(GOOD, key_ct=KEY + bytes(2_048 - 79)),
    "no value": replace(GOOD, value=b""),
    "a short value": replace(GOOD, value=VALUE[:79]),
    **{f"a value id of {length} bytes": replace(command("Remove", "k"), value=(ID * 2)[:length])
       for length in (0, 31, 33, 64)},
    **{f"{kind} with a value": replace(command(kind, "k"), value=b"1")
       for kind in ("Delete", "ExpectAbsent")},
    **{f"{kind} with alts": replace(command(kind, "k"), alts=[ID])
       for kind in ("Delete", "ExpectAbsent")},
    "an expected entry with alts": replace(expecting_entry("k", 1), alts=[ID]),
    "an expected entry of a sealed key": replace(expecting_entry("k", 1), key_ct=KEY),
    **{f"an entry's version of {size} bytes": replace(expecting_entry("k", 1), value=bytes(size))
       for size in (0, 7, 9)},
    "an entry's version beyond all": expecting_entry("k", 2**53),
    "nine alts": replace(GOOD, alts=[ID] * 9),
    "half an alt": replace(GOOD, alts=[ID[:31]]),
    "an alt and a byte": replace(GOOD, alts=[ID, b"\0"]),
    "nothing": b"",
    "an op alone": b"\1",
    "a byte behind it": GOOD.encoded() + b"\0",
    "a byte less": GOOD.encoded()[:-1],
    "half of it": GOOD.encoded()[: len(GOOD.encoded()) // 2],
    "a token that is longer than all": u8(1) + u16(65_535) + TOKEN,
    "a key that is longer than all": u8(1) + vec2(TOKEN) + u16(65_535) + KEY,
    "a value that is longer than all": u8(1) + vec2(TOKEN) + vec2(KEY) + b"\xff" * 4 + VALUE,
    "alts that are longer than all": u8(1) + vec2(TOKEN) + vec2(KEY) + vec4(VALUE) + u16(64) + ID,
    "two commands in one": GOOD.encoded() * 2,
}  # fmt: skip


@pytest.mark.parametrize("what", BODIES)
def test_a_command_with_one_thing_wrong(writer: Writer, what: str) -> None:
    """Its header is right: the count, the root and the length are those of these bytes."""
    check_refused(writer, writer.signed(BODIES[what]), BAD)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_wrong_command_is_enough(writer: Writer, place: int) -> None:
    commands: list[Command | bytes] = [upserting("a", "1"), upserting("b", "1")]
    commands.insert(place, replace(GOOD, op=9))
    check_refused(writer, writer.signed(*commands), BAD)


def test_a_commit_of_more_than_1_mib(writer: Writer) -> None:
    large = replace(GOOD, value=VALUE + bytes(1 << 20))
    check_refused(writer, writer.signed(large), TOO_LARGE)


def test_more_commands_than_a_log_takes(writer: Writer) -> None:
    many = [command("Delete", f"k{n}") for n in range(4_097)]
    check_refused(writer, writer.signed(*many), TOO_LARGE)


MESSAGES: dict[str, Any] = {
    "no header": {"signature": b"", "body": b""},
    "no signature": {"header": b"", "body": b""},
    "no body": {"header": b"", "signature": b""},
    "a member more": {"header": b"", "signature": b"", "body": b"", "memo": b""},
    "text": {"header": "***", "signature": "***", "body": "***"},
    "numbers": {"header": 1, "signature": 2, "body": 3},
    "null": None,
    "a list": [b"", b"", b""],
}


@pytest.mark.parametrize("what", MESSAGES)
def test_a_message_that_is_no_commit(writer: Writer, caller: Caller, what: str) -> None:
    for form in (JSON, "application/msgpack"):
        body = b"null" if MESSAGES[what] is None and form == JSON else MESSAGES[what]
        answer = caller.ask("POST", f"{writer.path}/commits", body or b"\xc0", form=form)
        assert answer.refusal == BAD
    assert writer.read("").version == 0


RECORDS: dict[str, tuple[Sequence[Record], tuple[int, str]]] = {
    "a second genesis": ([(GENESIS, Genesis(owner=Identity().card()).encoded())], BAD),
    "type 0": ([(0, vec2(bytes(80)))], BAD),
    **{f"type {kind}, reserved": ([(kind, vec2(bytes(80)))], BAD) for kind in (5, 6, 7, 8)},
    "type 9": ([(9, vec2(bytes(80)))], BAD),
    "nothing in it": ([(META, b"")], BAD),
    "a byte behind a meta": ([(META, vec2(bytes(80)) + b"\0")], BAD),
    "half a meta": ([(META, vec2(bytes(80))[:-1])], BAD),
    "half an epoch": ([(EPOCH, epoch_record(1, 2, ZERO)[:-1])], BAD),
    "a byte behind an epoch": ([(EPOCH, epoch_record(1, 2, ZERO) + b"\0")], BAD),
    "more wraps than there are": ([(EPOCH, epoch_record(1, 2, ZERO, count=2))], BAD),
    "less wraps than there are": ([(EPOCH, epoch_record(1, 2, ZERO, count=0))], BAD),
    "a grant": ([(GRANT, grant(Identity().card(), READER))], (403, "UNAUTHORIZED_OPERATION")),
    "a role of 4": ([(GRANT, grant(Identity().card(), 4))], BAD),
    "17 records": ([(META, vec2(bytes(80)))] * 17, BAD),
}


def control(writer: Writer, records: Sequence[Record], **members: Any) -> Commit:
    head = writer.log.control_head
    commands = writer.log.chained(records)
    writer.log.control_head = head
    return writer.signed(*commands, **{"kind": CONTROL} | members)


class TestControl:
    @pytest.mark.parametrize("what", RECORDS)
    def test_a_record_that_cannot_stand(self, writer: Writer, what: str) -> None:
        records, refusal = RECORDS[what]
        check_refused(writer, control(writer, records), refusal)

    def test_of_another_identity(self, writer: Writer) -> None:
        commit = control(writer, [(META, vec2(bytes(80)))], signer=Identity())
        check_refused(writer, commit, (403, "UNAUTHORIZED_OPERATION"))

    def test_not_linked_to_the_last_record(self, writer: Writer) -> None:
        loose = Command(op=OPS["Control"], value=u8(META) + ZERO + vec2(bytes(80)))
        check_refused(writer, writer.signed(loose, kind=CONTROL), STALE)

    def test_not_linked_to_each_other(self, writer: Writer) -> None:
        first = writer.log.control_head
        twice = [Command(op=OPS["Control"], value=u8(META) + first + vec2(bytes(80)))] * 2
        check_refused(writer, writer.signed(*twice, kind=CONTROL), BAD)

    @pytest.mark.parametrize("member", ["token", "key_ct", "alts"])
    def test_with_more_than_the_record(self, writer: Writer, member: str) -> None:
        value = u8(META) + writer.log.control_head + vec2(bytes(80))
        held: Any = [ID] if member == "alts" else KEY
        extended = replace(Command(op=OPS["Control"], value=value), **{member: held})
        check_refused(writer, writer.signed(extended, kind=CONTROL), BAD)

    def test_with_a_data_command(self, writer: Writer) -> None:
        value = u8(META) + writer.log.control_head + vec2(bytes(80))
        commands = [Command(op=OPS["Control"], value=value), GOOD]
        check_refused(writer, writer.signed(*commands, kind=CONTROL), BAD)

    def test_in_a_stale_epoch(self, writer: Writer) -> None:
        commit = control(writer, [(EPOCH, epoch_record(1, 2, ZERO))], epoch=2)
        check_refused(writer, commit, STALE)


HIS = Identity()
GENESES: dict[str, dict[str, Any]] = {
    "more commands than allowed": {"max_commands": 4_097},
    "no commands": {"max_commands": 0},
    "more bytes than allowed": {"max_commit_bytes": (1 << 20) + 1},
    "no bytes": {"max_commit_bytes": 0},
    "more lag than allowed": {"max_lag": (1 << 21) + 1},
    "no lag": {"max_lag": 0},
    "unknown flags": {"flags": 2},
    "no padding": {"padding": 0},
    "another padding": {"padding": 2},
    "another's card": {"owner": HIS.card()},
    "half a card": {"owner": HIS.card()[:-1]},
    "a card that was altered": {"identity": HIS, "owner": HIS.card()[:-1] + b"\xff"},
    "a card signed by another": {"identity": HIS, "owner": HIS.card()[:-64] + bytes(64)},
    "no card": {"owner": b""},
}
FOUNDINGS: dict[str, dict[str, Any]] = {
    "a data commit": {"kind": 1},
    "generation 2": {"generation": 2},
    "epoch 0": {"epoch": 0},
    "control records before it": {"ctl_seq": 4},
    "something seen": {"seen_size": 1},
    "an expected version": {"expect_version": 0},
    "another log's id": {"log_id": b"l" * 32},
    "another writer": {"writer": HIS.pk_sign},
    "another signer": {"signer": HIS},
    "another root": {"body_root": ZERO},
}


class TestGenesis:
    def check_unfounded(self, caller: Caller, writer: Writer, commit: Commit) -> None:
        answer = writer.found_by(commit)
        assert answer.status == 400, answer.content
        assert answer.code in ("BAD_REQUEST", "BAD_SIGNATURE")
        for path in (writer.name, writer.path):
            assert caller.ask("GET", path).refusal == (404, "NONEXISTENT_LOG")

    @pytest.mark.parametrize("what", GENESES)
    def test_a_record_with_one_thing_wrong(self, caller: Caller, log_name: str, what: str) -> None:
        writer = Writer(caller, log_name, **GENESES[what])
        self.check_unfounded(caller, writer, writer.log.founding())

    @pytest.mark.parametrize("what", FOUNDINGS)
    def test_a_header_with_one_thing_wrong(self, caller: Caller, log_name: str, what: str) -> None:
        writer = Writer(caller, log_name)
        self.check_unfounded(caller, writer, writer.log.founding(**FOUNDINGS[what]))

    @pytest.mark.parametrize("order", ["012", "0123 3", "1023", "0132", "0213", "", "0"])
    def test_other_records_or_another_order(
        self, caller: Caller, log_name: str, order: str
    ) -> None:
        writer = Writer(caller, log_name)
        first = writer.log.first_records()
        records = [first[int(digit)] for digit in order if digit != " "]
        writer.log.control_head = ZERO
        commands = writer.log.chained(records)
        commit = writer.log.commit(commands, kind=CONTROL, seq=1, ctl_seq=0, seen_size=0)
        self.check_unfounded(caller, writer, commit)

    @pytest.mark.parametrize("place", [2, 3])
    def test_records_that_say_something_else(
        self, caller: Caller, log_name: str, place: int
    ) -> None:
        writer = Writer(caller, log_name)
        records = writer.log.first_records()
        other = {2: epoch_record(1, 2, ZERO), 3: grant(HIS.card())}[place]
        records[place] = records[place][0], other
        self.check_unfounded(caller, writer, writer.log.founding(records))

    def test_an_owner_that_is_no_admin(self, caller: Caller, log_name: str) -> None:
        writer = Writer(caller, log_name)
        records = writer.log.first_records()
        records[3] = GRANT, grant(writer.log.owner.card(), READER)
        self.check_unfounded(caller, writer, writer.log.founding(records))

    @pytest.mark.parametrize("length", [0, 31, 33])
    def test_a_name_that_is_no_token(self, caller: Caller, length: int) -> None:
        body = {"genesis": SealedLog().founding().message}
        answer = caller.ask("PUT", f"/v2/names/{url64(b't' * length)}", body)
        assert answer.status == (404 if length == 0 else 400)

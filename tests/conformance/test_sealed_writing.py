"""Sealed logs, made and written by commits that are signed here and nowhere in the project."""

import os
from dataclasses import replace
from typing import Any

import pytest

from tests.conformance.http import JSON, MSGPACK, Caller, Target, blob, plain, url64
from tests.conformance.model import EFFECTS, STATES, WITH_VALUE
from tests.conformance.sealed import (
    CONTROL,
    EPOCH,
    META,
    Command,
    command,
    epoch_record,
    expecting_entry,
    token,
    upserting,
    value_id,
    vec2,
)
from tests.conformance.writer import Writer

FORMS = (JSON, MSGPACK)


@pytest.fixture
def writer(caller: Caller, log_name: str) -> Writer:
    """Of a log that is there, at version 0."""
    made = Writer(caller, log_name)
    assert made.found().status == 201
    return made


def setting(kind: str) -> Command:
    return command(kind, "k", "1" if kind in WITH_VALUE else "")


class TestFounding:
    @pytest.mark.parametrize("form", FORMS)
    def test_a_genesis_makes_a_log(self, caller: Caller, log_name: str, form: str) -> None:
        writer = Writer(caller, log_name, form=form, max_commands=7, max_commit_bytes=9_000)
        genesis = writer.log.founding()
        made = writer.found_by(genesis, group="g")
        assert (made.status, made.headers["Location"]) == (201, writer.path)
        opened, described = made.content, made.content["description"]
        assert {name: blob(held) for name, held in opened["genesis"].items()} == genesis.message
        assert opened["control"] == []
        assert blob(described.pop("log_id")) == writer.log.log_id
        assert blob(described.pop("name")) == token(log_name)
        assert blob(described.pop("name_ct")) == bytes(80)
        times = described.pop("created_ms"), described.pop("updated_ms")
        assert times[0] == times[1]
        assert described.pop("stored_bytes") == sum(map(len, genesis.message.values()))
        assert described == {
            "kind": "sealed",
            "group": "g",
            "incarnation": 1,
            "version": 0,
            "first_version": 0,
            "entries": 0,
            "max_commands": 7,
            "max_commit_bytes": 9_000,
            "generation": 1,
            "epoch": 1,
            "ctl_seq": 4,
        }
        assert caller.ask("GET", writer.name, form=form).content == opened
        again = writer.found_by(genesis, group="g")
        assert (again.status, again.content) == (200, opened)

    def test_a_second_genesis_opens_the_first(self, caller: Caller, log_name: str) -> None:
        first, second = Writer(caller, log_name), Writer(caller, log_name)
        assert first.found().status == 201
        opened = second.found()
        assert (opened.status, opened.headers["Location"]) == (200, first.path)
        assert second.read("").refusal == (404, "NONEXISTENT_LOG")
        other = second.found_by(second.log.founding(), group="another")
        assert other.refusal == (412, "LOG_EXISTS")

    def test_a_genesis_makes_no_log_under_a_second_name(
        self, writer: Writer, caller: Caller, log_name: str
    ) -> None:
        writer.name = f"/v2/names/{url64(token(log_name + ' again'))}"
        assert writer.found().refusal == (400, "BAD_REQUEST")
        assert caller.ask("GET", writer.name).refusal == (404, "NONEXISTENT_LOG")

    def test_a_dropped_log_is_not_made_again_by_its_genesis(
        self, caller: Caller, log_name: str
    ) -> None:
        writer = Writer(caller, log_name)
        genesis = writer.log.founding()
        writer.found_by(genesis)
        writer.commit(upserting("k", "1"))
        assert caller.ask("DELETE", writer.path).status == 204
        assert writer.found_by(genesis).refusal == (410, "LOG_REPLACED")
        assert writer.commit(upserting("k", "2")).refusal == (410, "LOG_REPLACED")
        next_one = Writer(caller, log_name)
        made = next_one.found()
        assert (made.status, made.content["description"]["incarnation"]) == (201, 2)

    def test_names_of_both_kinds_are_apart(self, caller: Caller, log_name: str) -> None:
        writer = Writer(caller, log_name)
        opaque = caller.ask("PUT", writer.name + "?kind=opaque", {})
        assert caller.ask("GET", writer.name).refusal == (404, "NONEXISTENT_LOG")
        assert writer.found().status == 201
        assert opaque.headers["Location"] != writer.path
        assert caller.ask("GET", writer.name + "?kind=opaque").content == opaque.content


@pytest.mark.parametrize(("kind", "state"), EFFECTS)
def test_a_command_on_a_key_in_each_state(writer: Writer, kind: str, state: str) -> None:
    if (value := STATES[state]) is not None:
        writer.commit(upserting("k", value))
    before, wanted = writer.version, EFFECTS[kind, state]
    answer = writer.commit(setting(kind))
    if isinstance(wanted, str):
        assert answer.refusal == (412, wanted)
        assert answer.content["details"] == {"index": 0, "current_version": before}
        assert writer.read("").version == before
        return
    assert answer.status == (201 if wanted else 200)
    assert answer.version == answer.content["version"] == before + wanted
    assert (answer.content["changed"], answer.content["repeated"]) == (bool(wanted), False)


# command → the version after it where one of its alts is what the key holds
WITH_ALTS = {"Upsert": 1, "Insert": 1, "Update": 1, "Remove": 2}


@pytest.mark.parametrize("count", [1, 8])
@pytest.mark.parametrize("kind", WITH_ALTS)
def test_an_alt_that_the_key_holds_is_the_same_value(writer: Writer, kind: str, count: int) -> None:
    writer.commit(upserting("k", "as in an earlier epoch"))
    alts = [*map(str, range(count - 1)), "as in an earlier epoch"]
    answer = writer.commit(command(kind, "k", "1", alts=alts))
    assert answer.content["version"] == WITH_ALTS[kind]


@pytest.mark.parametrize("kind", WITH_ALTS)
def test_an_alt_that_the_key_does_not_hold_is_none(writer: Writer, kind: str) -> None:
    writer.commit(upserting("k", "2"))
    answer = writer.commit(command(kind, "k", "1", alts=["3"]))
    wanted = EFFECTS[kind, "other"]
    assert answer.refusal == (412, wanted) if isinstance(wanted, str) else answer.status < 300
    assert writer.read("").version == 1 + (wanted if isinstance(wanted, int) else 0)


@pytest.mark.parametrize("expected", range(4))
def test_expect_entry_is_about_one_key(writer: Writer, expected: int) -> None:
    for key, value in (("a", "1"), ("a", "2"), ("b", "1")):
        writer.commit(upserting(key, value))
    answer = writer.commit(upserting("c", "1"), expecting_entry("a", expected))
    if expected == 2:
        assert answer.status == 201
    else:
        assert answer.refusal == (412, "UNEXPECTED_ENTRY")
        assert answer.content["details"] == {"index": 1, "current_version": 3}


@pytest.mark.parametrize("form", FORMS)
def test_a_loser_may_ask_for_what_its_keys_hold(caller: Caller, log_name: str, form: str) -> None:
    writer = Writer(caller, log_name, form=form)
    writer.found()
    writer.commit(upserting("a", "1"), upserting("b", "1"))
    lost = writer.signed(upserting("b", "2"), upserting("c", "2"), expect_version=0)
    answer = writer.send(lost, query="?conflict=entries")
    assert answer.refusal == (412, "UNEXPECTED_VERSION")
    details = answer.content["details"]
    assert details["current_version"] == 1
    assert [blob(each["key"]) for each in details["entries"]] == [token("b")]
    assert details["entries"] == [writer.read(f"/entries/{url64(token('b'))}").content]
    assert writer.send(lost).content["details"] == {"current_version": 1}


class TestHeader:
    @pytest.mark.parametrize("expected", range(4))
    def test_the_expected_version_stands_in_it(self, writer: Writer, expected: int) -> None:
        for value in "12":
            writer.commit(upserting("k", value))
        answer = writer.commit(upserting("k", "3"), expect_version=expected)
        if expected == 2:
            assert answer.content["version"] == 3
        else:
            assert answer.refusal == (412, "UNEXPECTED_VERSION")
            assert answer.content["details"] == {"current_version": 2}

    @pytest.mark.parametrize("seen", [1, 2, 3, 4])
    def test_seen_size_is_at_most_the_version_and_one(self, writer: Writer, seen: int) -> None:
        for value in "12":
            writer.commit(upserting("k", value))
        answer = writer.commit(upserting("k", "3"), seen_size=seen)
        assert answer.status == (201 if seen <= 3 else 400)

    @pytest.mark.parametrize(("behind", "taken"), [(0, True), (2, True), (3, False)])
    def test_a_writer_too_far_behind_has_expired(
        self, caller: Caller, log_name: str, behind: int, taken: bool
    ) -> None:
        writer = Writer(caller, log_name, max_lag=2)
        writer.found()
        for value in "123":
            writer.commit(upserting("k", value))
        answer = writer.commit(upserting("k", "4"), seen_size=4 - behind)
        assert answer.status == 201 if taken else answer.refusal == (409, "IDEMPOTENCY_EXPIRED")

    @pytest.mark.parametrize(
        "members",
        [
            {"seen_level": 1, "seen_root": b"r" * 32},
            {"seen_level": 2, "seen_root": b"r" * 32, "seen_state": b"s" * 32},
            {"client_time_ms": 0},
            {"client_time_ms": 2**64 - 1},
            {"memo_ct": b"m" * 4_096},
            {"seq": 2**53},
            {"ctl_seq": 0},
        ],
        ids=lambda members: " ".join(members),
    )
    def test_what_else_it_may_hold(self, writer: Writer, members: dict[str, Any]) -> None:
        assert writer.commit(upserting("k", "1"), **members).status == 201


class TestIdempotency:
    def test_the_same_commit_gets_the_same_answer(self, writer: Writer) -> None:
        commit = writer.signed(upserting("k", "1"), expect_version=0)
        first = writer.send(commit)
        for value in "23":  # the log moves on, and what it expected is no longer so
            other = writer.signed(upserting("k", value), chain=os.urandom(16))
            assert writer.send(other).status == 201
        again = writer.send(commit)
        assert (first.status, again.status) == (201, 201)
        assert first.content["repeated"] is False
        assert again.content == first.content | {"repeated": True}
        assert writer.read("").version == 3

    def test_the_same_commit_without_effect_gets_the_same_answer(self, writer: Writer) -> None:
        commit = writer.signed(command("Delete", "k"))
        answers = [writer.send(commit) for _ in range(2)]
        assert [each.status for each in answers] == [200, 200]
        assert [each.content["repeated"] for each in answers] == [False, True]
        assert [each.content["changed"] for each in answers] == [False, False]

    @pytest.mark.parametrize("how", ["another value", "another time"])
    def test_another_commit_under_the_same_seq_is_a_mismatch(
        self, writer: Writer, how: str
    ) -> None:
        writer.commit(upserting("k", "1"))
        if how == "another value":
            other = writer.signed(upserting("k", "2"), seq=1)
        else:
            other = writer.signed(upserting("k", "1"), seq=1, seen_size=1, client_time_ms=1)
        assert writer.send(other).refusal == (422, "IDEMPOTENCY_MISMATCH")

    def test_a_lower_seq_has_expired(self, writer: Writer) -> None:
        first = writer.signed(upserting("k", "1"), seq=1)
        writer.send(first)
        writer.commit(upserting("k", "2"), seq=5)
        for commit in (first, writer.signed(upserting("k", "3"), seq=4)):
            assert writer.send(commit).refusal == (409, "IDEMPOTENCY_EXPIRED")
        assert writer.commit(upserting("k", "3"), seq=6).status == 201

    def test_chains_count_apart(self, writer: Writer) -> None:
        writer.commit(upserting("k", "1"), seq=9)
        other = writer.signed(upserting("k", "2"), seq=1, chain=os.urandom(16))
        assert writer.send(other).status == 201

    def test_a_refusal_is_not_recorded(self, writer: Writer) -> None:
        early = writer.signed(command("Update", "k", "1"))
        assert writer.send(early).refusal == (412, "NONEXISTENT_VALUE")
        writer.send(writer.signed(upserting("k", "2"), chain=os.urandom(16)))
        assert writer.send(early).content["version"] == 2

    def test_what_is_forgotten_does_not_enter_twice(self, caller: Caller, log_name: str) -> None:
        writer = Writer(caller, log_name, max_lag=2)
        writer.found()
        early = writer.signed(upserting("early", "1"))
        assert writer.send(early).status == 201
        for n in range(3):
            chain, seen = os.urandom(16), n + 2
            writer.send(writer.signed(upserting("k", str(n)), chain=chain, seen_size=seen))
        assert writer.send(early).refusal == (409, "IDEMPOTENCY_EXPIRED")
        assert writer.read("").version == 4


class TestLimits:
    @pytest.mark.parametrize(("count", "taken"), [(2, True), (3, False)])
    def test_a_genesis_lowers_the_number_of_commands(
        self, caller: Caller, log_name: str, count: int, taken: bool
    ) -> None:
        writer = Writer(caller, log_name, max_commands=2)
        writer.found()
        answer = writer.commit(*(upserting(f"k{n}", "1") for n in range(count)))
        assert answer.status == 201 if taken else answer.refusal == (413, "TOO_LARGE")

    @pytest.mark.parametrize(("over", "taken"), [(0, True), (1, False)])
    def test_a_genesis_lowers_the_size_of_a_commit(
        self, caller: Caller, log_name: str, over: int, taken: bool
    ) -> None:
        writer = Writer(caller, log_name, max_commit_bytes=1_000)
        writer.found()
        big = upserting("k", "x" * (1_000 - len(upserting("k", "x" * 48).encoded()) + 48 + over))
        assert len(big.encoded()) == 1_000 + over
        answer = writer.commit(big)
        assert answer.status == 201 if taken else answer.refusal == (413, "TOO_LARGE")

    @pytest.mark.parametrize("size", [80, 2_048])
    def test_a_sealed_key_has_80_to_2048_bytes(self, writer: Writer, size: int) -> None:
        key = token("k").ljust(size, b"\0")
        assert writer.commit(replace(upserting("k", "1"), key_ct=key)).status == 201
        assert blob(writer.read(f"/entries/{url64(token('k'))}").content["sealed_key"]) == key


class TestControl:
    def records(self, writer: Writer, *records: tuple[int, bytes], **members: Any) -> Any:
        return writer.signed(*writer.log.chained(records), kind=CONTROL, **members)

    def test_a_control_commit_is_a_version_without_changes(self, writer: Writer) -> None:
        writer.commit(upserting("k", "1"))
        commit = self.records(writer, (META, vec2(b"m" * 90)), (META, vec2(b"n" * 90)))
        answer = writer.send(commit)
        assert (answer.status, answer.content["version"]) == (201, 2)
        assert writer.read("/diff?from=1").content["changes"] == []
        described = writer.read("").content
        assert (described["version"], described["ctl_seq"], described["epoch"]) == (2, 6, 1)
        (control,) = writer.opened()["control"]
        assert control == commit.message

    def test_the_same_control_commit_gets_the_same_answer(self, writer: Writer) -> None:
        commit = self.records(writer, (META, vec2(b"m" * 90)))
        answers = [writer.send(commit) for _ in range(2)]
        assert [each.status for each in answers] == [201, 201]
        assert [each.content["repeated"] for each in answers] == [False, True]

    def test_an_epoch_ends_the_one_before_it(self, writer: Writer) -> None:
        owner, chain = writer.log.owner.pk_sign, os.urandom(16)
        early = writer.signed(upserting("e", "1"), chain=chain)
        assert writer.send(early).status == 201
        assert writer.send(self.records(writer, (EPOCH, epoch_record(1, 2, owner)))).status == 201
        stale = writer.signed(upserting("k", "1"), seq=2)
        assert writer.send(stale).refusal == (409, "STALE_EPOCH")
        assert writer.send(writer.signed(upserting("k", "1"), seq=2, epoch=2)).status == 201
        described = writer.read("").content
        assert (described["generation"], described["epoch"]) == (1, 2)
        assert writer.send(early).content["repeated"] is True

    @pytest.mark.parametrize("ctl_seq", [3, 5])
    def test_it_follows_the_last_control_record(self, writer: Writer, ctl_seq: int) -> None:
        commit = self.records(writer, (META, vec2(b"m" * 90)), ctl_seq=ctl_seq)
        assert writer.send(commit).refusal == (409, "STALE_EPOCH")

    def test_the_loser_of_two_is_told_that_it_is_stale(self, writer: Writer) -> None:
        head = writer.log.control_head
        first = self.records(writer, (META, vec2(b"m" * 90)))
        writer.log.control_head = head
        second = self.records(writer, (META, vec2(b"n" * 90)), chain=os.urandom(16))
        assert writer.send(first).status == 201
        assert writer.send(second).refusal == (409, "STALE_EPOCH")


@pytest.mark.parametrize("form", FORMS)
def test_each_kind_of_log_takes_commits_of_its_own(
    writer: Writer, caller: Caller, log_name: str, form: str
) -> None:
    clear = {"commands": [plain("Upsert", "k", "1")]}
    signed = writer.signed(upserting("k", "1")).message
    opaque = caller.make_log(log_name)
    for log, body in ((writer.path, clear), (opaque, signed)):
        answer = caller.ask("POST", f"{log}/commits", body, form=form)
        assert answer.refusal == (409, "WRONG_LOG_KIND")
        assert caller.ask("GET", log).version == 0


@pytest.mark.parametrize("verb", ["update", "diff"])
def test_v1_finds_no_sealed_log(caller: Caller, log_name: str, verb: str) -> None:
    writer = Writer(caller, log_name)
    name = f"{value_id(log_name).hex():.32}"
    writer.name = f"/v2/names/{url64(name)}"
    assert writer.found().status == 201
    if verb == "update":
        answer = caller.say_update(name, plain("Upsert", "k", "1"))
    else:
        answer = caller.say("diff", {"logName": name})
    assert answer.refusal == (404, "NONEXISTENT_LOG")
    assert caller.say("create", {"logName": name}).status == 200
    assert caller.say_update(name, plain("Upsert", "k", "1")).status == 200
    assert writer.read("").version == 0


def test_a_second_process_takes_up_the_chain(writer: Writer, target: Target) -> None:
    """With more processes than one, what one took another knows."""
    for n in range(2 * len(target.urls) + 1):
        assert writer.commit(upserting("k", str(n)), expect_version=n).content["version"] == n + 1

"""What each command does to a key in each state, natively and through the original protocol."""

from typing import Any

import pytest

from tests.conformance.http import Caller, b64, opaque_name, plain, upsert
from tests.conformance.model import EFFECTS, STATES, WITH_VALUE


def command(kind: str, key: str = "k") -> dict[str, Any]:
    return plain(kind, key, "1" if kind in WITH_VALUE else None)


@pytest.mark.parametrize(("kind", "state"), EFFECTS)
@pytest.mark.parametrize("place", ["alone", "behind another"])
def test_a_command_on_a_key_in_each_state(
    caller: Caller, log_name: str, kind: str, state: str, place: str
) -> None:
    log = caller.make_log(log_name)
    before = 0
    if (value := STATES[state]) is not None:
        before = caller.commit(log, upsert("k", value)).content["version"]
    wanted = EFFECTS[kind, state]
    commands: list[dict[str, Any]] = [command(kind)]
    if place == "behind another":
        commands.insert(0, upsert("z", "1"))
    answer = caller.commit(log, *commands)
    if isinstance(wanted, str):
        assert answer.refusal == (412, wanted)
        details = {"index": len(commands) - 1, "current_version": before}
        assert answer.content["details"] == details
        assert caller.ask("GET", log).content["version"] == before
        return
    changed = bool(wanted) or place == "behind another"
    assert answer.status == (201 if changed else 200)
    assert answer.content["changed"] is changed
    assert answer.content["version"] == before + changed


@pytest.mark.parametrize(("kind", "state"), [pair for pair in EFFECTS if pair[0] in WITH_VALUE])
def test_v1_a_command_on_a_key_in_each_state(
    caller: Caller, log_name: str, kind: str, state: str
) -> None:
    assert caller.say("create", {"logName": log_name}).status == 200
    if (value := STATES[state]) is not None:
        assert caller.say_update(log_name, upsert("k", value)).body == b""
    before = int(value is not None)
    answer = caller.say_update(log_name, command(kind))
    wanted = EFFECTS[kind, state]
    if isinstance(wanted, str):
        assert answer.refusal == (412, wanted)
        wanted = 0
    else:
        assert (answer.status, answer.body) == (200, b"")
    page = caller.say("diff", {"logName": log_name}).content
    assert page["toVersion"] == before + wanted


@pytest.mark.parametrize("expected", range(4))
@pytest.mark.parametrize("index", [0, 1])
def test_expect_version_stands_at_its_place(
    caller: Caller, log_name: str, expected: int, index: int
) -> None:
    log = caller.make_log(log_name)
    for value in "12":
        caller.commit(log, upsert("a", value))
    commands: list[dict[str, Any]] = [upsert("b", "1")]
    commands.insert(index, {"type": "ExpectVersion", "version": expected})
    answer = caller.commit(log, *commands)
    if expected == 2:
        assert (answer.status, answer.content["version"]) == (201, 3)
    else:
        assert answer.refusal == (412, "UNEXPECTED_VERSION")
        assert answer.content["details"] == {"index": index, "current_version": 2}


@pytest.mark.parametrize(("expected", "holds"), [(0, False), (1, False), (2, True), (3, False)])
def test_expect_entry_is_about_one_key(
    caller: Caller, log_name: str, expected: int, holds: bool
) -> None:
    log = caller.make_log(log_name)
    for key, value in (("a", "1"), ("a", "2"), ("b", "1")):
        caller.commit(log, upsert(key, value))
    entry = {"type": "ExpectEntry", "key": b"a", "version": expected}
    answer = caller.commit(log, entry, upsert("c", "1"))
    assert (answer.status == 201) is holds
    if not holds:
        assert answer.code == "UNEXPECTED_ENTRY"


SEQUENCES: dict[str, tuple[list[dict[str, Any]], bool]] = {
    "set and removed": ([upsert("n", "1"), command("Remove", "n")], False),
    "set, and set back": ([upsert("k", "9"), upsert("k", "2")], False),
    "removed, and set as it was": ([plain("Delete", "k"), upsert("k", "2")], False),
    "set twice": ([upsert("k", "8"), upsert("k", "9")], True),
    "inserted after its removal": ([plain("Delete", "k"), command("Insert")], True),
    "updated after its insertion": ([command("Insert", "n"), command("Update", "n")], True),
    "another removed": ([command("Remove", "k")], False),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_only_the_net_of_a_commit_counts(caller: Caller, log_name: str, name: str) -> None:
    log = caller.make_log(log_name)
    caller.commit(log, upsert("k", "2"))
    commands, changes = SEQUENCES[name]
    answer = caller.commit(log, *commands)
    assert (answer.content["changed"], answer.content["version"]) == (changes, 1 + changes)
    entry = caller.ask("GET", f"{log}/entries/{b64('k').rstrip('=')}").content
    touched = any(each["key"] == b"k" for each in commands)
    assert entry["version"] == (2 if changes and touched else 1)


def test_all_or_nothing(caller: Caller, log_name: str) -> None:
    log = caller.make_log(log_name)
    caller.commit(log, upsert("k", "2"))
    refused = caller.commit(log, upsert("a", "1"), plain("Delete", "k"), command("Update"))
    assert (refused.status, refused.content["details"]["index"]) == (412, 2)
    assert caller.ask("GET", f"{log}/diff?from=1").content["changes"] == []


@pytest.mark.parametrize("source", ["", "ci", "é" * 10])
def test_a_source_is_told_by_versions(caller: Caller, log_name: str, source: str) -> None:
    log = caller.make_log(log_name)
    body = {"commands": [upsert("a", "1")], "source": source}
    assert caller.ask("POST", f"{log}/commits", body).status == 201
    (version,) = caller.ask("GET", f"{log}/versions").content["versions"]
    assert version["source"] == b64(source)


class TestIdempotency:
    def test_the_same_commit_under_the_same_key_enters_once(
        self, caller: Caller, log_name: str
    ) -> None:
        log = caller.make_log(log_name)
        headers = {"Idempotency-Key": "once"}
        answers = [
            caller.ask("POST", f"{log}/commits", {"commands": [upsert("a", "1")]}, headers=headers)
            for _ in range(3)
        ]
        assert [a.content["version"] for a in answers] == [1, 1, 1]
        assert [a.content["repeated"] for a in answers] == [False, True, True]
        assert [a.status for a in answers] == [201, 201, 201]

    def test_another_commit_under_the_same_key_is_refused(
        self, caller: Caller, log_name: str
    ) -> None:
        log = caller.make_log(log_name)
        for value, wanted in (("1", 201), ("2", 422)):
            body = {"commands": [upsert("a", value)]}
            answer = caller.ask("POST", f"{log}/commits", body, headers={"Idempotency-Key": "k"})
            assert answer.status == wanted
        assert answer.code == "IDEMPOTENCY_MISMATCH"

    def test_a_refusal_is_not_remembered(self, caller: Caller, log_name: str) -> None:
        log = caller.make_log(log_name)
        body = {"commands": [command("Update")]}
        headers = {"Idempotency-Key": "k"}
        assert caller.ask("POST", f"{log}/commits", body, headers=headers).status == 412
        caller.commit(log, upsert("k", "2"))
        assert caller.ask("POST", f"{log}/commits", body, headers=headers).status == 201

    @pytest.mark.parametrize("key", ["", "x" * 65, "a b", "é"])
    def test_a_bad_key_is_refused(self, caller: Caller, log_name: str, key: str) -> None:
        log = caller.make_log(log_name)
        answer = caller.ask(
            "POST",
            f"{log}/commits",
            {"commands": [upsert("a", "1")]},
            headers={"Idempotency-Key": key},
        )
        assert answer.refusal == (400, "BAD_REQUEST")


@pytest.mark.parametrize(("count", "status"), [(1, 201), (4_096, 201), (4_097, 413), (0, 400)])
def test_a_commit_has_1_to_4096_commands(
    caller: Caller, log_name: str, count: int, status: int
) -> None:
    log = caller.make_log(log_name)
    answer = caller.commit(log, *[upsert(f"k{n}", "1") for n in range(count)])
    assert answer.status == status, answer.body
    if status == 413:
        assert answer.code == "TOO_LARGE"
        assert "4096" in answer.content["message"].replace(",", "")


@pytest.mark.parametrize(("size", "status"), [(1 << 10, 201), (1 << 19, 201), (1 << 20, 413)])
def test_a_commit_has_at_most_1_mib(caller: Caller, log_name: str, size: int, status: int) -> None:
    log = caller.make_log(log_name)
    answer = caller.commit(log, upsert("k", "x" * size))
    assert answer.status == status
    if status == 201:
        assert len(caller.ask("GET", f"{log}/entries/aw").content["value"]) >= size


@pytest.mark.parametrize(("size", "status"), [(1, 201), (1_024, 201), (1_025, 400)])
def test_a_key_has_1_to_1024_bytes(caller: Caller, log_name: str, size: int, status: int) -> None:
    log = caller.make_log(log_name)
    assert caller.commit(log, upsert("k" * size, "1")).status == status


@pytest.mark.parametrize(("size", "status"), [(4_096, 201), (4_097, 413)])
def test_a_source_has_at_most_4096_bytes(
    caller: Caller, log_name: str, size: int, status: int
) -> None:
    log = caller.make_log(log_name)
    body = {"commands": [upsert("k", "1")], "source": "s" * size}
    assert caller.ask("POST", f"{log}/commits", body).status == status


@pytest.mark.parametrize(("size", "status"), [(256, 201), (257, 413)])
def test_a_group_has_at_most_256_bytes(
    caller: Caller, log_name: str, size: int, status: int
) -> None:
    assert caller.ask("PUT", opaque_name(log_name), {"group": "g" * size}).status == status


@pytest.mark.parametrize(("count", "status"), [(0, 400), (4_096, 200), (4_097, 400)])
def test_4096_keys_are_read_at_once(caller: Caller, log_name: str, count: int, status: int) -> None:
    log = caller.make_log(log_name)
    body = {"keys": [b"%d" % number for number in range(count)]}
    assert caller.ask("POST", f"{log}/entries:batchGet", body).status == status

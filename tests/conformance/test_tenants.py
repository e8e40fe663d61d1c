"""What a stranger finds of a tenant's logs, and what a revoked key still opens: nothing."""

import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from tests.conformance.http import (
    Answer,
    Caller,
    Target,
    b64,
    opaque_name,
    plain,
    upsert,
    url64,
)
from tests.conformance.sealed import token, upserting
from tests.conformance.writer import Writer

NAME = "the log that others want to see"
# method, path behind the log's, body
ROUTES: list[tuple[str, str, Any]] = [
    ("GET", "", None),
    ("DELETE", "", None),
    ("POST", "/commits", {"commands": [upsert("a", "2")]}),
    ("POST", "/commits?conflict=entries", {"commands": [plain("ExpectAbsent", "a")]}),
    ("GET", "/commits", None),
    ("GET", "/diff", None),
    ("GET", "/diff?from=1&wait=30", None),
    ("GET", "/diff?from=9", None),
    ("GET", "/entries/YQ", None),
    ("GET", "/entries/YQ?at=1", None),
    ("GET", "/entries/YQ/history", None),
    ("POST", "/entries:batchGet", {"keys": [b64("a")]}),
    ("GET", "/versions", None),
]
VERBS = ("create", "update", "diff")
Hit = tuple[str, str, Any]


@pytest.fixture(scope="module")
def log(caller: Caller) -> str:
    path = caller.make_log(NAME)
    if caller.ask("GET", path).version == 0:
        caller.commit(path, upsert("a", "1"))
    return path


@pytest.fixture(scope="module")
def sealed(caller: Caller) -> Writer:
    writer = Writer(caller, f"{NAME} {time.time_ns()}")
    writer.found()
    writer.commit(upserting("a", "1"))
    return writer


@pytest.fixture(scope="module")
def revoked(target: Target) -> Iterator[Caller]:
    if target.revoked is None:
        pytest.skip("no --revoked-credentials")
    asking = Caller(target, by=target.revoked)
    yield asking
    asking.close()


def without_id(answer: Answer) -> Any:
    """What an answer says; of two requests each has its own id."""
    return {name: held for name, held in answer.content.items() if name != "request_id"}


class TestStranger:
    @pytest.mark.parametrize("route", ROUTES)
    def test_finds_as_much_as_where_nothing_is(
        self, caller: Caller, stranger: Caller, log: str, route: Hit
    ) -> None:
        method, path, body = route
        answer = stranger.ask(method, log + path, body)
        assert answer.refusal == (404, "NONEXISTENT_LOG")
        nowhere = stranger.ask(method, f"/v2/logs/{url64(bytes(32))}{path}", body)
        assert without_id(answer) == without_id(nowhere)
        assert caller.ask("GET", log).version == 1

    def test_finds_no_name(self, caller: Caller, stranger: Caller, sealed: Writer) -> None:
        for path in (opaque_name(NAME), sealed.name):
            assert stranger.ask("GET", path).refusal == (404, "NONEXISTENT_LOG")

    def test_is_listed_nothing(self, caller: Caller, stranger: Caller, log: str) -> None:
        mine = {each["log_id"] for each in caller.ask("GET", "/v2/logs").content["logs"]}
        his = {each["log_id"] for each in stranger.ask("GET", "/v2/logs").content["logs"]}
        assert mine
        assert not mine & his

    def test_waits_for_nothing(
        self, caller: Caller, stranger: Caller, log: str, sealed: Writer
    ) -> None:
        ids = [caller.ask("GET", path).content["log_id"] for path in (log, sealed.path)]
        body = {"logs": [{"log_id": log_id, "version": 0} for log_id in ids], "wait": 30}
        told = stranger.ask("POST", "/v2/wait", body).content
        assert (told["moved"], told["gone"]) == ([], ids)

    def test_waits_for_groups_of_his_own(
        self, caller: Caller, stranger: Caller, log_name: str
    ) -> None:
        group = f"g{time.time_ns()}"
        caller.make_log(log_name, group=group)
        listing = stranger.ask("GET", f"/v2/logs?group={group}").content
        assert listing["logs"] == []
        body = {"groups": [{"group": group, "version": listing["version"]}], "wait": 0.05}
        assert stranger.ask("POST", "/v2/wait", body).content["groups"] == []

    def test_has_no_use_for_a_watch(self, target: Target, stranger: Caller, log: str) -> None:
        """Asked of the process that keeps it, which its tenant finds by asking each in turn."""
        with closing(Caller(target)) as mine:
            held = mine.ask("GET", log).content
            told = {"logs": [{"log_id": held["log_id"], "version": held["version"]}], "keep": True}
            watch = mine.ask("POST", "/v2/wait", told | {"wait": 0}).content["watch"]
            asked = {"watch": watch, "wait": 0}
            for _ in target.urls:
                answer = stranger.ask("POST", "/v2/wait", asked)
                assert answer.refusal == (400, "BAD_CURSOR")
            assert 200 in {mine.ask("POST", "/v2/wait", asked).status for _ in target.urls}

    def test_has_names_of_his_own(self, caller: Caller, stranger: Caller, log_name: str) -> None:
        logs = [asking.make_log(log_name) for asking in (caller, stranger)]
        assert logs[0] != logs[1]
        caller.commit(logs[0], upsert("a", "1"))
        assert stranger.ask("GET", logs[1]).version == 0
        assert stranger.ask("DELETE", logs[1]).status == 204
        assert caller.ask("GET", logs[0]).status == 200

    def test_may_send_what_the_owner_signed_to_nobody(
        self, stranger: Caller, sealed: Writer
    ) -> None:
        commit = sealed.signed(upserting("a", "2"))
        assert sealed.send(commit, by=stranger).refusal == (404, "NONEXISTENT_LOG")
        assert sealed.read("").version == 1

    def test_reads_no_sealed_log(self, stranger: Caller, sealed: Writer) -> None:
        for path in ("", "/diff", "/commits", "/versions", f"/entries/{url64(token('a'))}"):
            answer = stranger.ask("GET", sealed.path + path)
            assert answer.refusal == (404, "NONEXISTENT_LOG")

    @pytest.mark.parametrize("dropped", [False, True])
    def test_learns_nothing_by_sending_the_genesis_of_another(
        self, caller: Caller, stranger: Caller, log_name: str, dropped: bool
    ) -> None:
        writer = Writer(caller, log_name)
        genesis = writer.log.founding()
        writer.found_by(genesis)
        if dropped:
            caller.ask("DELETE", writer.path)
        answer = writer.found_by(genesis, by=stranger)
        assert answer.refusal == (404, "NONEXISTENT_LOG")
        assert answer.content["details"] == {}
        assert stranger.ask("GET", writer.name).refusal == (404, "NONEXISTENT_LOG")

    @pytest.mark.parametrize("what", ["diff", "versions", "entries/YQ/history"])
    def test_has_no_use_for_a_cursor(
        self, caller: Caller, stranger: Caller, log_name: str, what: str
    ) -> None:
        logs = [asking.make_log(log_name) for asking in (caller, stranger)]
        for asking, log in zip((caller, stranger), logs, strict=True):
            for value in "12":
                asking.commit(log, upsert("a", value), upsert("b", value))
        cursor = caller.ask("GET", f"{logs[0]}/{what}?limit=1").content["cursor"]
        assert cursor is not None
        answer = stranger.ask("GET", f"{logs[1]}/{what}?cursor={cursor}")
        assert answer.refusal == (400, "BAD_CURSOR")

    def test_v1_finds_no_log(self, caller: Caller, stranger: Caller, log: str) -> None:
        assert stranger.say_update(NAME, upsert("a", "2")).refusal == (404, "NONEXISTENT_LOG")
        assert stranger.say("diff", {"logName": NAME}).refusal == (404, "NONEXISTENT_LOG")
        assert caller.ask("GET", log).version == 1

    @pytest.mark.parametrize("verb", VERBS)
    def test_v1_takes_no_key_of_another_customer(
        self, caller: Caller, stranger: Caller, verb: str
    ) -> None:
        for customer, key in ((caller, stranger), (stranger, caller)):
            authinfo = {"customer_id": customer.by.customer_id, "apikey": key.by.apikey}
            answer = caller.say(verb, {"authinfo": authinfo, "logName": NAME})
            assert answer.refusal == (401, "BAD_API_KEY")


class TestRevokedKey:
    @pytest.mark.parametrize("route", ROUTES)
    def test_opens_no_log(self, caller: Caller, revoked: Caller, log: str, route: Hit) -> None:
        method, path, body = route
        assert revoked.ask(method, log + path, body).refusal == (401, "BAD_API_KEY")
        assert caller.ask("GET", log).version == 1

    @pytest.mark.parametrize(
        ("method", "path", "body"),
        [
            ("PUT", opaque_name(NAME), {}),
            ("GET", opaque_name(NAME), None),
            ("GET", "/v2/logs", None),
            ("POST", "/v2/wait", {"logs": []}),
        ],
    )
    def test_opens_nothing_else(self, revoked: Caller, method: str, path: str, body: Any) -> None:
        assert revoked.ask(method, path, body).refusal == (401, "BAD_API_KEY")

    def test_makes_no_sealed_log(self, caller: Caller, revoked: Caller, log_name: str) -> None:
        writer = Writer(caller, log_name)
        refused = writer.found_by(writer.log.founding(), by=revoked)
        assert refused.refusal == (401, "BAD_API_KEY")
        assert caller.ask("GET", writer.name).refusal == (404, "NONEXISTENT_LOG")

    @pytest.mark.parametrize("verb", VERBS)
    def test_v1_opens_nothing(self, revoked: Caller, verb: str) -> None:
        assert revoked.say(verb, {"logName": NAME}).refusal == (401, "BAD_API_KEY")

"""JSON and msgpack say the same; which of them is answered; what either refuses."""

import time
from typing import Any

import msgpack
import pytest

from tests.conformance.http import (
    JSON,
    MSGPACK,
    Answer,
    Caller,
    b64,
    opaque_name,
    plain,
    upsert,
    url64,
)
from tests.conformance.sealed import token, upserting
from tests.conformance.writer import Writer

NAME = "the log of the forms"
FORMS = (JSON, MSGPACK)
READS = [
    "",
    "/commits",
    "/diff",
    "/diff?from=2&to=0",
    "/diff?limit=1&order=key",
    "/entries/YQ",
    "/entries/YQ/history",
    "/versions",
]


@pytest.fixture(scope="module")
def log(caller: Caller) -> str:
    path = caller.make_log(NAME)
    if caller.ask("GET", path).version == 0:
        caller.commit(path, upsert("a", "1"), upsert("b", "1"))
        caller.commit(path, upsert("a", "\x00\xff"))
    return path


def in_json(value: Any) -> Any:
    """What msgpack says as JSON says it; cursors are random."""
    if isinstance(value, bytes):
        return b64(value)
    if isinstance(value, list):
        return [in_json(item) for item in value]
    if isinstance(value, dict):
        return {name: in_json(item) for name, item in value.items() if name != "cursor"}
    return value


def check_equal(answers: list[Answer]) -> None:
    as_json, packed = answers
    assert (as_json.content_type, packed.content_type) == (JSON, MSGPACK)
    assert as_json.status == packed.status
    assert in_json(packed.content) == in_json(as_json.content)


@pytest.fixture(scope="module")
def sealed(caller: Caller) -> str:
    writer = Writer(caller, f"{NAME} {time.time_ns()}")
    writer.found()
    writer.commit(upserting("a", "1"), upserting("b", "1"), memo_ct=b"\xff")
    writer.commit(upserting("a", "2"))
    return writer.path


@pytest.mark.parametrize("kind", ["opaque", "sealed"])
@pytest.mark.parametrize("what", READS)
def test_a_read_says_the_same_in_both(
    caller: Caller, log: str, sealed: str, what: str, kind: str
) -> None:
    path = log + what
    if kind == "sealed":
        path = sealed + what.replace("YQ", url64(token("a")))
    check_equal([caller.ask("GET", path, form=form) for form in FORMS])


@pytest.mark.parametrize("path", [opaque_name(NAME), "/v2/logs?limit=1"])
def test_names_and_listings_say_the_same_in_both(caller: Caller, log: str, path: str) -> None:
    check_equal([caller.ask("GET", path, form=form) for form in FORMS])


def test_bodies_say_the_same_in_both(caller: Caller, log: str) -> None:
    log_id = caller.ask("GET", log, form=MSGPACK).content["log_id"]
    asked: list[tuple[str, str, dict[str, Any]]] = [
        ("PUT", opaque_name(NAME), {}),
        ("POST", f"{log}/entries:batchGet", {"keys": [b"a", b"\xff"], "at": 1}),
        ("POST", "/v2/wait", {"logs": [{"log_id": log_id, "version": 0}], "wait": 0.5}),
        ("POST", f"{log}/commits", {"commands": [plain("Delete", "z")], "source": "é"}),
        ("POST", f"{log}/commits", {"commands": [plain("Update", "z", "1")]}),
    ]
    for method, path, body in asked:
        answers = [caller.ask(method, path, body, form=form) for form in FORMS]
        if answers[0].status < 400:
            check_equal(answers)
        else:
            assert answers[0].refusal == answers[1].refusal == (412, "NONEXISTENT_VALUE")


@pytest.mark.parametrize(("first", "second"), [FORMS, FORMS[::-1]])
def test_an_opaque_commit_is_the_same_in_both(
    caller: Caller, log_name: str, first: str, second: str
) -> None:
    log = caller.make_log(log_name)
    body = {"commands": [upsert("a", "\x00"), plain("Delete", "z")], "source": "é"}
    key = {"Idempotency-Key": "once"}
    answers = [
        caller.ask("POST", f"{log}/commits", body, headers=key, form=form)
        for form in (first, second)
    ]
    assert answers[1].content == answers[0].content | {"repeated": True}


@pytest.mark.parametrize("sent", FORMS)
@pytest.mark.parametrize("accept", [*FORMS, "*/*", "text/html", f"text/html, {MSGPACK};q=0.9"])
@pytest.mark.parametrize("refused", [False, True])
def test_accept_names_the_form_of_the_answer(
    caller: Caller, log: str, sent: str, accept: str, refused: bool
) -> None:
    body: dict[str, Any] = {"keys": [] if refused else [b"a"]}
    headers = {"Accept": accept}
    answer = caller.ask("POST", f"{log}/entries:batchGet", body, headers=headers, form=sent)
    assert answer.status == (400 if refused else 200)
    wanted = next((form for form in FORMS if form in accept), sent)
    if refused:
        wanted = wanted.replace("/", "/problem+")
    assert answer.content_type == wanted


@pytest.mark.parametrize("accept", ["", "*/*", "text/html", "application/cbor"])
def test_a_read_without_a_known_form_is_json(caller: Caller, log: str, accept: str) -> None:
    headers = {"Accept": accept} if accept else {}
    assert caller.ask("GET", log, headers=headers).content_type == JSON


GOOD = {"commands": [upsert("x", "1")]}
BAD_MSGPACK: dict[str, bytes] = {
    "empty": b"",
    "cut": msgpack.packb(GOOD)[:-1],
    "a byte behind it": msgpack.packb(GOOD) + b"\xc0",
    "nil": b"\xc0",
    "a list": msgpack.packb([GOOD]),
    "text for bytes": msgpack.packb({"commands": [{"type": "Delete", "key": "x"}]}),
    "bytes for text": msgpack.packb({"commands": [{"type": b"Delete", "key": b"x"}]}),
    "a member as bytes": msgpack.packb({b"commands": [{"type": "Delete", "key": b"x"}]}),
    "a number as member": msgpack.packb({1: []}),
    "a member twice": b"\x82" + (b"\xa8commands" + msgpack.packb(GOOD["commands"])) * 2,
    "an unknown member": msgpack.packb(GOOD | {"x": 1}),
    "a float as version": msgpack.packb(
        {"commands": [{"type": "ExpectEntry", "key": b"x", "version": 1.5}]}
    ),
    "an extension": msgpack.packb(
        {"commands": [{"type": "Delete", "key": msgpack.ExtType(1, b"x")}]}
    ),
    "text that is no UTF-8": b"\x81\xa1\xff\xc0",
    "deep": b"\x91" * 100_000,
    "longer than it is": b"\x81\xa8commands\xdd\xff\xff\xff\xff",
    "JSON": b'{"commands": []}',
}


@pytest.mark.parametrize("what", BAD_MSGPACK)
def test_msgpack_that_is_not_as_it_should_be(caller: Caller, log: str, what: str) -> None:
    before = caller.ask("GET", log).version
    answer = caller.ask("POST", f"{log}/commits", BAD_MSGPACK[what], form=MSGPACK)
    assert answer.refusal == (400, "BAD_REQUEST")
    assert answer.content_type == "application/problem+msgpack"
    assert caller.ask("GET", log).version == before


@pytest.mark.parametrize("form", FORMS)
def test_keys_and_values_are_bytes(caller: Caller, log_name: str, form: str) -> None:
    log = caller.make_log(log_name)
    key, value = bytes(range(256)), bytes(range(255, -1, -1)) * 3
    body = {"commands": [{"type": "Insert", "key": key, "value": value}]}
    assert caller.ask("POST", f"{log}/commits", body, form=form).status == 201
    (change,) = caller.ask("GET", f"{log}/diff", form=MSGPACK).content["changes"]
    assert (change["key"], change["value"], change["sealed_key"]) == (key, value, b"")


def test_a_sealed_commit_is_the_same_in_both(caller: Caller, log_name: str) -> None:
    writer = Writer(caller, log_name, form=JSON)
    writer.found()
    commit = writer.signed(upserting("k", "1"))
    first, again = writer.send(commit), writer.in_form(MSGPACK).send(commit)
    assert again.content == first.content | {"repeated": True}

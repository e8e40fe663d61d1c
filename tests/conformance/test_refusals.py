"""Requests that are refused: with which status, code and words."""

from typing import Any

import pytest

from tests.conformance.http import Caller, b64, opaque_name, to_json, upsert, url64


@pytest.fixture(scope="session")
def log(caller: Caller) -> str:
    path = caller.make_log("the log of the refusals")
    caller.commit(path, upsert("a", "1"))
    return path


BAD_QUERIES = [
    ("diff", "from=-1"),
    ("diff", "from=1.0"),
    ("diff", "from=01"),
    ("diff", "from="),
    ("diff", "from=9007199254740992"),
    ("diff", "from=1&from=1"),
    ("diff", "to=x"),
    ("diff", "order=value"),
    ("diff", "wait=61"),
    ("diff", "wait=-1"),
    ("diff", "wait=1e1"),
    ("diff", "limit=-1"),
    ("diff", "limit=10001"),
    ("diff", "since=1"),
    ("diff", "cursor=AAAA"),
    ("diff", "cursor=***"),
    ("commits", "from=x"),
    ("commits", "limit=1"),
    ("versions", "limit=0"),
    ("versions", "cursor=AAAA"),
    ("versions", "from=1"),
    ("entries/YQ", "at=x"),
    ("entries/YQ", "at=-1"),
    ("entries/YQ", "version=1"),
    ("entries/YQ/history", "limit=x"),
    ("entries/YQ/history", "cursor=AAAA"),
    ("entries/YQ=", ""),
    ("entries/Y", ""),
    ("entries/a+b", ""),
    ("", "x=1"),
]


@pytest.mark.parametrize(("path", "query"), BAD_QUERIES)
def test_a_query_that_is_not_as_it_should_be(
    caller: Caller, log: str, path: str, query: str
) -> None:
    answer = caller.ask("GET", f"{log}/{path}?{query}" if path else f"{log}?{query}")
    assert answer.status == 400, answer.body
    assert answer.code in ("BAD_REQUEST", "BAD_CURSOR")


ABSENT = [
    ("GET", "diff?from=2", "NONEXISTENT_VERSION"),
    ("GET", "diff?to=2", "NONEXISTENT_VERSION"),
    ("GET", "diff?from=1&to=9007199254740991", "NONEXISTENT_VERSION"),
    ("GET", "commits?to=2", "NONEXISTENT_VERSION"),
    ("GET", "entries/YQ?at=2", "NONEXISTENT_VERSION"),
    ("GET", "entries/Yg", "NONEXISTENT_KEY"),
    ("GET", "entries", "NO_SUCH_ROUTE"),
    ("GET", "nothing", "NO_SUCH_ROUTE"),
]


@pytest.mark.parametrize(("method", "path", "code"), ABSENT)
def test_what_is_not_there(caller: Caller, log: str, method: str, path: str, code: str) -> None:
    answer = caller.ask(method, f"{log}/{path}")
    assert answer.refusal == (404, code)


BAD_COMMITS = [
    (b"", "empty"),
    (b"{", "cut"),
    (b"[]", "a list"),
    (b"null", "null"),
    (b'{"commands": [], "x": 1}', "an unknown member"),
    (b'{"commands": {}}', "commands that are no list"),
    (b'{"commands": [{"type": "Upsert", "key": "YQ=="}]}', "no value"),
    (b'{"commands": [{"type": "Upsert", "value": "YQ=="}]}', "no key"),
    (b'{"commands": [{"type": "Delete", "key": "YQ==", "value": "YQ=="}]}', "a value too many"),
    (b'{"commands": [{"type": "Nothing", "key": "YQ=="}]}', "an unknown command"),
    (b'{"commands": [{"key": "YQ=="}]}', "no type"),
    (b'{"commands": [{"type": "Delete", "key": "Y"}]}', "no base64"),
    (b'{"commands": [{"type": "Delete", "key": 1}]}', "a number as key"),
    (b'{"commands": [{"type": "ExpectVersion", "version": -1}]}', "a negative version"),
    (b'{"commands": [{"type": "ExpectVersion", "version": 1.5}]}', "half a version"),
    (b'{"commands": [{"type": "ExpectVersion", "version": "1"}]}', "a version as text"),
    (b'{"commands": [{"type": "ExpectVersion", "version": 9007199254740992}]}', "2^53"),
    (b'{"commands": [{"type": "Delete", "key": ""}]}', "an empty key"),
    (b'{"commands": [{"type": "Delete", "key": "YQ=="}], "source": 1}', "a number as source"),
    (b'{"commands": [{"type": "Delete", "key": "YQ=="}], "commands": []}', "a key twice"),
    (b'{"commands": [{"type": "Delete", "key": "YQ=="}]} x', "something behind it"),
    (b"\xff\xfe", "no UTF-8"),
    (b"{commands: []}", "unquoted keys"),
]


@pytest.mark.parametrize(("body", "what"), BAD_COMMITS, ids=[what for _, what in BAD_COMMITS])
def test_a_commit_that_is_not_as_it_should_be(
    caller: Caller, log: str, body: bytes, what: str
) -> None:
    answer = caller.ask("POST", f"{log}/commits", body)
    assert answer.refusal == (400, "BAD_REQUEST"), what
    assert caller.ask("GET", log).content["version"] == 1


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "application/cbor", ""]
)
def test_another_content_type_is_not_read(caller: Caller, log: str, content_type: str) -> None:
    body = to_json({"commands": [upsert("x", "1")]}).encode()
    answer = caller.ask("POST", f"{log}/commits", body, headers={"Content-Type": content_type})
    assert answer.refusal == (415, "UNSUPPORTED_MEDIA")


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "x"])
def test_a_coding_is_not_undone(caller: Caller, log: str, coding: str) -> None:
    answer = caller.ask(
        "POST", f"{log}/commits", {"commands": []}, headers={"Content-Encoding": coding}
    )
    assert answer.refusal == (415, "UNSUPPORTED_MEDIA")


ROUTES = [
    ("PUT", "/v2/names/YQ?kind=opaque"),
    ("GET", "/v2/names/YQ?kind=opaque"),
    ("GET", "/v2/logs"),
    ("GET", "{log}"),
    ("DELETE", "{log}"),
    ("POST", "{log}/commits"),
    ("GET", "{log}/commits"),
    ("GET", "{log}/diff"),
    ("GET", "{log}/entries/YQ"),
    ("GET", "{log}/entries/YQ/history"),
    ("POST", "{log}/entries:batchGet"),
    ("GET", "{log}/versions"),
    ("POST", "/v2/wait"),
]
CREDENTIALS = {
    "none": "",
    "garbage": "Bearer garbage",
    "another scheme": "Basic YTpi",
    "a key that nobody has": "Bearer ik_0123456789abcdef_" + "x" * 43,
}


@pytest.mark.parametrize("credential", CREDENTIALS)
@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_every_route_asks_who_it_is(
    caller: Caller, log: str, method: str, path: str, credential: str
) -> None:
    headers = {"Authorization": CREDENTIALS[credential]} if CREDENTIALS[credential] else {}
    body: dict[str, str] | None = {} if method in ("PUT", "POST") else None
    answer = caller.ask(method, path.format(log=log), body, headers=headers, apikey="")
    assert answer.refusal == (401, "BAD_API_KEY")


@pytest.mark.parametrize(("method", "path"), [r for r in ROUTES if "{log}" in r[1]])
def test_a_log_that_nobody_made_is_absent(caller: Caller, method: str, path: str) -> None:
    absent = f"/v2/logs/{url64(bytes(32))}"
    bodies: dict[str, dict[str, Any]] = {
        "commits": {"commands": [upsert("a", "1")]},
        "batchGet": {"keys": [b64("a")]},
    }
    body = next((b for name, b in bodies.items() if path.endswith(name)), None)
    answer = caller.ask(method, path.format(log=absent), body if method == "POST" else None)
    assert answer.refusal == (404, "NONEXISTENT_LOG")


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/v2/logs"), ("PUT", "/v2/wait"), ("PATCH", "{log}"), ("DELETE", "{log}/diff")],
)
def test_another_method_is_not_allowed(caller: Caller, log: str, method: str, path: str) -> None:
    answer = caller.ask(method, path.format(log=log))
    assert answer.refusal == (405, "METHOD_NOT_ALLOWED")


@pytest.mark.parametrize("database", ["", "a/b", "a b", "x" * 65, "é"])
def test_a_database_with_a_bad_name(caller: Caller, database: str) -> None:
    answer = caller.ask("GET", "/v2/logs", headers={"Indelible-Database": database})
    assert answer.refusal == (400, "BAD_REQUEST")


def test_databases_are_worlds_of_their_own(caller: Caller, log_name: str) -> None:
    log = caller.make_log(log_name)
    other = {"Indelible-Database": "other"}
    assert caller.ask("GET", log, headers=other).code == "NONEXISTENT_LOG"
    name = opaque_name(log_name)
    assert caller.ask("GET", name, headers=other).status == 404
    assert caller.ask("PUT", name, {}, headers=other).headers["Location"] != log


V1_BAD = {
    "no JSON": (b"nonsense", 400, "BAD_REQUEST"),
    "empty": (b"", 400, "BAD_REQUEST"),
    "no credentials": (b'{"logName": "x"}', 401, "BAD_API_KEY"),
    "a wrong key": (
        b'{"authinfo": {"customer_id": "x", "apikey": "ik_y"}, "logName": "x"}',
        401,
        "BAD_API_KEY",
    ),
}


@pytest.mark.parametrize("verb", ["create", "update", "diff"])
@pytest.mark.parametrize("what", V1_BAD)
def test_v1_refuses(caller: Caller, verb: str, what: str) -> None:
    body, status, code = V1_BAD[what]
    answer = caller.say(verb, body)
    assert answer.refusal == (status, code)


@pytest.mark.parametrize(
    ("members", "status", "code"),
    [
        ({"fromVersion": 2}, 404, "NONEXISTENT_VERSION"),
        ({"toVersion": 2}, 404, "NONEXISTENT_VERSION"),
        ({"waitSeconds": 61}, 400, "BAD_REQUEST"),
        ({"waitSeconds": -1}, 400, "BAD_REQUEST"),
        ({"limit": 51}, 400, "BAD_REQUEST"),
        ({"limit": -1}, 400, "BAD_REQUEST"),
        ({"orderResultsBy": "value"}, 400, "BAD_REQUEST"),
        ({"unknown": 1}, 400, "BAD_REQUEST"),
        ({"logName": "nobody made this one"}, 404, "NONEXISTENT_LOG"),
    ],
)
def test_v1_diff_refuses(
    caller: Caller, log: str, members: dict[str, object], status: int, code: str
) -> None:
    answer = caller.say("diff", {"logName": "the log of the refusals"} | members)
    assert answer.refusal == (status, code)


LENIENT = [
    "{{authinfo: {a}, logName: '{n}'}}",
    "{{'authInfo': {a}, 'logName': '{n}', fromVersion: '0'}}",
    "{{authinfo: {a}, logName: \"{n}\", limit: '50', waitSeconds: '0'}}",
    "{{authinfo: {a}, logName: '{n}', /* all of it */ orderResultsBy: 'key'}}",
    "{{authinfo: {a}, logName: '{n}',}}",
    "  {{\n\tauthinfo: {a}, logName: '{n}'\n}}\n",
]


@pytest.mark.parametrize("form", LENIENT)
def test_v1_takes_what_its_tour_writes(caller: Caller, log: str, form: str) -> None:
    credentials = to_json(caller.authinfo)
    answer = caller.say("diff", form.format(a=credentials, n="the log of the refusals"))
    assert answer.status == 200, answer.body
    assert answer.content["toVersion"] == 1

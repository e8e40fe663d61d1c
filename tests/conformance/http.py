"""Requests and answers; the processes of a service asked in turn; what holds of every answer."""

import base64
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit

import msgpack

from tests.conformance.codes import CODES

SECONDS = 75.0
JSON = "application/json"
MSGPACK = "application/msgpack"
PROBLEM = {
    "type",
    "title",
    "status",
    "code",
    "codeNumber",
    "message",
    "details",
    "retryable",
    "may_have_applied",
    "request_id",
}
V1_PROBLEM = {"code", "codeNumber", "message", "details"}
ROUTING = ("NO_SUCH_ROUTE", "METHOD_NOT_ALLOWED")  # answered before there is a protocol
ABOUT_ONE_LOG = ("/v2/logs/", "/v2/names/")


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Message
    body: bytes

    @property
    def content_type(self) -> str:
        return str(self.headers["Content-Type"] or "").partition(";")[0]

    @property
    def content(self) -> Any:
        """What the body says, in whichever of the two forms."""
        if self.content_type.endswith("msgpack"):
            return msgpack.unpackb(self.body)
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.content["code"])

    @property
    def refusal(self) -> tuple[int, str]:
        return self.status, self.code

    @property
    def version(self) -> int:
        """The log's version, as the header tells it."""
        return int(self.headers["Indelible-Version"])


@dataclass(frozen=True)
class Credentials:
    customer_id: str
    apikey: str


@dataclass(frozen=True)
class Target:
    """`urls` are of processes of one service, `stranger` is another tenant of it."""

    urls: Sequence[str]
    me: Credentials
    stranger: Credentials | None = None
    revoked: Credentials | None = None


class Caller:
    """Asks with an API key; each request goes to the next process."""

    def __init__(self, target: Target, *, by: Credentials | None = None) -> None:
        self.by = by or target.me
        self._hosts = itertools.cycle([urlsplit(url).netloc for url in target.urls])
        self._connections: dict[str, HTTPConnection] = {}

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        apikey: str | None = None,
        form: str = JSON,
    ) -> Answer:
        """`body` is bytes as they are, or something to be encoded; an empty `apikey` sends none.

        The answer is asked for in the same `form`.
        """
        sent = dict(headers or {})
        key = self.by.apikey if apikey is None else apikey
        if key:
            sent.setdefault("Authorization", f"Bearer {key}")
        data = body
        if body is not None and not isinstance(body, bytes):
            data = msgpack.packb(body) if form == MSGPACK else to_json(body).encode()
        if data is not None:
            sent.setdefault("Content-Type", form)
        elif form != JSON:
            sent.setdefault("Accept", form)
        answer = self._exchange(method, path, data, sent)
        check_manners(method, path, answer)
        return answer

    def _exchange(self, method: str, path: str, data: Any, sent: Mapping[str, str]) -> Answer:
        host = next(self._hosts)
        for attempt in (1, 2):  # an idle connection may have been closed meanwhile
            connection = self._connections.setdefault(host, HTTPConnection(host, timeout=SECONDS))
            try:
                connection.request(method, path, data, sent)
                response = connection.getresponse()
                return Answer(response.status, response.headers, response.read())
            except (OSError, HTTPException):
                connection.close()
                del self._connections[host]
                if attempt == 2:
                    raise
        raise AssertionError

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()

    # What many cases begin with.

    def make_log(self, name: str, group: str = "") -> str:
        """The path of an opaque log that is there now."""
        made = self.ask("PUT", opaque_name(name), {"group": group})
        assert made.status in (200, 201), made.body
        return str(made.headers["Location"])

    def commit(self, log: str, *commands: Mapping[str, Any], **headers: str) -> Answer:
        return self.ask("POST", f"{log}/commits", {"commands": list(commands)}, headers=headers)

    def say(self, verb: str, body: str | bytes | Mapping[str, Any], **headers: str) -> Answer:
        """A request of the original protocol; a mapping gets the credentials."""
        if isinstance(body, Mapping):
            body = to_json({"authinfo": self.authinfo, **body})
        data = body.encode() if isinstance(body, str) else body
        return self.ask("POST", f"/v1/log/{verb}", data, apikey="", headers=headers)

    def say_update(self, name: str, *commands: Mapping[str, Any]) -> Answer:
        header = {"authinfo": self.authinfo, "logName": name}
        return self.say("update", "".join(map(to_json, (header, *commands))))

    @property
    def authinfo(self) -> dict[str, str]:
        return {"customer_id": self.by.customer_id, "apikey": self.by.apikey}


def check_manners(method: str, path: str, answer: Answer) -> None:
    """What PROTOCOL.md says of every answer, whatever was asked."""
    told = f"{method} {path}: {answer.status} {answer.body[:300]!r}"
    assert answer.status < 500, told
    assert answer.headers["Indelible-Request-Id"], told
    if answer.status >= 400 and method != "HEAD":
        check_problem(path, answer)
    elif path.startswith(ABOUT_ONE_LOG):
        assert answer.version >= 0, told
        assert int(answer.headers["Indelible-Incarnation"]) >= 1, told


def check_problem(path: str, answer: Answer) -> None:
    problem = answer.content
    code = CODES[problem["code"]]
    assert (answer.status, problem["codeNumber"]) == (code.status, code.number), problem
    assert problem["message"], problem
    if path.startswith("/v1/log/") and problem["code"] not in ROUTING:
        assert problem.keys() == V1_PROBLEM
        assert answer.content_type == JSON
        return
    assert problem.keys() == PROBLEM
    assert answer.content_type in ("application/problem+json", "application/problem+msgpack")
    assert problem["status"] == answer.status
    assert problem["type"].endswith(f"#{problem['code']}")
    promised = problem["retryable"], problem["may_have_applied"]
    assert promised == (code.retryable, code.may_have_applied)
    assert problem["request_id"] == answer.headers["Indelible-Request-Id"]
    if "current_version" in problem["details"]:
        assert problem["details"]["current_version"] == answer.version


def to_json(value: Any) -> str:
    """Bytes as base64, as both protocols want them."""
    return json.dumps(value, default=b64)


def b64(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


def blob(held: str | bytes) -> bytes:
    """The bytes that an answer's member stands for, in either form."""
    return held if isinstance(held, bytes) else base64.b64decode(held, validate=True)


def url64(text: str | bytes) -> str:
    data = text.encode() if isinstance(text, str) else text
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def opaque_name(name: str | bytes) -> str:
    return f"/v2/names/{url64(name)}?kind=opaque"


def plain(kind: str, key: str, value: str | None = None) -> dict[str, str | bytes]:
    """A command on a key of an opaque log."""
    made: dict[str, str | bytes] = {"type": kind, "key": key.encode()}
    return made if value is None else made | {"value": value.encode()}


def upsert(key: str, value: str) -> dict[str, str | bytes]:
    return plain("Upsert", key, value)

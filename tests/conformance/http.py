"""Requests and answers; the processes of a service asked in turn."""

import base64
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit

SECONDS = 75.0


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Message
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.json["code"])


@dataclass(frozen=True)
class Target:
    """`urls` are of processes of one service."""

    urls: Sequence[str]
    customer_id: str
    apikey: str


class Caller:
    """Asks with an API key; each request goes to the next process."""

    def __init__(self, target: Target) -> None:
        self.target = target
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
    ) -> Answer:
        """`body` is bytes as they are, or something for JSON; an empty `apikey` sends none."""
        host = next(self._hosts)
        sent = dict(headers or {})
        key = self.target.apikey if apikey is None else apikey
        if key:
            sent.setdefault("Authorization", f"Bearer {key}")
        data = body
        if body is not None and not isinstance(body, bytes):
            data = json.dumps(body).encode()
        if data is not None:
            sent.setdefault("Content-Type", "application/json")
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

    def make_log(self, name: str) -> str:
        """The path of an opaque log that is there now."""
        made = self.ask("PUT", f"/v2/names/{url64(name)}?kind=opaque", {})
        assert made.status in (200, 201), made.body
        return str(made.headers["Location"])

    def commit(self, log: str, *commands: Mapping[str, Any], **headers: str) -> Answer:
        return self.ask("POST", f"{log}/commits", {"commands": list(commands)}, headers=headers)

    def say(self, verb: str, body: str | bytes | Mapping[str, Any]) -> Answer:
        """A request of the original protocol; a mapping gets the credentials."""
        if isinstance(body, Mapping):
            body = json.dumps({"authinfo": self.authinfo, **body})
        data = body.encode() if isinstance(body, str) else body
        return self.ask("POST", f"/v1/log/{verb}", data, apikey="")

    @property
    def authinfo(self) -> dict[str, str]:
        return {"customer_id": self.target.customer_id, "apikey": self.target.apikey}


def b64(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


def url64(text: str | bytes) -> str:
    data = text.encode() if isinstance(text, str) else text
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def upsert(key: str, value: str) -> dict[str, str]:
    return {"type": "Upsert", "key": b64(key), "value": b64(value)}

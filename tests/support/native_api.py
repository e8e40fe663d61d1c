"""The native HTTP API as a foreign client sees it: opaque logs, msgpack, keys as text.

Written from the protocol's text alone, without the product's code, over any number of API
processes. Never sends anything twice by itself; says of each request whether it may have
had an effect. Knows no rule of what a right answer is.
"""

import asyncio
import base64
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, NamedTuple

import aiohttp
import msgpack

from tests.support.operations import Acked, Change, Command, Op, Refused, Rejected

_TYPES = {
    Op.UPSERT: "Upsert",
    Op.INSERT: "Insert",
    Op.UPDATE: "Update",
    Op.REMOVE: "Remove",
    Op.DELETE: "Delete",
    Op.EXPECT_ABSENT: "ExpectAbsent",
    Op.EXPECT_ENTRY: "ExpectEntry",
    Op.EXPECT_VERSION: "ExpectVersion",
}
_WITH_VALUE = {Op.UPSERT, Op.INSERT, Op.UPDATE, Op.REMOVE}
_JUDGED = {"UNEXPECTED_VERSION", "UNEXPECTED_VALUE", "UNEXPECTED_ENTRY", "NONEXISTENT_VALUE"}


class NotDone(Exception):
    """The request certainly had no effect; the same one may work later. Holds the reason."""


class InDoubt(Exception):
    """The request may have had its effect: no answer came, or one that says so."""


class Unexpected(Exception):
    """An answer that the protocol does not foresee here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: Any

    @property
    def code(self) -> str:
        return str(self.body.get("code")) if isinstance(self.body, dict) else ""

    @property
    def log_version(self) -> int:
        """The log's current version, which every answer about a log carries."""
        return int(self.headers["Indelible-Version"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """An acknowledgement, and whether it was given before to the same idempotency key."""

    outcome: Acked
    repeated: bool
    durability: str


class Contents(NamedTuple):
    """All entries of a log at a version: (key, value, introducing version)."""

    version: int
    entries: list[tuple[str, str, int]]


class DiffAnswer(NamedTuple):
    """`current` is the log's version beside the first page of the diff."""

    to_version: int
    changes: list[Change]
    current: int


class NativeApi:
    """Requests go to a random one of `endpoints` (base URLs), a list that may change."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        *,
        endpoints: Sequence[str],
        apikey: str,
        rng: random.Random,
        request_seconds: float = 6.0,
    ) -> None:
        self._session = session
        self._endpoints = endpoints
        self._rng = rng
        self._request_seconds = request_seconds
        self._headers = {
            "Authorization": f"Bearer {apikey}",
            "Accept": "application/msgpack",
        }

    async def ask(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str | int] | None = None,
        headers: Mapping[str, str] | None = None,
        extra_seconds: float = 0.0,
    ) -> Answer:
        """
        Raises:
            NotDone: no connection, or an error that says it did nothing and may be tried again.
            InDoubt: no whole answer, or an error that says it may have applied.
        """
        if not self._endpoints:
            raise NotDone("no process is up")
        url = self._rng.choice(self._endpoints) + path
        data = None if body is None else msgpack.packb(body)
        sent_headers = {**self._headers, **(headers or {})}
        if data is not None:
            sent_headers["Content-Type"] = "application/msgpack"
        timeout = aiohttp.ClientTimeout(total=self._request_seconds + extra_seconds)
        try:
            async with self._session.request(
                method, url, data=data, params=query, headers=sent_headers, timeout=timeout
            ) as response:
                raw = await response.read()
                answer = Answer(
                    status=response.status,
                    headers=response.headers,
                    body=_decoded(raw, response.content_type),
                )
        except aiohttp.ClientConnectorError as error:
            raise NotDone(f"no connection: {error}") from error
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise InDoubt(repr(error)) from error
        if answer.status >= HTTPStatus.BAD_REQUEST and isinstance(answer.body, dict):
            if answer.body["may_have_applied"]:
                raise InDoubt(f"{answer.status} {answer.code}")
            if answer.body["retryable"]:
                raise NotDone(answer.code)
        return answer

    async def create_log(self, name: str) -> bytes:
        path = f"/v2/names/{_base64url(name.encode())}"
        answer = await self.ask("PUT", path, query={"kind": "opaque"}, body={})
        if answer.status not in (HTTPStatus.OK, HTTPStatus.CREATED):
            raise Unexpected(str(answer))
        return bytes(answer.body["description"]["log_id"])

    async def commit(
        self, log_id: bytes, commands: Sequence[Command], *, idempotency_key: str | None
    ) -> Committed | Rejected | Refused:
        answer = await self.ask(
            "POST",
            f"{_path(log_id)}/commits",
            body={"commands": [_command(command) for command in commands]},
            headers={"Idempotency-Key": idempotency_key} if idempotency_key else {},
        )
        if answer.status in (HTTPStatus.OK, HTTPStatus.CREATED):
            version, changed = answer.body["version"], answer.body["changed"]
            if changed != (answer.status == HTTPStatus.CREATED):
                raise Unexpected(str(answer))
            return Committed(
                outcome=Acked(version=version, changed=changed),
                repeated=answer.body["repeated"],
                durability=answer.body["durability"],
            )
        if answer.code in _JUDGED:
            details = answer.body["details"]
            return Rejected(
                code=answer.code, index=details["index"], current=details["current_version"]
            )
        if answer.status == HTTPStatus.INSUFFICIENT_STORAGE:
            return Refused(code=answer.code)
        raise Unexpected(str(answer))

    async def diff(
        self, log_id: bytes, from_version: int, to_version: int | None = None, *, limit: int = 1_000
    ) -> DiffAnswer:
        """All pages. Without `to_version`, to the version current at the first page."""
        query: dict[str, str | int] = {"from": from_version, "limit": limit}
        if to_version is not None:
            query["to"] = to_version
        answer = await self._get_diff(log_id, query)
        return await self._all_pages(log_id, answer, limit)

    async def wait(self, log_id: bytes, since: int, *, wait_seconds: float) -> DiffAnswer | None:
        """The diff to the version that came after `since`; None when the time passed first."""
        query: dict[str, str | int] = {"from": since, "wait": f"{wait_seconds:.3f}"}
        answer = await self._get_diff(log_id, query, extra_seconds=wait_seconds)
        if answer.status == HTTPStatus.NO_CONTENT:
            if answer.log_version != since:
                raise Unexpected(f"nothing after {since}, yet the log is at {answer.log_version}")
            return None
        return await self._all_pages(log_id, answer, 1_000)

    async def wait_for_any(
        self, known: Mapping[bytes, int], *, wait_seconds: float
    ) -> dict[bytes, int]:
        """The logs that are beyond the version known, with the version they are at."""
        answer = await self.ask(
            "POST",
            "/v2/wait",
            body={
                "logs": [{"log_id": log, "version": version} for log, version in known.items()],
                "wait": wait_seconds,
            },
            extra_seconds=wait_seconds,
        )
        if answer.status != HTTPStatus.OK or answer.body["gone"]:
            raise Unexpected(str(answer))
        return {moved["log_id"]: moved["version"] for moved in answer.body["moved"]}

    async def entries(self, log_id: bytes, keys: Sequence[str]) -> Contents:
        """Those of `keys` that the log holds at its current version."""
        answer = await self.ask(
            "POST",
            f"{_path(log_id)}/entries:batchGet",
            body={"keys": [key.encode() for key in keys]},
        )
        if answer.status != HTTPStatus.OK:
            raise Unexpected(str(answer))
        entries = [
            (_text(entry["key"]), _text(entry["value"]), entry["version"])
            for entry in answer.body["entries"]
        ]
        return Contents(answer.body["version"], entries)

    async def _get_diff(
        self, log_id: bytes, query: Mapping[str, str | int], *, extra_seconds: float = 0.0
    ) -> Answer:
        answer = await self.ask(
            "GET", f"{_path(log_id)}/diff", query=query, extra_seconds=extra_seconds
        )
        if answer.status not in (HTTPStatus.OK, HTTPStatus.NO_CONTENT):
            raise Unexpected(str(answer))
        return answer

    async def _all_pages(self, log_id: bytes, first: Answer, limit: int) -> DiffAnswer:
        changes = [_change(change) for change in first.body["changes"]]
        page = first
        while page.body["cursor"] is not None:
            page = await self._get_diff(log_id, {"cursor": page.body["cursor"], "limit": limit})
            if page.body["to"] != first.body["to"]:
                raise Unexpected(str(page))
            changes += [_change(change) for change in page.body["changes"]]
        return DiffAnswer(first.body["to"], changes, first.log_version)


async def pause_before_retry(rng: random.Random, attempt: int) -> None:
    """Full jitter below 10, 20, 40 … 200 ms."""
    await asyncio.sleep(rng.uniform(0, min(0.2, 0.01 * 2**attempt)))


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _path(log_id: bytes) -> str:
    return f"/v2/logs/{_base64url(log_id)}"


def _decoded(raw: bytes, content_type: str) -> Any:
    return msgpack.unpackb(raw) if raw and content_type.endswith("msgpack") else raw


def _command(command: Command) -> dict[str, Any]:
    plain: dict[str, Any] = {"type": _TYPES[command.op]}
    if command.op is not Op.EXPECT_VERSION:
        plain["key"] = command.key.encode()
    if command.op in _WITH_VALUE:
        plain["value"] = command.value.encode()
    if command.op in (Op.EXPECT_ENTRY, Op.EXPECT_VERSION):
        plain["version"] = command.version
    return plain


def _change(change: Mapping[str, Any]) -> Change:
    return Change(change["op"], _text(change["key"]), _text(change["value"]), change["version"])


def _text(told: bytes) -> str:
    """What nobody wrote need not be text; it is for who checks to say so."""
    return told.decode(errors="backslashreplace")

"""HTTP as bytes: requests made before the clock starts, answers taken apart as little as can be.

A general client would cost more than the servers that are measured. Reads only what the
servers here send (a length, never chunks); anything else fails loudly.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import msgpack
from indelible_protocol import paths
from indelible_protocol.commands import Op
from indelible_protocol.ids import LogId
from indelible_protocol.signing import SignedCommit

MSGPACK = "application/msgpack"
_VERSION = b"\r\nIndelible-Version: "
_LENGTH = b"\r\nContent-Length: "


class HttpAnswer(NamedTuple):
    """`version` is −1 where the answer tells none."""

    status: int
    version: int
    body: bytes


class UnreadableAnswerError(Exception):
    """Bytes that no server here should send."""


def request(
    method: str, path: str, *, apikey: str = "", body: bytes = b"", ticket: str = ""
) -> bytes:
    head = [
        f"{method} {path} HTTP/1.1",
        "Host: 127.0.0.1",
        f"Accept: {MSGPACK}",
    ]
    if apikey:
        head.append(f"Authorization: Bearer {apikey}")
    if ticket:
        head.append(f"Indelible-Ticket: {ticket}")
    if method != "GET":
        head += [f"Content-Type: {MSGPACK}", f"Content-Length: {len(body)}"]
    return "\r\n".join([*head, "", ""]).encode() + body


def opaque_body(sets: list[tuple[bytes, bytes]], *, expect_entry: int | None = None) -> bytes:
    """A commit that sets each key to its value.

    With `expect_entry`, only if the entry of the first key is of that version (0: absent).
    """
    commands: list[dict[str, object]] = []
    if expect_entry == 0:
        commands.append({"type": "ExpectAbsent", "key": sets[0][0]})
    elif expect_entry is not None:
        commands.append({"type": "ExpectEntry", "key": sets[0][0], "version": expect_entry})
    commands += [
        {"type": Op.UPSERT.name.capitalize(), "key": key, "value": value} for key, value in sets
    ]
    packed: bytes = msgpack.packb({"commands": commands})
    return packed


def sealed_body(commit: SignedCommit) -> bytes:
    packed: bytes = msgpack.packb(
        {"header": commit.header, "signature": commit.signature, "body": commit.body}
    )
    return packed


def commit_request(log_id: LogId, body: bytes, *, apikey: str, ticket: str = "") -> bytes:
    """With a ticket as a transaction sends it, which asks for entries too."""
    path = paths.of_log(paths.COMMITS, log_id) + ("?conflict=entries" if ticket else "")
    return request("POST", path, apikey=apikey, body=body, ticket=ticket)


def wait_request(log_id: LogId, since: int, *, apikey: str, wait_seconds: int) -> bytes:
    path = f"{paths.of_log(paths.DIFF, log_id)}?from={since}&wait={wait_seconds}"
    return request("GET", path, apikey=apikey)


def answer_end(data: bytes) -> int:
    """Where the first answer in `data` ends; −1 while it is not whole."""
    head_end = data.find(b"\r\n\r\n")
    if head_end < 0:
        return -1
    at = data.find(_LENGTH, 0, head_end)
    if at < 0:
        if data[9:12] == b"204":
            return head_end + 4
        raise UnreadableAnswerError(data[:200].decode(errors="replace"))
    at += len(_LENGTH)
    length = int(data[at : data.index(b"\r", at)])
    end = head_end + 4 + length
    return end if end <= len(data) else -1


def read_answer(data: bytes) -> HttpAnswer:
    """`data` is one whole answer."""
    head_end = data.index(b"\r\n\r\n")
    at = data.find(_VERSION, 0, head_end)
    version = -1
    if at >= 0:
        at += len(_VERSION)
        version = int(data[at : data.index(b"\r", at)])
    return HttpAnswer(int(data[9:12]), version, data[head_end + 4 :])


def _status(data: bytes) -> bytes:
    return data[9:12]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How a server's answers are told apart.

    `end_of` is as `answer_end`; `status_of` gives three digits, as of HTTP. `greeting` is sent
    first on each connection. A request of which no two are alike is made one by `numbered`.
    Where `exact`, nothing comes from the server but one answer to each request.
    """

    end_of: Callable[[bytes], int]
    status_of: Callable[[bytes], bytes]
    greeting: bytes = b""
    numbered: Callable[[bytes, int], bytes] | None = None
    exact: bool = False


OURS = Dialect(end_of=answer_end, status_of=_status, exact=True)


class Connection(asyncio.Protocol):
    """One kept-alive connection with at most one request under way.

    Subclasses say what happens with an answer; `lost` is set if the other side hangs up.
    """

    def __init__(self, dialect: Dialect = OURS) -> None:
        self.transport: asyncio.Transport | None = None
        self.lost = False
        self.dialect = dialect
        self._end_of = dialect.end_of
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if self.dialect.greeting:
            transport.write(self.dialect.greeting)

    def send(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        end = self._end_of(data)
        self._rest = b""
        if end == len(data):
            self.answered(data)
            return
        while end >= 0:
            if self.dialect.exact:
                raise UnreadableAnswerError("more than one answer to one request")
            self.answered(data[:end])
            data = data[end:]
            end = self._end_of(data) if data else -1
        self._rest = data

    def answered(self, data: bytes) -> None:
        """Takes one whole answer."""
        raise NotImplementedError

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()


class Asking(Connection):
    """A connection that is asked one thing at a time: `await asking.ask(request)`.

    `answered_at` is when the last byte of the last answer was read (`time.perf_counter`).
    """

    def __init__(self, dialect: Dialect = OURS) -> None:
        super().__init__(dialect)
        self.answered_at = 0.0
        self._answer: asyncio.Future[HttpAnswer] | None = None

    async def ask(self, data: bytes) -> HttpAnswer:
        self._answer = asyncio.get_running_loop().create_future()
        self.send(data)
        return await self._answer

    def answered(self, data: bytes) -> None:
        self.answered_at = time.perf_counter()
        assert self._answer is not None, "an answer without a request"
        if not self._answer.done():  # whoever asked may have been cancelled
            self._answer.set_result(self.read(data))

    def read(self, data: bytes) -> HttpAnswer:
        """What a whole answer says."""
        return read_answer(data)

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError("hung up"))


async def connect(connection: Connection, port: int) -> None:
    loop = asyncio.get_running_loop()
    await loop.create_connection(lambda: connection, "127.0.0.1", port)


async def asking(port: int) -> Asking:
    connection = Asking()
    await connect(connection, port)
    return connection

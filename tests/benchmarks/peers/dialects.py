"""Where answers end on the wires of other systems, and how requests are laid out for them.

Three wires: HTTP as Go and Node speak it (lengths and chunks), the text protocol of NATS, and
gRPC on HTTP/2 without encryption. Reads as little as can be; pure, but for the errors that
bytes give which no server here should send.
"""

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from tests.benchmarks.wire import Dialect, UnreadableAnswerError

_LENGTH = re.compile(rb"\r\nContent-Length: (\d+)\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\nTransfer-Encoding: chunked\r\n", re.IGNORECASE)
_BODILESS = (b"204", b"304")


def http_request(method: str, path: str, body: bytes = b"", content_type: str = "") -> bytes:
    head = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1"]
    if content_type:
        head.append(f"Content-Type: {content_type}")
    if method != "GET":
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*head, "", ""]).encode() + body


def _chunk_end(data: bytes, at: int) -> tuple[int, int]:
    """Where the chunk that begins at `at` ends, and its size; −1 while it is not whole."""
    line = data.find(b"\r\n", at)
    if line < 0:
        return -1, 0
    size = int(data[at:line], 16)
    end = line + 2 + size + 2
    return (end if end <= len(data) else -1), size


def http_end(data: bytes) -> int:
    """One whole answer, by its length or to its last chunk."""
    head = data.find(b"\r\n\r\n")
    if head < 0:
        return -1
    at = head + 4
    if data[9:12] in _BODILESS:
        return at
    if (length := _LENGTH.search(data, 0, head + 2)) is not None:
        end = at + int(length[1])
        return end if end <= len(data) else -1
    if _CHUNKED.search(data, 0, head + 2) is None:
        raise UnreadableAnswerError(data[:200].decode(errors="replace"))
    while True:
        at, size = _chunk_end(data, at)
        if at < 0 or not size:
            return at


def http_stream_end(data: bytes) -> int:
    """One chunk of a stream that never ends, the first with the head before it."""
    at = 0
    if data.startswith(b"HTTP/"):
        head = data.find(b"\r\n\r\n")
        if head < 0:
            return -1
        if _CHUNKED.search(data, 0, head + 2) is None:
            raise UnreadableAnswerError(data[:200].decode(errors="replace"))
        at = head + 4
    return _chunk_end(data, at)[0]


def http_status(data: bytes) -> bytes:
    return data[9:12]


HTTP = Dialect(end_of=http_end, status_of=http_status)
HTTP_STREAM = Dialect(end_of=http_stream_end, status_of=http_status)


def nats_end(data: bytes) -> int:
    """One message, with the lines before it that are none."""
    at = 0
    while (line := data.find(b"\r\n", at)) >= 0:
        words = data[at:line].split(b" ")
        if words[0] in (b"MSG", b"HMSG"):
            end = line + 2 + int(words[-1]) + 2
            return end if end <= len(data) else -1
        if words[0] == b"-ERR":
            raise UnreadableAnswerError(data[at:line].decode(errors="replace"))
        at = line + 2
    return -1


def nats_payload(data: bytes) -> bytes:
    """Of the last whole message in `data`; empty if it is a status alone, as of no responders."""
    at = max(data.rfind(b"\r\nMSG "), data.rfind(b"\r\nHMSG ")) + 2
    if at < 2:
        at = 0
    line = data.index(b"\r\n", at)
    return b"" if data[at:].startswith(b"HMSG") else data[line + 2 : -2]


def nats_status(data: bytes) -> bytes:
    """200 for the acknowledgement of a stored message."""
    payload = nats_payload(data)
    return b"200" if b'"seq":' in payload and b'"error"' not in payload else b"500"


NATS = Dialect(end_of=nats_end, status_of=nats_status)

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS, _GOAWAY, _WINDOW = 0, 1, 4, 7, 8
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1
_LARGEST_WINDOW = (1 << 31) - 1 - 65_535


class Frame(NamedTuple):
    """Of HTTP/2 (RFC 9113, section 4.1). `end` is where it ends in the data."""

    kind: int
    flags: int
    payload: bytes
    end: int


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def frames(data: bytes) -> Iterator[Frame]:
    """The whole ones."""
    at = 0
    while at + 9 <= len(data):
        end = at + 9 + int.from_bytes(data[at : at + 3], "big")
        if end > len(data):
            return
        yield Frame(data[at + 3], data[at + 4], data[at + 9 : end], end)
        at = end


def grpc_end(data: bytes) -> int:
    """The answer to one call, with the frames before it that belong to none."""
    for frame in frames(data):
        _refuse_goaway(frame)
        if frame.kind in (_DATA, _HEADERS) and frame.flags & _END_STREAM:
            return frame.end
    return -1


def grpc_stream_end(data: bytes) -> int:
    """One message of a stream that never ends."""
    for frame in frames(data):
        _refuse_goaway(frame)
        if frame.kind == _DATA and frame.payload:
            return frame.end
        if frame.kind == _HEADERS and frame.flags & _END_STREAM:
            raise UnreadableAnswerError("the stream ended")
    return -1


def _refuse_goaway(frame: Frame) -> None:
    if frame.kind == _GOAWAY:
        raise UnreadableAnswerError(frame.payload[8:].decode(errors="replace"))


def grpc_message(data: bytes) -> bytes:
    """What the answer holds; empty if it is an error alone."""
    return b"".join(frame.payload for frame in frames(data) if frame.kind == _DATA)[5:]


def grpc_status(data: bytes) -> bytes:
    return b"200" if grpc_message(data) else b"500"


def grpc_numbered(request: bytes, number: int) -> bytes:
    """The request as call `number` (from 0) of its connection: streams have odd numbers."""
    stream = struct.pack(">I", 2 * number + 1)
    data = 9 + int.from_bytes(request[:3], "big")
    return request[:5] + stream + request[9 : data + 5] + stream + request[data + 9 :]


def grpc_call(method: str, message: bytes, *, ends: bool = True) -> bytes:
    """Headers as literals that are not indexed (RFC 7541, section 6.2.2), then one message."""
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": method,
        ":authority": "127.0.0.1",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    block = b"".join(
        b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        for name, value in headers.items()
    )
    framed = b"\0" + struct.pack(">I", len(message)) + message
    return _frame(_HEADERS, _END_HEADERS, 1, block) + _frame(
        _DATA, _END_STREAM if ends else 0, 1, framed
    )


# What both sides must say first; and room for all that the server will ever answer.
_GREETING = (
    _PREFACE
    + _frame(_SETTINGS, 0, 0, b"")
    + _frame(_SETTINGS, _ACK, 0, b"")
    + _frame(_WINDOW, 0, 0, struct.pack(">I", _LARGEST_WINDOW))
)

GRPC = Dialect(end_of=grpc_end, status_of=grpc_status, numbered=grpc_numbered, greeting=_GREETING)
GRPC_STREAM = Dialect(end_of=grpc_stream_end, status_of=grpc_status, greeting=_GREETING)


def field(number: int, value: bytes | int) -> bytes:
    """One field of a Protocol Buffers message: bytes, or a number."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    made = bytearray()
    while value > 127:
        made.append(value & 127 | 128)
        value >>= 7
    made.append(value)
    return bytes(made)

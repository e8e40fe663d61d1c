"""The heads of plain requests, read by ourselves: a client's headers are the same each time.

aiohttp's parser takes four times as long, and its queue and its headers more. Plain is a head that
nobody could read otherwise: visible ASCII, each line written one way, each name once, a body of a
length that is told. All else is aiohttp's to judge. Knows nothing of what a request is about.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from aiohttp.http import HttpVersion11, RawRequestMessage

MAX_HEAD_BYTES = 2_048
_END = b"\r\n\r\n"
_REQUEST_LINE = re.compile(rb"(GET|POST|PUT|DELETE) (/[!-~]*) HTTP/1\.1\r\n")
_LINES = re.compile(rb"(?:[A-Za-z][A-Za-z0-9-]*: [!-~](?:[ -~]*[!-~])?\r\n)+")
_LENGTH = re.compile("0|[1-9][0-9]{0,8}")

_READ = frozenset(
    {"authorization", "content-type", "accept", "idempotency-key", "indelible-database"}
)
_FRAMING = frozenset({"expect", "transfer-encoding", "upgrade"})
_UNUSUAL = _FRAMING | {"content-encoding", "indelible-ticket"}


class RequestHead(NamedTuple):
    """`headers` are those that a lane reads, by their names in small letters."""

    method: str
    target: str
    headers: Mapping[str, str]


class _Lines(NamedTuple):
    body_bytes: int
    headers: Mapping[str, str] | None


def framed(data: bytes) -> tuple[int, int, RequestHead | None] | None:
    """The request that `data` begins with: its bytes in all, where its body begins, and its head,
    or None there if no lane reads such a one.

    None if the head is not plain, or not whole.
    """
    asked = _REQUEST_LINE.match(data)
    end = data.find(_END, 0, MAX_HEAD_BYTES) + 2
    lines = _lines(data[asked.end() : end]) if asked is not None else None
    if asked is None or lines is None:
        return None
    head = None
    if lines.headers is not None:
        method, target = asked.groups()
        head = RequestHead(method.decode(), target.decode(), lines.headers)
    body_at = end + 2
    return body_at + lines.body_bytes, body_at, head


@lru_cache(maxsize=1 << 10)
def _lines(lines: bytes) -> _Lines | None:
    if _LINES.fullmatch(lines) is None:
        return None
    told: dict[str, str] = {}
    for line in lines.decode().split("\r\n")[:-1]:
        name, _, value = line.partition(": ")
        name = name.lower()
        if name in told:
            return None
        told[name] = value
    length = told.get("content-length", "0")
    if (
        "host" not in told
        or not _FRAMING.isdisjoint(told)
        or told.get("connection", "keep-alive").lower() != "keep-alive"
        or _LENGTH.fullmatch(length) is None
    ):
        return None
    headers = None
    if _UNUSUAL.isdisjoint(told):
        headers = {name: told[name] for name in _READ & told.keys()}
    return _Lines(int(length), headers)


def parsed(message: RawRequestMessage) -> RequestHead | None:
    """The head that aiohttp read; None if it is one that no lane reads."""
    if message.version != HttpVersion11 or message.should_close or message.upgrade:
        return None
    headers: dict[str, str] = {}
    for raw_name, raw_value in message.raw_headers:
        name = raw_name.decode("latin-1").lower()
        if name in _UNUSUAL or name in headers:
            return None
        if name in _READ:
            if not raw_value.isascii():
                return None
            headers[name] = raw_value.decode("ascii")
    return RequestHead(message.method, message.path, headers)

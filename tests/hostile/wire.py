"""Raw bytes to the service and every answer that comes back; no client stands between."""

import asyncio
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import msgspec

ANSWER_SECONDS = 15.0
QUIET_SECONDS = 0.3
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class RawAnswer:
    status: int
    head: bytes
    body: bytes

    @property
    def code(self) -> str:
        """The error's word; empty where there is none."""
        try:
            told: dict[str, Any] = msgspec.json.decode(self.body, type=dict[str, Any])
        except msgspec.DecodeError:
            return ""
        return str(told.get("code", ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """All that came back on one connection, and whether the service closed it."""

    answers: list[RawAnswer]
    closed: bool


async def exchange(url: str, *pieces: bytes) -> Exchange:
    """Sends `pieces`, each in a segment of its own; listens until the connection is closed or
    has been quiet for a while after the first answer."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    raw, closed = b"", False
    try:
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0)
        while True:
            wait = QUIET_SECONDS if _answers(raw) else ANSWER_SECONDS
            async with asyncio.timeout(wait):
                more = await reader.read(1 << 16)
            if not more:
                closed = True
                break
            raw += more
    except ConnectionError:
        closed = True
    except TimeoutError:
        pass
    finally:
        writer.close()
    return Exchange(answers=_answers(raw), closed=closed)


def _answers(raw: bytes) -> list[RawAnswer]:
    """Whole answers in `raw`, the interim 100 left out."""
    answers = []
    while b"\r\n\r\n" in raw:
        head, _, rest = raw.partition(b"\r\n\r\n")
        found = _LENGTH.search(head)
        length = int(found[1]) if found else 0
        if len(rest) < length:
            break
        status = int(head.split(b" ", 2)[1])
        if status != 100:
            answers.append(RawAnswer(status=status, head=head, body=rest[:length]))
        raw = rest[length:]
    return answers


def request(method: str, path: str, *headers: str, body: bytes = b"") -> bytes:
    """A well-formed HTTP/1.1 request; the caller's headers come before Content-Length."""
    lines = [f"{method} {path} HTTP/1.1", "Host: service", *headers]
    if body or method in ("POST", "PUT"):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body

"""A reader of server-sent events, written from the standard alone; knows no log.

Source: HTML Living Standard, 9.2.6 (interpreting an event stream).
"""

from collections.abc import AsyncIterator
from typing import NamedTuple

import aiohttp


class Event(NamedTuple):
    """`last_id` is what a reader sends as Last-Event-ID if it has to come back after it."""

    name: str
    data: str
    last_id: str


class EventStream:
    """Iterating ends where the stream ends, and raises if it was cut."""

    def __init__(self, response: aiohttp.ClientResponse, last_id: str = "") -> None:
        self.last_id = last_id
        self.retry_ms: list[int] = []
        self.comments = 0
        self.whole = True  # nothing was begun and not ended by an empty line
        self._response = response
        self._events = self._read()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self._events

    async def next(self) -> Event:
        return await anext(self._events)

    async def _read(self) -> AsyncIterator[Event]:
        name, data, last_id = "", "", self.last_id
        async for line in self._lines():
            self.whole = not line
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if not line:
                self.last_id = last_id
                if data:
                    yield Event(name or "message", data.removesuffix("\n"), last_id)
                name, data = "", ""
            elif not field:
                self.comments += 1
            elif field == "event":
                name = value
            elif field == "data":
                data += value + "\n"
            elif field == "id" and "\0" not in value:
                last_id = value
            elif field == "retry" and value.isdecimal():
                self.retry_ms.append(int(value))

    async def _lines(self) -> AsyncIterator[str]:
        rest: list[bytes] = []
        async for piece in self._response.content.iter_any():
            *whole, last = piece.split(b"\n")
            for line in whole:
                yield (b"".join(rest) + line).decode()
                rest = []
            rest.append(last)
        self.whole = self.whole and not any(rest)

"""A faulty wire between the client and the service: TCP on loopback, faults on demand."""

import asyncio
from types import TracebackType
from urllib.parse import urlsplit

_CHUNK_BYTES = 1 << 16


class Wire:
    """Use as `async with`; then `url` stands for the service at `service_url`.

    `lose_answers` is how many of the next answers are cut, each after `cut_at` bytes, with
    the connection. While `swallow` is set, requests get no further than here; while `divert`
    is set, they are kept in `diverted` and their connection is cut.
    """

    def __init__(self, service_url: str) -> None:
        parts = urlsplit(service_url)
        self._service = (parts.hostname, parts.port)
        self.lose_answers = 0
        self.cut_at = 0
        self.swallow = False
        self.divert = False
        self.diverted: list[bytes] = []
        self.requests = 0
        self.connections = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        host, port = self._server.sockets[0].getsockname()
        return f"http://{host}:{port}"

    async def __aenter__(self) -> "Wire":
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._server.close()
        await self.cut()

    async def cut(self) -> None:
        """Ends every connection."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def deliver(self) -> bytes:
        """Sends what was diverted, late; the service's answer."""
        reader, writer = await asyncio.open_connection(*self._service)
        writer.write(b"".join(self.diverted))
        self.diverted.clear()
        answer = await reader.readuntil(b"\r\n")
        writer.close()
        return answer

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._connect(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            there, onward = await asyncio.open_connection(*self._service)
            try:
                await self._pass(reader, onward, there, writer)
            finally:
                onward.close()
        except OSError:
            writer.transport.abort()
        finally:
            writer.close()
            self.connections -= 1

    async def _pass(
        self,
        reader: asyncio.StreamReader,
        onward: asyncio.StreamWriter,
        there: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        """Both ways, until one of them ends."""
        ways = [
            asyncio.create_task(self._requests(reader, onward)),
            asyncio.create_task(self._answers(there, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _requests(self, reader: asyncio.StreamReader, onward: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(_CHUNK_BYTES):
            self.requests += chunk.count(b" HTTP/1.1\r\n")
            if self.divert:
                self.diverted.append(chunk)
                while not _whole(b"".join(self.diverted)):
                    self.diverted.append(await reader.read(_CHUNK_BYTES))
                return
            if not self.swallow:
                onward.write(chunk)
                await onward.drain()

    async def _answers(self, there: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await there.read(_CHUNK_BYTES):
            if self.lose_answers:
                self.lose_answers -= 1
                writer.write(chunk[: self.cut_at])
                return
            writer.write(chunk)
            await writer.drain()


def _whole(request: bytes) -> bool:
    head, found, body = request.partition(b"\r\n\r\n")
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return bool(found) and len(body) >= int(value)
    return bool(found)

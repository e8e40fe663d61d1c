"""A faulty wire between an API process and the store.

Passes bytes both ways until told otherwise. `cut_share` of the chunks is cut at a random
byte, in either direction, and the connection with it; `deaf` loses every hint published to
a subscriber while its connection stays up and answers; `subscriptions` lets requests to
subscribe through while it is set; each chunk takes `delay_seconds`. Knows of RESP only how
these two look.
"""

import asyncio
import random
import tempfile
from pathlib import Path
from types import TracebackType

_CHUNK_BYTES = 1 << 16
_SUBSCRIBE = b"SUBSCRIBE\r\n"
_PUBLISHED = (b"$8\r\nsmessage\r\n", b"$7\r\nmessage\r\n")


class FaultProxy:
    """Use as `async with`; then `url` stands for the store at `store_socket`."""

    def __init__(self, store_socket: Path, rng: random.Random) -> None:
        self.cut_share = 0.0
        self.deaf = False
        self.delay_seconds = 0.0
        self.subscriptions = asyncio.Event()
        self.subscriptions.set()
        self.cuts = 0
        self.hints_lost = 0
        self._store_socket = store_socket
        self._rng = rng
        self._folder = tempfile.TemporaryDirectory(prefix="indelible-proxy-")
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"unix://{self._folder.name}/socket"

    async def __aenter__(self) -> "FaultProxy":
        self._server = await asyncio.start_unix_server(self._accept, f"{self._folder.name}/socket")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._folder.cleanup()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._connect(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            store_reader, store_writer = await asyncio.open_unix_connection(self._store_socket)
        except OSError:  # the store is down
            writer.transport.abort()
            return
        ways = [
            asyncio.create_task(self._pass(reader, store_writer)),
            asyncio.create_task(self._pass(store_reader, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for end in (writer, store_writer):
                end.close()  # sends what was passed, then ends

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(_CHUNK_BYTES):
            if self.deaf and any(sign in chunk for sign in _PUBLISHED):
                self.hints_lost += 1
                continue
            if _SUBSCRIBE in chunk:
                await self.subscriptions.wait()
            if self.delay_seconds:
                await asyncio.sleep(self.delay_seconds)
            if self._rng.random() < self.cut_share:
                self.cuts += 1
                writer.write(chunk[: self._rng.randrange(len(chunk))])
                return
            writer.write(chunk)
            await writer.drain()

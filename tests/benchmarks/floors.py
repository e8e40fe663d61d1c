"""The servers that ours is compared with: the least that could do the outer part of its work.

`noop` is a minimal aiohttp application (a POST that reads its body and answers a few bytes, a
GET that parks, one that counts the parked); `fanout` is a bare protocol that parks whoever asks and
writes one prebuilt answer to all of them. Each prints its port and serves until its standard
input ends.

Run by the benchmarks: `python -m tests.benchmarks.floors noop`.
"""

import asyncio
import sys

from aiohttp import web

from tests.benchmarks.workers import ignore_interrupts, until_input_ends

ANSWER = b"\x82\xa7version\x01\xa7changed\xc3"


async def _post(request: web.Request) -> web.Response:
    await request.read()
    return web.Response(status=201, body=ANSWER, content_type="application/msgpack")


_PARKED = web.AppKey("parked", set[asyncio.Future[None]])


async def _park(request: web.Request) -> web.Response:
    parked = asyncio.get_running_loop().create_future()
    request.app[_PARKED].add(parked)
    try:
        await parked
    finally:
        request.app[_PARKED].discard(parked)
    return web.Response(status=204)


async def _parked(request: web.Request) -> web.Response:
    return web.Response(body=b"%d" % len(request.app[_PARKED]))


async def noop() -> int:
    """Returns the port."""
    app = web.Application()
    app[_PARKED] = set()
    app.add_routes([web.post("/commits", _post), web.get("/wait", _park)])
    app.add_routes([web.get("/parked", _parked)])
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1_024).start()
    port: int = runner.addresses[0][1]
    return port


class _FanOut(asyncio.Protocol):
    """GET parks, GET /parked counts them, POST is answered and then answers all who are parked.

    Requests are small enough to arrive in one piece.
    """

    parked: list[asyncio.WriteTransport] = []  # noqa: RUF012 - shared by all connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"GET /parked "):
            self._transport.write(_answer(b"%d" % len(self.parked)))
        elif data.startswith(b"GET "):
            self.parked.append(self._transport)
        else:
            self._transport.write(_answer(ANSWER))
            woken = self.parked[:]
            self.parked.clear()
            body = _answer(data[data.index(b"\r\n\r\n") + 4 :])
            for transport in woken:
                transport.write(body)


def _answer(body: bytes) -> bytes:
    return (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/msgpack\r\nContent-Length: %d\r\n\r\n"
        % len(body)
    ) + body


async def fanout() -> int:
    """Returns the port."""
    server = await asyncio.get_running_loop().create_server(_FanOut, "127.0.0.1", 0, backlog=1_024)
    port: int = server.sockets[0].getsockname()[1]
    return port


async def _serve(name: str) -> None:
    print(await {"noop": noop, "fanout": fanout}[name](), flush=True)
    await until_input_ends()


if __name__ == "__main__":
    ignore_interrupts()
    asyncio.run(_serve(sys.argv[1]))

"""Server-sent events: a log's diffs as one answer that goes on.

Owns the spelling of the stream, its rhythm, and its patience with those who do not read. What
a diff holds and when a log has moved, others know.

Source: HTML Living Standard, 9.2 (event streams).
"""

import asyncio
import random
import socket
import time

import structlog
from aiohttp import web
from indelible_protocol import messages
from indelible_protocol.errors import ErrorCode
from indelible_protocol.ids import parse_version
from indelible_protocol.messages import Form

from indelible_server.api.diff_headers import place
from indelible_server.api.messages import ERRORS_PATH, header
from indelible_server.api.middlewares import STREAMED, WAITED
from indelible_server.api.pages import Wanted
from indelible_server.api.parameters import FROM, LIMIT, Parameter, Query
from indelible_server.api.request_ids import ID, REQUEST_ID
from indelible_server.api.requests import apikey_of, log_of
from indelible_server.api.services import SERVICES, Services
from indelible_server.store.admission import LogIdentity
from indelible_server.store.connection import end_tasks
from indelible_server.store.errors import Refusal
from indelible_server.store.nets import Position
from indelible_server.store.reading import check_version
from indelible_server.store.waiters import Watch

log = structlog.get_logger("indelible_server.api")

BEAT_SECONDS = 4.5  # with what the authenticator remembers, a revoked key ends within 10 s
QUIET_SECONDS = 8.0
WRITE_SECONDS = 10.0
RETRY_SECONDS = (1.0, 3.0)
_SLICE_BYTES = 64 << 10
_PAUSE_SECONDS = (0.5, 1.5)
_GONE = (ErrorCode.LOG_REPLACED, ErrorCode.NONEXISTENT_LOG, ErrorCode.FORGOTTEN_VERSION)

EVENT_PARAMETERS = (FROM, LIMIT)
LAST_EVENT_ID = Parameter(
    name="Last-Event-ID",
    description="version to go on after; wins over `from`",
    schema=FROM.schema,
)


async def events(request: web.Request) -> web.StreamResponse:
    identity = await log_of(request)
    services = request.app[SERVICES]
    query = Query(request, EVENT_PARAMETERS)
    version, limit = query.version(FROM) or 0, query.whole(LIMIT)
    last_id = header(request, LAST_EVENT_ID.name)
    if last_id is not None:
        version = parse_version(last_id, LAST_EVENT_ID.name)
    head = await services.head(identity.log_id)
    check_version(version, head, "from")
    request[WAITED] = True
    with services.waiting.admitted(identity.tenant):
        stream = _Stream(request, place(identity, head))
        watch = Watch()
        follower = _Follower(
            services,
            identity,
            stream,
            watch,
            apikey=apikey_of(request),
            version=version,
            limit=limit,
        )
        try:
            await _until_end(follower, stream, request[ID])
        finally:
            services.wakeups.release(watch)
    return stream.response


async def _until_end(follower: "_Follower", stream: "_Stream", request_id: str) -> None:
    """Whatever happens now, no other answer can follow: what is wrong is told to the log."""
    try:
        await stream.begin()
        await follower.run()
    except (ConnectionError, TimeoutError):
        stream.abort()
    except Exception:
        log.exception("stream.failed", request_id=request_id)
        stream.abort()


class _Follower:
    """Sends what comes after `version`, until the log, the key or the process goes."""

    def __init__(
        self,
        services: Services,
        identity: LogIdentity,
        stream: "_Stream",
        watch: Watch,
        *,
        apikey: str,
        version: int,
        limit: int,
    ) -> None:
        self._services = services
        self._identity = identity
        self._stream = stream
        self._watch = watch
        self._apikey = apikey
        self._version = version
        self._limit = limit
        self._judged_at = time.monotonic()

    async def run(self) -> None:
        """
        Raises:
            ConnectionError: the client has left.
            TimeoutError: it takes nothing any more.
        """
        while True:
            try:
                outcome = await self._woken()
                if outcome == "draining":
                    await self._stream.send_goodbye()
                    return
                if outcome == "moved":
                    await self._send_diff()
            except Refusal as refusal:
                if refusal.code in _GONE:
                    await self._stream.send_gone(refusal)
                    return
                if refusal.code is ErrorCode.BAD_API_KEY:
                    return
                if not refusal.code.retryable:
                    raise
                # The store is away: whoever waits goes on waiting.
                await asyncio.sleep(random.uniform(*_PAUSE_SECONDS))
                await self._stream.keep_alive()

    async def _woken(self) -> str:
        """What ended the sleep; meanwhile the API key is judged again and again.

        Raises:
            Refusal: BAD_API_KEY: it was revoked. The store is away.
        """
        log_id = self._identity.log_id
        also = {} if log_id in self._watch.known else {log_id: self._version}
        seconds = self._services.settings.max_wait_seconds
        sleep = asyncio.ensure_future(self._services.wakeups.sleep(self._watch, seconds, also=also))
        try:
            while True:
                beat_seconds = BEAT_SECONDS * random.uniform(0.9, 1.0)  # not all at once
                await asyncio.wait([sleep], timeout=beat_seconds)
                await self._judge_in_time()
                if sleep.done():
                    return sleep.result()
                await self._stream.keep_alive()
        finally:
            await end_tasks(sleep)  # a watch has one sleeper at a time

    async def _judge_in_time(self) -> None:
        """Also while one diff follows the other, and nothing else tells how time passes."""
        now = time.monotonic()
        if now - self._judged_at > 0.8 * BEAT_SECONDS:
            await self._services.authenticator.judge(self._apikey)
            self._judged_at = now

    async def _send_diff(self) -> None:
        """All pages to the version that is current; the last alone carries its number."""
        log_id = self._identity.log_id
        self._watch.behind.pop(log_id, None)  # a hint from here on may be of a later version
        head = await self._services.head(log_id)
        start: Position | None = None
        while head.version != self._version:
            wanted = Wanted(
                from_version=self._version,
                to_version=head.version,
                order="command",
                start=start,
                limit=self._limit,
            )
            page = await self._services.pages.page(self._identity, head, wanted, Form.JSON)
            await self._judge_in_time()
            start = page.rest
            await self._stream.send("diff", page.body, head.version if start is None else None)
            if start is None:
                self._version = head.version
        self._watch.advance(log_id, head.version)


class _Stream:
    """One answer, as events. Holds no more of a page than the part that is being sent."""

    def __init__(self, request: web.Request, headers: dict[str, str]) -> None:
        self.response = web.StreamResponse(headers=headers)
        self._request = request
        self._written_at = time.monotonic()

    async def begin(self) -> None:
        self.response.content_type = "text/event-stream"
        self.response.headers[REQUEST_ID] = self._request[ID]
        self.response.headers["Cache-Control"] = "no-cache"
        self.response.headers["X-Accel-Buffering"] = "no"  # a proxy hands on what it has
        self._notice_silent_peers()
        self._request[STREAMED] = True
        await self.response.prepare(self._request)
        await self.tell_when_to_retry()

    async def send(self, event: str, data: bytes, version: int | None = None) -> None:
        """`data` has no line feed: encoded JSON has none."""
        piece = f"event: {event}\n".encode()
        if version is not None:
            piece += b"id: %d\n" % version
        piece += b"data: "
        for start in range(0, len(data), _SLICE_BYTES):
            await self._write(piece + data[start : start + _SLICE_BYTES])
            piece = b""
        await self._write(b"\n\n")

    async def send_gone(self, refusal: Refusal) -> None:
        """The problem that every later request gets."""
        problem = messages.problem(
            refusal.code,
            refusal.message,
            refusal.details,
            request_id=self._request[ID],
            url=f"{ERRORS_PATH}#{refusal.code.name}",
        )
        await self.send("gone", messages.encode(problem, Form.JSON))

    async def tell_when_to_retry(self) -> None:
        """Every reader gets another pause: those of an ended process do not return at once."""
        await self._write(b"retry: %d\n\n" % (1_000 * random.uniform(*RETRY_SECONDS)))

    async def send_goodbye(self) -> None:
        """Its reader comes back on another connection, and so to another process."""
        self.response.force_close()
        await self.tell_when_to_retry()

    async def keep_alive(self) -> None:
        if time.monotonic() - self._written_at > QUIET_SECONDS:
            await self._write(b":\n\n")

    def abort(self) -> None:
        """Without a proper end: what was being sent is not whole, and the reader sees it."""
        if self._request.transport is not None:
            self._request.transport.abort()

    async def _write(self, data: bytes) -> None:
        async with asyncio.timeout(WRITE_SECONDS):
            await self.response.write(data)
        self._written_at = time.monotonic()

    def _notice_silent_peers(self) -> None:
        """Has the kernel end a connection whose peer takes nothing, be it two bytes."""
        transport = self._request.transport
        sock = None if transport is None else transport.get_extra_info("socket")
        option = getattr(socket, "TCP_USER_TIMEOUT", None)  # Linux has it
        if sock is not None and option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, int(3 * WRITE_SECONDS * 1_000))

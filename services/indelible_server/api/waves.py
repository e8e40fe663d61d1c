"""Answers all who wait for the same at once.

One version may wake ten thousand long polls. Each through its handler costs a third of a
millisecond; here the diff is read, folded, encoded and headed once for all who asked the same,
and the bytes are handed to one connection after the other, past the web framework. A handler
goes on only when the last byte of all is out, of other waves' too, and finds that its answer has
been sent.

Whatever is unusual about a request, a connection or an answer is left to its handler.
"""

import asyncio
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import structlog
from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http import SERVER_SOFTWARE
from indelible_protocol.diff import Order
from indelible_protocol.ids import LogId
from indelible_protocol.messages import Form

from indelible_server.api.diff_headers import page_headers
from indelible_server.api.pages import Page, Pages, Wanted
from indelible_server.api.request_ids import ID, REQUEST_ID
from indelible_server.store.admission import LogIdentity
from indelible_server.store.entries import ChangedEntry
from indelible_server.store.errors import Refusal
from indelible_server.store.reading import Head
from indelible_server.store.recent import Asked, Recent, told
from indelible_server.store.shared_reads import SharedReads
from indelible_server.store.waiters import Waiter

log = structlog.get_logger("indelible_server.api")

MAX_BODY_BYTES = 64 << 10  # who does not read is owed no more than this beside the kernel's
# The loop is served between slices. The first are small: the writer's own acknowledgement is
# a few rounds of the loop away, and nobody should wait for it behind thousands.
_FIRST_SLICE = 16
_WRITTEN_AT_ONCE = 256
_FINISHED_AT_ONCE = 32
# A handler that goes on costs five times what its answer did: those of a large crowd let the
# answers of other logs, which have moved in the same moment, out first.
_OTHERS_FIRST_SECONDS = 0.5


class Question(NamedTuple):
    """What is asked of a log, beside the version to begin after. Equal questions, equal answers."""

    order: Order
    limit: int
    interval: int | None
    form: Form


@lru_cache(256)
def the_question(order: Order, limit: int, interval: int | None, form: Form) -> Question:
    """One object for all who ask the same."""
    return Question(order, limit, interval, form)


class Parked(Waiter):
    """A long poll. Its question is None if it must be answered by its handler."""

    __slots__ = ("identity", "request_id", "transport")

    def __init__(
        self, request: web.Request, identity: LogIdentity, version: int, question: Question
    ) -> None:
        is_usual = question.limit > 0 and _is_usual(request)
        super().__init__(identity.log_id, version, question if is_usual else None)
        # What a wave looks at in thousands of requests; the rest is left to lie.
        self.transport = request.transport
        self.request_id = request[ID]
        self.identity = identity
        # Ends aiohttp's timer for idle connections, 0.3 KiB; the answer begins another.
        request.protocol.keep_alive(True)


class Sent(web.StreamResponse):
    """Tells aiohttp of an answer that is out already: the connection is kept, nothing is sent."""

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        await request.writer.drain()  # as after any answer: until the client has taken most of it
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        pass

    @property
    def keep_alive(self) -> bool:
        return True


class _Answer(NamedTuple):
    """The bytes before and after the request's id, which ends the head."""

    before: bytes
    after: bytes


class Waves:
    """`begin` is what wake-ups are told to call."""

    def __init__(
        self,
        recent: SharedReads[Asked, Recent | None],
        pages: Pages,
        *,
        shared_caching: bool,
    ) -> None:
        self._recent = recent
        self._pages = pages
        self._shared_caching = shared_caching
        self._running: set[asyncio.Task[None]] = set()
        self._unwritten: set[asyncio.Future[None]] = set()

    def begin(
        self, log_id: LogId, crowds: Sequence[set[Waiter]], version: int, news: bytes
    ) -> None:
        """Each of `crowds` asks the same after the same version; all are told, whatever happens.

        Where `news` tells them all of `version`, the store is not asked.
        """
        lists = [[one for one in crowd if isinstance(one, Parked)] for crowd in crowds]
        lists = [crowd for crowd in lists if crowd]
        if not lists:
            return
        recent = None
        if news and all(crowd[0].version == version - 1 for crowd in lists):
            try:
                recent = told(version, news)
                if recent.changes is not None and _is_small(lists, recent.changes):
                    self._answer_now(lists, recent.head, recent.changes)
                    return
            except Exception:  # each is answered by a read
                log.exception("wave.failed", log_id=log_id.hex(), waiters=sum(map(len, lists)))
                recent = None
        task = asyncio.ensure_future(self._run(log_id, lists, recent))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def _answer_now(
        self, crowds: Sequence[list[Parked]], head: Head, changes: Sequence[ChangedEntry]
    ) -> None:
        for crowd in crowds:
            asked = question, wanted = _asked(crowd[0], head)
            page = self._pages.whole(crowd[0].identity, head, wanted, question.form, changes)
            answer = self._answer(crowd[0], head, asked, page)
            if answer is not None:
                _write_some(crowd, answer)
            _finish_some(crowd)

    async def _run(
        self, log_id: LogId, crowds: Sequence[list[Parked]], recent: Recent | None
    ) -> None:
        everybody = [parked for crowd in crowds for parked in crowd]
        written = asyncio.get_running_loop().create_future()
        self._unwritten.add(written)
        try:
            await asyncio.sleep(0)  # the commit's own answer comes in the same round as its hint
            answers = await asyncio.gather(*(self._answer_to(crowd[0], recent) for crowd in crowds))
            for crowd, answer in zip(crowds, answers, strict=True):
                if answer is not None:
                    await _write(crowd, answer)
        except Refusal:
            pass  # each asks for itself, and is told
        except Exception:
            log.exception("wave.failed", log_id=log_id.hex(), waiters=len(everybody))
        finally:
            self._unwritten.discard(written)
            written.set_result(None)
            await _finish([one for one in everybody if not one.is_taken])
            answered = [one for one in everybody if one.is_taken]
            if len(answered) > _FINISHED_AT_ONCE and self._unwritten:
                await asyncio.wait(set(self._unwritten), timeout=_OTHERS_FIRST_SECONDS)
            await _finish(answered)

    async def _answer_to(self, parked: Parked, recent: Recent | None) -> _Answer | None:
        """By a read that begins now, unless `recent` tells it; None if there is nothing new."""
        if recent is None:
            [recent] = await self._recent.read([Asked(parked.log_id, parked.version)])
        if recent is None or recent.changes is None:
            return None
        asked = question, wanted = _asked(parked, recent.head)
        page = await self._pages.page(
            parked.identity, recent.head, wanted, question.form, recent.changes
        )
        return self._answer(parked, recent.head, asked, page)

    def _answer(
        self, parked: Parked, head: Head, asked: tuple[Question, Wanted], page: Page
    ) -> _Answer | None:
        """None if it is too much."""
        if len(page.body) > MAX_BODY_BYTES:
            return None
        question, wanted = asked
        headers = page_headers(
            parked.identity,
            head,
            wanted,
            question.form,
            question.interval,
            kind="current" if question.interval is None else "moved",
            shared=self._shared_caching,
        )
        headers["Content-Type"] = question.form.value
        headers["Content-Length"] = str(len(page.body))
        headers["Date"] = rfc822_formatted_time()
        headers["Server"] = SERVER_SOFTWARE
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return _Answer(
            f"HTTP/1.1 200 OK\r\n{lines}{REQUEST_ID}: ".encode(), b"\r\n\r\n" + page.body
        )


def _question(parked: Parked) -> Question:
    question = parked.question
    assert isinstance(question, Question)
    return question


def _asked(parked: Parked, head: Head) -> tuple[Question, Wanted]:
    question = _question(parked)
    return question, Wanted(
        from_version=parked.version,
        to_version=head.version,
        order=question.order,
        start=None,
        limit=question.limit,
    )


def _is_small(crowds: Sequence[list[Parked]], changes: Sequence[ChangedEntry]) -> bool:
    """Whether all can be answered at once, each by one page."""
    least = min(_question(crowd[0]).limit for crowd in crowds)
    return sum(map(len, crowds)) <= _FIRST_SLICE and len(changes) <= least


async def _write(crowd: Sequence[Parked], answer: _Answer) -> None:
    at, size = 0, _FIRST_SLICE
    while at < len(crowd):
        _write_some(crowd[at : at + size], answer)
        at, size = at + size, min(2 * size, _WRITTEN_AT_ONCE)
        if at < len(crowd):
            await asyncio.sleep(0)


def _write_some(crowd: Sequence[Parked], answer: _Answer) -> None:
    before, after = answer
    for parked in crowd:
        transport = parked.transport
        if transport is not None and parked.is_asleep and _takes_bytes(transport):
            transport.write(before + parked.request_id.encode() + after)
            parked.take()


async def _finish(everybody: Sequence[Parked]) -> None:
    for at in range(0, len(everybody), _FINISHED_AT_ONCE):
        if at:
            await asyncio.sleep(0)
        _finish_some(everybody[at : at + _FINISHED_AT_ONCE])


def _finish_some(some: Sequence[Parked]) -> None:
    for parked in some:
        if parked.is_taken:
            parked.finish()
        else:
            parked.wake("moved")


def _is_usual(request: web.Request) -> bool:
    return (
        request.method == "GET"
        and request.version == HttpVersion11
        and request.keep_alive
        and not request.body_exists
        and "If-None-Match" not in request.headers
    )


def _takes_bytes(transport: asyncio.Transport) -> bool:
    """Whether the client is there and has taken all that it was sent before."""
    return not transport.is_closing() and transport.get_write_buffer_size() == 0

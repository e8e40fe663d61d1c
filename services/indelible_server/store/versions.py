"""Reading many versions of a log fast: page by page, the next one asked for meanwhile.

They are in the stream, or in the archive, which is asked for what the stream lacks. Gives rows as
the store's client reads them, without making objects of them: what a row costs here it costs a
million times. Knows nothing of what is looked for in them.
"""

import asyncio
import gc
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Any, NamedTuple, TypeVar

from indelible_protocol.errors import ErrorCode
from indelible_protocol.ids import LogId
from redis.asyncio import Redis

from indelible_server.store import keys
from indelible_server.store.archive import Archive
from indelible_server.store.connection import store_answer
from indelible_server.store.errors import Refusal

PAGE_BYTES = 1 << 20
MAX_PAGE_VERSIONS = 2_000
READ_AT_ONCE = 2
_PASSED_OVER = 2  # versions that nobody wants cost less, in a row with others, than a command
_FIRST_PAGE_VERSIONS = 4  # each may be a MiB
# As `commit.lua` appends them: h, s, b, t, e.
_FIELDS = [b"h", b"s", b"b", b"t", b"e"]
_BODY, _EFFECTS = 5, 9
# The client's own reading of XRANGE makes a dict of every row; under this name it leaves them.
_XRANGE = "XRANGE "
_XREVRANGE = "XREVRANGE "
T = TypeVar("T")


class MissingError(Refusal):
    """What was promised is not there: the log was deleted meanwhile, or it is damaged."""

    def __init__(self, what: str) -> None:
        super().__init__(ErrorCode.INTERNAL_ERROR, f"the log lacks {what}")


Changed = tuple[int, bytes, bytes]  # a version, its body, its effects


class Page(NamedTuple):
    """Versions in a row, none left out: `rows[i]` is version `first` + i."""

    first: int
    rows: list[Any]

    @property
    def last(self) -> int:
        return self.first + len(self.rows) - 1

    def changed(self) -> list[Changed]:
        return [
            (version, fields[_BODY], fields[_EFFECTS])
            for version, (_, fields) in enumerate(self.rows, self.first)
        ]

    def changed_at(self, wanted: Iterable[int]) -> list[Changed]:
        rows, first = self.rows, self.first
        found = []
        for version in wanted:
            fields = rows[version - first][1]
            found.append((version, fields[_BODY], fields[_EFFECTS]))
        return found


class Versions:
    """Those of the stream, and those of `archive`; without one it says where it is missed."""

    def __init__(self, redis: Redis, archive: Archive | None = None) -> None:
        self._redis = redis
        self._archive = archive or Archive(redis)

    async def pages(
        self, log_id: LogId, first: int, last: int, *, most: int | None = None
    ) -> AsyncGenerator[Page, None]:
        """Versions first to last in pages of about a MiB; the first page is a small one.

        Who will hardly need more than `most` versions says so, and nothing is read ahead.

        Raises:
            Refusal: the store failed.
            MissingError: versions are not there.
        """
        size = _FIRST_PAGE_VERSIONS if most is None else max(1, min(most, 2 * _FIRST_PAGE_VERSIONS))

        def reads() -> Iterator[Callable[[], Coroutine[Any, Any, Page]]]:
            nonlocal first
            while first <= last:
                begin, first = first, min(first + size, last + 1)
                yield partial(self.read, log_id, begin, first - 1)

        at_once = READ_AT_ONCE if most is None else 1
        async with aclosing(in_turn(reads(), at_once=at_once)) as found:
            async for page in found:
                size = _next_size(page) if most is None else min(2 * size, _next_size(page))
                yield page

    async def read(self, log_id: LogId, first: int, last: int) -> Page:
        """All of these versions in one page.

        Raises:
            MissingError: one is not there.
        """
        page = await self._page(log_id, first, last, last - first + 1)
        while page.last < last:  # the rest is in another segment, or in the stream
            begin = page.last + 1
            page.rows.extend((await self._page(log_id, begin, last, last - begin + 1)).rows)
        return page

    async def exactly(self, log_id: LogId, wanted: Sequence[int]) -> dict[int, Changed]:
        """These versions alone, which ascend.

        Raises:
            MissingError: one is not there.
        """
        found = await self.found(log_id, wanted)
        if len(found) < len(wanted):
            raise MissingError("versions below its head")
        return {version: Page(version, [row]).changed()[0] for version, row in found.items()}

    async def found(self, log_id: LogId, wanted: Sequence[int]) -> dict[int, Any]:
        """Rows of those of these versions, which ascend, that are there."""
        is_likely = self._archive.is_likely
        rows = await self.in_stream(log_id, wanted)
        if len(rows) == len(wanted):
            return rows
        lacking = [version for version in wanted if version not in rows]
        rows |= await self._archive.some(log_id, lacking)
        unasked = [v for v in lacking if v not in rows and is_likely(log_id, v)]
        return rows | await self._of_stream(log_id, unasked) if unasked else rows

    async def in_stream(self, log_id: LogId, wanted: Sequence[int]) -> dict[int, Any]:
        """Rows of those of these versions that were not moved out of the stream, or forgotten."""
        asked = [v for v in wanted if not self._archive.is_likely(log_id, v)]
        return await self._of_stream(log_id, asked) if asked else {}

    async def run(
        self, log_id: LogId, first: int, last: int, count: int, *, newest_first: bool = False
    ) -> list[Any]:
        """Rows from `first` up to at most `last`, or the other way round: `count` of them, or
        fewer, but at least one.

        Raises:
            MissingError: the one to begin with is not there.
        """
        begin = last if newest_first else first
        read = self._archive.rows_down if newest_first else self._archive.rows
        rows: list[Any] = []
        if self._archive.is_likely(log_id, begin):
            rows = await read(log_id, first, last, count)
        if not rows:
            rows = await self._range(log_id, first, last, count, newest_first)
        if not rows or rows[0][0] != b"%d-0" % begin:
            rows = await read(log_id, first, last, count)
        if not rows:
            raise MissingError("versions below its head")
        return rows

    async def _page(self, log_id: LogId, first: int, last: int, count: int) -> Page:
        rows = await self.run(log_id, first, last, count)
        if rows[-1][0] != b"%d-0" % (first + len(rows) - 1):
            raise MissingError("versions below its head")
        if rows[0][1][::2] != _FIELDS or rows[-1][1][::2] != _FIELDS:
            raise Refusal(ErrorCode.INTERNAL_ERROR, "a version has fields of another release")
        return Page(first, rows)

    async def _range(
        self, log_id: LogId, first: int, last: int, count: int, newest_first: bool
    ) -> list[Any]:
        ends = (_XREVRANGE, last, first) if newest_first else (_XRANGE, first, last)
        word, begin, end = ends
        key = keys.of_log(log_id).commits
        async with store_answer(), _uncollected():
            rows: list[Any] = await self._redis.execute_command(
                word, key, f"{begin}-0", f"{end}-0", "COUNT", count
            )
        return rows

    async def _of_stream(self, log_id: LogId, wanted: Sequence[int]) -> dict[int, Any]:
        key = keys.of_log(log_id).commits
        runs = list(_runs(wanted))
        async with store_answer():
            if len(runs) == 1:
                [(first, last)] = runs
                found = [await self._redis.execute_command(_XRANGE, key, first, last)]
            else:
                async with self._redis.pipeline(transaction=False) as pipe:
                    for first, last in runs:
                        pipe.execute_command(_XRANGE, key, first, last)
                    found = await pipe.execute()
        rows = {int(row[0].partition(b"-")[0]): row for rows in found for row in rows}
        return {version: rows[version] for version in wanted if version in rows}


def _runs(wanted: Sequence[int]) -> Iterator[tuple[int, int]]:
    """First and last of runs that hold all of these versions, which ascend, and few others."""
    first = last = wanted[0]
    for version in wanted[1:]:
        if version - last > 1 + _PASSED_OVER:
            yield first, last
            first = version
        last = version
    yield first, last


async def in_turn(
    reads: Iterator[Callable[[], Coroutine[Any, Any, T]]], *, at_once: int = READ_AT_ONCE
) -> AsyncGenerator[T, None]:
    """What each read gives, in their order; up to `at_once` are under way, so that the store works
    while its last answer is looked at."""
    under_way: deque[asyncio.Task[T]] = deque()
    try:
        while True:
            while len(under_way) < at_once and (read := next(reads, None)) is not None:
                under_way.append(asyncio.create_task(read()))
            if not under_way:
                return
            answer = await asyncio.shield(under_way[0])
            under_way.popleft()
            yield answer
    finally:
        for task in under_way:
            leave(task)


# Whoever stops reading does not cut a connection in the middle of an answer.
_left: "set[asyncio.Task[Any]]" = set()


def leave(task: "asyncio.Task[Any]") -> None:
    _left.add(task)

    def ended(task: "asyncio.Task[Any]") -> None:
        _left.discard(task)
        if not task.cancelled():
            task.exception()  # nobody is there to hear of it

    task.add_done_callback(ended)


@asynccontextmanager
async def _uncollected() -> AsyncGenerator[None, None]:
    """Thousands of new objects come at once, and none of them is garbage."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _next_size(page: Page) -> int:
    """As many as make a page, judged by this one's bodies."""
    size = sum(len(fields[_BODY]) for _, fields in page.rows[:: max(1, len(page.rows) // 64)])
    each = 400 + size * max(1, len(page.rows) // 64) // len(page.rows)
    return max(1, min(PAGE_BYTES // each, MAX_PAGE_VERSIONS))

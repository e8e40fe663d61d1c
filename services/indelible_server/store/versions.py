"""Reading many versions of a log's stream fast: page by page, the next one asked for meanwhile.

Gives rows as the store's client reads them, without making objects of them: what a row costs
here it costs a million times. Knows nothing of what is looked for in them.
"""

import asyncio
import gc
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from indelible_protocol.errors import ErrorCode
from indelible_protocol.ids import LogId
from redis.asyncio import Redis

from indelible_server.store import keys
from indelible_server.store.connection import store_answer
from indelible_server.store.errors import Refusal

PAGE_BYTES = 1 << 20
MAX_PAGE_VERSIONS = 2_000
_FIRST_PAGE_VERSIONS = 4  # each may be a MiB
# As `commit.lua` appends them: h, s, b, t, e.
_FIELDS = [b"h", b"s", b"b", b"t", b"e"]
_BODY, _EFFECTS = 5, 9
# The client's own reading of XRANGE makes a dict of every row; under this name it leaves them.
_XRANGE = "XRANGE "


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

    def changed_at(self, version: int) -> Changed:
        fields = self.rows[version - self.first][1]
        return version, fields[_BODY], fields[_EFFECTS]


async def pages(
    redis: Redis, log_id: LogId, first: int, last: int, *, most: int | None = None
) -> AsyncGenerator[Page, None]:
    """Versions first to last in pages of about a MiB; the first page is a small one.

    Who will hardly need more than `most` versions says so, and nothing is read ahead.

    Raises:
        Refusal: the store failed.
        MissingError: versions are not there.
    """
    size = _FIRST_PAGE_VERSIONS if most is None else max(1, min(most, 2 * _FIRST_PAGE_VERSIONS))
    ahead: asyncio.Task[Page] | None = None
    try:
        while first <= last:
            if ahead is None:
                page = await _read(redis, log_id, first, last, size)
            else:
                page = await asyncio.shield(ahead)
                ahead = None
            first = page.last + 1
            size = _next_size(page) if most is None else min(2 * size, _next_size(page))
            if most is None and first <= last:
                ahead = asyncio.create_task(_read(redis, log_id, first, last, size))
            yield page
    finally:
        if ahead is not None:
            leave(ahead)


# Whoever stops reading does not cut a connection in the middle of an answer.
_left: "set[asyncio.Task[Any]]" = set()


def leave(task: "asyncio.Task[Any]") -> None:
    _left.add(task)

    def ended(task: "asyncio.Task[Any]") -> None:
        _left.discard(task)
        if not task.cancelled():
            task.exception()  # nobody is there to hear of it

    task.add_done_callback(ended)


async def read(redis: Redis, log_id: LogId, first: int, last: int) -> Page:
    """All of these versions in one page.

    Raises:
        MissingError: one is not there.
    """
    page = await _read(redis, log_id, first, last, last - first + 1)
    if page.last != last:
        raise MissingError("versions below its head")
    return page


async def exactly(redis: Redis, log_id: LogId, wanted: Sequence[int]) -> dict[int, Changed]:
    """These versions alone.

    Raises:
        MissingError: one is not there.
    """
    key = keys.of_log(log_id).commits
    async with store_answer(), redis.pipeline(transaction=False) as pipe:
        for version in wanted:
            pipe.execute_command(_XRANGE, key, f"{version}-0", f"{version}-0")
        found = await pipe.execute()
    if not all(found):
        raise MissingError("versions below its head")
    return {
        version: Page(version, rows).changed()[0]
        for version, rows in zip(wanted, found, strict=True)
    }


@asynccontextmanager
async def _uncollected() -> AsyncGenerator[None, None]:
    """Thousands of new objects come at once, and none of them is garbage."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def _read(redis: Redis, log_id: LogId, first: int, last: int, count: int) -> Page:
    key = keys.of_log(log_id).commits
    async with store_answer(), _uncollected():
        rows = await redis.execute_command(_XRANGE, key, f"{first}-0", f"{last}-0", "COUNT", count)
    ends = [b"%d-0" % first, b"%d-0" % (first + len(rows) - 1)]
    if not rows or [rows[0][0], rows[-1][0]] != ends:
        raise MissingError("versions below its head")
    if rows[0][1][::2] != _FIELDS or rows[-1][1][::2] != _FIELDS:
        raise Refusal(ErrorCode.INTERNAL_ERROR, "a version has other fields than this release's")
    return Page(first, rows)


def _next_size(page: Page) -> int:
    """As many as make a page, judged by this one's bodies."""
    size = sum(len(fields[_BODY]) for _, fields in page.rows[:: max(1, len(page.rows) // 64)])
    each = 400 + size * max(1, len(page.rows) // 64) // len(page.rows)
    return max(1, min(PAGE_BYTES // each, MAX_PAGE_VERSIONS))

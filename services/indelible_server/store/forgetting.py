"""Forgetting: makes a later version the first that can be read, and gives back what lies below.

In this order, each step written down before the next: a wish; a base, which is the contents at
that version as a snapshot that is never swept; the floor, in one step; then the stream, a run of
versions at a time, of which the headers, signatures, times and control commits stay; then older
snapshots and blocks. Killed anywhere and called again it goes on, and two at once do no
harm. Knows nothing of who may ask for it.
"""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import Literal, NamedTuple

from indelible_protocol.errors import ErrorCode
from indelible_protocol.ids import LogId
from redis.asyncio import Redis

from indelible_server.store import bundles, functions, keys
from indelible_server.store.archive import Archive
from indelible_server.store.archiving import Archiving
from indelible_server.store.bundles import Segment
from indelible_server.store.connection import store_answer
from indelible_server.store.contents import Contents
from indelible_server.store.errors import Refusal
from indelible_server.store.kept import stored_bytes, what_stays
from indelible_server.store.logs import nonexistent, replaced
from indelible_server.store.materializing import Gone, Materializing, Passed
from indelible_server.store.places import BLOCK_VERSIONS
from indelible_server.store.snapshots import Snapshot
from indelible_server.store.versions import MissingError, Page, Versions

Step = Literal["base", "trim", "sweep", "done"]

_FIELDS_AT_ONCE = 500
_LATER = ("forgotten", "forgotten_bytes", "forget_bytes", "first_version")


class Advance(NamedTuple):
    """How far a forgetting is: `handled` of `total` versions are through the step."""

    step: Step
    handled: int
    total: int


class Outcome(NamedTuple):
    """What a log's forgetting has come to: nothing is left of versions below `forgotten`.

    Bytes as they are stored: commits, base, kept headers and snapshots, without what the engine
    adds to them.
    """

    first_version: int
    forgotten: int
    bytes_before: int
    bytes_now: int


class Forgetting:
    """`reach` is called with the name of each point at which a process may be lost.

    `pause_seconds` lie behind each write.
    """

    def __init__(
        self,
        redis: Redis,
        archive: Archive | None = None,
        *,
        pause_seconds: float = 0.0,
        reach: Callable[[str], None] = lambda point: None,
    ) -> None:
        self._redis = redis
        self._archive = archive or Archive(redis)
        self._archiving = Archiving(redis, self._archive, reach=reach)
        self._contents = Contents(redis, self._archive)
        self._versions = Versions(redis, self._archive)
        self._materializing = Materializing(
            redis, self._archive, pause_seconds=pause_seconds, reach=reach
        )
        self._pause_seconds = pause_seconds
        self._reach = reach

    async def begin(self, log_id: LogId, before: int) -> None:
        """From here on versions below `before` are going to be forgotten.

        Raises:
            Refusal: NONEXISTENT_VERSION, LOG_REPLACED, NONEXISTENT_LOG.
        """
        await self._note(log_id, before, "begin")

    async def has_begun(self, log_id: LogId, before: int) -> bool:
        """Whether somebody said so before."""
        return await self._note(log_id, before, "continue") != "unnoted"

    async def _note(self, log_id: LogId, before: int, how: Literal["begin", "continue"]) -> str:
        size = await self._stored_bytes(log_id)
        meta = keys.of_log(log_id).meta
        word, rest = await functions.call(self._redis, "forget", [meta], [before, size, how])
        if word == "gone":
            await self._gone(log_id)
        if word == "above":
            raise Refusal(
                ErrorCode.NONEXISTENT_VERSION,
                f"before is {before}, the log is at version {rest[0]!r}",
                {"current_version": int(rest[0])},
            )
        self._reach("after_wish")
        return word

    async def run(
        self, log_id: LogId, before: int, tell: Callable[[Advance], None] = lambda advance: None
    ) -> None:
        """All that is left to do; `tell` is called after each part of it.

        Raises:
            Refusal: LOG_REPLACED, NONEXISTENT_LOG, or the store failed: the next call goes on.
        """
        try:
            outcome = await self.outcome(log_id)
            if outcome.forgotten >= before:
                return
            if outcome.first_version < before:
                tell(Advance("base", 0, before - outcome.first_version))
                await self._raise_floor(log_id, before)
            floor = (await self.outcome(log_id)).first_version
            await self._trim_archived(log_id, tell)
            await self._trim(log_id, floor, tell)
            await self._sweep(log_id, floor, tell)
            await self._archiving.clear(log_id)
            await self._end(log_id, floor)
        except Gone:
            await self._gone(log_id)

    async def outcome(self, log_id: LogId) -> Outcome:
        """
        Raises:
            Refusal: the store failed.
        """
        async with store_answer():
            found = await self._redis.execute_command("HMGET", keys.of_log(log_id).meta, *_LATER)
        forgotten, size, size_before, first = (int(each or 0) for each in found)
        now = size if forgotten == first else await self._stored_bytes(log_id)
        return Outcome(first, forgotten, size_before, now)

    async def _raise_floor(self, log_id: LogId, before: int) -> None:
        word = "torn"
        while word == "torn":  # the base was moved before the floor was
            word = await self._try_floor(log_id, before)
        assert word in ("moved", "passed"), word

    async def _try_floor(self, log_id: LogId, before: int) -> str:
        base, first = None, (await self.outcome(log_id)).first_version
        while base is None:
            try:
                base = await self._base(log_id, before)
            except (Passed, MissingError):
                later = (await self.outcome(log_id)).first_version
                if later >= before:
                    return "passed"  # another was further
                if later == first:
                    raise
                first = later  # another took away what this was read from: there is its base now
        self._reach("before_floor")
        found, parts = keys.materialized(log_id), keys.archived(log_id).parts
        word, _ = await functions.call(
            self._redis,
            "forget_floor",
            [keys.of_log(log_id).meta, found.snapshots, found.progress, parts],
            [before, base.size_bytes, before // BLOCK_VERSIONS, base.changes, base.entries],
        )
        if word == "gone":
            raise Gone
        self._reach("after_floor")
        return word

    async def _base(self, log_id: LogId, before: int) -> Snapshot:
        """In the store, where current reads find it though the archive is away."""
        found = await self._contents.snapshot_at(log_id, before)
        if found is not None and found.version == before:
            async with store_answer():
                is_moved = await self._redis.execute_command(
                    "HEXISTS", keys.archived(log_id).parts, before
                )
            if not is_moved:
                return found
            return await self._materializing.write_snapshot(log_id, before, found.changes)
        changes = await self._materializing.changes_up_to(log_id, before)
        return await self._materializing.write_snapshot(log_id, before, changes)

    async def _trim_archived(self, log_id: LogId, tell: Callable[[Advance], None]) -> None:
        """Segment by segment; of one in which the first version is, what is above stays."""
        begun = None
        while (segment := await self._archive.first(log_id)) is not None:
            floor = (await self.outcome(log_id)).first_version
            if segment.first >= floor:
                return
            begun = segment.first if begun is None else begun
            rows = await self._archive.rows(log_id, *segment[:2], segment.last - segment.first + 1)
            if len(rows) <= segment.last - segment.first:
                continue  # another was there
            count = min(segment.last + 1, floor) - segment.first
            page, rest = Page(segment.first, rows[:count]), Page(floor, rows[count:])
            kept_segment = None
            if rest.rows:
                kept_segment = await self._rewritten(log_id, rest)
                if kept_segment is None:
                    continue
            if await self._trim_segment(log_id, segment, page, kept_segment):
                tell(Advance("trim", page.last + 1 - begun, floor - begun))
            await asyncio.sleep(self._pause_seconds)

    async def _rewritten(self, log_id: LogId, rest: Page) -> Segment | None:
        """An object with the versions of `rest` alone; None if the first version is another now."""
        items = [bundles.item_of(fields) for _, fields in rest.rows]
        data = await asyncio.to_thread(bundles.encode, log_id, "versions", rest.first, items)
        name = await self._archiving.put(log_id, "rewritten", rest.first, data)
        return None if name is None else Segment(rest.first, rest.last, stored_bytes(rest), name)

    async def _trim_segment(
        self, log_id: LogId, segment: Segment, page: Page, rest: Segment | None
    ) -> bool:
        """Whether it was this call that trimmed it."""
        stays, archived = what_stays(page), keys.archived(log_id)
        self._reach("before_trim_segment")
        word, _ = await functions.call(
            self._redis,
            "forget_segment",
            [
                *(keys.of_log(log_id).meta, archived.segments, archived.unlisted),
                keys.kept(log_id),
            ],
            [
                segment.encode(),
                rest.encode() if rest else b"",
                sum(map(len, stays.values())) - stored_bytes(page),
                *(part for piece in stays.items() for part in piece),
            ],
        )
        if word == "gone":
            raise Gone
        assert word != "early"
        self._reach("after_trim_segment")
        return word == "trimmed"

    async def _trim(self, log_id: LogId, floor: int, tell: Callable[[Advance], None]) -> None:
        """Takes turns with others who do the same."""
        begun = oldest = await self._oldest(log_id)
        while oldest < floor:
            try:
                async with aclosing(self._versions.pages(log_id, oldest, floor - 1)) as found:
                    async for page in found:
                        self._reach("before_trim")
                        if not await self._trim_page(log_id, page):
                            break
                        self._reach("after_trim")
                        tell(Advance("trim", page.last + 1 - begun, floor - begun))
                        await asyncio.sleep(self._pause_seconds)
            except MissingError:
                if await self._oldest(log_id) == oldest:
                    raise  # nobody else took it
            oldest = await self._oldest(log_id)

    async def _oldest(self, log_id: LogId) -> int:
        """The first version that the stream holds."""
        commits = keys.of_log(log_id).commits
        async with store_answer():
            rows = await self._redis.execute_command("XRANGE", commits, "-", "+", "COUNT", 1)
        if not rows:
            raise Gone
        return int(rows[0][0].partition(b"-")[0])

    async def _trim_page(self, log_id: LogId, page: Page) -> bool:
        stays, size = what_stays(page), stored_bytes(page)
        word, _ = await functions.call(
            self._redis,
            "forget_trim",
            [keys.of_log(log_id).meta, keys.of_log(log_id).commits, keys.kept(log_id)],
            [
                page.first,
                page.last + 1,
                sum(map(len, stays.values())) - size,
                *(part for piece in stays.items() for part in piece),
            ],
        )
        if word == "gone":
            raise Gone
        assert word != "early"
        return word == "trimmed"

    async def _sweep(self, log_id: LogId, floor: int, tell: Callable[[Advance], None]) -> None:
        log_keys, archived = keys.materialized(log_id), keys.archived(log_id)
        async with store_answer():
            chunks = await self._redis.execute_command("HKEYS", log_keys.chunks)
            blocks = await self._redis.execute_command("HKEYS", log_keys.blocks)
        old = [field for field in chunks if int(field.partition(b":")[0]) < floor]
        told = [
            one for one in blocks if (int(one.partition(b":")[0]) + 1) * BLOCK_VERSIONS <= floor
        ]
        fields = [(field, True) for field in old] + [(number, False) for number in told]
        for at in range(0, max(1, len(fields)), _FIELDS_AT_ONCE):
            some = fields[at : at + _FIELDS_AT_ONCE]
            self._reach("before_sweep")
            word, _ = await functions.call(
                self._redis,
                "forget_sweep",
                [
                    *(keys.of_log(log_id).meta, log_keys.snapshots, log_keys.chunks),
                    *(log_keys.blocks, archived.parts, archived.unlisted),
                ],
                [BLOCK_VERSIONS, sum(is_chunk for _, is_chunk in some), *(f for f, _ in some)],
            )
            if word == "gone":
                raise Gone
            tell(Advance("sweep", at + len(some), len(fields)))
            await asyncio.sleep(self._pause_seconds)

    async def _end(self, log_id: LogId, floor: int) -> None:
        self._reach("before_end")
        size = await self._stored_bytes(log_id)
        word, _ = await functions.call(
            self._redis, "forget_end", [keys.of_log(log_id).meta], [floor, size]
        )
        if word == "gone":
            raise Gone

    async def _stored_bytes(self, log_id: LogId) -> int:
        """What the log's commits, base, kept headers and snapshots are."""
        log_keys, listed = keys.of_log(log_id), keys.materialized(log_id).snapshots
        async with store_answer(), self._redis.pipeline(transaction=True) as pipe:
            pipe.execute_command("HMGET", log_keys.meta, "stored_bytes", "base_bytes")
            pipe.execute_command("ZRANGE", listed, 0, -1)
            (stored, base), snapshots = await pipe.execute()
        sizes = sum(Snapshot.decode(data).size_bytes for data in snapshots)
        return int(stored or 0) - int(base or 0) + sizes

    async def _gone(self, log_id: LogId) -> None:
        async with store_answer():
            found = await self._redis.execute_command("HMGET", keys.of_log(log_id).meta, "version")
        raise nonexistent() if found[0] is None else replaced(int(found[0]))

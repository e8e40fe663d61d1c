"""Blocks and their sums: as the materializer wrote them, or from the versions where it has not.

Knows where they lie and in which order they come; nothing of what is read from them.
"""

import struct
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from functools import partial

from indelible_protocol.ids import LogId
from redis.asyncio import Redis

from indelible_server.store import keys
from indelible_server.store.connection import store_answer
from indelible_server.store.places import (
    BLOCK_VERSIONS,
    SUMMED_BLOCKS,
    Block,
    block_of,
    sum_of,
)
from indelible_server.store.versions import Versions, in_turn

_AT_ONCE = 128
_MAX_SUMMED = 32_768  # places; a few ms of the loop to sum up


class Blocks:
    def __init__(self, redis: Redis, versions: Versions) -> None:
        self._redis = redis
        self._versions = versions

    async def read(
        self, log_id: LogId, low: int, high: int, *, summed: bool = False
    ) -> AsyncGenerator[Block, None]:
        """What the versions in (low, high] did, block by block, `summed` also by sums of blocks;
        from the stream what no block tells yet."""
        if low >= high:
            return
        reads = (
            partial(self._stored, log_id, wanted) for wanted in _wanted(low, high, summed=summed)
        )
        async with aclosing(in_turn(reads)) as found:
            async for some in found:
                for numbers, data in some:
                    begin, end = numbers.start * BLOCK_VERSIONS, numbers.stop * BLOCK_VERSIONS
                    if data is None:  # nor is any behind it: they are written in their order
                        rest = self._of_stream(log_id, max(low, begin), high)
                        async with aclosing(rest) as blocks:
                            async for block in blocks:
                                yield block
                        return
                    block = Block.decode(data, begin, len(numbers))
                    yield block if low <= begin and end <= high else block.within(low, high)

    async def _stored(
        self, log_id: LogId, wanted: Sequence[range]
    ) -> list[tuple[range, bytes | None]]:
        """In place of a sum that is not there its blocks."""
        found = dict(zip(wanted, await self._fields(log_id, wanted), strict=True))
        singly = [
            range(number, number + 1)
            for numbers, data in found.items()
            for number in numbers
            if data is None and len(numbers) > 1
        ]
        if not singly:
            return list(found.items())
        found |= zip(singly, await self._fields(log_id, singly), strict=True)
        return sorted(
            ((numbers, data) for numbers, data in found.items() if data or len(numbers) == 1),
            key=lambda one: one[0].start,
        )

    async def _fields(self, log_id: LogId, blocks: Sequence[range]) -> list[bytes | None]:
        """Of single blocks or of sums, each by the numbers that it tells of."""
        async with store_answer():
            found: list[bytes | None] = await self._redis.execute_command(
                "HMGET", keys.materialized(log_id).blocks, *map(block_field, blocks)
            )
        return found

    async def sum_with(self, log_id: LogId, last: Block) -> Block | None:
        """Of the blocks that end with `last`, where all before it are there and whole, and it is
        worth it: large blocks are read as fast one by one."""
        number = last.base // BLOCK_VERSIONS
        before = [range(each, each + 1) for each in range(number + 1 - SUMMED_BLOCKS, number)]
        found = await self._fields(log_id, before)
        try:
            blocks = [
                Block.decode(data, one.start * BLOCK_VERSIONS)
                for one, data in zip(before, found, strict=True)
                if data is not None
            ]
        except (ValueError, struct.error):
            return None
        is_small = sum(len(block.added) + len(block.removed) for block in blocks) <= _MAX_SUMMED
        return sum_of([*blocks, last]) if len(blocks) == len(before) and is_small else None

    async def _of_stream(self, log_id: LogId, low: int, high: int) -> AsyncGenerator[Block, None]:
        block: Block | None = None
        async with aclosing(self._versions.pages(log_id, low + 1, high)) as found:
            async for page in found:
                for version, body, effects in page.changed():
                    if block is None or version > block.base + BLOCK_VERSIONS:
                        if block is not None:
                            block.sort()
                            yield block
                        block = Block(base=block_of(version) * BLOCK_VERSIONS)
                    block.note(version, body, effects)
        if block is not None:
            block.sort()
            yield block

    async def made(self, log_id: LogId, low: int, high: int, *, base: int | None = None) -> Block:
        """Of at most 256 versions, (low, high], from the stream itself; counted from `base`, or
        `low`."""
        block = Block(base=low if base is None else base)
        async with aclosing(self._versions.pages(log_id, low + 1, high)) as found:
            async for page in found:
                for version, body, effects in page.changed():
                    block.note(version, body, effects)
        block.sort()
        return block


def block_field(numbers: range) -> str:
    """Of a block, or of a sum of blocks."""
    last = numbers[-1]
    return str(last) if len(numbers) == 1 else f"{last}:sum"


def _wanted(low: int, high: int, *, summed: bool) -> Iterator[list[range]]:
    """The numbers of the blocks in (low, high], one by one or by the sums that lie in it whole; so
    many at once as tell of about _AT_ONCE blocks."""
    wanted: list[range] = []
    room = _AT_ONCE
    number, last = block_of(low + 1), block_of(high)
    while number <= last:
        end = number + SUMMED_BLOCKS
        is_whole = low <= number * BLOCK_VERSIONS and end * BLOCK_VERSIONS <= high
        count = SUMMED_BLOCKS if summed and number % SUMMED_BLOCKS == 0 and is_whole else 1
        wanted.append(range(number, number + count))
        number, room = number + count, room - count
        if room <= 0:
            yield wanted
            wanted, room = [], _AT_ONCE
    if wanted:
        yield wanted

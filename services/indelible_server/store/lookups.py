"""Where a key's entry was at a version: by the snapshots around it, and by going back.

Each command names the place of the entry that it replaced, so from a later entry of a key the
earlier ones are found one by one; a snapshot's index of tokens is where to begin. What no step
decides is read from what lies between a snapshot and the version: blocks, then the stream.
Knows nothing of values.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from contextlib import aclosing

from indelible_protocol.ids import LogId
from redis.asyncio import Redis

from indelible_server.store import keys
from indelible_server.store.archive import Archive
from indelible_server.store.base import Bases
from indelible_server.store.blocks import Blocks
from indelible_server.store.connection import store_answer
from indelible_server.store.contents import Contents
from indelible_server.store.entries import Entries
from indelible_server.store.places import (
    INDEX_BITS,
    index_of,
    offset_of,
    removal_of,
    steps_of,
    token_at,
    version_of,
)
from indelible_server.store.snapshots import Snapshot, places_in, token_of
from indelible_server.store.versions import Versions

STEPS_BACK = 6
_MANY_TOKENS = 8
_NOTHING: Mapping[bytes, int] = {}


class Lookups:
    def __init__(self, redis: Redis, archive: Archive | None = None) -> None:
        archive = archive or Archive(redis)
        self._redis = redis
        self._versions = Versions(redis, archive)
        self._contents = Contents(redis, archive)
        self._blocks = Blocks(redis, self._versions)
        self._entries = Entries(redis, archive)
        self._bases = Bases(redis, archive)

    async def places(
        self, log_id: LogId, tokens: Iterable[bytes], now: Mapping[bytes, int], version: int
    ) -> dict[bytes, int]:
        """Places at `version` of those tokens that have an entry there; `now` is the head index's.

        Raises:
            MissingError: versions are not there.
        """
        found = {t: place for t, place in now.items() if version_of(place) <= version}
        sought = [token for token in tokens if token not in found]
        if not sought:
            return found
        later = {t: now[t] for t in sought if t in now}
        after, before = await self._around(log_id, version)
        if after is not None:
            later = await self._indexed(log_id, after, sought)
        steps = 0
        while later and steps < STEPS_BACK:
            found |= {t: place for t, place in later.items() if version_of(place) <= version}
            later = await self._replaced(
                log_id, {t: place for t, place in later.items() if t not in found}
            )
            steps += 1
        sought = [token for token in sought if token not in found]
        return found | await self._forward(log_id, before, sought, version)

    async def searched(
        self, log_id: LogId, tokens: Sequence[bytes], version: int
    ) -> dict[bytes, int]:
        """The same from the base and the stream alone, whatever an index says."""
        base, held = await self._bases.base(log_id), {}
        if base is not None:
            held = await self._held(log_id, base, set(tokens))
        since = base.version if base else 0
        return await self._streamed(log_id, since, dict.fromkeys(tokens), version, held)

    async def _held(
        self, log_id: LogId, snapshot: Snapshot, tokens: Set[bytes]
    ) -> dict[bytes, int]:
        held = {}
        for number in range(snapshot.chunks):
            (chunk,) = await self._contents.chunks(log_id, snapshot, (number,))
            for place, packed in zip(chunk.places, chunk.cut(), strict=True):
                token = token_of(packed)
                if token in tokens:
                    held[token] = place
        return held

    async def _around(self, log_id: LogId, version: int) -> tuple[Snapshot | None, Snapshot | None]:
        """The first snapshot at or above `version`, and the last one at or below it."""
        key = keys.materialized(log_id).snapshots
        async with store_answer(), self._redis.pipeline(transaction=False) as pipe:
            pipe.execute_command("ZRANGEBYSCORE", key, version, "+inf", "LIMIT", 0, 1)
            pipe.execute_command("ZREVRANGEBYSCORE", key, version, "-inf", "LIMIT", 0, 1)
            after, before = await pipe.execute()
        decode = Snapshot.decode
        return decode(after[0]) if after else None, decode(before[0]) if before else None

    async def _indexed(
        self, log_id: LogId, snapshot: Snapshot, tokens: Sequence[bytes]
    ) -> dict[bytes, int]:
        if not snapshot.buckets or not tokens:
            return {}
        numbers = [snapshot.bucket_number(token) for token in tokens]
        buckets = await self._contents.pieces(log_id, snapshot, numbers)
        candidates = {
            token: places_in(bucket, token) for token, bucket in zip(tokens, buckets, strict=True)
        }
        alone = {token: places[0] for token, places in candidates.items() if len(places) == 1}
        for token, places in candidates.items():
            if len(places) > 1:  # of tokens that were made to look alike
                for place in places:
                    (entry,) = await self._entries.some(log_id, [place])
                    if entry.key == token:
                        alone[token] = place
        return alone

    async def _replaced(self, log_id: LogId, places: Mapping[bytes, int]) -> dict[bytes, int]:
        """What the entries at `places` replaced, of those that replaced any."""
        if not places:
            return {}
        rows = await self._entries.versions(
            log_id, sorted({version_of(place) for place in places.values()})
        )
        replaced = {}
        for token, place in places.items():
            row = rows[version_of(place)]
            if token_at(row.body, offset_of(row.effects, index_of(place))) == token:
                before = removal_of(row.effects, index_of(place))
                if before:
                    replaced[token] = before
        return replaced

    async def _forward(
        self, log_id: LogId, before: Snapshot | None, tokens: Sequence[bytes], version: int
    ) -> dict[bytes, int]:
        """From the snapshot below: what it holds, or what took its place up to `version`."""
        since = before.version if before else 0
        places: dict[bytes, int] = await self._indexed(log_id, before, tokens) if before else {}
        doubtful: dict[bytes, int | None] = {t: None for t in tokens if t not in places}
        async with aclosing(self._blocks.read(log_id, since, version)) as blocks:
            async for block in blocks:
                if not places:
                    break
                for token, place in list(places.items()):
                    last = block.followed(place)
                    if last is None:  # ended; it may have been set again
                        doubtful[token] = None
                        del places[token]
                    else:
                        places[token] = last
        return places | await self._streamed(log_id, since, doubtful, version)

    async def _streamed(
        self,
        log_id: LogId,
        since: int,
        tokens: Mapping[bytes, int | None],
        version: int,
        held: Mapping[bytes, int] = _NOTHING,
    ) -> dict[bytes, int]:
        """The last that the versions in (since, version] did to keys that were `held` so before."""
        if not tokens:
            return {}
        few = list(tokens) if len(tokens) <= _MANY_TOKENS else []
        places = dict(held)
        async with aclosing(self._versions.pages(log_id, since + 1, version)) as found:
            async for page in found:
                for at, body, effects in page.changed():
                    if few and not any(token in body for token in few):
                        continue
                    for index, offset, adds, _ in steps_of(effects):
                        token = token_at(body, offset)
                        if token not in tokens:
                            continue
                        if adds:
                            places[token] = at << INDEX_BITS | index
                        else:
                            places.pop(token, None)
        return places

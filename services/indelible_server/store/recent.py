"""The last few versions of a log in one round trip: the head, and the diff to it.

Who waits for a version and is woken by it asks for exactly this. More than a few versions, or
many bytes, are for `reading`, which goes through them in parts. Knows nothing of waiting.
"""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

import msgpack
from indelible_protocol.commands import decode_at
from indelible_protocol.diff import Fold, decode_effects
from indelible_protocol.ids import LogId
from redis.asyncio import Redis

from indelible_server.store import functions, keys
from indelible_server.store.covering import Covering
from indelible_server.store.entries import ChangedEntry, EntryValue
from indelible_server.store.errors import stored
from indelible_server.store.reading import Head

MAX_VERSIONS = 16
MAX_BYTES = 64 << 10


class Asked(NamedTuple):
    log_id: LogId
    from_version: int


class Recent(NamedTuple):
    """The head, and the net changes from the version asked for to it in order `command`; None
    where that is no version below the head, or where they are many."""

    head: Head
    changes: tuple[ChangedEntry, ...] | None


async def read_many(
    redis: Redis, covering: Covering, asked: Sequence[Asked]
) -> list[Recent | None]:
    """One for each; None for a log that is deleted or absent.

    Raises:
        StoreUnavailable: no answer.
    """
    return await asyncio.gather(*(read(redis, covering, each) for each in asked))


async def read(redis: Redis, covering: Covering, asked: Asked) -> Recent | None:
    """None for a log that is deleted or absent.

    Raises:
        StoreUnavailable: no answer.
        DamagedError: what it holds does not decode.
    """
    log_keys = keys.of_log(asked.log_id)
    word, rest = await functions.call(
        redis,
        "recent",
        (log_keys.meta, log_keys.commits),
        (asked.from_version, MAX_VERSIONS, MAX_BYTES),
    )
    if word in ("absent", "deleted"):
        return None
    version, incarnation, first_version, safe = (int(number) for number in rest[:4])
    await covering.cover(asked.log_id, version, safe)
    head = Head(version, incarnation, first_version)
    if word == "far":
        return Recent(head, None)
    rows, removed = cast("list[list[int | bytes]]", rest[4:])
    with stored():
        return Recent(head, _net(rows, removed))


def told(version: int, news: bytes) -> Recent:
    """Of a hint: the head `version`, and the changes from the version before it.

    Raises:
        Exception: it does not decode.
    """
    incarnation, first_version, body, effects, removed = msgpack.unpackb(news, raw=True)
    return Recent(
        Head(version, incarnation, first_version), _net([version, body, effects], removed)
    )


def _net(rows: list[int | bytes], removed: list[int | bytes]) -> tuple[ChangedEntry, ...]:
    bodies: dict[int, bytes] = {}
    fold = Fold()
    for version, body, effects in _triples(rows):
        bodies[version] = body
        for effect in decode_effects(effects):
            command, _ = decode_at(body, effect.offset)
            fold.add(version, command.token, effect)
    gone = {(version, offset): command for version, offset, command in _triples(removed)}
    found = []
    for change in fold.changes():
        body = bodies.get(change.version)
        if body is None:
            command, _ = decode_at(gone[change.version, change.offset], 0)
        else:
            command, _ = decode_at(body, change.offset)
        entry = EntryValue(command.token, command.key_ct, command.value, change.version)
        found.append(ChangedEntry(change.op, entry))
    return tuple(found)


def _triples(flat: list[int | bytes]) -> Iterator[tuple[int, Any, Any]]:
    for at in range(0, len(flat), 3):
        yield int(flat[at]), flat[at + 1], flat[at + 2]

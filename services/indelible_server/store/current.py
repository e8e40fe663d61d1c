"""One key's current entry in one round trip: the head, and the entry with its bytes.

What most who read a key ask for. Where the entry is not at hand, or large, there is no answer from
here, and `reading` looks for it. Knows nothing of other versions than the current one.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from indelible_protocol.commands import decode_at
from indelible_protocol.ids import LogId
from redis.asyncio import Redis

from indelible_server.store import functions, keys
from indelible_server.store.batching import BatchingRedis
from indelible_server.store.cluster import Cluster
from indelible_server.store.covering import Covering
from indelible_server.store.entries import EntryValue
from indelible_server.store.errors import Refusal, stored

MAX_BYTES = 64 << 10  # it shares its connection with others' small answers


class Current(NamedTuple):
    """`entry` is None where the key holds nothing at `version`, the head's."""

    version: int
    incarnation: int
    first_version: int
    entry: EntryValue | None


async def read(redis: Redis, covering: Covering, log_id: LogId, token: bytes) -> Current | None:
    """None where it has to be looked for, or the log is deleted or absent.

    Raises:
        StoreUnavailable: no answer.
        DamagedError: the entry does not decode.
    """
    word, rest = await functions.call(redis, "current", _keys(log_id), (token, MAX_BYTES))
    if word not in _TELLS:
        return None
    await covering.cover(log_id, int(rest[0]), rest[3])
    with stored():
        return _current(rest)


def ask(
    redis: BatchingRedis | Cluster,
    covering: Covering,
    log_id: LogId,
    token: bytes,
    deliver: Callable[[Current | Refusal | None], None],
) -> None:
    """`read` without a task: `deliver` gets what it returns or raises, and must not raise.

    None also where it is not known yet that what was found may be shown.
    """

    def answered(reply: tuple[str, functions.Reply] | Refusal) -> None:
        if isinstance(reply, Refusal):
            deliver(reply)
            return
        word, rest = reply
        found = None
        with suppress(Exception):  # of an entry that is damaged: `read` says what is wrong
            if word in _TELLS and covering.is_covered(log_id, int(rest[0]), rest[3]):
                found = _current(rest)
        deliver(found)

    functions.ask(redis, "current", _keys(log_id), (token, MAX_BYTES), answered)


_TELLS = ("found", "none")


def _keys(log_id: LogId) -> tuple[str, str, str]:
    log_keys = keys.of_log(log_id)
    return log_keys.meta, log_keys.commits, log_keys.index


def _current(rest: functions.Reply) -> Current:
    """Of version, incarnation, first_version, safe, and what the key holds if anything."""
    version, incarnation, first_version = int(rest[0]), int(rest[1]), int(rest[2])
    entry = None
    if len(rest) > 4:
        entry_version, command = rest[4:]
        assert isinstance(command, bytes)
        (_, key, sealed_key, value, _), _ = decode_at(command, 0)
        entry = EntryValue(key, sealed_key, value, int(entry_version))
    return Current(version, incarnation, first_version, entry)

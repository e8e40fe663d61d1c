"""One key's current entry in one round trip: the head, and the entry with its bytes.

What most who read a key ask for. Where the entry is not at hand, or large, there is no answer from
here, and `reading` looks for it. Knows nothing of other versions than the current one.
"""

from typing import NamedTuple

from indelible_protocol.commands import decode_at
from indelible_protocol.ids import LogId
from redis.asyncio import Redis

from indelible_server.store import functions, keys
from indelible_server.store.covering import Covering
from indelible_server.store.entries import EntryValue

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
    """
    log_keys = keys.of_log(log_id)
    word, rest = await functions.call(
        redis, "current", (log_keys.meta, log_keys.commits, log_keys.index), (token, MAX_BYTES)
    )
    if word not in ("found", "none"):
        return None
    version, incarnation, first_version, safe = (int(number) for number in rest[:4])
    await covering.cover(log_id, version, safe)
    entry = None
    if word == "found":
        entry_version, command = rest[4:]
        assert isinstance(command, bytes)
        _, key, sealed_key, value, _ = decode_at(command, 0).command
        entry = EntryValue(key, sealed_key, value, int(entry_version))
    return Current(version, incarnation, first_version, entry)

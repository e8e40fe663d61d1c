"""Objects that nothing lists yet, or any more: putting them, and deleting those that nobody needs.

A name is noted in the store before its object is put, and struck out when something lists it or
when the object is deleted: who dies leaves a note, not an orphan. What may still be listed is never
deleted: that it cannot be any more is for ever. Knows nothing of what objects hold.
"""

import asyncio
from collections.abc import Callable
from typing import Literal, cast

from indelible_protocol.ids import LogId
from redis.asyncio import Redis

from indelible_server.store import functions, keys
from indelible_server.store.archive import Archive
from indelible_server.store.materializing import Gone
from indelible_server.store.objects import name_of

# Longer than a put takes that is given up.
LATE_SECONDS = 600

What = Literal["versions", "rewritten", "snapshot"]


class Archiving:
    """`reach` is called with the name of each point at which a process may be lost."""

    def __init__(
        self, redis: Redis, archive: Archive, *, reach: Callable[[str], None] = lambda point: None
    ) -> None:
        self._redis = redis
        self._archive = archive
        self._reach = reach

    async def put(self, log_id: LogId, what: What, version: int, data: bytes) -> str | None:
        """The name of the object, which is durably there; None if it is not wanted any more.

        `version` is the first that it holds, or the snapshot's.

        Raises:
            Gone: the log is deleted.
            Refusal: the archive or the store failed.
        """
        objects, name = self._archive.objects, await asyncio.to_thread(name_of, data)
        log_keys, archived = keys.of_log(log_id), keys.archived(log_id)
        word, _ = await functions.call(
            self._redis,
            "archive_note",
            [log_keys.meta, log_keys.commits, archived.parts, archived.unlisted],
            [what, version, name],
        )
        if word == "gone":
            raise Gone
        if word == "done":
            return None
        self._reach("before_put")
        await objects.put(log_id, data)
        self._reach("after_put")
        return name

    async def clear(self, log_id: LogId) -> int:
        """Deletes what nothing lists, nor ever will; how many objects that were.

        Raises:
            Gone: the log is deleted.
            Refusal: the archive or the store failed.
        """
        log_keys, archived = keys.of_log(log_id), keys.archived(log_id)
        word, rest = await functions.call(
            self._redis,
            "archive_garbage",
            [log_keys.meta, log_keys.commits, *archived.all()],
            [],
        )
        if word == "gone":
            raise Gone
        names = [name.decode() for name in cast("list[bytes]", rest[0])]
        for name in names:
            self._reach("before_delete")
            await self._archive.objects.delete(log_id, name)
            await functions.call(
                self._redis, "archive_cleared", [archived.unlisted], [LATE_SECONDS, name]
            )
        return len(names)

"""Pages of diffs, each encoded once for all who ask for the same.

A page is a function of its log, its bounds and its form: it never changes, so it is kept as
long as there is room. Knows nothing of requests, and nothing of waiting.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from indelible_protocol import messages
from indelible_protocol.diff import Order
from indelible_protocol.errors import ErrorCode, ProtocolError
from indelible_protocol.messages import Form

from indelible_server.api.cursors import Cursors
from indelible_server.store.admission import LogIdentity
from indelible_server.store.caching import WeighedCache
from indelible_server.store.reading import ChangedEntry, EntryValue, Head, Reader, check_version


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """At most `limit` changes of the diff, beginning with its change number `start`."""

    from_version: int
    to_version: int
    order: Order
    start: int
    limit: int


class Page(NamedTuple):
    """`rest` is the number of the first change after it; None on the last page."""

    body: bytes
    rest: int | None


class Pages:
    def __init__(self, reader: Reader, cursors: Cursors, *, cache_bytes: int) -> None:
        self._reader = reader
        self._cursors = cursors
        self._made: WeighedCache[Hashable, Page] = WeighedCache(
            cache_bytes, lambda page: len(page.body)
        )

    async def page(
        self,
        identity: LogIdentity,
        head: Head,
        wanted: Wanted,
        form: Form,
        changes: Sequence[ChangedEntry] | None = None,
    ) -> Page:
        """In `form`, from the cache or made now; of `changes`, in order `command`, where all of
        the diff's have been read already.

        Raises:
            Refusal: NONEXISTENT_VERSION, FORGOTTEN_VERSION, LOG_REPLACED.
            ProtocolError: BAD_CURSOR: `start` is behind the end.
        """
        check_version(wanted.from_version, head, "from")
        check_version(wanted.to_version, head, "to")
        key = (identity.log_id, head.incarnation, wanted, form)

        async def make() -> Page:
            if changes is not None and wanted.start == 0 and len(changes) <= wanted.limit:
                return Page(messages.encode(_whole(wanted, changes), form), None)
            diff, rest = await self.diff(identity, head, wanted)
            return Page(messages.encode(diff, form), rest)

        return await self._made.get(key, make)

    async def diff(
        self, identity: LogIdentity, head: Head, wanted: Wanted
    ) -> tuple[messages.Diff, int | None]:
        """As `page`, but the message itself, made anew; and where the next page begins."""
        log_id, low, high = identity.log_id, wanted.from_version, wanted.to_version
        changes = await self._reader.changes(log_id, head, low, high, wanted.order)
        if wanted.start > len(changes):
            raise ProtocolError("the cursor is behind the end", ErrorCode.BAD_CURSOR)
        asked = changes[wanted.start : wanted.start + wanted.limit]
        found = await self._reader.resolve(log_id, asked)
        at = wanted.start + len(found)
        rest = at if at < len(changes) else None
        cursor = None
        if rest is not None:
            pinned = (log_id, identity.incarnation, low, high, wanted.order)
            cursor = self._cursors.seal("diff", [*pinned, rest])
        page = messages.Diff(
            from_version=low,
            to_version=high,
            changes=[_change(changed.op, changed.entry) for changed in found],
            cursor=cursor,
        )
        return page, rest


def _whole(wanted: Wanted, changes: Sequence[ChangedEntry]) -> messages.Diff:
    if wanted.order == "key":
        changes = sorted(changes, key=lambda changed: (changed.entry.key, changed.op == "add"))
    return messages.Diff(
        from_version=wanted.from_version,
        to_version=wanted.to_version,
        changes=[_change(changed.op, changed.entry) for changed in changes],
        cursor=None,
    )


def _change(op: Literal["remove", "add"], value: EntryValue) -> messages.DiffChange:
    return messages.DiffChange(
        op=op,
        key=value.key,
        sealed_key=value.sealed_key,
        value=value.value,
        version=value.version,
    )

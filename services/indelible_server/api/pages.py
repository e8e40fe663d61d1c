"""Pages of diffs, each encoded once for all who ask for the same.

A page is a function of its log, its bounds and its form: it never changes, so it is kept as
long as there is room. Knows nothing of requests, and nothing of waiting.
"""

from collections.abc import AsyncGenerator, Hashable, Sequence
from contextlib import aclosing
from typing import Literal, NamedTuple

from indelible_protocol import messages
from indelible_protocol.diff import Order
from indelible_protocol.messages import Form
from msgspec import Struct

from indelible_server.api.cursors import Cursors
from indelible_server.store.admission import LogIdentity
from indelible_server.store.caching import WeighedCache
from indelible_server.store.entries import ChangedEntry, EntryValue
from indelible_server.store.nets import Position
from indelible_server.store.reading import Head, Reader, check_version


class Wanted(Struct, frozen=True, kw_only=True):
    """At most `limit` changes of the diff, beginning at `start`; None: with the first."""

    from_version: int
    to_version: int
    order: Order
    start: Position | None
    limit: int


class Page(NamedTuple):
    """`rest` is where the next page begins; None on the last page."""

    body: bytes
    rest: Position | None


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
        """In `form`, from the cache or made now; of `changes` as `whole`, if they are all there.

        Raises:
            Refusal: NONEXISTENT_VERSION, FORGOTTEN_VERSION, LOG_REPLACED.
        """
        check_version(wanted.from_version, head, "from")
        check_version(wanted.to_version, head, "to")
        if changes is not None and wanted.start is None and len(changes) <= wanted.limit:
            return self.whole(identity, head, wanted, form, changes)

        async def make() -> Page:
            diff, rest = await self.diff(identity, head, wanted)
            return Page(messages.encode(diff, form), rest)

        return await self._made.get(_key(identity, head, wanted, form), make)

    def whole(
        self,
        identity: LogIdentity,
        head: Head,
        wanted: Wanted,
        form: Form,
        changes: Sequence[ChangedEntry],
    ) -> Page:
        """Of `changes`, in order `command`: all of the diff's, and no more than are wanted."""
        key = _key(identity, head, wanted, form)
        page = self._made.known(key)
        if page is None:
            page = Page(messages.encode(_whole(wanted, changes), form), None)
            self._made.put(key, page)
        return page

    async def diff(
        self, identity: LogIdentity, head: Head, wanted: Wanted
    ) -> tuple[messages.Diff, Position | None]:
        """As `page`, but the message itself, made anew; and where the next page begins."""
        log_id, low, high = identity.log_id, wanted.from_version, wanted.to_version
        found, rest = await self._reader.page(
            log_id, head, low, high, wanted.order, wanted.start, wanted.limit
        )
        page = messages.Diff(
            from_version=low,
            to_version=high,
            changes=[_change(changed.op, changed.entry) for changed in found],
            cursor=self._cursor(identity, wanted, rest),
        )
        return page, rest

    async def stream(
        self, identity: LogIdentity, head: Head, wanted: Wanted, form: Form
    ) -> AsyncGenerator[bytes, None]:
        """All pages from `start` on, one after the other; in JSON each on a line of its own.

        Each has the cursor of what follows it, so a stream that is cut off is gone on with. None
        is kept, and none is larger than what one read of the store gives.

        Raises:
            Refusal: as `page`; LOG_REPLACED perhaps in the middle.
        """
        low, high = wanted.from_version, wanted.to_version
        portions = self._reader.portions(
            identity.log_id, head, low, high, wanted.order, wanted.start
        )
        async with aclosing(portions) as found:
            async for changes, rest in found:
                cursor = self._cursor(identity, wanted, rest)
                page = messages.packed_diff(low, high, changes, cursor)
                yield page if form is Form.MSGPACK else messages.diff_line(page)

    def _cursor(self, identity: LogIdentity, wanted: Wanted, rest: Position | None) -> str | None:
        if rest is None:
            return None
        span = (wanted.from_version, wanted.to_version, wanted.order)
        return self._cursors.seal("diff", [identity.log_id, identity.incarnation, *span, *rest])


def _key(identity: LogIdentity, head: Head, wanted: Wanted, form: Form) -> Hashable:
    return identity.log_id, head.incarnation, wanted, form


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

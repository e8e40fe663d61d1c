"""One opened log: its remote half, this profile's membership, and the codec of both.

Owns what happens when the log's control records grow under an open handle: they are read
and checked again, and what could not be opened or was refused is tried once more.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

from indelible_protocol import messages
from indelible_protocol.errors import ErrorCode

from indelible.codec import Codec, in_turns
from indelible.errors import NotFoundError, UnsealError
from indelible.keyring import Identity
from indelible.names import Name, name_of
from indelible.opening import Membership, open_log
from indelible.remote import RemoteLog, Service

T = TypeVar("T")
R = TypeVar("R")


class Handle:
    """What `log`, `watching` and `writing` share of a log."""

    def __init__(
        self, service: Service, identity: Identity, name: bytes, opened: messages.Opened
    ) -> None:
        """
        Raises:
            VerificationError, UnsealError: `opened` is not this identity's log of this name.
        """
        self.service = service
        self.identity = identity
        self.name: Name = name_of(name)
        self.group = opened.description.group
        self._name = name
        self._take(open_log(identity, name, opened))
        self.remote = RemoteLog(service, self.membership.log_id, opened.description.version)

    def _take(self, membership: Membership) -> None:
        self.membership = membership
        self.codec = Codec(membership.keys, membership.key_mode, membership.value_mode)

    async def refresh(self) -> bool:
        """Whether the log has control records that this handle had not seen.

        Raises:
            NotFoundError: LOG_REPLACED, if the name means another log by now.
        """
        opened = await self.service.opened(self.identity.name_token(self._name))
        membership = open_log(self.identity, self._name, opened)
        if membership.log_id != self.membership.log_id:
            raise NotFoundError(
                f"the log {self.name!r} was dropped and made again: open it anew",
                code=ErrorCode.LOG_REPLACED,
            )
        grown = membership.ctl_seq > self.membership.ctl_seq
        if grown:
            self._take(membership)
        return grown

    async def opened(self, items: Sequence[T], work: Callable[[Codec, T], R]) -> list[R]:
        """`work` on each item, with the keys of a newer epoch if it takes them."""
        try:
            return await self._in_turns(items, work)
        except UnsealError:
            if not await self.refresh():
                raise
        return await self._in_turns(items, work)

    async def _in_turns(self, items: Sequence[T], work: Callable[[Codec, T], R]) -> list[R]:
        codec = self.codec
        return await in_turns(items, lambda item: work(codec, item))

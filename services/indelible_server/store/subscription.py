"""One subscription to channels that live on many nodes.

Looks like a connection of redis-py to who listens (`wakeups`). Owns one connection for each node
that serves a wanted channel, and moves a channel's subscription when its slot moves or its node
is gone. The end of one and the confirmation of the next tell the listener what it has missed.
"""

import asyncio
from typing import Any, Protocol

import structlog
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import (
    AskError,
    MovedError,
    RedisError,
    ResponseError,
)

from indelible_server.store.slots import Address, SlotMap, slot_of

_log = structlog.get_logger(__name__)

_REPAIR_SECONDS = (0.05, 1.0)
_CONNECT_SECONDS = 2.0
_SILENT_PINGS = 3


class Nodes(Protocol):
    """What a subscription needs of the cluster's client."""

    def node(self, address: Address) -> Redis: ...
    async def owner_of(self, slot: int) -> Address: ...
    async def refresh(self) -> SlotMap: ...
    def moved(self, slot: int, owner: Address) -> None: ...


class _Link:
    """A connection to one node, who reads it, and the channels it was asked for."""

    __slots__ = ("answered", "channels", "connection", "reader", "unanswered_pings")

    def __init__(self, connection: AbstractConnection) -> None:
        self.connection = connection
        self.channels: set[str] = set()
        self.unanswered_pings = 0
        self.answered = b""  # the last PING with a stamp
        self.reader: asyncio.Task[None] | None = None


class ClusterSubscription:
    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self._links: dict[Address, _Link] = {}
        self._connecting = asyncio.Lock()
        self._wanted: set[str] = set()
        self._homeless: set[str] = set()
        self._has_homeless = asyncio.Event()
        self._messages: asyncio.Queue[object] = asyncio.Queue()
        self._repairing: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        """
        Raises:
            RedisError: no node can be asked for the others.
        """
        await self._nodes.refresh()
        self._repairing = asyncio.ensure_future(self._keep_repairing())

    async def send_command(self, *args: str, check_health: bool = True) -> None:
        word, *names = args
        if word == "PING":
            await (self._ask_all(*names) if names else self._ping())
            return
        for name in names:
            if word == "SSUBSCRIBE":
                self._wanted.add(name)
                await self._place(name)
            elif word == "SUNSUBSCRIBE":
                await self._let_go(name)

    async def read_response(self) -> object:
        """The next message of any node: a hint, a confirmation, an answer to PING. One that had a
        stamp is answered once every node has."""
        return await self._messages.get()

    async def disconnect(self, nowait: bool = False) -> None:
        if self._repairing is not None:
            self._repairing.cancel()
        for address in list(self._links):
            await self._drop(address)

    async def _place(self, name: str) -> None:
        """Asks the node that serves the channel; where that fails, it is tried again later."""
        try:
            address = await self._nodes.owner_of(slot_of(name))
            link = self._links.get(address) or await self._link(address)
            link.channels.add(name)
            await link.connection.send_command("SSUBSCRIBE", name, check_health=False)
        except (RedisError, OSError, TimeoutError):
            self._lose([name])

    async def _link(self, address: Address) -> _Link:
        async with self._connecting:
            if address in self._links:
                return self._links[address]
            link = _Link(self._nodes.node(address).connection_pool.make_connection())
            async with asyncio.timeout(_CONNECT_SECONDS):
                await link.connection.connect()
            link.reader = asyncio.ensure_future(self._read(address, link))
            self._links[address] = link
            return link

    async def _read(self, address: Address, link: _Link) -> None:
        try:
            while True:
                try:
                    message = await link.connection.read_response()
                except MovedError as told:
                    # Not which channel, but which slot: all of it is elsewhere.
                    self._nodes.moved(told.slot_id, Address(told.host or address.host, told.port))
                    self._lose([n for n in link.channels if slot_of(n) == told.slot_id])
                    continue
                except (AskError, ResponseError):
                    self._lose(list(link.channels))
                    continue
                link.unanswered_pings = 0
                if self._was_ended(message, link) or self._awaits_others(message, link):
                    continue
                self._messages.put_nowait(message)
        except (RedisError, OSError) as error:
            _log.warning("wakeups.disconnected", reason=type(error).__name__)
            await self._drop(address, by_reader=True)

    def _was_ended(self, message: Any, link: _Link) -> bool:
        """The node has ended a subscription by itself: its slot went to another."""
        if not isinstance(message, list) or message[0] != b"sunsubscribe" or not message[1]:
            return False
        name = message[1].decode()
        if name in link.channels:
            self._lose([name])
        return True

    def _awaits_others(self, message: Any, link: _Link) -> bool:
        """Whether other nodes have yet to answer what this one has."""
        if not isinstance(message, list) or message[0] != b"pong" or not message[1]:
            return False
        link.answered = message[1]
        return any(each.answered != link.answered for each in self._links.values())

    def _lose(self, names: list[str]) -> None:
        for link in self._links.values():
            link.channels.difference_update(names)
        for name in self._wanted.intersection(names) - self._homeless:
            self._homeless.add(name)
            self._messages.put_nowait([b"sunsubscribe", name.encode(), 0])
        self._has_homeless.set()

    async def _let_go(self, name: str) -> None:
        self._wanted.discard(name)
        self._homeless.discard(name)
        for link in self._links.values():
            if name in link.channels:
                link.channels.discard(name)
                await link.connection.send_command("SUNSUBSCRIBE", name, check_health=False)

    async def _drop(self, address: Address, *, by_reader: bool = False) -> None:
        link = self._links.pop(address, None)
        if link is None:
            return
        if link.reader is not None and not by_reader:
            link.reader.cancel()
        self._lose(list(link.channels))
        await link.connection.disconnect(nowait=True)

    async def _ping(self) -> None:
        """Finds connections that are open but dead; silence for several rounds ends them."""
        for address, link in list(self._links.items()):
            if link.unanswered_pings >= _SILENT_PINGS:
                _log.warning("wakeups.silent", rounds=link.unanswered_pings)
                await self._drop(address)
                continue
            link.unanswered_pings += 1
            await self._send_ping(address, link)

    async def _ask_all(self, stamp: str) -> None:
        for address, link in list(self._links.items()):
            await self._send_ping(address, link, stamp)

    async def _send_ping(self, address: Address, link: _Link, *stamp: str) -> None:
        try:
            await link.connection.send_command("PING", *stamp, check_health=False)
        except (RedisError, OSError):
            await self._drop(address)

    async def _keep_repairing(self) -> None:
        """Channels without a node find one by a new look at the cluster, however long it takes."""
        pause, most = _REPAIR_SECONDS
        while True:
            await self._has_homeless.wait()
            await asyncio.sleep(pause)
            homeless, self._homeless = self._homeless, set()
            self._has_homeless.clear()
            try:
                await self._nodes.refresh()
            except (RedisError, OSError):
                self._lose(list(homeless))
            else:
                for name in homeless & self._wanted:
                    await self._place(name)
            pause = min(2 * pause, most) if self._homeless else _REPAIR_SECONDS[0]

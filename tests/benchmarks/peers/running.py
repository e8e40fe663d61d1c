"""What another system must be able to do here: append to streams, wake who waits, count.

A `Way` is one manner of asking it for the same thing: etcd has a gateway for JSON and gRPC.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.benchmarks.peers.parking import Foreign
from tests.benchmarks.peers.processes import PeerProcess
from tests.benchmarks.wire import Dialect, HttpAnswer, connect

PATIENCE_SECONDS = 10.0
MARK = b"bench-value:"  # every value that is appended begins with it


@dataclass(frozen=True, slots=True, kw_only=True)
class Watching:
    """`wait` gives the bytes of waiter n on a stream, `again` those after a message; the rest is
    as in `parking.Parking`."""

    dialect: Dialect
    wait: Callable[[int, int], bytes]
    marker: Callable[[bytes], bytes]
    confirmations: int = 1
    again: Callable[[int, bytes], bytes] | None = None
    look: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """`append` gives the request of connection n (the last number) that appends to a stream.

    `transaction`: the append is a compare and a put in one.
    """

    name: str
    dialect: Dialect
    append: Callable[[int, bytes, int], bytes]
    greeting: Callable[[int], bytes] = lambda connection: b""
    watching: Watching | None = None
    transaction: bool = False


class Running(Protocol):
    """A started server. `name` has its version."""

    name: str
    process: PeerProcess
    ways: list[Way]

    async def prepare(self, streams: int) -> None:
        """Makes the streams 0 and on."""

    async def count(self, streams: int) -> int:
        """How many appends the streams have had together, or as many more as it likes."""


class Peer(Protocol):
    """A system that may be installed. `install` is the command that installs it."""

    system: str
    install: str

    def absent(self, folder: Path) -> str:
        """Why it cannot be run; empty if it can. `folder` holds what npm installed."""

    async def start(self, folder: Path, data: Path) -> Running: ...


async def ask(port: int, dialect: Dialect, request: bytes, greeting: bytes = b"") -> HttpAnswer:
    """One request on a connection of its own.

    Raises:
        RuntimeError: it was answered with an error.
    """
    asking = Foreign(dialect)
    await connect(asking, port)
    try:
        if greeting:
            asking.send(greeting)
        answer = await asyncio.wait_for(asking.ask(request), PATIENCE_SECONDS)
    finally:
        asking.close()
    if answer.status // 100 != 2:
        raise RuntimeError(answer.body[:300].decode(errors="replace"))
    return answer

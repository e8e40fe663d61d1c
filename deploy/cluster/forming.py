"""Forms a cluster of running, empty nodes: slots, acquaintance, replicas.

Speaks to the nodes alone; knows nothing of the service. No command-line tool of the engine is
needed: the wheel of the embedded engine brings none.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import NamedTuple

from redis.asyncio import Redis

SLOTS = 16_384
READY_SECONDS = 60.0


class Address(NamedTuple):
    """Of a node: `bus` is its port for other nodes, if that is not `port` + 10000."""

    host: str
    port: int
    bus: int | None = None


class FormingError(Exception):
    """The nodes are not a cluster in the end; says what is missing."""


async def form(
    addresses: Sequence[Address], *, replicas: int, within_seconds: float = READY_SECONDS
) -> None:
    """The first nodes become primaries with equal shares of the slots, the rest their replicas.

    Replica k follows primary k mod (number of primaries): list machines so that no primary shares
    one with its replica. Returns when every node sees every slot served and every replica has
    its primary's data.

    Raises:
        FormingError: the nodes do not divide, are not empty, or are not ready in time.
    """
    count, rest = divmod(len(addresses), replicas + 1)
    if rest or not count:
        raise FormingError(
            f"{len(addresses)} nodes are not primaries with {replicas} replicas each"
        )
    async with AsyncExitStack() as stack:
        nodes = [
            await stack.enter_async_context(
                Redis(host=node.host, port=node.port, decode_responses=True)
            )
            for node in addresses
        ]
        await _check_empty(nodes, addresses)
        for number, node in enumerate(nodes[:count]):
            first, last = SLOTS * number // count, SLOTS * (number + 1) // count - 1
            await node.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
        for number, node in enumerate(nodes):
            # Epochs that differ spare the nodes a round of disputes over them.
            await node.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for host, port, bus in addresses[1:]:
            await nodes[0].execute_command("CLUSTER", "MEET", host, port, bus or port + 10_000)
        deadline = time.monotonic() + within_seconds
        await _all(nodes, deadline, "know each other", lambda node: _knows(node, len(nodes)))
        ids = [await node.execute_command("CLUSTER", "MYID") for node in nodes[:count]]
        for number, node in enumerate(nodes[count:]):
            await node.execute_command("CLUSTER", "REPLICATE", ids[number % count])
        await _all(nodes[count:], deadline, "have their primaries' data", _is_in_sync)
        await _all(nodes, deadline, "see every slot served", _sees_all)


async def _check_empty(nodes: Sequence[Redis], addresses: Sequence[Address]) -> None:
    for node, (host, port, _) in zip(nodes, addresses, strict=True):
        told = await _info(node)
        if told["cluster_known_nodes"] != "1" or await node.execute_command("DBSIZE"):
            raise FormingError(f"{host}:{port} is not empty, or in a cluster already")


async def _knows(node: Redis, count: int) -> bool:
    """The node has shaken hands with all of them: who is new has no settled id yet."""
    lines = (await node.execute_command("CLUSTER", "NODES")) or ""
    text = lines if isinstance(lines, str) else str(lines)
    return (await _info(node))["cluster_known_nodes"] == str(count) and "handshake" not in text


async def _is_in_sync(node: Redis) -> bool:
    told = await node.info("replication")
    return bool(told["role"] == "slave" and told["master_link_status"] == "up")


async def _sees_all(node: Redis) -> bool:
    told = await _info(node)
    return told["cluster_state"] == "ok" and told["cluster_slots_ok"] == str(SLOTS)


async def _info(node: Redis) -> dict[str, str]:
    """CLUSTER INFO, as text whatever the client makes of it."""
    told = await node.execute_command("CLUSTER INFO")
    if isinstance(told, dict):
        return {str(name): str(value) for name, value in told.items()}
    return dict(line.split(":", 1) for line in str(told).split("\r\n") if ":" in line)


async def _all(
    nodes: Sequence[Redis],
    deadline: float,
    what: str,
    condition: Callable[[Redis], Awaitable[bool]],
) -> None:
    while not all([await condition(node) for node in nodes]):
        if time.monotonic() > deadline:
            raise FormingError(f"not in time: some nodes do not {what}")
        await asyncio.sleep(0.02)

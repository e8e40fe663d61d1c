"""Reads a log from the store itself, past every API: what is really there in the end."""

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import cast
from urllib.parse import urlsplit

import msgpack
from indelible_protocol.commands import Op as StoredOp
from indelible_protocol.commands import decode_body
from indelible_protocol.records import Header
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode

from tests.support.operations import Command, Op, Stored, token_of
from tests.support.timeline import Timeline

_SLICE = 5_000


def store_at(url: str) -> Redis | RedisCluster:
    """redis-py's own client of an engine, or of the cluster that `?cluster=true` says it is."""
    if "cluster=true" not in url:
        return Redis.from_url(url, protocol=2)
    hosts = urlsplit(url).netloc.split(",")
    places = [host.rpartition(":") for host in hosts]
    nodes = [ClusterNode(host, int(port)) for host, _, port in places]
    return RedisCluster(startup_nodes=nodes, protocol=2)


async def stored_versions(
    store_url: str, log_id: bytes, *, sent: Iterable[Command]
) -> list[Stored]:
    """Every version of an opaque log, oldest first.

    The log keeps only the hash of a value that REMOVE names; `sent` gives the value back.
    """
    value_of = {sha256(command.value.encode()).digest(): command.value for command in sent}
    stored = []
    async with store_at(store_url) as store:
        start = "-"
        while True:
            entries = cast(
                "list[tuple[bytes, dict[bytes, bytes]]]",
                await store.xrange(f"{{{log_id.hex()}}}:commits", min=start, count=_SLICE),
            )
            for entry_id, fields in entries:
                commands = _commands(fields, value_of)
                stored.append(Stored(version=_version(entry_id), commands=commands))
            if len(entries) < _SLICE:
                return stored
            start = f"({entries[-1][0].decode()}"


def _version(entry_id: bytes) -> int:
    version, _, part = entry_id.partition(b"-")
    assert part == b"0", f"stream id {entry_id!r} is not <version>-0"
    return int(version)


def _commands(fields: dict[bytes, bytes], value_of: dict[bytes, str]) -> tuple[Command, ...]:
    count = Header.decode(fields[b"h"]).command_count
    commands = []
    for command in decode_body(fields[b"b"], count).commands:
        op = Op[command.op.name]
        value, version = "", 0
        if command.op in (StoredOp.EXPECT_ENTRY, StoredOp.EXPECT_VERSION):
            version = command.version
        elif command.op is StoredOp.REMOVE:
            value = value_of.get(command.value, command.value.hex())
        else:
            value = command.value.decode()
        commands.append(Command(op, command.token.decode(), value, version))
    return tuple(commands)


async def disagreements(
    store_url: str, log_id: bytes, stored: Sequence[Stored], *, keyed: bool
) -> list[str]:
    """Where the parts of a log that one commit writes together do not fit together.

    The stream is taken as the truth. `keyed`: commits had idempotency keys, their tokens
    (with a `/` and a number behind where each send had a key of its own).
    """
    tag = f"{{{log_id.hex()}}}:"
    async with store_at(store_url) as store:
        meta = cast("dict[bytes, bytes]", await store.hgetall(tag + "meta"))
        index = cast("dict[bytes, bytes]", await store.hgetall(tag + "index"))
        answers = cast(
            "dict[bytes, bytes]",
            await store.hgetall(tag + "answers0") | await store.hgetall(tag + "answers1"),
        )
    live = Timeline(stored).live()
    indexed = {key.decode(): int.from_bytes(entry[:8], "big") for key, entry in index.items()}
    found = []
    if int(meta[b"version"]) != len(stored):
        found.append(f"the head says {meta[b'version']!r}, the stream ends at {len(stored)}")
    if int(meta[b"entries"]) != len(live):
        found.append(f"{meta[b'entries']!r} entries are counted, {len(live)} live")
    if indexed != live:
        found.append(f"the index holds {indexed}, the stream folds to {live}")
    places = {token_of(commit.commands): commit.version for commit in stored}
    remembered = set()
    for key, packed in answers.items():
        token = key.decode().partition("/")[0]
        remembered.add(token)
        _, _, version, changed = msgpack.unpackb(packed, raw=True)
        if not changed and token in places and token == key.decode():
            found.append(f"{token} is remembered as without effect, and is at {places[token]}")
        if changed and token not in places:
            found.append(f"{token} is remembered at {version}, and is not in the stream")
    if keyed:
        found += [f"{token} is not remembered" for token in places if token not in remembered]
    return found

"""Reads a log from the store itself, past every API: what is really there in the end."""

from collections.abc import Iterable
from hashlib import sha256
from typing import cast

from indelible_protocol.commands import Op as StoredOp
from indelible_protocol.commands import decode_body
from indelible_protocol.records import Header
from redis.asyncio import Redis

from tests.support.operations import Command, Op, Stored

_SLICE = 5_000


async def stored_versions(
    store_url: str, log_id: bytes, *, sent: Iterable[Command]
) -> list[Stored]:
    """Every version of an opaque log, oldest first.

    The log keeps only the hash of a value that REMOVE names; `sent` gives the value back.
    """
    value_of = {sha256(command.value.encode()).digest(): command.value for command in sent}
    stored = []
    async with Redis.from_url(store_url, protocol=2) as store:
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
    for located in decode_body(fields[b"b"], count):
        command = located.command
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

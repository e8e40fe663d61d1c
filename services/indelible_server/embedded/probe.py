"""Asks an engine how it is, over its unix socket. Owns the few bytes of RESP that takes.

The Redis client is the store's; here one command a connection is enough.
"""

import asyncio
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from indelible_server.embedded.binaries import EngineBinary
from indelible_server.embedded.folder import EngineError

_ANSWER_SECONDS = 2.0
Reply = str | list["Reply"]


class Condition(Struct, frozen=True, kw_only=True):
    """What INFO tells. `loaded_bytes` moves while a start replays the append-only file."""

    pid: int
    binary: EngineBinary
    loading: bool
    loaded_bytes: int


async def condition(socket: Path) -> Condition | None:
    """None while nobody answers."""
    try:
        text = await ask(socket, "INFO")
    except OSError:
        return None
    assert isinstance(text, str)
    info = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    # Valkey also tells a redis_version: the one that it is compatible with.
    name = "valkey" if "valkey_version" in info else "redis"
    return Condition(
        pid=int(info["process_id"]),
        binary=EngineBinary(
            name=name, version=info[f"{name}_version"], path=Path(info["executable"])
        ),
        loading=info["loading"] != "0",
        loaded_bytes=int(info.get("loading_loaded_bytes", 0)),
    )


async def working_directory(socket: Path) -> Path:
    """Where the engine keeps its files.

    Raises:
        OSError: nobody answers.
    """
    reply = await ask(socket, "CONFIG GET dir")
    assert isinstance(reply, list)
    assert isinstance(reply[1], str)
    return Path(reply[1])


async def ask(socket: Path, command: str) -> Reply:
    """The reply to one inline command.

    Raises:
        OSError: nobody listens, or there is no whole reply within 2 s.
        EngineError: an error reply.
    """
    async with asyncio.timeout(_ANSWER_SECONDS):
        reader, writer = await asyncio.open_unix_connection(socket)
        try:
            writer.write(command.encode() + b"\r\n")
            return await _reply(reader)
        except asyncio.IncompleteReadError as error:
            raise ConnectionResetError("the engine closed the connection") from error
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


async def _reply(reader: asyncio.StreamReader) -> Reply:
    line = (await reader.readuntil(b"\r\n"))[:-2]
    kind, rest = line[:1], line[1:]
    if kind == b"$":
        return (await reader.readexactly(int(rest) + 2))[:-2].decode(errors="surrogateescape")
    if kind == b"*":
        return [await _reply(reader) for _ in range(int(rest))]
    if kind == b"-":
        raise EngineError(f"the engine answered: {rest.decode(errors='replace')}")
    return rest.decode(errors="replace")

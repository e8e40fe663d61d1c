"""Long logs read whole: by the bare engine's XRANGE, and as the service streams them.

Runs in a worker process. Each reads to the end, counts what came, and says how long it took, until
the first byte and in all. Also writes beside a log what the materializer would.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import hiredis
from indelible_protocol import paths
from indelible_protocol.ids import LogId
from indelible_server.store import keys
from indelible_server.store.connection import connect
from indelible_server.store.materializing import Materializing

from tests.benchmarks.closed_loop import cpu_seconds
from tests.benchmarks.crowds import anonymous_bytes
from tests.benchmarks.figures import check, percentile
from tests.benchmarks.wire import request

PATIENCE_SECONDS = 60.0
_ADDED = b"\xa2op\xa3add"
_READ_BYTES = 1 << 18
_ROWS = 2_000
_LOOKED_AT_SECONDS = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    """`grown_bytes` is by how much the process that streamed was larger meanwhile."""

    count: int
    seconds: float
    first_ms: float
    cpu_seconds: float = 0.0
    grown_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Streaming:
    port: int
    pid: int
    apikey: str
    log_id: LogId
    version: int


async def drain(socket: str, log_id: LogId) -> Drained:
    """XRANGE to the end, rows as hiredis makes them."""
    reader, writer = await asyncio.open_unix_connection(socket)
    replies = hiredis.Reader()
    key, after, count = keys.of_log(log_id).commits, "-", 0
    began = time.perf_counter()
    first_ms = 0.0
    while True:
        words: tuple[Any, ...] = ("XRANGE", key, after, "+", "COUNT", _ROWS)
        writer.write(hiredis.pack_command(words))
        while (rows := replies.gets()) is False:
            replies.feed(await asyncio.wait_for(reader.read(_READ_BYTES), PATIENCE_SECONDS))
        first_ms = first_ms or 1_000 * (time.perf_counter() - began)
        if not rows:
            break
        count += len(rows)
        after = f"({rows[-1][0].decode()}"
    seconds = time.perf_counter() - began
    writer.close()
    return Drained(count=count, seconds=seconds, first_ms=first_ms)


async def round_trips(socket: str, log_id: LogId, count: int) -> float:
    """The median time of one small question to the bare engine, in ms."""
    reader, writer = await asyncio.open_unix_connection(socket)
    words: tuple[Any, ...] = ("HGET", keys.of_log(log_id).meta, "version")
    asked = hiredis.pack_command(words)
    took = []
    for _ in range(count):
        began = time.perf_counter()
        writer.write(asked)
        answer = await asyncio.wait_for(reader.read(_READ_BYTES), PATIENCE_SECONDS)
        took.append(time.perf_counter() - began)
        check(answer.startswith(b"$"), f"the engine answered {answer[:80]!r}")
    writer.close()
    return 1_000 * percentile(sorted(took), 0.5)


async def stream(plan: Streaming) -> Drained:
    """The contents at a version with limit=0; counts the changes that add."""
    reader, writer = await asyncio.open_connection("127.0.0.1", plan.port, limit=1 << 20)
    path = f"{paths.of_log(paths.DIFF, plan.log_id)}?to={quote(str(plan.version))}&limit=0"
    size, cpu = anonymous_bytes(plan.pid), cpu_seconds(plan.pid)
    watching = asyncio.create_task(_most_bytes(plan.pid))
    began = time.perf_counter()
    writer.write(request("GET", path, apikey=plan.apikey))
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_SECONDS)
    check(b" 200 " in head[:16] and b"chunked" in head, f"no stream: {head[:200]!r}")
    count, rest, first_ms = 0, b"", 0.0
    while length := int(await reader.readline(), 16):
        data = rest + (await reader.readexactly(length + 2))[:-2]
        first_ms = first_ms or 1_000 * (time.perf_counter() - began)
        count += data.count(_ADDED)
        rest = data[-len(_ADDED) + 1 :]
    seconds = time.perf_counter() - began
    watching.cancel()
    await asyncio.wait({watching})
    writer.close()
    check(data.endswith(b"\xa6cursor\xc0"), "the stream did not end with its last page")
    return Drained(
        count=count,
        seconds=seconds,
        first_ms=first_ms,
        cpu_seconds=cpu_seconds(plan.pid) - cpu,
        grown_bytes=_seen.pop(plan.pid, size) - size,
    )


_seen: dict[int, int] = {}


async def _most_bytes(pid: int) -> None:
    while True:
        _seen[pid] = max(_seen.get(pid, 0), anonymous_bytes(pid))
        await asyncio.sleep(_LOOKED_AT_SECONDS)


async def materialize(url: str, log_id: LogId, version: int) -> int:
    """How many snapshots were written."""
    clients = connect(url, connections=4, timeout_seconds=PATIENCE_SECONDS)
    try:
        advance = await Materializing(clients.commands).advance(log_id, version)
        return len(advance.snapshots)
    finally:
        await clients.close()

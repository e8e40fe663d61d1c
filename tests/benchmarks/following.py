"""Load of one writer and its followers: how long a wake takes, and what it costs.

Runs in a worker process. One follower per log waits for the next version; the writer writes to
the logs in turn and goes on when its acknowledgement and the diff are there. `follow_stream` is
the same on a bare stream of the engine: XADD and XREAD BLOCK.
"""

import asyncio
import gc
import os
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgpack
from indelible_protocol import paths
from indelible_protocol.ids import LogId

from tests.benchmarks.closed_loop import cpu_seconds
from tests.benchmarks.figures import check, percentile
from tests.benchmarks.wire import (
    Asking,
    HttpAnswer,
    asking,
    commit_request,
    opaque_body,
    request,
    wait_request,
)

VALUE_BYTES = 256
WAIT_SECONDS = 30
PATIENCE_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Following:
    """The writer writes to `port`, the followers ask at `wait_port`, of the processes `pids`.

    `versions` are those that the logs are at. `pause_seconds` is how long a writer thinks between
    its writes, in which its followers ask again.
    """

    port: int
    wait_port: int
    apikey: str
    logs: Sequence[LogId]
    versions: Sequence[int]
    pids: Sequence[int]
    seconds: float
    max_wakes: int
    pause_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowingStream:
    """`socket` is the engine's, `pid` its process."""

    socket: str
    stream: str
    pid: int
    seconds: float
    max_wakes: int
    pause_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wakes:
    """`cpu_us` is the server's processor time per write, wake and next wait."""

    count: int
    p50_ms: float
    p99_ms: float
    cpu_us: float


async def follow(plan: Following) -> Wakes:
    """
    Raises:
        CheckFailed: an acknowledgement or a diff that is not the write's.
    """
    writer = await asking(plan.port)
    followers = [await asking(plan.wait_port) for _ in plan.logs]
    versions = list(plan.versions)
    waits = [
        asyncio.ensure_future(_wait(follower, log, version, plan.apikey))
        for follower, log, version in zip(followers, plan.logs, versions, strict=True)
    ]
    took: list[float] = []
    gc.collect()
    gc.disable()
    try:
        await _settle(plan)
        before = sum(map(cpu_seconds, plan.pids))
        ends = time.perf_counter() + plan.seconds
        while time.perf_counter() < ends and len(took) < plan.max_wakes:
            at = len(took) % len(plan.logs)
            key, value = b"key-%d" % versions[at], os.urandom(VALUE_BYTES)
            body = opaque_body([(key, value)])
            request = commit_request(plan.logs[at], body, apikey=plan.apikey)
            sent = time.perf_counter()
            acknowledged, woken = await asyncio.wait_for(
                asyncio.gather(writer.ask(request), waits[at]), PATIENCE_SECONDS
            )
            took.append(followers[at].answered_at - sent)
            versions[at] += 1
            check(
                acknowledged[:2] == (201, versions[at]),
                f"version {versions[at]} was acknowledged as {acknowledged[:2]}",
            )
            check_diff(woken, versions[at], key, value)
            waits[at] = asyncio.ensure_future(
                _wait(followers[at], plan.logs[at], versions[at], plan.apikey)
            )
            await asyncio.sleep(plan.pause_seconds)
        spent = sum(map(cpu_seconds, plan.pids)) - before
    finally:
        gc.enable()
        for connection in (writer, *followers):
            connection.close()
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
    return _wakes(took, spent)


async def follow_at_once(plan: Following) -> Wakes:
    """One follower of all the logs, who says once what it watches; each write is to another log.

    Raises:
        CheckFailed: as `follow`.
    """
    writer, follower = await asking(plan.port), await asking(plan.wait_port)
    versions = dict(zip(plan.logs, plan.versions, strict=True))
    took: list[float] = []

    async def wait(logs: Sequence[LogId], watch: str | None, seconds: float) -> HttpAnswer:
        told = [{"log_id": log, "version": versions[log]} for log in logs]
        asked = {"logs": told, "watch": watch, "wait": seconds, "keep": True, "diffs": True}
        body: bytes = msgpack.packb(asked)
        return await follower.ask(request("POST", paths.WAIT, body=body, apikey=plan.apikey))

    watch = msgpack.unpackb((await wait(plan.logs, None, 0)).body)["watch"]
    gc.collect()
    gc.disable()
    try:
        before = sum(map(cpu_seconds, plan.pids))
        ends = time.perf_counter() + plan.seconds
        known: list[LogId] = []
        while time.perf_counter() < ends and len(took) < plan.max_wakes:
            waiting = asyncio.ensure_future(wait(known, watch, WAIT_SECONDS))
            await asyncio.sleep(plan.pause_seconds)
            log = random.choice(plan.logs)
            key, value = b"key-%d" % versions[log], os.urandom(VALUE_BYTES)
            commit = commit_request(log, opaque_body([(key, value)]), apikey=plan.apikey)
            sent = time.perf_counter()
            acknowledged, woken = await asyncio.wait_for(
                asyncio.gather(writer.ask(commit), waiting), PATIENCE_SECONDS
            )
            took.append(follower.answered_at - sent)
            versions[log] += 1
            check(acknowledged[:2] == (201, versions[log]), f"acknowledged: {acknowledged[:2]}")
            moved = msgpack.unpackb(woken.body)
            told = [(one["log_id"], one["version"]) for one in moved["moved"]]
            check(told == [(log, versions[log])], f"{len(told)} logs moved, one expected")
            _check_added(moved["moved"][0]["diff"], versions[log], key, value)
            known, watch = [log], moved["watch"]
        spent = sum(map(cpu_seconds, plan.pids)) - before
    finally:
        gc.enable()
        writer.close()
        follower.close()
    return _wakes(took, spent)


async def _settle(plan: Following) -> None:
    """Until every follower's request has been read: one more that is answered comes after."""
    last = await asking(plan.wait_port)
    for _ in range(2):
        await last.ask(request("GET", paths.of_log(paths.LOG, plan.logs[0]), apikey=plan.apikey))
    last.close()
    await asyncio.sleep(plan.pause_seconds)


async def _wait(follower: Asking, log: LogId, since: int, apikey: str) -> HttpAnswer:
    return await follower.ask(wait_request(log, since, apikey=apikey, wait_seconds=WAIT_SECONDS))


def check_diff(answer: HttpAnswer, version: int, key: bytes, value: bytes) -> None:
    """
    Raises:
        CheckFailed: not the diff to `version` that adds this entry and nothing else.
    """
    check(answer.status == 200, f"a waiter was answered with {answer.status}")
    _check_added(msgpack.unpackb(answer.body), version, key, value)


def _check_added(diff: Mapping[str, Any], version: int, key: bytes, value: bytes) -> None:
    added = [(one["op"], one["key"], one["value"], one["version"]) for one in diff["changes"]]
    check(
        (diff["from"], diff["to"], added) == (version - 1, version, [("add", key, value, version)]),
        f"the diff to version {version} is not the write that made it",
    )


def _wakes(took: list[float], spent: float) -> Wakes:
    count = len(took)
    check(count > 0, "nobody was woken in the time given")
    took.sort()
    return Wakes(
        count=count,
        p50_ms=percentile(took, 0.5) * 1e3,
        p99_ms=percentile(took, 0.99) * 1e3,
        cpu_us=spent / count * 1e6,
    )


class _Engine(asyncio.Protocol):
    """A connection to the engine: bytes are sent, an answer ends with the bytes expected."""

    def __init__(self) -> None:
        self._received = b""
        self._until = b""
        self._answer: asyncio.Future[None] | None = None
        self.answered_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def ask(self, command: Sequence[bytes], until: bytes) -> asyncio.Future[None]:
        self._received, self._until = b"", until
        self._answer = asyncio.get_running_loop().create_future()
        parts = [b"$%d\r\n%b\r\n" % (len(part), part) for part in command]
        self.transport.write(b"*%d\r\n%b" % (len(command), b"".join(parts)))
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._received.endswith(self._until):
            self.answered_at = time.perf_counter()
            assert self._answer is not None
            if not self._answer.done():
                self._answer.set_result(None)


async def follow_stream(plan: FollowingStream) -> Wakes:
    """
    Raises:
        TimeoutError: the engine answered something else than what was written.
    """
    loop = asyncio.get_running_loop()
    _, writer = await loop.create_unix_connection(_Engine, plan.socket)
    _, reader = await loop.create_unix_connection(_Engine, plan.socket)
    stream = plan.stream.encode()
    block = b"%d" % (WAIT_SECONDS * 1_000)
    took: list[float] = []
    gc.collect()
    gc.disable()
    try:
        before = cpu_seconds(plan.pid)
        ends = time.perf_counter() + plan.seconds
        while time.perf_counter() < ends and len(took) < plan.max_wakes:
            number, value = len(took) + 1, os.urandom(VALUE_BYTES)
            wait = reader.ask(
                [b"XREAD", b"BLOCK", block, b"STREAMS", stream, b"%d-0" % (number - 1)],
                value + b"\r\n",
            )
            await asyncio.sleep(plan.pause_seconds)
            sent = time.perf_counter()
            written = writer.ask(
                [b"XADD", stream, b"%d-0" % number, b"v", value], b"%d-0\r\n" % number
            )
            await asyncio.wait_for(asyncio.gather(written, wait), PATIENCE_SECONDS)
            took.append(reader.answered_at - sent)
        spent = cpu_seconds(plan.pid) - before
    finally:
        gc.enable()
        writer.transport.close()
        reader.transport.close()
    return _wakes(took, spent)

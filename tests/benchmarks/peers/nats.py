"""NATS JetStream, with streams on disk: its text protocol, without a client library.

It answers before the file is synced: what it acknowledges is not durable as it is elsewhere here.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

from tests.benchmarks.figures import check
from tests.benchmarks.peers.dialects import NATS, nats_payload
from tests.benchmarks.peers.processes import PeerProcess
from tests.benchmarks.peers.running import Running, Watching, Way, ask
from tests.benchmarks.wire import Dialect
from tests.support.ports import free_port

_CONNECT = b'CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true}\r\n'


def _any_status(data: bytes) -> bytes:
    return b"200"


_ANY = Dialect(end_of=NATS.end_of, status_of=_any_status)


def _publish(subject: str, inbox: str, payload: bytes) -> bytes:
    return f"PUB {subject} {inbox} {len(payload)}\r\n".encode() + payload + b"\r\n"


def _listen(subject: str, number: int = 1) -> bytes:
    return f"SUB {subject} {number}\r\n".encode()


def _append(stream: int, value: bytes, connection: int) -> bytes:
    return _publish(f"bench.{stream}", f"_INBOX.c.{connection}", value)


def _greeting(connection: int) -> bytes:
    return _CONNECT + _listen(f"_INBOX.c.{connection}")


def _wait(stream: int, waiter: int) -> bytes:
    """A consumer of its own, which the server sends what comes from now on."""
    config = {
        "deliver_subject": f"to.{waiter}",
        "deliver_policy": "new",
        "ack_policy": "none",
    }
    made = json.dumps({"stream_name": f"S-{stream}", "config": config}).encode()
    inbox = f"_INBOX.w.{waiter}"
    return (
        _CONNECT
        + _listen(inbox)
        + _listen(f"to.{waiter}", 2)
        + _publish(f"$JS.API.CONSUMER.CREATE.S-{stream}", inbox, made)
    )


class RunningNats:
    def __init__(self, name: str, process: PeerProcess) -> None:
        self.name = name
        self.process = process
        self.ways = [
            Way(
                name=f"{name}, JetStream file, not synced",
                dialect=NATS,
                append=_append,
                greeting=_greeting,
                watching=Watching(dialect=_ANY, wait=_wait, marker=lambda value: value),
            )
        ]

    async def prepare(self, streams: int) -> None:
        for stream in range(streams):
            config = {"name": f"S-{stream}", "subjects": [f"bench.{stream}"], "storage": "file"}
            told = await self._api(f"STREAM.CREATE.S-{stream}", json.dumps(config).encode())
            check(b'"error"' not in told, f"a stream was not made: {told[:200]!r}")

    async def count(self, streams: int) -> int:
        total = 0
        for stream in range(streams):
            told = json.loads(await self._api(f"STREAM.INFO.S-{stream}", b""))
            total += int(told["state"]["messages"])
        return total

    async def _api(self, verb: str, payload: bytes) -> bytes:
        request = _publish(f"$JS.API.{verb}", "_INBOX.c.0", payload)
        answer = await ask(self.process.port, _ANY, request, _greeting(0))
        return nats_payload(answer.body)


class Nats:
    system = "NATS"
    install = "apt-get install nats-server"

    def absent(self, folder: Path) -> str:
        return "" if _server() else "there is no nats-server on PATH"

    async def start(self, folder: Path, data: Path) -> Running:
        server, port = _server(), free_port()
        assert server is not None
        told = subprocess.run([server, "--version"], capture_output=True, text=True, check=True)
        version = told.stdout.split()[-1].removeprefix("v")
        where = ["-a", "127.0.0.1", "-p", str(port)]
        arguments = [server, *where, "-js", "-sd", str(data / "nats")]
        process = await PeerProcess.start(arguments, port=port, log=data / "nats.log")
        return RunningNats(f"NATS {version}", process)


def _server() -> str | None:
    """Debian has it among the administrator's programs."""
    return shutil.which("nats-server", path=f"{os.environ.get('PATH', '')}:/usr/sbin")

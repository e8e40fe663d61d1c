"""Durable Streams: the reference server in Node, with its streams in files, synced on append."""

import json
import re
import shutil
from pathlib import Path

from tests.benchmarks.peers.dialects import HTTP, http_request
from tests.benchmarks.peers.processes import PeerProcess
from tests.benchmarks.peers.running import MARK, Running, Watching, Way, ask
from tests.support.ports import free_port

_OFFSET = re.compile(rb"\r\nStream-Next-Offset: (\S+)\r\n", re.IGNORECASE)
_START = f"{0:016}_{0:016}"
_PACKAGE = Path("node_modules/@durable-streams/server")
_SERVE = """
const [folder, dataDir, port] = process.argv.slice(1)
const { DurableStreamTestServer } = await import(`file://${folder}/dist/index.js`)
await new DurableStreamTestServer({ port: Number(port), host: "127.0.0.1", dataDir }).start()
"""
_BYTES = "application/octet-stream"


def _path(stream: int) -> str:
    return f"/bench/{stream}"


def _append(stream: int, value: bytes, _: int) -> bytes:
    return http_request("POST", _path(stream), value, _BYTES)


def _wait(stream: int, _: int = 0) -> bytes:
    """The stream is empty yet."""
    return http_request("GET", f"{_path(stream)}?offset={_START}&live=long-poll")


def _again(stream: int, message: bytes) -> bytes:
    offset = _OFFSET.search(message)
    assert offset is not None, message
    return http_request("GET", f"{_path(stream)}?offset={offset[1].decode()}&live=long-poll")


class RunningDurableStreams:
    def __init__(self, name: str, process: PeerProcess) -> None:
        self.name = name
        self.process = process
        self.ways = [
            Way(
                name=f"{name}, Node, file",
                dialect=HTTP,
                append=_append,
                watching=Watching(
                    dialect=HTTP,
                    wait=_wait,
                    marker=lambda value: value,
                    confirmations=0,
                    again=_again,
                    look=http_request("GET", f"{_path(0)}?offset=now"),
                ),
            )
        ]

    async def prepare(self, streams: int) -> None:
        for stream in range(streams):
            await ask(self.process.port, HTTP, http_request("PUT", _path(stream), b"", _BYTES))

    async def count(self, streams: int) -> int:
        total = 0
        for stream in range(streams):
            request = http_request("GET", f"{_path(stream)}?offset=-1")
            answer = await ask(self.process.port, HTTP, request)
            total += answer.body.count(MARK)
        return total


class DurableStreams:
    system = "Durable Streams"
    install = "npm install --prefix .bench/peers @durable-streams/server"

    def absent(self, folder: Path) -> str:
        if not shutil.which("node"):
            return "there is no node on PATH"
        return "" if (folder / _PACKAGE).is_dir() else f"it is not in {folder}"

    async def start(self, folder: Path, data: Path) -> Running:
        package = (folder / _PACKAGE).resolve()
        version = json.loads((package / "package.json").read_text())["version"]
        port = free_port()
        kept = data / "durable-streams"
        kept.mkdir()
        arguments = ["node", "--input-type=module", "-e", _SERVE, "--"]
        process = await PeerProcess.start(
            [*arguments, str(package), str(kept), str(port)],
            port=port,
            log=data / "durable-streams.log",
        )
        return RunningDurableStreams(f"Durable Streams {version}", process)

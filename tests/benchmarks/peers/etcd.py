"""etcd: its gateway for JSON, and gRPC. It syncs its log of writes before it answers.

A stream is a key, an append a put: alone, or in a transaction that compares first, which is
the least that keeps two writers apart. Memory is the process's own, not the mapped file's.
"""

import base64
import json
import shutil
import subprocess
from pathlib import Path

from tests.benchmarks.peers.dialects import (
    GRPC,
    GRPC_STREAM,
    HTTP,
    HTTP_STREAM,
    field,
    grpc_call,
    grpc_message,
    http_request,
    http_status,
)
from tests.benchmarks.peers.processes import PeerProcess
from tests.benchmarks.peers.running import Running, Watching, Way, ask
from tests.benchmarks.wire import Dialect
from tests.support.ports import free_port

_PUT, _TXN, _WATCH = (f"/etcdserverpb.{name}" for name in ("KV/Put", "KV/Txn", "Watch/Watch"))
_GREATER, _VERSION = 1, 0  # of enums Compare.CompareResult and Compare.CompareTarget


def _key(stream: int) -> bytes:
    return b"stream-%05d" % stream


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _post(path: str, message: object) -> bytes:
    return http_request("POST", path, json.dumps(message).encode(), "application/json")


def _json_put(stream: int, value: bytes, _: int) -> bytes:
    return _post("/v3/kv/put", {"key": _text(_key(stream)), "value": _text(value)})


def _json_txn(stream: int, value: bytes, _: int) -> bytes:
    key = _text(_key(stream))
    compared = {"result": "GREATER", "target": "VERSION", "key": key, "version": "0"}
    put = {"requestPut": {"key": key, "value": _text(value)}}
    return _post("/v3/kv/txn", {"compare": [compared], "success": [put]})


def _json_watch(stream: int, _: int) -> bytes:
    return _post("/v3/watch", {"create_request": {"key": _text(_key(stream))}})


def json_txn_status(data: bytes) -> bytes:
    return http_status(data) if b'"succeeded":true' in data else b"412"


def _grpc_put(stream: int, value: bytes, _: int) -> bytes:
    return grpc_call(_PUT, field(1, _key(stream)) + field(2, value))


def _grpc_txn(stream: int, value: bytes, _: int) -> bytes:
    compared = field(1, _GREATER) + field(2, _VERSION) + field(3, _key(stream)) + field(4, 0)
    put = field(2, field(1, _key(stream)) + field(2, value))
    return grpc_call(_TXN, field(1, compared) + field(2, put))


def _grpc_watch(stream: int, _: int) -> bytes:
    return grpc_call(_WATCH, field(1, field(1, _key(stream))), ends=False)


def grpc_txn_status(data: bytes) -> bytes:
    """TxnResponse: a header, then whether it succeeded."""
    message = grpc_message(data)
    return b"200" if message and message[2 + message[1] :][:2] == field(2, 1) else b"412"


_JSON_TXN = Dialect(end_of=HTTP.end_of, status_of=json_txn_status)
_GRPC_TXN = Dialect(
    end_of=GRPC.end_of,
    status_of=grpc_txn_status,
    numbered=GRPC.numbered,
    greeting=GRPC.greeting,
)


class RunningEtcd:
    def __init__(self, name: str, process: PeerProcess) -> None:
        self.name = name
        self.process = process
        by_json = Watching(
            dialect=HTTP_STREAM,
            wait=_json_watch,
            marker=lambda value: base64.b64encode(value),
        )
        by_grpc = Watching(dialect=GRPC_STREAM, wait=_grpc_watch, marker=lambda value: value)
        self.ways = [
            Way(name=f"{name}, put, JSON", dialect=HTTP, append=_json_put, watching=by_json),
            Way(name=f"{name}, put, gRPC", dialect=GRPC, append=_grpc_put, watching=by_grpc),
            Way(name=f"{name}, txn, JSON", dialect=_JSON_TXN, append=_json_txn, transaction=True),
            Way(name=f"{name}, txn, gRPC", dialect=_GRPC_TXN, append=_grpc_txn, transaction=True),
        ]

    async def prepare(self, streams: int) -> None:
        for stream in range(streams):
            await ask(self.process.port, HTTP, _json_put(stream, b"first", 0))

    async def count(self, streams: int) -> int:
        """The store's revision: each put makes one."""
        asked = _post("/v3/kv/range", {"key": _text(_key(0))})
        answer = await ask(self.process.port, HTTP, asked)
        told = json.loads(answer.body.partition(b"\r\n\r\n")[2])
        return int(told["header"]["revision"])


class Etcd:
    system = "etcd"
    install = "apt-get install etcd-server"

    def absent(self, folder: Path) -> str:
        return "" if shutil.which("etcd") else "there is no etcd on PATH"

    async def start(self, folder: Path, data: Path) -> Running:
        told = subprocess.run(["etcd", "--version"], capture_output=True, text=True, check=True)
        version = told.stdout.splitlines()[0].split()[-1]
        port = free_port()
        here, among = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{free_port()}"
        arguments = [
            *("etcd", "--data-dir", str(data / "etcd"), "--name", "alone"),
            *("--listen-client-urls", here, "--advertise-client-urls", here),
            *("--listen-peer-urls", among, "--initial-advertise-peer-urls", among),
            *("--initial-cluster", f"alone={among}", "--log-level", "error", "--logger", "zap"),
        ]
        process = await PeerProcess.start(arguments, port=port, log=data / "etcd.log")
        return RunningEtcd(f"etcd {version}", process)

"""Starts the servers of other systems, and ends them by their process ids.

Each has a guardian that kills it when this process is gone, however it went. Knows nothing of
what they serve.
"""

import asyncio
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

READY_SECONDS = 30.0
STOP_SECONDS = 10.0
_LOOK_SECONDS = 0.02


class PeerProcess:
    """`port` accepts connections once it is started."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int) -> None:
        self._process = process
        # Reads until this process is gone; then kills the server.
        self._guardian = subprocess.Popen(
            ["/bin/sh", "-c", "read _; kill -9 $0", str(process.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.pid = process.pid
        self.port = port

    @classmethod
    async def start(cls, arguments: Sequence[str], *, port: int, log: Path) -> Self:
        """
        Raises:
            RuntimeError: it ended, or did not listen in time; with the end of what it said.
        """
        with log.open("ab") as output:
            process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        started = cls(process, port)
        deadline = time.monotonic() + READY_SECONDS
        while not await _listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                await started.stop()
                said = log.read_text(errors="replace").splitlines()
                raise RuntimeError(f"{arguments[0]} did not start: {said[-3:]}")
            await asyncio.sleep(_LOOK_SECONDS)
        return started

    async def stop(self) -> None:
        self._guardian.kill()
        assert self._guardian.stdin is not None
        self._guardian.stdin.close()
        await asyncio.to_thread(self._guardian.wait)
        self._process.terminate()
        try:
            await asyncio.to_thread(self._process.wait, STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)


async def _listens(port: int) -> bool:
    with suppress(OSError):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        return True
    return False

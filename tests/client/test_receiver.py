"""The guide's receiver of webhooks, as a process, against those who mean it well and ill."""

import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import indelible
import pytest
from indelible_protocol import messages
from indelible_protocol.ids import to_base64url
from indelible_protocol.messages import Form
from indelible_protocol.webhooks import Key, Kind, headers

from tests.client.conftest import profile_of
from tests.support.documents import OTHER_PORT, blocks_of
from tests.support.polling import until
from tests.support.ports import free_port
from tests.support.service import Service

GUIDE = Path(__file__).parents[2] / "client/GUIDE.md"
SECRET = Key(Kind.SHARED, os.urandom(32))


@dataclass
class Running:
    """The receiver, and one who sends to it. `sent` counts, so that ids differ."""

    url: str
    printed: Path
    log: indelible.AsyncLog
    session: aiohttp.ClientSession
    sent: int = field(default=0)

    async def post(self, body: bytes, head: dict[str, str]) -> tuple[int, str]:
        async with self.session.post(self.url, data=body, headers=head) as response:
            return response.status, await response.text()

    def signed(self, body: bytes, *, key: Key = SECRET, age_seconds: int = 0) -> dict[str, str]:
        self.sent += 1
        return headers([key], f"wh_1:x:{self.sent}", int(time.time()) - age_seconds, body)

    def updated(self, low: int, high: int, **more: object) -> bytes:
        log_id = to_base64url(bytes.fromhex(self.log.log_id))
        return event("log.updated", log=log_id, fromVersion=low, toVersion=high, **more)

    @property
    def lines(self) -> list[str]:
        return [
            line for line in self.printed.read_text().splitlines() if line[:4] in ("add ", "remo")
        ]


def event(kind: str, **data: object) -> bytes:
    return json.dumps({"type": kind, "timestamp": "2026-01-07T10:00:00Z", "data": data}).encode()


@pytest.fixture
async def running(service: Service, tmp_path: Path) -> AsyncIterator[Running]:
    profile = profile_of(service)
    path = profile.save(tmp_path / "profile.json")
    (block,) = (each for each in blocks_of(GUIDE) if each.file == "receiver.py")
    port = free_port()
    (tmp_path / "receiver.py").write_text(block.text.replace(OTHER_PORT, str(port)))
    (tmp_path / "webhook.key").write_text(SECRET.spelled())
    printed = tmp_path / "printed"
    async with indelible.AsyncClient(profile) as client, aiohttp.ClientSession() as session:
        log = await client.log("counters", create=True)
        with printed.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-u", "receiver.py"],
                cwd=tmp_path,
                env=os.environ | {"INDELIBLE_PROFILE": str(path)},
                stdout=out,
                stderr=out,
            )
        try:
            await until(lambda: b"Running on" in printed.read_bytes(), within_seconds=30)
            yield Running(f"http://127.0.0.1:{port}/hook", printed, log, session)
            assert process.poll() is None
        finally:
            process.terminate()
            process.wait(20)
    assert "Traceback" not in printed.read_text()


async def test_the_receiver_deals_with_each_delivery_once(running: Running) -> None:
    await running.log.set("visits", 1)
    body = running.updated(0, 1, group="")
    head = running.signed(body)
    assert await running.post(body, head) == (200, "{}")
    status, said = await running.post(body, head)
    assert (status, "dealt with already" in said) == (200, True)
    assert running.lines == ["add visits 1"]


async def test_the_receiver_opens_a_diff_that_came_with_the_event(running: Running) -> None:
    await running.log.set_many({"visits": 1, "other": 2})
    await running.log.delete("visits")
    pages = running.log._handle.remote.diff(1, 2)
    (page,) = [page async for page in pages]
    body = running.updated(1, 2, diff=json.loads(messages.encode(page, Form.JSON)))
    await running.log.drop()  # so that it can ask nobody
    assert await running.post(body, running.signed(body)) == (200, "{}")
    assert running.lines == ["remove visits 1"]


async def test_the_receiver_answers_challenges_and_ignores_other_events(running: Running) -> None:
    body = event("webhook.challenge", challenge="words")
    status, said = await running.post(body, running.signed(body))
    assert (status, json.loads(said)) == (200, {"challenge": "words"})
    for other in (
        event("webhook.test"),
        event("log.something_new", more=1),
        event("log.deleted", log=to_base64url(bytes(32))),
        event("log.updated", log=to_base64url(bytes(32)), fromVersion=0, toVersion=1),
    ):
        assert await running.post(other, running.signed(other)) == (200, "{}")
    assert running.lines == []


async def test_the_receiver_refuses_what_it_should_not_believe(running: Running) -> None:
    await running.log.set("visits", 1)
    body = running.updated(0, 1)
    another = Key(Kind.SHARED, os.urandom(32))
    assert (await running.post(body, {}))[0] == 400
    assert (await running.post(body + b" ", running.signed(body)))[0] == 400
    assert (await running.post(body, running.signed(body, key=another)))[0] == 400
    assert (await running.post(body, running.signed(body, age_seconds=301)))[0] == 400
    assert (await running.post(body, running.signed(body, age_seconds=-310)))[0] == 400
    huge = running.updated(0, 1, more="x" * (1 << 16))
    assert (await running.post(huge, running.signed(huge)))[0] == 413
    assert running.lines == []

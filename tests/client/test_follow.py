"""Following: every version once, in order, through whatever happens between."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from indelible import (
    AsyncLog,
    Change,
    Command,
    ConfigError,
    Delete,
    Diff,
    ErrorCode,
    NotFoundError,
    RequestError,
    UnavailableError,
    Upsert,
    transport,
    watching,
)
from indelible.retry import Backoff
from indelible_server.embedded import running_engine_url

from tests.client.conftest import OpenClient, profile_of
from tests.client.wire import Wire
from tests.support.polling import until
from tests.support.service import Service, StartService, make_tenant


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reconnects at once, and asks again several times a second."""
    monkeypatch.setattr(watching, "RECONNECT", Backoff(first_seconds=0.05, most_seconds=0.5))
    monkeypatch.setattr(watching, "POLL_SECONDS", 0.3)
    monkeypatch.setattr(watching, "GOING_AWAY_SECONDS", 0.2)
    monkeypatch.setattr(transport, "WAIT_MARGIN_SECONDS", 2.0)


class Follower:
    """Follows in a task, and keeps what it got."""

    def __init__(self, log: AsyncLog, after: int | None = 0, **settings: Any) -> None:
        self.diffs: list[Diff] = []
        self.started = asyncio.Event()
        self._task = asyncio.create_task(self._run(log, after, settings))

    async def _run(self, log: AsyncLog, after: int | None, settings: dict[str, Any]) -> None:
        self.started.set()
        async for diff in log.follow(after, **settings):
            self.diffs.append(diff)

    @property
    def version(self) -> int:
        return self.diffs[-1].to_version if self.diffs else -1

    @property
    def contents(self) -> dict[str, Any]:
        """What the diffs make of an empty log; each must fit onto those before."""
        contents: dict[str, Any] = {}
        version = 0
        for diff in self.diffs:
            assert diff.from_version == version < diff.to_version
            version = diff.to_version
            for change in diff.changes:
                if change.op == "remove":
                    assert contents.pop(change.key) == change.value
                else:
                    assert change.key not in contents
                    contents[change.key] = change.value
        return contents

    async def reaches(self, version: int, within_seconds: float = 20.0) -> None:
        def there() -> bool:
            if self._task.done():
                self._task.result()
            return self.version >= version

        await until(there, within_seconds=within_seconds, what=f"version {version}")

    async def ends(self) -> None:
        async with asyncio.timeout(20):
            await self._task

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def test_every_change_arrives_as_it_is_made(log: AsyncLog) -> None:
    await log.set("a", 1)
    follower = Follower(log)
    await follower.reaches(1)
    batches: list[list[Command]] = [
        [Upsert("a", 2)],
        [Upsert("b", 1), Delete("a")],
        [Upsert("c", [])],
    ]
    for version, commands in enumerate(batches, 2):
        await log.update(commands)
        await follower.reaches(version)
    assert [(diff.from_version, diff.to_version) for diff in follower.diffs] == [
        (0, 1),
        (1, 2),
        (2, 3),
        (3, 4),
    ]
    assert follower.diffs[1].changes == (Change("remove", "a", 1, 1), Change("add", "a", 2, 2))
    assert follower.contents == {"b": 1, "c": []}
    await follower.stop()


async def test_without_after_it_begins_at_the_current_version(
    log: AsyncLog, tmp_path: Path
) -> None:
    await log.set("a", 1)
    follower = Follower(log, None, position=tmp_path / "position")
    await until((tmp_path / "position").exists)  # written as soon as it has begun
    await log.set("a", 2)
    await follower.reaches(2)
    assert [(diff.from_version, diff.to_version) for diff in follower.diffs] == [(1, 2)]
    await follower.stop()


async def test_it_ends_when_nothing_came_for_as_long_as_it_may_wait(log: AsyncLog) -> None:
    await log.set("a", 1)
    loop = asyncio.get_running_loop()
    started = loop.time()
    diffs = [diff async for diff in log.follow(0, max_wait_seconds=0.4)]
    assert len(diffs) == 1
    assert loop.time() - started > 0.35
    assert [diff async for diff in log.follow(1, max_wait_seconds=0)] == []
    assert len([diff async for diff in log.follow(0, max_wait_seconds=0)]) == 1


async def test_versions_that_cancel_each_other_out_are_told_as_an_empty_diff(
    log: AsyncLog,
) -> None:
    await log.set("a", 1)
    await log.delete("a")
    (diff,) = [diff async for diff in log.follow(0, max_wait_seconds=0)]
    assert diff == Diff(0, 2, ())


async def test_many_rounds_of_waiting_lose_nothing(log: AsyncLog, quick: None) -> None:
    follower = Follower(log)
    await follower.started.wait()
    for n in range(8):
        await asyncio.sleep(0.1)
        await log.set("n", n)
    await follower.reaches(8)
    assert follower.contents == {"n": 7}
    await follower.stop()


async def test_a_future_version_or_a_dropped_log_is_an_error(log: AsyncLog, quick: None) -> None:
    with pytest.raises(NotFoundError) as caught:
        await anext(aiter(log.follow(5)))
    assert caught.value.code is ErrorCode.NONEXISTENT_VERSION
    follower = Follower(log)
    await follower.started.wait()
    await log.set("a", 1)
    await follower.reaches(1)
    await log.drop()
    with pytest.raises(NotFoundError) as caught:
        await follower.ends()
    assert caught.value.code is ErrorCode.LOG_REPLACED
    with pytest.raises(RequestError):
        await anext(aiter(log.follow(-1)))


async def test_a_cut_connection_is_made_again(
    open_client: OpenClient, service: Service, quick: None
) -> None:
    async with Wire(service.url) as wire:
        log = await open_client(profile_of(service, url=wire.url)).log("config", create=True)
        follower = Follower(log)
        for version in range(1, 9):
            await wire.cut()
            if version == 4:
                wire.cut_at, wire.lose_answers = 400, 2
            await log.set(f"key-{version}", "x" * 1_000)
        await follower.reaches(8)
        assert len(follower.contents) == 8
        await follower.stop()


async def test_a_service_that_stays_away_ends_only_a_follower_with_a_limit(
    open_client: OpenClient, service: Service, quick: None
) -> None:
    async with Wire(service.url) as wire:
        log = await open_client(profile_of(service, url=wire.url)).log("config", create=True)
        patient, impatient = Follower(log), Follower(log, max_wait_seconds=1.0)
        wire.swallow = True
        await wire.cut()
        with pytest.raises(UnavailableError):
            await impatient.ends()
        wire.swallow = False
        await wire.cut()
        await log.set("a", 1)
        await patient.reaches(1)
        await patient.stop()


@pytest.fixture
async def own_service(start_service: StartService, tmp_path: Path) -> Service:
    """A service of this test's own, which it may kill and start again."""
    data = tmp_path / "data"
    service = start_service("all", "--data", str(data))
    url = await running_engine_url(data)
    assert url is not None
    secret = (data / "secret").read_bytes().strip()
    service.customer_id, service.apikey = await make_tenant(url, secret)
    return service


async def test_it_goes_on_when_the_service_was_ended_and_started_again(
    open_client: OpenClient, own_service: Service, quick: None
) -> None:
    log = await open_client(profile_of(own_service)).log("config", create=True)
    follower = Follower(log)
    await log.set("a", 1)
    await follower.reaches(1)
    for n, end in enumerate((own_service.kill, own_service.terminate)):
        await asyncio.to_thread(end)
        writing = asyncio.create_task(log.set("b", n))  # kept until there is somebody to take it
        await asyncio.to_thread(own_service.start)
        assert (await writing).version == 2 + n
        await follower.reaches(2 + n)
    assert follower.contents == {"a": 1, "b": 1}
    await follower.stop()


async def test_a_position_is_kept_when_the_next_diff_is_asked_for(
    log: AsyncLog, tmp_path: Path
) -> None:
    position = tmp_path / "position.json"
    for n in range(3):
        await log.set("n", n)
    settings: dict[str, Any] = {"position": position, "max_wait_seconds": 0}
    async for diff in log.follow(1, **settings):
        assert diff.from_version == 1
        assert not position.exists()
        break  # in the middle of its work
    (diff,) = [diff async for diff in log.follow(1, **settings)]
    assert (diff.from_version, diff.to_version) == (1, 3)
    assert json.loads(position.read_text()) == {"log_id": log.log_id, "version": 3}
    assert position.stat().st_mode & 0o777 == 0o600
    assert [diff async for diff in log.follow(0, **settings)] == []
    await log.set("n", 7)
    (diff,) = [diff async for diff in log.follow(0, position=str(position), max_wait_seconds=0)]
    assert (diff.from_version, diff.to_version) == (3, 4)
    assert [each.name for each in tmp_path.iterdir()] == ["position.json"]


async def test_a_position_in_another_log_is_refused_and_both_are_named(
    open_client: OpenClient, log: AsyncLog, tmp_path: Path
) -> None:
    position = tmp_path / "position.json"
    assert [diff async for diff in log.follow(position=position, max_wait_seconds=0)] == []
    assert json.loads(position.read_text())["version"] == 0
    other = await open_client().log("other", create=True)
    with pytest.raises(ConfigError) as caught:
        await anext(aiter(other.follow(position=position)))
    assert log.log_id in str(caught.value)
    assert other.log_id in str(caught.value)
    for text in ("", "{}", "[]", '{"log_id": 1}', f'{{"log_id": "{log.log_id}", "version": -1}}'):
        position.write_text(text)
        with pytest.raises(ConfigError, match="not a position file"):
            await anext(aiter(log.follow(position=position)))


async def test_a_cache_that_repeats_an_empty_answer_is_not_asked_without_a_pause(
    open_client: OpenClient, service: Service, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one would that ignores what stands behind the question mark."""
    monkeypatch.setattr(watching, "POLL_SECONDS", 30.0)
    asked = []

    async def cache(request: web.Request) -> web.StreamResponse:
        if request.path.endswith("/diff"):
            asked.append(request.query)
            return web.Response(status=204, headers={"Indelible-Interval": "7"})
        headers = {name: request.headers[name] for name in ("Authorization", "Accept")}
        headers["Content-Type"] = request.content_type
        async with (
            aiohttp.ClientSession() as http,
            http.request(
                request.method,
                service.url + request.raw_path,
                data=await request.read(),
                headers=headers,
            ) as answer,
        ):
            return web.Response(
                status=answer.status, body=await answer.read(), content_type=answer.content_type
            )

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", cache)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        log = await open_client(profile_of(service, url=url)).log("config", create=True)
        follower = Follower(log)
        await until(lambda: len(asked) >= 4)
        assert [dict(query) for query in asked[:2]] == [
            {"from": "0", "interval": "0", "wait": "30"},
            {"from": "0", "interval": "7", "wait": "30"},
        ]
        await asyncio.sleep(1.0)
        assert len(asked) < 40  # pauses of 0.1 s on average; without them, hundreds
        await follower.stop()
    finally:
        await runner.cleanup()


FOLLOW = """
import sys, indelible
profile, position = sys.argv[1:]
with indelible.Client(profile) as client:
    for diff in client.log("config").follow(0, position=position):
        print(diff.from_version, diff.to_version, flush=True)
"""


async def test_a_killed_follower_goes_on_where_it_was(
    log: AsyncLog, service: Service, open_client: OpenClient, tmp_path: Path
) -> None:
    """At least once: what was printed when the kill came may be printed again, never skipped."""
    profile = profile_of(service)
    log = await open_client(profile).log("config", create=True)
    profile.save(tmp_path / "profile.json")
    command = [sys.executable, "-c", FOLLOW, str(tmp_path / "profile.json"), str(tmp_path / "at")]
    seen: list[tuple[int, int]] = []
    version = 0
    for _ in range(3):
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        for _ in range(3):
            version = (await log.set("n", version)).version
            while not seen or seen[-1][1] < version:
                async with asyncio.timeout(30):
                    start, end = map(int, (await process.stdout.readline()).split())
                assert start <= (seen[-1][1] if seen else 0) < end or end == seen[-1][1]
                seen.append((start, end))
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()
    assert seen[-1][1] == 9

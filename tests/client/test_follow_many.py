"""Following many logs at once: each as `follow` would, over one connection."""

import asyncio
from pathlib import Path
from typing import Any

import psutil
import pytest
from indelible import AsyncClient, AsyncLog, Diff, RequestError, following
from indelible.retry import Backoff
from indelible_protocol import limits

from tests.client.conftest import OpenClient, profile_of
from tests.support.polling import until
from tests.support.service import Service, StartService, make_tenant, store_of


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reconnects at once."""
    monkeypatch.setattr(following, "RECONNECT", Backoff(first_seconds=0.05, most_seconds=0.5))
    monkeypatch.setattr(following, "GOING_AWAY_SECONDS", 0.2)


class Follower:
    """Follows in a task; keeps, by the log's name, the contents and the version reached."""

    def __init__(self, moves: Any) -> None:
        self.contents: dict[Any, dict[str, Any]] = {}
        self.versions: dict[Any, int] = {}
        self.dropped: list[Any] = []
        self.task = asyncio.create_task(self._run(moves))

    async def _run(self, moves: Any) -> None:
        async for log, diff in moves:
            if diff is None:
                self.dropped.append(log.name)
            else:
                self._apply(log.name, diff)

    def _apply(self, name: Any, diff: Diff) -> None:
        assert diff.from_version == self.versions.get(name, diff.from_version), "a gap"
        assert diff.to_version > diff.from_version
        self.versions[name] = diff.to_version
        contents = self.contents.setdefault(name, {})
        for change in diff.changes:
            if change.op == "remove":
                assert contents.pop(change.key, change.value) == change.value
            else:
                contents[change.key] = change.value

    async def reaches(self, versions: dict[Any, int], within_seconds: float = 30.0) -> None:
        def there() -> bool:
            if self.task.done():
                self.task.result()
            return versions.items() <= self.versions.items()

        await until(there, within_seconds=within_seconds, what=f"{versions}, not {self.versions}")

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def test_every_log_is_followed_from_its_own_version(client: AsyncClient) -> None:
    logs = [await client.log(f"log {n}", create=True) for n in range(3)]
    for n, log in enumerate(logs):
        for value in range(n + 1):
            await log.set("a", value)
    follower = Follower(client.follow_many({logs[0]: 0, logs[1]: 1, logs[2]: None}))
    await follower.reaches({"log 0": 1, "log 1": 2})
    assert "log 2" not in follower.versions  # from its current version on
    await logs[2].set("b", 1)
    await logs[0].set("b", 2)
    await follower.reaches({"log 0": 2, "log 2": 4})
    assert follower.contents == {"log 0": {"a": 0, "b": 2}, "log 1": {"a": 1}, "log 2": {"b": 1}}
    await follower.stop()


async def test_a_dropped_log_is_told_once_and_the_others_go_on(client: AsyncClient) -> None:
    logs = [await client.log(f"log {n}", create=True) for n in range(2)]
    follower = Follower(client.follow_many(dict.fromkeys(logs, 0)))
    await logs[1].set("a", 1)
    await follower.reaches({"log 1": 1})
    await logs[0].drop()
    await until(lambda: follower.dropped == ["log 0"], within_seconds=20)
    await logs[1].set("a", 2)
    await follower.reaches({"log 1": 2})
    assert follower.dropped == ["log 0"]
    await follower.stop()


async def test_a_new_log_of_a_followed_group_appears_by_itself(client: AsyncClient) -> None:
    old = await client.log("old", create=True, group="orders")
    await old.set("a", 1)
    await client.log("elsewhere", create=True, group="others")
    follower = Follower(client.follow_group("orders"))
    await asyncio.sleep(0)
    for n in range(3):
        new = await client.log(f"new {n}", create=True, group="orders")
        await new.set("a", n)
        await follower.reaches({f"new {n}": 1})
    await old.set("a", 2)
    await follower.reaches({"old": 2})
    assert follower.contents["new 2"] == {"a": 2}
    assert "elsewhere" not in follower.versions
    await follower.stop()


async def test_a_group_is_followed_on_from_where_it_was(client: AsyncClient) -> None:
    one = await client.log("one", create=True, group="orders")
    two = await client.log("two", create=True, group="orders")
    for log in (one, two, two):
        await log.set("a", await log.version)
    moves = client.follow_group(
        "orders", after={two.log_id: 1}, from_start=True, max_wait_seconds=0.5
    )
    found = sorted([(log.name, diff.from_version) async for log, diff in moves if diff])
    assert found == [("one", 0), ("two", 1)]


async def test_logs_of_another_master_key_are_left_out(
    open_client: OpenClient, service: Service
) -> None:
    mine, theirs = open_client(), open_client(profile_of(service))
    follower = Follower(mine.follow_group("orders", from_start=True))
    foreign = await theirs.log("theirs", create=True, group="orders")
    await foreign.set("a", 1)
    own = await mine.log("mine", create=True, group="orders")
    await own.set("a", 1)
    await follower.reaches({"mine": 1})
    await foreign.set("a", 2)
    await own.set("a", 2)
    await follower.reaches({"mine": 2})
    assert follower.versions.keys() == {"mine"}
    await follower.stop()


async def test_a_restart_of_the_service_loses_nothing(
    start_service: StartService, tmp_path: Path
) -> None:
    service = await asyncio.to_thread(start_service, "all", "--data", str(tmp_path / "data"))
    service.customer_id, service.apikey = await make_tenant(*await store_of(service))
    async with AsyncClient(profile_of(service), timeout_seconds=60) as client:
        logs = [await client.log(f"log {n}", create=True, group="g") for n in range(20)]
        follower = Follower(client.follow_group("g", from_start=True))
        for round_number in range(1, 4):
            for log in logs:
                await log.set("a", round_number)
            if round_number == 2:
                await asyncio.to_thread(service.kill)
                await asyncio.to_thread(service.start)
        await follower.reaches({log.name: 3 for log in logs}, within_seconds=60)
        assert all(contents == {"a": 3} for contents in follower.contents.values())
        await follower.stop()


async def test_more_logs_than_a_request_may_name_are_refused(
    client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_WAIT_LOGS", 2)
    logs = [await client.log(f"log {n}", create=True) for n in range(3)]
    with pytest.raises(RequestError, match="3 logs to follow at once, at most 2"):
        async for _ in client.follow_many(dict.fromkeys(logs, 0)):
            pass


async def follow_all(service: Service, count: int, *, rounds: int) -> tuple[int, int]:
    """How many connections and bytes of memory following takes."""
    async with AsyncClient(profile_of(service)) as writer:
        room = asyncio.Semaphore(16)

        async def make(n: int) -> AsyncLog:
            async with room:
                return await writer.log(f"log {n}", create=True, group="many")

        logs = await asyncio.gather(*(make(n) for n in range(count)))
        before = psutil.Process().memory_info().rss
        async with AsyncClient(writer._profile) as client:
            port = int(service.url.rpartition(":")[2])
            ours = connections(port)
            follower = Follower(client.follow_group("many", from_start=True))
            for n in range(1, rounds + 1):
                for log in logs[:: max(1, count // 20)]:
                    await log.set("a", n)
                    await follower.reaches({log.name: n}, within_seconds=60)
            after = psutil.Process().memory_info().rss
            opened = connections(port) - ours
            await follower.stop()
    return opened, after - before


def connections(port: int) -> int:
    return sum(
        each.raddr.port == port and each.status == psutil.CONN_ESTABLISHED
        for each in psutil.Process().net_connections("tcp")
        if each.raddr
    )


async def test_three_hundred_logs_are_followed_over_one_connection(service: Service) -> None:
    opened, _ = await follow_all(service, 300, rounds=2)
    assert opened == 1


@pytest.mark.torture
@pytest.mark.timeout(1_200)
async def test_ten_thousand_logs_are_followed_over_one_connection_in_bounded_memory(
    service: Service,
) -> None:
    opened, grown_bytes = await follow_all(service, 10_000, rounds=5)
    print(f"10,000 logs: {opened} connection, {grown_bytes / 2**20:.1f} MiB")
    assert opened == 1
    assert grown_bytes < 100 << 20

"""Cold versions in the archive, through every API and the verifying client; movers killed."""

import asyncio
import random
from pathlib import Path
from typing import Any

import aiohttp
import indelible.v1
import pytest
from indelible import AsyncClient, AsyncLog
from indelible.transferring import export_log
from indelible_protocol.ids import LogId
from indelible_server.store import keys
from indelible_server.store.connection import connect
from indelible_server.store.materializing import Materializing
from indelible_server.store.names import Scope
from redis.asyncio import Redis

from tests.client.conftest import profile_of
from tests.support.grown_logs import GrownLog, grow, new_log
from tests.support.native_api import NativeApi
from tests.support.polling import until
from tests.support.read_back import expected_diff
from tests.support.service import Service, StartService, make_tenant, store_of

BUDGET = "30000"
SWEPT_OFTEN = ("--materializer-sweep-seconds", "0.05")
VERSIONS = 120
Model = list[dict[str, Any]]


async def oldest(redis: Redis, log_id: LogId) -> int:
    rows = await redis.execute_command("XRANGE", keys.of_log(log_id).commits, "-", "+", "COUNT", 1)
    return int(next(iter(rows))[0].partition(b"-")[0])


async def wait_for_the_move(service: Service, first: int, logs: int) -> None:
    """Until the copies in the store of so many logs' versions below `first` are gone."""
    url, _ = await store_of(service)
    clients = connect(url, connections=1, timeout_seconds=5.0)
    redis = clients.commands

    async def moved() -> bool:
        found: list[bytes] = await redis.execute_command("KEYS", "*:segments")
        log_ids = [LogId(bytes.fromhex(key[1:65].decode())) for key in found]
        begins = [await oldest(redis, log_id) for log_id in log_ids]
        return len([begin for begin in begins if begin >= first]) == logs

    try:
        await until(moved, within_seconds=30, what="versions below the first are out of the stream")
    finally:
        await clients.close()


async def sealed_log(client: AsyncClient) -> tuple[AsyncLog, Model]:
    log, model, rng = await client.log("config", create=True), Model([{}]), random.Random(1)
    while len(model) <= VERSIONS:
        key, now = f"key {rng.randrange(12)}", dict(model[-1])
        if rng.random() < 0.2 and key in now:
            del now[key]
            commit = await log.delete(key)
        else:
            now[key] = [rng.random(), "value" * 5]
            commit = await log.set(key, now[key])
        assert commit.version == len(model)
        model.append(now)
    return log, model


async def check_sealed(log: AsyncLog, model: Model, tmp_path: Path) -> None:
    rng = random.Random(2)
    for at in (1, *(rng.randint(1, VERSIONS) for _ in range(5)), VERSIONS):
        assert {entry.key: entry.value async for entry in log.at(at)} == model[at]
        assert await log.get("key 3", at=at) == model[at].get("key 3")
        low = rng.randint(0, VERSIONS)
        found = dict(model[low])
        async for change in log.diff(low, at):
            if change.op == "remove":
                assert found.pop(change.key) == change.value
            else:
                found[change.key] = change.value
        assert found == model[at]
    known = [
        at
        for at in range(VERSIONS, 0, -1)
        if model[at].get("key 3", 0) != model[at - 1].get("key 3", 0)
    ]
    assert [change.version async for change in log.history("key 3")] == known
    assert [v.version async for v in log.versions()] == list(range(VERSIONS, 0, -1))
    exported = await export_log(log, tmp_path / "history", history=True)
    assert exported.lines == VERSIONS


def v1_log(service: Service) -> tuple[indelible.v1.Log, Model]:
    profile = {
        "customer_id": service.customer_id,
        "apikey": service.apikey,
        "endpoint_url": service.url,
        "master_key": bytes(32),
    }
    log = indelible.v1.Log("config", profile, encrypt=False)
    log.create()
    model: Model = [{}]
    for number in range(VERSIONS):
        key, value = f"key {number % 9}", number
        log.update([indelible.v1.Cmd.Upsert(key, value)])
        model.append(model[-1] | {key: value})
    return log, model


def check_v1(log: indelible.v1.Log, model: Model) -> None:
    rng = random.Random(3)
    for at in (1, rng.randint(2, VERSIONS), VERSIONS):
        found = [change["entry"] for change in log.version(at)]
        assert {entry["key"]: entry["value"] for entry in found} == model[at]
    low, high = sorted(rng.sample(range(1, VERSIONS), 2))
    found_now = dict(model[low])
    for change in log.version_diff(low, high).changes():
        if change["change"] == "Remove":
            assert found_now.pop(change["entry"]["key"]) == change["entry"]["value"]
        else:
            found_now[change["entry"]["key"]] = change["entry"]["value"]
    assert found_now == model[high]


async def test_every_api_and_the_verifying_client_read_what_is_in_the_archive_alone(
    start_service: StartService, tmp_path: Path
) -> None:
    data = ("all", "--data", str(tmp_path / "data"), "--archive-log-bytes", BUDGET)
    service = start_service(*data, *SWEPT_OFTEN)
    service.customer_id, service.apikey = await make_tenant(*await store_of(service))
    profile = profile_of(service)
    async with AsyncClient(profile) as client:
        log, model = await sealed_log(client)
        old, old_model = await asyncio.to_thread(v1_log, service)
        await wait_for_the_move(service, VERSIONS // 3, logs=2)
        await check_sealed(log, model, tmp_path)
        await asyncio.to_thread(check_v1, old, old_model)
        told = await log.forget(VERSIONS // 2)
        assert told.bytes_now < told.bytes_before
        later = {entry.key: entry.value async for entry in log.at(VERSIONS // 2)}
        assert later == model[VERSIONS // 2]
        for number in range(80):  # so that the signed record is in the archive too
            await log.set(f"key {number % 9}", [number, "x" * 400])
        await wait_for_the_move(service, VERSIONS + 2, logs=1)
        async with AsyncClient(profile) as another:
            opened = await another.log("config")
            assert await opened.get("key 1") == [73, "x" * 400]
            assert (await opened.describe()).first_version == VERSIONS // 2
        archived = list((tmp_path / "data/archive").iterdir())
        assert len(archived) == 2
        await log.drop()
        await until(lambda: len(list((tmp_path / "data/archive").iterdir())) == 1)
        await asyncio.to_thread(check_v1, old, old_model)
    assert not [e["event"] for e in service.events() if e["event"].endswith(("crashed", "failed"))]


async def check_grown(api: NativeApi, log: GrownLog, rng: random.Random) -> None:
    for _ in range(3):
        low, high = sorted((rng.randint(0, log.version), rng.randint(1, log.version)))
        answer = await api.diff(log.identity.log_id, low, high, limit=rng.choice([50, 1_000]))
        assert [
            (change.op, change.key.encode(), change.value.encode(), change.version)
            for change in answer.changes
        ] == expected_diff(log, low, high)


@pytest.mark.parametrize(
    "points",
    [
        ("after_put", "after_segment"),
        pytest.param(
            ("before_put", "after_put", "after_parts", "before_drop", "after_segment"),
            marks=pytest.mark.torture,
        ),
    ],
)
async def test_a_mover_killed_at_a_step_is_taken_up_and_nobody_notices(
    start_service: StartService, tmp_path: Path, points: tuple[str, ...]
) -> None:
    data = ("--data", str(tmp_path / "data"), *SWEPT_OFTEN)
    service = start_service("all", *data, "--archive-log-bytes", "0")
    url, secret = await store_of(service)
    tenant, apikey = await make_tenant(url, secret)
    clients, rng = connect(url, connections=4, timeout_seconds=5.0), random.Random(4)
    redis = clients.commands

    try:
        async with aiohttp.ClientSession() as session:
            api = NativeApi(session, endpoints=[service.url], apikey=apikey, rng=rng)
            log = await new_log(redis, Scope(tenant=tenant))
            await grow(redis, log, rng, versions=400, keys=10)
            log_id = log.identity.log_id
            for version in (100, 200):
                changes = await Materializing(redis).changes_up_to(log_id, version)
                await Materializing(redis).write_snapshot(log_id, version, changes)
            mover = ("materializer", *data, "--archive-log-bytes", BUDGET)
            for point in points:
                killed = start_service(
                    *mover, env={"INDELIBLE_FAILPOINT": point}, until="materializer.ready"
                )
                assert killed.process is not None
                assert await asyncio.to_thread(killed.process.wait, 30) == -9
                await check_grown(api, log, rng)
            assert 1 < await oldest(redis, log_id) < 200
            movers = [start_service(*mover, until="materializer.ready") for _ in points[1:]]

            async def moved() -> bool:
                noted = await redis.exists(keys.archived(log_id).unlisted)
                return not noted and await oldest(redis, log_id) > 300

            await until(moved, within_seconds=30)
            for _ in range(4):
                await check_grown(api, log, rng)
            for each in movers:
                assert not [e for e in each.events() if e["event"].endswith("crashed")]
    finally:
        await clients.close()

"""Forgetting through both twins and over HTTP, against a real service."""

import asyncio
from typing import Any

import aiohttp
import indelible
import pytest
from indelible import (
    AsyncClient,
    AsyncLog,
    Change,
    DeniedError,
    Entry,
    ErrorCode,
    Forgotten,
    NotFoundError,
    Profile,
)
from indelible_protocol.ids import to_base64url

from tests.client.conftest import OpenClient
from tests.support.service import Service


async def listed(items: Any) -> list[Any]:
    return [item async for item in items]


async def grown(log: AsyncLog, versions: int) -> None:
    for n in range(versions):
        await log.set(f"key {n % 7}", f"value {n}")


async def test_a_sealed_log_forgets_what_its_owner_signs(client: AsyncClient) -> None:
    log = await client.log("config", create=True)
    await grown(log, 40)
    contents, later = await listed(log.at(30)), await listed(log.at(40))
    changes = await listed(log.diff(30, 40))
    told = await log.forget(30)
    assert isinstance(told, Forgotten)
    assert told.first_version == 30
    assert told.bytes_now < told.bytes_before
    described = await log.describe()
    assert (described.version, described.first_version) == (41, 30)  # 41 is the signed record
    assert await listed(log.at(30)) == contents
    assert await listed(log.at(40)) == await listed(log) == later
    assert await listed(log.diff(30, 40)) == changes
    assert await listed(log.diff(40, 41)) == []
    assert await log.get("key 1", at=30) == "value 29"
    for reading in (log.at(29), log.diff(7, 40), log.diff(35, 12)):
        with pytest.raises(NotFoundError) as caught:
            await listed(reading)
        assert caught.value.code is ErrorCode.FORGOTTEN_VERSION
    assert [version.version for version in await listed(log.versions())] == list(range(41, 29, -1))
    steps = await listed(log.history("key 1"))
    assert [step.version for step in steps] == [37, 30]
    again = await log.forget(12)
    assert (again.first_version, (await log.describe()).version) == (30, 41)
    assert await log.set("key 1", "new") == indelible.Commit(version=42, changed=True)


async def test_it_can_be_opened_written_and_forgotten_again(open_client: OpenClient) -> None:
    first = await open_client().log("config", create=True)
    await grown(first, 12)
    await first.forget(5)
    second = await open_client().log("config")
    await second.forget(10)
    await grown(second, 5)
    assert (await first.describe()).first_version == 10
    third = await open_client().log("config")  # both records are in what stays of the history
    assert await third.get("key 4") == "value 4"
    await third.forget(16)
    assert await listed(third) == await listed(first)
    assert Entry("key 5", "value 5", 6) in await listed(third.at(16))


async def test_a_version_that_is_not_there_is_not_forgotten_to(log: AsyncLog) -> None:
    await grown(log, 3)
    with pytest.raises(NotFoundError) as caught:
        await log.forget(4)
    assert caught.value.code is ErrorCode.NONEXISTENT_VERSION
    described = await log.describe()
    assert (described.version, described.first_version) == (3, 0)
    for senseless in (0, -1):
        with pytest.raises(indelible.RequestError):
            await log.forget(senseless)


async def test_without_the_owner_s_record_a_sealed_log_forgets_nothing(
    client: AsyncClient, profile: Profile, service: Service
) -> None:
    log = await client.log("config", create=True)
    await grown(log, 5)
    token = to_base64url(bytes.fromhex(log.log_id))
    async with aiohttp.ClientSession(service.url) as session:
        answer = await session.post(
            f"/v2/logs/{token}/forget",
            json={"before": 3},
            headers={"Authorization": f"Bearer {profile.apikey}"},
        )
        problem = await answer.json()
    assert (answer.status, problem["code"]) == (403, "UNAUTHORIZED_OPERATION")
    assert (await log.describe()).first_version == 0
    assert issubclass(DeniedError, indelible.IndelibleError)


async def test_a_follower_is_told_what_is_gone(client: AsyncClient) -> None:
    log = await client.log("config", create=True)
    await grown(log, 9)
    await log.forget(8)
    with pytest.raises(NotFoundError, match="versions below 8 are forgotten"):
        await listed(log.follow(after=3, max_wait_seconds=0.1))
    diffs = await listed(log.follow(after=8, max_wait_seconds=0.1))
    assert [change.value for diff in diffs for change in diff.changes] == ["value 1", "value 8"]
    assert Change("add", "key 1", "value 8", 9) in diffs[0].changes


async def test_an_opaque_log_forgets_for_who_may_write_and_v1_still_reads_it(
    service: Service, profile: Profile
) -> None:
    headers = {"Authorization": f"Bearer {profile.apikey}"}
    async with aiohttp.ClientSession(service.url, headers=headers) as session:
        name = to_base64url(b"visits")
        made = await session.put(f"/v2/names/{name}?kind=opaque", json={})
        path = (await made.json())["description"]["log_id"].replace("+", "-").replace("/", "_")
        path = "/v2/logs/" + path.rstrip("=")
        for n in range(300):
            commands = [{"type": "Upsert", "key": "aw==", "value": f"{n:04}"}]
            commands.append({"type": "Upsert", "key": f"{n % 50:04}", "value": f"{n:04}"})
            done = await session.post(f"{path}/commits", json={"commands": commands})
            assert done.status == 201
        async with session.get(f"{path}/diff?to=300") as answer:
            whole = await answer.json()
        authinfo = {"customer_id": profile.customer_id, "apikey": profile.apikey}
        asked = {"authinfo": authinfo, "logName": "visits"}
        async with session.post("/v1/log/diff", json=asked) as answer:
            original = await answer.text()
        told: list[Any] = await asyncio.gather(*(forget(session, path, 290) for _ in range(5)))
        assert {(each["first_version"], each["done"]) for each in told} == {(290, True)}
        async with session.get(f"{path}/diff?to=300") as answer:
            assert await answer.json() == whole
        async with session.post("/v1/log/diff", json=asked) as answer:
            assert (answer.status, await answer.text()) == (200, original)
        async with session.get(f"{path}/commits?from=0") as answer:
            problem = await answer.json()
        assert (answer.status, problem["code"]) == (410, "FORGOTTEN_VERSION")
        assert problem["details"] == {"first_version": 290, "current_version": 300}
        async with session.get(f"{path}/versions") as answer:
            versions = await answer.json()
        assert (versions["first_version"], versions["cursor"]) == (290, None)
        assert len(versions["versions"]) == 11


async def forget(session: aiohttp.ClientSession, path: str, before: int) -> Any:
    while True:
        async with session.post(f"{path}/forget", json={"before": before}) as answer:
            assert answer.status in (200, 202), await answer.text()
            told = await answer.json()
        if told["done"]:
            return told


async def test_a_commit_that_is_sent_again_after_a_forget_gets_its_answer(
    service: Service, profile: Profile
) -> None:
    headers = {"Authorization": f"Bearer {profile.apikey}"}
    async with aiohttp.ClientSession(service.url, headers=headers) as session:
        made = await session.put(f"/v2/names/{to_base64url(b'again')}?kind=opaque", json={})
        log_id = (await made.json())["description"]["log_id"].replace("+", "-").replace("/", "_")
        path = "/v2/logs/" + log_id.rstrip("=")
        bodies = [
            {"commands": [{"type": "Upsert", "key": "aw==", "value": v}]} for v in ("aa==", "bb==")
        ]
        answers = []
        for _ in range(2):
            for number, body in enumerate(bodies):
                sent = await session.post(
                    f"{path}/commits", json=body, headers={"Idempotency-Key": f"send-{number}"}
                )
                answers.append(await sent.json())
            await forget(session, path, 2)
        assert [each["version"] for each in answers] == [1, 2, 1, 2]
        assert [each["repeated"] for each in answers] == [False, False, True, True]

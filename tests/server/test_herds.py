"""What many ask for at the same moment costs the store one question."""

import asyncio
from pathlib import Path

import aiohttp
from redis.asyncio import Redis

from tests.process.test_waiting import until_waiting
from tests.server.test_service import make_log, session, upsert
from tests.support.deployment import StartDeployment

MANY = 200


async def calls(store: Redis, command: str) -> int:
    found = (await store.info("commandstats")).get(f"cmdstat_{command}", {"calls": 0})
    return int(found["calls"])


async def test_a_thousand_that_come_at_once_ask_the_store_a_few_things(
    deploy: StartDeployment, tmp_path: Path
) -> None:
    """Whose the key is, which log it is, where that is, and to be told when it moves."""
    deployment = await deploy(processes=1)
    (service,) = deployment.services
    service.apikey = deployment.apikey
    async with session(service) as http:
        log = await make_log(http)
        await upsert(http, log, "a", "1")
    await asyncio.to_thread(service.kill)
    await asyncio.to_thread(service.start)
    commands = ("ssubscribe", "hgetall", "hmget", "fcall_ro")
    headers = {"Authorization": f"Bearer {deployment.apikey}"}
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        Redis.from_url(deployment.engine.url) as store,
        aiohttp.ClientSession(service.url, connector=connector, headers=headers) as http,
    ):
        before = [await calls(store, command) for command in commands]

        async def wait() -> int:
            async with http.get(f"{log}/diff?from=1&wait=30") as answer:
                return int((await answer.json())["to"])

        waiting = [asyncio.create_task(wait()) for _ in range(MANY)]
        await until_waiting(service, MANY)
        after = [await calls(store, command) for command in commands]
        asked = dict(zip(commands, map(int.__sub__, after, before), strict=True))
        assert asked["ssubscribe"] == 1
        # Who comes while an answer is under way shares it or the next one: how many that are is the
        # machine's affair. Each for itself would be MANY.
        for command in ("hgetall", "hmget", "fcall_ro"):
            assert asked[command] < MANY * 3 / 4, asked
        await upsert(http, log, "a", "2")
        assert await asyncio.gather(*waiting) == [2] * MANY

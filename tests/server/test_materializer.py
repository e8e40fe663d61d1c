"""The materializer's process: beside the API and alone, doubled, killed, and taken up again."""

import asyncio
import random
from pathlib import Path

from indelible_server.embedded import running_engine_url
from indelible_server.store import keys
from indelible_server.store.connection import connect
from indelible_server.store.names import Scope
from redis.asyncio import Redis

from tests.support.grown_logs import GrownLog, grow, new_log
from tests.support.polling import until
from tests.support.service import Service, StartService, make_tenant, store_of

SWEPT_OFTEN = ("--materializer-sweep-seconds", "0.1")


async def grown(redis: Redis, service: Service, versions: int) -> GrownLog:
    tenant, _ = await make_tenant(*await store_of(service))
    log = await new_log(redis, Scope(tenant=tenant))
    await grow(redis, log, random.Random(1), versions=versions, keys=10)
    return log


async def written(redis: Redis, log: GrownLog) -> int:
    progress = keys.materialized(log.identity.log_id).progress
    return int(await redis.hget(progress, "blocks") or 0)


async def test_all_writes_what_is_due_and_goes_on_after_a_kill(
    start_service: StartService, tmp_path: Path
) -> None:
    service = start_service("all", "--data", str(tmp_path / "data"), *SWEPT_OFTEN)
    url = await running_engine_url(tmp_path / "data")
    assert url is not None
    clients = connect(url, connections=4, timeout_seconds=5.0)
    redis = clients.commands
    try:
        log = await grown(redis, service, 900)

        async def has(blocks: int) -> bool:
            return await written(redis, log) == blocks

        await until(lambda: has(3))
        service.kill()
        service.start()
        # Beside it two more, which share the store with the one of `all`.
        others = [
            start_service(
                "materializer",
                *("--data", str(tmp_path / "data"), "--operations-listen", "127.0.0.1:0"),
                *SWEPT_OFTEN,
                until="materializer.ready",
            )
            for _ in range(2)
        ]
        await grow(redis, log, random.Random(2), versions=900, keys=10)
        await until(lambda: has(7))
        listed = await redis.zcard(keys.materialized(log.identity.log_id).snapshots)
        assert listed >= 2
        for each in others:
            assert await asyncio.to_thread(each.terminate) == 0
        events = {event["event"] for each in (service, *others) for event in each.events()}
        assert {"snapshot.written", "materializer.drained"} <= events
        assert not {name for name in events if name.endswith("crashed")}
    finally:
        await clients.close()

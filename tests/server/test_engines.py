"""The engines that tests run on are what they claim to be."""

import os
import signal
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tests.support.engines import Engine, EnginePool, start_engine


async def test_engine_is_empty_and_strict(each_engine: Engine) -> None:
    async with Redis.from_url(each_engine.url) as client:
        assert await client.dbsize() == 0
        assert await client.config_get("append*") != {}
        assert (await client.config_get("appendfsync"))["appendfsync"] == "always"
        await client.set("left", "behind")
        await client.function_load("#!lua name=left\nredis.register_function('f', function() end)")
        await client.config_set("appendfsync", "no")
    await each_engine.flush()
    async with Redis.from_url(each_engine.url) as client:
        assert await client.dbsize() == 0
        assert await client.function_list() == []
        assert (await client.config_get("appendfsync"))["appendfsync"] == "always"


async def test_killed_engine_keeps_what_it_acknowledged(tmp_path: Path) -> None:
    started = await start_engine(tmp_path, settings={"appendfsync": "always"})
    try:
        pid = started.pid
        async with Redis.from_url(started.url) as client:
            await client.set("kept", "yes")
        await started.kill()
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        await started.restart()
        async with Redis.from_url(started.url) as client:
            assert await client.get("kept") == b"yes"
    finally:
        await started.stop()


async def test_engine_that_a_test_killed_is_back_for_the_next(engine_pool: EnginePool) -> None:
    os.kill((await engine_pool.fresh("valkey")).pid, signal.SIGKILL)
    engine = await engine_pool.fresh("valkey")
    async with Redis.from_url(engine.url) as client:
        assert await client.dbsize() == 0

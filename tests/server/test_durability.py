"""The check of the store's settings: the judgement as a table, the rest on real engines."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from indelible_server.store.connection import connect
from indelible_server.store.durability import (
    DurabilityMonitor,
    Profile,
    advice,
    read_settings,
    shortfalls,
)
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from structlog.testing import capture_logs

from tests.support.cluster import Cluster
from tests.support.engines import Engine, start_engine

GOOD = {
    "appendonly": "yes",
    "appendfsync": "always",
    "no-appendfsync-on-rewrite": "no",
    "maxmemory-policy": "noeviction",
}
VALKEY = {"redis_version": "7.2.4", "valkey_version": "9.1.2"}
PROFILES: tuple[Profile, ...] = ("strict", "relaxed")


@pytest_asyncio.fixture
async def client(each_engine: Engine) -> AsyncIterator[Redis]:
    async with Redis.from_url(each_engine.url, retry=Retry(NoBackoff(), 0)) as connected:
        yield connected


# The judgement


@pytest.mark.parametrize("profile", PROFILES)
def test_good_settings_have_no_shortfall(profile: Profile) -> None:
    assert shortfalls(GOOD, VALKEY, profile=profile) == ()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("appendonly", "no"),
        ("appendfsync", "everysec"),
        ("appendfsync", "no"),
        ("no-appendfsync-on-rewrite", "yes"),
    ],
)
def test_setting_that_may_lose_a_commit_falls_short_of_strict_alone(name: str, value: str) -> None:
    settings = {**GOOD, name: value}
    assert shortfalls(settings, VALKEY, profile="strict") == (
        f"{name} is {value}, expected {GOOD[name]}",
    )
    assert shortfalls(settings, VALKEY, profile="relaxed") == ()


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl", "allkeys-random"])
def test_eviction_falls_short_of_every_profile(profile: Profile, policy: str) -> None:
    settings = {**GOOD, "maxmemory-policy": policy}
    assert shortfalls(settings, VALKEY, profile=profile) == (
        f"maxmemory-policy is {policy}, expected noeviction",
    )


def test_every_shortfall_is_told() -> None:
    settings = dict.fromkeys(GOOD, "bad")
    assert [reason.split()[0] for reason in shortfalls(settings, VALKEY, profile="strict")] == [
        *GOOD
    ]


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(
    ("info", "reason"),
    [
        ({"redis_version": "6.2.14"}, "redis is 6.2, expected 7.0 or newer"),
        (
            {"redis_version": "7.2.4", "valkey_version": "7.1.0"},
            "valkey is 7.1, expected 7.2 or newer",
        ),
        ({}, "redis is 0.0, expected 7.0 or newer"),
        ({"redis_version": "unstable"}, "redis is 0.0, expected 7.0 or newer"),
    ],
)
def test_old_engine_falls_short(profile: Profile, info: Mapping[str, object], reason: str) -> None:
    assert shortfalls(GOOD, info, profile=profile) == (reason,)


@pytest.mark.parametrize("version", ["7.0.15", "7.2.0", "8.0.0", "10.0.1"])
def test_redis_from_seven_on_is_accepted(version: str) -> None:
    assert shortfalls(GOOD, {"redis_version": version}, profile="strict") == ()


def test_untold_settings_are_one_reason() -> None:
    told_by_info = {**VALKEY, "maxmemory_policy": "noeviction"}
    (reason,) = shortfalls({}, told_by_info, profile="strict")
    assert "does not tell appendonly, appendfsync, no-appendfsync-on-rewrite (" in reason
    assert shortfalls({}, told_by_info, profile="relaxed") == ()
    (reason,) = shortfalls({}, VALKEY, profile="relaxed")
    assert "does not tell maxmemory-policy (" in reason
    evicting = {**VALKEY, "maxmemory_policy": "allkeys-lru"}
    assert shortfalls({}, evicting, profile="relaxed") == (
        "maxmemory-policy is allkeys-lru, expected noeviction",
    )


def test_replicas_that_are_waited_for_and_missing_fall_short_but_in_a_cluster() -> None:
    one = {"slave0": {"state": "online"}, "slave1": {"state": "wait_bgsave"}}
    info: dict[str, object] = {**VALKEY, **one, "role": "master"}
    assert shortfalls(GOOD, info, profile="strict", replicas=1) == ()
    assert shortfalls(GOOD, info, profile="strict", replicas=2) == (
        "the store has 1 replicas, 2 expected",
    )
    assert shortfalls(GOOD, info, profile="strict", replicas=2, of_cluster=True) == ()
    fewest = {"min-replicas-to-write": "2"}
    assert [a.split(":")[1] for a in advice(info, fewest, replicas=2)] == [
        " its logs take no commits"
    ]
    assert advice(info, fewest, replicas=1) == ()
    assert "as unknown outcomes" in advice(info, {"min-replicas-to-write": "0"}, replicas=1)[0]
    info["slave1"] = {"state": "online"}
    assert "may lose what was acknowledged" in advice(info, fewest, replicas=1)[0]
    assert advice({**info, "role": "slave"}, {}, replicas=1) == ()


def test_a_node_of_a_cluster_that_is_named_as_an_engine_falls_short() -> None:
    (reason,) = shortfalls(GOOD, {**VALKEY, "cluster_enabled": 1}, profile="strict")
    assert "?cluster=true" in reason
    assert (
        shortfalls(GOOD, {**VALKEY, "cluster_enabled": 1}, profile="strict", of_cluster=True) == ()
    )


async def test_each_node_of_a_cluster_is_checked_the_replicas_too(cluster: Cluster) -> None:
    clients = connect(cluster.url, connections=2, timeout_seconds=5.0)
    monitor = DurabilityMonitor(clients.commands, "strict", replicas=clients.replicas)
    try:
        await monitor.check()
        assert monitor.durable
        primaries = await cluster.primaries()
        for node in (primaries[0], next(n for n in cluster.nodes if n not in primaries)):
            async with node.client() as client:
                await client.config_set("appendfsync", "everysec")
                await monitor.check()
                await client.config_set("appendfsync", "always")
            assert monitor.reasons == (
                f"node {node.id[:8]}: appendfsync is everysec, expected always",
            )
        await monitor.check()
        assert monitor.durable
    finally:
        await clients.close()


def test_advice_is_given_for_engines_without_waitaof() -> None:
    (given,) = advice({"redis_version": "7.0.15"})
    assert "7.0 has no WAITAOF" in given
    assert advice({"redis_version": "7.2.4"}) == ()
    assert advice(VALKEY) == ()
    assert advice({"redis_version": "6.2.14"}) == ()  # that one is a shortfall


# On real engines


async def test_strict_engine_is_durable(client: Redis, each_engine: Engine) -> None:
    monitor = DurabilityMonitor(client, "strict")
    assert monitor.reasons, "durable before anyone looked"
    with capture_logs() as events:
        await monitor.check()
        await monitor.check()
    assert monitor.durable
    advised = ["durability.advised"] if each_engine.name == "redis" else []
    assert [event["event"] for event in events] == advised


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("appendonly", "no"),
        ("appendfsync", "everysec"),
        ("no-appendfsync-on-rewrite", "yes"),
        ("maxmemory-policy", "allkeys-lru"),
    ],
)
async def test_change_under_a_running_service_is_seen_and_told_once(
    client: Redis, name: str, value: str
) -> None:
    monitor = DurabilityMonitor(client, "strict")
    await monitor.check()
    with capture_logs() as events:
        for wanted in (value, GOOD[name]):
            await client.config_set(name, wanted)
            await monitor.check()
            assert monitor.durable == (wanted == GOOD[name])
            await monitor.check()
    assert [event["event"] for event in events] == ["durability.fell_short", "durability.restored"]
    assert events[0]["reasons"] == [f"{name} is {value}, expected {GOOD[name]}"]
    assert events[0]["profile"] == "strict"


async def test_refused_config_is_a_reason_against_strict_alone(
    client: Redis, each_engine: Engine
) -> None:
    await client.acl_setuser("lowly", enabled=True, nopass=True, commands=["+@all", "-config"])
    options: dict[str, Any] = {"username": "lowly", "password": "", "retry": Retry(NoBackoff(), 0)}
    try:
        async with Redis.from_url(each_engine.url, **options) as lowly:
            assert (await read_settings(lowly)).config == {}
            strict, relaxed = (DurabilityMonitor(lowly, profile) for profile in PROFILES)
            await strict.check()
            await relaxed.check()
    finally:
        await client.acl_deluser("lowly")
    assert len(strict.reasons) == 1
    assert "CONFIG GET is refused" in strict.reasons[0]
    assert relaxed.durable


async def test_store_that_is_killed_is_not_durable_until_it_is_back(tmp_path: Path) -> None:
    engine = await start_engine(tmp_path)
    stop = asyncio.Event()
    try:
        async with Redis.from_url(engine.url, retry=Retry(NoBackoff(), 0)) as client:
            monitor = DurabilityMonitor(client, "strict", every_seconds=0.05)
            with capture_logs() as events:
                running = asyncio.create_task(monitor.run(stop))
                await until_durable(monitor, True)
                await engine.kill()
                await until_durable(monitor, False)
                assert monitor.reasons == ("the store cannot be examined (ConnectionError)",)
                await engine.restart()
                await until_durable(monitor, True)
                stop.set()
                await asyncio.wait_for(running, 1)
    finally:
        await engine.stop()
    told = [event["event"] for event in events]
    assert told == ["durability.fell_short", "durability.restored"]


async def test_store_that_hangs_is_a_reason_within_the_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indelible_server.store.durability.DEADLINE_SECONDS", 0.2)
    engine = await start_engine(tmp_path)
    try:
        # redis-py's own time limit and retries are left as they come: ours must end it
        async with Redis.from_url(engine.url) as client:
            monitor = DurabilityMonitor(client, "strict")
            await monitor.check()
            assert monitor.durable
            os.kill(engine.pid, signal.SIGSTOP)
            async with asyncio.timeout(1):
                await monitor.check()
            assert monitor.reasons == ("the store cannot be examined (TimeoutError)",)
            os.kill(engine.pid, signal.SIGCONT)
            await monitor.check()
            assert monitor.durable
    finally:
        os.kill(engine.pid, signal.SIGCONT)
        await engine.stop()


async def test_stop_ends_a_run_in_its_pause(client: Redis) -> None:
    stop = asyncio.Event()
    monitor = DurabilityMonitor(client, "strict", every_seconds=3600)
    running = asyncio.create_task(monitor.run(stop))
    await until_durable(monitor, True)
    stop.set()
    await asyncio.wait_for(running, 1)


async def until_durable(monitor: DurabilityMonitor, expected: bool) -> None:
    async with asyncio.timeout(10):
        while True:
            if monitor.durable == expected:
                return
            await asyncio.sleep(0.01)

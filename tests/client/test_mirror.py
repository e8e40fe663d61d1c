"""Mirrors: a log's contents in memory, which keep up."""

import asyncio
import threading

import indelible
import pytest
from indelible import AsyncClient, NotFoundError, Profile

from tests.support.polling import until


async def test_a_mirror_holds_what_is_there_and_follows(profile: Profile) -> None:
    async with AsyncClient(profile) as client:
        log = await client.log("config", create=True, value_mode="msgpack")
        await log.set_many({"a": 1, "b": 2})
        async with log.mirror() as mirror:
            assert dict(mirror) == {"a": 1, "b": 2}
            assert (mirror["a"], mirror.get("c"), "b" in mirror, len(mirror)) == (1, None, True, 2)
            commit = await log.set_many({"a": 3, "c": b"x"})
            await log.delete("b")
            assert await mirror.reached(commit.version + 1) == 3
            assert (dict(mirror), mirror.version) == ({"a": 3, "c": b"x"}, 3)
        await log.set("a", 4)
        assert mirror["a"] == 3  # closed: as it was


async def test_a_mirror_that_cannot_follow_says_so(profile: Profile) -> None:
    async with AsyncClient(profile) as client:
        log = await client.log("config", create=True)
        await log.set("a", 1)
        async with log.mirror() as mirror:
            waiting = asyncio.create_task(mirror.reached(99))
            await log.drop()
            with pytest.raises(NotFoundError):
                await waiting
            with pytest.raises(NotFoundError):
                _ = mirror["a"]
            with pytest.raises(NotFoundError):
                _ = mirror.version


async def test_keys_that_are_lists_are_tuples(profile: Profile) -> None:
    async with AsyncClient(profile) as client:
        log = await client.log("pairs", create=True, key_mode="json")
        await log.set(["a", 1], "x")
        async with log.mirror() as mirror:
            assert mirror["a", 1] == "x"


def test_a_blocking_mirror_moves_in_the_background_and_shows_whole_versions(
    profile: Profile,
) -> None:
    with indelible.Client(profile) as client:
        log = client.log("config", create=True)
        log.set_many({"a": 0, "b": 0})
        torn: list[dict[str, int]] = []
        done = threading.Event()

        def watch() -> None:
            while not done.is_set():
                seen = mirror.snapshot()
                if seen["a"] != seen["b"]:
                    torn.append(seen)

        with log.mirror() as mirror:
            watcher = threading.Thread(target=watch)
            watcher.start()
            for n in range(1, 30):
                log.set_many({"a": n, "b": n})
            assert mirror.reached(30) == 30
            done.set()
            watcher.join(20)
            assert (dict(mirror), torn) == ({"a": 29, "b": 29}, [])


async def test_a_mirror_is_closed_with_its_client(profile: Profile) -> None:
    async with AsyncClient(profile) as client:
        log = await client.log("config", create=True)
        mirror = await log.mirror().__aenter__()
    await until(lambda: mirror._error is not None)
    await mirror.close()

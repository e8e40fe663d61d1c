"""Logs of the original client become sealed ones: all that they held, and when it came."""

import asyncio
import base64
import os
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from indelible import (
    AsyncClient,
    ConfigError,
    DeniedError,
    NotFoundError,
    Profile,
    UnsealError,
    v1,
)
from indelible.transferring import OfVersion, Progress, import_from_v1, origin_of
from indelible.transferring.v1_logs import V1Original
from indelible.v1 import Cmd

from tests.support.service import Service


@pytest.fixture
async def client(profile: Profile) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(profile) as client:
        yield client


@pytest.fixture
def original_profile(service: Service) -> dict[str, Any]:
    """Of the same tenant, with a master key of its own."""
    return {
        "endpoint_url": service.url,
        "customer_id": service.customer_id,
        "apikey": service.apikey,
        "master_key": os.urandom(32),
    }


async def contents(log: Any) -> list[Any]:
    return sorted([(entry.key, entry.value) async for entry in log], key=repr)


def fill(log: v1.Log, versions: int = 30) -> None:
    rng = random.Random(21)
    log.create("site")
    held: dict[str, int] = {}
    for version in range(versions):
        key = f"clé-{rng.randrange(6)}"
        if key in held and rng.random() < 0.3:
            log.update([Cmd.Remove(key, held.pop(key))], f"gone {version}")
        else:
            held[key] = version
            log.update([Cmd.Upsert(key, version), Cmd.Upsert("é", [version])], f"step {version}")


@pytest.mark.parametrize("history", [False, True], ids=["contents", "history"])
async def test_what_it_holds_is_in_the_sealed_log(
    client: AsyncClient, original_profile: dict[str, Any], history: bool
) -> None:
    original = v1.Log("config", original_profile)
    await asyncio.to_thread(fill, original)
    done = await import_from_v1(client, original, history=history)
    log = await client.log("config")
    theirs = await asyncio.to_thread(
        lambda: [(c["entry"]["key"], c["entry"]["value"]) for c in original]
    )
    assert await contents(log) == sorted(theirs, key=repr)
    assert (done.version, done.commits) == ((30, 30) if history else (1, 1))
    again = await import_from_v1(client, original, history=history)
    assert (again.commits, again.version) == (0, done.version)


async def test_its_diffs_sources_and_times_are_kept(
    client: AsyncClient, original_profile: dict[str, Any]
) -> None:
    original = v1.Log("config", original_profile)
    await asyncio.to_thread(fill, original)
    await import_from_v1(client, original, "copy", history=True)
    copy = await client.log("copy")
    for low, high in ((0, 30), (3, 4), (7, 21), (29, 30)):
        diff = await asyncio.to_thread(original.version_diff, low, high)
        theirs = await asyncio.to_thread(list, diff.changes())
        ours = [change async for change in copy.diff(low, high)]
        assert [(c.op, c.key, c.value, c.version) for c in ours] == [
            (c["change"].lower(), c["entry"]["key"], c["entry"]["value"], c["version"])
            for c in theirs
        ]
    found = [origin_of(version.source) async for version in copy.versions()]
    origins = [origin for origin in found if isinstance(origin, OfVersion)]
    assert [origin.version for origin in origins] == list(range(30, 0, -1))
    assert {origin.source.split()[0] for origin in origins} == {"step", "gone"}
    times = [origin.time for origin in origins if origin.time is not None]
    assert len(times) == 30
    assert times == sorted(times, reverse=True)


@pytest.mark.parametrize("history", [False, True], ids=["contents", "history"])
async def test_it_goes_on_after_an_interruption(
    client: AsyncClient, original_profile: dict[str, Any], history: bool
) -> None:
    class Interrupted(Exception):
        pass

    def interrupt(progress: Progress) -> None:
        if progress.done > progress.resumed + 4:
            raise Interrupted

    original = v1.Log("config", original_profile)
    await asyncio.to_thread(fill, original, 20)
    for _ in range(2):
        with pytest.raises(Interrupted):
            await import_from_v1(client, original, history=history, on_progress=interrupt)
    done = await import_from_v1(client, original, history=history)
    assert done.resumed > 4
    assert done.version == (20 if history else 1)


async def test_it_can_be_read_from_anywhere_on(original_profile: dict[str, Any]) -> None:
    log = v1.Log("config", original_profile)
    await asyncio.to_thread(fill, log, 20)
    await asyncio.to_thread(log.update, [Cmd.Upsert(f"k{n}", n) for n in range(120)])
    original = await V1Original.of(log, history=False)
    rows = [row async for row in original.rows(0)]
    assert len(rows) > 120
    for skip in (1, 50, 51, len(rows)):
        assert [row async for row in original.rows(skip)] == rows[skip:]
    original = await V1Original.of(log, history=True)
    steps = [step async for step in original.steps(0)]
    assert [step.version for step in steps] == list(range(1, 22))
    for after in (1, 10, 21):
        assert [step async for step in original.steps(after)] == steps[after:]


@pytest.mark.parametrize(
    ("mode", "values", "encrypt"),
    [
        ("string", ["a", "é☃"], True),
        ("json", [False, {"a": [1.5]}], True),
        ("binary", [b"\x00\xff", b"x"], True),
        ("binary", [b"\x00\xff", b"x"], False),
        ("raw", ["AP8=", "eA=="], False),
    ],
)
async def test_every_mode_becomes_its_own(
    client: AsyncClient,
    original_profile: dict[str, Any],
    mode: str,
    values: list[Any],
    encrypt: bool,
) -> None:
    original = v1.Log("config", original_profile, mode, mode, encrypt)
    await asyncio.to_thread(original.create)
    await asyncio.to_thread(original.update, [Cmd.Upsert(value, value) for value in values])
    await import_from_v1(client, original)
    log = await client.log("config", key_mode=None, value_mode=None)
    meant = [base64.b64decode(value) for value in values] if mode == "raw" else values
    assert log.key_mode == ("binary" if mode == "raw" else mode)
    assert await contents(log) == sorted([(value, value) for value in meant], key=repr)


async def test_a_name_of_parts_and_an_empty_log(
    client: AsyncClient, original_profile: dict[str, Any]
) -> None:
    original = v1.Log(["a", "b"], original_profile, name_mode="stringlist")
    await asyncio.to_thread(original.create)
    done = await import_from_v1(client, original, history=True)
    assert (done.name, done.version) == (("a", "b"), 0)


async def test_a_commit_that_sealing_makes_too_large_becomes_several(
    client: AsyncClient, original_profile: dict[str, Any]
) -> None:
    original = v1.Log("config", original_profile, encrypt=False)
    await asyncio.to_thread(original.create)
    commands = [Cmd.Upsert(f"k{n}", "x" * 150) for n in range(4_000)]
    await asyncio.to_thread(original.update, commands, "large")
    done = await import_from_v1(client, original, history=True)
    assert done.version > 1
    found = [origin_of(v.source) async for v in (await client.log("config")).versions()]
    parts = [(o.version, o.part, o.source) for o in found if isinstance(o, OfVersion)]
    assert parts == [(1, part, "large") for part in range(done.version, 0, -1)]


async def test_mistakes_are_told_in_our_words(
    client: AsyncClient, original_profile: dict[str, Any]
) -> None:
    original = v1.Log("config", original_profile)
    with pytest.raises(NotFoundError):
        await import_from_v1(client, original)
    await asyncio.to_thread(fill, original, 3)
    for profile, modes, error in (
        ({"apikey": "ik_0123456789abcdef_" + "x" * 43}, (), DeniedError),
        ({"master_key": bytes(32)}, (), NotFoundError),  # it would have another name
        ({}, ("string", "binary", False), NotFoundError),
        ({}, ("json", "json"), UnsealError),
    ):
        wrong = v1.Log("config", {**original_profile, **profile}, *modes)
        with pytest.raises(error):
            await import_from_v1(client, wrong, "copy")
    far = v1.Log("config", {**original_profile, "endpoint_url": "http://192.0.2.1:1"})
    with pytest.raises(ConfigError, match="http://"):
        await import_from_v1(client, far, "copy")


async def test_a_service_that_speaks_the_original_protocol_alone_is_enough(
    client: AsyncClient, original_profile: dict[str, Any]
) -> None:
    """Without times and sources, which that protocol does not tell."""
    original = v1.Log("config", original_profile)
    await asyncio.to_thread(fill, original, 5)

    async def passed_on(request: web.Request) -> web.Response:
        from indelible.v1.service import post

        if not request.path.startswith("/v1/"):
            return web.Response(status=404, text="nothing here")
        body = await request.read()
        url = original_profile["endpoint_url"] + request.path
        answer = await asyncio.to_thread(post, url, body, silence_seconds=10.0)
        return web.Response(status=answer.status_code, body=answer.content)

    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", passed_on)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        elsewhere = v1.Log("config", {**original_profile, "endpoint_url": url})
        done = await import_from_v1(client, elsewhere, history=True)
    finally:
        await runner.cleanup()
    assert done.version == 5
    found = [origin_of(v.source) async for v in (await client.log("config")).versions()]
    assert [(o.source, o.time) for o in found if isinstance(o, OfVersion)] == [("", None)] * 5

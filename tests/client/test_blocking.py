"""What only the blocking twin must do: interrupt, fork, refuse, close."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import indelible
import pytest
from indelible import Client, Profile, RequestError, portal

from tests.client.conftest import profile_of
from tests.client.wire import Wire
from tests.support.polling import until
from tests.support.service import Service


@pytest.fixture
def profile_file(profile: Profile, tmp_path: Path) -> Path:
    return profile.save(tmp_path / "profile.json")


async def script(text: str, *arguments: object) -> asyncio.subprocess.Process:
    command = [sys.executable, "-W", "error", "-c", text, *map(str, arguments)]
    return await asyncio.create_subprocess_exec(
        *command, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


async def finished(process: asyncio.subprocess.Process) -> tuple[int, str, str]:
    async with asyncio.timeout(30):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_blocking_where_a_loop_runs_is_refused_with_a_sentence(profile: Profile) -> None:
    client = Client(profile)
    with pytest.raises(RequestError, match=r"use indelible\.AsyncClient"):
        client.log("config")
    with pytest.raises(RequestError, match=r"use indelible\.AsyncClient"):
        next(iter(client.logs()))
    await asyncio.to_thread(client.close)


INTERRUPTED = """
import sys, indelible
with indelible.Client(sys.argv[1]) as client:
    log = client.log("config", create=True)
    log.set("a", 1)
    try:
        for diff in log.follow(after=0):
            print("following", flush=True)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    print(log.get("a"), log.set("a", 2).version, flush=True)
"""


async def test_an_interrupt_ends_the_call_that_waits_and_leaves_the_log_usable(
    profile_file: Path,
) -> None:
    process = await script(INTERRUPTED, profile_file)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"following\n"
    await asyncio.sleep(0.2)  # into the next wait, most likely; either way it must end
    process.send_signal(signal.SIGINT)
    code, out, err = await finished(process)
    assert (code, out, err) == (0, "interrupted\n1 2\n", "")


async def test_an_interrupt_that_nobody_catches_ends_the_process_at_once(
    profile_file: Path,
) -> None:
    text = """
import sys, indelible
log = indelible.Client(sys.argv[1]).log("config", create=True)
print("ready", flush=True)
next(log.follow())
"""
    process = await script(text, profile_file)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    await asyncio.sleep(0.2)
    process.send_signal(signal.SIGINT)
    code, _, err = await finished(process)
    assert code in (130, -signal.SIGINT)
    assert err.strip().endswith("KeyboardInterrupt")
    assert "Exception ignored" not in err


async def test_closing_a_client_ends_its_waits_here_and_at_the_service(service: Service) -> None:
    async with Wire(service.url) as wire:
        client = Client(profile_of(service, url=wire.url))
        log = await asyncio.to_thread(client.log, "config", create=True)
        before = wire.requests
        waiting = asyncio.create_task(asyncio.to_thread(list, log.follow(0)))
        await until(lambda: wire.requests > before)
        await asyncio.to_thread(client.close)
        with pytest.raises(RequestError, match="closed"):
            async with asyncio.timeout(20):
                await waiting
        await until(lambda: wire.connections == 0)


async def test_leaving_a_loop_closes_what_it_read_from(profile: Profile) -> None:
    """At once, though somebody still holds on to it."""

    def leave() -> list[portal.Stream[Any]]:
        with Client(profile) as client:
            log = client.log("config", create=True)
            log.set_many({f"key-{n}": n for n in range(1_500)})
            for _ in log:
                held = open_streams()
                break
            for _ in log.follow(0):
                held += open_streams()
                break
            return held

    held = await asyncio.to_thread(leave)
    assert len(held) == 2
    assert open_streams() == []


def open_streams() -> list[portal.Stream[Any]]:
    return [
        each
        for each in gc.get_objects()
        if isinstance(each, portal.Stream) and getattr(each._iterator, "ag_frame", None)
    ]


FORKED = """
import os, sys, indelible
client = indelible.Client(sys.argv[1])
log = client.log("config", create=True)
log.set("before", 0)
child = os.fork()
who = "parent" if child else "child"
for n in range(10):
    assert log.set(f"{who}-{n}", n).changed
assert log.get("before") == 0
if not child:
    client.log("made by the child", create=True).set("a", 1)
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
assert log.version == 21, log.version
assert client.log("made by the child").get("a") == 1
print(len(list(log)))
"""


async def test_a_forked_child_goes_on_with_connections_and_chains_of_its_own(
    profile_file: Path,
) -> None:
    """Chains that parent and child shared would collide; so would bytes on one connection."""
    process = await script(FORKED, profile_file)
    assert await finished(process) == (0, "21\n", "")


async def test_a_client_that_nobody_closes_leaves_quietly(profile_file: Path) -> None:
    text = """
import sys, indelible
client = indelible.Client(sys.argv[1])
log = client.log("config", create=True)
print(log.set("a", 1).version)
indelible.Client(sys.argv[1]).log("config").get("a")
"""
    process = await script(text, profile_file)
    assert await finished(process) == (0, "1\n", "")


async def test_threads_share_a_client(profile: Profile) -> None:
    def share() -> list[int]:
        with Client(profile) as client, ThreadPoolExecutor(20) as threads:
            log = client.log("config", create=True)
            done = threads.map(lambda n: log.set(f"key-{n}", n).version, range(60))
            return sorted(done)

    assert await asyncio.to_thread(share) == list(range(1, 61))


async def test_in_asks_for_the_key(profile: Profile) -> None:
    def ask() -> tuple[bool, bool]:
        with Client(profile) as client:
            log = client.log("config", create=True)
            log.set("a", None)
            return "a" in log, "b" in log

    assert await asyncio.to_thread(ask) == (True, False)


async def test_a_log_of_the_original_client_says_what_opens_it(service: Service) -> None:
    """Sealed or not; without telling the service a name that it does not know."""
    from indelible.v1 import Log as OriginalLog

    profile = profile_of(service)
    v1_profile = {
        "endpoint_url": profile.endpoint_url,
        "customer_id": profile.customer_id,
        "apikey": profile.apikey,
        "master_key": profile.master_key,
    }

    def make_and_ask() -> None:
        OriginalLog("sealed", v1_profile).create()
        OriginalLog(["a", "b"], v1_profile, name_mode="stringlist").create()
        OriginalLog("raw", v1_profile, name_mode="raw", encrypt=False).create()
        with Client(profile) as client:
            for name in ("sealed", ["a", "b"], ("a", "b"), "raw"):
                with pytest.raises(indelible.NotFoundError, match=r"indelible\.v1"):
                    client.log(name)
            with pytest.raises(indelible.NotFoundError, match="there is no log"):
                client.log("canary-of-a-name")
            assert client.log("raw", create=True).version == 0  # the two never meet
            kinds = {each.kind for each in client.logs()}
            assert kinds == {"opaque", "sealed"}

    await asyncio.to_thread(make_and_ask)
    assert "canary-of-a-name" not in service.log_file.read_text()


def test_the_process_of_the_tests_is_not_left_with_many_loops() -> None:
    names = [thread.name for thread in threading.enumerate()]
    assert names.count("indelible") <= 1
    assert os.getpid() > 0

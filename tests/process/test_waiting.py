"""Waiters at scale: all are woken, none is kept for nothing, none is dropped at an end."""

import asyncio
import base64
import os
import random
import re
import signal
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from indelible_protocol.ids import LogId, to_base64url
from indelible_server.store import keys
from redis.asyncio import Redis

from tests.support.deployment import Deployment, StartDeployment
from tests.support.native_api import DiffAnswer, InDoubt, NativeApi, NotDone
from tests.support.operations import Command, Op
from tests.support.polling import until
from tests.support.proxy import FaultProxy
from tests.support.service import Service

WAIT_SECONDS = 40.0
END_SECONDS = 4.0

Answers = list["asyncio.Task[DiffAnswer | None]"]


@asynccontextmanager
async def client_of(deployment: Deployment, service: Service) -> AsyncIterator[NativeApi]:
    """A client of one process, with a connection for each request it has open."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        yield NativeApi(
            session, endpoints=[service.url], apikey=deployment.apikey, rng=random.Random(1)
        )


def start_waiting(client: NativeApi, log_id: bytes, count: int) -> Answers:
    async def wait() -> DiffAnswer | None:
        while True:
            try:
                return await client.wait(log_id, 0, wait_seconds=WAIT_SECONDS)
            except NotDone as error:
                if str(error) != "OVERLOADED":  # so many at once can be, on a busy machine
                    raise
                await asyncio.sleep(random.uniform(0, 0.5))

    return [asyncio.create_task(wait()) for _ in range(count)]


async def waiters_of(service: Service) -> int:
    """What the process itself counts."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{service.url}/metrics") as response,
    ):
        gauge = re.search(r"^indelible_waiters (\S+)$", await response.text(), re.MULTILINE)
    assert gauge
    return int(float(gauge[1]))


async def until_waiting(service: Service, count: int, *, within_seconds: float = 60.0) -> None:
    async def as_many() -> bool:
        return await waiters_of(service) == count

    await until(as_many, within_seconds=within_seconds, what=f"{count} waiters")


async def update(client: NativeApi, log_id: bytes) -> None:
    await client.commit(log_id, [Command(Op.UPSERT, "key", "value")], idempotency_key="update")


async def expect_update(answers: Answers, *, within_seconds: float) -> None:
    async with asyncio.timeout(within_seconds):
        woken = await asyncio.gather(*answers)
    assert [answer and answer.to_version for answer in woken] == [1] * len(answers)
    assert all(answer and len(answer.changes) == 1 for answer in woken)


async def test_a_thousand_waiters_in_two_processes_all_get_the_update(
    deploy: StartDeployment,
) -> None:
    deployment = await deploy()
    one, other = deployment.services
    async with client_of(deployment, one) as near, client_of(deployment, other) as far:
        log_id = await near.create_log("watched")
        answers = start_waiting(near, log_id, 500) + start_waiting(far, log_id, 500)
        await until_waiting(one, 500)
        await until_waiting(other, 500)
        began = time.monotonic()
        await update(near, log_id)
        await expect_update(answers, within_seconds=3.0)  # sooner than any recheck
        print(f"1,000 woken in {time.monotonic() - began:.2f} s")


async def test_a_flood_of_first_waits_on_different_logs_is_not_refused(
    deploy: StartDeployment,
) -> None:
    """The store is a few milliseconds away: one question at a time would take too long."""
    deployment = await deploy(processes=1)
    async with FaultProxy(deployment.engine.socket, random.Random(3)) as wire:
        few = ("--store-connections", "2", "--store-seconds", "1.5")
        far = await deployment.start_service(*few, store_url=wire.url, listed=False)
        async with (
            client_of(deployment, deployment.services[0]) as maker,
            client_of(deployment, far) as client,
        ):
            logs = [await maker.create_log(f"log {number}") for number in range(400)]
            wire.delay_seconds = 0.005
            waits = [
                asyncio.ensure_future(client.wait(log_id, 0, wait_seconds=WAIT_SECONDS))
                for log_id in logs
            ]
            try:
                await until_waiting(far, len(logs))
                assert not any(each.done() for each in waits)
            finally:
                wire.delay_seconds = 0.0
                for each in waits:
                    each.cancel()
                refused = await asyncio.gather(*waits, return_exceptions=True)
            assert all(isinstance(each, asyncio.CancelledError) for each in refused), refused


async def test_a_thousand_waiters_all_get_the_update_though_no_hint_arrives(
    deploy: StartDeployment,
) -> None:
    """The hints are lost on the wire. The control rechecks once a minute: it sleeps on."""
    deployment = await deploy(processes=1)
    async with FaultProxy(deployment.engine.socket, random.Random(2)) as wire:
        wire.deaf = True
        rechecks = ("1", "1", "60")
        one, other, control = await asyncio.gather(
            *(
                deployment.start_service(
                    *("--recheck-seconds", seconds), store_url=wire.url, listed=False
                )
                for seconds in rechecks
            )
        )
        async with (
            client_of(deployment, deployment.services[0]) as writer,
            client_of(deployment, one) as near,
            client_of(deployment, other) as far,
            client_of(deployment, control) as forgotten,
        ):
            log_id = await writer.create_log("watched")
            answers = start_waiting(near, log_id, 500) + start_waiting(far, log_id, 500)
            asleep = start_waiting(forgotten, log_id, 20)
            for service, count in ((one, 500), (other, 500), (control, 20)):
                await until_waiting(service, count)
            await update(writer, log_id)
            await expect_update(answers, within_seconds=6.0)
            assert wire.hints_lost >= 3, "the hints were not suppressed"
            assert await waiters_of(control) == 20, "the rechecks had no part in it"
            for task in asleep:
                task.cancel()


async def test_a_version_that_appears_between_read_and_sleep_is_not_slept_through(
    deploy: StartDeployment,
) -> None:
    """The race is forced: the waiter has read and registered, its subscription is on its
    way, and the version appears. No hint can come any more, and no recheck within a minute."""
    deployment = await deploy(processes=1)
    async with FaultProxy(deployment.engine.socket, random.Random(3)) as wire:
        racing = await deployment.start_service(
            *("--recheck-seconds", "60"), store_url=wire.url, listed=False
        )
        async with (
            client_of(deployment, deployment.services[0]) as writer,
            client_of(deployment, racing) as waiter,
        ):
            log_id = await writer.create_log("watched")
            wire.subscriptions.clear()
            answers = start_waiting(waiter, log_id, 1)
            await until_waiting(racing, 1)
            await update(writer, log_id)
            wire.subscriptions.set()
            await expect_update(answers, within_seconds=5.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Far:
    """A log's writer; and who waits for it, at a process whose `wire` to the store can fail."""

    deployment: Deployment
    service: Service
    wire: FaultProxy
    writer: NativeApi
    http: aiohttp.ClientSession
    log_id: bytes

    def waits(self, seconds: int) -> list[Coroutine[Any, Any, tuple[int, str | None]]]:
        return waits_on(self.deployment, self.http, self.log_id, seconds)


@asynccontextmanager
async def far_from_the_store(deployment: Deployment, *arguments: str) -> AsyncIterator[Far]:
    async with FaultProxy(deployment.engine.socket, random.Random(4)) as wire:
        service = await deployment.start_service(*arguments, store_url=wire.url, listed=False)
        headers = {"Authorization": f"Bearer {deployment.apikey}"}
        async with (
            client_of(deployment, deployment.services[0]) as writer,
            aiohttp.ClientSession(service.url, headers=headers) as http,
        ):
            yield Far(
                deployment=deployment,
                service=service,
                wire=wire,
                writer=writer,
                http=http,
                log_id=await writer.create_log("watched"),
            )


async def test_nothing_new_is_not_said_of_a_log_that_may_have_moved(
    deploy: StartDeployment,
) -> None:
    """A version is acknowledged in time, but its hint is cut off, and the store with it."""
    async with far_from_the_store(await deploy(processes=1)) as far:
        waits = [asyncio.create_task(each) for each in far.waits(3)]
        await until_waiting(far.service, len(waits))
        far.wire.cut_share = 1.0
        await update(far.writer, far.log_id)
        for status, retry_after in await asyncio.gather(*waits):
            assert (status, retry_after) == (503, "1")
        assert far.wire.cuts, "the hint was not suppressed"

        far.wire.cut_share = 0.0  # and who asks again is told

        async def told() -> bool:
            again = await asyncio.gather(*far.waits(0))
            return [status for status, _ in again] == [200] * len(again)

        await until(told, within_seconds=20)


async def test_nothing_new_is_not_said_while_the_store_is_silent(
    deploy: StartDeployment,
) -> None:
    """Every connection is open, and nothing comes through; no recheck has noticed it yet."""
    slow = ("--recheck-seconds", "60", "--store-seconds", "1")
    async with far_from_the_store(await deploy(processes=1), *slow) as far:
        first = await asyncio.gather(*far.waits(1))
        assert sorted(status for status, _ in first) == [200, 200, 204]  # the control
        waits = [asyncio.create_task(each) for each in far.waits(3)]
        await until_waiting(far.service, len(waits))
        far.wire.delay_seconds = 120.0
        await update(far.writer, far.log_id)
        assert await asyncio.gather(*waits) == [(503, "1")] * len(waits)


def waits_on(
    deployment: Deployment, http: aiohttp.ClientSession, log_id: bytes, seconds: int
) -> list[Coroutine[Any, Any, tuple[int, str | None]]]:
    """One of each kind for the log's first version: status and Retry-After."""

    async def answered(method: str, path: str, body: Any = None) -> tuple[int, str | None]:
        async with http.request(method, path, json=body) as answer:
            return answer.status, answer.headers.get("Retry-After")

    authinfo = {"customer_id": deployment.tenant_id, "apikey": deployment.apikey}
    original = {"authinfo": authinfo, "logName": "watched", "waitSeconds": seconds}
    watched = {"log_id": base64.b64encode(log_id).decode(), "version": 0}
    return [
        answered("GET", f"/v2/logs/{to_base64url(log_id)}/diff?from=0&wait={seconds}"),
        answered("POST", "/v1/log/diff", original),
        answered("POST", "/v2/wait", {"logs": [watched], "wait": seconds}),
    ]


async def test_waiters_are_freed_when_their_clients_leave(deploy: StartDeployment) -> None:
    deployment = await deploy(processes=1)
    (service,) = deployment.services
    async with client_of(deployment, service) as client:
        log_id = await client.create_log("watched")
        answers = start_waiting(client, log_id, 50)
        await until_waiting(service, 50)
        for task in answers:
            task.cancel()
        await until_waiting(service, 0, within_seconds=2.0)


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def end(service: Service) -> float:
    """SIGTERM; the seconds until the process was gone, which it left with 0."""
    began = time.monotonic()
    assert await asyncio.to_thread(service.terminate) == 0
    return time.monotonic() - began


async def test_an_end_answers_every_waiter_and_breaks_none(deploy: StartDeployment) -> None:
    deployment = await deploy(processes=1)
    (service,) = deployment.services
    async with client_of(deployment, service) as client:
        log_id = await client.create_log("watched")
        answers = start_waiting(client, log_id, 200)
        await until_waiting(service, 200)
        assert await end(service) < END_SECONDS
        assert await nothing_new(answers) == 200


async def test_an_end_needs_no_store(deploy: StartDeployment) -> None:
    deployment = await deploy(processes=1)
    (service,) = deployment.services
    async with client_of(deployment, service) as client:
        log_id = await client.create_log("watched")
        answers = start_waiting(client, log_id, 200)
        await until_waiting(service, 200)
        with frozen(deployment.engine.pid):
            commit = asyncio.create_task(update(client, log_id))
            # These still ask the store for the head.
            late = [
                asyncio.create_task(client.wait(log_id, 0, wait_seconds=WAIT_SECONDS))
                for _ in range(20)
            ]
            await asyncio.sleep(0.1)
            assert await end(service) < END_SECONDS
            assert await nothing_new(answers) == 200
            # Not sent while every connection waits for the store; else nobody can know.
            with pytest.raises((InDoubt, NotDone), match=r"503 OUTCOME_UNKNOWN|^OVERLOADED$"):
                await commit
            for outcome in await asyncio.gather(*late, return_exceptions=True):
                assert not isinstance(outcome, InDoubt), "a connection was broken"
    if isinstance(commit.exception(), NotDone):
        async with Redis.from_url(deployment.engine.url) as store:
            assert await store.xlen(keys.of_log(LogId(log_id)).commits) == 0


async def nothing_new(answers: Sequence["asyncio.Task[DiffAnswer | None]"]) -> int:
    """How many were told that nothing is new; a broken connection raises."""
    return (await asyncio.gather(*answers)).count(None)

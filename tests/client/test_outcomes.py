"""Commits whose answers are lost: they enter once, and their outcome becomes known."""

import asyncio
import pickle
import time
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from indelible import (
    AsyncLog,
    Commit,
    ConflictError,
    ErrorCode,
    IndelibleError,
    Insert,
    NotFoundError,
    OutcomeUnknownError,
    Profile,
    RequestError,
    UnavailableError,
    Upsert,
)
from indelible_protocol import limits

from tests.client.conftest import OpenClient, profile_of
from tests.client.wire import Wire
from tests.support.polling import until
from tests.support.service import Service

KEY = bytes(range(32))


@pytest.fixture
async def wire(service: Service) -> AsyncIterator[Wire]:
    async with Wire(service.url) as wire:
        yield wire


@pytest.fixture
def wired(service: Service, wire: Wire) -> Profile:
    return profile_of(service, master_key=KEY, url=wire.url)


@pytest.fixture
async def log(open_client: OpenClient, wired: Profile) -> AsyncLog:
    """A log behind the wire, whose calls give up after 1.5 s."""
    return await open_client(wired, timeout_seconds=1.5).log("config", create=True)


@pytest.fixture
async def direct(open_client: OpenClient, service: Service, log: AsyncLog) -> AsyncLog:
    """The same log with nothing between."""
    return await open_client(profile_of(service, master_key=KEY)).log("config")


async def versions_of(log: AsyncLog) -> list[int]:
    return [version.version async for version in log.versions() if version.version]


async def test_an_answer_cut_at_any_byte_leaves_one_commit(
    open_client: OpenClient, wired: Profile, wire: Wire
) -> None:
    log = await open_client(wired).log("config", create=True)
    cuts = [*range(0, 240, 24), 300, 340, 10_000]
    for version, cut_at in enumerate(cuts, 1):
        wire.cut_at, wire.lose_answers = cut_at, 1
        done = await log.set("a", version)
        assert done == Commit(version=version, changed=True)
        assert wire.lose_answers == 0
    assert await versions_of(log) == list(range(len(cuts), 0, -1))


async def test_many_commits_over_a_wire_that_cuts_one_answer_in_three(
    open_client: OpenClient, wired: Profile, wire: Wire
) -> None:
    log = await open_client(wired).log("config", create=True)

    async def write(n: int) -> Commit:
        if n % 3 == 0:
            wire.lose_answers += 1
        return await log.set(f"key-{n}", n)

    done = await asyncio.gather(*[write(n) for n in range(60)])
    wire.lose_answers = 0
    assert sorted(commit.version for commit in done) == list(range(1, 61))
    assert len(await versions_of(log)) == 60


async def test_a_commit_that_found_no_answer_is_settled_later(
    log: AsyncLog, direct: AsyncLog, wire: Wire
) -> None:
    wire.lose_answers = 1_000
    with pytest.raises(OutcomeUnknownError) as caught:
        await log.set("a", 1)
    assert caught.value.code is ErrorCode.OUTCOME_UNKNOWN
    assert await direct.get("a") == 1  # it was in all the time
    await direct.set("a", 2)
    wire.lose_answers = 0
    commit_id = caught.value.commit_id
    assert await log.settle(commit_id) == Commit(version=1, changed=True)
    assert await log.settle(commit_id) == Commit(version=1, changed=True)
    assert await direct.get("a") == 2
    assert await versions_of(direct) == [2, 1]


async def test_a_commit_that_never_arrived_enters_when_it_is_settled(
    log: AsyncLog, direct: AsyncLog, wire: Wire
) -> None:
    wire.swallow = True
    with pytest.raises(OutcomeUnknownError) as caught:
        await log.set("a", 1)
    wire.swallow = False
    await wire.cut()
    assert await direct.get("a") is None
    assert await log.settle(caught.value.commit_id) == Commit(version=1, changed=True)
    assert await direct.get("a") == 1


async def test_another_process_settles_with_what_the_error_holds(
    log: AsyncLog, direct: AsyncLog, wire: Wire
) -> None:
    wire.lose_answers = 1_000
    with pytest.raises(OutcomeUnknownError) as caught:
        await log.update([Upsert("a", "canary"), Upsert("b", 2)], source="canary")
    kept = pickle.dumps(caught.value)
    assert b"canary" not in kept
    error: OutcomeUnknownError = pickle.loads(kept)
    assert error.commit_id == caught.value.commit_id
    assert str(error.commit_id) in str(error)
    assert await direct.settle(error.commit_id) == Commit(version=1, changed=True)


async def test_settling_tells_a_conflict_and_then_it_is_certain(
    log: AsyncLog, direct: AsyncLog, wire: Wire
) -> None:
    wire.swallow = True
    with pytest.raises(OutcomeUnknownError) as caught:
        await log.update([Insert("a", 1)])
    wire.swallow = False
    await wire.cut()
    await direct.set("a", 2)
    for _ in range(2):
        with pytest.raises((ConflictError, OutcomeUnknownError)) as settled:
            await log.settle(caught.value.commit_id)
        if isinstance(settled.value, OutcomeUnknownError):
            assert "IDEMPOTENCY_EXPIRED" in str(settled.value)  # the fence is behind it now
    await direct.delete("a")
    with pytest.raises(OutcomeUnknownError):
        await log.settle(caught.value.commit_id)
    assert await direct.get("a") is None


async def test_a_rejection_after_a_lost_send_is_final_though_the_send_arrives_late(
    log: AsyncLog, direct: AsyncLog, wire: Wire
) -> None:
    """The first copy is still on its way when the second is refused; then it could be taken."""
    wire.divert = True
    commit = asyncio.create_task(log.set("a", 1, expect_version=1))
    await until(lambda: bool(wire.diverted))
    wire.divert = False
    with pytest.raises(ConflictError) as caught:
        await commit
    assert caught.value.code is ErrorCode.UNEXPECTED_VERSION
    assert await direct.set("b", 1) == Commit(version=1, changed=True)
    assert b" 409 " in await wire.deliver()
    assert await direct.get("a") is None
    assert await direct.version == 1


async def test_a_chain_in_doubt_is_not_used_again(
    log: AsyncLog, direct: AsyncLog, wire: Wire
) -> None:
    wire.lose_answers = 1_000
    with pytest.raises(OutcomeUnknownError) as caught:
        await log.set("a", 1)
    wire.lose_answers = 0
    assert await log.set("b", 2) == Commit(version=2, changed=True)
    assert await log.settle(caught.value.commit_id) == Commit(version=1, changed=True)


async def test_nothing_is_unknown_when_nothing_was_sent(
    open_client: OpenClient, service: Service
) -> None:
    async with Wire(service.url) as wire:
        wired = profile_of(service, url=wire.url)
        log = await open_client(wired, timeout_seconds=0.5).log("config", create=True)
    with suppress(IndelibleError):
        await log.get("a")  # finds that the open connection is gone
    with pytest.raises(UnavailableError, match="no connection") as caught:
        await log.set("a", 1)
    assert not caught.value.may_have_applied


async def test_reads_are_asked_again_until_they_are_answered(log: AsyncLog, wire: Wire) -> None:
    await log.set("a", 1)
    for read in (log.get("a"), log.get_many(["a"]), log.describe(), anext(aiter(log))):
        wire.lose_answers = 2
        assert await read
        assert wire.lose_answers == 0
    wire.swallow = True
    started = time.monotonic()
    with pytest.raises(UnavailableError):
        await log.get("a")
    assert 1.0 < time.monotonic() - started < 8.0


@pytest.mark.parametrize("lost", [1, 2])
async def test_making_and_dropping_survive_lost_answers(
    open_client: OpenClient, wired: Profile, wire: Wire, lost: int
) -> None:
    client = open_client(wired)
    wire.lose_answers = lost
    log = await client.log("one", create=True)
    await log.set("a", 1)
    wire.lose_answers = lost
    await log.drop()
    assert wire.lose_answers == 0
    with pytest.raises(NotFoundError):
        await client.log("one")


async def test_another_logs_commit_cannot_be_settled_here(
    open_client: OpenClient, log: AsyncLog, wire: Wire, wired: Profile
) -> None:
    other = await open_client(wired).log("other", create=True)
    wire.lose_answers = 1_000
    with pytest.raises(OutcomeUnknownError) as caught:
        await log.set("a", 1)
    with pytest.raises(RequestError, match="another log"):
        await other.settle(caught.value.commit_id)
    wire.lose_answers = 0


async def test_no_more_than_sixteen_commits_of_a_handle_are_under_way(
    log: AsyncLog, wire: Wire
) -> None:
    wire.swallow = True
    before = wire.requests
    tasks = [asyncio.create_task(log.set(f"key-{n}", n)) for n in range(50)]
    await until(lambda: wire.requests - before >= 16)
    await asyncio.sleep(0.1)
    assert wire.requests - before == 16
    assert limits.MAX_COMMANDS > 16
    wire.swallow = False
    await wire.cut()
    done = await asyncio.gather(*tasks)
    assert sorted(commit.version for commit in done) == list(range(1, 51))


async def test_a_cancelled_commit_leaves_the_log_usable(log: AsyncLog, wire: Wire) -> None:
    wire.swallow = True
    before = wire.requests
    task = asyncio.create_task(log.set("a", 1))
    await until(lambda: wire.requests > before)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    wire.swallow = False
    await wire.cut()
    assert (await log.set("b", 1)).changed


async def test_a_commit_under_way_when_the_client_is_closed_is_not_called_refused(
    open_client: OpenClient, wired: Profile, direct: AsyncLog, wire: Wire
) -> None:
    client = open_client(wired)
    log = await client.log("config")
    wire.swallow = True
    before = wire.requests
    task = asyncio.create_task(log.set("a", 1))
    await until(lambda: wire.requests > before)
    await client.close()
    with pytest.raises(OutcomeUnknownError) as caught:
        await task
    assert (await direct.settle(caught.value.commit_id)).changed


async def test_waiting_for_a_chain_ends_with_the_calls_deadline(log: AsyncLog, wire: Wire) -> None:
    wire.swallow = True

    async def seconds_of(n: int) -> tuple[float, BaseException]:
        started = time.monotonic()
        with pytest.raises(IndelibleError) as caught:
            await log.set(f"key-{n}", n)
        return time.monotonic() - started, caught.value

    outcomes = await asyncio.gather(*[seconds_of(n) for n in range(40)])
    assert max(seconds for seconds, _ in outcomes) < 4.0  # a third round would end at 4.5
    kinds = [type(error) for _, error in outcomes]
    assert kinds.count(OutcomeUnknownError) >= 16
    assert kinds.count(OutcomeUnknownError) + kinds.count(UnavailableError) == 40
    wire.swallow = False
    await wire.cut()

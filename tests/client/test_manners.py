"""What the client leaves to others: their turn on the loop, and silence in their logs."""

import asyncio
import logging
import time

import pytest
from indelible import Insert, OutcomeUnknownError, Upsert
from indelible.codec import TURN_SECONDS, in_turns

from tests.client.conftest import OpenClient, profile_of
from tests.client.wire import Wire
from tests.support.service import Service


async def test_long_work_gives_way_to_other_tasks() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    def work(item: int) -> int:
        ends = time.perf_counter() + TURN_SECONDS / 2
        while time.perf_counter() < ends:
            pass
        return item * 2

    task = asyncio.create_task(other())
    assert await in_turns(range(40), work) == [item * 2 for item in range(40)]
    assert turns >= 12
    task.cancel()


async def test_nothing_that_is_secret_is_logged(
    open_client: OpenClient, service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    """Over lost answers, conflicts and outcomes that stay unknown."""
    caplog.set_level(logging.DEBUG)
    async with Wire(service.url) as wire:
        profile = profile_of(service, url=wire.url)
        client = open_client(profile, timeout_seconds=1.0)
        log = await client.log("canary-name", create=True)
        wire.lose_answers = 2
        await log.update([Upsert("canary-key", "canary-value")], source="canary-source")
        wire.lose_answers = 1
        with pytest.raises(Exception, match="UNEXPECTED_VALUE"):
            await log.update([Insert("canary-key", "canary-other")])
        wire.lose_answers = 1_000
        with pytest.raises(OutcomeUnknownError) as caught:
            await log.set("canary-key", "canary-late")
        wire.lose_answers = 0
        await log.settle(caught.value.commit_id)
    ours = [record for record in caplog.records if record.name == "indelible"]
    assert {record.getMessage().split()[0].rstrip(":") for record in ours} >= {
        "request.retried",
        "commit.fenced",
        "commit.left_unknown",
    }
    said = caplog.text + repr(caught.value) + repr(caught.value.commit_id)
    for secret in ("canary", profile.apikey, profile.master_key_base64):
        assert secret not in said

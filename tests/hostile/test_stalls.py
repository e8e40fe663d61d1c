"""No body holds the event loop for long: 50 ms of processor time a MiB at most."""

import io
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import aiohttp
import pytest
import structlog
from indelible_protocol import limits
from indelible_protocol.ids import to_base64url

from tests.hostile import bodies, v1_bodies
from tests.hostile.bodies import JSON, MSGPACK
from tests.hostile.inside import Watched, watched_service
from tests.support.engines import Engine
from tests.support.service import make_tenant

MAX_SECONDS_PER_MIB = 0.050
TRIES = 3
TRIES = 6  # the best counts: the others may have met a collection of garbage, or a busy cache
SIZE = limits.MAX_V1_BODY_BYTES - 1_000
SECRET = b"s" * 32


@contextmanager
def quiet_logs() -> Iterator[None]:
    """The server's lines go nowhere: writing them is not what is measured."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    yield
    structlog.reset_defaults()


@pytest.fixture
async def watched(engine: Engine) -> AsyncIterator[Watched]:
    with quiet_logs(), watched_service(engine.url, SECRET) as service:
        yield service


async def held_seconds(
    watched: Watched, http: aiohttp.ClientSession, path: str, body: bytes, form: str
) -> float:
    """The best of a few tries, or the first that is good enough."""
    best = 1e9
    for _ in range(TRIES):
        with watched.watch():
            async with http.post(
                path, data=io.BytesIO(body), headers={"Content-Type": form}
            ) as answer:
                assert 400 <= answer.status < 500, await answer.text()
        best = min(best, watched.held_seconds)
        if best <= MAX_SECONDS_PER_MIB * len(body) / 2**20:
            break
    return best


async def test_no_large_body_holds_the_event_loop(engine: Engine, watched: Watched) -> None:
    customer_id, apikey = await make_tenant(engine.url, SECRET)
    slow: dict[str, float] = {}
    seen = 0.0
    headers = {"Authorization": f"Bearer {apikey}"}
    async with aiohttp.ClientSession(watched.url, headers=headers) as http:
        async with http.put("/v2/names/dmlzaXRz?kind=opaque", json={}) as answer:
            log_id = (await answer.json())["description"]["log_id"]
        log = "/v2/logs/" + log_id.rstrip("=").replace("+", "-").replace("/", "_")
        paths = {"upsert": f"{log}/commits", "keys": f"{log}/entries:batchGet", "wait": "/v2/wait"}
        sent = [
            (f"{where}: {what}", paths[where.split()[0]], body, where.split()[1])
            for where, what, body in bodies.large(SIZE)
        ]
        header = v1_bodies.header(customer_id, apikey)
        sent += [
            (f"v1: {what}", "/v1/log/update", body, "json")
            for what, body in v1_bodies.large(header, SIZE)
        ]
        for what, path, body, word in sent:
            form = MSGPACK if word == "msgpack" else JSON
            found = []
            for _ in range(TRIES):  # what holds the loop holds it each time
                held = await held_seconds(watched, http, path, body, form)
                found.append(held * 2**20 / len(body))
                if found[-1] <= MAX_SECONDS_PER_MIB:
                    break
            else:
                slow[what] = round(min(found), 3)
            seen = max(seen, min(found))
    assert not slow
    assert seen > 0.002, "nothing was measured"
    print(f"at most {seen * 1_000:.0f} ms a MiB in {len(sent)} bodies")


async def test_a_loop_that_is_held_is_seen(engine: Engine, watched: Watched) -> None:
    with watched.watch():
        watched.hold(0.1)
        async with (
            aiohttp.ClientSession(watched.url) as http,
            http.get(f"/v2/logs/{to_base64url(os.urandom(32))}") as answer,
        ):
            assert answer.status == 401
    assert watched.held_seconds >= 0.1

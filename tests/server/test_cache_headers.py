"""What caches are told of diffs, and what the next question of a follower is."""

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from indelible_server.api.cache_headers import (
    INTERVAL_SECONDS,
    Kind,
    cache_control,
    is_known,
    next_interval,
)

from tests.process.test_waiting import until_waiting
from tests.server.test_service import code_of, make_log, session, upsert
from tests.support.service import Service, StartService, make_tenant, store_of

VARY = "Accept, Authorization, Content-Type, Indelible-Database"


@given(
    asked=st.integers(0, 2**53 - 1),
    now_seconds=st.floats(0, 1e11),
    draw=st.floats(0, 1, exclude_max=True),
)
def test_an_interval_never_falls_and_stands_still_only_beside_news(
    asked: int, now_seconds: float, draw: float
) -> None:
    current = int(now_seconds // INTERVAL_SECONDS)
    quiet = next_interval(asked, now_seconds, moved=False, draw=draw)
    assert asked < quiet <= max(asked + 3, current)
    moved = next_interval(asked, now_seconds, moved=True, draw=draw)
    assert moved == max(asked, current)


@pytest.mark.parametrize(
    ("kind", "alone", "shared"),
    [
        (
            "fixed",
            "private, max-age=31536000, immutable",
            "s-maxage=60, max-age=31536000, immutable",
        ),
        ("moved", "private, max-age=20", "s-maxage=20, max-age=20"),
        ("quiet", "private, max-age=2", "s-maxage=2, max-age=2"),
        ("current", "private, no-cache", "private, no-cache"),
        ("passing", "no-store", "no-store"),
    ],
)
def test_nothing_is_shared_unless_it_is_switched_on(kind: Kind, alone: str, shared: str) -> None:
    assert cache_control(kind, shared=False) == alone
    assert cache_control(kind, shared=True) == shared


@pytest.mark.parametrize(
    ("told", "known"),
    [
        ([], False),
        (['"a"'], True),
        (['W/"a"'], True),
        (['"b", "a"'], True),
        (['"b"', '"a"'], True),
        (["*"], True),
        (['"A"'], False),
        (["a"], False),
    ],
)
def test_a_tag_is_known_however_it_is_listed(told: list[str], known: bool) -> None:
    assert is_known('"a"', told) == known


async def headers_of(http: aiohttp.ClientSession, url: str, **headers: str) -> tuple[int, Any]:
    async with http.get(url, headers=headers) as answer:
        assert (await answer.read() == b"") == (answer.status in (204, 304))
        return answer.status, answer.headers


async def test_every_form_of_a_diff_says_how_long_it_holds(service: Service) -> None:
    async with session(service) as http:
        log = await make_log(http)
        await upsert(http, log, "a", "1")
        await upsert(http, log, "b", "1")
        async with http.get(f"{log}/diff?from=0&limit=1") as first:
            cursor = (await first.json())["cursor"]
        year = "private, max-age=31536000, immutable"
        for query, expected in {
            "from=0&to=2": (200, year, None),
            "to=2": (200, year, None),
            "from=2&to=0": (200, year, None),
            f"cursor={cursor}": (200, year, None),
            "from=0": (200, "private, no-cache", None),
            "from=0&wait=1": (200, "private, no-cache", None),
            "from=2&wait=0.05": (204, "no-store", None),
            "from=0&interval=0": (200, "private, max-age=20", "now"),
            "from=0&interval=9007199254740991": (200, "private, max-age=20", 9007199254740991),
            "from=2&interval=0": (200, "private, max-age=2", "now"),
            "from=2&interval=0&wait=0.05": (204, "private, max-age=2", "now"),
            "from=0&interval=0&to=2": (200, year, "now"),
        }.items():
            status, headers = await headers_of(http, f"{log}/diff?{query}")
            told = headers.get("Indelible-Interval")
            assert (status, headers["Cache-Control"]) == expected[:2], query
            assert headers["Vary"] == VARY
            assert ("ETag" in headers) == (status == 200)
            if expected[2] == "now":
                assert int(told) > 1_700_000_000 // INTERVAL_SECONDS
            else:
                assert told == (None if expected[2] is None else str(expected[2]))
        for query in ("from=3", "from=0&interval=-1", "from=0&interval=x"):
            status, headers = await headers_of(http, f"{log}/diff?{query}")
            assert status in (400, 404)
            assert headers["Cache-Control"] == "no-store", "a problem is of this moment"


async def test_a_tag_that_is_still_right_is_answered_without_the_bytes(service: Service) -> None:
    async with session(service) as http:
        log = await make_log(http)
        await upsert(http, log, "a", "1")
        for query in ("from=0&to=1", "from=0", "from=0&interval=7"):
            _, first = await headers_of(http, f"{log}/diff?{query}")
            tag = first["ETag"]
            status, headers = await headers_of(
                http, f"{log}/diff?{query}", **{"If-None-Match": tag}
            )
            assert status == 304
            for name in ("ETag", "Cache-Control", "Vary", "Indelible-Version"):
                assert headers[name] == first[name]
            assert ("Indelible-Interval" in headers) == ("interval" in query)
        tag = (await headers_of(http, f"{log}/diff?from=0"))[1]["ETag"]
        await upsert(http, log, "a", "2")
        again = {"If-None-Match": tag}
        assert (await headers_of(http, f"{log}/diff?from=0", **again))[0] == 200
        assert (await headers_of(http, f"{log}/diff?from=0&to=1", **again))[0] == 304
        assert await code_of(http.get(f"{log}/diff?from=0&to=9", headers=again)) == (
            404,
            "NONEXISTENT_VERSION",
        )


async def test_what_differs_in_bytes_differs_in_its_tag(service: Service) -> None:
    async with session(service) as http:
        log, other = await make_log(http, "one"), await make_log(http, "other")
        for each in (log, other):
            await upsert(http, each, "b", "1")
            await upsert(http, each, "a", "1")
        tags = [
            (await headers_of(http, f"{each}/diff?{query}"))[1]["ETag"]
            for each in (log, other)
            for query in (
                "from=0&to=1", "from=0&to=2", "from=1&to=2", "from=2&to=1", "to=2&order=key",
                "from=0&to=2&limit=1", "from=0&interval=0", "from=0&interval=1",
            )
        ]  # fmt: skip
        packed = {"Accept": "application/msgpack"}
        tags.append((await headers_of(http, f"{log}/diff?from=0&to=1", **packed))[1]["ETag"])
        assert len(set(tags)) == len(tags)
        assert (await headers_of(http, f"{log}/diff?from=0"))[1]["ETag"] == tags[1]


async def test_a_service_that_goes_away_has_no_cache_keep_it(
    start_service: StartService, tmp_path: Path
) -> None:
    data = str(tmp_path / "data")
    service = await asyncio.to_thread(
        start_service, "all", "--data", data, "--shared-caching", "true"
    )
    _, service.apikey = await make_tenant(*await store_of(service))
    async with session(service) as http:
        log = await make_log(http)
        _, headers = await headers_of(http, f"{log}/diff?from=0&interval=0&wait=0.05")
        assert headers["Cache-Control"] == "s-maxage=2, max-age=2"
        asleep = asyncio.create_task(headers_of(http, f"{log}/diff?from=0&interval=0&wait=30"))
        await until_waiting(service, 1)
        service.terminate()
        status, headers = await asleep
        assert (status, headers["Cache-Control"]) == (204, "no-store")
        assert headers["Connection"] == "close"

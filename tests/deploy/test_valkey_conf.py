"""The configuration for an external engine keeps what the service promises, line by line."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from indelible_server.store.durability import read_settings, shortfalls
from redis.asyncio import Redis

from tests.support.engines import Engine, redis_server, start_engine

CONFIGURATION = Path(__file__).parents[2] / "deploy/valkey.conf"
CHECKED = {
    "appendonly": "no",
    "appendfsync": "everysec",
    "no-appendfsync-on-rewrite": "yes",
    "maxmemory-policy": "allkeys-lru",
}
# Where a test's engine lives is the test's business.
PLACES = {"bind", "port", "dir"}
UNITS = {"gb": 1 << 30, "mb": 1 << 20}


def directives(text: str) -> list[tuple[str, str]]:
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(name, value) for name, _, value in (line.partition(" ") for line in lines)]


@asynccontextmanager
async def engine_as_configured(
    directory: Path, text: str | None = None, server: Path | None = None
) -> AsyncIterator[Engine]:
    """An engine that runs with our file, or with `text` in its place."""
    written = directory.with_suffix(".conf")
    # The engine goes there while it reads the line, before its arguments say otherwise.
    place = f'dir "{directory}"'
    written.write_text(re.sub(r"^dir .*$", place, text or CONFIGURATION.read_text(), flags=re.M))
    engine = await start_engine(directory, server=server, config=written)
    try:
        yield engine
    finally:
        await engine.stop()


async def shortfalls_of(engine: Engine) -> tuple[str, ...]:
    async with Redis.from_url(engine.url) as client:
        settings = await read_settings(client)
    return shortfalls(settings.config, settings.info, profile="strict")


@pytest.mark.parametrize("name", ["valkey", "redis"])
async def test_engine_with_our_configuration_is_durable_and_takes_each_line(
    name: str, tmp_path: Path
) -> None:
    server = redis_server() if name == "redis" else None
    if name == "redis" and server is None:
        pytest.skip("no redis-server on PATH, and INDELIBLE_TEST_REDIS_SERVER is unset")
    async with engine_as_configured(tmp_path / "engine", server=server) as engine:
        assert await shortfalls_of(engine) == ()
        async with Redis.from_url(engine.url, decode_responses=True) as client:
            told = await client.config_get("*")
    for directive, value in directives(CONFIGURATION.read_text()):
        if directive not in PLACES:
            assert in_bytes(value) in (told[directive] or "").replace('"', ""), directive


def in_bytes(value: str) -> str:
    """As CONFIG GET tells it: sizes in bytes, no quotes."""
    return re.sub(
        r"\b(\d+)(gb|mb)\b", lambda m: str(int(m[1]) * UNITS[m[2]]), value.replace('"', "")
    )


@pytest.mark.parametrize("weakened", CHECKED)
async def test_configuration_with_one_line_weakened_falls_short_by_that_line(
    weakened: str, tmp_path: Path
) -> None:
    text, count = re.subn(
        rf"^{weakened} .*$",
        f"{weakened} {CHECKED[weakened]}",
        CONFIGURATION.read_text(),
        flags=re.M,
    )
    assert count == 1
    async with engine_as_configured(tmp_path / "engine", text) as engine:
        short = await shortfalls_of(engine)
    assert [reason.split(" is ")[0] for reason in short] == [weakened]


def test_every_line_of_the_configuration_stands_once_and_has_its_reason() -> None:
    text = CONFIGURATION.read_text()
    names = [name for name, _ in directives(text)]
    assert len(names) == len(set(names)) > 15
    for paragraph in text.split("\n\n"):
        lines = paragraph.splitlines()
        assert len(directives(paragraph)) <= 1, paragraph
        assert lines[0].startswith("# "), paragraph
    marked = re.findall(r"^# \[checked\].*\n(?:#.*\n)*(\S+) ", text, flags=re.M)
    assert set(marked) == set(CHECKED)

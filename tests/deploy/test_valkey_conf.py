"""The configuration for an external engine keeps what the service promises, line by line."""

import re
from pathlib import Path

import pytest
from indelible_server.store.durability import read_settings, shortfalls
from redis.asyncio import Redis

from tests.support.engines import redis_server, start_engine

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


async def told_by_engine(
    configuration: str, directory: Path, server: Path | None = None
) -> tuple[tuple[str, ...], dict[str, str]]:
    """What falls short of `strict` on an engine with that text, and all that it is set to."""
    written = directory.with_suffix(".conf")
    # The engine goes there while it reads the line, before its arguments say otherwise.
    written.write_text(re.sub(r"^dir .*$", f'dir "{directory}"', configuration, flags=re.M))
    engine = await start_engine(directory, server=server, config=written)
    try:
        async with Redis.from_url(engine.url, decode_responses=True) as client:
            settings = await read_settings(client)
            short = shortfalls(settings.config, settings.info, profile="strict")
            return short, await client.config_get("*")
    finally:
        await engine.stop()


@pytest.mark.parametrize("name", ["valkey", "redis"])
async def test_engine_with_our_configuration_is_durable_and_takes_each_line(
    name: str, tmp_path: Path
) -> None:
    server = redis_server() if name == "redis" else None
    if name == "redis" and server is None:
        pytest.skip("no redis-server on PATH, and INDELIBLE_TEST_REDIS_SERVER is unset")
    short, told = await told_by_engine(CONFIGURATION.read_text(), tmp_path / "engine", server)
    assert short == ()
    for directive, value in directives(CONFIGURATION.read_text()):
        if directive not in PLACES:
            assert in_bytes(value) in told[directive].replace('"', ""), directive


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
    short, _ = await told_by_engine(text, tmp_path / "engine")
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

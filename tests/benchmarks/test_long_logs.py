"""What the API tells of the logs that reads are measured on is what was written to them.

The logs are made by rule, so what they hold at any version needs no second log to compare with.
"""

import random
from collections.abc import Callable
from typing import NamedTuple

import aiohttp
import msgpack
import pytest
from indelible_protocol import paths
from indelible_protocol.ids import LogId
from indelible_protocol.messages import Form

from tests.benchmarks import building, reading
from tests.benchmarks.reading import HOT, VALUE_BYTES, Logs
from tests.benchmarks.stage import FULL, QUICK, Scale

SEED = 11


class Told(NamedTuple):
    op: str
    key: bytes
    value: bytes
    version: int


class Rule:
    """A log whose versions set one key each: first `cold` keys in turn, then HOT of them again
    and again."""

    def __init__(self, cold: int) -> None:
        self._cold = cold

    def key(self, version: int) -> int:
        over = version - 1 - self._cold
        return over % HOT if over >= 0 else version - 1

    def told(self, op: str, version: int) -> Told:
        key, over = self.key(version), version - 1 - self._cold
        turn, size = (over // HOT % 2, VALUE_BYTES + 1) if over >= 0 else (0, VALUE_BYTES)
        value = (b"%d.%d." % (turn, key)).ljust(size, b"v")
        return Told(op, building.key_of(key), value, version)

    def introduced(self, key: int, at: int) -> int:
        """The version that brought what the key holds at version `at`; 0 if it holds nothing."""
        if key < HOT and at > self._cold + key:
            return at - (at - 1 - self._cold - key) % HOT
        return key + 1 if key < at else 0

    def diff(self, low: int, high: int) -> list[Told]:
        """In the order of commands, there or back."""
        first, last = sorted((low, high))
        gone, came = ("remove", "add") if low <= high else ("add", "remove")
        found: list[Told] = []
        for version in self._last_of_each_key(first, last):
            before = self.introduced(self.key(version), first)
            sides = [self.told(gone, before)] if before else []
            sides.append(self.told(came, version))
            found += sorted(sides, key=lambda side: side.op == "add")
        return found

    def _last_of_each_key(self, first: int, last: int) -> list[int]:
        begin = max(first, last - HOT, self._cold)
        over = [v for v in range(begin + 1, last + 1) if v > self._cold]
        again = {self.key(version) for version in over}
        once = range(first + 1, min(last, self._cold) + 1)
        return [v for v in once if self.key(v) not in again] + over


async def _asked(
    session: aiohttp.ClientSession, logs: Logs, log_id: LogId, low: int, high: int
) -> list[Told]:
    async with session.get(
        logs.stand.api.url + paths.of_log(paths.DIFF, log_id),
        params={"from": str(low), "to": str(high), "limit": "0"},
    ) as response:
        assert response.status == 200, await response.text()
        unpacker = msgpack.Unpacker(max_buffer_size=0)
        unpacker.feed(await response.read())
    found: list[Told] = []
    for page in unpacker:
        assert (page["from"], page["to"]) == (low, high)
        found += [Told(*(each[field] for field in Told._fields)) for each in page["changes"]]
    assert page["cursor"] is None, "cut off"
    return found


Pair = Callable[[random.Random, int], tuple[int, int]]


def anywhere(draw: random.Random, versions: int) -> tuple[int, int]:
    return draw.randint(0, versions), draw.randint(0, versions)


def near(draw: random.Random, versions: int) -> tuple[int, int]:
    low = draw.randint(0, versions)
    return low, min(versions, low + draw.randint(0, 2_000))


def from_nothing(draw: random.Random, versions: int) -> tuple[int, int]:
    return 0, draw.randint(0, versions)


async def compare(scale: Scale, counts: dict[str, dict[Pair, int]]) -> int:
    """How many diffs were asked for and as they should be."""
    draw = random.Random(SEED)
    compared = 0
    async with reading.grown(scale) as logs:
        await reading.materialize(logs)
        rules = {"long": Rule(logs.keys), "live": Rule(logs.versions)}
        headers = {
            "Authorization": f"Bearer {logs.stand.apikey}",
            "Accept": Form.MSGPACK.value,
        }
        async with aiohttp.ClientSession(headers=headers) as session:
            for name, pairs in counts.items():
                for pair, count in pairs.items():
                    for _ in range(count):
                        low, high = pair(draw, logs.versions)
                        told = await _asked(session, logs, getattr(logs, name), low, high)
                        assert told == rules[name].diff(low, high), (name, low, high)
                        compared += 1
    return compared


async def test_logs_made_for_reads_are_told_as_they_were_made() -> None:
    few: dict[Pair, int] = {anywhere: 20, near: 10, from_nothing: 5}
    assert await compare(QUICK, {"long": few, "live": few}) == 70


@pytest.mark.torture
@pytest.mark.timeout(1_800)
async def test_a_thousand_diffs_of_a_million_versions_and_of_a_million_entries() -> None:
    compared = await compare(
        FULL,
        {
            "long": {anywhere: 600, near: 200, from_nothing: 20},
            "live": {anywhere: 10, near: 165, from_nothing: 5},
        },
    )
    assert compared == 1_000

"""Diffs of a log with a history, through the wire: the net, its order, and its pages."""

import random
import time
from collections.abc import Iterator
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pytest
from indelible.v1 import ApiErrorException, Cmd, Log, profileFromJson

VERSIONS = 12
KEYS = [f"key {i}" for i in range(9)]
PAIRS = [(0, VERSIONS), (0, 5), (3, 9), (11, 12), (9, 3), (12, 0), (7, 7)]

Contents = dict[str, tuple[str, int]]  # key → value, introducing version
Told = tuple[str, str, str, int]  # side, key, value, introducing version


class Written:
    """A log and what it holds at each version."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.contents: list[Contents] = [{}]
        # For each version, key → index of the command that last changed it.
        self.last_commands: list[dict[str, int]] = [{}]

    def update(self, sets: list[tuple[str, str | None]]) -> None:
        """One version: each key in turn set to its value, or removed (None)."""
        version = len(self.contents)
        before = self.contents[-1]
        after = dict(before)
        commands: list[Any] = []
        last: dict[str, int] = {}
        for index, (key, value) in enumerate(sets):
            if value is None:
                commands.append(Cmd.Remove(key, after.pop(key, ("", 0))[0]))
            else:
                commands.append(Cmd.Upsert(key, value))
                after[key] = (value, version)
            last[key] = index
        for key in list(last):
            if after.get(key, ("",))[0] == before.get(key, ("",))[0]:
                after |= {key: before[key]} if key in before else {}
                del last[key]
        self.log.update(commands)
        self.contents.append(after)
        self.last_commands.append(last)

    def net(self, start: int, end: int) -> dict[str, list[Told]]:
        """Key → its changes."""
        net: dict[str, list[Told]] = {}
        gone, come = self.contents[start], self.contents[end]
        for side, entries, others in (("Remove", gone, come), ("Add", come, gone)):
            for key, entry in entries.items():
                if others.get(key) != entry:
                    net.setdefault(key, []).append((side, key, *entry))
        return net

    def last_changed(self, start: int, end: int, key: str) -> tuple[int, int]:
        """Version and index of the command that last changed the key in the range."""
        low, high = sorted((start, end))
        version = max(v for v in range(low + 1, high + 1) if key in self.last_commands[v])
        return version, self.last_commands[version][key]

    def expected(self, start: int, end: int, order: str) -> list[Told]:
        net = self.net(start, end)
        if order == "key":
            keys = sorted(net)
        else:
            keys = sorted(net, key=lambda key: self.last_changed(start, end, key))
        return [told for key in keys for told in net[key]]


@pytest.fixture
def written(profile: Path, log_name: str) -> Written:
    log = Log(
        log_name,
        profileFromJson(profile.read_text()),
        key_mode="string",
        value_mode="string",
        encrypt=False,
    )
    log.create()
    written = Written(log)
    rng = random.Random(7)
    while len(written.contents) <= VERSIONS:
        keys = rng.sample(KEYS, rng.randrange(1, 6))
        values = [rng.choice(["A", "B", "C", None]) for _ in keys]
        before = written.contents[-1]
        if any(before.get(k, (None,))[0] != v for k, v in zip(keys, values, strict=True)):
            written.update(list(zip(keys, values, strict=True)))
    return written


def told(page: dict[str, Any]) -> list[Told]:
    return [
        (c["change"], c["entry"]["key"], c["entry"]["value"], c["version"]) for c in page["page"]
    ]


def pages(
    log: Log, start: int, end: int | None, *, order: str | None, limit: int
) -> Iterator[dict[str, Any]]:
    options = None
    while True:
        page = log.diff_page(start, end, None, order, limit, options)
        yield page
        options = page["nextPageOptions"]
        if options is None:
            return
        end, order = page["toVersion"], None


def test_every_diff_is_the_net_in_order_whatever_the_page_size(written: Written) -> None:
    assert written.log.version_diff().to_version == VERSIONS
    for (start, end), order in product(PAIRS, ("command", "key")):
        expected = written.expected(start, end, order)
        for limit in (1, 4, 50):
            found = list(pages(written.log, start, end, order=order, limit=limit))
            assert [one for page in found for one in told(page)] == expected
            assert {(page["fromVersion"], page["toVersion"]) for page in found} == {(start, end)}
            assert all(len(page["page"]) == limit for page in found[:-1])


def test_options_tell_the_change_that_the_next_page_begins_with(written: Written) -> None:
    start, end = 3, 9
    for order in ("command", "key"):
        found = list(pages(written.log, start, end, order=order, limit=1))
        for page, following in pairwise(found):
            ((side, key, _, _),) = told(following)
            by_key = order == "key"
            command = (None, None) if by_key else written.last_changed(start, end, key)
            assert page["nextPageOptions"] == {
                "skipToKey": key if by_key else None,
                "removeAlreadySeen": side == "Add",
                "skipToVersion": command[0],
                "skipToCommand": command[1],
            }


def test_page_of_nothing_leads_to_the_first(written: Written) -> None:
    for order in ("command", "key"):
        nothing = written.log.diff_page(0, order_results_by=order, limit=0)
        assert nothing["page"] == []
        assert nothing["nextPageOptions"]["removeAlreadySeen"] is True
        rest = written.log.diff_page(0, VERSIONS, pagination_options=nothing["nextPageOptions"])
        assert told(rest) == written.expected(0, VERSIONS, order)


def test_one_key_is_looked_up_at_any_version_by_made_up_options(written: Written) -> None:
    for version, key in product(range(VERSIONS + 1), KEYS):
        page = written.log.diff_page(0, version, limit=1, pagination_options={"skipToKey": key})
        not_below = [one for one in written.expected(0, version, "key") if one[1] >= key]
        assert told(page) == not_below[:1]
        entry = written.contents[version].get(key)
        found = [one[2:] for one in told(page) if one[1] == key]
        assert found == ([entry] if entry else [])


@pytest.mark.parametrize("seen", [True, "true"])
def test_remove_already_seen_starts_with_the_add(written: Written, seen: Any) -> None:
    start, end = 3, 9
    replaced = [key for key, sides in written.net(start, end).items() if len(sides) == 2]
    assert replaced
    for key in replaced:
        options = {"skipToKey": key, "removeAlreadySeen": seen}
        page = written.log.diff_page(start, end, limit=1, pagination_options=options)
        assert told(page) == written.net(start, end)[key][1:]


def test_pages_of_an_old_pair_stay_as_they_were_while_the_log_moves_on(written: Written) -> None:
    first = written.log.diff_page(0, limit=2)
    written.update([("key 0", "moved on"), ("new", "moved on")])
    rest = written.log.diff_page(0, first["toVersion"], pagination_options=first["nextPageOptions"])
    assert told(first) + told(rest) == written.expected(0, VERSIONS, "command")


def test_wait_is_for_the_current_version_without_a_target_alone(written: Written) -> None:
    began = time.monotonic()
    behind = written.log.version_diff(VERSIONS - 1, wait_seconds=60)
    assert behind.to_version == VERSIONS
    pinned = written.log.version_diff(VERSIONS, VERSIONS, wait_seconds=60)
    assert (pinned.to_version, list(pinned.changes())) == (VERSIONS, [])
    with pytest.raises(ApiErrorException) as refused:
        written.log.version_diff(VERSIONS + 1, wait_seconds=60)
    assert refused.value.code == "NONEXISTENT_VERSION"
    assert time.monotonic() - began < 30

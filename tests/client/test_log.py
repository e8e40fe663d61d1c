"""A log through both twins, against a real service."""

import asyncio
from typing import Any

import indelible
import pytest
from indelible import (
    AsyncClient,
    AsyncLog,
    Change,
    Commit,
    ConflictError,
    Delete,
    DeniedError,
    Entry,
    ErrorCode,
    ExpectAbsent,
    ExpectEntry,
    Insert,
    KeyChange,
    NotFoundError,
    Profile,
    Remove,
    RequestError,
    Update,
    Upsert,
)

from tests.client.conftest import OpenClient, profile_of
from tests.support.service import Service


async def listed(items: Any) -> list[Any]:
    return [item async for item in items]


async def test_the_tour(client: AsyncClient) -> None:
    log = await client.log("config", create=True)
    assert await log.set("theme", "dark") == Commit(version=1, changed=True)
    assert await log.set_many({"a": 1, "b": [2]}) == Commit(version=2, changed=True)
    assert await log.get("theme") == "dark"
    assert await log.get_many(["a", "zz"]) == {"a": 1}
    assert await log.delete("a") == Commit(version=3, changed=True)
    commands = [Upsert("a", 1), Remove("b", [2])]
    done = await log.update(commands, expect_version=3, source="ci")
    assert done == Commit(version=4, changed=True)
    assert await listed(log) == [Entry("theme", "dark", 1), Entry("a", 1, 4)]
    assert await listed(log.at(2)) == [
        Entry("theme", "dark", 1),
        Entry("a", 1, 2),
        Entry("b", [2], 2),
    ]
    assert await listed(log.diff(1, 2)) == [Change("add", "a", 1, 2), Change("add", "b", [2], 2)]
    changes = [
        (change.op, change.value, change.version) for change in await listed(log.history("a"))
    ]
    assert changes == [("set", 1, 4), ("remove", None, 3), ("set", 1, 2)]
    diffs = []
    async for diff in log.follow(after=0, max_wait_seconds=0.1):
        diffs.append(diff)
    assert [(diff.from_version, diff.to_version) for diff in diffs] == [(0, 4)]
    description = await log.describe()
    assert (description.name, description.version, description.entries) == ("config", 4, 2)
    assert [log.name for log in await listed(client.logs())] == ["config"]
    await log.drop()
    with pytest.raises(NotFoundError):
        await client.log("config")


async def test_a_commit_that_changes_nothing_makes_no_version(log: AsyncLog) -> None:
    assert await log.set("a", {"x": 1, "y": 2}) == Commit(1, True)
    assert await log.set("a", {"y": 2, "x": 1}) == Commit(1, False)
    assert await log.update([Remove("a", 1), Delete("b")]) == Commit(1, False)
    assert await log.update([Upsert("b", 1), Delete("b")]) == Commit(1, False)
    assert await log.version == 1


async def test_sets_are_judged_by_what_the_key_holds(log: AsyncLog) -> None:
    await log.update([Insert("a", 1)])
    assert await log.update([Insert("a", 1), Update("a", 1)]) == Commit(1, False)
    with pytest.raises(ConflictError) as caught:
        await log.update([Upsert("x", 1), Insert("a", 2)])
    assert caught.value.code is ErrorCode.UNEXPECTED_VALUE
    assert (caught.value.index, caught.value.current_version) == (1, 1)
    with pytest.raises(ConflictError) as caught:
        await log.update([Update("b", 2)])
    assert caught.value.code is ErrorCode.NONEXISTENT_VALUE
    assert await listed(log) == [Entry("a", 1, 1)]
    assert await log.update([Update("a", 2), Remove("a", 2), Insert("a", 3)]) == Commit(2, True)
    assert await log.get("a") == 3


async def test_expectations_hold_or_conflict(log: AsyncLog) -> None:
    await log.set("a", 1)
    await log.set("b", 1)
    with pytest.raises(ConflictError) as caught:
        await log.set("a", 2, expect_version=1)
    assert caught.value.code is ErrorCode.UNEXPECTED_VERSION
    assert (caught.value.index, caught.value.current_version) == (None, 2)
    assert "UNEXPECTED_VERSION 1003" in str(caught.value)
    assert caught.value.request_id
    with pytest.raises(ConflictError) as caught:
        await log.update([ExpectAbsent("zz"), ExpectAbsent("a"), Upsert("c", 1)])
    assert (caught.value.code, caught.value.index) == (ErrorCode.UNEXPECTED_VALUE, 1)
    with pytest.raises(ConflictError) as caught:
        await log.update([ExpectEntry("a", 2), Upsert("c", 1)])
    assert (caught.value.code, caught.value.index) == (ErrorCode.UNEXPECTED_ENTRY, 0)
    entry = await log.entry("a")
    assert entry == Entry("a", 1, 1)
    done = await log.update(
        [ExpectAbsent("zz"), ExpectEntry("a", entry.version), Upsert("a", 2)], expect_version=2
    )
    assert done == Commit(3, True)


async def test_reads_at_a_version_see_that_version(log: AsyncLog) -> None:
    for value in (1, 2, None):
        await log.set("a", value)
    await log.delete("a")
    assert [await log.get("a", "none", at=at) for at in range(5)] == ["none", 1, 2, None, "none"]
    assert await log.entry("a", at=3) == Entry("a", None, 3)
    assert await log.get("a") is None
    assert await log.get("a", default=7) == 7
    assert await log.get_many(["a"], at=2) == {"a": 2}
    assert await log.get_many([]) == {}
    for read in (
        log.get("a", at=5),
        log.get_many(["a"], at=5),
        listed(log.at(5)),
        listed(log.diff(0, 5)),
    ):
        with pytest.raises(NotFoundError) as caught:
            await read
        assert caught.value.code is ErrorCode.NONEXISTENT_VERSION


async def test_diffs_go_both_ways_and_name_what_was_replaced(log: AsyncLog) -> None:
    await log.set_many({"a": 1, "b": 1})
    await log.update([Upsert("a", 2), Delete("b"), Insert("c", 1)])
    forward = await listed(log.diff(1, 2))
    assert forward == [
        Change("remove", "a", 1, 1),
        Change("add", "a", 2, 2),
        Change("remove", "b", 1, 1),
        Change("add", "c", 1, 2),
    ]
    back = await listed(log.diff(2, 1))
    swapped = {"add": "remove", "remove": "add"}
    assert sorted((swapped[op], *rest) for op, *rest in back) == sorted(tuple(c) for c in forward)
    assert await listed(log.diff(2, 2)) == await listed(log.diff(2)) == []


async def test_views_are_read_again_and_keep_to_their_versions(log: AsyncLog) -> None:
    await log.set("a", 1)
    diff, contents, history = log.diff(0), log.at(1), log.history("a")
    first = [await listed(view) for view in (diff, contents)]
    await log.set("b", 2)
    assert [await listed(view) for view in (diff, contents)] == first
    assert await listed(log) == [Entry("a", 1, 1), Entry("b", 2, 2)]
    assert len(await listed(history)) == len(await listed(history)) == 1


async def test_a_loop_over_a_log_keeps_to_the_version_it_began_with(log: AsyncLog) -> None:
    await log.set_many({f"key-{n}": n for n in range(2_500)})
    seen: list[int] = []
    async for entry in log:
        if not seen:
            await log.set_many({f"key-{n}": -1 for n in range(2_000, 2_500)})
        seen.append(entry.value)
    assert seen == list(range(2_500))


async def test_five_thousand_entries_come_in_pages(log: AsyncLog) -> None:
    items = {f"key-{n:04}": {"n": n} for n in range(5_000)}
    keys = list(items)
    await log.set_many({key: items[key] for key in keys[:4_096]})
    await log.set_many({key: items[key] for key in keys[4_096:]})
    entries = await listed(log)
    assert {entry.key: entry.value for entry in entries} == items
    assert [entry.version for entry in entries] == [1] * 4_096 + [2] * 904
    assert await log.get_many(keys) == items
    assert len(await listed(log.diff(2, 0))) == 5_000
    (diff,) = [diff async for diff in log.follow(after=0, max_wait_seconds=0)]
    assert [change.key for change in diff.changes] == [entry.key for entry in entries]


VALUES: list[Any] = [
    "",
    "\x00",
    "é\u0301🜁\uffff",
    [],
    {},
    {"": None},
    0,
    -0.0,
    10**40,
    "x" * 500_000,
]


async def test_any_value_and_key_comes_back_as_it_was(log: AsyncLog) -> None:
    keys = ["", "\x00", "a\x00b", "é", "e\u0301", "🜁", " ", "k" * 1_024]
    for start in range(0, len(VALUES), len(keys)):
        values = VALUES[start : start + len(keys)]
        given = dict(zip(keys, values, strict=False))
        await log.set_many(given)
        for key, value in given.items():
            found = await log.get(key)
            assert (type(found), repr(found)) == (type(value), repr(value))
    assert {entry.key for entry in await listed(log)} == set(keys)


@pytest.mark.parametrize(
    ("mode", "keys", "value"),
    [
        ("string", ["a", ""], "text"),
        ("json", [["tenant", 7], {"x": 1}, None, 1, 1.0], {"deep": [1, None]}),
        ("msgpack", [b"raw", 1, True, ["x", b"y"]], {1: b"\x00", "t": 2.5}),
        ("binary", [b"", b"\xff\x00"], b"\x00" * 1_000),
    ],
)
async def test_every_mode_for_keys_and_values(
    open_client: OpenClient, mode: Any, keys: list[Any], value: Any
) -> None:
    log = await open_client().log("modes", create=True, key_mode=mode, value_mode=mode)
    await log.update([Upsert(key, value) for key in keys])
    assert (log.key_mode, log.value_mode) == (mode, mode)
    entries = await listed(log)
    assert [entry.key for entry in entries] == keys
    assert [entry.value for entry in entries] == [value] * len(keys)
    again = await open_client().log("modes", key_mode=None, value_mode=None)
    assert [await again.get(key) for key in keys] == [value] * len(keys)


async def test_equal_keys_of_json_are_one_key_whatever_their_order(client: AsyncClient) -> None:
    log = await client.log("json keys", create=True, key_mode="json")
    await log.set({"a": 1, "b": 2}, "first")
    assert await log.get({"b": 2, "a": 1}) == "first"
    assert await log.get_many([("t", 1)]) == {}
    await log.set(["t", 1], "second")
    assert await log.get_many([("t", 1)]) == {("t", 1): "second"}
    with pytest.raises(RequestError, match="tuples"):
        await log.get_many([["t", 1]])


async def test_other_modes_than_the_logs_are_refused_and_both_named(client: AsyncClient) -> None:
    await client.log("m", create=True, value_mode="binary")
    with pytest.raises(RequestError) as caught:
        await client.log("m", key_mode="msgpack")
    for word in ("'string'", "'binary'", "'msgpack'", "'json'"):
        assert word in str(caught.value)
    with pytest.raises(RequestError, match="binary"):
        await client.log("m", create=True)


async def test_names_are_strings_or_lists_of_strings(client: AsyncClient) -> None:
    names: list[Any] = ["a/b", ["a", "b"], ["a/b"], "é🜁"]
    for name in names:
        log = await client.log(name, create=True)
        await log.set("name", list(name))
    assert [each.name for each in await listed(client.logs())] == [
        "a/b",
        ("a", "b"),
        ("a/b",),
        "é🜁",
    ]
    for name in names:
        assert await (await client.log(name)).get("name") == list(name)
    assert (await client.log(("a", "b"))).name == ("a", "b")


async def test_groups_label_and_list_logs(client: AsyncClient) -> None:
    await client.log("one", create=True, group="orders")
    await client.log("two", create=True, group="orders")
    await client.log("three", create=True)
    assert [log.name for log in await listed(client.logs(group="orders"))] == ["one", "two"]
    assert len(await listed(client.logs())) == 3
    assert (await client.log("one")).group == "orders"
    assert (await client.log("one", create=True, group="orders")).group == "orders"
    wrong: list[dict[str, Any]] = [
        {"group": "other"},
        {"group": "other", "create": True},
        {"create": True},
    ]
    for settings in wrong:
        with pytest.raises(ConflictError) as caught:
            await client.log("one", **settings)
        assert caught.value.code is ErrorCode.LOG_EXISTS


async def test_two_clients_of_one_profile_share_a_log(open_client: OpenClient) -> None:
    mine = await open_client().log("shared", create=True)
    theirs = await open_client().log("shared")
    assert theirs.log_id == mine.log_id
    await mine.set("a", 1)
    assert await theirs.get("a") == 1
    assert await theirs.update([Remove("a", 1)]) == Commit(2, True)
    assert await mine.get("a", "gone") == "gone"


async def test_a_race_to_create_has_one_winner(open_client: OpenClient) -> None:
    clients = [open_client() for _ in range(8)]
    logs = await asyncio.gather(*[client.log("race", create=True) for client in clients])
    assert len({log.log_id for log in logs}) == 1
    await asyncio.gather(*[log.set(f"key-{n}", n) for n, log in enumerate(logs)])
    assert sorted([entry.value for entry in await listed(logs[0])]) == list(range(8))


async def test_a_log_that_is_absent_is_not_found_and_not_made(client: AsyncClient) -> None:
    with pytest.raises(NotFoundError, match="create=True") as caught:
        await client.log("absent")
    assert caught.value.code is ErrorCode.NONEXISTENT_LOG
    assert await listed(client.logs()) == []


async def test_another_master_key_finds_no_log_and_cannot_read_its_name(
    open_client: OpenClient, service: Service
) -> None:
    await open_client().log("config", create=True)
    other = open_client(profile_of(service))
    with pytest.raises(NotFoundError):
        await other.log("config")
    (description,) = await listed(other.logs())
    assert description.name is None
    assert (await other.log("config", create=True)).log_id != description.log_id


async def test_a_log_made_again_after_a_drop_is_another(open_client: OpenClient) -> None:
    old = await open_client().log("again", create=True)
    await old.set("a", 1)
    await old.drop()
    new = await open_client().log("again", create=True)
    assert new.log_id != old.log_id
    assert await new.version == 0
    for use in (old.get("a"), old.set("a", 2), old.describe(), old.drop()):
        with pytest.raises(NotFoundError) as caught:
            await use
        assert caught.value.code is ErrorCode.LOG_REPLACED
    assert (await new.describe()).incarnation == 2


async def test_sources_and_times_of_versions_are_told(log: AsyncLog) -> None:
    await log.set("a", 1, source="ci é🜁")
    await log.update([Upsert("a", 2), Upsert("b", 2), Upsert("b", 2)])
    newest, older, *rest = await listed(log.versions())
    assert (newest.version, newest.source, newest.commands, newest.changes) == (2, "", 3, 2)
    assert (older.version, older.source, older.changes) == (1, "ci é🜁", 1)
    assert newest.time >= older.time
    assert newest.time.tzinfo is not None
    assert len(newest.writer) == 64
    assert [version.version for version in rest] in ([], [0])


async def test_a_hundred_concurrent_sets_are_a_hundred_versions(log: AsyncLog) -> None:
    done = await asyncio.gather(*[log.set(f"key-{n}", n) for n in range(100)])
    assert sorted(commit.version for commit in done) == list(range(1, 101))
    assert all(commit.changed for commit in done)
    by_version = {commit.version: n for n, commit in enumerate(done)}
    assert [entry.value for entry in await listed(log)] == [by_version[v] for v in range(1, 101)]


async def test_every_writer_reads_its_own_write(log: AsyncLog) -> None:
    async def write_and_read(n: int) -> None:
        for turn in range(5):
            done = await log.set(f"key-{n}", turn)
            entry = await log.entry(f"key-{n}")
            assert entry == Entry(f"key-{n}", turn, done.version)
            assert await log.version >= done.version

    await asyncio.gather(*[write_and_read(n) for n in range(10)])


async def test_too_large_is_refused_naming_the_limit(log: AsyncLog) -> None:
    for commands, limit in (
        ([Upsert(f"key-{n}", n) for n in range(4_097)], "max_commands"),
        ([Upsert("a", "x" * (1 << 20))], "max_commit_bytes"),
    ):
        with pytest.raises(RequestError, match=limit) as caught:
            await log.update(commands)
        assert caught.value.code is ErrorCode.TOO_LARGE
    with pytest.raises(RequestError, match="a key of 1025 bytes"):
        await log.set("k" * 1_025, 1)
    with pytest.raises(RequestError, match="source of 5000 bytes"):
        await log.set("a", 1, source="s" * 5_000)
    assert await log.set("a", "x" * 1_000_000, source="s" * 3_000) == Commit(1, True)


async def test_calls_that_make_no_sense_are_refused_before_anything_is_sent(log: AsyncLog) -> None:
    nonsense: list[tuple[Any, str]] = [
        (lambda: log.update([]), "at least one command"),
        (lambda: log.update(Upsert("a", 1)), "a list of commands"),  # type: ignore[arg-type]
        (lambda: log.update(["a"]), "str is none of them"),  # type: ignore[list-item]
        (lambda: log.update([ExpectEntry("a", -1)]), "0 to 2\\^53-1"),
        (lambda: log.update([ExpectEntry("a", True)]), "whole number"),
        (lambda: log.set("a", 1, expect_version="1"), "whole number"),  # type: ignore[arg-type]
        (lambda: log.set("a", 1, source=b"ci"), "source is a bytes"),  # type: ignore[arg-type]
        (lambda: log.set(1, 1), "a key of type int cannot be kept in mode string"),
        (lambda: log.get("a", at=-1), "0 to 2\\^53-1"),
    ]
    for call, message in nonsense:
        with pytest.raises(RequestError, match=message):
            await call()
    for view in (lambda: log.at(-1), lambda: log.diff(1.0), lambda: log.diff(0, 2**53)):  # type: ignore[arg-type]
        with pytest.raises(RequestError):
            view()
    assert await log.version == 0


async def test_a_wrong_api_key_is_denied(open_client: OpenClient, profile: Profile) -> None:
    wrong = Profile(
        endpoint_url=profile.endpoint_url,
        customer_id=profile.customer_id,
        apikey=profile.apikey[:-2] + "zz",
        master_key_base64=profile.master_key_base64,
    )
    with pytest.raises(DeniedError) as caught:
        await open_client(wrong).log("config", create=True)
    assert caught.value.code is ErrorCode.BAD_API_KEY
    assert wrong.apikey not in str(caught.value)


async def test_databases_are_apart(open_client: OpenClient) -> None:
    await open_client().log("config", create=True)
    other = open_client(database="staging")
    with pytest.raises(NotFoundError):
        await other.log("config")
    await (await other.log("config", create=True)).set("a", 1)
    assert await (await open_client().log("config")).version == 0


async def test_a_closed_client_refuses(open_client: OpenClient) -> None:
    client = open_client()
    log = await client.log("config", create=True)
    await client.close()
    await client.close()
    with pytest.raises(RequestError, match="closed"):
        await log.get("a")


async def test_history_keeps_values_newest_first(log: AsyncLog) -> None:
    for value in (1, [2], {"three": 3}):
        await log.set("a", value)
    await log.set("b", 0)
    history: list[KeyChange] = await listed(log.history("a"))
    assert [(change.value, change.version) for change in history] == [
        ({"three": 3}, 3),
        ([2], 2),
        (1, 1),
    ]
    assert history[0].time >= history[-1].time
    assert await listed(log.history("never")) == []


async def test_everything_is_public_that_a_log_answers_with(log: AsyncLog) -> None:
    await log.set("a", 1)
    for kind in ("Entry", "Change", "Diff", "KeyChange", "Version", "Description", "Commit"):
        assert kind in indelible.__all__

"""Logs to files and back on a real service: nothing lost, nothing twice, nothing unseen."""

import asyncio
import random
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from indelible import (
    AsyncClient,
    AsyncLog,
    ConflictError,
    Delete,
    ExportError,
    NotFoundError,
    Profile,
    RequestError,
    Upsert,
    VerificationError,
)
from indelible.modes import ModeName
from indelible.transferring import (
    Imported,
    OfVersion,
    Progress,
    export_log,
    import_log,
    origin_of,
)
from indelible.transferring.exports import Kind
from indelible.transferring.importing import import_original
from indelible.transferring.originals import Row
from indelible.transferring.steps import Step

from tests.client.conftest import profile_of
from tests.support.service import StartService, make_tenant, store_of


@pytest.fixture
async def client(profile: Profile) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(profile) as client:
        yield client


async def contents(log: AsyncLog, at: int | None = None) -> list[tuple[Any, Any]]:
    view = log if at is None else log.at(at)
    return sorted([(entry.key, entry.value) async for entry in view], key=repr)


async def history_of(log: AsyncLog, rng: random.Random, versions: int = 40) -> None:
    """Keys that come, change, go and come again, in commits of all sizes."""
    keys = [f"clé-{n}" for n in range(12)]
    for version in range(versions):
        chosen = rng.sample(keys, rng.choice((1, 1, 2, 5)))
        commands = [
            Delete(key)
            if rng.random() < 0.3
            else Upsert(key, [version, "é\u2028\x00", rng.random()])
            for key in chosen
        ]
        await log.update(commands, source=f"step {version} ☃" if version % 3 else "")


VALUES: dict[ModeName, list[Any]] = {
    "string": ["", "a", "é☃\u2028\n\x00", "x" * 900],
    "json": [None, 1, 1.5, -0.0, [{}], {"é": [True, None]}, "$bytes", {"$map": 1}],
    "msgpack": [None, b"\x00\xff", {1: b"", "a": [float("inf")]}, {"$map": 2}, 2**64 - 1, True],
    "binary": [b"", b"\x00\xff\n", bytes(range(256))],
}
KEYS: dict[ModeName, list[Any]] = VALUES | {"msgpack": [None, b"\x00", (1, b"a"), "é", -1, "$"]}


@pytest.mark.parametrize("history", [False, True], ids=["contents", "history"])
@pytest.mark.parametrize("value_mode", VALUES)
@pytest.mark.parametrize("key_mode", VALUES)
async def test_every_mode_comes_back_as_it_was(
    client: AsyncClient, tmp_path: Path, key_mode: ModeName, value_mode: ModeName, history: bool
) -> None:
    modes = {"key_mode": key_mode, "value_mode": value_mode}
    log = await client.log(["a", "b"], create=True, group="g", **modes)
    values = VALUES[value_mode]
    for number, key in enumerate(KEYS[key_mode]):
        await log.update([Upsert(key, values[number % len(values)])], source="s")
    await export_log(log, tmp_path / "x", history=history)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o600
    await import_log(client, tmp_path / "x", "copy")
    copy = await client.log("copy", group="g", **modes)  # type: ignore[arg-type]
    assert repr(await contents(copy)) == repr(await contents(log))


@pytest.mark.parametrize("history", [False, True], ids=["contents", "history"])
async def test_an_empty_log_comes_back_empty(
    client: AsyncClient, tmp_path: Path, history: bool
) -> None:
    log = await client.log("config", create=True)
    done = await export_log(log, tmp_path / "x", history=history)
    assert (done.lines, done.version) == (0, 0)
    imported = await import_log(client, tmp_path / "x", "copy")
    assert (imported.version, imported.commits) == (0, 0)
    assert await contents(await client.log("copy")) == []


async def test_diffs_between_any_imported_versions_are_the_originals(
    client: AsyncClient, tmp_path: Path
) -> None:
    log = await client.log("config", create=True)
    await history_of(log, random.Random(11))
    await export_log(log, tmp_path / "x", history=True)
    done = await import_log(client, tmp_path / "x", "copy")
    last = await log.version
    assert (done.version, done.commits, done.unit) == (last, last, "versions")
    copy = await client.log("copy")
    originals = [version async for version in log.versions()]
    for version, original in zip([v async for v in copy.versions()], originals, strict=True):
        origin = origin_of(version.source)
        assert origin == OfVersion(
            log_id=log.log_id[:16],
            version=original.version,
            time=original.time,
            source=original.source,
        )
    for low in range(0, last, 3):
        for high in (low + 1, low + 2, last):
            if high <= last:
                theirs = [change async for change in log.diff(low, high)]
                assert [change async for change in copy.diff(low, high)] == theirs


async def test_an_export_is_of_its_version_while_others_write(
    client: AsyncClient, tmp_path: Path
) -> None:
    """Keys that go, change and come again behind the exporter's back."""
    log = await client.log("config", create=True)
    rng = random.Random(12)
    await log.set_many({f"k{n}": n for n in range(3_000)})
    await history_of(log, rng, 10)
    version = await log.version
    expected = {history: tmp_path / f"quiet-{history}" for history in (False, True)}
    for history, path in expected.items():
        await export_log(log, path, history=history)
    await log.set_many({f"k{n}": -n for n in range(1_000, 2_000)})
    await history_of(log, rng, 5)
    await log.update([Delete(f"k{n}") for n in range(2_500, 3_000)])
    for history, path in expected.items():
        late = tmp_path / f"late-{history}"
        await export_log(log, late, history=history, at=version)
        assert late.read_bytes() == path.read_bytes()


class Interrupted(Exception):
    pass


def interrupting(after: int) -> Callable[[Progress], None]:
    """Raises at the `after`-th time that progress is told."""
    told = 0

    def tell(progress: Progress) -> None:
        nonlocal told
        told += 1
        if told == after:
            raise Interrupted

    return tell


@pytest.mark.parametrize("history", [False, True], ids=["contents", "history"])
async def test_an_export_that_was_interrupted_goes_on_and_ends_the_same(
    client: AsyncClient, tmp_path: Path, history: bool
) -> None:
    log = await client.log("config", create=True)
    for batch in range(6):
        await log.set_many({f"k{n}": batch for n in range(batch * 600, batch * 600 + 900)})
    whole, path = tmp_path / "whole", tmp_path / "x"
    await export_log(log, whole, history=history)
    partial = tmp_path / "x.partial"
    rng = random.Random(13)
    for _ in range(5):
        with pytest.raises(Interrupted):
            await export_log(log, path, history=history, on_progress=interrupting(2))
        assert not path.exists()
        await log.set("later", rng.random())  # goes on at the version where it began
        with partial.open("r+b") as file:
            file.truncate(rng.randrange(len(whole.read_bytes())))
    done = await export_log(log, path, history=history)
    assert path.read_bytes() == whole.read_bytes()
    assert done.version == 6
    assert not partial.exists()
    with pytest.raises(ExportError, match="is there already"):
        await export_log(log, path, history=history)


async def test_what_a_log_holds_is_exported_though_its_first_versions_are_forgotten(
    client: AsyncClient, tmp_path: Path
) -> None:
    """Byte for byte as before; its history is not whole any more, and is refused."""
    log = await client.log("config", create=True)
    await history_of(log, random.Random(17), 30)
    middle = await log.version
    for batch in range(3):
        await log.set_many({f"k{n}": batch for n in range(batch * 400, batch * 400 + 600)})
    await history_of(log, random.Random(18), 5)
    end = await log.version
    before = {}
    for at in (middle, middle + 2, end):
        await export_log(log, tmp_path / f"before {at}", at=at)
        before[at] = (tmp_path / f"before {at}").read_bytes()
    for first in (1, middle // 2, middle + 2, end):
        await log.forget(first)
        last = await log.version
        for at, whole in before.items():
            path = tmp_path / f"{first} {at}"
            if at >= first:
                await export_log(log, path, at=at)
                assert path.read_bytes() == whole, (first, at)
                continue
            with pytest.raises(NotFoundError, match=rf"at version {first} or later, not at {at}"):
                await export_log(log, path, at=at)
            assert not list(tmp_path.glob(f"{first} {at}*"))
        done = await export_log(log, tmp_path / f"{first}")
        assert (done.version, done.lines) == (last, len(await contents(log)))
    assert (await import_log(client, tmp_path / f"{end}", "copy")).done == done.lines
    assert await contents(await client.log("copy")) == await contents(log)
    with pytest.raises(NotFoundError, match=rf"before {end} .* without its history"):
        await export_log(log, tmp_path / "history", history=True)


async def test_an_export_goes_on_though_its_log_forgets_meanwhile(
    client: AsyncClient, tmp_path: Path
) -> None:
    log = await client.log("config", create=True)
    for batch in range(6):
        await log.set_many({f"k{n}": batch for n in range(batch * 600, batch * 600 + 900)})
    whole, path = tmp_path / "whole", tmp_path / "x"
    await export_log(log, whole)
    rng = random.Random(19)
    for first in (2, 4, 6):
        with pytest.raises(Interrupted):
            await export_log(log, path, on_progress=interrupting(2))
        with (tmp_path / "x.partial").open("r+b") as file:
            file.truncate(rng.randrange(len(whole.read_bytes())))
        await log.forget(first)
    await export_log(log, path)
    assert path.read_bytes() == whole.read_bytes()

    with pytest.raises(Interrupted):
        await export_log(log, tmp_path / "y", on_progress=interrupting(2))
    last = (await log.set("later", 1)).version
    await log.forget(last)
    with pytest.raises(ExportError, match=rf"before {last} have been forgotten since: remove it"):
        await export_log(log, tmp_path / "y")


async def test_an_unfinished_export_of_something_else_is_left_alone(
    client: AsyncClient, tmp_path: Path
) -> None:
    log = await client.log("config", create=True)
    await log.set("a", 1)
    await log.set("a", 2)
    path, partial = tmp_path / "x", tmp_path / "x.partial"
    await export_log(log, partial, at=1)
    held = partial.read_bytes()
    with pytest.raises(ExportError, match="at version 1, not 2"):
        await export_log(log, path, at=2)
    with pytest.raises(ExportError, match="another log or kind"):
        await export_log(log, path, history=True)
    with pytest.raises(ExportError, match="another log or kind"):
        await export_log(await client.log("other", create=True), path)
    assert partial.read_bytes()[: len(held) // 2] == held[: len(held) // 2]
    with pytest.raises(NotFoundError, match="no 3 yet"):
        await export_log(log, tmp_path / "y", at=3)


@pytest.mark.parametrize("history", [False, True], ids=["contents", "history"])
async def test_an_import_that_was_interrupted_goes_on_and_writes_nothing_twice(
    client: AsyncClient, tmp_path: Path, history: bool
) -> None:
    log = await client.log("config", create=True)
    for batch in range(4):
        await log.set_many({f"k{batch}-{n}": "x" * 2_000 for n in range(350)})
    await export_log(log, tmp_path / "x", history=history)
    await import_log(client, tmp_path / "x", "whole")
    commits = await (await client.log("whole")).version
    assert commits >= 3
    for after in (1, 2, 2):
        with pytest.raises(Interrupted):
            await import_log(client, tmp_path / "x", "copy", on_progress=interrupting(after))
    done = await import_log(client, tmp_path / "x", "copy")
    copy = await client.log("copy")
    assert done.resumed > 0
    assert await contents(copy) == await contents(log)
    assert await copy.version == commits
    again = await import_log(client, tmp_path / "x", "copy")
    assert (again.commits, again.version) == (0, commits)


async def test_a_longer_history_goes_on_where_the_shorter_one_ended(
    client: AsyncClient, tmp_path: Path
) -> None:
    log = await client.log("config", create=True)
    await history_of(log, random.Random(14), 10)
    await export_log(log, tmp_path / "a", history=True)
    await import_log(client, tmp_path / "a", "copy")
    before = await (await client.log("copy")).version
    await history_of(log, random.Random(15), 10)
    await export_log(log, tmp_path / "b", history=True)
    done = await import_log(client, tmp_path / "b", "copy")
    assert (done.resumed, done.version) == (before, await log.version)


@pytest.mark.parametrize("history", [False, True], ids=["contents", "history"])
async def test_a_log_that_holds_something_else_is_left_alone(
    client: AsyncClient, tmp_path: Path, history: bool
) -> None:
    log = await client.log("config", create=True)
    await log.set("a", 1)
    path = tmp_path / "x"
    await export_log(log, path, history=history)
    with pytest.raises(ConflictError, match="not empty"):
        await import_log(client, path)
    assert await log.version == 1
    await import_log(client, path, "copy")
    copy = await client.log("copy")
    await copy.set("b", 1)
    with pytest.raises(ConflictError, match="not empty"):
        await import_log(client, path, "copy")
    await client.log("strings", create=True, value_mode="string")
    with pytest.raises(RequestError, match="value_mode='string'"):
        await import_log(client, path, "strings")
    if history:
        with pytest.raises(RequestError, match="empty log"):
            await import_log(client, path, "copy", into_existing=True)


async def test_into_existing_adds_what_is_not_there_and_keeps_the_rest(
    client: AsyncClient, tmp_path: Path
) -> None:
    log = await client.log("config", create=True)
    await log.set_many({f"k{n}": n for n in range(2_500)})
    await export_log(log, tmp_path / "x")
    target = await client.log("target", create=True)
    await target.set_many({"mine": 0} | {f"k{n}": n for n in range(1_000)} | {"k2400": "old"})
    done = await import_log(client, tmp_path / "x", "target", into_existing=True)
    assert (done.commits, done.version) == (1, 2)
    assert await contents(target) == sorted(
        [("mine", 0), *((f"k{n}", n) for n in range(2_500))], key=repr
    )
    entry = await target.entry("k999")
    assert entry is not None
    assert entry.version == 1
    done = await import_log(client, tmp_path / "x", "target", into_existing=True)
    assert (done.commits, done.version) == (0, 2)


async def test_nothing_is_written_of_a_file_that_is_not_whole(
    client: AsyncClient, tmp_path: Path
) -> None:
    log = await client.log("config", create=True)
    await log.set_many({f"k{n}": n for n in range(50)})
    path = tmp_path / "x"
    await export_log(log, path)
    whole = path.read_bytes()
    for damaged in (whole[:-40], whole.replace(b'"k7"', b'"k8"')):
        path.write_bytes(damaged)
        with pytest.raises(ExportError):
            await import_log(client, path, "copy")
    with pytest.raises(NotFoundError):
        await client.log("copy")


async def test_somebody_else_writing_stops_an_import(client: AsyncClient, tmp_path: Path) -> None:
    log = await client.log("config", create=True)
    await history_of(log, random.Random(16), 20)
    await export_log(log, tmp_path / "x", history=True)
    copy = await client.log("copy", create=True)
    writing: list[Any] = []

    def tell(progress: Progress) -> None:
        if progress.done == 5 and not writing:
            writing.append(asyncio.ensure_future(copy.set("mine", 1)))

    with pytest.raises(ConflictError, match="somebody else writes"):
        await import_log(client, tmp_path / "x", "copy", on_progress=tell)
    await writing[0]


async def test_what_is_not_as_it_was_imported_is_found(client: AsyncClient, tmp_path: Path) -> None:
    log = await client.log("config", create=True)
    await log.set_many({f"k{n}": n for n in range(2_000)})
    await export_log(log, tmp_path / "x")
    copy = await client.log("copy", create=True)
    spoiling: list[Any] = []

    def spoil(progress: Progress) -> None:
        if progress.phase == "comparing" and not spoiling:
            spoiling.append(asyncio.ensure_future(copy.set("k1500", "spoilt")))

    with pytest.raises(VerificationError, match="1 are not in the log"):
        await import_log(client, tmp_path / "x", "copy", on_progress=spoil)
    await spoiling[0]


@dataclass(kw_only=True)
class Made:
    """An original that a test made up."""

    kind: Kind = "commits"
    id: str = "0123456789abcdef"
    name: str = "made"
    group: str = ""
    key_mode: ModeName = "string"
    value_mode: ModeName = "json"
    all_steps: list[Step] = field(default_factory=list)
    all_rows: list[Row] = field(default_factory=list)

    @property
    def total(self) -> int:
        return self.all_steps[-1].version if self.kind == "commits" else len(self.all_rows)

    async def steps(self, after: int) -> AsyncGenerator[Step, None]:
        for step in self.all_steps:
            if step.version > after:
                yield step

    async def rows(self, skip: int) -> AsyncGenerator[Row, None]:
        for row in self.all_rows[skip:]:
            yield row


def step(version: int, *changes: Upsert | Delete, source: str = "") -> Step:
    return Step(version=version, time=None, source=source, writer=None, changes=changes)


async def test_a_step_too_large_for_a_commit_becomes_several_that_say_so(
    client: AsyncClient,
) -> None:
    large = [Upsert(f"k{n}", "x" * 90_000) for n in range(25)]
    made = Made(
        all_steps=[step(1, Upsert("a", 1)), step(2, *large, source="big"), step(3, Delete("k1"))]
    )
    for after in (2, 3, 2):
        with pytest.raises(Interrupted):
            await import_original(client, made, on_progress=interrupting(after))
    done: Imported = await import_original(client, made)
    log = await client.log("made")
    assert done.version == 5
    origins = [origin_of(version.source) async for version in log.versions()]
    found = [(o.version, o.part, o.parts) for o in origins if isinstance(o, OfVersion)]
    assert found == [(3, 1, 1), (2, 3, 3), (2, 2, 3), (2, 1, 3), (1, 1, 1)]


async def test_a_step_without_effect_here_is_no_version_and_no_fault(client: AsyncClient) -> None:
    same = Upsert("a", {"x": 1, "y": 2})
    made = Made(
        all_steps=[
            step(1, same),
            step(2, same),
            step(3),
            step(4, Upsert("b", 1)),
            step(5, Delete("z")),
        ]
    )
    done = await import_original(client, made)
    assert (done.version, done.commits) == (2, 2)
    assert (await import_original(client, made)).commits == 0


async def test_a_version_that_changed_something_else_is_found(client: AsyncClient) -> None:
    made = Made(all_steps=[step(1, Upsert("a", 1)), step(3, Upsert("b", 2))])
    await import_original(client, made)
    for other in (
        [step(1, Upsert("a", 2)), step(3, Upsert("b", 2))],
        [step(1, Upsert("a", 1), Upsert("c", 1)), step(3, Upsert("b", 2))],
        [step(1, Upsert("a", 1), source="x"), step(3, Upsert("b", 2))],
        [step(1, Upsert("a", 1))],
        [made.all_steps[0], step(2, Upsert("c", 1)), made.all_steps[1]],
        [*made.all_steps[1:]],
    ):
        with pytest.raises(VerificationError):
            await import_original(client, Made(all_steps=other))


async def test_two_keys_that_are_one_here_are_found(client: AsyncClient) -> None:
    made = Made(kind="entries", all_rows=[("a", 1), ("b", 2), ("a", 1)])
    with pytest.raises(VerificationError, match="holds 2 entries, 3 were imported"):
        await import_original(client, made)


async def test_long_sources_are_shortened_and_counted(client: AsyncClient) -> None:
    made = Made(all_steps=[step(1, Upsert("a", 1), source="é" * 1_960), step(2, Upsert("a", 2))])
    assert (await import_original(client, made)).shortened == 1


async def test_a_transfer_outlives_the_service(start_service: StartService, tmp_path: Path) -> None:
    """The service is killed while commits are under way, and once more while pages are."""
    service = start_service("all", "--data", str(tmp_path / "data"))
    killed: list[str] = []
    restarts: list[threading.Timer] = []

    def kill_once(progress: Progress) -> None:
        if progress.phase not in (*killed, "comparing") and progress.done:
            killed.append(progress.phase)
            service.kill()
            restarts.append(threading.Timer(0.5, service.start))
            restarts[-1].start()

    made = Made(
        all_steps=[step(n, *(Upsert(f"k{n}-{k}", n) for k in range(200))) for n in range(1, 60)]
    )
    service.customer_id, service.apikey = await make_tenant(*await store_of(service))
    async with AsyncClient(profile_of(service)) as client:
        done = await import_original(client, made, on_progress=kill_once)
        assert (done.version, done.commits) == (59, 59)
        log = await client.log("made")
        await export_log(log, tmp_path / "quiet", history=True)
        await export_log(log, tmp_path / "x", history=True, on_progress=kill_once)
    for restart in restarts:
        restart.join(30)  # a service that starts behind the test would be ended by nobody
    assert (tmp_path / "x").read_bytes() == (tmp_path / "quiet").read_bytes()
    assert killed == ["importing", "exporting"]

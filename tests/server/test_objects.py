"""Archived objects, in a folder and in a bucket: durable, checked, and gone with their log."""

import os
import stat
from pathlib import Path

import pytest
from indelible_protocol.errors import ErrorCode
from indelible_protocol.ids import LogId
from indelible_server.store.errors import Refusal
from indelible_server.store.objects import LostObject, Objects, name_of, objects_at

LOG, ANOTHER = LogId(b"\x01" * 32), LogId(b"\x02" * 32)


@pytest.fixture(params=["folder", "bucket"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    if request.param == "folder":
        return objects_at(str(tmp_path / "archive"))
    return objects_at(request.getfixturevalue("bucket") + "/a/prefix")


async def test_what_was_put_is_got_and_twice_is_once(objects: Objects) -> None:
    data = os.urandom(300_000)
    name = await objects.put(LOG, data)
    assert name == name_of(data) == await objects.put(LOG, data)
    assert await objects.get(LOG, name) == data
    assert await objects.get(LOG, await objects.put(LOG, b"")) == b""


async def test_an_object_of_another_log_or_none_is_absent(objects: Objects) -> None:
    name = await objects.put(LOG, b"something")
    for log_id, asked in ((ANOTHER, name), (LOG, name_of(b"else"))):
        with pytest.raises(LostObject, match="absent") as caught:
            await objects.get(log_id, asked)
        assert caught.value.code is ErrorCode.INTERNAL_ERROR


async def test_all_of_a_log_is_deleted_and_nothing_else(objects: Objects) -> None:
    names = [await objects.put(LOG, b"%d" % number) for number in range(5)]
    kept = await objects.put(ANOTHER, b"0")
    await objects.delete(LOG, names[0])
    await objects.delete(LOG, names[0])
    await objects.delete_all(LOG)
    await objects.delete_all(LOG)
    for name in names:
        with pytest.raises(LostObject):
            await objects.get(LOG, name)
    assert await objects.get(ANOTHER, kept) == b"0"


@pytest.mark.parametrize("damage", ["a bit", "its end", "all of it"])
async def test_a_damaged_file_is_never_taken_for_what_it_was(tmp_path: Path, damage: str) -> None:
    objects = objects_at(str(tmp_path))
    name = await objects.put(LOG, b"what it was" * 100)
    (path,) = (path for path in tmp_path.rglob("*") if path.is_file())
    data = bytearray(path.read_bytes())
    if damage == "a bit":
        data[50] ^= 1
    path.write_bytes(bytes({"a bit": data, "its end": data[:-1], "all of it": b""}[damage]))
    with pytest.raises(LostObject, match="damaged"):
        await objects.get(LOG, name)
    assert await objects.put(LOG, b"what it was" * 100) == name  # which mends it
    assert await objects.get(LOG, name) == b"what it was" * 100


async def test_files_are_private_and_no_draft_is_left(tmp_path: Path) -> None:
    objects = objects_at(str(tmp_path / "archive"))
    name = await objects.put(LOG, b"something")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path.name for path in files] == [name]
    assert stat.S_IMODE(files[0].stat().st_mode) == 0o600


async def test_a_folder_that_cannot_be_written_is_told_and_can_be_tried_again(
    tmp_path: Path,
) -> None:
    (tmp_path / "archive").write_text("a file where the folder should be")
    objects = objects_at(str(tmp_path / "archive"))
    with pytest.raises(Refusal) as caught:
        await objects.put(LOG, b"something")
    assert caught.value.code is ErrorCode.OVERLOADED
    (tmp_path / "archive").unlink()
    assert await objects.get(LOG, await objects.put(LOG, b"something")) == b"something"


def test_an_address_that_is_none_is_refused() -> None:
    pytest.importorskip("obstore")
    with pytest.raises(ValueError, match="the archive cannot be"):
        objects_at("ftp://somewhere/else")

"""The lines of an export: nothing is lost in JSON, and nothing that was lost goes unseen."""

import io
import json
import random
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from indelible import ExportError
from indelible.modes import Mode
from indelible.spelling import from_json, to_json
from indelible.transferring import Export, Heading, OfEntries, OfVersion, origin_of
from indelible.transferring.exports import CHECK_LINES, Draft, Position

HEADING = Heading(
    kind="entries",
    name=["shop", "ordérs"],
    group="site",
    log_id="ab" * 32,
    key_mode="string",
    value_mode="json",
    version=7,
)

texts = st.text(st.characters(exclude_categories=["Cs"]))
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
    max_leaves=20,
)
packed_keys = (
    texts | st.binary() | st.integers(-(2**63), 2**64 - 1) | st.sampled_from(["$map", "$"])
)
packed_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | texts
    | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(packed_keys, inner),
    max_leaves=20,
)
VALUES: dict[Mode, st.SearchStrategy[Any]] = {
    Mode.STRING: texts,
    Mode.JSON: json_values,
    Mode.MSGPACK: packed_values,
    Mode.BINARY: st.binary(),
}


@pytest.mark.parametrize("mode", Mode)
@given(data=st.data())
def test_every_value_of_every_mode_comes_back_from_json(mode: Mode, data: st.DataObject) -> None:
    value = data.draw(VALUES[mode])
    line = json.dumps(to_json(value, mode), allow_nan=False)
    # As bytes: NaN is unequal to itself, and 1 equals True.
    assert mode.encode(from_json(json.loads(line), mode)) == mode.encode(value)


def written(path: Path, rows: list[dict[str, Any]], heading: Heading = HEADING) -> bytes:
    with path.open("w+b") as file:
        draft = Draft(file, heading)
        for row in rows:
            draft.add(row)
        draft.end()
    return path.read_bytes()


def rows_of(count: int, each: int = 3) -> list[dict[str, Any]]:
    return [{"key": f"k{n}", "value": "\n\u2028é", "version": 1 + n // each} for n in range(count)]


@pytest.mark.parametrize("count", [0, 1, CHECK_LINES, 2 * CHECK_LINES + 1])
def test_what_is_written_is_read(tmp_path: Path, count: int) -> None:
    rows = rows_of(count)
    written(tmp_path / "x", rows)
    export = Export(tmp_path / "x")
    assert (export.heading, export.lines) == (HEADING, count)
    assert list(export.rows()) == rows


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    whole = written(path, rows_of(1_100))
    rng = random.Random(3)
    for length in [0, 1, len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(60))]:
        path.write_bytes(whole[:length])
        with pytest.raises(ExportError):
            Export(path)


def test_a_file_altered_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    whole = written(path, rows_of(1_100))
    rng = random.Random(4)
    for at in [*range(60), *(rng.randrange(len(whole)) for _ in range(60)), len(whole) - 1]:
        path.write_bytes(
            whole[:at] + bytes([whole[at] ^ (1 << rng.randrange(8))]) + whole[at + 1 :]
        )
        with pytest.raises(ExportError):
            Export(path)
    lines = whole.splitlines(keepends=True)
    for changed in (
        [*lines[:5], *lines[6:]],
        [*lines[:5], lines[6], lines[5], *lines[7:]],
        [*lines, lines[-1]],
        lines[:-1],
        [b"{}\n", *lines],
    ):
        path.write_bytes(b"".join(changed))
        with pytest.raises(ExportError):
            Export(path)


def test_an_error_says_between_which_lines_a_file_was_altered(tmp_path: Path) -> None:
    whole = written(tmp_path / "x", rows_of(3_500))
    (tmp_path / "x").write_bytes(whole.replace(b'"k1500"', b'"k1501"'))
    with pytest.raises(ExportError, match="at or before line 2,001"):
        Export(tmp_path / "x")


def test_a_file_that_changes_while_it_is_read_is_found_out(tmp_path: Path) -> None:
    path = tmp_path / "x"
    whole = written(path, rows_of(10))
    export = Export(path)
    path.write_bytes(whole.replace(b"k9", b"k8"))
    with pytest.raises(ExportError, match="changed while"):
        list(export.rows())


def test_a_draft_goes_on_wherever_it_was_cut_and_ends_as_if_it_had_not_been(
    tmp_path: Path,
) -> None:
    path, rows = tmp_path / "x", rows_of(3_500)
    whole = written(path, rows)
    rng = random.Random(5)
    kept_lines = set()
    for length in [0, 1, len(whole), *(rng.randrange(len(whole)) for _ in range(20))]:
        path.write_bytes(whole[:length])
        with path.open("r+b") as file:
            draft = Draft.resumed(file, HEADING)
            at = draft.position
            kept_lines.add(at.lines)
            for row in rows[at.lines :]:
                draft.add(row)
            draft.end()
        assert path.read_bytes() == whole
        last = rows[at.lines - 1]["version"] if at.lines else 0
        same = sum(row["version"] == last for row in rows[: at.lines])
        assert at == Position(lines=at.lines, version=last, of_version=same)
    assert kept_lines == {0, 1_000, 2_000, 3_000}


def test_a_draft_keeps_nothing_behind_an_altered_byte(tmp_path: Path) -> None:
    path, rows = tmp_path / "x", rows_of(3_500)
    whole = written(path, rows)
    altered = bytearray(whole)
    altered[whole.index(b"k1500")] ^= 1
    path.write_bytes(altered)
    with path.open("r+b") as file:
        assert Draft.resumed(file, HEADING).position.lines == 1_000


def test_a_draft_of_another_log_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "x"
    whole = written(path, rows_of(5), replace(HEADING, log_id="cd" * 32))
    with path.open("r+b") as file, pytest.raises(ExportError, match="another log"):
        Draft.resumed(file, HEADING)
    assert path.read_bytes() == whole
    for text in (b"dear diary\n", b"dear diary", b"{}\n"):
        path.write_bytes(text)
        with path.open("r+b") as file, pytest.raises(ExportError, match="no unfinished export"):
            Draft.resumed(file, HEADING)
        assert path.read_bytes() == text


@pytest.mark.parametrize(
    "heading",
    [
        b"",
        b"[]\n",
        b'{"format":"indelible-export","format_version":2}\n',
        b'{"format":"indelible-export","format_version":1}\n',
        b"\xff\n",
        b"[" * 100_000 + b"\n",
    ],
)
def test_what_is_no_export_is_refused(tmp_path: Path, heading: bytes) -> None:
    (tmp_path / "x").write_bytes(heading)
    with pytest.raises(ExportError):
        Export(tmp_path / "x")
    with pytest.raises(ExportError):
        Export(tmp_path / "absent")


def test_what_json_cannot_spell_is_not_written_as_something_else() -> None:
    draft = Draft(io.BytesIO(), HEADING)
    for value in (float("nan"), float("inf"), "\ud800"):
        with pytest.raises(ExportError, match="version 3"):
            draft.add({"key": "k", "value": value, "version": 3})


versions = st.builds(
    OfVersion,
    log_id=st.text("0123456789abcdef", min_size=16, max_size=16),
    version=st.integers(1, 2**53 - 1),
    time=st.none()
    | st.integers(0, 253_402_300_799_999).map(
        lambda ms: datetime.fromtimestamp(ms // 1000, UTC).replace(microsecond=ms % 1000 * 1000)
    ),
    source=texts,
)


@given(versions, st.integers(1, 99), st.integers(0, 99))
def test_where_a_version_came_from_is_read_back(mark: OfVersion, part: int, more: int) -> None:
    assert origin_of(mark.spelled()) == mark
    if more:
        mark = replace(mark, part=part, parts=part + more)
        assert origin_of(mark.spelled()) == mark
    again = OfVersion(log_id="0" * 16, version=1, time=None, source=mark.spelled())
    assert origin_of(again.spelled()) == again
    assert origin_of(mark.spelled() + ".") is None


def test_a_source_that_is_too_long_loses_its_end_to_the_mark() -> None:
    mark = OfVersion(log_id="0" * 16, version=1, time=None, source="é" * 2_000)
    assert mark.is_shortened
    assert len(mark.spelled().encode()) <= 3_900
    found = origin_of(mark.spelled())
    assert isinstance(found, OfVersion)
    assert found.source.endswith("é…")


@pytest.mark.parametrize("source", ["", "ci", "[imported]", "[imported v1 of xyz]", "imported 1-2"])
def test_other_sources_came_from_nowhere(source: str) -> None:
    assert origin_of(source) is None


def test_where_entries_came_from_is_read_back() -> None:
    mark = OfEntries(digest="0123456789abcdef", first=1, last=4_096)
    assert origin_of(mark.spelled()) == mark

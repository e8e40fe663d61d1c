"""`indelible export` and `indelible import`: killed in the middle, they go on where they were."""

import base64
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from indelible import Client, v1

from tests.cli.conftest import Cli, process
from tests.support.service import Service

ENTRIES = 3_000
GIVE_UP_SECONDS = 60.0
COMMAND = (sys.executable, "-c", "import indelible.cli; indelible.cli.main()")


@pytest.fixture
def filled(blocking: Client) -> None:
    log = blocking.log("config", create=True)
    for first in range(0, ENTRIES, 250):
        log.set_many(
            {f"key-{n}": {"n": n, "é": "x" * 200} for n in range(first, first + 250)},
            source=f"batch {first}",
        )


def killed_when(process: "subprocess.Popen[str]", reached: Callable[[], bool]) -> bool:
    """Whether it was killed, by SIGKILL, as soon as something was so; false if it ended first."""
    deadline = time.monotonic() + GIVE_UP_SECONDS
    while process.poll() is None and not reached():
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.kill()
    out, err = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), out + err
    return process.returncode != 0


def contents(cli: Cli, log: str) -> list[tuple[str, object]]:
    return sorted((entry["key"], entry["value"]) for entry in cli("cat", log, "-o", "ndjson").lines)


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("history", [(), ("--history",)], ids=["contents", "history"])
def test_killed_at_any_moment_nothing_is_lost_and_nothing_comes_twice(
    cli: Cli, profile_file: Path, tmp_path: Path, blocking: Client, history: tuple[str, ...]
) -> None:
    assert cli("export", "config", "whole.jsonl", *history).code == 0
    whole = tmp_path / "whole.jsonl"
    partial, path = tmp_path / "x.jsonl.partial", tmp_path / "x.jsonl"
    kills = 0
    for part in (0.0, 0.5):
        reached = int(part * whole.stat().st_size)
        kills += killed_when(
            process(["export", "config", str(path), *history], profile_file),
            lambda reached=reached: partial.exists() and partial.stat().st_size > reached,  # type: ignore[misc]
        )
    if not path.exists():
        assert "exported" in cli("export", "config", "x.jsonl", *history).out
    assert path.read_bytes() == whole.read_bytes()

    copy = blocking.log("copy", create=True)
    for versions in (0, 1):
        kills += killed_when(
            process(["import", str(path), "copy"], profile_file),
            lambda versions=versions: copy.version > versions,  # type: ignore[misc]
        )
    done = cli("import", "x.jsonl", "copy", "-o", "json").json
    assert done["resumed"] > 0
    cli("import", "x.jsonl", "undisturbed")
    assert copy.version == blocking.log("undisturbed").version
    assert contents(cli, "copy") == contents(cli, "config")
    assert kills >= 2


@pytest.mark.usefixtures("filled")
def test_an_export_through_a_pipe_becomes_a_log(cli: Cli) -> None:
    exported = cli("export", "config", "--history")
    assert exported.code == 0
    assert f"exported {ENTRIES // 250} commits of config at v12" in exported.err
    done = cli("import", "-", "copy", stdin=exported.out.encode())
    assert done.out == "imported 12 versions into copy at v12; compared, and equal\n"
    sources = [v["source"] for v in cli("versions", "copy", "-o", "json").json]
    assert re.fullmatch(r"batch 2750 \[imported v12 of [0-9a-f]{16}, \S+Z\]", sources[0])
    assert contents(cli, "copy") == contents(cli, "config")


def test_mistakes_are_told_with_what_to_do(cli: Cli, tmp_path: Path) -> None:
    cli("create", "config")
    cli("set", "config", "a", "1", "b", "2")
    cli("export", "config", "x.jsonl")
    whole = (tmp_path / "x.jsonl").read_bytes()
    (tmp_path / "cut.jsonl").write_bytes(whole[:-10])
    (tmp_path / "altered.jsonl").write_bytes(whole.replace(b'"b"', b'"c"'))
    (tmp_path / "none.jsonl").write_text("a,b\n")
    (tmp_path / "y.jsonl.partial").write_text("mine\n")
    for arguments, code, told in (
        (("import", "cut.jsonl"), 1, "cut off"),
        (("import", "altered.jsonl"), 1, "altered"),
        (("import", "none.jsonl"), 1, "is no export"),
        (("import", "absent.jsonl"), 1, "absent.jsonl cannot be read"),
        (("import", "-"), 1, "is no export"),
        (("import", "x.jsonl"), 4, "--into-existing"),
        (("import", "x.jsonl", "new", "--group", "é" * 300), 2, "group"),
        (("export", "config", "x.jsonl"), 1, "is there already"),
        (("export", "config", "y.jsonl"), 1, "no unfinished export"),
        (("export", "config", "absent/x.jsonl"), 1, "cannot be written"),
        (("export", "config", "--at", "9"), 3, "no 9 yet"),
        (("export", "absent"), 3, "NONEXISTENT_LOG"),
        (("import",), 2, "FILE"),
    ):
        done = cli(*arguments, stdin=b"")
        assert (done.code, told in done.err) == (code, True), (arguments, done)
        assert done.err.startswith("error: ")
        assert "next: " in done.err
    assert (tmp_path / "y.jsonl.partial").read_text() == "mine\n"
    assert cli("import", "x.jsonl", "--into-existing").code == 0


@pytest.mark.usefixtures("filled")
def test_a_terminal_shows_a_bar_that_moves(profile_file: Path, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    exporter = subprocess.Popen(
        [*COMMAND, "export", "config", str(tmp_path / "x")],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=theirs,
        env=os.environ
        | {"INDELIBLE_PROFILE": str(profile_file), "COLUMNS": "120", "TERM": "xterm"},
    )
    os.close(theirs)
    seen = b""
    while True:
        try:
            piece = os.read(ours, 65_536)
        except OSError:  # Linux's word for the end of a terminal
            break
        if not piece:
            break
        seen += piece
    os.close(ours)
    out, _ = exporter.communicate(timeout=GIVE_UP_SECONDS)
    assert exporter.returncode == 0
    assert out.startswith(b"exported 3,000 entries of config at v12, sha256 ")
    shown = set(re.findall(rb"([\d,]+)/3,000 entries", seen))
    assert b"3,000" in shown
    assert len(shown) > 1
    assert b"/s" in seen


@pytest.mark.usefixtures("filled")
def test_without_a_terminal_lines_tell_how_far_it_is(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indelible.cli.transfer.LINE_SECONDS", 0.0)
    told = cli("export", "config", "x.jsonl").err
    assert re.search(
        r"^exporting: 3,000 of 3,000 entries \(100 %\), [\d,]+/s, \d+ s left$", told, re.M
    )
    told = cli("import", "x.jsonl", "copy").err
    assert re.search(r"^importing: 3,000 of 3,000 entries \(100 %\), [\d,]+/s", told, re.M)
    assert re.search(r"^comparing: [\d,]+ of 3,000 entries", told, re.M)
    assert cli("import", "x.jsonl", "other", "--quiet").err == ""


@pytest.mark.usefixtures("filled")
def test_an_interruption_says_how_to_go_on(profile_file: Path, tmp_path: Path) -> None:
    exporter = process(["export", "config", str(tmp_path / "x")], profile_file)
    while not (tmp_path / "x.partial").exists() and exporter.poll() is None:
        time.sleep(0.002)
    exporter.send_signal(signal.SIGINT)
    _, err = exporter.communicate(timeout=GIVE_UP_SECONDS)
    assert exporter.returncode == 130
    assert "the same command goes on from here" in err
    assert "Traceback" not in err


def test_the_file_is_lines_of_json_for_other_programs(cli: Cli, tmp_path: Path) -> None:
    cli("create", "config", "--group", "site")
    cli("set", "config", "a", "1", "--source", "ci")
    cli("rm", "config", "a")
    cli("export", "config", "x.jsonl", "--history")
    heading, first, second, end = map(json.loads, (tmp_path / "x.jsonl").read_text().splitlines())
    assert heading["format"] == "indelible-export"
    assert (heading["name"], heading["group"], heading["version"]) == ("config", "site", 2)
    assert (first["version"], first["source"]) == (1, "ci")
    assert first["changes"] == [{"set": "a", "to": 1}]
    assert second["changes"] == [{"remove": "a"}]
    assert end["end"]["lines"] == 2


def test_a_log_of_the_original_client_becomes_a_sealed_one(
    cli: Cli, service: Service, tmp_path: Path
) -> None:
    members = {
        "endpoint_url": service.url,
        "customer_id": service.customer_id,
        "apikey": service.apikey,
        "master_key_base64": base64.b64encode(os.urandom(32)).decode(),
    }
    (tmp_path / "old.json").write_text(json.dumps(members))
    original = v1.Log("config", v1.profileFromJson(json.dumps(members)))
    original.create()
    original.update([v1.Cmd.Upsert("a", 1), v1.Cmd.Upsert("b", [2])], "first")
    original.update([v1.Cmd.Remove("a", 1)], "second")
    asked = ("import", "--from-v1", "config", "--v1-profile", "old.json")
    assert cli(*asked).out == "imported 1 entries into config at v1; compared, and equal\n"
    assert contents(cli, "config") == [("b", [2])]
    assert cli(*asked, "--history", "past", "-o", "json").json["versions"] == 2
    sources = [v["source"] for v in cli("versions", "past", "-o", "json").json]
    assert [source.split(" [imported v")[0] for source in sources] == ["second", "first"]
    for arguments, code, told in (
        ((*asked[:3],), 2, "--v1-profile"),
        ((*asked[:4], "absent.json"), 1, "absent.json"),
        (("import", "x.jsonl", "--history"), 2, "--from-v1"),
        ((*asked, "one", "two"), 2, "[LOG]"),
        ((*asked, "--v1-key-mode", "raw", "raw"), 2, "raw"),
        (("import", "--from-v1", "absent", "--v1-profile", "old.json"), 3, "NONEXISTENT_LOG"),
        ((*asked, "other", "--v1-key-mode", "json"), 1, "other modes"),
    ):
        done = cli(*arguments)
        assert (done.code, told in done.err) == (code, True), (arguments, done)
        assert members["master_key_base64"] not in done.out + done.err

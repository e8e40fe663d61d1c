"""What each command does and prints, on a real service."""

import base64
import json
import signal
from pathlib import Path

import pytest
from indelible import Client
from indelible.cli.app import app

from tests.cli.conftest import Cli, process, profile_of_new_tenant
from tests.support.service import StartService

COMMANDS = sorted(name for name in app.resolved_commands() if not name.startswith("-"))


def test_alone_it_shows_the_commands_and_how_to_begin(cli: Cli) -> None:
    done = cli()
    assert done.code == 0
    for command in COMMANDS:
        assert f" {command} " in done.out
    assert "indelible init --credentials" in done.out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_its_options_and_two_examples(cli: Cli, command: str) -> None:
    done = cli(command, "--help")
    assert (done.code, done.err) == (0, "")
    _, _, examples = done.out.partition("Examples:")
    assert examples.count(f"indelible {command}") >= 2
    if command not in ("init", "completion"):
        assert "--output" in done.out


def test_what_is_set_is_read_back_in_every_form(cli: Cli) -> None:
    assert cli("create", "config").code == 0
    done = cli("set", "config", "theme", '"dark"', "sizes", "[1, 2]")
    assert (done.code, done.out) == (0, "v1\n")
    assert cli("get", "config", "theme").out == '"dark"\n'
    assert cli("get", "config", "theme", "sizes").out == 'theme\t"dark"\nsizes\t[1, 2]\n'
    assert cli("get", "config", "sizes", "--raw").out == "[1,2]"
    assert cli("get", "config", "theme", "-o", "json").json == {
        "key": "theme",
        "value": "dark",
        "version": 1,
    }
    assert cli("cat", "config").out == 'theme\t"dark"\nsizes\t[1, 2]\n'
    entries = [
        {"key": "theme", "value": "dark", "version": 1},
        {"key": "sizes", "value": [1, 2], "version": 1},
    ]
    assert cli("cat", "config", "-o", "json").json == entries
    assert cli("cat", "config", "-o", "ndjson").lines == entries
    (listed,) = cli("ls", "-o", "json").json
    assert (listed["name"], listed["version"], listed["entries"]) == ("config", 1, 2)


def test_setting_what_is_there_changes_nothing_and_says_so(cli: Cli) -> None:
    cli("create", "config")
    cli("set", "config", "a", "1")
    done = cli("set", "config", "a", "1", "-o", "json")
    assert done.json == {"version": 1, "changed": False}
    assert cli("set", "config", "a", "1").out == "v1 (nothing changed)\n"


def test_values_come_from_stdin_and_files_unchanged(cli: Cli, tmp_path: Path) -> None:
    cli("create", "bytes", "--key-mode", "binary", "--value-mode", "binary")
    data = bytes(range(256)) + b"\n"
    (tmp_path / "data").write_bytes(data)
    key = base64.b64encode(b"\x00k").decode()
    assert cli("set", "bytes", key, "@data").code == 0
    assert cli("get", "bytes", key, "--raw").out.encode(errors="surrogateescape") == data
    assert cli("set", "bytes", key, "-", stdin=b"\xff\x00").code == 0
    assert cli("get", "bytes", key).out == "/wA=\n"

    cli("create", "strings", "--value-mode", "string")
    cli("set", "strings", "a", "-", "b", "@@home", stdin=b"from a pipe\n")
    assert cli("get", "strings", "a", "b").out == "a\tfrom a pipe\nb\t@home\n"


def test_msgpack_values_are_spelled_without_loss(cli: Cli, blocking: Client) -> None:
    log = blocking.log("packed", create=True, value_mode="msgpack")
    value = {"a": b"\x00\xff", "b": {1: [None, True]}, "c": float("inf"), "d": "é"}
    log.set("k", value)
    spelled = cli("get", "packed", "k").out
    assert json.loads(spelled)["b"] == {"$map": [[1, [None, True]]]}
    assert cli("set", "packed", "again", spelled).code == 0
    assert log.get("again") == value


def test_rm_removes_in_one_commit_and_history_tells(cli: Cli) -> None:
    cli("create", "config")
    cli("set", "config", "a", "1", "b", "2", "--source", "first")
    assert cli("rm", "config", "a", "b", "absent").out == "v2\n"
    assert cli("cat", "config", "-o", "json").json == []
    steps = cli("history", "config", "a", "-o", "json").json
    assert [(step["op"], step["version"], step["value"]) for step in steps] == [
        ("remove", 2, None),
        ("set", 1, 1),
    ]
    assert "removed" in cli("history", "config", "a").out
    listed = cli("versions", "config", "-o", "json").json
    assert [(v["version"], v["source"], v["changes"]) for v in listed] == [
        (2, "", 2),
        (1, "first", 2),
    ]
    assert cli("versions", "config", "-n", "1").out.startswith("v2  ")
    assert cli("cat", "config", "--at", "1").out == "a\t1\nb\t2\n"


@pytest.mark.parametrize(
    ("versions", "head"),
    [
        ("1..3", "v1..v3 (2 versions, 2 changes)"),
        ("v1..v3", "v1..v3 (2 versions, 2 changes)"),
        ("1..", "v1..v3 (2 versions, 2 changes)"),
        ("1", "v1..v3 (2 versions, 2 changes)"),
        ("..2", "v0..v2 (2 versions, 2 changes)"),
        ("3..1", "v3..v1 (2 versions, 2 changes)"),
        ("2..2", "v2..v2 (0 versions, 0 changes)"),
        (None, "v2..v3 (1 version, 1 change)"),
    ],
)
def test_diff_of_a_range(cli: Cli, blocking: Client, versions: str | None, head: str) -> None:
    log = blocking.log("config", create=True)
    log.set("a", 1)
    log.set("b", 1)
    log.delete("a")
    log_range = () if versions is None else (versions,)
    out = cli("diff", "config", *log_range).out.splitlines()
    assert out[0] == head
    changes = cli("diff", "config", *log_range, "-o", "json").json
    assert len(changes) == len(out) - 1
    for line, change in zip(out[1:], changes, strict=True):
        sign = "+" if change["op"] == "add" else "-"
        assert line == f"{sign} {change['key']}\t{change['value']}"


def test_diff_counts_came_went_and_changed(cli: Cli) -> None:
    cli("create", "config")
    cli("set", "config", "a", "1", "b", "1")
    cli("set", "config", "b", "2", "c", "1")
    cli("rm", "config", "a")
    assert cli("diff", "config", "1..3", "--stat", "-o", "json").json == {
        "from": 1,
        "to": 3,
        "added": 1,
        "removed": 1,
        "changed": 1,
    }


def test_colours_only_where_they_are_wanted(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    cli("create", "config")
    cli("set", "config", "a", "1")
    assert "\x1b[" not in cli("diff", "config").out
    coloured = cli("diff", "config", "--color", "always").out
    assert "\x1b[32m+ a\t1\x1b[0m" in coloured
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert cli("diff", "config").out == coloured
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in cli("diff", "config").out


def test_control_characters_of_others_do_not_reach_the_terminal(cli: Cli, blocking: Client) -> None:
    log = blocking.log("words", create=True, value_mode="string")
    log.set("k\x1b[2J", "a\nb\x1b]0;title\x07", source="s\x1b[31m")
    for command in (("cat",), ("diff",), ("versions",), ("history",)):
        extra = ("k\x1b[2J",) if command == ("history",) else ()
        out = cli(*command, "words", *extra).out
        assert "\x1b" not in out
        assert "\x07" not in out
    assert "a\\nb\\x1b]0;title\\x07" in cli("cat", "words").out


def test_a_name_of_parts_is_written_as_json(cli: Cli, blocking: Client) -> None:
    blocking.log(["shop", "orders"], create=True)
    assert cli("set", '["shop", "orders"]', "a", "1").code == 0
    assert '["shop", "orders"]' in cli("ls").out


def test_drop_needs_yes_where_nobody_can_be_asked(cli: Cli) -> None:
    cli("create", "config")
    assert cli("drop", "config").code == 2
    assert cli("ls", "-o", "json").json != []
    assert cli("drop", "config", "--yes").out == "dropped config at v0\n"
    assert cli("ls", "-o", "json").json == []


def test_stats_count_and_draw_what_came(cli: Cli) -> None:
    cli("create", "config")
    for n in range(5):
        cli("set", "config", "a", str(n))
    found = cli("stats", "config", "-o", "json").json
    assert (found["version"], found["recent_versions"], found["entries"]) == (5, 5, 1)
    drawn = cli("stats", "config", "--plot").out
    assert "versions/min" in drawn
    assert "█" in drawn
    assert "most 5" in drawn


def test_doctor_finds_a_healthy_service_healthy(cli: Cli) -> None:
    done = cli("doctor", "-o", "json")
    assert done.code == 0
    assert [(f["what"], f["ok"]) for f in done.json] == [
        ("profile", True),
        ("endpoint", True),
        ("ready", True),
        ("clock", True),
        ("API key", True),
    ]
    assert cli("doctor").out.count("✓") == 5


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_every_command(cli: Cli, shell: str) -> None:
    script = cli("completion", shell).out
    for command in COMMANDS:
        assert command in script


# Following: a process, because ^C and pipes belong to one.


def test_follow_prints_each_diff_as_it_comes_and_ends_well_on_interrupt(
    cli: Cli, profile_file: Path
) -> None:
    for name in ("config", "orders"):
        cli("create", name)
    cli("set", "config", "a", "1")
    follower = process(["follow", "config", "orders", "--since", "v0"], profile_file)
    assert follower.stdout is not None
    assert follower.stdout.readline() == "config  v0..v1\n"
    assert follower.stdout.readline() == "config  + a\t1\n"
    cli("set", "orders", "o", "{}")
    assert follower.stdout.readline() == "orders  v0..v1\n"
    assert follower.stdout.readline() == "orders  + o\t{}\n"
    follower.send_signal(signal.SIGINT)
    out, err = follower.communicate(timeout=20)
    assert (follower.returncode, out, err) == (0, "", "")


def test_follow_says_when_the_connection_is_lost_and_back(
    start_service: StartService, tmp_path: Path
) -> None:
    service = start_service("all", "--data", str(tmp_path / "data"))
    profile = profile_of_new_tenant(service, tmp_path)
    with Client(profile) as client:
        log = client.log("config", create=True)
        follower = process(["follow", "config", "--since", "v0", "-o", "ndjson"], profile)
        assert follower.stdout is not None
        assert follower.stderr is not None
        log.set("a", 1)
        assert json.loads(follower.stdout.readline())["log"] == "config"
        service.kill()
        assert follower.stderr.readline().startswith("-- connection lost after v")
        service.start()
        log.set("a", 2)
        assert json.loads(follower.stdout.readline())["changes"][-1]["value"] == 2
        assert follower.stderr.readline().startswith("-- reconnected at v")
    follower.send_signal(signal.SIGTERM)
    follower.communicate(timeout=20)


def test_a_reader_that_goes_away_ends_the_command_quietly(
    cli: Cli, blocking: Client, profile_file: Path
) -> None:
    log = blocking.log("config", create=True)
    log.set_many({f"key-{n}": "x" * 100 for n in range(3_000)})
    reader = process(["cat", "config"], profile_file)
    assert reader.stdout is not None
    assert reader.stderr is not None
    reader.stdout.readline()
    reader.stdout.close()
    assert reader.wait(20) == 141
    assert reader.stderr.read() == ""
    reader.stderr.close()

"""What each command does and prints, on a real service."""

import base64
import json
import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from indelible import Client
from indelible.cli import exits
from indelible.cli.app import app
from indelible.cli.catalogue import COMMANDS as LISTED
from indelible.cli.catalogue import COMMONEST

from tests.cli.conftest import Cli, process, profile_of_new_tenant
from tests.support.service import StartService

ALL_LISTED = [*LISTED, *(inner for each in LISTED for inner in each.commands)]
COMMANDS = [each.name for each in ALL_LISTED]


def test_alone_it_shows_the_commonest_commands_and_where_the_others_are(cli: Cli) -> None:
    done = cli()
    assert (done.code, done.err) == (0, "")
    shown = [line.split()[1] for line in done.out.splitlines() if line.startswith("  indelible ")]
    assert tuple(shown) == COMMONEST
    assert len(shown) == 5
    assert "indelible --help" in done.out


@pytest.mark.parametrize("asked", ["--help", "-h"])
def test_help_lists_every_command_two_examples_and_the_exit_codes(cli: Cli, asked: str) -> None:
    done = cli(asked)
    assert (done.code, done.err) == (0, "")
    for each in LISTED:
        assert f"  {each.name:<11} {each.summary}\n" in done.out
    _, _, examples = done.out.partition("Examples:")
    assert examples.count("  indelible ") == 2
    for code in exits.ALL:
        assert re.search(rf"\b{code} [a-z]", done.out)


def test_the_pages_need_no_parser_and_no_client() -> None:
    """They are what is asked for most often."""
    script = (
        "import sys; from indelible.cli import run; code = run(sys.argv[1:]);"
        "sys.exit(code or any(name in sys.modules for name in ('cyclopts', 'rich', 'aiohttp')))"
    )
    for arguments in ((), ("--help",), ("--version",)):
        subprocess.run([sys.executable, "-c", script, *arguments], check=True, capture_output=True)


def test_help_of_a_command_needs_no_client() -> None:
    script = (
        "import sys; from indelible.cli import run;"
        "[run([*name.split(), '--help']) for name in sys.argv[1:]];"
        "sys.exit('aiohttp' in sys.modules)"
    )
    ours = [name for name in COMMANDS if name not in ("import", "export")]
    subprocess.run([sys.executable, "-c", script, *ours], check=True, capture_output=True)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_example_is_one_that_the_parser_takes(command: str) -> None:
    (listed,) = (each for each in ALL_LISTED if each.name == command)
    assert len(listed.examples) >= 2
    for example in listed.examples:
        words = shlex.split(example)
        typed = words[words.index("indelible") + 1 :]
        ends = [n for n, word in enumerate(typed) if word in ("|", ">", "<")]
        typed = typed[: ends[0]] if ends else typed
        arguments = ["@-" if word == "-" else word for word in typed]
        _, _, ignored = app.parse_args(arguments, exit_on_error=False, print_error=False)
        assert not ignored


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_its_options_and_two_examples(cli: Cli, command: str) -> None:
    done = cli(*command.split(), "--help")
    assert (done.code, done.err) == (0, "")
    _, _, examples = done.out.partition("Examples:")
    assert examples.count(f"indelible {command}") >= 2
    if command not in ("init", "webhook", "completion"):
        assert "--output" in done.out


def test_what_is_set_is_read_back_in_every_form(cli: Cli) -> None:
    assert cli("create", "config").code == 0
    done = cli("set", "config", "theme", '"dark"', "sizes", "[1, 2]")
    assert (done.code, done.out) == (0, "v1\n")
    assert cli("get", "config", "theme").out == '"dark"\n'
    assert cli("get", "config", "theme", "sizes").out == 'theme\t"dark"\nsizes\t[1, 2]\n'
    assert [e["key"] for e in cli("get", "config", "theme", "sizes", "-o", "json").json] == [
        "theme",
        "sizes",
    ]
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


def test_forget_says_what_goes_asks_and_gives_back(cli: Cli, profile_file: Path) -> None:
    cli("create", "config")
    for n in range(20):
        cli("set", "config", "theme", f'"{n}' + "x" * 400 + '"')
    planned = cli("forget", "config", "20", "--dry-run", "-o", "json").json
    assert (planned["versions"], planned["dry_run"]) == (19, True)
    assert cli("forget", "config", "20").code == 2  # nobody can be asked
    assert cli("get", "config", "theme", "--at", "1").code == 0
    ours, theirs = pty.openpty()
    asking = process(["forget", "config", "20"], profile_file, stdin=theirs)
    os.close(theirs)
    os.write(ours, b"config\n")
    out, err = asking.communicate(timeout=30)
    os.close(ours)
    assert "forget 19 versions of config, all before v20?" in err
    assert out.startswith("config begins at v20; ")
    done = cli("forget", "config", "20", "--yes", "-o", "json").json  # done already
    assert (done["first_version"], done["versions"]) == (20, 0)
    assert done["bytes_now"] < done["bytes_before"] / 2
    gone = cli("cat", "config", "--at", "3")
    assert (gone.code, "forgotten" in gone.err) == (3, True)
    for listing in (cli("versions", "config"), cli("history", "config", "theme")):
        assert listing.err == "-- what came before v20 is forgotten --\n"
    assert cli("forget", "config", "99", "--yes").code == 3
    assert cli("export", "config").code == 0
    refused = cli("export", "config", "--history")
    assert (refused.code, "export what it holds, without its history" in refused.err) == (3, True)


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
        ("libraries", True),
        ("profile", True),
        ("TLS", True),
        ("endpoint", True),
        ("ready", True),
        ("clock", True),
        ("API key", True),
    ]
    assert cli("doctor").out.count("✓") == 7


def test_drop_asks_for_the_name_on_a_terminal(cli: Cli, profile_file: Path) -> None:
    cli("create", "config")
    for typed, left in (("confg", ["config"]), ("config", [])):
        ours, theirs = pty.openpty()
        dropping = process(["drop", "config"], profile_file, stdin=theirs)
        os.close(theirs)
        os.write(ours, f"{typed}\n".encode())
        _, err = dropping.communicate(timeout=30)
        os.close(ours)
        assert "type its name" in err
        assert [each["name"] for each in cli("ls", "-o", "json").json] == left
        assert dropping.returncode == (2 if left else 0)


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize(
    ("typed", "offered"),
    [("indelible fol", "follow"), ("indelible set --exp", "--expect-version")],
)
def test_bash_completes_commands_and_options(
    cli: Cli, tmp_path: Path, typed: str, offered: str
) -> None:
    (tmp_path / "complete").write_text(cli("completion", "bash").out)
    words = " ".join(typed.split())
    script = (
        f"source {tmp_path}/complete; COMP_LINE='{words}'; COMP_POINT={len(words)};"
        f"COMP_WORDS=({words}); COMP_CWORD={len(words.split()) - 1};"
        "$(complete -p indelible | sed 's/.*-F \\([^ ]*\\).*/\\1/') indelible;"
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", script], capture_output=True, text=True, check=True
    )
    assert offered in done.stdout.split()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_every_command(cli: Cli, shell: str) -> None:
    script = cli("completion", shell).out
    for command in COMMANDS:
        assert command.split()[-1] in script


@pytest.mark.parametrize(
    ("begin", "head", "changes"),
    [
        (("--since", "v1"), "v1..v3", 3),
        (("--since", "1"), "v1..v3", 3),
        (("--since", "10m"), "v0..v3", 2),
        (("-n", "1"), "v2..v3", 1),
        (("-n", "99"), "v0..v3", 2),
    ],
)
def test_follow_begins_where_it_is_told_to(
    cli: Cli, blocking: Client, begin: tuple[str, str], head: str, changes: int
) -> None:
    log = blocking.log("config", create=True)
    log.set("a", 1)
    log.set("a", 2)
    log.set("b", 1)
    done = cli("follow", "config", *begin, "--once")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[0] == head
    assert len(done.out.splitlines()) == 1 + changes


def test_follow_tells_logs_apart_and_says_when(cli: Cli, blocking: Client) -> None:
    for name in ("config", "orders"):
        blocking.log(name, create=True).set("a", 1)
    done = cli(
        *("follow", "config", "orders", "--since", "v0", "--once"),
        *("--timestamps", "--color", "always"),
    )
    lines = sorted(done.out.splitlines())
    assert [line.split()[0] for line in lines] == [
        *["\x1b[33morders\x1b[0m"] * 2,
        *["\x1b[36mconfig\x1b[0m"] * 2,
    ]
    head = re.compile(r"v0\.\.v1  \d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d{4}\x1b")
    assert len([line for line in lines if head.search(line)]) == 2
    (one,) = cli("follow", "config", "--since", "v0", "--once", "-o", "json").lines
    assert (one["log"], one["from"], one["to"]) == ("config", 0, 1)


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


def test_follow_prints_the_logs_of_a_group_and_those_that_come_and_go(
    cli: Cli, profile_file: Path
) -> None:
    cli("create", "old", "--group", "orders")
    cli("set", "old", "a", "1")
    follower = process(["follow", "--group", "orders", "--since", "v0"], profile_file)
    assert follower.stdout is not None
    assert follower.stderr is not None
    assert follower.stdout.readline() == "old  v0..v1\n"
    assert follower.stdout.readline() == "old  + a\t1\n"
    cli("create", "new", "--group", "orders")
    cli("set", "new", "b", "2")
    assert follower.stdout.readline() == "new  v0..v1\n"
    assert follower.stdout.readline() == "new  + b\t2\n"
    cli("drop", "new", "--yes")
    assert follower.stderr.readline() == "-- new was dropped --\n"
    follower.send_signal(signal.SIGINT)
    assert follower.communicate(timeout=20) == ("", "")
    assert follower.returncode == 0
    done = cli("follow", "config", "--group", "orders")
    assert done.code == 2
    assert "--group goes with --since v0" in done.err


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


def test_a_full_disk_behind_stdout_is_told(cli: Cli, blocking: Client, profile_file: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    blocking.log("config", create=True).set("a", 1)
    with open("/dev/full", "w") as full:
        reader = process(["cat", "config"], profile_file, stdout=full)
        _, err = reader.communicate(timeout=30)
    assert reader.returncode == 1
    assert err.startswith("error: stdout cannot be written: No space left on device\n  next: ")
    assert "Traceback" not in err


def test_data_is_utf_8_whatever_the_locale(cli: Cli, blocking: Client, profile_file: Path) -> None:
    blocking.log("config", create=True).set("é", "…")
    reader = process(["cat", "config"], profile_file, env={"PYTHONIOENCODING": "ascii"})
    assert reader.communicate(timeout=30) == ('é\t"…"\n', "")


def test_a_fault_of_the_program_is_told_without_a_traceback(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("canary")

    monkeypatch.setattr("indelible.cli.reading.client_of", broken)
    done = cli("ls")
    assert done.code == 1
    assert done.err == (
        "error: KeyError, which should not have happened\n"
        "  next: run it again with --debug, and report what it prints\n"
    )
    assert "KeyError: 'canary'" in cli("ls", "--debug").err

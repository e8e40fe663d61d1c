"""The `indelible` command, as a process: what it prints where, and how it ends."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from indelible import Profile

CREDENTIALS = {"endpoint_url": "https://log.example", "customer_id": "t-1", "apikey": "ik_canary"}


def run(
    *arguments: str, stdin: str = "", env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "import indelible.cli; indelible.cli.main()", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        env=os.environ | {"TERM": "dumb", "COLUMNS": "100"} | (env or {}),
        check=False,
        timeout=60,
    )


def test_init_makes_a_profile_with_a_key_of_its_own(tmp_path: Path) -> None:
    credentials = tmp_path / "credentials.json"
    credentials.write_text(json.dumps(CREDENTIALS))
    keys = set()
    for name in ("one.json", "two.json"):
        path = tmp_path / name
        done = run("init", "--credentials", str(credentials), "--profile", str(path))
        assert (done.returncode, done.stdout) == (0, "")
        assert str(path) in done.stderr
        profile = Profile.load(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert json.loads(path.read_text()).keys() == CREDENTIALS.keys() | {"master_key_base64"}
        for secret in (profile.master_key_base64, profile.apikey):
            assert secret not in done.stderr
        keys.add(profile.master_key)
    assert len(keys) == 2


def test_init_reads_stdin_and_writes_where_the_variable_says(tmp_path: Path) -> None:
    path = tmp_path / "there" / "profile.json"
    env = {"INDELIBLE_PROFILE": str(path)}
    done = run("init", "--credentials", "-", stdin=json.dumps(CREDENTIALS), env=env)
    assert done.returncode == 0
    assert Profile.load(path).customer_id == "t-1"


def test_init_keeps_a_profile_that_is_there_unless_forced(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    arguments = ("init", "--credentials", "-", "--profile", str(path))
    assert run(*arguments, stdin=json.dumps(CREDENTIALS)).returncode == 0
    first = path.read_text()
    again = run(*arguments, stdin=json.dumps(CREDENTIALS))
    assert again.returncode == 4
    assert "only one that opens its logs" in again.stderr
    assert path.read_text() == first
    assert run(*arguments, "--force", stdin=json.dumps(CREDENTIALS)).returncode == 0
    assert path.read_text() != first


def test_init_refuses_credentials_that_hold_a_master_key(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    stdin = json.dumps(CREDENTIALS | {"master_key_base64": "canary"})
    done = run("init", "--credentials", "-", "--profile", str(path), stdin=stdin)
    assert done.returncode == 1
    assert "do not use this one" in done.stderr
    assert "canary" not in done.stderr
    assert not path.exists()


@pytest.mark.parametrize("stdin", ["", "{}", "[1]", json.dumps(CREDENTIALS | {"apikey": 1})])
def test_init_refuses_what_are_no_credentials(tmp_path: Path, stdin: str) -> None:
    path = tmp_path / "profile.json"
    done = run("init", "--credentials", "-", "--profile", str(path), stdin=stdin)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(("error: the credentials", "error: apikey is of type int"))
    assert not path.exists()


def test_init_names_a_file_that_is_not_there(tmp_path: Path) -> None:
    done = run("init", "--credentials", str(tmp_path / "absent"))
    assert done.returncode == 1
    assert "absent cannot be read" in done.stderr


def test_version_is_one_line() -> None:
    done = run("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("indelible 0.")
    assert done.stdout.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("inti",), "indelible --help"),
        (("init",), "indelible init --help"),
        (("init", "--credential", "x"), "indelible init --help"),
        (("-x",), "indelible --help"),
    ],
)
def test_wrong_usage_ends_with_2_and_says_what_there_is(
    arguments: tuple[str, ...], told: str
) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert told in done.stderr
    assert "Traceback" not in done.stderr

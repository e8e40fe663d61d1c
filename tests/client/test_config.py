"""Profiles: found, read, refused and written."""

import base64
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from indelible import ConfigError, Profile, ProfileExistsError
from indelible.config import check_transport, profile_path, read_credentials, tls_context

KEY = base64.b64encode(bytes(range(32))).decode()
MEMBERS: dict[str, Any] = {
    "endpoint_url": "https://log.example",
    "customer_id": "t-1",
    "apikey": "ik_secret",
    "master_key_base64": KEY,
}


def written(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "profile.json"
    path.write_text(text)
    path.chmod(mode)
    return path


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        Profile.from_json(text)
    return str(caught.value)


def test_a_profile_is_read_as_the_original_client_wrote_it(tmp_path: Path) -> None:
    path = written(tmp_path, json.dumps(MEMBERS))
    profile = Profile.load(path)
    assert profile == Profile.load(str(path)) == Profile.from_json(json.dumps(MEMBERS))
    assert profile.master_key == bytes(range(32))


@pytest.mark.parametrize("member", list(MEMBERS))
def test_a_missing_member_is_named(member: str) -> None:
    rest = {name: value for name, value in MEMBERS.items() if name != member}
    assert f"{member} is missing" in refusal(json.dumps(rest))


def test_an_unknown_member_is_named() -> None:
    assert "'endpoint'" in refusal(json.dumps(MEMBERS | {"endpoint": "x"}))


@pytest.mark.parametrize("member", list(MEMBERS))
@pytest.mark.parametrize("value", [1, None, ["x"], {}, True, "", "a\nb", "é"])
def test_a_member_of_another_kind_is_named(member: str, value: Any) -> None:
    assert member in refusal(json.dumps(MEMBERS | {member: value}))


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', "null", '{"apikey": "a", "apikey": "b"}'])
def test_what_is_no_object_is_refused(text: str) -> None:
    assert "profile" in refusal(text)


@pytest.mark.parametrize(
    "key", ["not base64!", "QUJD", base64.b64encode(bytes(31)).decode(), KEY[:-1], "-" * 43 + "="]
)
def test_a_master_key_is_thirty_two_bytes_of_base64(key: str) -> None:
    said = refusal(json.dumps(MEMBERS | {"master_key_base64": key}))
    assert "master_key_base64" in said
    assert key not in said


@pytest.mark.parametrize(
    "url",
    [
        "log.example",
        "ftp://log.example",
        "https://",
        "https:///path",
        "https://user:pw@log.example",
        "https://log.example?x=1",
        "https://log.example#x",
        "https://log.example:port",
    ],
)
def test_an_endpoint_that_is_none_is_refused(url: str) -> None:
    assert "endpoint_url" in refusal(json.dumps(MEMBERS | {"endpoint_url": url}))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o610])
def test_a_profile_that_others_may_read_or_change_is_refused(tmp_path: Path, mode: int) -> None:
    path = written(tmp_path, json.dumps(MEMBERS), mode)
    with pytest.raises(ConfigError, match="chmod 600"):
        Profile.load(path)


def test_an_absent_profile_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="indelible init"):
        Profile.load(tmp_path / "absent.json")


def test_a_bad_profile_names_its_file(tmp_path: Path) -> None:
    path = written(tmp_path, "{}")
    with pytest.raises(ConfigError, match=r"profile\.json: .*endpoint_url is missing"):
        Profile.load(path)


def test_a_profile_is_looked_up_by_argument_then_variable_then_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("INDELIBLE_PROFILE", raising=False)
    assert profile_path() == tmp_path / ".config/indelible/profile.json"
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")  # must be absolute, says its specification
    assert profile_path() == tmp_path / ".config/indelible/profile.json"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "x"))
    assert profile_path() == tmp_path / "x/indelible/profile.json"
    monkeypatch.setenv("INDELIBLE_PROFILE", "~/p.json")
    assert profile_path() == tmp_path / "p.json"
    assert profile_path("other.json") == Path("other.json")


def test_a_saved_profile_is_for_its_owner_alone_and_comes_back(tmp_path: Path) -> None:
    profile = Profile(**MEMBERS)
    path = tmp_path / "new" / "folder" / "profile.json"
    previous = os.umask(0)
    try:
        assert profile.save(path) == path
    finally:
        os.umask(previous)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Profile.load(path) == profile
    assert json.loads(path.read_text()) == MEMBERS
    assert [each.name for each in path.parent.iterdir()] == ["profile.json"]


def test_a_profile_is_never_written_over_unless_told(tmp_path: Path) -> None:
    path = written(tmp_path, "precious")
    profile = Profile(**MEMBERS)
    with pytest.raises(ProfileExistsError, match="may be the only one"):
        profile.save(path)
    assert path.read_text() == "precious"
    profile.save(path, overwrite=True)
    assert Profile.load(path) == profile
    assert [each.name for each in path.parent.iterdir()] == ["profile.json"]


def test_a_folder_that_cannot_be_written_to_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be made"):
        Profile(**MEMBERS).save(tmp_path / "file" / "profile.json")


def test_no_secret_of_a_profile_is_printed() -> None:
    shown = f"{Profile(**MEMBERS)!r} {Profile(**MEMBERS)!s}"
    assert "ik_secret" not in shown
    assert KEY not in shown


def test_credentials_have_three_members_and_never_a_master_key() -> None:
    credentials = {name: MEMBERS[name] for name in ("endpoint_url", "customer_id", "apikey")}
    assert read_credentials(json.dumps(credentials)) == credentials
    with pytest.raises(ConfigError, match="do not use this one") as caught:
        read_credentials(json.dumps(MEMBERS))
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:80", "http://127.8.9.1", "http://[::1]:80", "http://localhost", "https://x"],
)
def test_this_machine_and_https_need_no_permission(url: str) -> None:
    check_transport(url, allow_plain_http=False)


@pytest.mark.parametrize(
    "url",
    [
        "http://log.example",
        "http://10.0.0.1",
        "http://0.0.0.0",
        "http://localhost.example",
        "http://127.0.0.1.example",
        "http://[::ffff:10.0.0.1]",
    ],
)
def test_plain_http_to_another_machine_must_be_allowed_by_name(url: str) -> None:
    with pytest.raises(ConfigError, match="allow_plain_http=True"):
        check_transport(url, allow_plain_http=False)
    check_transport(url, allow_plain_http=True)


def test_certificates_that_cannot_be_read_are_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no certificates"):
        tls_context(tmp_path / "absent.pem")
    (tmp_path / "bad.pem").write_text("nothing")
    with pytest.raises(ConfigError, match="no certificates"):
        tls_context(tmp_path / "bad.pem")

"""What `indelible.v1` shares with the published library, and what it mends."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import indelible.v1
import indelible.v1.log
import pytest
from indelible.errors import ConfigError
from indelible.v1 import ApiErrorException, Cmd, HttpStatusError, Log, profileFromJson
from indelible.v1.service import Answer, handleError

from tests.v1.libraries import Library

PROFILE = {
    "customer_id": "c",
    "apikey": "k",
    "endpoint_url": "https://127.0.0.1:1",
    "master_key": bytes(32),
}


def profile_at(url: str) -> dict[str, Any]:
    return {**PROFILE, "endpoint_url": url}


@contextmanager
def peer(answer: bytes | None, heard: list[bytes] | None = None) -> Iterator[str]:
    """URL of a service that reads a little, says `answer` and hangs up; None is silence.

    What it reads goes into `heard`.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    accepted: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            accepted.append(connection)
            data = connection.recv(1 << 16)
            if heard is not None:
                heard.append(data)
            if answer is not None:
                connection.sendall(answer)
                connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
        for connection in accepted:
            connection.close()


def http_answer(status: str, body: bytes) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def test_everything_the_published_library_offers_is_there_with_its_signature(
    published: Library, ours: Library
) -> None:
    theirs, our = published.run("signatures"), ours.run("signatures")
    assert len(theirs) > 25
    assert {name: our.get(name) for name in theirs} == theirs


def test_all_names_what_a_star_import_brings() -> None:
    assert sorted(indelible.v1.__all__) == indelible.v1.__all__
    for name in indelible.v1.__all__:
        assert hasattr(indelible.v1, name)


# Mended: errors.


def test_api_error_is_an_exception_with_the_members_of_the_answer() -> None:
    body = {"code": "X", "codeNumber": 7, "message": "why", "details": {"a": "1"}}
    with pytest.raises(ApiErrorException) as refused:
        handleError(Answer(status_code=412, content=json.dumps(body).encode()))
    assert isinstance(refused.value, Exception)
    assert vars(refused.value) == body
    assert str(refused.value) == "X: why"


@pytest.mark.parametrize("content", [b"", b"<html>", b"[]", b"null", b"\xff"])
def test_answer_of_something_else_than_the_service_is_a_status_error(content: bytes) -> None:
    with pytest.raises(HttpStatusError, match="502") as refused:
        handleError(Answer(status_code=502, content=content))
    assert isinstance(refused.value, OSError)
    assert refused.value.response.content == content


def test_redirect_is_not_followed_with_the_api_key() -> None:
    moved = b"HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\nContent-Length: 0\r\n\r\n"
    with peer(moved) as url, pytest.raises(HttpStatusError, match="302"):
        Log("n", profile_at(url)).create()


def test_refusal_before_the_whole_update_was_sent_is_still_heard() -> None:
    body = b'{"code": "TOO_LARGE", "codeNumber": 1012, "message": "no", "details": {}}'
    update = [Cmd.Upsert("k", "v" * (8 << 20))]
    with (
        peer(http_answer("413 Too Large", body)) as url,
        pytest.raises(ApiErrorException) as refused,
    ):
        Log("n", profile_at(url)).update(update)
    assert refused.value.code == "TOO_LARGE"


# Mended: silence.


def test_silent_service_ends_in_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indelible.v1.log, "SILENCE_SECONDS", 0.2)
    with peer(None) as url, pytest.raises(TimeoutError):
        Log("n", profile_at(url)).create()


@pytest.mark.parametrize("answer", [b"", b"SMTP ready\r\n", b"HTTP/1.1 200 OK\r\nContent-Len"])
def test_peer_that_speaks_no_http_is_a_connection_error(answer: bytes) -> None:
    with peer(answer) as url, pytest.raises(ConnectionError):
        Log("n", profile_at(url)).version_diff()


def test_cut_off_answer_is_a_connection_error() -> None:
    cut = http_answer("200 OK", b'{"fromVersion": 0}')[:-5]
    with peer(cut) as url, pytest.raises(ConnectionError):
        Log("n", profile_at(url)).version_diff()


def test_nobody_there_is_a_connection_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ConnectionError):
        Log("n", profile_at(f"http://127.0.0.1:{port}")).create()


def test_https_is_never_spoken_in_clear() -> None:
    heard: list[bytes] = []
    with (
        peer(http_answer("200 OK", b""), heard) as url,
        pytest.raises(OSError, match="SSL"),
    ):
        Log("n", profile_at(url.replace("http:", "https:"))).create()
    assert b"apikey" not in b"".join(heard)


# Mended: keys in clear, profiles, generators.


def test_plain_http_leaves_this_machine_only_when_told() -> None:
    log = Log("n", profile_at("http://192.0.2.1:9"))
    with pytest.raises(ConfigError, match="allow_plain_http"):
        log.create()
    with pytest.raises(ValueError, match="scheme"):
        Log("n", profile_at("ftp://127.0.0.1")).create()


def test_profile_from_json_decodes_the_master_key() -> None:
    members = {"customer_id": "c", "apikey": "k", "endpoint_url": "u"}
    profile = profileFromJson(json.dumps(members | {"master_key_base64": "AQI="}))
    assert profile == members | {"master_key": b"\x01\x02"}


@pytest.mark.parametrize("missing", ["customer_id", "apikey", "endpoint_url", "master_key_base64"])
def test_profile_without_a_member_is_refused_naming_it(missing: str) -> None:
    members = dict.fromkeys(["customer_id", "apikey", "endpoint_url", "master_key_base64"], "")
    del members[missing]
    with pytest.raises(ValueError, match=missing):
        profileFromJson(json.dumps(members))


def test_profile_with_another_member_is_refused_naming_it() -> None:
    members = ["customer_id", "apikey", "endpoint_url", "master_key_base64", "colour"]
    with pytest.raises(ValueError, match="colour"):
        profileFromJson(json.dumps(dict.fromkeys(members, "")))


@pytest.mark.parametrize("kind", ["key_mode", "value_mode", "name_mode"])
def test_unknown_mode_is_refused(kind: str) -> None:
    options: dict[str, Any] = {kind: "xml"}
    with pytest.raises(ValueError, match="xml"):
        Log("n", PROFILE, **options)


def test_raw_mode_is_refused_with_encryption() -> None:
    with pytest.raises(ValueError, match="raw"):
        Log("n", PROFILE, key_mode="raw")


def test_changes_can_be_read_again(profile: Any, log_name: str) -> None:
    log = Log(log_name, profileFromJson(profile.read_text()))
    log.create()
    log.update([Cmd.Insert(f"key {i}", i) for i in range(60)])
    diff = log.version_diff()
    assert len(list(diff.changes())) == 60
    assert list(diff.changes()) == list(log)

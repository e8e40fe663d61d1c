"""The commands about webhooks, on a service that calls a receiver."""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from indelible import Client, webhooks

from tests.cli.conftest import Cli, with_new_tenant
from tests.client.conftest import profile_of
from tests.support.service import Service
from tests.support.webhooks import Receiver, answering

Until = Callable[..., Any]


NOWHERE = "http://127.0.0.1:9/hook"  # for what need not be received


@pytest.fixture
def profile_file(hooking_service: Service, tmp_path: Path) -> Path:
    return profile_of(with_new_tenant(hooking_service)).save(tmp_path / "profile.json")


@pytest.fixture
def hook(cli: Cli, blocking: Client, target: Receiver) -> dict[str, Any]:
    """A webhook of the log `config`, once it is active; with its secret."""
    blocking.log("config", create=True)
    made: dict[str, Any] = cli(
        "webhook", "create", target.url + "/hook", "config", "-o", "json"
    ).json
    until(lambda: shown(cli, made["webhook_id"])["state"] == "active")
    return made


def until(condition: Callable[[], bool], *, within_seconds: float = 20.0) -> None:
    """The commands block, so nothing else of this thread waits meanwhile."""
    deadline = time.monotonic() + within_seconds
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.02)


def shown(cli: Cli, webhook_id: str) -> dict[str, Any]:
    found: dict[str, Any] = cli("webhook", "show", webhook_id, "-o", "json").json
    return found


def deliveries(cli: Cli, webhook_id: str, *more: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = cli("webhook", "deliveries", webhook_id, *more, "-o", "json").json
    return found


def test_a_key_is_printed_once_by_create_and_verifies_what_is_delivered(
    cli: Cli, blocking: Client, target: Receiver
) -> None:
    log = blocking.log(["shop", "orders"], create=True)
    done = cli("webhook", "create", target.url + "/hook", '["shop", "orders"]')
    assert done.code == 0
    row, secret = done.out.splitlines()
    assert re.fullmatch(
        r'wh_\w{16}  unverified        0     0  http://\S+/hook  \["shop", "orders"\]', row
    )
    assert secret.startswith("whsec_")
    assert secret not in done.err
    webhook_id = row.split()[0]
    until(lambda: shown(cli, webhook_id)["state"] == "active")
    log.set("o-1", 1)
    until(lambda: bool(target.of_type("log.updated")))
    (received,) = target.of_type("log.updated")
    assert webhooks.verify(received.headers, received.body, secret).log_id == log.log_id
    for command in ("list", "show", "deliveries"):
        for form in ("text", "json", "ndjson"):
            arguments = () if command == "list" else (webhook_id,)
            told = cli("webhook", command, *arguments, "-o", form)
            assert told.code == 0
            assert secret not in told.out + told.err


def test_what_is_followed_is_a_log_by_name_or_id_a_group_or_all(cli: Cli, blocking: Client) -> None:
    log = blocking.log("config", create=True)
    log_id = log.log_id
    for arguments in (("config",), (log_id,), ("--group", "site"), ()):
        assert cli("webhook", "create", NOWHERE, *arguments).code == 0
    listed = cli("webhook", "list", "-o", "json").json
    assert [(w["log"], w["log_id"], w["group"]) for w in listed] == [
        ("config", log_id, None),
        ("config", log_id, None),
        (None, None, "site"),
        (None, None, None),
    ]
    assert [line.split("  ")[-1] for line in cli("webhook", "list").out.splitlines()] == [
        "OF",
        "config",
        "config",
        "[site]",
        "every log",
    ]
    log.drop()
    assert f"{log_id[:16]}… (gone)" in cli("webhook", "list").out


def test_keys_are_typed_in_the_logs_mode_and_become_tokens(cli: Cli, blocking: Client) -> None:
    blocking.log("config", create=True, key_mode="json")
    done = cli(
        *("webhook", "create", NOWHERE, "config"),
        *("--key", '["a", 1]', "--key", "-", "-o", "json"),
        stdin=b'"canary"',
    )
    assert len(done.json["tokens"]) == 2
    assert "canary" not in json.dumps(done.json)
    assert "config (2 keys)" in cli("webhook", "list").out


def test_an_asymmetric_key_is_public_and_shown_always(cli: Cli, blocking: Client) -> None:
    made = cli(
        *("webhook", "create", NOWHERE, "--signature", "ed25519", "--payload", "diff"),
        *("--description", "for\x1b[2J the site"),
    )
    key = made.out.splitlines()[1]
    assert key.startswith("whpk_")
    text = cli("webhook", "show", made.out.split()[0]).out
    assert key in text
    assert "for\\x1b[2J the site" in text
    assert "diff events since" in text


def test_deliveries_tell_each_attempt_and_what_was_answered(
    cli: Cli, blocking: Client, target: Receiver, hook: dict[str, Any]
) -> None:
    webhook_id = hook["webhook_id"]
    target.behaviours["/hook"] = answering(500)
    blocking.log("config").set("theme", "dark")
    until(lambda: bool(target.of_type("log.updated")))
    target.behaviours.clear()
    until(lambda: deliveries(cli, webhook_id, "-n", "1")[0]["state"] == "delivered")
    told = deliveries(cli, webhook_id, "--state", "delivered", "-n", "1")[0]
    assert (told["type"], told["from"], told["to"]) == ("log.updated", 0, 1)
    assert [a["status"] for a in told["attempts"]] == [500, 200]
    assert told["attempts"][0]["answer"] == "this is 500"
    head, first, second = cli("webhook", "deliveries", webhook_id, "-n", "1").out.splitlines()
    assert re.fullmatch(rf"delivered  \S+ \S+  log\.updated  v0\.\.v1  {webhook_id}:\S+:1", head)
    assert re.fullmatch(r"    \S+ \S+  500  \d+ ms  this is 500", first)
    assert re.fullmatch(r"    \S+ \S+  200  \d+ ms  \{\}", second)
    assert deliveries(cli, webhook_id, "--state", "dead") == []
    assert "last attempt" in cli("webhook", "show", webhook_id).out


def test_a_rotated_key_is_printed_and_both_verify(
    cli: Cli, blocking: Client, target: Receiver, hook: dict[str, Any]
) -> None:
    done = cli("webhook", "rotate-secret", hook["webhook_id"])
    fresh = done.out.splitlines()[1]
    assert fresh not in (hook["secret"], "")
    assert cli("webhook", "show", hook["webhook_id"]).out.count("signed with a secret key") == 2
    blocking.log("config").set("theme", "dark")
    until(lambda: bool(target.of_type("log.updated")))
    (received,) = target.of_type("log.updated")
    for key in (fresh, hook["secret"]):
        assert webhooks.verify(received.headers, received.body, key).to_version == 1


def test_a_test_event_is_triggered(cli: Cli, target: Receiver, hook: dict[str, Any]) -> None:
    done = cli("webhook", "trigger", hook["webhook_id"], "-o", "json")
    until(lambda: bool(target.of_type("webhook.test")))
    assert target.of_type("webhook.test")[0].id == done.json["delivery_id"]
    assert cli("webhook", "trigger", hook["webhook_id"]).out.startswith("queued wh_")


def test_what_was_disabled_is_enabled(
    cli: Cli, blocking: Client, target: Receiver, hook: dict[str, Any]
) -> None:
    webhook_id = hook["webhook_id"]
    target.behaviours["/hook"] = answering(410)
    blocking.log("config").set("theme", "dark")
    until(lambda: shown(cli, webhook_id)["state"] == "disabled")
    assert re.match(rf"{webhook_id}  disabled: .+\n", cli("webhook", "show", webhook_id).out)
    target.behaviours.clear()
    assert cli("webhook", "enable", webhook_id).out.startswith(f"{webhook_id}  unverified")
    until(lambda: shown(cli, webhook_id)["state"] == "active")


@pytest.mark.parametrize("since", ["2d", "10m", "2026-01-07T10:00:00Z", "2026-01-07"])
def test_what_died_is_queued_again(cli: Cli, since: str) -> None:
    made = cli("webhook", "create", NOWHERE, "-o", "json").json
    done = cli("webhook", "replay", made["webhook_id"], "--since", since)
    assert (done.code, done.out) == (0, "0 deliveries queued again\n")


def test_a_deleted_webhook_is_not_found(cli: Cli, hook: dict[str, Any]) -> None:
    webhook_id = hook["webhook_id"]
    assert cli("webhook", "delete", webhook_id).out == f"deleted {webhook_id}\n"
    assert cli("webhook", "list", "-o", "json").json == []
    for command in ("show", "delete", "enable", "deliveries", "rotate-secret", "trigger"):
        done = cli("webhook", command, webhook_id)
        assert done.code == 3
        assert "NONEXISTENT_WEBHOOK" in done.err
        assert "next: indelible webhook list" in done.err


# what is typed, the exit code, and what must be told
MISTAKES = {
    "a log that is not there": ("create https://example.org nothing", 3, "'nothing'"),
    "an id that is no log's": ("create https://example.org " + "00" * 32, 3, "NONEXISTENT_LOG"),
    "a log and a group": ("create https://example.org config --group a", 2, "one of them"),
    "a key of no log": ("create https://example.org --key a", 2, "give the LOG"),
    "a key of an id": ("create https://example.org " + "00" * 32 + " --key a", 2, "by its name"),
    "a URL that is none": ("create example.org config", 2, "url"),
    "a signature that is none": ("create https://example.org --signature rsa", 2, "ed25519"),
    "an id that is none": ("show config", 2, "a webhook's id is like wh_"),
    "a state that is none": ("deliveries wh_0123456789abcdef --state lost", 2, "lost"),
    "no time to replay since": ("replay wh_0123456789abcdef", 2, "--since"),
    "a time that is none": ("replay wh_0123456789abcdef --since v12", 2, "neither an age"),
    "a time before all": ("replay wh_0123456789abcdef --since 9999999d", 2, "calendars"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_with_its_next_step(cli: Cli, blocking: Client, mistake: str) -> None:
    typed, code, told = MISTAKES[mistake]
    blocking.log("config", create=True)
    done = cli("webhook", *typed.split())
    assert (done.code, done.out) == (code, ""), done.err
    assert told in done.err
    assert re.fullmatch(r"error: .+\n  next: .+\n", done.err), done.err
    assert cli("webhook", "list", "-o", "json").json == []

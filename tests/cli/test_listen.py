"""`indelible webhook listen` sends what webhooks would, and says what came of it."""

import asyncio
import re
import signal
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web
from indelible import Client, webhooks
from indelible_protocol.webhooks import Key, Kind
from standardwebhooks.webhooks import Webhook

from tests.cli.conftest import Cli, process
from tests.support.ports import free_port
from tests.support.webhooks import Received, Receiver, answering

LINE = re.compile(r"(\d{3}|---)  [\d,]+ ms  (.+)")


@pytest.fixture
def listen(cli: Cli, target: Receiver) -> Callable[..., list[tuple[str, str]]]:
    """Status and words of each line, of a run that ended well."""

    def call(*arguments: str) -> list[tuple[str, str]]:
        done = cli("webhook", "listen", *arguments, "--forward-to", target.url + "/hook")
        assert done.code == 0, done.err
        found = [LINE.fullmatch(line) for line in done.out.splitlines()]
        assert all(found), done.out
        return [(match[1], match[2]) for match in found if match]

    return call


def test_what_it_sends_is_verified_here_and_by_the_independent_library(
    cli: Cli, blocking: Client, target: Receiver, tmp_path: Path
) -> None:
    log = blocking.log("config", create=True, group="site")
    log.set("theme", "dark")
    log.set("theme", "light")
    done = cli(
        *("webhook", "listen", "config", "--since", "v0", "--once"),
        *("--forward-to", target.url + "/hook"),
    )
    assert done.code == 0
    (secret,) = re.findall(r"^signing with (whsec_\S{44})$", done.err, re.MULTILINE)
    assert secret not in done.out
    assert [each.type for each in target.requests] == ["webhook.challenge", "log.updated"]
    for each in target.requests:
        assert each.path == "/hook"
        assert each.headers["content-type"] == "application/json"
        Webhook(secret).verify(each.body, each.headers)
        event = webhooks.verify(each.headers, each.body, secret)
    assert (event.log_id, event.group) == (log.log_id, "site")
    assert (event.from_version, event.to_version) == (0, 2)
    assert event.id.endswith(":2")
    assert b"light" not in target.requests[-1].body


def test_a_line_tells_each_delivery_in_every_form(
    cli: Cli, blocking: Client, target: Receiver
) -> None:
    blocking.log(["shop", "orders"], create=True).set("a", 1)
    call = (
        *("webhook", "listen", '["shop", "orders"]', "--since", "v0", "--once"),
        *("--forward-to", target.url),
    )
    first, second = cli(*call).out.splitlines()
    assert re.fullmatch(r"200  \d+ ms  webhook\.challenge", first)
    assert re.fullmatch(r'200  \d+ ms  log\.updated  \["shop", "orders"\]  v0\.\.v1', second)
    for form in ("json", "ndjson"):
        _, told = cli(*call, "-o", form).lines
        assert told.pop("took_ms") >= 0
        assert told.pop("delivery_id") == target.requests[-1].headers["webhook-id"]
        assert told == {
            "type": "log.updated",
            "log": ["shop", "orders"],
            "from": 0,
            "to": 1,
            "status": 200,
            "error": "",
        }


def test_a_key_in_a_file_is_made_once_and_kept(
    cli: Cli, blocking: Client, target: Receiver, tmp_path: Path
) -> None:
    blocking.log("config", create=True).set("a", 1)
    file = tmp_path / "webhook.key"
    for _ in range(2):
        done = cli(
            *("webhook", "listen", "--since", "v0", "--once", "--secret-file", str(file)),
            *("--forward-to", target.url, "--quiet"),
        )
        assert (done.code, done.err) == (0, "")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    for each in target.requests:
        webhooks.verify(each.headers, each.body, file.read_text().strip())
    assert len(target.requests) == 4
    ids = {each.id for each in target.of_type("log.updated")}
    assert len(ids) == 2  # a second run is no repetition of the first

    asymmetric = Key(Kind.SIGNING, bytes(range(32)))
    file.write_text(asymmetric.spelled())
    done = cli(
        *("webhook", "listen", "--since", "v0", "--once", "--secret-file", str(file)),
        *("--forward-to", target.url),
    )
    assert asymmetric.spelled() not in done.err
    last = target.requests[-1]
    event = webhooks.verify(last.headers, last.body, asymmetric.public().spelled())
    assert event.to_version == 1


@pytest.mark.parametrize("status", [302, 307, 404, 410, 429, 500])
def test_what_fails_is_told_and_not_tried_again(
    listen: Callable[..., list[tuple[str, str]]],
    blocking: Client,
    target: Receiver,
    status: int,
) -> None:
    blocking.log("config", create=True).set("a", 1)
    target.answers_challenges = False
    target.behaviours["/hook"] = answering(status, location=target.url + "/elsewhere")
    lines = listen("config", "--since", "v0", "--once")
    assert [line[0] for line in lines] == [str(status)] * 2
    assert len(target.requests) == 2


def test_a_challenge_that_is_not_answered_is_told(
    cli: Cli, blocking: Client, target: Receiver
) -> None:
    blocking.log("config", create=True).set("a", 1)
    target.answers_challenges = False
    call = ("webhook", "listen", "--since", "v0", "--once", "--forward-to", target.url)
    for answer in (b"", b"[]", b'{"challenge": "other"}', b"{" * 9_000, b"\xff"):

        async def answering_so(_received: Received, answer: bytes = answer) -> web.Response:
            return web.Response(body=answer)

        target.behaviours["/"] = answering_so
        done = cli(*call)
        assert done.code == 0
        assert "it must answer" in done.err
    target.answers_challenges = True
    assert "it must answer" not in cli(*call).err


def test_nobody_there_is_told_and_is_no_failure_of_the_command(cli: Cli, blocking: Client) -> None:
    blocking.log("config", create=True).set("a", 1)
    done = cli(
        *("webhook", "listen", "--since", "v0", "--once"),
        *("--forward-to", f"http://127.0.0.1:{free_port()}"),
    )
    assert done.code == 0
    for line in done.out.splitlines():
        assert re.fullmatch(r"---  [\d,]+ ms  .*  Connection refused", line)


def test_only_versions_that_change_the_keys_are_sent(
    listen: Callable[..., list[tuple[str, str]]], blocking: Client, target: Receiver
) -> None:
    log = blocking.log("config", create=True)
    log.set("theme", "dark")
    lines = listen("config", "--since", "v0", "--once", "--key", "size", "--key", "theme")
    assert lines[1][1] == "log.updated  config  v0..v1"


def test_logs_are_chosen_by_group_or_all_that_can_be_opened(
    listen: Callable[..., list[tuple[str, str]]], blocking: Client
) -> None:
    for name, group in (("a", "site"), ("b", "site"), ("c", "")):
        blocking.log(name, create=True, group=group).set("k", 1)
    told = [words for _, words in listen("--group", "site", "--since", "v0", "--once")]
    assert sorted(told[1:]) == ["log.updated  a  v0..v1", "log.updated  b  v0..v1"]
    assert len(listen("--since", "v0", "--once")) == 4


# A process, because ^C belongs to one.


def test_it_goes_on_until_interrupted_one_delivery_at_a_time(
    blocking: Client, target: Receiver, profile_file: Path
) -> None:
    logs = [blocking.log(name, create=True) for name in ("a", "b")]
    listener = process(
        ["webhook", "listen", "a", "b", "--forward-to", target.url],
        profile_file,
    )
    assert listener.stdout is not None
    assert listener.stdout.readline().endswith("webhook.challenge\n")
    for n in range(1, 4):
        for log in logs:
            log.set("k", n)
            assert listener.stdout.readline().endswith(f"{log.name}  v{n - 1}..v{n}\n")
    logs[0].drop()
    assert listener.stdout.readline().endswith("log.deleted  a\n")
    logs[1].set("k", 4)
    assert listener.stdout.readline().endswith("b  v3..v4\n")
    listener.send_signal(signal.SIGINT)
    out, err = listener.communicate(timeout=20)
    assert (listener.returncode, out) == (0, "")
    assert re.fullmatch(r"signing with whsec_\S+\n", err)
    assert [each.type for each in target.requests][-2:] == ["log.deleted", "log.updated"]


def test_a_log_that_is_made_later_in_the_group_is_told_too(
    blocking: Client, target: Receiver, profile_file: Path
) -> None:
    blocking.log("a", create=True, group="site")
    listener = process(
        ["webhook", "listen", "--group", "site", "--forward-to", target.url], profile_file
    )
    assert listener.stdout is not None
    assert listener.stdout.readline().endswith("webhook.challenge\n")
    blocking.log("other", create=True, group="").set("k", 1)
    blocking.log("b", create=True, group="site").set("k", 1)
    assert listener.stdout.readline().endswith("log.updated  b  v0..v1\n")
    listener.send_signal(signal.SIGINT)
    assert listener.communicate(timeout=20)[0] == ""


def test_an_event_waits_until_the_one_before_it_is_answered(
    blocking: Client, target: Receiver, profile_file: Path
) -> None:
    for name in ("a", "b", "c"):
        blocking.log(name, create=True).set("k", 1)
    under_way = 0
    most = 0

    async def slowly(_received: Received) -> web.Response:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.1)  # in which another could come
        under_way -= 1
        return web.json_response({})

    target.behaviours["/"] = slowly
    listener = process(
        ["webhook", "listen", "--since", "v0", "--once", "--forward-to", target.url],
        profile_file,
    )
    listener.communicate(timeout=20)
    assert listener.returncode == 0
    assert len(target.of_type("log.updated")) == 3
    assert most == 1

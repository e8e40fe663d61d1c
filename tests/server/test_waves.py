"""Who wait for the same are answered at once, with what each would have been answered alone.

An answer that came by a wave is known by its head, which ends with the request's id.
"""

import asyncio
import json
import re
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from tests.process.test_waiting import until_waiting
from tests.server.test_service import make_log, session, upsert
from tests.support.polling import until
from tests.support.service import Service, StartService, make_tenant, store_of

ANSWER_SECONDS = 10.0
VARYING = re.compile(rb"(?im)^(indelible-request-id|date): .*\r\n")


class RawAnswer(NamedTuple):
    head: bytes
    body: bytes

    @property
    def status(self) -> int:
        return int(self.head.split(b" ", 2)[1])

    @property
    def came_by_wave(self) -> bool:
        return self.head.rstrip().splitlines()[-1].startswith(b"indelible-request-id: ")

    @property
    def lasting(self) -> tuple[list[bytes], bytes]:
        """All but what differs from one request to the next; headers have no order."""
        return sorted(VARYING.sub(b"", self.head).lower().splitlines()), self.body

    @property
    def moved_to(self) -> int:
        return int(json.loads(self.body)["to"])


class Line:
    """One connection: what is asked on it, in which version of HTTP, and what comes back."""

    def __init__(
        self, apikey: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._apikey = apikey
        self.reader, self.writer = reader, writer

    def ask(
        self, path: str, *headers: str, method: str = "GET", version: str = "1.1", body: str = ""
    ) -> None:
        lines = [f"{method} {path} HTTP/{version}", "Host: x", *headers]
        lines.append(f"Authorization: Bearer {self._apikey}")
        self.writer.write("\r\n".join([*lines, "", body]).encode())

    async def answer(self, *, has_body: bool = True) -> RawAnswer:
        async with asyncio.timeout(ANSWER_SECONDS):
            head = await self.reader.readuntil(b"\r\n\r\n")
            found = re.search(rb"(?i)content-length: (\d+)", head)
            length = int(found[1]) if found and has_body else 0
            return RawAnswer(head, await self.reader.readexactly(length))


@asynccontextmanager
async def lines(
    service: Service, count: int, *, tls: ssl.SSLContext | None = None, buffer_bytes: int = 0
) -> AsyncIterator[list[Line]]:
    parts = urlsplit(service.url)
    made = []
    try:
        for _ in range(count):
            plug = socket.socket()
            if buffer_bytes:
                plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
            plug.setblocking(False)
            address = (parts.hostname, parts.port)
            await asyncio.get_running_loop().sock_connect(plug, address)
            name = "localhost" if tls else None
            opened = await asyncio.open_connection(sock=plug, ssl=tls, server_hostname=name)
            made.append(Line(service.apikey, *opened))
        yield made
    finally:
        for line in made:
            line.writer.close()
            with suppress(OSError):
                await line.writer.wait_closed()


async def asked_and_waiting(service: Service, all_of: list[Line], path: str, *headers: str) -> None:
    for line in all_of:
        line.ask(path, *headers)
    await until_waiting(service, len(all_of))


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("from=1", ()),
        ("from=1&order=key&limit=1000", ("Accept: application/json",)),
        ("from=1", ("Accept: application/msgpack",)),
        ("from=1&interval=0", ("Accept: application/msgpack",)),
    ],
)
async def test_a_wave_answers_what_each_would_have_been_answered_alone(
    service: Service, query: str, headers: tuple[str, ...]
) -> None:
    async with session(service) as http, lines(service, 6) as waiting:
        log = await make_log(http)
        await upsert(http, log, "a", "1")
        *crowd, alone = waiting
        for line in crowd:
            line.ask(f"{log}/diff?{query}&wait=30", *headers)
        alone.ask(f"{log}/diff?{query}&wait=30", 'If-None-Match: "unknown"', *headers)
        await until_waiting(service, 6)
        await upsert(http, log, "a", "2")
        answers = [await line.answer() for line in waiting]
        assert [answer.came_by_wave for answer in answers] == [True] * 5 + [False]
        assert answers[0].status == 200
        assert all(answer.lasting == answers[-1].lasting for answer in answers)
        ids = {VARYING.search(answer.head) and answer.head.split()[-1] for answer in answers[:5]}
        assert len(ids) == 5, "each has an id of its own"


async def test_a_follower_keeps_its_connection_from_wave_to_wave(service: Service) -> None:
    async with session(service) as http, lines(service, 20) as crowd:
        log = await make_log(http)
        for version in range(5):
            await asked_and_waiting(service, crowd, f"{log}/diff?from={version}&wait=30")
            await upsert(http, log, "key", f"{version}")
            for line in crowd:
                answer = await line.answer()
                assert (answer.moved_to, answer.came_by_wave) == (version + 1, True)


async def test_crowds_with_different_questions_get_different_answers(service: Service) -> None:
    async with session(service) as http, lines(service, 6) as waiting:
        log = await make_log(http)
        for number, line in enumerate(waiting):
            form = "msgpack" if number % 2 else "json"
            interval = "&interval=7" if number > 3 else ""
            line.ask(f"{log}/diff?from=0&wait=30{interval}", f"Accept: application/{form}")
        await until_waiting(service, 6)
        await upsert(http, log, "a", "1")
        answers = [await line.answer() for line in waiting]
        assert all(answer.came_by_wave for answer in answers)
        assert len({answer.body for answer in answers}) == 2
        assert [b"Indelible-Interval" in answer.head for answer in answers] == [False] * 4 + [
            True
        ] * 2


@pytest.mark.parametrize(
    ("version", "headers", "closes"),
    [
        ("1.1", ("Connection: close",), True),
        ("1.0", (), True),
        ("1.0", ("Connection: keep-alive",), False),
    ],
)
async def test_what_is_unusual_about_a_request_is_left_to_its_handler(
    service: Service, version: str, headers: tuple[str, ...], closes: bool
) -> None:
    async with session(service) as http, lines(service, 2) as (line, usual):
        log = await make_log(http)
        line.ask(f"{log}/diff?from=0&wait=30", *headers, version=version)
        usual.ask(f"{log}/diff?from=0&wait=30")
        await until_waiting(service, 2)
        await upsert(http, log, "a", "1")
        answer = await line.answer()
        assert (answer.moved_to, answer.came_by_wave) == (1, False)
        assert answer.body == (await usual.answer()).body
        if closes:
            assert await line.reader.read() == b""
        else:
            line.ask(f"{log}/diff?from=0", version=version)
            assert (await line.answer()).moved_to == 1


async def test_a_head_request_that_waits_is_answered_without_a_body(service: Service) -> None:
    async with session(service) as http, lines(service, 1) as (line,):
        log = await make_log(http)
        line.ask(f"{log}/diff?from=0&wait=30", method="HEAD")
        await until_waiting(service, 1)
        await upsert(http, log, "a", "1")
        assert (await line.answer(has_body=False)).status == 200
        line.ask(f"{log}/diff?from=0")
        assert (await line.answer()).moved_to == 1


async def test_a_body_that_a_waiting_get_brings_is_not_taken_for_the_next_request(
    service: Service,
) -> None:
    async with session(service) as http, lines(service, 1) as (line,):
        log = await make_log(http)
        line.ask(f"{log}/diff?from=0&wait=30", "Content-Length: 3", body="abc")
        await until_waiting(service, 1)
        await upsert(http, log, "a", "1")
        assert (await line.answer()).moved_to == 1
        line.ask(f"{log}/diff?from=0")
        assert (await line.answer()).moved_to == 1


async def test_requests_behind_a_waiting_one_are_answered_in_their_order(service: Service) -> None:
    async with session(service) as http, lines(service, 1) as (line,):
        log = await make_log(http)
        line.ask(f"{log}/diff?from=0&wait=30")
        line.ask(f"{log}/diff?from=0&to=0")
        line.ask(f"{log}/diff?from=1&wait=30")
        await until_waiting(service, 1)
        await upsert(http, log, "a", "1")
        assert [(await line.answer()).moved_to for _ in range(2)] == [1, 0]
        await until_waiting(service, 1)
        await upsert(http, log, "a", "2")
        last = await line.answer()
        assert (last.moved_to, last.came_by_wave) == (2, True)


async def test_clients_that_left_are_passed_over(service: Service) -> None:
    async with session(service) as http, lines(service, 30) as waiting:
        log = await make_log(http)
        await asked_and_waiting(service, waiting, f"{log}/diff?from=0&wait=30")
        for line in waiting[::2]:
            line.writer.transport.abort()
        await upsert(http, log, "a", "1")
        for line in waiting[1::2]:
            assert (await line.answer()).moved_to == 1
        await until_waiting(service, 0)


async def test_who_reads_slowly_gets_whole_answers_in_their_order(service: Service) -> None:
    """The first is larger than what both kernels hold: its rest lies in the process."""
    async with session(service) as http, lines(service, 1, buffer_bytes=4_096) as (slow,):
        log = await make_log(http)
        for number in range(12):
            await upsert(http, log, f"key-{number}", "x" * 500_000)
        slow.ask(f"{log}/diff?from=0&to=8")
        slow.ask(f"{log}/diff?from=12&wait=30")
        reading = asyncio.create_task(slow.answer())
        await until_waiting(service, 1)
        await upsert(http, log, "last", "1")
        assert (await reading).moved_to == 8
        assert (await slow.answer()).moved_to == 13


async def test_an_answer_of_many_bytes_is_left_to_the_handlers(service: Service) -> None:
    async with session(service) as http, lines(service, 3) as crowd:
        log = await make_log(http)
        await asked_and_waiting(service, crowd, f"{log}/diff?from=0&wait=30")
        await upsert(http, log, "a", "x" * 100_000)
        for line in crowd:
            answer = await line.answer()
            assert (answer.moved_to, answer.came_by_wave) == (1, False)


async def test_a_log_that_is_deleted_is_told_of_as_gone(service: Service) -> None:
    async with session(service) as http, lines(service, 5) as crowd:
        log = await make_log(http)
        await asked_and_waiting(service, crowd, f"{log}/diff?from=0&wait=30")
        async with http.delete(log) as deleted:
            assert deleted.status == 204
        for line in crowd:
            answer = await line.answer()
            assert (answer.status, json.loads(answer.body)["code"]) == (410, "LOG_REPLACED")


async def test_each_request_of_a_wave_has_its_line_in_the_log(
    start_service: StartService, tmp_path: Path
) -> None:
    service = start_service("all", "--data", str(tmp_path / "data"))
    _, service.apikey = await make_tenant(*await store_of(service))
    async with session(service) as http, lines(service, 40) as crowd:
        log = await make_log(http)
        await asked_and_waiting(service, crowd, f"{log}/diff?from=0&wait=30")
        await upsert(http, log, "a", "1")
        ids = {(await line.answer()).head.split()[-1].decode() for line in crowd}
        await until_waiting(service, 0)

    def told() -> list[dict[str, Any]]:
        return [line for line in service.events() if line.get("request_id") in ids]

    await until(lambda: len(told()) == 40)
    assert {(line["status"], line["waited"], line["code"]) for line in told()} == {
        (200, True, None)
    }


async def test_waves_travel_through_tls(start_service: StartService, tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    command += ["-keyout", str(key), "-out", str(cert), "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost"]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed; it makes the test's certificate")
    service = start_service(
        "all",
        "--data",
        str(tmp_path / "data"),
        "--tls-cert",
        str(cert),
        "--tls-key",
        str(key),
        *("--operations-listen", "127.0.0.1:0"),
    )
    _, service.apikey = await make_tenant(*await store_of(service))
    trusting = ssl.create_default_context(cafile=str(cert))
    operations = next(e["url"] for e in service.events() if e["event"] == "operations.listening")
    async with lines(service, 8, tls=trusting) as (writer, *crowd):
        writer.ask(
            "/v2/names/bG9n?kind=opaque",
            "Content-Type: application/json",
            "Content-Length: 2",
            method="PUT",
            body="{}",
        )
        description = json.loads((await writer.answer()).body)["description"]
        log = "/v2/logs/" + description["log_id"].translate(str.maketrans("+/", "-_", "="))
        for line in crowd:
            line.ask(f"{log}/diff?from=0&wait=30")
        await until_waiting(Service(arguments=(), log_file=tmp_path, url=operations), 7)
        body = json.dumps({"commands": [{"type": "Upsert", "key": "YQ==", "value": "MQ=="}]})
        writer.ask(
            f"{log}/commits",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            method="POST",
            body=body,
        )
        assert (await writer.answer()).status == 201
        for line in crowd:
            answer = await line.answer()
            assert (answer.moved_to, answer.came_by_wave) == (1, True)

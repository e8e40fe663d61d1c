"""One attempt at a time, against small servers that answer in every wrong way."""

import asyncio
import gzip
import shutil
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from indelible import (
    AsyncClient,
    ConfigError,
    ConflictError,
    DeniedError,
    ErrorCode,
    IndelibleError,
    NotFoundError,
    Profile,
    RequestError,
    UnavailableError,
    VerificationError,
    transport,
)
from indelible.config import tls_context
from indelible.transport import Request, Transport
from indelible_protocol import messages
from indelible_protocol.messages import Form

from tests.client.test_config import MEMBERS
from tests.support.polling import until

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
LISTING = messages.Listing(logs=[], cursor=None)
GET: Request[messages.Listing] = Request(method="GET", path="/v2/logs", answer=messages.Listing)
COMMIT: Request[messages.Committed] = Request(
    method="POST", path="/v2/logs/x/commits", answer=messages.Committed, body=LISTING
)


class Stub:
    """A server whose every answer is `handler`'s."""

    def __init__(self) -> None:
        self.handler: Handler = self._listing
        self.requests: list[web.Request] = []
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._server = TestServer(app)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        return await self.handler(request)

    async def _listing(self, request: web.Request) -> web.StreamResponse:
        return packed(LISTING)

    def answer(self, response: Callable[[], web.Response]) -> None:
        async def handler(request: web.Request) -> web.StreamResponse:
            return response()

        self.handler = handler

    @property
    def url(self) -> str:
        return str(self._server.make_url("")).rstrip("/")

    async def start(self) -> None:
        await self._server.start_server()

    async def close(self) -> None:
        await self._server.close()


def packed(message: messages.Message, **settings: object) -> web.Response:
    body = messages.encode(message, Form.MSGPACK)
    return web.Response(body=body, content_type=Form.MSGPACK.value, **settings)  # type: ignore[arg-type]


def refused(
    code: ErrorCode, form: Form = Form.MSGPACK, headers: dict[str, str] | None = None
) -> web.Response:
    problem = messages.problem(
        code,
        "the message",
        {"current_version": 7, "index": 2},
        request_id="r-1",
        url="/errors",
    )
    return web.Response(
        status=code.http_status,
        body=messages.encode(problem, form),
        content_type=messages.PROBLEM_TYPES[form],
        headers=headers,
    )


@pytest.fixture
async def stub() -> AsyncIterator[Stub]:
    stub = Stub()
    await stub.start()
    yield stub
    await stub.close()


@pytest.fixture
async def wire(stub: Stub) -> AsyncIterator[Transport]:
    wire = Transport(stub.url, "ik_canary", database="default", tls=None)
    yield wire
    await wire.close()


async def fault(wire: Transport, request: Request[messages.Committed] = COMMIT) -> IndelibleError:
    with pytest.raises(IndelibleError) as caught:
        await wire.send(request, 5.0)
    return caught.value


async def test_a_request_says_who_asks_and_takes_no_compressed_answer(
    wire: Transport, stub: Stub
) -> None:
    answer = await wire.send(GET, 5.0)
    assert answer.message == LISTING
    headers = stub.requests[0].headers
    assert headers["Authorization"] == "Bearer ik_canary"
    assert headers["Accept"] == "application/msgpack"
    assert headers["Accept-Encoding"] == "identity"
    assert headers["User-Agent"].startswith("indelible/")
    assert "Indelible-Database" not in headers
    assert "Cookie" not in headers


async def test_cookies_are_neither_kept_nor_sent(wire: Transport, stub: Stub) -> None:
    stub.answer(lambda: packed(LISTING, headers={"Set-Cookie": "a=b"}))
    for _ in range(2):
        await wire.send(GET, 5.0)
    assert all("Cookie" not in request.headers for request in stub.requests)


KINDS = {
    DeniedError: ["BAD_API_KEY", "UNAUTHORIZED_OPERATION"],
    NotFoundError: [
        "NONEXISTENT_VERSION",
        "NONEXISTENT_LOG",
        "NONEXISTENT_KEY",
        "NONEXISTENT_WEBHOOK",
        "LOG_REPLACED",
        "FORGOTTEN_VERSION",
    ],
    ConflictError: [
        "UNEXPECTED_VERSION",
        "UNEXPECTED_VALUE",
        "NONEXISTENT_VALUE",
        "UNEXPECTED_ENTRY",
        "LOG_EXISTS",
    ],
    UnavailableError: [
        "TRANSACTION_CONFLICT",
        "RATE_LIMITED",
        "OVERLOADED",
        "OUTCOME_UNKNOWN",
        "STORAGE_FULL",
        "QUOTA_EXCEEDED",
        "NOT_DURABLE",
        "INTERNAL_ERROR",
        "REQUEST_TIMEOUT",
    ],
}


@pytest.mark.parametrize("form", list(Form), ids=["msgpack", "json"])
async def test_every_code_becomes_the_class_that_says_what_to_do(
    wire: Transport, stub: Stub, form: Form
) -> None:
    expected = {name: kind for kind, names in KINDS.items() for name in names}
    for code in ErrorCode:
        stub.answer(lambda: refused(code, form))  # noqa: B023 - answered before the next turn
        error = await fault(wire)
        assert type(error) is expected.get(code.name, RequestError)
        assert (error.code, error.request_id) == (code, "r-1")
        assert str(error) == f"the message ({code.name} {code.number})"
        if isinstance(error, ConflictError):
            assert (error.index, error.current_version) == (2, 7)
        if isinstance(error, UnavailableError):
            assert error.retryable is code.retryable
            assert error.may_have_applied is code.may_have_applied


async def test_a_code_that_is_newer_than_this_client_is_judged_by_its_status(
    wire: Transport, stub: Stub
) -> None:
    for status, kind in (
        (400, RequestError),
        (403, DeniedError),
        (404, NotFoundError),
        (412, ConflictError),
        (429, UnavailableError),
        (503, UnavailableError),
    ):
        problem = messages.problem(ErrorCode.BAD_REQUEST, "new", {}, request_id="", url="/errors")
        problem.code, problem.status = "SOMETHING_NEW", status
        body = messages.encode(problem, Form.MSGPACK)
        stub.answer(
            lambda: web.Response(
                status=status,  # noqa: B023
                body=body,  # noqa: B023
                content_type=messages.PROBLEM_TYPES[Form.MSGPACK],
            )
        )
        error = await fault(wire)
        assert type(error) is kind
        assert error.code is None


async def test_retry_after_is_told(wire: Transport, stub: Stub) -> None:
    for value, seconds in (("7", 7.0), ("0", 0.0), ("soon", None), ("-1", None), ("9" * 9, None)):
        headers = {"Retry-After": value}
        stub.answer(lambda: refused(ErrorCode.OVERLOADED, headers=headers))  # noqa: B023
        error = await fault(wire)
        assert isinstance(error, UnavailableError)
        assert error.retry_after_seconds == seconds


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(wire: Transport, stub: Stub, status: int) -> None:
    stub.answer(lambda: web.Response(status=status, headers={"Location": stub.url + "/other"}))
    error = await fault(wire)
    assert isinstance(error, ConfigError)
    assert "redirect" in str(error)
    assert len(stub.requests) == 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (200, VerificationError),
        (404, ConfigError),
        (401, DeniedError),
        (407, DeniedError),
        (413, RequestError),
        (429, UnavailableError),
        (500, UnavailableError),
        (502, UnavailableError),
    ],
)
async def test_what_a_proxy_says_is_not_taken_for_the_service(
    wire: Transport, stub: Stub, status: int, kind: type[IndelibleError]
) -> None:
    stub.answer(lambda: web.Response(status=status, text="<html>", content_type="text/html"))
    error = await fault(wire)
    assert type(error) is kind
    assert "text/html" in str(error)
    if isinstance(error, UnavailableError):
        assert error.may_have_applied is (status >= 500)


async def test_a_compressed_answer_is_refused(wire: Transport, stub: Stub) -> None:
    """Before it is unpacked: a few kilobytes may be gigabytes."""
    body = gzip.compress(bytes(10 << 20))
    for encoding in ("gzip", "deflate", "br", "x"):
        headers = {"Content-Encoding": encoding, "Content-Type": Form.MSGPACK.value}
        stub.answer(lambda: web.Response(body=body, headers=headers))  # noqa: B023
        error = await fault(wire)
        assert isinstance(error, VerificationError)
        assert "compressed" in str(error)


async def test_an_answer_beyond_every_bound_is_refused(
    wire: Transport, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "MAX_ANSWER_BYTES", 100_000)
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse(headers={"Content-Type": Form.MSGPACK.value})
        await response.prepare(request)
        try:
            while sent < 1 << 30:
                await response.write(bytes(1 << 16))
                sent += 1 << 16
        except ConnectionError:
            pass
        return response

    stub.handler = endless
    error = await fault(wire)
    assert isinstance(error, VerificationError)
    assert sent < 1 << 27


@pytest.mark.parametrize(
    "body",
    [b"", b"\xc1", b"\x80", b"\x91" * 200, b"\x81\xa4logs\x90", b"{}", b"\xdf\xff\xff\xff\xff"],
)
async def test_an_answer_that_is_no_message_is_refused(
    wire: Transport, stub: Stub, body: bytes
) -> None:
    stub.answer(lambda: web.Response(body=body, content_type=Form.MSGPACK.value))
    assert isinstance(await fault(wire), VerificationError)


@pytest.mark.parametrize("version", ["-1", "x", "1.0", "", "9" * 17, "٣"])
async def test_a_version_header_that_is_none_is_refused(
    wire: Transport, stub: Stub, version: str
) -> None:
    committed = messages.Committed(version=1, changed=True, repeated=False, durability="strict")
    stub.answer(lambda: packed(committed, headers={"Indelible-Version": version}))
    assert isinstance(await fault(wire), VerificationError)


async def test_silence_ends_with_the_attempt(wire: Transport, stub: Stub) -> None:
    async def silent(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(30)
        return web.Response()

    stub.handler = silent
    requests: list[tuple[Request[Any], bool]] = [(COMMIT, True), (GET, False)]
    for request, in_doubt in requests:
        started = time.monotonic()
        with pytest.raises(UnavailableError, match="in time") as caught:
            await wire.send(request, 0.2)
        assert time.monotonic() - started < 8
        assert caught.value.may_have_applied is in_doubt


async def test_an_answer_that_trickles_ends_with_the_attempt(wire: Transport, stub: Stub) -> None:
    async def trickle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": Form.MSGPACK.value})
        await response.prepare(request)
        for _ in range(300):
            await response.write(b"\x00")
            await asyncio.sleep(0.05)
        return response

    stub.handler = trickle
    started = time.monotonic()
    with pytest.raises(UnavailableError):
        await wire.send(GET, 0.3)
    assert time.monotonic() - started < 8


async def test_a_port_where_nobody_listens_is_certain_and_quick() -> None:
    wire = Transport("http://127.0.0.1:1", "ik", database="default", tls=None)
    error = await fault(wire)
    assert isinstance(error, UnavailableError)
    assert "no connection" in str(error)
    assert not error.may_have_applied
    await wire.close()


async def test_https_to_a_server_without_tls_is_a_matter_of_configuration(stub: Stub) -> None:
    members = MEMBERS | {"endpoint_url": stub.url.replace("http:", "https:")}
    async with AsyncClient(Profile(**members), timeout_seconds=1.0) as client:
        with pytest.raises(ConfigError, match="no trusted connection"):
            await client.log("config")


async def test_no_more_than_so_many_requests_are_under_way(
    wire: Transport, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = under_way = 0
    release = asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        nonlocal most, under_way
        under_way += 1
        most = max(most, under_way)
        await release.wait()
        under_way -= 1
        return packed(LISTING)

    stub.handler = slow
    tasks = [asyncio.create_task(wire.send(GET, 5.0)) for _ in range(100)]
    await until(lambda: under_way == transport.MAX_IN_FLIGHT)
    with pytest.raises(UnavailableError, match="64 requests"):
        await wire.send(GET, 0.3)
    waiting = Request(method="GET", path="/", answer=messages.Listing, wait_seconds=1.0)
    long_poll = asyncio.create_task(wire.send(waiting, 5.0))  # needs no place among them
    await until(lambda: under_way > transport.MAX_IN_FLIGHT)
    release.set()
    await asyncio.gather(*tasks, long_poll)
    assert most == transport.MAX_IN_FLIGHT + 1


async def test_the_environments_proxies_are_not_used(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    wire = Transport(stub.url, "ik", database="default", tls=None)
    assert (await wire.send(GET, 5.0)).message == LISTING
    await wire.close()


def test_one_client_in_two_loops_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Transport("http://127.0.0.1:1", "ik", database="default", tls=None)

    async def use() -> str:
        with pytest.raises(IndelibleError) as caught:
            await wire.send(GET, 1.0)
        return str(caught.value)

    with asyncio.Runner() as first, asyncio.Runner() as second:
        assert "no connection" in first.run(use())
        assert "one client for each loop" in second.run(use())
        first.run(wire.close())


def test_the_api_key_is_not_printed() -> None:
    wire = Transport("http://127.0.0.1:1", "ik_canary", database="default", tls=None)
    assert "ik_canary" not in repr(wire)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of 127.0.0.1 that signs itself, with its key in the same file."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl to make a certificate with")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    key, cert = path.with_name("key.pem"), path.with_name("cert.pem")
    subject = ["-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command = [openssl, *new, *subject, "-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True)
    path.write_text(cert.read_text() + key.read_text())
    return path


async def test_certificates_are_verified(certificate: Path) -> None:
    """By the system's roots, or by the file that was named; never not at all."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", _packed_listing)
    server = TestServer(app, scheme="https")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    await server.start_server(ssl=context)
    url = f"https://127.0.0.1:{server.port}"
    profile = Profile(**MEMBERS | {"endpoint_url": url})
    async with AsyncClient(profile, ca_file=certificate) as client:
        assert [log async for log in client.logs()] == []
    async with AsyncClient(profile) as client:
        with pytest.raises(ConfigError, match="no trusted connection"):
            await anext(aiter(client.logs()))
    other_name = Profile(**MEMBERS | {"endpoint_url": url.replace("127.0.0.1", "localhost")})
    async with AsyncClient(other_name, ca_file=certificate) as client:
        with pytest.raises(ConfigError, match="no trusted connection"):
            await anext(aiter(client.logs()))
    await server.close()


async def _packed_listing(request: web.Request) -> web.StreamResponse:
    return packed(LISTING)


async def test_a_server_that_goes_away_in_the_handshake_may_come_back() -> None:
    def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    wire = Transport(f"https://127.0.0.1:{port}", "ik", database="default", tls=tls_context())
    error = await fault(wire)
    assert isinstance(error, UnavailableError)
    assert error.retryable
    assert not error.may_have_applied
    await wire.close()
    server.close()

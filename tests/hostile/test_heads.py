"""Heads, framing and paths that no client sends, as raw bytes: one answer, 4xx or none."""

import asyncio
import gzip
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from indelible_protocol import limits
from indelible_protocol.ids import to_base64url

from tests.hostile.wire import Exchange, exchange, request
from tests.support.service import Service, StartService

BODY = b'{"logs":[{"log_id":"' + b"A" * 43 + b'=","version":0}],"wait":0}'
SECOND = b"GET /livez HTTP/1.1\r\nHost: service\r\n\r\n"  # what smuggling would slip in
ECHO = "ik_0123456789abcdef_this-is-told-to-nobody"


def authorized(service: Service) -> bytes:
    return f"Host: service\r\nAuthorization: Bearer {service.apikey}\r\n".encode()


def get(rest: bytes = b"", line: bytes = b"GET /v2/logs HTTP/1.1") -> Callable[[Service], bytes]:
    return lambda service: line + b"\r\n" + authorized(service) + rest + b"\r\n"


def post(rest: bytes, body: bytes = BODY) -> Callable[[Service], bytes]:
    line = b"POST /v2/wait HTTP/1.1\r\n"
    content = b"Content-Type: application/json\r\n"
    return lambda service: line + authorized(service) + content + rest + b"\r\n" + body


def chunked(body: bytes) -> Callable[[Service], bytes]:
    return post(b"Transfer-Encoding: chunked\r\n", body)


LENGTH = b"Content-Length: %d\r\n" % len(BODY)
IN_CHUNKS = b"%x\r\n" % len(BODY) + BODY + b"\r\n0\r\n\r\n"

HEADS: dict[str, Callable[[Service], bytes]] = {
    "a header of 9 KiB": get(b"X: " + b"a" * 9_000 + b"\r\n"),
    "10,000 headers": get(b"".join(b"X%d: 1\r\n" % i for i in range(10_000))),
    "a line of 9 KiB": get(line=b"GET /v2/logs?" + b"a" * 9_000 + b" HTTP/1.1"),
    "length and chunks": post(LENGTH + b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n" + SECOND),
    "chunks and length": post(b"Transfer-Encoding: chunked\r\n" + LENGTH, b"0\r\n\r\n" + SECOND),
    "two lengths": post(LENGTH + b"Content-Length: 3\r\n", BODY + SECOND),
    "two equal lengths": post(LENGTH + LENGTH),
    "a list of lengths": post(b"Content-Length: 70, 70\r\n"),
    "a length with a sign": post(b"Content-Length: +70\r\n"),
    "a negative length": post(b"Content-Length: -1\r\n"),
    "a hexadecimal length": post(b"Content-Length: 0x46\r\n"),
    "a length with an underscore": post(b"Content-Length: 7_0\r\n"),
    "a length of 10^23": post(b"Content-Length: 1" + b"0" * 23 + b"\r\n"),
    "an empty length": post(b"Content-Length:\r\n"),
    "an unknown coding": post(b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n" + SECOND),
    "chunks, then identity": post(b"Transfer-Encoding: chunked, identity\r\n", IN_CHUNKS + SECOND),
    "a coding before chunks": post(b"Transfer-Encoding: gzip, chunked\r\n", IN_CHUNKS),
    "two codings": post(
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", IN_CHUNKS + SECOND
    ),
    "a space before the colon": post(b"Transfer-Encoding : chunked\r\n", IN_CHUNKS + SECOND),
    "a hidden coding": post(b"X: a\nTransfer-Encoding: chunked\r\n", IN_CHUNKS + SECOND),
    "a folded coding": post(b"Transfer-Encoding:\r\n chunked\r\n", IN_CHUNKS + SECOND),
    "chunks in HTTP/1.0": lambda service: chunked(IN_CHUNKS + SECOND)(service).replace(
        b"HTTP/1.1", b"HTTP/1.0", 1
    ),
    "a chunk of no number": chunked(b"zz\r\n" + BODY + b"\r\n0\r\n\r\n" + SECOND),
    "a negative chunk": chunked(b"-1\r\n" + BODY + b"\r\n0\r\n\r\n" + SECOND),
    "a chunk of 2^84": chunked(b"f" * 21 + b"\r\n" + BODY + SECOND),
    "a chunk with a space": chunked(b" 46 \r\n" + BODY + b"\r\n0\r\n\r\n" + SECOND),
    "chunks after bare LF": chunked(b"46\n" + BODY + b"\n0\n\n" + SECOND),
    "a chunk longer than told": chunked(b"5\r\n" + BODY + b"\r\n0\r\n\r\n" + SECOND),
    "bare LF": lambda service: get()(service).replace(b"\r\n", b"\n"),
    "bare LF in a header": get(b"X: a\nY: b\r\n"),
    "bare CR in a header": get(b"X: a\rY: b\r\n"),
    "NUL in a value": get(b"X: a\0b\r\n"),
    "NUL in a name": get(b"X\0: a\r\n"),
    "a folded header": get(b"X: a\r\n b\r\n"),
    "a header without a colon": get(b"nothing\r\n"),
    "a header without a name": get(b": a\r\n"),
    "a name with a space": get(b"X Y: a\r\n"),
    "no host": lambda service: b"GET /v2/logs HTTP/1.1\r\n\r\n",
    "two hosts": get(b"Host: other\r\n"),
    "two API keys": get(b"Authorization: Bearer " + ECHO.encode() + b"\r\n"),
    "two databases": get(b"Indelible-Database: a\r\nIndelible-Database: b\r\n"),
    "two content types": post(b"Content-Type: application/msgpack\r\n" + LENGTH),
    "a database of bytes": get(b"Indelible-Database: \xff\r\n"),
    "an unmet expectation": post(b"Expect: " + ECHO.encode() + b"\r\n" + LENGTH),
    "no path": get(line=b"GET HTTP/1.1"),
    "a path of bytes": get(line=b"GET /v2/\xff HTTP/1.1"),
    "a query of bytes": get(line=b"GET /v2/logs?group=\xff HTTP/1.1"),
    "a query of escaped bytes": get(line=b"GET /v2/logs?group=%ff HTTP/1.1"),
    "a query of a surrogate": get(line=b"GET /v2/logs?group=%ed%a0%80 HTTP/1.1"),
    "a parameter twice": get(line=b"GET /v2/logs?limit=1&limit=2 HTTP/1.1"),
    "an unknown parameter": get(line=b"GET /v2/logs?%0d%0aX:%20y=1 HTTP/1.1"),
    "a path in two lines": get(line=b"GET /v2/logs\r\n HTTP/1.1"),
    "an asterisk": get(line=b"OPTIONS * HTTP/1.1"),
    "a tunnel": get(line=b"CONNECT elsewhere:443 HTTP/1.1"),
    "an unknown method": get(line=b"BREW /v2/logs HTTP/1.1"),
    "a method of bytes": get(line=b"G\xff\x00T /v2/logs HTTP/1.1"),
    "a long method": get(line=b"G" * 7_000 + b" /v2/logs HTTP/1.1"),
    "a space first": get(line=b" GET /v2/logs HTTP/1.1"),
    "HTTP/0.9": lambda service: b"GET /v2/logs\r\n\r\n",
    "HTTP/1.2": get(line=b"GET /v2/logs HTTP/1.2"),
    "HTTP/2": lambda service: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no version": get(line=b"GET /v2/logs HTTP/x.y"),
    "a TLS greeting": lambda service: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 99,
    "a Redis command": lambda service: b"*1\r\n$4\r\nPING\r\n",
    "a secret that is no header": get(b"X-" + ECHO.encode() + b"\0: a\r\n"),
    "a secret in a bad line": get(line=f"GET /{ECHO} \0 HTTP/1.1".encode()),
    "more than 2 MiB announced": post(b"Content-Length: 2162689\r\n", b""),
}


def fault_of(answered: Exchange, service: Service) -> str:
    raw = b"".join(answer.head + answer.body for answer in answered.answers)
    if ECHO.encode() in raw or service.apikey.encode() in raw:
        return "tells a secret"
    match answered.answers:
        case []:
            return "" if answered.closed else "neither answered nor closed"
        case [answer] if 400 <= answer.status < 500 and answer.code:
            return ""
        case [answer]:
            return f"{answer.status}: {answer.body[:200]!r}"
        case answers:
            return f"{len(answers)} answers"


async def test_heads_that_are_no_http_get_one_refusal_that_tells_nothing(service: Service) -> None:
    async def fault(what: str, raw: bytes) -> str:
        found = fault_of(await exchange(service.url, raw), service)
        return f"{what}: {found}" if found else ""

    offset = service.log_file.stat().st_size
    faults = await asyncio.gather(*(fault(what, raw(service)) for what, raw in HEADS.items()))
    assert [found for found in faults if found] == []
    logged = service.log_file.read_bytes()[offset:]
    assert ECHO.encode() not in logged
    assert service.apikey.encode() not in logged
    events = [event["event"] for event in service.events(offset)]
    assert events.count("request.unreadable") > 30
    assert "request.failed" not in events
    assert "library.complained" not in events


async def test_the_operations_listener_refuses_in_the_same_words(
    start_service: StartService, tmp_path: Path
) -> None:
    service = start_service(
        "all", "--data", str(tmp_path / "data"), "--operations-listen", "127.0.0.1:0"
    )
    [url] = [e["url"] for e in service.events() if e["event"] == "operations.listening"]
    for path, header, status in (
        ("/livez", "X: y", 200),
        ("/v2/logs", "X: y", 404),
        ("/livez", f"X: {ECHO}\0", 400),
        ("/livez", f"Expect: {ECHO}", 400),
    ):
        [answer] = (await exchange(url, request("GET", path, header, "Connection: close"))).answers
        assert answer.status == status
        assert ECHO.encode() not in answer.body


async def test_a_head_that_arrives_in_pieces_is_judged_as_one(service: Service) -> None:
    for what in ("two lengths", "length and chunks", "NUL in a value", "a folded header"):
        raw = HEADS[what](service)
        pieces = [raw[at : at + 7] for at in range(0, len(raw), 7)]
        assert not fault_of(await exchange(service.url, *pieces), service), what


async def test_good_heads_are_answered(service: Service) -> None:
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    good = (
        get()(service), post(LENGTH)(service), chunked(IN_CHUNKS)(service), get(upgrade)(service),
        get(line=b"GET http://elsewhere/v2/logs HTTP/1.1")(service),  # RFC 9112, 3.2.2
        post(LENGTH + b"Expect: 100-continue\r\n")(service),
        chunked(b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\nX: y\r\n\r\n")(service),
    )  # fmt: skip
    for answered in await asyncio.gather(*(exchange(service.url, raw) for raw in good)):
        assert [answer.status for answer in answered.answers] == [200]


async def test_half_a_million_chunks_of_one_byte_are_read_or_refused(service: Service) -> None:
    raw = chunked(b"1\r\n \r\n" * 500_000 + b"%x\r\n" % len(BODY) + BODY + b"\r\n0\r\n\r\n")(
        service
    )
    answered = await exchange(service.url, raw)
    assert [answer.status for answer in answered.answers] == [200]


def _bomb(mebibytes: int, wbits: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, wbits)
    mebibyte = bytes(1 << 20)
    pieces = [packer.compress(mebibyte) for _ in range(mebibytes)]
    return b"".join((*pieces, packer.flush()))


async def test_a_coded_body_is_refused_unread(service: Service) -> None:
    bombs = {"gzip": _bomb(100, 31), "deflate": _bomb(100, 15), "x-gzip": _bomb(64, 31)}
    assert len(gzip.decompress(gzip.compress(BODY))) == len(BODY)
    codings = {
        **bombs, "br": b"\xff" * 9, "zstd": b"\x28\xb5\x2f\xfd", "compress": b"\x1f\x9d", "": BODY,
        "gzip, gzip": gzip.compress(gzip.compress(BODY)), "identity, gzip": gzip.compress(BODY),
        "nonsense": BODY, "GZIP": gzip.compress(BODY), "gzip;q=1": BODY, "*": BODY, "\\xff": BODY,
        "deflate ": b"garbage that is no deflate",
    }  # fmt: skip
    key = f"Authorization: Bearer {service.apikey}"

    async def refusals(path: str, coding: str, body: bytes) -> tuple[str, str, list[str]]:
        headers = (key, "Content-Type: application/json", f"Content-Encoding: {coding}")
        answered = await exchange(service.url, request("POST", path, *headers, body=body))
        return path, coding, [answer.code for answer in answered.answers if answer.status == 415]

    for path, coding, codes in await asyncio.gather(
        *(refusals(p, *sent) for p in ("/v2/wait", "/v1/log/update") for sent in codings.items())
    ):
        assert codes == ["UNSUPPORTED_MEDIA"], f"{path} {coding}"
    headers = (key, "Content-Type: application/json", "Content-Encoding: Identity")
    answered = await exchange(service.url, request("POST", "/v2/wait", *headers, body=BODY))
    assert [answer.status for answer in answered.answers] == [200]


SEGMENTS = [
    "..", ".", "%2e%2e", "%2e%2e%2f", "..%2f..%2fmetrics", "%2F", "%5c", "%00", "a%00b", "%ff",
    "%c0%af", "%ed%a0%80", "%0d%0a", "%0aSet-Cookie:x", "%250a", "%25%30%30", ";x", "a;x=1", "*",
    "a*", "?", "%3f", "%23", "{", "%7b%7d", "%7btenants%7d", "a=", "YQ==", "YQ%3D%3D", "YR", "Y",
    "YQ ", "%20YQ", "YQ%0a", "YQ+", "YQ/", "é", "%C3%A9", "e%CC%81", "%E2%80%AE", "%EF%BC%A1",
    "YQ%E2%80%8B", "ＡＡ", "__proto__%00", "A" * 7_000, "'", "%27%20OR%201=1", "$(id)", "%s%n",
]  # fmt: skip


@pytest.mark.parametrize("path", [
    "/v2/names/{}?kind=opaque", "/v2/logs/{}", "/v2/logs/{}/diff", "/v2/logs/{}/commits",
    "/v2/logs/{log}/entries/{}", "/v2/logs/{log}/entries/{}/history",
])  # fmt: skip
async def test_a_path_segment_that_is_no_base64url_is_refused(service: Service, path: str) -> None:
    key = f"Authorization: Bearer {service.apikey}"
    absent = to_base64url(bytes(32))
    paths = [path.replace("{log}", absent).replace("{}", segment) for segment in SEGMENTS]
    requests = [request("GET", path, key) for path in paths]
    answers = await asyncio.gather(*(exchange(service.url, raw) for raw in requests))
    for segment, answered in zip(SEGMENTS, answers, strict=True):
        assert not fault_of(answered, service), segment
        assert answered.answers[0].status in (400, 404), segment


@pytest.mark.parametrize("path", [
    "//v2/logs", "/v2//logs", "/v2/logs/", "/V2/logs", "/v2/logs;x", "/v2/logs%2f", "/v2%2flogs",
    "/./v2/logs", "/v2/./logs", "/v2/x/../../metrics/..", "/%76%32/logs/", "/v2/logs%00",
    "/v2/wait/", "/v2/logs%20", "/metrics/",
    "/livez%00", "/v1/log/create", "/v1/log/../log/diff", "/errors/x",
])  # fmt: skip
async def test_another_spelling_of_a_path_is_no_route(service: Service, path: str) -> None:
    raw = request("GET", path, f"Authorization: Bearer {service.apikey}")
    [answer] = (await exchange(service.url, raw)).answers
    assert (answer.status, answer.code) in (
        (404, "NO_SUCH_ROUTE"),
        (405, "METHOD_NOT_ALLOWED"),
        (400, "BAD_REQUEST"),
    )


async def test_a_name_has_one_spelling(service: Service) -> None:
    """Names differ by case and by Unicode's normal form, as bytes do."""
    key = f"Authorization: Bearer {service.apikey}"
    headers = (key, "Content-Type: application/json")
    names = ["visits", "Visits", "caf\u00e9", "cafe\u0301", "a", "a\0", " a", "\u202ea"]
    paths = [f"/v2/names/{to_base64url(name.encode())}?kind=opaque" for name in names]
    made = await asyncio.gather(
        *(exchange(service.url, request("PUT", path, *headers, body=b"{}")) for path in paths)
    )
    assert [answer.status for each in made for answer in each.answers] == [201] * len(names)
    assert len({each.answers[0].body.split(b'"log_id":"')[1][:43] for each in made}) == len(names)
    too_long = to_base64url(b"n" * (limits.MAX_NAME_BYTES + 1))
    raw = request("PUT", f"/v2/names/{too_long}?kind=opaque", *headers, body=b"{}")
    [answer] = (await exchange(service.url, raw)).answers
    assert answer.status == 400

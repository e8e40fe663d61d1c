"""What we read of a request's head is what aiohttp's parser reads; and where it ends, too."""

import asyncio
from collections.abc import Iterator

import pytest
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParser
from hypothesis import example, given, settings
from hypothesis import strategies as st
from indelible_server.api.heads import MAX_HEAD_BYTES, framed, parsed

PLAIN = (
    b"POST /v2/logs/abc/commits HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer ik_1_2\r\n"
    b"Accept: application/msgpack\r\nContent-Type: application/json\r\nContent-Length: 4\r\n\r\n"
)
METHODS = (b"GET", b"POST", b"PUT", b"DELETE", b"HEAD", b"CONNECT", b"get", b"POST ")
NAMES = (
    *(b"Host", b"host", b"Content-Length", b"content-length", b"Transfer-Encoding", b"Expect"),
    *(b"Connection", b"Upgrade", b"Accept", b"Authorization", b"Content-Encoding", b"X-A", b"X_A"),
    *(b"Content-Length ", b" X", b"", b"Indelible-Ticket", b"Idempotency-Key"),
)
VALUES = (
    *(b"0", b"4", b"04", b"+4", b"4, 4", b"0x4", b"4 ", b" 4", b"", b"chunked", b"keep-alive"),
    *(b"close", b"upgrade", b"100-continue", b"gzip", b"here", b"Bearer a b", b"d\xfcr", b"a\tb"),
    *(b"a\x00", b"a\x7f", b"a\r", b"a\nContent-Length: 4", b"wanted"),
)
BETWEEN = (b": ", b":", b" : ", b":  ", b":\t")
ENDS = (b"\r\n", b"\n", b"\r\r\n", b"\r\n ")

lines = st.tuples(
    *map(st.sampled_from, (NAMES, VALUES)),
    st.sampled_from(BETWEEN) | st.just(b": "),
    st.sampled_from(ENDS) | st.just(b"\r\n"),
).map(lambda parts: parts[0] + parts[2] + parts[1] + parts[3])
targets = st.sampled_from(
    (b"/", b"/v2/logs?at=1", b"/a b", b"*", b"http://x/", b"/%41#b", b"/\xfc")
)
versions = st.sampled_from((b"HTTP/1.1", b"HTTP/1.0", b"HTTP/1.1 ", b"HTTP/2.0", b""))
heads = st.builds(
    lambda method, target, version, lines: (
        b"%b %b %b\r\nHost: a\r\n%b\r\n" % (method, target, version, b"".join(lines))
    ),
    st.sampled_from(METHODS) | st.just(b"POST"),
    targets | st.just(b"/"),
    versions | st.just(b"HTTP/1.1"),
    st.lists(lines, max_size=4),
)


class _Protocol:
    _reading_paused = False

    def pause_reading(self) -> None: ...

    def resume_reading(self, resume_parser: bool = True) -> None: ...


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


@given(heads)
@settings(max_examples=1_000, deadline=None)
@example(PLAIN)
@example(PLAIN.replace(b"4\r\n", b"4\r\nContent-Length: 4\r\n"))
@example(PLAIN.replace(b"Content-Length: 4", b"Connection: keep-alive"))
def test_what_we_read_is_what_aiohttp_reads(loop: asyncio.AbstractEventLoop, head: bytes) -> None:
    found = framed(head)
    if found is None:
        return
    size, body_at, ours = found
    assert body_at == len(head)
    whole = head + b"x" * (size - body_at)
    parser = HttpRequestParser(_Protocol(), loop, 1 << 16)  # type: ignore[arg-type]
    try:
        messages, upgraded, rest = parser.feed_data(whole)
    except HttpProcessingError as error:
        raise AssertionError(f"aiohttp refuses it: {error}") from None
    [(message, body)] = messages
    assert body.is_eof()
    assert not upgraded
    assert not rest
    assert body.total_bytes == size - body_at
    theirs = parsed(message)
    assert ours is None or ours == theirs
    [(following, _)] = parser.feed_data(PLAIN + b"body")[0]
    assert following.path == "/v2/logs/abc/commits"


def test_a_plain_head_is_read() -> None:
    found = framed(PLAIN + b"body")
    assert found is not None
    size, body_at, head = found
    assert (size, body_at) == (len(PLAIN) + 4, len(PLAIN))
    assert head is not None
    assert (head.method, head.target) == ("POST", "/v2/logs/abc/commits")
    assert head.headers == {
        "authorization": "Bearer ik_1_2",
        "accept": "application/msgpack",
        "content-type": "application/json",
    }


@pytest.mark.parametrize(
    "line",
    [
        b"Content-Length: 4",
        b"Transfer-Encoding: chunked",
        b"Connection: close",
        b"Upgrade: h2c",
        b"Expect: 100-continue",
        b"Host: there",
        b"accept: text/plain",
        b"X-A:b",
        b"X-A: ",
        b"X-A: b ",
        b" folded: b",
        b"X-A: \xfc",
        b"X-A: b\nX-B: c",
        b"X-A: " + b"b" * MAX_HEAD_BYTES,
    ],
)
def test_what_could_be_read_otherwise_is_left_to_aiohttp(line: bytes) -> None:
    assert framed(PLAIN[:-2] + line + b"\r\n\r\n") is None


@pytest.mark.parametrize("length", [b"+4", b"-4", b"04", b"4_0", b"4,4", b"0x4", b"9" * 10])
def test_a_length_is_a_number_written_one_way(length: bytes) -> None:
    assert framed(PLAIN.replace(b"Length: 4", b"Length: " + length)) is None


@pytest.mark.parametrize("line", [b"Indelible-Ticket: wanted", b"Content-Encoding: gzip"])
def test_what_lanes_do_not_read_still_tells_where_it_ends(line: bytes) -> None:
    assert framed(PLAIN[:-2] + line + b"\r\n\r\nbody") == (
        len(PLAIN) + len(line) + 6,
        len(PLAIN) + len(line) + 2,
        None,
    )

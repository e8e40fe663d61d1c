"""Where answers of other systems end, and what they say."""

import pytest

from tests.benchmarks.peers import dialects, etcd
from tests.benchmarks.peers.dialects import field, frames, grpc_call, grpc_numbered
from tests.benchmarks.wire import Dialect, UnreadableAnswerError

LENGTH = b'HTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\n{"succeeded":true}'
CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
EMPTY = b"HTTP/1.1 204 No Content\r\nStream-Next-Offset: 0_1\r\n\r\n"
NOISE = b"INFO {}\r\nPING\r\n"
STORED = b'MSG _INBOX.c.1 1 24\r\n{"stream":"S-1","seq":12}\r\n'.replace(b"24", b"25")
NOBODY = b"HMSG _INBOX.c.1 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n"
SETTINGS = bytes.fromhex("000000040000000000")
ANSWER = bytes.fromhex("00000a0000000000010000000005") + b"\x0a\x01x\x10\x01"
TRAILERS = bytes.fromhex("000001010500000001") + b"\xbf"


@pytest.mark.parametrize(
    ("dialect", "answer"),
    [
        (dialects.HTTP, LENGTH),
        (dialects.HTTP, CHUNKS),
        (dialects.HTTP, EMPTY),
        (dialects.HTTP_STREAM, CHUNKS[:-5]),
        (dialects.NATS, NOISE + STORED),
        (dialects.GRPC, SETTINGS + ANSWER + TRAILERS),
        (dialects.GRPC_STREAM, SETTINGS + ANSWER),
    ],
)
def test_an_answer_ends_where_it_ends_wherever_it_is_cut(dialect: Dialect, answer: bytes) -> None:
    assert dialect.end_of(answer) == len(answer)
    assert dialect.end_of(answer + b"HTTP") == len(answer)
    assert {dialect.end_of(answer[:cut]) for cut in range(len(answer))} == {-1}
    assert dialect.status_of(answer)[:1] == b"2"


def test_an_append_that_was_refused_is_no_success() -> None:
    assert dialects.nats_status(NOBODY) == b"500"
    assert dialects.nats_status(STORED.replace(b'"seq":12', b'"error":')) == b"500"
    assert dialects.grpc_status(SETTINGS + TRAILERS) == b"500"
    assert etcd.grpc_txn_status(ANSWER + TRAILERS) == b"200"
    assert etcd.grpc_txn_status(ANSWER[:-1] + b"\0" + TRAILERS) == b"412"
    assert etcd.json_txn_status(LENGTH) == b"200"
    assert etcd.json_txn_status(LENGTH.replace(b"true", b"null")) == b"412"
    with pytest.raises(UnreadableAnswerError, match="Parser Error"):
        dialects.nats_end(b"-ERR 'Parser Error'\r\n")


def test_a_call_is_two_frames_and_each_call_of_a_connection_has_its_own_stream() -> None:
    call = grpc_call("/a/b", field(1, b"key") + field(4, 300))
    assert [frame.kind for frame in frames(call)] == [1, 0]
    assert dialects.grpc_message(call) == b"\x0a\x03key\x20\xac\x02"
    third = grpc_numbered(call, 2)
    assert [frame[:3] for frame in frames(third)] == [frame[:3] for frame in frames(call)]
    first = next(frames(call)).end
    assert third[5:9] == third[first + 5 : first + 9] == b"\0\0\0\5"

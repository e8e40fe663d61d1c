"""The Merkle tree hash against the recursive definition that it is taken from."""

from collections.abc import Sequence
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st
from indelible_protocol import merkle, records
from indelible_protocol.commands import Command, Op, encode, encode_body
from indelible_protocol.errors import ProtocolError
from indelible_protocol.ids import LogId
from indelible_protocol.signing import body_root, read_body


def mth(leaves: Sequence[bytes]) -> bytes:
    """RFC 6962, 2.1, word for word."""
    if not leaves:
        return sha256().digest()
    if len(leaves) == 1:
        return sha256(b"\x00" + leaves[0]).digest()
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    return sha256(b"\x01" + mth(leaves[:k]) + mth(leaves[k:])).digest()


def test_roots_of_every_size_to_300() -> None:
    leaves = [bytes([n % 251]) * (n % 40) for n in range(300)]
    for size in range(301):
        assert merkle.root_of(leaves[:size]) == mth(leaves[:size])


@given(st.lists(st.binary(max_size=50), max_size=70))
def test_roots_of_any_leaves(leaves: list[bytes]) -> None:
    assert merkle.root_of(leaves) == mth(leaves)


def test_known_roots() -> None:
    """The empty tree, and one empty leaf, as they stand in every implementation's tests."""
    assert merkle.root_of([]).hex() == (
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    )
    assert merkle.root_of([b""]).hex() == (
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    )


def test_a_body_must_be_the_one_that_its_header_names() -> None:
    commands = [Command(Op.DELETE, sha256(bytes([n])).digest()) for n in range(5)]
    body = encode_body(commands)
    header = records.Header(
        kind=records.CommitKind.DATA,
        log_id=LogId(bytes(32)),
        command_count=5,
        body_root=mth([encode(command) for command in commands]),
        body_bytes=len(body),
    )
    assert header.body_root == body_root(commands)
    assert read_body(header, body).commands == commands
    swapped = encode_body([commands[1], commands[0], *commands[2:]])
    shorter = encode_body(commands[:4])
    for other in (swapped, shorter, body + b"\x00", body[:-1]):
        with pytest.raises(ProtocolError):
            read_body(header, other)
    for at in range(len(body)):
        with pytest.raises(ProtocolError):
            read_body(header, body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :])

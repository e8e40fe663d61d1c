"""Commits as they travel, and the two signatures of the suite: a commit's and a card's.

Verification is libsodium's (RFC 8032, cofactorless; small-order and non-canonical keys and
signatures refused): server and client call the same function, so their verdicts never
differ. Holds no keys.
"""

from collections.abc import Sequence
from itertools import pairwise

import nacl.bindings
import nacl.exceptions
from msgspec import Struct

from indelible_protocol import merkle
from indelible_protocol.commands import Command, Located, decode_body, encode
from indelible_protocol.errors import ErrorCode, ProtocolError
from indelible_protocol.records import Card, Header

COMMIT_CONTEXT = b"indelible/v1 commit\n"
CARD_CONTEXT = b"indelible/v1 card\n"
SIGNATURE_BYTES = 64


class SignedCommit(Struct, frozen=True, kw_only=True):
    """The three byte strings of a commit, exactly as its writer sent them.

    `signature` is empty in an opaque log.
    """

    header: bytes
    signature: bytes
    body: bytes

    @property
    def size_bytes(self) -> int:
        return len(self.header) + len(self.signature) + len(self.body)


def sign_commit(header: Header, body: bytes, secret_key: bytes) -> SignedCommit:
    """`secret_key` is libsodium's 64-byte Ed25519 key (seed and public key)."""
    encoded = header.encode()
    signature = sign(COMMIT_CONTEXT + encoded, secret_key)
    return SignedCommit(header=encoded, signature=signature, body=body)


def sign(message: bytes, secret_key: bytes) -> bytes:
    return nacl.bindings.crypto_sign(message, secret_key)[:SIGNATURE_BYTES]


def verify(message: bytes, signature: bytes, public_key: bytes) -> bool:
    try:
        nacl.bindings.crypto_sign_open(signature + message, public_key)
    except (nacl.exceptions.BadSignatureError, nacl.exceptions.ValueError):
        return False
    return len(signature) == SIGNATURE_BYTES


def verify_commit(commit: SignedCommit, header: Header) -> None:
    """
    Raises:
        ProtocolError: BAD_SIGNATURE unless the header's own writer signed it.
    """
    if not verify(COMMIT_CONTEXT + commit.header, commit.signature, header.writer):
        raise ProtocolError(
            f"the commit's signature is not that of its writer {header.writer.hex()}",
            ErrorCode.BAD_SIGNATURE,
        )


def verify_card(card: Card) -> None:
    if not verify(CARD_CONTEXT + card.core(), card.signature, card.pk_sign):
        raise ProtocolError(
            "the identity card is not signed by its own key", ErrorCode.BAD_SIGNATURE
        )


def body_root(commands: Sequence[Command]) -> bytes:
    """Merkle root over the encoded commands, so that one command is provable alone."""
    return merkle.root_of([encode(command) for command in commands])


def read_body(header: Header, body: bytes) -> Located:
    """The commands of a body that is the one its header names.

    Raises:
        ProtocolError: the length, the count or the root differs.
    """
    if len(body) != header.body_bytes:
        raise ProtocolError(f"body of {len(body)} bytes, the header says {header.body_bytes}")
    located = decode_body(body, header.command_count)
    pieces = [body[start:end] for start, end in pairwise(located.offsets)]
    if merkle.root_of(pieces) != header.body_root:
        raise ProtocolError("the body is not the one whose root stands in the header")
    return located

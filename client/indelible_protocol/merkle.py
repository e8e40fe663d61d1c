"""Merkle tree hash over a list of byte strings.

Source: RFC 6962, 2.1 (the same tree as RFC 9162, 2.1.1).
"""

from collections.abc import Sequence
from hashlib import sha256

EMPTY_ROOT = sha256(b"").digest()


def leaf_hash(leaf: bytes) -> bytes:
    return sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


def root_of(leaves: Sequence[bytes]) -> bytes:
    """Tree head over `leaves`, oldest first; 32 bytes.

    Pairs are joined level by level and an odd last node moves up as it is, which is the
    recursive definition's split at the largest power of two below the size.
    """
    if not leaves:
        return EMPTY_ROOT
    level = [sha256(b"\x00" + leaf).digest() for leaf in leaves]
    while len(level) > 1:
        pairs = zip(level[::2], level[1::2], strict=False)  # an odd last node is left over
        paired = [sha256(b"\x01" + left + right).digest() for left, right in pairs]
        if len(level) % 2:
            paired.append(level[-1])
        level = paired
    return level[0]

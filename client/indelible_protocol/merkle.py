"""Merkle tree hash over a list of byte strings.

Source: RFC 6962, 2.1 (the same tree as RFC 9162, 2.1.1).
"""

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from operator import add
from typing import Any

EMPTY_ROOT = sha256(b"").digest()
# Begun hashes: to copy one takes a quarter of the time that making one takes.
_begin_leaf = sha256(b"\x00").copy
_begin_node = sha256(b"\x01").copy


def root_of(leaves: Sequence[bytes]) -> bytes:
    """Tree head over `leaves`, oldest first; 32 bytes.

    Pairs are joined level by level and an odd last node moves up as it is, which is the
    recursive definition's split at the largest power of two below the size.
    """
    if not leaves:
        return EMPTY_ROOT
    level = _hashes(_begin_leaf, leaves)
    while len(level) > 1:
        odd = level[-1:] if len(level) % 2 else []
        level = _hashes(_begin_node, map(add, level[::2], level[1::2])) + odd
    return level[0]


def _hashes(begin: Callable[[], Any], pieces: Iterable[bytes]) -> list[bytes]:
    """The hash of each piece, behind what `begin` gives a hash of."""
    hashes = []
    for piece in pieces:
        begun = begin()
        begun.update(piece)
        hashes.append(begun.digest())
    return hashes

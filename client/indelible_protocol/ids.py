"""Typed byte strings, and their one spelling in URLs and JSON: unpadded URL-safe base64."""

import base64
import binascii
import re
from typing import NewType

from indelible_protocol.errors import ProtocolError

LogId = NewType("LogId", bytes)  # 32 bytes, the hash of the log's genesis record
KeyToken = NewType("KeyToken", bytes)  # 32 bytes in a sealed log, the key itself in an opaque one
NameToken = NewType("NameToken", bytes)  # 32 bytes in a sealed log, the name's bytes otherwise
ValueId = NewType("ValueId", bytes)  # 32 bytes; equal for equal values of one key
EntryHash = NewType("EntryHash", bytes)  # SHA-256(vec2(key_ct) ‖ value)
CommitHash = NewType("CommitHash", bytes)  # SHA-256 of a commit's header
PublicKey = NewType("PublicKey", bytes)  # 32 bytes, Ed25519
ChainId = NewType("ChainId", bytes)  # 16 random bytes of a writing process

HASH_BYTES = 32
CHAIN_BYTES = 16
NO_WRITER = PublicKey(bytes(32))
NO_CHAIN = ChainId(bytes(CHAIN_BYTES))

_VERSION = re.compile(r"0|[1-9][0-9]{0,15}")
_URL_BASE64 = re.compile(r"[A-Za-z0-9_-]*")


def to_base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def from_base64url(text: str, field: str) -> bytes:
    """The bytes that `text` spells.

    Raises:
        ProtocolError: another alphabet, padding, or bits that no encoder sets.
    """
    if not _URL_BASE64.fullmatch(text):
        raise ProtocolError(f"{field} is not unpadded URL-safe base64")
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ProtocolError(f"{field} is not unpadded URL-safe base64: {error}") from None
    if to_base64url(data) != text:
        raise ProtocolError(f"{field} is base64 with stray bits at its end")
    return data


def parse_log_id(text: str) -> LogId:
    data = from_base64url(text, "log_id")
    if len(data) != HASH_BYTES:
        raise ProtocolError(f"log_id has {len(data)} bytes, {HASH_BYTES} expected")
    return LogId(data)


def parse_version(text: str, field: str) -> int:
    """A version in canonical decimal: no sign, no leading zero, at most 2^53−1."""
    if not _VERSION.fullmatch(text) or int(text) > 2**53 - 1:
        shown = text if len(text) <= 40 else text[:40] + "…"
        raise ProtocolError(f"{field} is {shown!r}, a whole number from 0 to 2^53-1 expected")
    return int(text)

"""Opaque positions that a client gives back: authenticated, pinned to what they belong to."""

import hmac
from collections.abc import Sequence
from hashlib import sha256

import msgpack
from indelible_protocol.errors import ErrorCode, ProtocolError
from indelible_protocol.ids import from_base64url, to_base64url

_MAC_BYTES = 16
_MAX_CHARS = 2_048

Part = bytes | int | str | None


class Cursors:
    def __init__(self, secret: bytes) -> None:
        self._key = hmac.digest(secret, b"indelible/cursor", sha256)

    def seal(self, purpose: str, parts: Sequence[Part]) -> str:
        data: bytes = msgpack.packb([purpose, *parts])
        return to_base64url(self._mac(data) + data)

    def open(self, purpose: str, text: str, count: int) -> list[Part]:
        """The `count` parts that were sealed for `purpose`.

        Raises:
            ProtocolError: BAD_CURSOR: altered, made elsewhere, or for something else.
        """
        bad = ProtocolError("the cursor is not one that was given out here", ErrorCode.BAD_CURSOR)
        if len(text) > _MAX_CHARS:
            raise bad
        try:
            raw = from_base64url(text, "cursor")
        except ProtocolError:
            raise bad from None
        mac, data = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(data)):
            raise bad
        parts: list[Part] = msgpack.unpackb(data)
        if parts[0] != purpose or len(parts) != count + 1:
            raise bad
        return parts[1:]

    def _mac(self, data: bytes) -> bytes:
        return hmac.digest(self._key, data, sha256)[:_MAC_BYTES]

"""Fixed big-endian layouts: writing them, and reading them strictly.

One valid encoding each: no optional fields, no trailing bytes, lengths checked against a
cap before anything is copied. Knows nothing of what the layouts mean.
"""

import struct

from indelible_protocol.errors import ErrorCode, ProtocolError

_U16 = struct.Struct(">H")
_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")


def u8(value: int) -> bytes:
    return value.to_bytes(1, "big")


def u16(value: int) -> bytes:
    return _U16.pack(value)


def u32(value: int) -> bytes:
    return _U32.pack(value)


def u64(value: int) -> bytes:
    return _U64.pack(value)


def vec2(data: bytes) -> bytes:
    return _U16.pack(len(data)) + data


def vec4(data: bytes) -> bytes:
    return _U32.pack(len(data)) + data


class Reader:
    """Walks one layout from its first byte to its last; every failure is a ProtocolError."""

    __slots__ = ("_data", "_position", "_what")

    def __init__(self, data: bytes, what: str, *, position: int = 0) -> None:
        self._data = data
        self._position = position
        self._what = what

    @property
    def position(self) -> int:
        return self._position

    def take(self, length: int) -> bytes:
        end = self._position + length
        if end > len(self._data):
            raise ProtocolError(
                f"{self._what}: {length} bytes expected at byte {self._position}, "
                f"{len(self._data) - self._position} left"
            )
        piece = self._data[self._position : end]
        self._position = end
        return piece

    def u8(self) -> int:
        return self.take(1)[0]

    def u16(self) -> int:
        return int.from_bytes(self.take(2), "big")

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def u64(self) -> int:
        return int.from_bytes(self.take(8), "big")

    def vec2(self, cap: int, field: str) -> bytes:
        return self._vector(self.u16(), cap, field)

    def vec4(self, cap: int, field: str) -> bytes:
        return self._vector(self.u32(), cap, field)

    def constant(self, expected: bytes, field: str) -> None:
        found = self.take(len(expected))
        if found != expected:
            raise ProtocolError(
                f"{self._what}: {field} is 0x{found.hex()}, 0x{expected.hex()} expected"
            )

    def end(self) -> None:
        """Refuses trailing bytes."""
        left = len(self._data) - self._position
        if left:
            raise ProtocolError(f"{self._what}: {left} bytes after the end")

    def _vector(self, length: int, cap: int, field: str) -> bytes:
        if length > cap:
            raise ProtocolError(
                f"{self._what}: {field} has {length} bytes, at most {cap} are allowed",
                ErrorCode.TOO_LARGE,
            )
        return self.take(length)

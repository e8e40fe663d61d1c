"""What an archived object holds: a run of versions, or of a snapshot's pieces. Pure.

Self-describing: which log's it is and which run, in a numbered format, so that an archive can be
read without its store. The same run is always the same bytes. Owns these bytes and those of the
listings by which the store finds them; knows nothing of where either is kept.
"""

import struct
import zlib
from array import array
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import msgpack
from indelible_protocol.ids import LogId
from msgspec import Struct

from indelible_server.store.places import packed, unpacked

BUNDLE_BYTES = 1 << 20
FORMAT = 1
_LEVEL = 1  # 6 takes five times as long for a tenth less
_SEGMENT = struct.Struct(">QQQ32s")
_PART = struct.Struct(">Q32s")

Holds = Literal["versions", "snapshot"]


class CorruptBundle(Exception):
    """An object that is none of these, or another than the one that was asked for."""


class Bundle(Struct, frozen=True, kw_only=True):
    """`items[i]` is version `version` + i, or piece `first` + i of the snapshot at `version`."""

    holds: Holds
    version: int
    first: int
    ends: "array[int]"
    data: bytes

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def size_bytes(self) -> int:
        return len(self.data) + 4 * len(self.ends) + 200

    def item(self, number: int) -> bytes:
        return self.data[self.ends[number - 1] if number else 0 : self.ends[number]]

    def row(self, version: int) -> list[Any]:
        """The version as the store's client reads it out of the stream."""
        return [b"%d-0" % version, msgpack.unpackb(self.item(version - self.version))]


def encode(
    log_id: LogId, holds: Holds, version: int, items: Sequence[bytes], *, first: int = 0
) -> bytes:
    """The bytes of an object: a map in msgpack, its items deflated together."""
    ends, size = array("I"), 0
    for item in items:
        size += len(item)
        ends.append(size)
    bundle = {
        "format": FORMAT,
        "log_id": log_id,
        "holds": holds,
        "version": version,
        "first": first,
        "ends": packed(ends),
        "items": zlib.compress(b"".join(items), _LEVEL),
    }
    data: bytes = msgpack.packb(bundle)
    return data


def decode(log_id: LogId, data: bytes) -> Bundle:
    """
    Raises:
        CorruptBundle: it is no bundle of this log.
    """
    try:
        found = msgpack.unpackb(data)
        if found["format"] != FORMAT or found["log_id"] != log_id:
            raise CorruptBundle
        return Bundle(
            holds=found["holds"],
            version=found["version"],
            first=found["first"],
            ends=unpacked(found["ends"], "I"),
            data=zlib.decompress(found["items"]),
        )
    except (ValueError, TypeError, KeyError, zlib.error, msgpack.UnpackException) as error:
        raise CorruptBundle from error


def item_of(fields: Sequence[bytes]) -> bytes:
    """A version's fields, each behind its name, as an item."""
    item: bytes = msgpack.packb(fields)
    return item


class Segment(NamedTuple):
    """Versions in a row that one object holds, as the store lists them.

    `size_bytes` is what they count for among the log's stored bytes.
    """

    first: int
    last: int
    size_bytes: int
    name: str

    def encode(self) -> bytes:
        return _SEGMENT.pack(*self[:3], bytes.fromhex(self.name))

    @classmethod
    def decode(cls, data: bytes) -> "Segment":
        first, last, size_bytes, name = _SEGMENT.unpack(data)
        return cls(first, last, size_bytes, name.hex())


class Part(NamedTuple):
    """Pieces of a snapshot that one object holds: those up to `end`, from where the one before
    it ends."""

    end: int
    name: str


def encode_parts(parts: Iterable[Part]) -> bytes:
    return b"".join(_PART.pack(end, bytes.fromhex(name)) for end, name in parts)


def decode_parts(data: bytes) -> list[Part]:
    return [Part(end, name.hex()) for end, name in _PART.iter_unpack(data)]

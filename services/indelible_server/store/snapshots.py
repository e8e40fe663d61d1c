"""What a snapshot is made of: chunks of entries, a directory of them, an index of tokens. Pure.

A snapshot is the contents at one version, values and all: it can be read when the stream below
it is gone. It is a function of the log and the version alone, so whoever writes it writes the
same bytes. Entries stand in the order of their places, each in the form in which it leaves the
service, so that forwarding them is cutting and joining. Knows nothing of where it is kept.
"""

import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import NamedTuple

import msgspec
from indelible_protocol import messages

from indelible_server.store.places import packed, unpacked

CHUNK_BYTES = 48 << 10
BUCKET_ENTRIES = 256
DIRECTORY = "places"

_INFO = struct.Struct(">QQQQII")
_COUNT = struct.Struct("<I")
_HASH_BYTES = 8
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(messages.DiffChange).decode
_ADDS = b"\x85\xa2op\xa3add"  # a map of five, the first of them the op
_REMOVES = b"\x85\xa2op\xa6remove"
_TOKEN_AT = len(_ADDS) + 4  # behind "key" as msgpack has it
# An entry whose parts are short and whose version has four bytes; each part begins with its length.
_SHORT_RECORD = _ADDS + (b"\xa3key\xc4%b\xaasealed_key\xc4%b\xa5value\xc4%b\xa7version\xce%b")
_SHORT, _MIN_U32, _MAX_U32 = (1 << 8) - 1, 1 << 16, (1 << 32) - 1
_LENGTH = struct.Struct(">I")


class Snapshot(NamedTuple):
    """One that is whole. `changes` are those of the log up to its version, `size_bytes` its own.

    `chunks` and `buckets` count the pieces of its entries and of its index of tokens.
    """

    version: int
    entries: int
    changes: int
    size_bytes: int
    chunks: int
    buckets: int

    def encode(self) -> bytes:
        return _INFO.pack(*self)

    @classmethod
    def decode(cls, data: bytes) -> "Snapshot":
        return cls(*_INFO.unpack(data))

    @property
    def pieces(self) -> int:
        """How many there are: the chunks, the directory, and the buckets, numbered so."""
        return self.chunks + 1 + self.buckets

    @property
    def directory_number(self) -> int:
        return self.chunks

    def bucket_number(self, token: bytes) -> int:
        return self.chunks + 1 + bucket_of(_hash(token), self.buckets)

    def field(self, number: int) -> str:
        """By which the store finds the piece of that number."""
        if number < self.chunks:
            return f"{self.version}:{number}"
        if number == self.chunks:
            return f"{self.version}:{DIRECTORY}"
        return f"{self.version}:t{number - self.chunks - 1}"


def bucket_fields(version: int, count: int) -> list[str]:
    return [f"{version}:t{number}" for number in range(count)]


def record(token: bytes, sealed_key: bytes, value: bytes, version: int) -> bytes:
    """An entry as the change that adds it, in msgpack."""
    return _encode(
        messages.DiffChange(
            op="add", key=token, sealed_key=sealed_key, value=value, version=version
        )
    )


def record_at(body: bytes, offset: int, version: int) -> bytes:
    """The same of the command whose bytes begin at `offset`; its layout is `commands`'.

    What is short is cut and put together without objects between, for it is done a million
    times: msgpack has a short length in one byte, which is the last of the command's own.
    """
    key_end = offset + 3 + (body[offset + 1] << 8 | body[offset + 2])
    sealed_end = key_end + 2 + (body[key_end] << 8 | body[key_end + 1])
    (size,) = _LENGTH.unpack_from(body, sealed_end)
    end = sealed_end + 4 + size
    if body[offset + 1] or body[key_end] or size > _SHORT or not _MIN_U32 <= version <= _MAX_U32:
        key, sealed_key = body[offset + 3 : key_end], body[key_end + 2 : sealed_end]
        return record(key, sealed_key, body[sealed_end + 4 : end], version)
    return _SHORT_RECORD % (
        body[offset + 2 : key_end],
        body[key_end + 1 : sealed_end],
        body[sealed_end + 3 : end],
        _LENGTH.pack(version),
    )


def entry_of(packed_record: bytes) -> messages.DiffChange:
    entry: messages.DiffChange = _decode(packed_record)
    return entry


def removal_of(packed_record: bytes) -> bytes:
    """The change that removes the entry, in msgpack."""
    return _REMOVES + packed_record[len(_ADDS) :]


def token_of(packed_record: bytes) -> bytes:
    if packed_record[_TOKEN_AT] == 0xC4:  # a length of one byte
        return packed_record[_TOKEN_AT + 2 : _TOKEN_AT + 2 + packed_record[_TOKEN_AT + 1]]
    length = int.from_bytes(packed_record[_TOKEN_AT + 1 : _TOKEN_AT + 3], "big")
    return packed_record[_TOKEN_AT + 3 : _TOKEN_AT + 3 + length]


class Chunk(NamedTuple):
    """Some entries: their places, ascending, and where each one's record ends in `records`."""

    places: "array[int]"
    ends: "array[int]"
    records: bytes

    def encode(self) -> bytes:
        """`u32 count ‖ count × u64 place ‖ count × u64 end ‖ records`, little-endian."""
        head = _COUNT.pack(len(self.places))
        return b"".join((head, packed(self.places), packed(self.ends), self.records))

    @classmethod
    def decode(cls, data: bytes) -> "Chunk":
        (count,) = _COUNT.unpack_from(data)
        at = _COUNT.size + 8 * count
        end = at + 8 * count
        return cls(unpacked(data[_COUNT.size : at]), unpacked(data[at:end]), data[end:])

    def cut(self) -> list[bytes]:
        """The records, one by one."""
        records, start, found = self.records, 0, []
        for end in self.ends:
            found.append(records[start:end])
            start = end
        return found

    def kept(self, gone: set[int]) -> tuple[Sequence[int], list[bytes]]:
        """Places and records of the entries that are not among `gone`."""
        if gone.isdisjoint(self.places):
            return self.places, self.cut()
        places, found = [], []
        for place, one in zip(self.places, self.cut(), strict=True):
            if place not in gone:
                places.append(place)
                found.append(one)
        return places, found


class Chunks:
    """Makes chunks of entries that come in the order of their places."""

    def __init__(self) -> None:
        self._places = array("Q")
        self._ends = array("Q")
        self._records: list[bytes] = []
        self._size = 0

    def add(self, places: Iterable[int], records: Iterable[bytes]) -> "list[Chunk]":
        """The chunks that are full by now: how entries come in makes no difference to them."""
        full = []
        for place, one in zip(places, records, strict=True):
            self._places.append(place)
            self._records.append(one)
            self._size += len(one)
            self._ends.append(self._size)
            if self._size >= CHUNK_BYTES:
                full.append(self._taken())
        return full

    def rest(self) -> "list[Chunk]":
        return [self._taken()] if self._places else []

    def _taken(self) -> Chunk:
        chunk = Chunk(self._places, self._ends, b"".join(self._records))
        self._places, self._ends, self._records, self._size = array("Q"), array("Q"), [], 0
        return chunk


class Directory:
    """The place that each chunk begins with."""

    def __init__(self, data: bytes) -> None:
        self.places = unpacked(data)

    def chunk_with(self, place: int) -> int:
        """The number of the chunk in which `place` would be; the first if it is below all."""
        return max(0, bisect_right(self.places, place) - 1)


def bucket_count(entries: int) -> int:
    return -(-entries // BUCKET_ENTRIES)


class Buckets:
    """Makes the index: each entry's hashed token and place, in the bucket that the hash names.

    Only the buckets from `first` to `end`: a large index is made in several goes.
    """

    def __init__(self, count: int, first: int, end: int) -> None:
        self._count = count
        self._first = first
        self._made = [bytearray() for _ in range(first, end)]

    def add(self, places: Iterable[int], records: Iterable[bytes]) -> None:
        first, made, count = self._first, self._made, self._count
        for place, one in zip(places, records, strict=True):
            hashed = _hash(token_of(one))
            number = bucket_of(hashed, count) - first
            if 0 <= number < len(made):
                made[number] += hashed + place.to_bytes(8, "big")

    def encoded(self) -> list[bytes]:
        return [bytes(bucket) for bucket in self._made]


def _hash(token: bytes) -> bytes:
    return blake2b(token, digest_size=_HASH_BYTES).digest()


def bucket_of(hashed: bytes, count: int) -> int:
    return int.from_bytes(hashed, "big") * count >> 64


def places_in(bucket: bytes, token: bytes) -> list[int]:
    """Places that may be the token's: whoever asks compares the token that is there."""
    hashed, found, at = _hash(token), [], 0
    while (at := bucket.find(hashed, at)) >= 0:
        if at % 16 == 0:
            found.append(int.from_bytes(bucket[at + 8 : at + 16], "big"))
        at += 1
    return found

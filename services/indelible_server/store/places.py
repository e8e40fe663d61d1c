"""Places as numbers, and blocks: which places some versions filled and emptied. Pure.

An entry is named by its place for ever: the version and the command that introduced it. What is
removed never comes back (a value set again is another entry), so contents are sets of places:
those at a version are the places added up to it less those removed up to it, and in their
numbers' order they are in order `command`. A change costs 4 to 16 bytes here, and no token.
"""

import struct
import sys
from array import array
from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from indelible_protocol import limits

from indelible_server.store.errors import DamagedError

INDEX_BITS = 12
BLOCK_VERSIONS = 256
SUMMED_BLOCKS = 16

assert limits.MAX_COMMANDS <= 1 << INDEX_BITS

INDEX_PLACE = struct.Struct(">QI")  # what each entry of a log's index begins with
_HEAD = struct.Struct("<III")
_BARE = struct.Struct("<QH")
_REMOVED = struct.Struct(">QI")
_U16 = struct.Struct(">H")
_LAST_VERSION = (1 << 51) - 1
INDEX_MASK = (1 << INDEX_BITS) - 1
_END = (_LAST_VERSION + 1) << INDEX_BITS
_ADDS, _REMOVES = 1, 2
_PLACE_BYTES = 48


def place_of(version: int, index: int) -> int:
    """A number for versions below 2^51: two hundred years of a million commits a second."""
    return version << INDEX_BITS | index


def place_behind(version: int, index: int) -> int:
    """The same for numbers that somebody made up: those beyond all places stay behind them."""
    if index > INDEX_MASK:
        version, index = version + 1, 0
    return min(version, _LAST_VERSION) << INDEX_BITS | index


def first_place(version: int) -> int:
    """The least that an entry of this version may have."""
    return version << INDEX_BITS


def version_of(place: int) -> int:
    return place >> INDEX_BITS


def index_of(place: int) -> int:
    return place & INDEX_MASK


def block_of(version: int) -> int:
    """The number of the block that holds what `version` (1 or more) removed."""
    return (version - 1) // BLOCK_VERSIONS


class Step(NamedTuple):
    """What one effect did: the command `command_index` added an entry (its bytes begin at `offset`
    of the body), removed the one at the place `removed` (0: none), or both."""

    command_index: int
    offset: int
    adds: bool
    removed: int


_ONE_ADDITION = b"\0\0\0\1\1\0\0\0\0"
_ONE_REPLACEMENT_BYTES = 57
_ONE_STEP = (Step(0, 0, True, 0),)


def steps_of(effects: bytes) -> Sequence[Step]:
    """As `diff.decode_effects`, with places as numbers and without hashes.

    Raises:
        DamagedError: cut off.
    """
    if not effects:
        return ()
    if effects == _ONE_ADDITION:
        return _ONE_STEP
    try:
        if len(effects) == _ONE_REPLACEMENT_BYTES and effects[4] == _ADDS | _REMOVES:
            version, command = _REMOVED.unpack_from(effects, 9)
            return [Step(0, 0, True, version << INDEX_BITS | command)]
        count = int.from_bytes(effects[:4], "big")
        flags = effects[4 : 4 + count]
        offsets = struct.unpack_from(f">{count}I", effects, 4 + count)
        at = 4 + 5 * count
        steps = []
        for index, flag in enumerate(flags):
            if not flag:
                continue
            removed = 0
            if flag & _REMOVES:
                version, command = _REMOVED.unpack_from(effects, at)
                removed = version << INDEX_BITS | command
                at += _PLACE_BYTES
            steps.append(Step(index, offsets[index], bool(flag & _ADDS), removed))
    except struct.error:
        raise DamagedError("effects: cut off") from None
    return steps


def offset_of(effects: bytes, command_index: int) -> int:
    """Where the command begins in its commit's body."""
    count = int.from_bytes(effects[:4], "big")
    at = 4 + count + 4 * command_index
    return int.from_bytes(effects[at : at + 4], "big")


def removal_of(effects: bytes, command_index: int) -> int:
    """The place that the command removed an entry from; 0 if it removed none."""
    return next((s.removed for s in steps_of(effects) if s.command_index == command_index), 0)


@dataclass(slots=True, kw_only=True)
class Block:
    """What the commands of the versions in (base, base + 256] did, or some of them.

    `removed` are places in ascending order, `at` beside them the removing commands' places, each
    twice its number, plus one where the command put another entry in its place. `added` are
    places that entries came to, ascending. The last two count from `base`. `bare` are the places
    of commands that put nothing where they removed, with the token of their key.

    A sum of `count` blocks tells the same of all their versions, without what came and went again.
    """

    base: int
    count: int = 1
    removed: "array[int]" = field(default_factory=lambda: array("Q"))
    at: "array[int]" = field(default_factory=lambda: array("I"))
    added: "array[int]" = field(default_factory=lambda: array("I"))
    bare: list[tuple[int, bytes]] = field(default_factory=list)

    @property
    def end(self) -> int:
        """The last of its versions."""
        return self.base + self.count * BLOCK_VERSIONS

    @property
    def changes(self) -> int:
        """Effects that the versions had."""
        return len(self.added) + len(self.bare)

    @property
    def growth(self) -> int:
        return len(self.added) - len(self.removed)

    def note(self, version: int, body: bytes, effects: bytes) -> None:
        """Adds what one version did; `sort` once all are noted."""
        base = self.base << INDEX_BITS
        if effects == _ONE_ADDITION:
            self.added.append((version << INDEX_BITS) - base)
            return
        if len(effects) == _ONE_REPLACEMENT_BYTES and effects[4] == _ADDS | _REMOVES:
            place = (version << INDEX_BITS) - base
            before, command = _REMOVED.unpack_from(effects, 9)
            self.added.append(place)
            self.removed.append(before << INDEX_BITS | command)
            self.at.append(place << 1 | 1)
            return
        for index, offset, adds, removed in steps_of(effects):
            place = version << INDEX_BITS | index
            if adds:
                self.added.append(place - base)
            else:
                self.bare.append((place, token_at(body, offset)))
            if removed:
                self.removed.append(removed)
                self.at.append((place - base) << 1 | adds)

    def sort(self) -> None:
        order = sorted(range(len(self.removed)), key=self.removed.__getitem__)
        self.removed = array("Q", [self.removed[i] for i in order])
        self.at = array("I", [self.at[i] for i in order])

    def encode(self) -> bytes:
        """`u32 removals ‖ u32 additions ‖ u32 bare ones ‖ removals × u64 removed ‖ removals × u32
        at ‖ additions × u32 added`, then for each bare one `u64 place ‖ u16 length ‖ token`; all
        little-endian."""
        return b"".join(
            (
                _HEAD.pack(len(self.removed), len(self.added), len(self.bare)),
                packed(self.removed),
                packed(self.at),
                packed(self.added),
                *(_BARE.pack(place, len(token)) + token for place, token in self.bare),
            )
        )

    @classmethod
    def decode(cls, data: bytes, base: int, count: int = 1) -> "Block":
        removals, additions, bare_count = _HEAD.unpack_from(data)
        at = _HEAD.size + 8 * removals
        added = at + 4 * removals
        end = added + 4 * additions
        block = cls(base=base, count=count, added=unpacked(data[added:end], "I"))
        if removals:
            block.removed = unpacked(data[_HEAD.size : at], "Q")
            block.at = unpacked(data[at:added], "I")
        for _ in range(bare_count):
            place, length = _BARE.unpack_from(data, end)
            end += _BARE.size + length
            block.bare.append((place, data[end - length : end]))
        return block

    def within(self, low: int, high: int) -> "Block":
        """Of commands of the versions in (low, high] alone."""
        first = (low + 1 - self.base) << INDEX_BITS
        end = (high + 1 - self.base) << INDEX_BITS
        kept = [i for i, at in enumerate(self.at) if first <= at >> 1 < end]
        base = self.base << INDEX_BITS
        return Block(
            base=self.base,
            removed=array("Q", [self.removed[i] for i in kept]),
            at=array("I", [self.at[i] for i in kept]),
            added=self.added[bisect_left(self.added, max(0, first)) : bisect_left(self.added, end)],
            bare=[one for one in self.bare if first <= one[0] - base < end],
        )

    def places_added(self, first: int = 0, end: int = _END) -> list[int]:
        """From `first` on, below `end`."""
        base = self.base << INDEX_BITS
        low = bisect_left(self.added, first - base) if first > base else 0
        high = bisect_left(self.added, end - base) if end < _END else len(self.added)
        return [base + one for one in self.added[low:high]]

    def followed(self, place: int) -> int | None:
        """Where the key of the entry at `place` has its entry in the end; None if its last one
        was removed and nothing put in its place."""
        removed = self.removed
        while (i := bisect_left(removed, place)) < len(removed) and removed[i] == place:
            if not self.at[i] & 1:
                return None
            place = (self.base << INDEX_BITS) + (self.at[i] >> 1)
        return place

    def removed_below(self, place: int) -> "array[int]":
        """The places removed that are less than `place`."""
        return self.removed[: bisect_left(self.removed, place)]

    def removed_from(self, place: int) -> "array[int]":
        """The others."""
        below = bisect_left(self.removed, place)
        return self.removed[below:] if below else self.removed


def sum_of(blocks: Sequence[Block]) -> Block:
    """Of blocks that follow on each other. `at` is all zeros: `followed` is for single blocks."""
    base = blocks[0].base
    first = first_place(base + 1)
    went: set[int] = set().union(*(block.removed_from(first) for block in blocks))
    added = array("I")
    for block in blocks:
        left = [place for place in block.places_added() if place not in went]
        added.extend([place - (base << INDEX_BITS) for place in left])
    removed = sorted(place for block in blocks for place in block.removed_below(first))
    ended = {token: place for block in blocks for place, token in block.bare}
    return Block(
        base=base,
        count=len(blocks),
        removed=array("Q", removed),
        at=array("I", bytes(4 * len(removed))),
        added=added,
        bare=[(place, token) for token, place in ended.items()],
    )


def token_at(body: bytes, offset: int) -> bytes:
    """The token of the command whose bytes begin at `offset`."""
    (length,) = _U16.unpack_from(body, offset + 1)
    return body[offset + 3 : offset + 3 + length]


class Gone:
    """Places that were removed, for one way through places in ascending order.

    Eight bytes each, apart by the block of their versions, so that no more than a stretch of them
    is ever looked at as objects.
    """

    def __init__(self) -> None:
        self._stretches: dict[int, array[int]] = {}
        self._numbers: list[int] = []
        self.count = 0

    def add(self, places: "array[int]") -> None:
        """Some more, ascending."""
        stretches = self._stretches
        at, count = 0, len(places)
        self.count += count
        while at < count:
            number = _block_of_place(places[at])
            end = bisect_left(places, first_place((number + 1) * BLOCK_VERSIONS + 1), at)
            stretch = stretches.get(number)
            if stretch is None:
                stretches[number] = places[at:end]
                insort(self._numbers, number)
            else:
                stretch.extend(places[at:end])
            at = end

    @property
    def size_bytes(self) -> int:
        return 8 * self.count + 100 * len(self._stretches)

    def between(self, first: int, last: int) -> set[int]:
        """Those from `first` to `last`, perhaps with some neighbours."""
        low = bisect_left(self._numbers, _block_of_place(first))
        high = bisect_left(self._numbers, _block_of_place(last) + 1)
        if low == high:
            return _NOTHING
        return set().union(*(self._stretches[number] for number in self._numbers[low:high]))

    def all_of(self, block: Block) -> bool:
        """Whether all that a block added went, where nothing went that is of its versions and not
        of the block."""
        first = block.base // BLOCK_VERSIONS
        gone = sum(
            len(self._stretches.get(number, ())) for number in range(first, first + block.count)
        )
        return gone > 0 and gone == len(block.added)


_NOTHING: set[int] = set()


def _block_of_place(place: int) -> int:
    return (place - (1 << INDEX_BITS)) // (BLOCK_VERSIONS << INDEX_BITS)


def packed(places: "array[int]") -> bytes:
    """Little-endian, whatever the machine is."""
    if sys.byteorder == "big":
        places = places[:]
        places.byteswap()
    return places.tobytes()


def unpacked(data: bytes, kind: Literal["I", "Q"] = "Q") -> "array[int]":
    places = array(kind)
    places.frombytes(data)
    if sys.byteorder == "big":
        places.byteswap()
    return places

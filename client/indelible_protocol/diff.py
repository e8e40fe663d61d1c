"""What a version changed, and the net of what many versions changed.

A version is stored with one effect per key that it changed. Folding the effects of the
versions in (from, to] gives the smallest set of removes and adds that turns the contents at
`from` into those at `to`; values are not needed for that. Knows nothing of where versions
are kept.
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal, NamedTuple

from msgspec import Struct

from indelible_protocol.errors import ProtocolError

Order = Literal["command", "key"]


class Place(NamedTuple):
    """Where an entry came in: its version, the command's index there and the offset of its
    bytes in the body, and its entry hash."""

    version: int
    command_index: int
    offset: int
    entry_hash: bytes


class Effect(NamedTuple):
    """What one version did to one key.

    `command_index` is the command that last changed the key in that commit and `offset` its first
    byte in the body; `adds` says whether the key has a value afterwards (that command's);
    `removed` is the entry that went, if there was one.
    """

    command_index: int
    offset: int
    adds: bool
    removed: Place | None


_COUNT = struct.Struct(">I")
_PLACE = struct.Struct(">QII32s")
_ADDS = 1
_REMOVES = 2


def encode_effects(effects: Iterable[Effect], offsets: Sequence[int]) -> bytes:
    """`u32 count ‖ count × u8 flags (0 nothing, 1 adds, 2 removes, 3 both) ‖ count × u32 offset`,
    one of each for every command of the commit, whose `offsets` these are, then for each command
    that removes `u64 version ‖ u32 index ‖ u32 offset ‖ entry_hash[32]`; empty without effects."""
    flags = bytearray(len(offsets))
    places = []
    for effect in effects:
        flags[effect.command_index] = _ADDS * effect.adds
        if effect.removed is not None:
            flags[effect.command_index] |= _REMOVES
            places.append(_PLACE.pack(*effect.removed))
    if not any(flags):
        return b""
    count = len(offsets)
    return b"".join((_COUNT.pack(count), flags, struct.pack(f">{count}I", *offsets), *places))


def decode_effects(data: bytes) -> list[Effect]:
    """
    Raises:
        ProtocolError: cut off, or too long.
    """
    effects: list[Effect] = []
    if not data:
        return effects
    try:
        (count,) = _COUNT.unpack_from(data)
        at = _COUNT.size + count
        flags = data[_COUNT.size : at]
        offsets = struct.unpack_from(f">{count}I", data, at)
        at += 4 * count
        for index, flag in enumerate(flags):
            if not flag:
                continue
            removed = None
            if flag & _REMOVES:
                removed = Place(*_PLACE.unpack_from(data, at))
                at += _PLACE.size
            effects.append(Effect(index, offsets[index], bool(flag & _ADDS), removed))
    except struct.error:
        raise ProtocolError("effects: cut off") from None
    if at != len(data):
        raise ProtocolError(f"effects: {len(data) - at} bytes too many")
    return effects


class Change(NamedTuple):
    """One side of a diff: an entry that goes or comes, named by where it was introduced.

    `last_version` and `last_index` are the command that last changed the key within the
    range: what order `command` sorts by. `offset` is where the introducing command begins in
    its body.
    """

    op: Literal["remove", "add"]
    token: bytes
    version: int
    command_index: int
    offset: int
    last_version: int
    last_index: int


class _Net(Struct):
    before: Place | None
    after: tuple[int, int, int] | None  # version, index, offset
    last_version: int
    last_index: int


@dataclass(slots=True)
class Fold:
    """The net of the versions given to `add`, which come in ascending order."""

    _nets: dict[bytes, _Net] = field(default_factory=dict)

    def add(self, version: int, token: bytes, effect: Effect) -> None:
        after = (version, effect.command_index, effect.offset) if effect.adds else None
        net = self._nets.get(token)
        if net is None:
            self._nets[token] = _Net(effect.removed, after, version, effect.command_index)
        else:
            net.after = after
            net.last_version = version
            net.last_index = effect.command_index

    def changes(self) -> list[Change]:
        """The net in order `command`; a key's remove comes before its add."""
        nets = [item for item in self._nets.items() if item[1].before or item[1].after]
        nets.sort(key=lambda item: (item[1].last_version, item[1].last_index))
        changes = []
        for token, net in nets:
            last = (net.last_version, net.last_index)
            if net.before:
                place = net.before[:3]
                changes.append(Change("remove", token, *place, *last))
            if net.after:
                changes.append(Change("add", token, *net.after, *last))
        return changes


def by_key(changes: Iterable[Change]) -> list[Change]:
    """Order `key`: by token, a remove before the add of the same key."""
    return sorted(changes, key=lambda change: (change.token, change.op == "add"))


def inverted(changes: Iterable[Change]) -> list[Change]:
    """What leads back: sides swapped, the order of keys kept, removes still before adds."""
    swapped = []
    for _, sides in groupby(changes, key=lambda change: change.token):
        for change in reversed(list(sides)):
            swapped.append(change._replace(op="add" if change.op == "remove" else "remove"))
    return swapped

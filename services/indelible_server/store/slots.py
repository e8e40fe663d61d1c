"""Where keys live in a cluster: the slot of a key, and which node serves which slots.

Pure: reads what nodes tell (CLUSTER SLOTS) and asks nothing itself.
"""

from binascii import crc_hqx
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

SLOTS = 16_384
_NAME_CHARS = 8
_ANYWHERE = frozenset({"CLUSTER", "CONFIG", "FUNCTION", "INFO", "PING"})
_COUNTED = frozenset({"FCALL", "FCALL_RO"})


class Address(NamedTuple):
    host: str
    port: int


def key_of(command: Sequence[Any]) -> str | bytes | None:
    """The first key of a command as the store sends them; None for one that any node answers."""
    word = command[0]
    if word.partition(" ")[0] in _ANYWHERE:
        return None
    at = 1
    if word in _COUNTED:
        at = 3
    elif word == "XREAD":
        at = command.index("STREAMS") + 1
    key: str | bytes = command[at]
    return key


def slot_of(key: str | bytes) -> int:
    """By what stands between the first brace and the next that closes it, if anything does."""
    data = key.encode() if isinstance(key, str) else key
    start = data.find(b"{")
    if start >= 0:
        end = data.find(b"}", start + 1)
        if end > start + 1:
            data = data[start + 1 : end]
    return crc_hqx(data, 0) % SLOTS


@dataclass(slots=True, kw_only=True)
class SlotMap:
    """A node's view of its cluster; newer where `epoch` is greater.

    `names` begin as the nodes' names in CLUSTER NODES do.
    """

    epoch: int
    owners: list[Address | None] = field(repr=False)
    primaries: tuple[Address, ...]
    replicas: tuple[Address, ...]
    names: dict[Address, str]

    @property
    def nodes(self) -> tuple[Address, ...]:
        return (*self.primaries, *self.replicas)

    @property
    def unserved(self) -> int:
        """How many slots nobody serves."""
        return self.owners.count(None)


def read_slot_map(info: bytes, rows: Iterable[Sequence[Any]], asked: Address) -> SlotMap:
    """From CLUSTER INFO and CLUSTER SLOTS of the node at `asked`.

    A node that does not know its own name gives an empty one: it is where it was asked.
    """
    told = dict(line.split(b":", 1) for line in info.split(b"\r\n") if b":" in line)
    owners: list[Address | None] = [None] * SLOTS
    primaries: dict[Address, None] = {}
    replicas: dict[Address, None] = {}
    names: dict[Address, str] = {}
    for first, last, primary, *others in rows:
        names |= {
            _address(node, asked): node[2].decode()[:_NAME_CHARS] for node in (primary, *others)
        }
        owner = _address(primary, asked)
        primaries[owner] = None
        replicas |= dict.fromkeys(_address(other, asked) for other in others)
        owners[first : last + 1] = [owner] * (last + 1 - first)
    return SlotMap(
        epoch=int(told[b"cluster_current_epoch"]),
        owners=owners,
        primaries=tuple(primaries),
        replicas=tuple(replicas),
        names=names,
    )


def _address(node: Sequence[Any], asked: Address) -> Address:
    host = node[0].decode() if node[0] else ""
    return Address(asked.host if host in ("", "?") else host, int(node[1]))

"""Logs and versions laid out as the store's functions leave them, without a call of those.

A call of the commit function takes the engine about ten times as long as what it leaves takes to
write, and loads stand on logs of a million versions. A test compares the two. Pure: gives
commands for the engine, sends nothing.
"""

import secrets
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, NamedTuple

import hiredis
from indelible_protocol.commands import Command, LogKind, Op, encode, entry_hash, value_id
from indelible_protocol.ids import LogId
from indelible_protocol.merkle import root_of
from indelible_protocol.records import CommitKind, OpaqueGenesis, unsigned_header
from indelible_server.store import keys
from indelible_server.store.admission import LogIdentity, found_opaque
from indelible_server.store.names import NameRecord, Scope

from tests.benchmarks.figures import check

_AT_ONCE = 500
_U64 = struct.Struct(">Q")
_FIRST_POSITION = bytes(8)  # command 0, at byte 0 of the body
_ADDS = b"\0\0\0\1\1\0\0\0\0"
_REPLACES = b"\0\0\0\1\3\0\0\0\0"
_PLACE_BYTES = 48


class Part(NamedTuple):
    """Commands for the engine, which answers each."""

    data: bytes
    answers: int


class Setting(NamedTuple):
    """A commit of one Upsert: the fields that begin its version in the stream, as they are sent,
    how large they are, and the index entry that it makes but for the version."""

    token: bytes
    fields: bytes
    size: int
    entry: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a log is at, and the index entries of the keys that are going to be set."""

    version: int
    time_ms: int
    held: Mapping[bytes, bytes]


def setting(log_id: LogId, key: bytes, value: bytes) -> Setting:
    command = Command(Op.UPSERT, key, value=value)
    body = encode(command)
    header = unsigned_header(CommitKind.DATA, log_id, 1, root_of([body]), len(body), b"")
    entry = _FIRST_POSITION + entry_hash(command) + value_id(LogKind.OPAQUE, command)
    fields = b"".join(map(_word, (b"h", header, b"s", b"", b"b", body)))
    return Setting(key, fields, len(header) + len(body), entry)


def versions(log_id: LogId, standing: Standing, settings: Iterable[Setting]) -> Iterator[Part]:
    """Each setting as the log's next version.

    Raises:
        CheckFailed: one would not have made a version.
    """
    log_keys = keys.of_log(log_id)
    begin = b"*13\r\n" + _word(b"XADD") + _word(log_keys.commits.encode())
    time_ms = b"%d" % standing.time_ms
    between = b"".join(map(_word, (b"t", time_ms, b"e")))
    version, held = standing.version, dict(standing.held)
    left = iter(settings)
    while some := list(islice(left, _AT_ONCE)):
        index: dict[bytes, bytes] = {}
        data: list[bytes] = []
        growth = size = 0
        for token, fields, length, made in some:
            version += 1
            before = held.get(token)
            effects = _ADDS
            if before is None:
                growth += 1
            else:
                check(before[_PLACE_BYTES:] != made[-32:], "a key is set to what it holds")
                effects = _REPLACES + before[:_PLACE_BYTES]
            held[token] = index[token] = _U64.pack(version) + made
            size += length + len(effects)
            data += (begin, _word(b"%d-0" % version), fields, between, _word(effects))
        data += [
            _packed("HSET", log_keys.index, *_flat(index)),
            _packed("HSET", log_keys.meta, "version", version, "time_ms", time_ms),
            _packed("HINCRBY", log_keys.meta, "entries", growth),
            _packed("HINCRBY", log_keys.meta, "stored_bytes", size),
        ]
        yield Part(b"".join(data), len(some) + 4)


class MoreLogs:
    """Opaque logs beside one that was made by the store's functions and has this `meta`."""

    def __init__(self, identity: LogIdentity, meta: Mapping[bytes, bytes]) -> None:
        self._identity = identity
        self._scope = Scope(tenant=identity.tenant, database=identity.database)
        self._meta = meta
        self.made: list[LogId] = []

    def named(self, names: Iterable[bytes]) -> Iterator[Part]:
        """Notes their ids, in the order of their names, in `made`."""
        left = iter(names)
        while some := list(islice(left, _AT_ONCE)):
            commands = [each for name in some for each in self._commands(name)]
            yield Part(b"".join(commands), len(commands))

    def _commands(self, name: bytes) -> list[bytes]:
        one = self._identity
        log_id, genesis = found_opaque(
            OpaqueGenesis(
                tenant=one.tenant.encode(),
                database=one.database.encode(),
                name=name,
                group=one.group.encode(),
                incarnation=1,
                random=secrets.token_bytes(32),
            )
        )
        self.made.append(log_id)
        meta = dict(self._meta) | {
            b"name": name,
            b"stored_bytes": b"%d" % genesis.size_bytes,
            b"genesis_header": genesis.header,
            b"genesis_body": genesis.body,
        }
        record = NameRecord(log_id=log_id, group=one.group, incarnation=1).encode()
        group = keys.group(one.tenant, one.database, one.group)
        member = int(meta[b"created_ms"]).to_bytes(8, "big") + log_id
        named = keys.name(one.tenant, one.database, LogKind.OPAQUE, name)
        return [
            _packed("HSET", keys.of_log(log_id).meta, *_flat(meta)),
            _packed("SET", named, record),
            _packed("ZADD", keys.listing(one.tenant, one.database), 0, member),
            _packed("ZADD", group.listing, 0, member),
            _packed("INCR", group.version),
        ]


def _packed(*words: Any) -> bytes:
    packed: bytes = hiredis.pack_command(words)
    return packed


def _word(data: bytes) -> bytes:
    """A word of a command, as it is sent."""
    return b"$%d\r\n%b\r\n" % (len(data), data)


def _flat(pairs: Mapping[bytes, bytes]) -> Iterator[bytes]:
    return chain.from_iterable(pairs.items())

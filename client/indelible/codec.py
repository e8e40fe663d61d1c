"""Between what the user passes and what the service is sent, for one log and its modes.

Pure but for the turns it gives to other tasks: sealing and opening take microseconds an
entry, and thousands of them would hold the event loop.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

from indelible_protocol import limits, messages
from indelible_protocol.commands import Command as SealedCommand
from indelible_protocol.commands import Op
from indelible_protocol.errors import ProtocolError
from indelible_protocol.ids import KeyToken
from indelible_protocol.records import Header

from indelible.answers import Change, Entry, KeyChange, Version, time_of
from indelible.commands import (
    Command,
    Delete,
    ExpectAbsent,
    ExpectEntry,
    Insert,
    Remove,
    Update,
    Upsert,
)
from indelible.errors import RequestError, UnsealError, VerificationError
from indelible.modes import Mode
from indelible.sealing import LogKeys

TURN_SECONDS = 0.002

T = TypeVar("T")
R = TypeVar("R")

_SETS = {Upsert: Op.UPSERT, Insert: Op.INSERT, Update: Op.UPDATE}


async def in_turns(items: Iterable[T], work: Callable[[T], R]) -> list[R]:
    """`work` on each item, giving way to other tasks every TURN_SECONDS."""
    done = []
    turn_ends = time.perf_counter() + TURN_SECONDS
    for item in items:
        done.append(work(item))
        if time.perf_counter() > turn_ends:
            await asyncio.sleep(0)
            turn_ends = time.perf_counter() + TURN_SECONDS
    return done


class Codec:
    """Seals commands, opens entries."""

    __slots__ = ("_keys", "key_mode", "value_mode")

    def __init__(self, keys: LogKeys, key_mode: Mode, value_mode: Mode) -> None:
        self._keys = keys
        self.key_mode = key_mode
        self.value_mode = value_mode

    # To the service

    def key_bytes(self, key: object) -> bytes:
        data = self._encoded(self.key_mode, key, "key")
        if len(data) > limits.MAX_KEY_BYTES:
            raise RequestError(
                f"a key of {len(data)} bytes, at most {limits.MAX_KEY_BYTES} are allowed"
            )
        return data

    def token(self, key: object) -> KeyToken:
        return self._keys.token(self.key_bytes(key))

    def sealed(self, command: Command) -> SealedCommand:
        """
        Raises:
            RequestError: a key or value that the log's modes cannot hold.
        """
        keys = self._keys
        op = _SETS.get(type(command))
        if op is not None:
            command = cast("Upsert | Insert | Update", command)
            key_ct = keys.seal_key(self.key_bytes(command.key))
            token, value = key_ct[:32], self.value_bytes(command.value)
            sealed = keys.seal_value(token, value)
            return SealedCommand(op, token, key_ct, sealed, keys.alts(token, value))
        match command:
            case Remove(key=key, value=value):
                token, data = self.token(key), self.value_bytes(value)
                value_id, alts = keys.value_id(token, data), keys.alts(token, data)
                return SealedCommand(Op.REMOVE, token, b"", value_id, alts)
            case Delete(key=key):
                return SealedCommand(Op.DELETE, self.token(key))
            case ExpectAbsent(key=key):
                return SealedCommand(Op.EXPECT_ABSENT, self.token(key))
            case ExpectEntry(key=key, version=version):
                check_version(version, "ExpectEntry's version")
                return SealedCommand.on_version(Op.EXPECT_ENTRY, self.token(key), version)
            case _:
                raise RequestError(
                    f"a commit is a list of Upsert, Insert, Update, Remove, Delete, ExpectAbsent "
                    f"and ExpectEntry; {type(command).__name__} is none of them"
                )

    def value_bytes(self, value: object) -> bytes:
        return self._encoded(self.value_mode, value, "value")

    def _encoded(self, mode: Mode, value: object, what: str) -> bytes:
        try:
            return mode.encode(value)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            # Not its own words: they may quote the value.
            reason = "it holds half a character" if isinstance(error, UnicodeError) else error
            raise RequestError(
                f"a {what} of type {type(value).__name__} cannot be kept in mode "
                f"{mode.word}: {reason}"
            ) from error

    # From the service

    def change(self, change: messages.DiffChange) -> Change:
        key = self._key(change.key, change.sealed_key)
        value = self._value(change.key, change.value, change.version)
        return Change(change.op, key, value, change.version)

    def entry(self, entry: messages.Entry) -> Entry:
        key = self._key(entry.key, entry.sealed_key)
        return Entry(key, self._value(entry.key, entry.value, entry.version), entry.version)

    def value(self, token: bytes, entry: messages.Entry) -> Any:
        """The value of the entry of `token`, which is what was asked for."""
        if entry.key != token:
            raise VerificationError(
                "the service answered with the entry of another key",
                evidence={"asked": token, "answered": entry.key},
            )
        return self._value(token, entry.value, entry.version)

    def key_change(self, token: bytes, change: messages.KeyChange) -> KeyChange:
        value = None
        if change.op == "set":
            value = self._value(token, change.value, change.version)
        return KeyChange(change.op, value, change.version, time_of(change.time_ms))

    def version(self, info: messages.VersionInfo) -> Version:
        return Version(
            version=info.version,
            time=time_of(info.time_ms),
            source=self._source(info),
            writer=info.writer.hex(),
            commands=info.commands,
            changes=info.changes,
            stored_bytes=info.stored_bytes,
        )

    def _source(self, info: messages.VersionInfo) -> str:
        try:
            header = Header.decode(info.header)
        except ProtocolError as error:
            raise VerificationError(
                f"version {info.version} has no readable header: {error}",
                evidence={"header": info.header},
            ) from error
        if not header.memo_ct:
            return ""
        memo = self._keys.open_memo(header.chain, header.seq, header.memo_ct)
        return memo.decode(errors="replace")

    def _key(self, token: bytes, sealed: bytes) -> Any:
        if sealed[:32] != token:
            raise VerificationError(
                "a sealed key that is not the one of its token",
                evidence={"token": token, "sealed_key": sealed},
            )
        return _decoded(self.key_mode, self._keys.open_key(sealed), "key")

    def _value(self, token: bytes, sealed: bytes, version: int) -> Any:
        try:
            data = self._keys.open_value(token, sealed)
        except UnsealError as error:
            raise UnsealError(f"a value of version {version}: {error}") from None
        return _decoded(self.value_mode, data, f"value of version {version}")


def _decoded(mode: Mode, data: bytes, what: str) -> Any:
    try:
        return mode.decode(data)
    except ValueError as error:
        # The bytes are authentic: a member wrote them by other means than this library.
        raise UnsealError(f"a {what} was sealed in another mode: {error}") from error


def check_version(version: object, what: str) -> None:
    """
    Raises:
        RequestError: not a whole number from 0 to 2^53−1.
    """
    if isinstance(version, bool) or not isinstance(version, int):
        raise RequestError(f"{what} is a {type(version).__name__}, a whole number expected")
    if not 0 <= version <= limits.MAX_VERSION:
        raise RequestError(f"{what} is {version}, 0 to 2^53-1 expected")

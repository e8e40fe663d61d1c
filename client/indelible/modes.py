"""Modes: how a key or a value becomes bytes, one spelling for each, and back.

Equal values must give equal bytes, because the service compares what was sealed from them:
JSON has its keys sorted, msgpack its shortest forms and its maps sorted by encoded key.
Knows nothing of sealing.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from enum import IntEnum
from typing import Any, Literal, NoReturn

import msgpack

from indelible.errors import RequestError

ModeName = Literal["string", "json", "msgpack", "binary"]

_BINARY = (bytes, bytearray, memoryview)
_MAX_NESTING = 128  # far below Python's recursion limit, and below what JSON's parser takes


class Mode(IntEnum):
    """The numbers stand in the log's sealed Meta record."""

    STRING = 1
    JSON = 2
    MSGPACK = 3
    BINARY = 4

    @classmethod
    def named(cls, name: str) -> "Mode":
        """
        Raises:
            RequestError: no such mode.
        """
        mode = _NAMED.get(name) if isinstance(name, str) else None
        if mode is None:
            raise RequestError(f"no mode {name!r}: string, json, msgpack or binary expected")
        return mode

    @property
    def word(self) -> ModeName:
        return _WORDS[self]

    def encode(self, value: object) -> bytes:
        """The one spelling of `value`.

        Raises:
            TypeError, ValueError, OverflowError, RecursionError: it has none in this mode.
        """
        return _ENCODERS[self - 1](value)

    def decode(self, data: bytes) -> Any:
        """
        Raises:
            ValueError: bytes that this mode does not write.
        """
        try:
            return _DECODERS[self - 1](data)
        except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
            raise ValueError(f"not {self.word}: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _encode_string(value: object) -> bytes:
    if not isinstance(value, str):
        raise TypeError("a string expected")
    return value.encode()


def _encode_binary(value: object) -> bytes:
    if not isinstance(value, _BINARY):
        raise TypeError("bytes expected")
    return bytes(value)


def _encode_json(value: object) -> bytes:
    if isinstance(value, dict | list | tuple):
        for keys in _maps_in(value):
            for key in keys:
                # json would turn 1 into "1", and sort 2 before 10 where "10" comes first.
                if not isinstance(key, str):
                    raise TypeError(f"an object's key is a {type(key).__name__}, not a string")
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


def _maps_in(value: object) -> Iterator[Mapping[Any, object]]:
    """Every dict within `value`, level by level; bounded, so that a cycle is found."""
    level = [value]
    for _ in range(_MAX_NESTING):
        below: list[object] = []
        for item in level:
            if isinstance(item, dict):
                yield item
                below.extend(item.values())
            elif isinstance(item, list | tuple):
                below.extend(item)
        if not below:
            return
        level = below
    raise ValueError(f"nested deeper than {_MAX_NESTING}")


def _decode_json(data: bytes) -> object:
    return json.loads(data.decode(), parse_constant=_no_constant)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _encode_msgpack(value: object) -> bytes:
    packed: bytes = msgpack.packb(_in_order(value, 0))
    return packed


def _in_order(value: object, depth: int) -> object:
    """`value` with its maps in the order of their encoded keys (a packer keeps it)."""
    if depth > _MAX_NESTING:
        raise ValueError(f"nested deeper than {_MAX_NESTING}")
    if isinstance(value, dict):
        for key in value:
            if isinstance(key, tuple):
                raise TypeError(f"a map's key is a {type(key).__name__}")
        ordered = sorted(value.items(), key=lambda item: msgpack.packb(item[0]))
        return {key: _in_order(item, depth + 1) for key, item in ordered}
    if isinstance(value, msgpack.ExtType | msgpack.Timestamp):
        raise TypeError("extension types have no one spelling")
    if isinstance(value, list | tuple):
        return [_in_order(item, depth + 1) for item in value]
    return value


def _decode_msgpack(data: bytes) -> object:
    # The hook is not asked about timestamps; the length is, of every extension.
    return msgpack.unpackb(
        data, raw=False, strict_map_key=False, max_ext_len=0, ext_hook=_no_extension
    )


def _no_extension(code: int, data: bytes) -> NoReturn:
    raise ValueError(f"extension type {code}")


_WORDS: dict[Mode, ModeName] = {
    Mode.STRING: "string",
    Mode.JSON: "json",
    Mode.MSGPACK: "msgpack",
    Mode.BINARY: "binary",
}
_NAMED: dict[str, Mode] = {word: mode for mode, word in _WORDS.items()}
# In the order of the modes' numbers: a dict would call a hash of Python's for each entry.
_ENCODERS: tuple[Callable[[object], bytes], ...] = (
    _encode_string,
    _encode_json,
    _encode_msgpack,
    _encode_binary,
)
_DECODERS: tuple[Callable[[bytes], object], ...] = (
    bytes.decode,
    _decode_json,
    _decode_msgpack,
    bytes,
)

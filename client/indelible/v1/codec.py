"""How the original library spells names, keys and values on the wire. Pure."""

import json
from base64 import standard_b64decode, standard_b64encode
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from indelible.v1 import crypto

MODES = ("string", "json", "binary", "raw")
NAME_MODES = ("string", "raw", "stringlist")


@dataclass(frozen=True, slots=True)
class ValueTransformer:
    """From what the caller holds to what stands in JSON, and back."""

    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]


def validate_mode(mode: str) -> None:
    """
    Raises:
        ValueError: the mode is none of `MODES`.
    """
    if mode not in MODES:
        raise ValueError(f"mode is {mode!r}, one of {', '.join(MODES)} expected")


def value_transformer(mode: str, key: bytes | None) -> ValueTransformer:
    """The way of one mode; `key` None leaves the bytes unsealed.

    Raises:
        ValueError: an unknown mode, or `raw` with a key: raw values are never sealed.
    """
    validate_mode(mode)
    if mode == "raw":
        if key is not None:
            raise ValueError("mode 'raw' cannot be encrypted: use encrypt=False, or another mode")
        return ValueTransformer(_unchanged, _unchanged)
    to_bytes, from_bytes = _BYTES[mode]

    def encode(value: Any) -> str:
        plain = to_bytes(value)
        return standard_b64encode(plain if key is None else crypto.encrypt(key, plain)).decode()

    def decode(text: str) -> Any:
        data = standard_b64decode(text)
        return from_bytes(data if key is None else crypto.decrypt(key, data))

    return ValueTransformer(encode, decode)


def encode_name(name: Any, name_mode: str) -> Any:
    """The name's bytes; in mode `raw`, the name as it is.

    A `stringlist` is the byte 1, then each part with a zero byte behind it.

    Raises:
        ValueError: the mode is none of `NAME_MODES`.
    """
    if name_mode == "raw":
        return name
    if name_mode == "string":
        return name.encode()
    if name_mode == "stringlist":
        return _join(name)
    raise ValueError(f"name_mode is {name_mode!r}, one of {', '.join(NAME_MODES)} expected")


def _join(parts: Iterable[str]) -> bytes:
    return b"\x01" + b"".join(part.encode() + b"\x00" for part in parts)


def _unchanged(value: Any) -> Any:
    return value


def _to_json(value: Any) -> bytes:
    # The order of keys, non-ASCII escapes and NaN are the original's: other bytes would be
    # another ciphertext, so another key.
    return json.dumps(value, separators=(",", ":")).encode()


_BYTES: dict[str, tuple[Callable[[Any], bytes], Callable[[bytes], Any]]] = {
    "string": (str.encode, bytes.decode),
    "json": (_to_json, json.loads),
    "binary": (_unchanged, _unchanged),
}

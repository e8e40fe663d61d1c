"""Values of every mode as JSON, without loss, and back.

JSON has no bytes, no map with other keys than strings, no infinities; msgpack has. Where JSON
would lose something, an object with one member that begins with `$` stands for it:
`{"$bytes": base64}`, `{"$map": [[key, value], …]}`, `{"$float": "nan" | "inf" | "-inf"}`; any
other NaN as the 16 hexadecimal digits of its bits.
Values of mode `json` stand as they are, values of mode `binary` as base64.
"""

import base64
import binascii
import math
import re
import struct
from typing import Any

from indelible.errors import RequestError
from indelible.modes import Mode

_BYTES, _MAP, _FLOAT = "$bytes", "$map", "$float"


def to_json(value: Any, mode: Mode) -> Any:
    """What `json.dumps` can spell."""
    if mode is Mode.BINARY:
        return base64.b64encode(value).decode()
    return _spelled(value) if mode is Mode.MSGPACK else value


def from_json(spelled: Any, mode: Mode) -> Any:
    """
    Raises:
        RequestError: nothing that `to_json` spells in this mode.
    """
    if mode is Mode.BINARY:
        return _bytes(spelled)
    if mode is Mode.STRING and not isinstance(spelled, str):
        raise RequestError(f"a string expected, not a {type(spelled).__name__}")
    return _meant(spelled) if mode is Mode.MSGPACK else spelled


def _spelled(value: Any) -> Any:
    if isinstance(value, bytes):
        return {_BYTES: base64.b64encode(value).decode()}
    if isinstance(value, list | tuple):
        return [_spelled(item) for item in value]
    if isinstance(value, dict):
        if all(isinstance(key, str) and key[:1] != "$" for key in value):
            return {key: _spelled(item) for key, item in value.items()}
        return {_MAP: [[_spelled(key), _spelled(item)] for key, item in value.items()]}
    if isinstance(value, float) and not math.isfinite(value):
        word = repr(value)
        return {_FLOAT: word if _bits(value) == _bits(float(word)) else _bits(value).hex()}
    return value


def _meant(spelled: Any) -> Any:
    if isinstance(spelled, list):
        return [_meant(item) for item in spelled]
    if not isinstance(spelled, dict):
        return spelled
    if len(spelled) == 1:
        ((name, inner),) = spelled.items()
        if name == _BYTES:
            return _bytes(inner)
        if name == _FLOAT:
            return _float(inner)
        if name == _MAP:
            return _map(inner)
    if any(name[:1] == "$" for name in spelled):
        raise RequestError("names that begin with $ are $bytes, $map and $float, each alone")
    return {name: _meant(item) for name, item in spelled.items()}


def _float(word: Any) -> float:
    if word in ("nan", "inf", "-inf"):
        return float(word)
    if isinstance(word, str) and re.fullmatch("[0-9a-f]{16}", word):
        value: float = struct.unpack(">d", bytes.fromhex(word))[0]
        if math.isnan(value):
            return value
    raise RequestError(f"{_FLOAT} holds nan, inf, -inf or the bits of a NaN")


def _bits(value: float) -> bytes:
    return struct.pack(">d", value)


def _map(pairs: Any) -> dict[Any, Any]:
    if not isinstance(pairs, list) or not all(isinstance(p, list) and len(p) == 2 for p in pairs):
        raise RequestError(f"{_MAP} holds a list of [key, value] pairs")
    found = {}
    for key, item in pairs:
        meant = _meant(key)
        if isinstance(meant, list | dict):
            raise RequestError(f"a key of {_MAP} cannot be a list or a map")
        found[meant] = _meant(item)
    return found


def _bytes(text: Any) -> bytes:
    if isinstance(text, str):
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            pass
    raise RequestError("base64 expected")

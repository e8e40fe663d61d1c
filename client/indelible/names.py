"""Names of logs: a string, or a list of parts; and their one spelling in bytes.

A string is its UTF-8; a list is 0x01, then each part followed by 0x00. Control characters
are refused, so no string looks like a list and no part like two. Nothing is normalised:
`"é"` in one code point and in two are two names.
"""

import unicodedata

from indelible_protocol import limits

from indelible.errors import RequestError

Name = str | list[str] | tuple[str, ...]

_LIST = b"\x01"
_END = b"\x00"


def name_bytes(name: Name) -> bytes:
    """The bytes that are sealed and looked up.

    Raises:
        RequestError: empty (or an empty part), a control character or lone surrogate in it,
            longer than 1,024 bytes, or no string at all.
    """
    if isinstance(name, str):
        data = _part_bytes(name)
    else:
        if not isinstance(name, list | tuple):
            raise RequestError(
                f"a log's name is a string or a list of strings, not {type(name).__name__}"
            )
        if not name:
            raise RequestError("a log's name needs at least one part")
        data = _LIST + b"".join(_part_bytes(part) + _END for part in name)
    if len(data) > limits.MAX_NAME_BYTES:
        raise RequestError(
            f"a log's name of {len(data)} bytes, at most {limits.MAX_NAME_BYTES} are allowed"
        )
    return data


def name_of(data: bytes) -> str | tuple[str, ...]:
    """The name that `name_bytes` spelled; a list comes back as a tuple.

    Raises:
        ValueError: no such bytes.
    """
    if not data.startswith(_LIST):
        return data.decode()
    *parts, rest = data[1:].split(_END)
    if rest or not parts:
        raise ValueError("a list of parts ends with 0x00")
    return tuple(part.decode() for part in parts)


def _part_bytes(part: object) -> bytes:
    if not isinstance(part, str):
        raise RequestError(f"a log's name is made of strings, not of {type(part).__name__}")
    if not part:
        raise RequestError("a log's name is not empty, and neither are its parts")
    for character in part:
        if unicodedata.category(character) == "Cc":
            raise RequestError(f"a log's name holds the control character {character!r}")
    try:
        return part.encode()
    except UnicodeEncodeError:
        raise RequestError(f"a log's name holds half a character: {part!r}") from None

"""JSON documents back to back, as people write them: where each ends, and what it says.

Owns how lenient that is (unquoted names, single quotes, comments, commas at the end), and that
a megabyte of nonsense costs little: a large document is read only if it is flat, as a command
is. Knows nothing of what documents mean.
"""

import io
import json
import re
from collections.abc import Iterator
from contextlib import suppress

import pyjson5
from indelible_protocol import limits
from indelible_protocol.errors import ProtocolError

MAX_DEEP_CHARS = 32 << 10  # of a text whose documents may nest

_STRICT = json.JSONDecoder()  # NaN is a float to it, which no member takes
_NOT_SPACE = re.compile(r"\S")
_STRINGS = r""""[^"\\]*+(?:\\.[^"\\]*+)*+"|'[^'\\]*+(?:\\.[^'\\]*+)*+'"""
_GAP = r"""[^"'{}\[\]]{0,999}+"""
_FLAT = re.compile(rf"\{{{_GAP}(?:(?:{_STRINGS}){_GAP}){{0,8}}+\}}", re.DOTALL)  # as commands are
_NO_JSON_NUMBER = re.compile(  # outside of strings and comments
    rf"{_STRINGS}|//[^\n\r\u2028\u2029]*|/\*.*?\*/|(?P<found>\+|(?<![\w$])0[xX])", re.DOTALL
)


def documents(text: str) -> Iterator[tuple[object, int]]:
    """Each document with where it ends; lenient from the first on that is not strictly JSON."""
    end, strict = 0, True
    while found := _NOT_SPACE.search(text, end):
        start = found.start()
        strict = strict and (len(text) <= MAX_DEEP_CHARS or bool(_FLAT.match(text, start)))
        if strict:
            try:
                document, end = _STRICT.raw_decode(text, start)
            except (ValueError, RecursionError):
                strict = False
        if not strict:
            document, end = _lenient_document(text, start)
        yield document, end


def _lenient_document(text: str, start: int) -> tuple[object, int]:
    """Errors neither chain nor quote the parser's, which hold what was read: an API key."""
    document, end = None, start
    if flat := _FLAT.match(text, start):
        with suppress(pyjson5.Json5DecoderException):  # a quote in a comment misleads `_FLAT`
            document, end = pyjson5.decode(flat[0], limits.MAX_NESTING), flat.end()
    if end == start:
        window = io.StringIO(text[start : start + MAX_DEEP_CHARS])
        try:
            document = pyjson5.decode_io(window, limits.MAX_NESTING, True)
        except pyjson5.Json5DecoderException as error:
            raise ProtocolError(f"no JSON from character {start}: {error.args[0]}") from None
        end += window.tell()
    if any(match["found"] for match in _NO_JSON_NUMBER.finditer(text, start, end)):
        raise ProtocolError(f"no JSON from character {start}: a hexadecimal or signed number")
    return document, end

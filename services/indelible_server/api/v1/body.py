"""What a v1 request says: bytes in, frozen requests out.

Owns the original protocol's spelling: JSON documents back to back, lenient where its
published tour is. Knows nothing of HTTP, tenants or logs; everything malformed is a
ProtocolError.
"""

import base64
import io
import json
import re
from collections.abc import Iterator
from hashlib import sha256
from typing import Any, ClassVar, Literal, NoReturn, TypeVar

import msgspec
import pyjson5
from indelible_protocol import limits
from indelible_protocol.commands import SETS, Command, Op
from indelible_protocol.encoding import u64
from indelible_protocol.errors import ErrorCode, ProtocolError

MAX_HEADER_CHARS = 64 << 10  # what is parsed for a caller who is not known yet

_R = TypeVar("_R")


class Whole(int):
    """A whole number, also as a string in canonical decimals."""

    at_most: ClassVar[int] = limits.MAX_VERSION


class WaitSeconds(Whole):
    at_most = 60


class PageSize(Whole):
    at_most = 50


class Text(str):
    """A string that has bytes: no half of a surrogate pair."""

    __slots__ = ()


class Base64(bytes):
    """Canonical only: the same bytes always go out in the spelling they came in."""


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is absent or null has its default."""


class Authinfo(_Document, frozen=True, kw_only=True):
    customer_id: Text = Text()
    customerid: Text = Text()
    apikey: Text = Text()

    def __repr__(self) -> str:
        return "Authinfo(…)"


class _Request(_Document, frozen=True, kw_only=True, rename="camel"):
    authinfo: Authinfo = Authinfo()
    auth_info: Authinfo = Authinfo()
    log_name: Text

    @property
    def customer_id(self) -> str:
        """Empty if there is none, as `apikey` is."""
        either = self.authinfo, self.auth_info
        return next((a.customer_id or a.customerid for a in either if a != Authinfo()), "")

    @property
    def apikey(self) -> str:
        return self.authinfo.apikey or self.auth_info.apikey


class CreateRequest(_Request, frozen=True, kw_only=True, rename="camel"):
    log_group: Text = Text()


class UpdateRequest(_Request, frozen=True, kw_only=True, rename="camel"):
    update_source: Text = Text()


class Pagination(_Document, frozen=True, kw_only=True, rename="camel"):
    """Where a page begins: at a key, or at a command of a version; or behind its remove."""

    skip_to_key: Base64 | None = None
    remove_already_seen: bool | Literal["true", "false"] = False
    skip_to_version: Whole | None = None
    skip_to_command: Whole = Whole()

    @property
    def skips_remove(self) -> bool:
        return self.remove_already_seen in (True, "true")


class DiffRequest(_Request, frozen=True, kw_only=True, rename="camel"):
    """`to_version` None is the latest."""

    from_version: Whole = Whole()
    to_version: Whole | None = None
    wait_seconds: WaitSeconds = WaitSeconds()
    order_results_by: Literal["command", "key"] | None = None
    limit: PageSize = PageSize(PageSize.at_most)
    pagination_options: Pagination = Pagination()

    def __post_init__(self) -> None:
        start = self.pagination_options
        if (start.skip_to_version if self.by_key else start.skip_to_key) is not None:
            raise ValueError("skipToKey is for the order of keys, skipToVersion for commands")

    @property
    def by_key(self) -> bool:
        """Whether the order is that of keys; without `order_results_by`, the options decide."""
        return (self.order_results_by or self._order_of_options) == "key"

    @property
    def _order_of_options(self) -> str:
        return "command" if self.pagination_options.skip_to_key is None else "key"


class _ExpectVersion(_Document, frozen=True, kw_only=True, tag_field="type", tag="ExpectVersion"):
    version: Whole

    def native(self) -> Command:
        return Command(Op.EXPECT_VERSION, b"", b"", u64(self.version))


class _OnEntry(_Document, frozen=True, kw_only=True, tag_field="type"):
    key: Base64
    value: Base64
    op: ClassVar[Op]

    def native(self) -> Command:
        value = self.value if self.op in SETS else sha256(self.value).digest()
        return Command(self.op, self.key, b"", value)


class _Insert(_OnEntry, frozen=True, kw_only=True, tag_field="type", tag="Insert"):
    op = Op.INSERT


class _Remove(_OnEntry, frozen=True, kw_only=True, tag_field="type", tag="Remove"):
    op = Op.REMOVE


class _Update(_OnEntry, frozen=True, kw_only=True, tag_field="type", tag="Update"):
    op = Op.UPDATE


class _Upsert(_OnEntry, frozen=True, kw_only=True, tag_field="type", tag="Upsert"):
    op = Op.UPSERT


_AnyCommand = _ExpectVersion | _Insert | _Remove | _Update | _Upsert


def decode_create(body: bytes) -> CreateRequest:
    return _only(body, CreateRequest)


def decode_diff(body: bytes) -> DiffRequest:
    return _only(body, DiffRequest)


def decode_update(body: bytes) -> tuple[UpdateRequest, str]:
    """The request, and its commands unread: parsing them is for a caller who is known."""
    return _first(body, UpdateRequest)


def decode_commands(rest: str) -> list[Command]:
    """Commands of an opaque log, in order.

    Raises:
        ProtocolError: a malformed one, named by its index, or too many.
    """
    commands: list[Command] = []
    for document, _ in _documents(rest):
        if len(commands) == limits.MAX_COMMANDS:
            raise ProtocolError(
                f"more than {limits.MAX_COMMANDS} commands (max_commands)", ErrorCode.TOO_LARGE
            )
        command: Any = _convert(document, _AnyCommand, f"command {len(commands)}")
        commands.append(command.native())
    return commands


def _only(body: bytes, shape: type[_R]) -> _R:
    request, rest = _first(body, shape)
    if rest:
        raise ProtocolError("one JSON document expected, more found behind it")
    return request


def _first(body: bytes, shape: type[_R]) -> tuple[_R, str]:
    if len(body) > limits.MAX_V1_BODY_BYTES:
        raise ProtocolError(
            f"{len(body)} bytes, at most {limits.MAX_V1_BODY_BYTES} allowed", ErrorCode.TOO_LARGE
        )
    try:
        text = body.decode().strip()
    except UnicodeDecodeError as error:
        raise ProtocolError(f"the body is not UTF-8 at byte {error.start}") from None
    head = next(_documents(text[:MAX_HEADER_CHARS]), None)
    if head is None:
        raise ProtocolError("the body is empty")
    document, end = head
    return _convert(document, shape, "request"), text[end:]


def _convert(document: object, shape: Any, what: str) -> Any:
    try:
        return msgspec.convert(_without_nulls(document), shape, dec_hook=_decode)
    except msgspec.ValidationError as error:
        raise ProtocolError(f"{what}: {str(error)[:300]}") from None


def _without_nulls(document: Any, levels: int = limits.MAX_NESTING) -> Any:
    if not isinstance(document, dict):
        return document
    if not levels:
        raise ProtocolError(f"JSON nested deeper than {limits.MAX_NESTING}")
    return {k: _without_nulls(v, levels - 1) for k, v in document.items() if v is not None}


def _decode(kind: type[Any], given: object) -> Any:
    """Raises ValueError, to which msgspec adds the path."""
    if issubclass(kind, Whole):
        return _whole(kind, given)
    if not isinstance(given, str):
        raise ValueError("Expected a string")
    given.encode()
    return _from_base64(given) if kind is Base64 else Text(given)


def _whole(kind: type[Whole], given: object) -> Whole:
    if isinstance(given, str) and re.fullmatch(r"0|[1-9][0-9]{0,15}", given):
        given = int(given)
    if type(given) is not int or not 0 <= given <= kind.at_most:
        raise ValueError(f"Expected a whole number from 0 to {kind.at_most}")
    return kind(given)


def _from_base64(given: str) -> Base64:
    decoded = base64.b64decode(given, validate=True)
    if base64.b64encode(decoded).decode() != given:
        raise ValueError("Expected base64 without stray bits at its end")
    return Base64(decoded)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


_STRICT = json.JSONDecoder(parse_constant=_refuse)
_SPACE = re.compile(r"\s*")
_NO_JSON_NUMBER = re.compile(
    r"""
      "[^"\\]*(?:\\.[^"\\]*)*"  |  '[^'\\]*(?:\\.[^'\\]*)*'     # strings are skipped,
    | //[^\n\r\u2028\u2029]*    |  /\*.*?\*/                    # and comments
    | (?P<found> \+ | (?<![\w$])0[xX] )
    """,
    re.DOTALL | re.VERBOSE,
)


def _documents(text: str) -> Iterator[tuple[object, int]]:
    """Each document with where it ends; lenient from the first on that is not strictly JSON."""
    end = 0
    while (start := _after_space(text, end)) < len(text):
        try:
            document, end = _STRICT.raw_decode(text, start)
        except (ValueError, RecursionError):
            break
        yield document, end
    else:
        return
    yield from _lenient_documents(text, start)


def _lenient_documents(text: str, start: int) -> Iterator[tuple[object, int]]:
    """Errors do not chain or quote the parser's, which hold what was read: an API key."""
    stream = io.StringIO(text)
    while start < len(text):
        stream.seek(start)
        try:
            document = pyjson5.decode_io(stream, limits.MAX_NESTING, True)
        except pyjson5.Json5DecoderException as error:
            raise ProtocolError(f"no JSON from character {start}: {error.args[0]}") from None
        end = stream.tell()
        if any(match["found"] for match in _NO_JSON_NUMBER.finditer(text, start, end)):
            raise ProtocolError(f"no JSON from character {start}: a hexadecimal or signed number")
        yield document, end
        start = _after_space(text, end)


def _after_space(text: str, start: int) -> int:
    match = _SPACE.match(text, start)
    return match.end() if match else start

"""What a v1 request says: bytes in, frozen requests out.

Owns the original protocol's spelling. Knows nothing of HTTP, tenants or logs; everything
malformed is a ProtocolError.
"""

import re
from base64 import b64decode, b64encode
from typing import Any, ClassVar, Literal, Self, TypeVar

import msgspec
from indelible_protocol import limits
from indelible_protocol.commands import Command, Op
from indelible_protocol.diff import Order
from indelible_protocol.errors import ErrorCode, ProtocolError

from indelible_server.api.documents import MAX_DEEP_CHARS, documents

MAX_HEADER_CHARS = MAX_DEEP_CHARS  # what is parsed for a caller who is not known yet

_R = TypeVar("_R")


class Whole(int):
    """A whole number, also as a string in canonical decimals."""

    at_most: ClassVar[int] = limits.MAX_VERSION

    @classmethod
    def read(cls, given: object) -> Self:
        if isinstance(given, str) and re.fullmatch(r"0|[1-9][0-9]{0,15}", given):
            given = int(given)
        if type(given) is not int or not 0 <= given <= cls.at_most:
            raise ValueError(f"Expected a whole number from 0 to {cls.at_most}")
        return cls(given)


class WaitSeconds(Whole):
    at_most = 60


class PageSize(Whole):
    at_most = 50


class Text(str):
    """A string that has bytes, which half of a surrogate pair has not."""

    sizes: ClassVar[tuple[int, int]] = (0, limits.MAX_V1_BODY_BYTES)

    @classmethod
    def read(cls, given: object) -> Self:
        low, high = cls.sizes
        if not isinstance(given, str) or not low <= len(given.encode()) <= high:
            raise ValueError(f"Expected a string of {low} to {high} bytes")
        return cls(given)


class Name(Text):
    sizes = (1, limits.MAX_NAME_BYTES)


class Base64(bytes):
    """Canonical only: the same bytes always go out in the spelling they came in."""

    @classmethod
    def read(cls, given: object) -> Self:
        decoded = b64decode(given, validate=True) if isinstance(given, str) else b""
        if b64encode(decoded).decode() != given:
            raise ValueError("Expected canonical base64")
        return cls(decoded)


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is absent or null has its default."""


class Authinfo(_Document, frozen=True, kw_only=True):
    customer_id: Text = Text()
    customerid: Text = Text()
    apikey: Text = Text()

    def __repr__(self) -> str:
        return "Authinfo(…)"


class Request(_Document, frozen=True, kw_only=True, rename="camel"):
    authinfo: Authinfo = Authinfo()
    auth_info: Authinfo = Authinfo()
    log_name: Name

    @property
    def customer_id(self) -> str:
        """Empty if there is none, as `apikey` is."""
        either = self.authinfo, self.auth_info
        return next((a.customer_id or a.customerid for a in either if a != Authinfo()), "")

    @property
    def apikey(self) -> str:
        return self.authinfo.apikey or self.auth_info.apikey


class CreateRequest(Request, frozen=True, kw_only=True, rename="camel"):
    log_group: Text = Text()


class UpdateRequest(Request, frozen=True, kw_only=True, rename="camel"):
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


class DiffRequest(Request, frozen=True, kw_only=True, rename="camel"):
    """`to_version` None is the latest."""

    from_version: Whole = Whole()
    to_version: Whole | None = None
    wait_seconds: WaitSeconds = WaitSeconds()
    order_results_by: Order | None = None
    limit: PageSize = PageSize(PageSize.at_most)
    pagination_options: Pagination = Pagination()

    def __post_init__(self) -> None:
        start = self.pagination_options
        if (start.skip_to_version if self.order == "key" else start.skip_to_key) is not None:
            raise ValueError("skipToKey is for the order of keys, skipToVersion for commands")

    @property
    def order(self) -> Order:
        """The one asked for, else that of the options."""
        by_key = self.pagination_options.skip_to_key is not None
        return self.order_results_by or ("key" if by_key else "command")


class _Command(_Document, frozen=True, kw_only=True):
    type: Literal["ExpectVersion", "Insert", "Remove", "Update", "Upsert"]
    key: Base64 | None = None
    value: Base64 | None = None
    version: Whole | None = None

    def __post_init__(self) -> None:
        takes = {"version"} if self.type == "ExpectVersion" else {"key", "value"}
        if takes != {n for n in ("key", "value", "version") if getattr(self, n) is not None}:
            raise ValueError(f"{self.type} takes {' and '.join(sorted(takes))}, and nothing else")

    def native(self) -> Command:
        if self.version is not None:
            return Command.on_version(Op.EXPECT_VERSION, b"", self.version)
        return Command.on_plain_value(Op[self.type.upper()], self.key or b"", self.value or b"")


def decode(body: bytes, shape: type[_R]) -> _R:
    """A request that is one document.

    Raises:
        ProtocolError: no JSON, or not of this shape; names the member.
    """
    request, rest = _first(body, shape)
    if rest:
        raise ProtocolError("one JSON document expected, more found behind it")
    return request


def decode_update(body: bytes) -> tuple[UpdateRequest, str]:
    """The request, and its commands unread: parsing them is for a caller who is known."""
    return _first(body, UpdateRequest)


def decode_commands(rest: str) -> list[Command]:
    """Commands of an opaque log, in order.

    Raises:
        ProtocolError: a malformed one, named by its index, or too many.
    """
    commands: list[Command] = []
    for document, _ in documents(rest):
        if len(commands) == limits.MAX_COMMANDS:
            raise ProtocolError(
                f"more than {limits.MAX_COMMANDS} commands (max_commands)", ErrorCode.TOO_LARGE
            )
        commands.append(_convert(document, _Command, f"command {len(commands)}").native())
    return commands


def _first(body: bytes, shape: type[_R]) -> tuple[_R, str]:
    if len(body) > limits.MAX_V1_BODY_BYTES:
        raise ProtocolError(
            f"{len(body)} bytes, at most {limits.MAX_V1_BODY_BYTES} allowed", ErrorCode.TOO_LARGE
        )
    try:
        text = body.decode().strip()
    except UnicodeDecodeError as error:
        raise ProtocolError(f"the body is not UTF-8 at byte {error.start}") from None
    head = next(documents(text[:MAX_HEADER_CHARS]), None)
    if head is None:
        raise ProtocolError("the body is empty")
    document, end = head
    return _convert(document, shape, "request"), text[end:]


def _convert(document: object, shape: type[_R], what: str) -> _R:
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


def _decode(kind: Any, given: object) -> Any:
    """Types read themselves; to the ValueError of one, msgspec adds the path."""
    return kind.read(given)

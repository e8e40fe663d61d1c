"""Query parameters: one definition each, which the handlers read by and the API document shows."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_to_bytes

from aiohttp import web
from indelible_protocol import limits
from indelible_protocol.errors import ProtocolError
from indelible_protocol.ids import parse_version


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """`schema` is JSON Schema; its bounds and its default are what `Query` checks and gives."""

    name: str
    description: str
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string"})


_VERSION = {"type": "integer", "minimum": 0, "maximum": limits.MAX_VERSION}

FROM = Parameter(name="from", description="version to begin after; 0 without it", schema=_VERSION)
TO = Parameter(name="to", description="version to end at; else the current one", schema=_VERSION)
AT = Parameter(name="at", description="version to read at; else the current one", schema=_VERSION)
ORDER = Parameter(
    name="order",
    description="as the changes were commanded, or by key",
    schema={"type": "string", "enum": ["command", "key"], "default": "command"},
)
WAIT = Parameter(
    name="wait",
    description="seconds to wait for a version after `from`, if it is the current one",
    schema={"type": "number", "minimum": 0, "maximum": limits.MAX_WAIT_SECONDS, "default": 0},
)
LIMIT = Parameter(
    name="limit",
    description="at most so many on a page",
    schema={
        "type": "integer",
        "minimum": 1,
        "maximum": limits.MAX_PAGE,
        "default": limits.DEFAULT_PAGE,
    },
)
DIFF_LIMIT = Parameter(
    name="limit",
    description="at most so many on a page; 0: all pages in one answer, one after the other",
    schema={**LIMIT.schema, "minimum": 0},
)
CURSOR = Parameter(name="cursor", description="where the page before ended; opaque")
INTERVAL = Parameter(
    name="interval",
    description="for an answer that caches may share: what the last one told, 0 at first",
    schema=_VERSION,
)
FRESH = Parameter(
    name="fresh",
    description="with 1 the store first shows that it may still write: on a store with replicas an "
    "answer is then never older than what was acknowledged before, in a failover either",
    schema={"type": "string", "enum": ["0", "1"], "default": "0"},
)
PAGE = Parameter(
    name="limit",
    description="at most so many on a page",
    schema={"type": "integer", "minimum": 1, "maximum": 1_000, "default": 100},
)
DELIVERY_STATE = Parameter(
    name="state",
    description="only deliveries in this state",
    schema={
        "type": "string",
        "enum": ["all", "pending", "delivered", "dead"],
        "default": "all",
    },
)
KIND = Parameter(
    name="kind",
    description="which kind of log the name is of",
    schema={"type": "string", "enum": ["sealed", "opaque"], "default": "sealed"},
)
GROUP = Parameter(name="group", description="only logs of this group")
CONFLICT = Parameter(
    name="conflict",
    description="what the answer to a conflict tells: with `entries`, what the keys hold now",
    schema={"type": "string", "enum": ["version", "entries"], "default": "version"},
)

TICKET = Parameter(
    name="Indelible-Ticket",
    description="takes part in the line of those who compete for the log: `wanted`, or the "
    "`ticket` that the last conflict gave in its details",
)


class Query:
    """The query of a request, strictly: no unknown parameter, none twice, canonical numbers."""

    def __init__(self, request: web.Request, allowed: Collection[Parameter]) -> None:
        """
        Raises:
            ProtocolError: naming the parameter.
        """
        self._values: dict[str, str] = {}
        raw = request.rel_url.raw_query_string
        if not raw:
            return
        if "%" in raw:
            try:
                unquote_to_bytes(raw).decode()
            except UnicodeDecodeError:
                raise ProtocolError("the query is not UTF-8") from None
        names = {parameter.name for parameter in allowed}
        for name, value in request.query.items():
            if name not in names:
                known = ", ".join(sorted(names)) or "none"
                raise ProtocolError(f"unknown query parameter {name[:40]!r}; known: {known}")
            if name in self._values:
                raise ProtocolError(f"query parameter {name} stands twice")
            self._values[name] = value

    def text(self, parameter: Parameter) -> str | None:
        return self._values.get(parameter.name)

    def version(self, parameter: Parameter) -> int | None:
        value = self._values.get(parameter.name)
        return None if value is None else parse_version(value, parameter.name)

    def whole(self, parameter: Parameter) -> int:
        value = self.version(parameter)
        schema = parameter.schema
        if value is None:
            default: int = schema["default"]
            return default
        least, most = schema["minimum"], schema["maximum"]
        if not least <= value <= most:
            raise ProtocolError(f"{parameter.name} is {value}, {least} to {most} expected")
        return value

    def seconds(self, parameter: Parameter) -> float:
        name, most = parameter.name, parameter.schema["maximum"]
        value = self._values.get(name)
        if value is None:
            return float(parameter.schema["default"])
        whole, dot, fraction = value.partition(".")
        if not whole.isdecimal() or (dot and not fraction.isdecimal()) or len(value) > 12:
            raise ProtocolError(f"{name} is {value[:40]!r}, seconds from 0 to {most:g} expected")
        if float(value) > most:
            raise ProtocolError(f"{name} is {value}, at most {most:g} seconds expected")
        return float(value)

    def choice(self, parameter: Parameter) -> str:
        choices = parameter.schema["enum"]
        value: str = self._values.get(parameter.name, parameter.schema["default"])
        if value not in choices:
            expected = " or ".join(choices)
            raise ProtocolError(f"{parameter.name} is {value[:40]!r}, {expected} expected")
        return value

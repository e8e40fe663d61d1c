"""What caches may do with a diff: keep it for how long, for whom, and know it again by what.

Pure decisions over what was asked and what is answered; knows no request and no cache.

Source: RFC 9111 (caching), RFC 9110 8.8.3 (entity tags), RFC 8246 (immutable).
"""

from collections.abc import Sequence
from hashlib import sha256
from typing import Literal

import msgpack
from indelible_protocol.ids import to_base64url
from indelible_protocol.messages import Form

from indelible_server.api.pages import Wanted
from indelible_server.store.admission import LogIdentity

# `fixed`: between two versions. `moved`: news for who shares its question with others; `quiet`:
# no news for them yet. `current`: news for who asks alone. `passing`: of this moment.
Kind = Literal["fixed", "moved", "quiet", "current", "passing"]

INTERVAL_SECONDS = 20
VARY = "Accept, Authorization, Content-Type, Indelible-Database"
_JITTER = 3
_ENCODING = 1  # raised whenever the same diff is spelled in other bytes than before
_YEAR_SECONDS = 365 * 86_400
_QUIET_SECONDS = 2  # enough that a proxy answers all who waited for one answer
_FOREIGN_SECONDS = 60  # bounds how long a proxy answers a key that was revoked


def cache_control(kind: Kind, *, shared: bool) -> str:
    """`shared`: a proxy may answer others who bring the same API key."""
    if kind == "passing":
        return "no-store"
    if kind == "current":
        return "private, no-cache"  # kept, and asked about each time by its tag
    seconds = {"fixed": _YEAR_SECONDS, "moved": INTERVAL_SECONDS, "quiet": _QUIET_SECONDS}[kind]
    scope = f"s-maxage={min(seconds, _FOREIGN_SECONDS)}" if shared else "private"
    lasting = ", immutable" if kind == "fixed" else ""
    return f"{scope}, max-age={seconds}{lasting}"


def next_interval(asked: int, now_seconds: float, *, moved: bool, draw: float) -> int:
    """The number that the next question brings along, so that its URL is a new one.

    Never below `asked`, and above it unless the diff moved the asker, whose next URL is new by
    its `from` then: whoever follows the same log keeps asking the same. `draw` is random,
    from 0 to 1.
    """
    current = int(now_seconds // INTERVAL_SECONDS)
    if current > asked:
        return current
    return asked if moved else asked + 1 + int(draw * _JITTER)


def entity_tag(identity: LogIdentity, wanted: Wanted, form: Form, interval: int | None) -> str:
    """Of all that the bytes and the headers depend on: known without making them."""
    place = (identity.log_id, identity.incarnation, wanted.from_version, wanted.to_version)
    spelling = (wanted.order, wanted.start, wanted.limit, form.value, _ENCODING)
    data: bytes = msgpack.packb([*place, *spelling, interval])
    return f'"{to_base64url(sha256(data).digest()[:18])}"'


def is_known(tag: str, if_none_match: Sequence[str]) -> bool:
    """Whether the asker has it, by the values of If-None-Match; tags of ours hold no comma."""
    told = [each.strip() for value in if_none_match for each in value.split(",")]
    return "*" in told or tag in {each.removeprefix("W/") for each in told}

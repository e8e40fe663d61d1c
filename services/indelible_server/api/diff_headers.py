"""The headers of a diff: where the log stands, what the page is known by, how long it holds."""

import random
import time

from indelible_protocol.messages import Form

from indelible_server.api.cache_headers import VARY, Kind, cache_control, entity_tag, next_interval
from indelible_server.api.pages import Wanted
from indelible_server.store.admission import LogIdentity
from indelible_server.store.reading import Head


def place(identity: LogIdentity, head: Head) -> dict[str, str]:
    """The headers that tell where the log stands."""
    return {
        "Indelible-Version": str(head.version),
        "Indelible-Incarnation": str(identity.incarnation),
    }


def page_headers(
    identity: LogIdentity,
    head: Head,
    wanted: Wanted,
    form: Form,
    interval: int | None,
    *,
    kind: Kind,
    shared: bool,
) -> dict[str, str]:
    headers = place(identity, head) | for_caches(kind, interval, shared=shared)
    headers["ETag"] = entity_tag(identity, wanted, form, interval)
    return headers


def for_caches(kind: Kind, interval: int | None, *, shared: bool) -> dict[str, str]:
    """`interval` is what the asker brought; None: it shares the answer with nobody."""
    headers = {"Cache-Control": cache_control(kind, shared=shared), "Vary": VARY}
    if interval is not None:
        moved = kind in ("moved", "fixed")
        following = next_interval(interval, time.time(), moved=moved, draw=random.random())
        headers["Indelible-Interval"] = str(following)
    return headers

"""How many requests a tenant may send: a token bucket each, in this process alone.

A bucket holds twice what a second brings, so a burst passes and a flood does not. It costs no
round trip; with several processes a tenant has as many buckets.
"""

import math
from collections import OrderedDict
from collections.abc import Callable

from indelible_protocol.errors import ErrorCode

from indelible_server.store.errors import Refusal

BURST_SECONDS = 2.0
_BUCKETS = 10_000


class Rates:
    """`now` is a monotonic clock in seconds, `per_second` the rate of tenants without one."""

    def __init__(self, per_second: float, now: Callable[[], float]) -> None:
        self._per_second = per_second
        self._now = now
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, when

    def take(self, tenant: str, per_second: float | None) -> None:
        """
        Raises:
            Refusal: RATE_LIMITED, with the seconds until the next request is taken.
        """
        rate = self._per_second if per_second is None else per_second
        now = self._now()
        most = max(1.0, rate * BURST_SECONDS)
        tokens, since = self._buckets.get(tenant, (most, now))
        tokens = min(most, tokens + (now - since) * rate)
        taken = tokens >= 1.0
        self._buckets[tenant] = (tokens - taken, now)
        self._buckets.move_to_end(tenant)
        if len(self._buckets) > _BUCKETS:
            self._buckets.popitem(last=False)
        if not taken:
            raise Refusal(
                ErrorCode.RATE_LIMITED,
                f"this tenant may send {rate:g} requests a second (tenant_requests_per_second)",
                {"retry_after_seconds": math.ceil((1.0 - tokens) / rate)},
            )

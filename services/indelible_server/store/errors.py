"""What the store tells its callers when it does not do as asked.

Every exception of the Redis client becomes one of these where it enters; none of them ever
carries a value, a key or an address.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from indelible_protocol.errors import ErrorCode, ProtocolError


class Refusal(Exception):
    """A request that ends with an error code; nothing was changed unless the code says so."""

    def __init__(
        self, code: ErrorCode, message: str, details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = dict(details or {})


class DamagedError(Refusal):
    """What the store holds is not what was written. Nobody who asked is to blame for it."""

    def __init__(self, what: str) -> None:
        super().__init__(ErrorCode.INTERNAL_ERROR, f"what is stored of the log is damaged: {what}")


@contextmanager
def stored() -> Iterator[None]:
    """Around the decoding of what the store holds: what does not decode is DamagedError."""
    try:
        yield
    except ProtocolError as error:
        raise DamagedError(str(error)) from error


class StoreUnavailable(Refusal):
    """The store did not answer a read, or a write that was certainly not sent."""

    def __init__(self, reason: str) -> None:
        super().__init__(ErrorCode.OVERLOADED, f"the store is not available: {reason}")


class OutcomeUnknown(Refusal):
    """A write was sent and its answer is lost: it may or may not have been done."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            ErrorCode.OUTCOME_UNKNOWN,
            f"the outcome is unknown ({reason}); send the same commit again to learn it",
        )

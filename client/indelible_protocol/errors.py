"""The one table of error codes, and the exception for bytes that do not decode.

Numbers 1001–1010 are the original protocol's; ours continue from 1011. Numbers are never
reused; new ones go at the end.
"""

from enum import Enum

from msgspec import Struct


class Fault(Struct, frozen=True):
    """What a code means to a caller, whatever the language.

    `retryable`: the same request may succeed later. `may_have_applied`: the commit that was
    answered so may or may not be in the log; ask again with the same idempotency key.
    """

    number: int
    http_status: int
    retryable: bool = False
    may_have_applied: bool = False


class ErrorCode(Enum):
    """Error word, number, HTTP status, and what the caller may conclude."""

    BAD_API_KEY = Fault(1001, 401)
    TRANSACTION_CONFLICT = Fault(1002, 412, retryable=True)
    UNEXPECTED_VERSION = Fault(1003, 412)
    NONEXISTENT_VERSION = Fault(1004, 404)
    NONEXISTENT_LOG = Fault(1005, 404)
    NONEXISTENT_KEY = Fault(1006, 404)
    INVALID_MARKER = Fault(1007, 400)
    UNEXPECTED_VALUE = Fault(1008, 412)
    NONEXISTENT_VALUE = Fault(1009, 412)
    LOG_EXISTS = Fault(1010, 412)
    BAD_REQUEST = Fault(1011, 400)
    TOO_LARGE = Fault(1012, 413)
    UNAUTHORIZED_OPERATION = Fault(1013, 403)
    UNEXPECTED_ENTRY = Fault(1014, 412)
    WRONG_LOG_KIND = Fault(1015, 409)
    LOG_REPLACED = Fault(1016, 410)
    FORGOTTEN_VERSION = Fault(1017, 410)
    IDEMPOTENCY_MISMATCH = Fault(1018, 422)
    IDEMPOTENCY_EXPIRED = Fault(1019, 409)
    BAD_SIGNATURE = Fault(1020, 400)
    RATE_LIMITED = Fault(1021, 429, retryable=True)
    OVERLOADED = Fault(1022, 503, retryable=True)
    OUTCOME_UNKNOWN = Fault(1023, 503, retryable=True, may_have_applied=True)
    STORAGE_FULL = Fault(1024, 507)
    NOT_DURABLE = Fault(1025, 503, retryable=True)
    UNSUPPORTED_MEDIA = Fault(1026, 415)
    STALE_EPOCH = Fault(1027, 409)
    BAD_CURSOR = Fault(1028, 400)
    INTERNAL_ERROR = Fault(1029, 500, may_have_applied=True)
    NO_SUCH_ROUTE = Fault(1030, 404)
    METHOD_NOT_ALLOWED = Fault(1031, 405)
    REQUEST_TIMEOUT = Fault(1032, 408, retryable=True)
    QUOTA_EXCEEDED = Fault(1033, 429)
    NONEXISTENT_WEBHOOK = Fault(1034, 404)

    @property
    def number(self) -> int:
        return self.value.number

    @property
    def http_status(self) -> int:
        return self.value.http_status

    @property
    def retryable(self) -> bool:
        return self.value.retryable

    @property
    def may_have_applied(self) -> bool:
        return self.value.may_have_applied


BY_NUMBER = {code.number: code for code in ErrorCode}


class ProtocolError(ValueError):
    """Bytes or a message that no conforming peer sends.

    `code` says how a server answers it: BAD_REQUEST, or a narrower one such as TOO_LARGE.
    """

    def __init__(self, message: str, code: ErrorCode = ErrorCode.BAD_REQUEST) -> None:
        super().__init__(message)
        self.code = code

"""This library's errors as those that `eventsourcing` and its users know.

Knows nothing of recorders.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from eventsourcing.persistence import (
    DataError,
    InternalError,
    OperationalError,
    PersistenceError,
    ProgrammingError,
)

from indelible.errors import (
    ConfigError,
    ErrorCode,
    IndelibleError,
    RequestError,
    UnsealError,
    VerificationError,
)


@contextmanager
def translated() -> Iterator[None]:
    """
    Raises:
        OperationalError: the service, or others who were always first. After an unknown
            outcome too: record the same again; if it was in, that is an IntegrityError.
        DataError: more than one commit holds.
        ProgrammingError: keys that no log can hold, or a call from within an event loop.
        InternalError: entries that do not open with this profile, or that the service altered.
    """
    try:
        yield
    except IndelibleError as error:
        raise _twin(error)(str(error)) from error


def _twin(error: IndelibleError) -> type[PersistenceError]:
    match error:
        case RequestError(code=ErrorCode.TOO_LARGE):
            return DataError
        case RequestError() | ConfigError():
            return ProgrammingError
        case UnsealError() | VerificationError():
            return InternalError
    return OperationalError

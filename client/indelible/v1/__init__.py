"""Drop-in for the original client library, against our server.

Change `from indelible_log import …` to `from indelible.v1 import …`: names, signatures and
ciphertexts are the same, and both libraries read each other's logs. Mended where no byte
changes: `ApiErrorException` is an `Exception`, `VersionDiff.changes()` can be read again, a
silent service ends in `TimeoutError`, and a profile that lacks a member is refused. New
programs want `indelible.Client`, whose sealing is stronger.
"""

from indelible.v1 import crypto
from indelible.v1.codec import (
    ValueTransformer,
    encode_name,
    validate_mode,
    value_transformer,
)
from indelible.v1.log import (
    Cmd,
    Log,
    VersionDiff,
    encrypt_name,
    profileFromJson,
    validateProfile,
)
from indelible.v1.service import ApiErrorException, HttpStatusError, handleError

__all__ = [
    "ApiErrorException",
    "Cmd",
    "HttpStatusError",
    "Log",
    "ValueTransformer",
    "VersionDiff",
    "crypto",
    "encode_name",
    "encrypt_name",
    "handleError",
    "profileFromJson",
    "validateProfile",
    "validate_mode",
    "value_transformer",
]

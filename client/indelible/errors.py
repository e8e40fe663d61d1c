"""What can go wrong, cut by what the caller does next.

```
IndelibleError
├── ConfigError          the profile, endpoint or certificate is wrong: set it right
│   └── ProfileExistsError
├── RequestError         the call cannot stand as it is: change it
├── ConflictError        the log is not as expected: read again, then decide
├── NotFoundError        there is no such log, version or key
├── DeniedError          this API key may not do that
├── UnavailableError     nothing was done: try again later
├── OutcomeUnknownError  the commit may or may not be in: settle it, then go on
├── UnsealError          the bytes do not open with this master key
├── ExportError          the file is no export, or not whole: use another
├── WebhookError         the request is no delivery to believe: answer its `http_status`
└── VerificationError    the server is wrong: stop
```

Knows nothing of HTTP; what a code means is `ErrorCode`'s to say.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from indelible_protocol.errors import ErrorCode

if TYPE_CHECKING:
    from indelible_protocol.messages import Entry

__all__ = [
    "CommitId",
    "ConfigError",
    "ConflictError",
    "DeniedError",
    "ErrorCode",
    "ExportError",
    "IndelibleError",
    "NotFoundError",
    "OutcomeUnknownError",
    "ProfileExistsError",
    "RequestError",
    "UnavailableError",
    "UnsealError",
    "VerificationError",
    "WebhookError",
]


class IndelibleError(Exception):
    """Everything this library raises on purpose.

    `code` is the service's word for it, None where this side found the fault; `request_id`
    names the request in the service's log, empty where there was none.
    """

    # Every argument but the message has a default: exceptions are unpickled from it alone.
    def __init__(
        self, message: str, *, code: ErrorCode | None = None, request_id: str = ""
    ) -> None:
        super().__init__(message)
        self.code = code
        self.request_id = request_id

    def __str__(self) -> str:
        message = super().__str__()
        if self.code is None:
            return message
        return f"{message} ({self.code.name} {self.code.number})"


class ConfigError(IndelibleError):
    """A profile, an endpoint or a certificate that cannot be used. Never retried."""


class ProfileExistsError(ConfigError):
    """A profile is there already; it may hold the only copy of a master key."""


class RequestError(IndelibleError):
    """The call cannot stand as it is: a value of another type, too large, of another log."""


class ConflictError(IndelibleError):
    """The log is not as the caller expected; nothing was changed.

    `index` is that of the command that failed, None where the expected version did;
    `current_version` is what the log was at, None where the service did not say. `sealed` is
    what the commit's keys held at that version, where that was asked for. `ticket` is for the
    next try: see `transacting`.
    """

    def __init__(
        self,
        message: str,
        *,
        index: int | None = None,
        current_version: int | None = None,
        sealed: "Sequence[Entry] | None" = None,
        ticket: str = "",
        code: ErrorCode | None = None,
        request_id: str = "",
    ) -> None:
        super().__init__(message, code=code, request_id=request_id)
        self.index = index
        self.current_version = current_version
        self.sealed = sealed
        self.ticket = ticket


class NotFoundError(IndelibleError):
    """No such log, version or key; or the log was dropped, or the version forgotten."""


class DeniedError(IndelibleError):
    """The API key is not known here, or may not do that."""


class UnavailableError(IndelibleError):
    """No answer that settles anything, for as long as the call was willing to try.

    `retry_after_seconds` is what the service asked for, None where it did not; `retryable`
    says whether trying again can help at all. `may_have_applied` is true where a change (of
    the names, say) may have been made: look before making it again.
    """

    def __init__(
        self,
        message: str,
        *,
        retry_after_seconds: float | None = None,
        retryable: bool = True,
        may_have_applied: bool = False,
        code: ErrorCode | None = None,
        request_id: str = "",
    ) -> None:
        super().__init__(message, code=code, request_id=request_id)
        self.retry_after_seconds = retry_after_seconds
        self.retryable = retryable
        self.may_have_applied = may_have_applied


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitId:
    """A commit whose outcome is not known, and all that is needed to ask again.

    Holds the sealed commit itself, so it can be kept (pickled) and settled by another
    process with the same profile.
    """

    log_id: bytes = field(repr=False)
    commit_hash: bytes
    header: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    body: bytes = field(repr=False)

    def __str__(self) -> str:
        return self.commit_hash.hex()[:16]


class OutcomeUnknownError(IndelibleError):
    """The commit was sent, and no answer came for as long as the call was willing to try.

    Give `commit_id` to `log.settle`: the same commit is sent again, enters at most once, and
    gets its one answer.
    """

    def __init__(
        self,
        message: str,
        *,
        commit_id: CommitId | None = None,
        code: ErrorCode | None = None,
        request_id: str = "",
    ) -> None:
        super().__init__(message, code=code, request_id=request_id)
        self._commit_id = commit_id

    @property
    def commit_id(self) -> CommitId:
        assert self._commit_id is not None, "raised without the commit that it is about"
        return self._commit_id


class UnsealError(IndelibleError):
    """Bytes that do not open with the keys of this profile: another key, or altered bytes.

    One message for every cause.
    """


class ExportError(IndelibleError):
    """A file that is no export, that was cut off or altered, or that is in the way of one."""


class WebhookError(IndelibleError):
    """A request that is no delivery of the service's, or none to believe now.

    `reason` says which: `malformed` (headers or body), `altered` (no signature is of these
    keys), `old` or `future` (by more than the tolerance), `repeated` (dealt with already).
    """

    def __init__(
        self,
        message: str,
        *,
        reason: Literal["malformed", "altered", "old", "future", "repeated"] = "malformed",
        code: ErrorCode | None = None,
        request_id: str = "",
    ) -> None:
        super().__init__(message, code=code, request_id=request_id)
        self.reason = reason

    @property
    def http_status(self) -> int:
        """What to answer: 200 for what was dealt with, or the service would try it again."""
        return 200 if self.reason == "repeated" else 400


class VerificationError(IndelibleError):
    """The server's answer contradicts what it is an answer to. Never retried.

    `evidence` holds what was received, by name.
    """

    def __init__(
        self,
        message: str,
        *,
        evidence: Mapping[str, object] | None = None,
        code: ErrorCode | None = None,
        request_id: str = "",
    ) -> None:
        super().__init__(message, code=code, request_id=request_id)
        self.evidence: Mapping[str, object] = {} if evidence is None else evidence

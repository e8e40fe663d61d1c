"""How a command ends: its exit code, and what it says when it failed.

One line says what happened and why, the next what to do; the code comes last.
"""

from indelible.errors import (
    ConfigError,
    ConflictError,
    DeniedError,
    ErrorCode,
    ExportError,
    IndelibleError,
    NotFoundError,
    OutcomeUnknownError,
    ProfileExistsError,
    RequestError,
    UnavailableError,
    UnsealError,
    VerificationError,
)

DONE, FAILED, USAGE, INTERRUPTED, CLOSED = 0, 1, 2, 130, 141

# The first that fits; codes before kinds.
_NEXT_BY_CODE: dict[ErrorCode, str] = {
    ErrorCode.NONEXISTENT_KEY: "indelible cat LOG prints every key; indelible history LOG KEY, "
    "what it held",
    ErrorCode.NONEXISTENT_VERSION: "indelible versions LOG lists them",
    ErrorCode.FORGOTTEN_VERSION: "indelible versions LOG lists those that are kept",
    ErrorCode.LOG_REPLACED: "indelible ls lists the logs that there are",
    ErrorCode.NONEXISTENT_LOG: "indelible ls lists the logs of this profile; indelible create LOG "
    "makes one",
    ErrorCode.UNEXPECTED_VERSION: "somebody changed the log: indelible diff LOG shows what, then "
    "decide again",
    ErrorCode.UNEXPECTED_VALUE: "indelible get LOG KEY shows the value that is there",
    ErrorCode.LOG_EXISTS: "give the group that it has, or another name",
    ErrorCode.TOO_LARGE: "split it into several commits, or keep large values elsewhere",
    ErrorCode.NOT_DURABLE: "nothing was done; the operator's RUNBOOK.md says why a service is not "
    "ready",
    ErrorCode.STORAGE_FULL: "nothing was done; ask the operator for more room",
}
_NEXT_BY_KIND: tuple[tuple[type[IndelibleError], str], ...] = (
    (ProfileExistsError, "choose another --profile, or lose its key with --force"),
    (ConfigError, "indelible doctor looks at each setting; indelible init makes a profile"),
    (ConflictError, "read again, then decide"),
    (NotFoundError, "indelible ls lists the logs of this profile"),
    (DeniedError, "ask the operator for another API key (indelible-server tenant key add)"),
    (UnavailableError, "nothing was done; is the service up? indelible doctor looks"),
    (OutcomeUnknownError, "it may be in: read the log before you send it again"),
    (ExportError, "use another copy of the file; indelible export LOG FILE makes one"),
    (UnsealError, "use the profile whose master key sealed it"),
    (VerificationError, "the service is not to be trusted with this log: tell its operator"),
    (RequestError, "add --help to the command to see what it takes"),
)
EXIT_CODES: tuple[tuple[type[IndelibleError], int], ...] = (
    (NotFoundError, 3),
    (ConflictError, 4),
    (ProfileExistsError, 4),
    (DeniedError, 5),
    (UnavailableError, 6),
    (OutcomeUnknownError, 6),
    (RequestError, USAGE),
)


def exit_code(error: IndelibleError) -> int:
    return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), FAILED)


def words(error: IndelibleError) -> str:
    """What happened and why, and on the next line what to do."""
    following = _NEXT_BY_CODE.get(error.code) if error.code is not None else None
    if following is None:
        following = next((text for kind, text in _NEXT_BY_KIND if isinstance(error, kind)), "")
    return f"error: {error}" + (f"\n  next: {following}" if following else "")

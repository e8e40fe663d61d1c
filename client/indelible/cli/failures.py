"""How a command that failed ends: its exit code, and what it says.

One line says what happened and why, its code last; the next line what to do.
"""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cyclopts import CycloptsError, UnknownCommandError, UnknownOptionError

from indelible.cli import exits
from indelible.cli.output import printable
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


class Ending(NamedTuple):
    """`words` are whole lines."""

    code: int
    words: str


_EXITS: tuple[tuple[type[IndelibleError], int], ...] = (
    (NotFoundError, exits.NOT_FOUND),
    (ConflictError, exits.CONFLICT),
    (ProfileExistsError, exits.CONFLICT),
    (DeniedError, exits.DENIED),
    (UnavailableError, exits.NO_ANSWER),
    (OutcomeUnknownError, exits.NO_ANSWER),
    (RequestError, exits.USAGE),
)

# What to do next, the first that fits; codes before kinds. {log} and {command} are those of
# the command, {expected} is the version that it wanted.
_NEXT_BY_CODE: dict[ErrorCode, str] = {
    ErrorCode.NONEXISTENT_KEY: "indelible cat {log} prints every key; indelible history {log} "
    "KEY, what it held",
    ErrorCode.NONEXISTENT_VERSION: "indelible versions {log} lists those that there are",
    ErrorCode.FORGOTTEN_VERSION: "indelible versions {log} lists those that are kept",
    ErrorCode.LOG_REPLACED: "indelible ls lists the logs that there are",
    ErrorCode.NONEXISTENT_LOG: "indelible ls lists the logs of this profile; indelible create "
    "{log} makes one",
    ErrorCode.NONEXISTENT_WEBHOOK: "indelible webhook list lists those that there are",
    ErrorCode.UNEXPECTED_VERSION: "indelible diff {log} {expected}.. shows what changed; then "
    "decide again",
    ErrorCode.UNEXPECTED_VALUE: "indelible get {log} KEY shows the value that is there",
    ErrorCode.LOG_EXISTS: "give the group that it has, or another name",
    ErrorCode.TOO_LARGE: "split it into several commits, or keep large values elsewhere",
    ErrorCode.RATE_LIMITED: "nothing was done; wait a little, or ask the operator for more",
    ErrorCode.NOT_DURABLE: "nothing was done; the operator's RUNBOOK.md says why a service is not "
    "ready",
    ErrorCode.STORAGE_FULL: "nothing was done; ask the operator for more room",
    ErrorCode.QUOTA_EXCEEDED: "nothing was done; drop logs, or ask the operator for more "
    "(indelible-server tenant quota)",
}
_NEXT_BY_KIND: tuple[tuple[type[IndelibleError], str], ...] = (
    (ProfileExistsError, "choose another --profile, or lose its key with --force"),
    (ConfigError, "set that right; indelible doctor looks at everything that is needed"),
    (ConflictError, "read again, then decide"),
    (NotFoundError, "indelible ls lists the logs of this profile"),
    (DeniedError, "ask the operator for another API key (indelible-server tenant key add)"),
    (UnavailableError, "nothing was done; is the service up? indelible doctor looks"),
    (OutcomeUnknownError, "it may be in: read the log before you send it again"),
    (ExportError, "use another copy of the file; indelible export LOG FILE makes one"),
    (UnsealError, "use the profile whose master key sealed it"),
    (VerificationError, "the service is not to be trusted with this log: tell its operator"),
    (RequestError, "indelible {command} --help says what it takes, with examples"),
)
_NEXT_OF_COMMAND: dict[tuple[str, type[IndelibleError]], str] = {
    ("init", ConfigError): "the operator makes such a file: indelible-server tenant create NAME",
    ("export", ExportError): "choose another FILE; - is stdout",
}


def of_command(error: IndelibleError, command: str, given: Mapping[str, Any]) -> Ending:
    """`given` are the command's arguments by name."""
    code = next((code for kind, code in _EXITS if isinstance(error, kind)), exits.FAILED)
    logs = given.get("logs") or ("LOG",)
    next_step = _next_of(error, command).format(
        command=command,
        log=shlex.quote(printable(given.get("log") or logs[0])),
        expected=given.get("expect_version", ""),
    )
    return Ending(code, _lines(printable(str(error)), next_step))


def of_usage(error: CycloptsError, arguments: Sequence[str]) -> Ending:
    command = "".join(f" {name}" for name in error.command_chain or ())
    next_step = f"indelible{command} --help shows what there is"
    if isinstance(error, UnknownOptionError) and command in (" set", " get", " rm", " history"):
        next_step += "; a KEY or VALUE that begins with - goes behind --"
    if isinstance(error, UnknownCommandError) and arguments[0].startswith("-"):
        next_step = "options go behind the command; " + next_step
    return Ending(exits.USAGE, _lines(printable(str(error)), next_step))


def unforeseen(error: Exception) -> Ending:
    """A fault of this program. Not in its own words: they may hold anything."""
    return Ending(
        exits.FAILED,
        _lines(
            f"{type(error).__name__}, which should not have happened",
            "run it again with --debug, and report what it prints",
        ),
    )


def _next_of(error: IndelibleError, command: str) -> str:
    if error.code in _NEXT_BY_CODE:
        return _NEXT_BY_CODE[error.code]
    if (command, type(error)) in _NEXT_OF_COMMAND:
        return _NEXT_OF_COMMAND[command, type(error)]
    return next((text for kind, text in _NEXT_BY_KIND if isinstance(error, kind)), "")


def _lines(what: str, next_step: str) -> str:
    return f"error: {what}\n" + (f"  next: {next_step}\n" if next_step else "")

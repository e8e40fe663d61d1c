"""From what is typed to a command that runs, and from how that ends to words and an exit code.

A command's module is loaded when the command is named.
"""

import errno
import sys
import traceback

from cyclopts import App, CycloptsError

from indelible.cli import exits, failures
from indelible.cli.catalogue import COMMANDS, Listed
from indelible.errors import IndelibleError

_OF_STDOUT = (errno.EPIPE, errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO)
_FREE_TEXT = ("--source", "--group", "--description")

app = App(
    name="indelible",
    help_format="plaintext",  # markdown would load its own renderer
    version_flags=[],
)


def _add(parent: App, listed: Listed) -> None:
    name = listed.name.split()[-1]
    epilogue = "Examples:\n\n" + "\n\n".join(f"  {line}" for line in listed.examples)
    if not listed.commands:
        target = f"indelible.cli.{listed.target}"
        parent.command(target, name=name, help=listed.summary, help_epilogue=epilogue)
        return
    group = App(
        name=name,
        help=listed.summary,
        help_epilogue=epilogue,
        help_format="plaintext",
        version_flags=[],
    )
    for each in listed.commands:
        _add(group, each)
    parent.command(group)


for _each in COMMANDS:
    _add(app, _each)


def run_command(arguments: list[str]) -> int:
    """The exit code.

    Raises:
        OSError: stdout cannot be written.
    """
    typed = _with_stdin(arguments)
    try:
        command, bound, _ = app.parse_args(typed, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        return _tell(failures.of_usage(error, arguments), error, arguments)
    try:
        command(*bound.args, **bound.kwargs)
        sys.stdout.flush()
    except IndelibleError as error:
        ending = failures.of_command(error, _named(typed), bound.arguments)
        return _tell(ending, error, arguments)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _OF_STDOUT:
            raise
        return _tell(failures.unforeseen(error), error, arguments)
    return exits.DONE


def _named(typed: list[str]) -> str:
    """The command's whole name."""
    several = {each.name for each in COMMANDS if each.commands}
    return " ".join(typed[: 2 if typed[0] in several else 1])


def _tell(ending: failures.Ending, error: Exception, arguments: list[str]) -> int:
    if "--debug" in arguments:
        traceback.print_exception(error)
    sys.stderr.write(ending.words)
    return ending.code


def _with_stdin(arguments: list[str]) -> list[str]:
    """`-` as an argument is @-: the parser takes what begins with a hyphen for an option."""
    before = ["", *arguments]
    return [
        "@-" if argument == "-" and last not in _FREE_TEXT else argument
        for last, argument in zip(before, arguments, strict=False)
    ]

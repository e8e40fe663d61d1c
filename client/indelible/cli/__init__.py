"""The `indelible` command. Loads what a command needs when it runs, and not before.

Data goes to stdout, as UTF-8; everything else to stderr.
"""

import os
import sys
from collections.abc import Sequence

from indelible.cli import catalogue, exits

__all__ = ["main"]


def main() -> None:
    """Runs the command line; ends the process with the exit code of what happened."""
    _open_missing_streams()
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """The exit code."""
    try:
        code = _run(list(arguments))
        sys.stdout.flush()
    except BrokenPipeError:
        _abandon_stdout()
        return exits.CLOSED
    except OSError as error:
        _abandon_stdout()
        sys.stderr.write(
            f"error: stdout cannot be written: {error.strerror}\n"
            "  next: make room, or write elsewhere; run the command again\n"
        )
        return exits.FAILED
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    return code


def _run(arguments: list[str]) -> int:
    if page := catalogue.page(arguments):
        sys.stdout.write(page)
        return exits.DONE
    from indelible.cli.app import run_command

    return run_command(arguments)


def _open_missing_streams() -> None:
    """A stream that was closed before the start would be the next file or socket opened."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r+"))  # noqa: SIM115 - until the process ends


def _abandon_stdout() -> None:
    """Python would complain once more when it flushes stdout at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

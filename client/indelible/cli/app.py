"""Commands, their arguments, and how they end.

Data goes to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage,
3 not found, 4 there is something else already, 5 not allowed, 6 no answer, 130 interrupted.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter

from indelible.errors import (
    ConflictError,
    DeniedError,
    IndelibleError,
    NotFoundError,
    OutcomeUnknownError,
    ProfileExistsError,
    UnavailableError,
)

_EXIT_CODES: tuple[tuple[type[IndelibleError], int], ...] = (
    (NotFoundError, 3),
    (ConflictError, 4),
    (ProfileExistsError, 4),
    (DeniedError, 5),
    (UnavailableError, 6),
    (OutcomeUnknownError, 6),
)


def _version() -> str:
    from importlib.metadata import version  # as slow to load as the rest of this module

    return f"indelible {version('indelible')}"


app = App(
    name="indelible",
    help="End-to-end encrypted, versioned logs that wake their readers with diffs.",
    version=_version,
    help_format="plaintext",  # markdown would load its own renderer
    version_flags=["--version"],
    help_epilogue=(
        "Examples:\n\n"
        "  indelible init --credentials credentials.json\n\n"
        "  cat credentials.json | indelible init --credentials - --profile ./profile.json"
    ),
)


@app.command
def init(
    *,
    credentials: Annotated[
        str,
        Parameter(help="File with the credentials, or - for stdin.", allow_leading_hyphen=True),
    ],
    profile: Annotated[Path | None, Parameter(help="Where to write the profile.")] = None,
    force: Annotated[
        bool,
        Parameter(
            help="Replace a profile that is there, and lose its key.",
            negative="",
            show_default=False,
        ),
    ] = False,
) -> None:
    """Make a master key on this machine, and write the profile that holds it.

    The credentials come from the service's operator: endpoint_url, customer_id and apikey,
    as JSON. Whoever loses the profile loses what it sealed: keep a copy where only you can
    read it.
    """
    from indelible.cli.profiles import make_profile

    sys.stderr.write(f"profile written to {make_profile(credentials, profile, force=force)}\n")


def run(arguments: Sequence[str]) -> int:
    """The exit code."""
    try:
        app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        sys.stderr.write(f"error: {error}\nindelible --help tells what there is\n")
        return 2
    except IndelibleError as error:
        sys.stderr.write(f"error: {error}\n")
        return next((code for kind, code in _EXIT_CODES if isinstance(error, kind)), 1)
    except KeyboardInterrupt:
        return 130
    return 0

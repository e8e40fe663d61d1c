"""Options that every command takes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter
from cyclopts.validators import Number

_GROUP = Group("Options of every command", sort_key=99)


AT_LEAST_0 = Number(gte=0)


def flag(text: str) -> Parameter:
    return Parameter(help=text, negative="", show_default=False)


@Parameter(name="*", group=_GROUP)
@dataclass(frozen=True, slots=True, kw_only=True)
class Common:
    """Where the service is, and in which form things are printed."""

    profile: Annotated[
        Path | None, Parameter(help="Profile file; else INDELIBLE_PROFILE, else the user's own.")
    ] = None
    database: Annotated[str, Parameter(help="Database of the tenant.")] = "default"
    output: Annotated[
        Literal["text", "json", "ndjson"],
        Parameter(name=["--output", "-o"], help="Form of what is printed on stdout."),
    ] = "text"
    color: Annotated[
        Literal["auto", "always", "never"],
        Parameter(help="Colours; auto heeds NO_COLOR, FORCE_COLOR and whether it is a terminal."),
    ] = "auto"
    quiet: Annotated[
        bool,
        Parameter(
            name=["--quiet", "-q"],
            help="Nothing on stderr but errors.",
            negative="",
            show_default=False,
        ),
    ] = False
    timeout_seconds: Annotated[
        float, Parameter(help="How long each request is tried, retries included.")
    ] = 30.0
    ca_file: Annotated[
        Path | None, Parameter(help="PEM file with the only certificates to trust.")
    ] = None
    allow_plain_http: Annotated[
        bool, flag("Let the API key travel in clear to another machine.")
    ] = False
    debug: Annotated[bool, flag("Show where an error came from.")] = False


DEFAULT = Common()

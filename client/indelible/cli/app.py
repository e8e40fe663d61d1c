"""The commands of `indelible`, and how they end. A command's module is loaded when it runs.

Data goes to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage,
3 not found, 4 conflict, 5 not allowed, 6 no answer, 130 interrupted, 141 nobody reads stdout.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, CycloptsError, Parameter

from indelible.cli import failures
from indelible.errors import IndelibleError


def _version() -> str:
    from importlib.metadata import version  # as slow to load as the rest of this module

    return f"indelible {version('indelible')}"


def _examples(*lines: str) -> str:
    return "Examples:\n\n" + "\n\n".join(f"  {line}" for line in lines)


app = App(
    name="indelible",
    help="End-to-end encrypted, versioned logs that wake their readers with diffs.",
    version=_version,
    help_format="plaintext",  # markdown would load its own renderer
    version_flags=["--version"],
    help_epilogue=_examples(
        "indelible init --credentials credentials.json",
        "indelible create config && indelible set config theme '\"dark\"'",
    )
    + "\n\nExit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 conflict, 5 not allowed, "
    "6 no answer, 130 interrupted.",
)

# name, where it is, what it does, two examples
_COMMANDS: tuple[tuple[str, str, str, str, str], ...] = (
    (
        "ls",
        "reading:ls",
        "List logs.",
        "indelible ls",
        "indelible ls --group site -o ndjson",
    ),
    (
        "create",
        "writing:create",
        "Make a log.",
        "indelible create config",
        "indelible create counters --value-mode msgpack --group site",
    ),
    (
        "set",
        "writing:set_values",
        "Set keys, all of them in one commit.",
        "indelible set config theme '\"dark\"' retries 3",
        "indelible set config logo @logo.json --expect-version 7 --source deploy",
    ),
    (
        "get",
        "reading:get",
        "Print the value of a key.",
        "indelible get config theme",
        "indelible get config theme --at 12 -o json",
    ),
    (
        "rm",
        "writing:rm",
        "Remove keys, all of them in one commit.",
        "indelible rm config theme",
        "indelible rm config theme retries --source cleanup",
    ),
    (
        "cat",
        "reading:cat",
        "Print every entry.",
        "indelible cat config",
        "indelible cat config --at 12 -o ndjson | jq .key",
    ),
    (
        "diff",
        "reading:diff",
        "Print what leads from one version to another.",
        "indelible diff config 12..15",
        "indelible diff config 12.. --stat",
    ),
    (
        "follow",
        "following:follow",
        "Print changes as they come.",
        "indelible follow config",
        "indelible follow config orders --since 10m -o ndjson | jq .",
    ),
    (
        "versions",
        "reading:versions",
        "List the commits that took effect.",
        "indelible versions config",
        "indelible versions config -n 5 -o json",
    ),
    (
        "history",
        "reading:history",
        "List what a key has held.",
        "indelible history config theme",
        "indelible history config theme -n 1",
    ),
    (
        "export",
        "transfer:export",
        "Write a log to a file, as lines of JSON.",
        "indelible export config config.jsonl",
        "indelible export config --history | gzip > config.jsonl.gz",
    ),
    (
        "import",
        "transfer:import_",
        "Bring an export into a log.",
        "indelible import config.jsonl",
        "zcat config.jsonl.gz | indelible import - config-copy",
    ),
    (
        "drop",
        "writing:drop",
        "Delete a log with all its versions.",
        "indelible drop config",
        "indelible drop config --yes",
    ),
    (
        "stats",
        "inspecting:stats",
        "Print how large a log is and how quickly it grows.",
        "indelible stats config",
        "indelible stats config --plot --minutes 240",
    ),
    (
        "doctor",
        "inspecting:doctor",
        "Look at everything between here and the service.",
        "indelible doctor",
        "indelible doctor --profile ./profile.json -o json",
    ),
)
for _name, _target, _help, *_lines in _COMMANDS:
    app.command(
        f"indelible.cli.{_target}", name=_name, help=_help, help_epilogue=_examples(*_lines)
    )


@app.command(
    help_epilogue=_examples(
        "indelible init --credentials credentials.json",
        "cat credentials.json | indelible init --credentials - --profile ./profile.json",
    )
)
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


@app.command(
    help_epilogue=_examples(
        "indelible completion bash > ~/.local/share/bash-completion/completions/indelible",
        "indelible completion zsh > ~/.zfunc/_indelible",
    )
)
def completion(shell: Literal["bash", "zsh", "fish"], /) -> None:
    """Print a script that completes commands and options; it never asks the service.

    Parameters
    ----------
    shell
        For which shell.
    """
    sys.stdout.write(app.generate_completion(shell=shell))


def _with_stdin(arguments: Sequence[str]) -> list[str]:
    """`-` as an argument is @-: the parser takes what begins with a hyphen for an option."""
    before = ["", *arguments]
    return [
        "@-" if argument == "-" and last != "--credentials" else argument
        for last, argument in zip(before, arguments, strict=False)
    ]


def run(arguments: Sequence[str]) -> int:
    """The exit code."""
    debug = "--debug" in arguments
    try:
        app(
            _with_stdin(arguments),
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
        )
        sys.stdout.flush()
    except CycloptsError as error:
        sys.stderr.write(f"error: {error}\n  next: indelible --help shows what there is\n")
        return failures.USAGE
    except IndelibleError as error:
        if debug:
            raise
        sys.stderr.write(failures.words(error) + "\n")
        return failures.exit_code(error)
    except BrokenPipeError:
        # Python would complain once more when it flushes stdout at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return failures.CLOSED
    except KeyboardInterrupt:
        return failures.INTERRUPTED
    return failures.DONE

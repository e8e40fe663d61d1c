"""The `indelible` command. Loads what a command needs when it runs, and not before."""

import sys

__all__ = ["main"]


def main() -> None:
    """Runs the command line; ends the process with the exit code of what happened."""
    # Needs nothing else, and scripts ask for it often.
    if sys.argv[1:] == ["--version"]:
        from importlib.metadata import version

        sys.stdout.write(f"indelible {version('indelible')}\n")
        return
    from indelible.cli.app import run

    sys.exit(run(sys.argv[1:]))

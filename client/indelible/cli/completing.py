"""`indelible completion`: what a shell needs to complete commands and options."""

import sys
from typing import Literal


def completion(shell: Literal["bash", "zsh", "fish"], /) -> None:
    """Print a script that completes commands and options; it never asks the service.

    Parameters
    ----------
    shell
        For which shell.
    """
    from indelible.cli.app import app

    sys.stdout.write(app.generate_completion(shell=shell))

"""Asking before something is done that cannot be undone."""

import sys

from indelible.errors import RequestError


def ask(question: str, expected: str, otherwise: str) -> None:
    """
    Raises:
        RequestError: nobody can be asked, or the answer is not `expected`.
    """
    if not sys.stdin.isatty():
        raise RequestError("this cannot be undone: say --yes where nobody can be asked")
    sys.stderr.write(question)
    sys.stderr.flush()
    if sys.stdin.readline().strip() != expected:
        raise RequestError(f"another name was typed: {otherwise}")

"""The end of a process, as it were, at any of the points that its work tells of (`reach`).

Nothing of it goes on: what it wrote is all that there is for who comes after it.
"""

from collections.abc import Callable


class KilledError(Exception):
    """Raised at the point where the process ended."""


def killing(after: int) -> tuple[Callable[[str], None], list[str]]:
    """A `reach` that lets so many points pass and ends at the next; the points that were reached,
    that one included."""
    passed: list[str] = []

    def reach(point: str) -> None:
        passed.append(point)
        if len(passed) > after:
            raise KilledError(point)

    return reach, passed

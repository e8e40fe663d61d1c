"""Who waits, and what they are told: one log by a long poll, or many by a watch.

Knows nothing of what wakes them (`wakeups`), nor of how they are answered.
"""

import asyncio
from collections.abc import Hashable
from typing import Literal

from indelible_protocol.ids import LogId

from indelible_server.store.names import Group

# `answered`: somebody else has answered the waiter's client already.
Outcome = Literal["moved", "timeout", "draining", "answered"]
Watched = LogId | Group
UNTOLD = -1  # in the place of a version that the store could not tell


class Waiter:
    """One who waits for one log to be beyond `version`, and is told by `outcome`.

    Those with the same `version` and `question` are owed the same answer and may be given it
    together; who has None for a question is told alone.
    """

    __slots__ = ("is_taken", "log_id", "outcome", "question", "step", "version")

    def __init__(self, log_id: LogId, version: int, question: Hashable = None) -> None:
        self.log_id = log_id
        self.version = version
        self.question = question
        self.outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.is_taken = False  # its answer is out: nothing else may become of it
        self.step = 0

    @property
    def is_asleep(self) -> bool:
        return not self.is_taken and not self.outcome.done()

    def wake(self, outcome: Outcome) -> None:
        if self.is_asleep:
            self.outcome.set_result(outcome)

    def take(self) -> None:
        """From here on it is `finish` that ends the wait, and nothing else."""
        self.is_taken = True

    def finish(self) -> None:
        """Lets a taken waiter go on, if its client is still there."""
        if not self.outcome.done():
            self.outcome.set_result("answered")


class Watch:
    """What one waiter watches: the version that it knows of each, and what it was told since.

    `behind` are those that a hint or a read showed to be beyond the version known.
    """

    __slots__ = ("behind", "known", "sleeping", "step")

    def __init__(self) -> None:
        self.known: dict[Watched, int] = {}
        self.behind: dict[Watched, int] = {}
        self.sleeping: asyncio.Future[Outcome] | None = None
        self.step = 0

    def move(self, watched: Watched, version: int) -> None:
        self.behind[watched] = max(version, self.behind.get(watched, 0))
        self.wake("moved")

    def wake(self, outcome: Outcome) -> None:
        if self.sleeping is not None and not self.sleeping.done():
            self.sleeping.set_result(outcome)

    def advance(self, watched: Watched, version: int) -> None:
        """The waiter knows this version now."""
        self.known[watched] = version
        if self.behind.get(watched, version) <= version:
            self.behind.pop(watched, None)


Sleeper = Waiter | Watch

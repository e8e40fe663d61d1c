"""Whose commit is next at a log that several want to change on what they have read.

Who was too late gets a ticket with the answer: until its commit comes back, or the lease ends, the
others stand in line, first come, first served, and are judged one after the other. So each is
judged on what it was just told. A courtesy between those who show a ticket or ask for one, in one
process: the store judges every commit, and who does not take part is never held up. Knows nothing
of what is committed.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TypeVar

from indelible_protocol import limits
from indelible_protocol.errors import ErrorCode
from indelible_protocol.ids import LogId
from indelible_protocol.messages import TICKET_WANTED

from indelible_server.store.errors import Refusal

T = TypeVar("T")

CONFLICTS = frozenset(
    {
        ErrorCode.UNEXPECTED_VERSION,
        ErrorCode.UNEXPECTED_VALUE,
        ErrorCode.NONEXISTENT_VALUE,
        ErrorCode.UNEXPECTED_ENTRY,
    }
)
LEASE_SECONDS = 0.25
MAX_TRIES = 4  # of one turn; where others who take no part are faster, waiting helps more
MAX_IN_LINE = 256
MAX_STANDING_BYTES = 32 << 20
_REQUEST_BYTES = 16 << 10  # what one who stands costs beside its body


class _Place:
    """In the line of a log, or first. `lapse` is set while its ticket is out."""

    __slots__ = ("called", "ends_at", "lapse", "log_id", "ticket", "tries")

    def __init__(self, log_id: LogId) -> None:
        self.log_id = log_id
        self.called: asyncio.Future[None] | None = None
        self.ends_at = 0.0  # its turn, by the event loop's clock; 0 until it is told as the first
        self.tries = 0
        self.ticket = ""
        self.lapse: asyncio.TimerHandle | None = None


class _Contest:
    """There is one at a log for as long as somebody is first: judged now, or given a ticket."""

    __slots__ = ("behind", "first")

    def __init__(self, first: _Place) -> None:
        self.first = first
        self.behind: deque[_Place] = deque()


class Tickets:
    """`lease_seconds` is how long a ticket holds, `most_wait_seconds` how long one request
    stands: it is judged then, and a ticket keeps its place in the line. At most `max_in_line`
    are behind the first of a log; all who stand hold at most `max_standing_bytes`."""

    def __init__(
        self,
        *,
        lease_seconds: float = LEASE_SECONDS,
        most_wait_seconds: float = limits.MAX_TICKET_WAIT_SECONDS,
        max_in_line: int = MAX_IN_LINE,
        max_standing_bytes: int = MAX_STANDING_BYTES,
    ) -> None:
        self._lease_seconds = lease_seconds
        self._most_wait_seconds = most_wait_seconds
        self._max_in_line = max_in_line
        self._max_standing_bytes = max_standing_bytes
        self._contests: dict[LogId, _Contest] = {}
        self._out: dict[str, _Place] = {}
        self._standing_bytes = 0
        self._draining = False
        self.standing = 0

    def must_stand(self, log_id: LogId, shown: str) -> bool:
        """Whether somebody is first at this log, and who shows this ticket has had no turn."""
        return log_id in self._contests and shown == TICKET_WANTED

    async def judged(
        self, log_id: LogId, shown: str, size_bytes: int, judge: Callable[[], Awaitable[T]]
    ) -> T:
        """What `judge` gives, when it is the turn of who shows this ticket; at once, where it is
        one that holds no more.

        Raises:
            Refusal: what `judge` raises; a conflict with a `ticket` in its details, unless it
                is to be told without one.
        """
        place = self._take(log_id, shown)
        may_join = place is None
        may_be_right = shown != TICKET_WANTED  # who comes late: the others may be as slow
        while True:
            if may_join and not may_be_right and log_id in self._contests:
                may_join = False
                place = self._join(log_id)
            may_be_right = False
            try:
                if place is not None:
                    await self._stand(place, size_bytes)
                return await judge()
            except Refusal as refusal:
                if refusal.code not in CONFLICTS:
                    raise
                if may_join and log_id in self._contests:
                    continue  # others compete: once more, behind them
                if may_join:
                    place = _Place(log_id)
                    self._contests[log_id] = _Contest(place)
                if place is not None and self._give(place):
                    refusal.details["ticket"] = place.ticket
                    place = None  # it stays
                raise
            finally:
                if place is not None:
                    self._leave(place)

    def drain(self) -> None:
        """Whoever stands is judged now; nobody stands, nor gets a ticket, from now on."""
        self._draining = True
        for contest in self._contests.values():
            for place in contest.behind:
                _call(place)
            contest.behind.clear()
        for place in list(self._out.values()):
            self._hold(place)

    def _take(self, log_id: LogId, shown: str) -> _Place | None:
        """The place of who shows a ticket that holds."""
        place = self._out.get(shown)
        if place is None or place.log_id != log_id:
            return None
        self._hold(place)
        return place

    def _hold(self, place: _Place) -> None:
        """Its ticket is not out any more."""
        if place.lapse is not None:
            place.lapse.cancel()
            place.lapse = None
            del self._out[place.ticket]

    def _join(self, log_id: LogId) -> _Place | None:
        """The last place of the line; None if it is full."""
        behind = self._contests[log_id].behind
        if self._draining or len(behind) >= self._max_in_line:
            return None
        place = _Place(log_id)
        behind.append(place)
        return place

    async def _stand(self, place: _Place, size_bytes: int) -> None:
        """Until it is first, or has stood for too long, or must not stand at all."""
        if self._contests[place.log_id].first is place:
            return
        cost = size_bytes + _REQUEST_BYTES
        if self._standing_bytes + cost > self._max_standing_bytes:
            self._leave(place)
            return
        place.called = asyncio.get_running_loop().create_future()
        self._standing_bytes += cost
        self.standing += 1
        try:
            async with asyncio.timeout(self._most_wait_seconds):
                await place.called
        except TimeoutError:
            pass
        finally:
            place.called = None
            self._standing_bytes -= cost
            self.standing -= 1

    def _give(self, place: _Place) -> bool:
        """Whether it keeps its place with a ticket: the first until its turn ends, though it
        was too late again; who is behind until it should have come back."""
        contest = self._contests.get(place.log_id)
        if self._draining or contest is None:
            return False
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + self._lease_seconds
        if contest.first is place:
            place.ends_at = ends_at = place.ends_at or ends_at
            place.tries += 1
        elif place not in contest.behind:
            return False
        if loop.time() >= ends_at or place.tries > MAX_TRIES:
            return False
        place.ticket = secrets.token_urlsafe(12)
        place.lapse = loop.call_at(ends_at, self._leave, place)
        self._out[place.ticket] = place
        return True

    def _leave(self, place: _Place) -> None:
        self._hold(place)
        contest = self._contests.get(place.log_id)
        if contest is None:
            return
        if contest.first is not place:
            if place in contest.behind:
                contest.behind.remove(place)
        elif contest.behind:
            contest.first = contest.behind.popleft()
            _call(contest.first)
        else:
            del self._contests[place.log_id]


def _call(place: _Place) -> None:
    if place.called is not None and not place.called.done():
        place.called.set_result(None)

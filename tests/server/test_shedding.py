"""What is refused when too much comes: never a burst, always a crowd that stays."""

import random
from collections import deque

from indelible_server.api.shedding import FEW, PART_SECONDS, PARTS, Shedding

ALONE_SECONDS = 0.002
EACH_SECONDS = 0.001
MOST_SECONDS = 0.05


class Server:
    """Does one commit after another; each takes EACH_SECONDS of it, and ALONE_SECONDS if alone."""

    def __init__(self, alone_seconds: float = ALONE_SECONDS) -> None:
        self.seconds = 100.0
        self.shedding = Shedding(MOST_SECONDS, lambda: self.seconds)
        self.admitted = self.refused = 0
        self.took: list[float] = []
        self._alone_seconds = alone_seconds
        self._in_flight: deque[float] = deque()  # when each began
        self._random = random.Random(1)
        self.get(per_second=100, seconds=1)

    def get(self, *, per_second: float, seconds: float) -> None:
        """So many come, at random times; the counts are those of this time."""
        self.admitted = self.refused = 0
        self.took = []
        ends_at = self.seconds + seconds
        done_at = self.seconds
        while (comes_at := self.seconds + self._random.expovariate(per_second)) < ends_at:
            while self._in_flight:
                done_at = max(done_at + EACH_SECONDS, self._in_flight[0] + self._alone_seconds)
                if done_at > comes_at:
                    done_at -= EACH_SECONDS
                    break
                self._end(done_at)
            self.seconds = comes_at
            if self.shedding.admits(len(self._in_flight)):
                self.admitted += 1
                self._in_flight.append(comes_at)
            else:
                self.refused += 1

    def _end(self, at: float) -> None:
        self.seconds = at
        took = at - self._in_flight.popleft()
        self.took.append(took)
        self.shedding.ended(took)

    @property
    def p99_seconds(self) -> float:
        return sorted(self.took)[len(self.took) * 99 // 100]


def test_nothing_is_refused_of_what_can_be_done() -> None:
    server = Server()
    server.get(per_second=700, seconds=30)
    assert server.refused == 0


def test_a_burst_passes() -> None:
    server = Server()
    server.get(per_second=5_000, seconds=PARTS * PART_SECONDS)
    assert server.refused == 0


def test_of_a_crowd_that_stays_those_are_taken_that_are_done_in_time() -> None:
    server = Server()
    server.get(per_second=3_000, seconds=5)  # what came before any was refused is done by now
    server.get(per_second=3_000, seconds=30)
    assert server.admitted / 30 > 0.9 / EACH_SECONDS, "it has nothing to do at times"
    assert server.p99_seconds < 1.5 * MOST_SECONDS


def test_few_are_always_admitted_however_slow_they_are() -> None:
    server = Server()
    server.get(per_second=3_000, seconds=5)
    assert server.refused
    for _ in range(1_000):
        server.seconds += PART_SECONDS
        server.shedding.ended(60.0)
        assert server.shedding.admits(FEW - 1)


def test_a_store_that_is_slow_for_each_alone_is_no_crowd() -> None:
    server = Server(alone_seconds=2 * MOST_SECONDS)
    server.get(per_second=700, seconds=30)
    assert server.refused == 0


def test_a_store_that_does_not_answer_gets_no_more_than_wait_for_it() -> None:
    server = Server()
    for _ in range(PARTS + 1):
        server.seconds += PART_SECONDS
        server.shedding.admits(100)
    assert not server.shedding.admits(100)


def test_after_a_calm_moment_a_burst_passes_again() -> None:
    server = Server()
    server.get(per_second=3_000, seconds=5)
    assert server.refused
    server.get(per_second=100, seconds=2)
    server.get(per_second=5_000, seconds=PARTS * PART_SECONDS)
    assert server.refused == 0


def test_a_crowd_that_left_long_ago_is_forgotten() -> None:
    server = Server()
    server.get(per_second=3_000, seconds=5)
    server.seconds += 60
    assert server.shedding.admits(10_000)

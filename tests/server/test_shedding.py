"""What is refused when too much comes: never a burst, always a crowd that stays."""

from indelible_server.api.shedding import LEAST, PART_SECONDS, Shedding

EACH_SECONDS = 0.001
MOST_SECONDS = 0.1
WITHIN = int(MOST_SECONDS / EACH_SECONDS)


class Crowd:
    """Commits that take a millisecond each; `in_flight` are kept there."""

    def __init__(self) -> None:
        self.seconds = 100.0
        self.shedding = Shedding(MOST_SECONDS, lambda: self.seconds)
        self.shedding.began(0)
        for _ in range(2_000):
            self._one_ends()

    def _one_ends(self) -> None:
        self.seconds += EACH_SECONDS
        self.shedding.ended()

    def stays(self, in_flight: int, seconds: float) -> bool:
        """Whether the last of them is admitted."""
        verdict = True
        for _ in range(int(seconds / EACH_SECONDS)):
            verdict = self.shedding.admits(in_flight)
            self._one_ends()
        return verdict


def test_few_are_always_admitted_however_slow_they_are() -> None:
    crowd = Crowd()
    assert LEAST < WITHIN
    assert crowd.stays(LEAST - 1, 10)
    slow = Shedding(1e-9, lambda: 0.0)
    assert slow.admits(LEAST - 1)


def test_a_burst_passes_and_a_crowd_that_stays_does_not() -> None:
    crowd = Crowd()
    assert crowd.stays(WITHIN * 5, PART_SECONDS)
    assert not crowd.stays(WITHIN * 5, 10 * PART_SECONDS)
    assert crowd.shedding.admits(WITHIN - 2)  # those that are done in time


def test_after_a_calm_moment_a_burst_passes_again() -> None:
    crowd = Crowd()
    assert not crowd.stays(WITHIN * 5, 10 * PART_SECONDS)
    assert crowd.stays(WITHIN // 2, 3 * PART_SECONDS)
    assert crowd.shedding.admits(WITHIN * 5)


def test_a_crowd_that_left_long_ago_is_forgotten() -> None:
    crowd = Crowd()
    assert not crowd.stays(WITHIN * 5, 10 * PART_SECONDS)
    crowd.seconds += 60
    assert crowd.shedding.admits(WITHIN * 5)


def test_refusals_keep_the_bound_up() -> None:
    crowd = Crowd()
    crowd.stays(WITHIN * 5, 10 * PART_SECONDS)
    for _ in range(100):
        assert not crowd.stays(WITHIN + 20, PART_SECONDS)

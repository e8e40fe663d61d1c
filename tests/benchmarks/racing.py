"""Load of writers in compare-and-set on one key: who loses tries again with what it was told.

Runs in a worker process. Each writer does what a transaction of the library does, and waits as
long (`indelible.transacting`): it reads the key, sets it on condition that it is still that entry,
tries again at once with what a refusal told and the ticket that it gave; where none is given, later
it waits and reads anew. A refusal names the log's version, which is the entry's too, because the
log holds this one key.
"""

import asyncio
import gc
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

import msgpack
from indelible.transacting import BACKOFF, EAGER_ATTEMPTS
from indelible_protocol import paths
from indelible_protocol.ids import LogId
from indelible_protocol.messages import TICKET_WANTED

from tests.benchmarks.closed_loop import cpu_seconds
from tests.benchmarks.figures import check
from tests.benchmarks.wire import asking, commit_request, opaque_body, request

KEY = b"key"


@dataclass(frozen=True, slots=True, kw_only=True)
class Racing:
    """`log_id` is empty at first."""

    port: int
    apikey: str
    log_id: LogId
    writers: int
    seconds: float
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """`successes` are those of each writer; `cpu_us` is the server's for each of them."""

    seconds: float
    successes: Sequence[int]
    attempts: int
    cpu_us: float

    @property
    def per_second(self) -> float:
        return sum(self.successes) / self.seconds


async def race(plan: Racing) -> Race:
    """
    Raises:
        CheckFailed: a success at a version that another had, or a gap; or another answer than
            a new version and UNEXPECTED_ENTRY or UNEXPECTED_VALUE.
    """
    rng = random.Random(plan.writers)
    gc.collect()
    before = cpu_seconds(plan.pid)
    started = time.perf_counter()
    ends = started + plan.seconds
    outcomes = await asyncio.gather(
        *(_write(plan, writer, ends, random.Random(rng.random())) for writer in range(plan.writers))
    )
    seconds = time.perf_counter() - started
    spent = cpu_seconds(plan.pid) - before
    won = sorted(version for versions, _ in outcomes for version in versions)
    check(won == list(range(1, len(won) + 1)), "the versions won are not dense")
    check(bool(won), "nobody won")
    return Race(
        seconds=seconds,
        successes=[len(versions) for versions, _ in outcomes],
        attempts=sum(attempts for _, attempts in outcomes),
        cpu_us=spent / len(won) * 1e6,
    )


async def _write(
    plan: Racing, writer: int, ends: float, rng: random.Random
) -> tuple[list[int], int]:
    """The versions that it won, and how often it tried."""
    connection = await asking(plan.port)
    read = request("GET", paths.of_key(paths.ENTRY, plan.log_id, KEY), apikey=plan.apikey)
    won: list[int] = []
    attempts = lost = 0
    ticket = TICKET_WANTED
    known = -1  # nothing: it is read before the next attempt
    while time.perf_counter() < ends or ticket != TICKET_WANTED:  # who has one uses it
        if known < 0:
            answer = await connection.ask(read)
            check(answer.status in (200, 404), f"a read was answered with {answer.status}")
            known = answer.version if answer.status == 200 else 0
        value = (b"writer %d, attempt %d" % (writer, attempts)).ljust(256)
        body = opaque_body([(KEY, value)], expect_entry=known)
        attempts += 1
        answer = await connection.ask(
            commit_request(plan.log_id, body, apikey=plan.apikey, ticket=ticket)
        )
        check(
            answer.status in (201, 412) and answer.version >= known,
            f"a compare-and-set was answered with {answer.status} at {answer.version}",
        )
        if answer.status == 201:
            won.append(answer.version)
            known, lost, ticket = -1, 0, TICKET_WANTED
            continue
        known = answer.version
        lost += 1
        given = msgpack.unpackb(answer.body)["details"].get("ticket")
        ticket = given or TICKET_WANTED
        if lost > EAGER_ATTEMPTS and not given:
            known = -1
            pause = rng.uniform(0, BACKOFF.ceiling_seconds(lost - EAGER_ATTEMPTS))
            await asyncio.sleep(min(pause, max(0.0, ends - time.perf_counter())))
    connection.close()
    return won, attempts

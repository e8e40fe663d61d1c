"""Updates of 64 clients at once: opaque (G1), sealed and signed (G2), and contended (G3)."""

import os
from collections import Counter
from collections.abc import Sequence
from statistics import median

import msgpack
from indelible_protocol.ids import LogId

from tests.benchmarks.closed_loop import Answers, Load
from tests.benchmarks.figures import Goal, Row, at_least, at_most, check
from tests.benchmarks.stage import Scale, Stage, stage
from tests.benchmarks.wire import commit_request, opaque_body, read_answer, request

CLIENTS = 64
KEYS = 8
VALUE_BYTES = 256
NOOP = "no-op aiohttp POST"


def opaque_lane(logs: Sequence[LogId], round_number: int, apikey: str) -> list[bytes]:
    """Requests that may be repeated for ever: each sets a key to another value than it has."""
    requests = []
    for turn in range(2):
        for log_id in logs:
            for key in range(KEYS):
                value = b"%d.%d." % (round_number, turn) + os.urandom(VALUE_BYTES - 16)
                body = opaque_body([(b"key-%d" % key, value.ljust(VALUE_BYTES))])
                requests.append(commit_request(log_id, body, apikey=apikey))
    return requests


def noop_lanes(lanes: Sequence[Sequence[bytes]]) -> list[list[bytes]]:
    """The same bodies for the floor's server."""
    return [
        [request("POST", "/commits", body=one.partition(b"\r\n\r\n")[2]) for one in lane[:KEYS]]
        for lane in lanes
    ]


async def check_updates(
    stand: Stage, answers: Answers, lanes: Sequence[Sequence[LogId]], before: Sequence[int]
) -> None:
    """Every answer an acknowledgement of a new version, durable; every version once, and stored.

    `lanes` are the logs of each lane, `before` the versions that each log had.

    Raises:
        CheckFailed: saying what was wrong.
    """
    check(
        set(answers.statuses) == {201},
        f"{answers.count} updates were answered with {dict(answers.statuses)}, 201 expected",
    )
    told = msgpack.unpackb(read_answer(answers.first).body)
    check(told["durability"] == "strict", f"an acknowledgement is {told['durability']}")
    logs = list(dict.fromkeys(log for lane in lanes for log in lane))
    stored = await stand.versions_stored(logs)
    grown = sum(stored) - sum(before)
    check(
        grown == answers.count,
        f"{answers.count} updates were acknowledged, the engine holds {grown} more versions",
    )
    expected: Counter[int] = Counter()
    for low, high in zip(before, stored, strict=True):
        expected.update(range(low + 1, high + 1))
    acknowledged = Counter(version for lane in answers.versions for version in lane)
    check(acknowledged == expected, "the versions acknowledged are not dense")


async def opaque(scale: Scale) -> list[Row]:
    async with stage() as stand:
        noop = await stand.floor("noop")
        logs = await stand.make_opaque_logs(CLIENTS, "g1")

        async def floor(number: int) -> Answers:
            lanes = noop_lanes([opaque_lane([log], number, stand.apikey) for log in logs])
            return await stand.load(
                Load(
                    port=noop.port,
                    lanes=lanes,
                    seconds=scale.seconds,
                    pids={"server": noop.pid},
                    repeated=True,
                )
            )

        async def ours(number: int) -> Answers:
            return await load_opaque(stand, scale, [[log] for log in logs], number)

        pairs = await scale.in_turns("G1", floor, ours)
        return rows(
            "G1", "opaque updates, 64 clients and logs", pairs, at_most(1.7), at_least(0.60)
        )


async def load_opaque(
    stand: Stage,
    scale: Scale,
    lanes: Sequence[Sequence[LogId]],
    number: int,
    *,
    max_requests: int = 1_000_000,
) -> Answers:
    """Updates by one connection for each of `lanes`, to its logs in turn; checked."""
    logs = list(dict.fromkeys(log for lane in lanes for log in lane))
    before = await stand.versions_stored(logs)
    answers = await stand.load(
        Load(
            port=stand.port,
            lanes=[opaque_lane(lane, number, stand.apikey) for lane in lanes],
            seconds=scale.seconds,
            pids=stand.pids,
            repeated=True,
            max_requests=max_requests,
        )
    )
    await check_updates(stand, answers, lanes, before)
    return answers


def rows(
    goal_id: str,
    what: str,
    pairs: Sequence[tuple[Answers, Answers]],
    cpu_goal: Goal | None,
    throughput_goal: Goal | None,
    *,
    floor_name: str = NOOP,
) -> list[Row]:
    """Processor time first: it is what varies least."""
    ours = [mine for _, mine in pairs]
    return [
        Row(
            goal_id=goal_id,
            what=f"{what}: CPU of the server",
            unit="µs each",
            floor_name=floor_name,
            floor=[floor.cpu_us["server"] for floor, _ in pairs],
            ours=[mine.cpu_us["server"] for mine in ours],
            goal=cpu_goal,
            beside={
                "engine_cpu_us": median(mine.cpu_us["engine"] for mine in ours),
                "load_cpu_us": median(mine.cpu_us["load"] for mine in ours),
            },
        ),
        Row(
            goal_id=goal_id,
            what=f"{what}: throughput",
            unit="per s",
            floor_name=floor_name,
            floor=[floor.per_second for floor, _ in pairs],
            ours=[mine.per_second for mine in ours],
            goal=throughput_goal,
            beside={
                "p50_ms": median(mine.p50_ms for mine in ours),
                "p99_ms": median(mine.p99_ms for mine in ours),
                "floor_p50_ms": median(floor.p50_ms for floor, _ in pairs),
            },
        ),
    ]

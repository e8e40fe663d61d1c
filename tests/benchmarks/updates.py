"""Updates of 64 clients at once: opaque (G1), sealed and signed (G2), and contended (G3)."""

import os
from collections import Counter
from collections.abc import Sequence
from statistics import median

import msgpack
from indelible_protocol.commands import Op
from indelible_protocol.ids import ChainId, LogId

from tests.benchmarks import racing
from tests.benchmarks.closed_loop import Answers, Load
from tests.benchmarks.figures import Goal, Row, at_least, at_most, check
from tests.benchmarks.racing import Race, Racing
from tests.benchmarks.stage import UNREFUSED, Scale, Stage, stage
from tests.benchmarks.wire import commit_request, opaque_body, read_answer, request, sealed_body
from tests.support.writers import SealedWriter, sealed_command

CLIENTS = 64
KEYS = 8
VALUE_BYTES = 256
NOOP = "no-op aiohttp POST"
CHAIN = ChainId(b"c" * 16)
BATCH = 100
CONTENDED_SECONDS = 2.0


def opaque_lane(
    logs: Sequence[LogId], round_number: int, apikey: str, prefix: bytes = b"key"
) -> list[bytes]:
    """Requests that may be repeated for ever: each sets a key to another value than it has.

    Lanes that share a log have keys of their own, by `prefix`.
    """
    requests = []
    for turn in range(2):
        for key in range(KEYS):
            for log_id in logs:
                value = b"%d.%d." % (round_number, turn) + os.urandom(VALUE_BYTES - 16)
                body = opaque_body([(b"%b-%d" % (prefix, key), value.ljust(VALUE_BYTES))])
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
    check(told.get("durability") == "strict", f"an acknowledgement says {told}")
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
            lanes=[
                opaque_lane(lane, number, stand.apikey, b"lane-%d" % at)
                for at, lane in enumerate(lanes)
            ],
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


async def sealed(scale: Scale) -> list[Row]:
    """Signed before the clock starts, as many as fit the time; each sealed log has one chain."""
    return [
        *await _sealed(scale, 1, scale.of(6_000, 640)),
        *await _sealed(scale, BATCH, scale.of(1_000, 128)),
    ]


async def _sealed(scale: Scale, commands: int, most: int) -> list[Row]:
    async with stage(arguments=UNREFUSED) as stand:
        noop = await stand.floor("noop")
        writers = await stand.make_sealed_logs(CLIENTS, f"g2-{commands}")

        async def floor(number: int) -> Answers:
            return await stand.load(
                Load(
                    port=noop.port,
                    lanes=noop_lanes(_sealed_lanes(stand, writers, number, KEYS, commands)),
                    seconds=scale.seconds,
                    pids={"server": noop.pid},
                    repeated=True,
                )
            )

        async def ours(number: int) -> Answers:
            return await load_sealed(stand, scale, writers, number, most=most, commands=commands)

        pairs = await scale.in_turns(f"G2, {commands} commands", floor, ours)
    if commands == 1:
        return rows("G2", "sealed, signed updates", pairs, None, None)
    cpu, throughput = rows("G2", f"sealed commits of {commands} commands", pairs, None, None)
    speed = Row(
        goal_id="G2",
        what=f"sealed commands in commits of {commands}",
        unit="per s",
        floor_name=NOOP,
        floor=[floor.per_second * commands for floor, _ in pairs],
        ours=[mine.per_second * commands for _, mine in pairs],
        goal=at_least(100_000, of="ours"),
        beside=throughput.beside,
    )
    return [cpu, speed]


async def load_sealed(
    stand: Stage,
    scale: Scale,
    writers: Sequence[SealedWriter],
    number: int,
    *,
    most: int,
    commands: int = 1,
) -> Answers:
    """Commits by one connection for each writer, at most `most` in all; checked.

    Commits are numbered: sample `number` sends those after the sample before it.
    """
    logs = [writer.log_id for writer in writers]
    before = await stand.versions_stored(logs)
    answers = await stand.load(
        Load(
            port=stand.port,
            lanes=_sealed_lanes(stand, writers, number, -(-most // CLIENTS), commands),
            seconds=scale.seconds,
            pids=stand.pids,
            max_requests=most,
        )
    )
    await check_updates(stand, answers, [[log] for log in logs], before)
    return answers


def _sealed_lanes(
    stand: Stage, writers: Sequence[SealedWriter], sample: int, each: int, commands: int
) -> list[list[bytes]]:
    """Every commit sets its keys to values of its own."""
    numbers = range(sample * each, (sample + 1) * each)
    return [sealed_lane(writer, numbers, commands, stand.apikey) for writer in writers]


def sealed_lane(writer: SealedWriter, numbers: range, commands: int, apikey: str) -> list[bytes]:
    """Commit i of a log is number i of its chain, so no number may be left out for good."""
    requests = []
    for number in numbers:
        sets = [
            sealed_command(Op.UPSERT, (number * commands + at) % 1_000, number * commands + at)
            for at in range(commands)
        ]
        commit = writer.commit(sets, chain=CHAIN, seq=number + 1, seen_size=1)
        requests.append(commit_request(writer.log_id, sealed_body(commit), apikey=apikey))
    return requests


async def contended(scale: Scale) -> list[Row]:
    shorter = scale.shorter(CONTENDED_SECONDS)
    return [*await _hot(shorter), *await _compared(shorter)]


async def _hot(scale: Scale) -> list[Row]:
    async with stage() as stand:
        (hot,) = await stand.make_opaque_logs(1, "g3-hot")
        logs = await stand.make_opaque_logs(CLIENTS, "g3")

        async def floor(number: int) -> Answers:
            return await load_opaque(stand, scale, [[log] for log in logs], number)

        async def ours(number: int) -> Answers:
            return await load_opaque(stand, scale, [[hot]] * CLIENTS, number)

        pairs = await scale.in_turns("G3, one hot log", floor, ours)
    cpu, throughput = rows(
        "G3", "64 clients on one log", pairs, None, at_least(0.90), floor_name="on 64 logs"
    )
    return [cpu, throughput]


async def _compared(scale: Scale) -> list[Row]:
    async with stage() as stand:

        async def race(number: int, writers: int) -> Race:
            (log_id,) = await stand.make_opaque_logs(1, f"g3-race-{number}-{writers}")
            outcome: Race = await stand.worker.run(
                racing.race,
                Racing(
                    port=stand.port,
                    apikey=stand.apikey,
                    log_id=log_id,
                    writers=writers,
                    seconds=scale.seconds,
                    pid=stand.api.pid,
                ),
            )
            (stored,) = await stand.versions_stored([log_id])
            won = sum(outcome.successes)
            check(stored == won, f"{won} writers won, {stored} versions are stored")
            return outcome

        pairs = await scale.in_turns(
            "G3, compare-and-set",
            lambda number: race(number, 1),
            lambda number: race(number, CLIENTS),
        )
    ours = [mine for _, mine in pairs]
    return [
        Row(
            goal_id="G3",
            what="compare-and-set on one key by 64: successes",
            unit="per s",
            floor_name="by one writer",
            floor=[one.per_second for one, _ in pairs],
            ours=[mine.per_second for mine in ours],
            goal=at_least(0.5),
            beside={"cpu_us_per_success": median(mine.cpu_us for mine in ours)},
        ),
        Row(
            goal_id="G3",
            what="attempts for each success",
            ours=[mine.attempts / sum(mine.successes) for mine in ours],
            goal=at_most(3, of="ours"),
        ),
        Row(
            goal_id="G3",
            what="successes of the worst writer, to the median one's",
            floor_name="the median writer",
            floor=[max(1.0, median(mine.successes)) for mine in ours],
            ours=[float(min(mine.successes)) for mine in ours],
            goal=at_least(0.3),
        ),
    ]

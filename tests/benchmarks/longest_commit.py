"""How long the commit function holds the store at the limits.

Run: `python -m tests.benchmarks.longest_commit`.

The engine itself says how long each call took (SLOWLOG), so neither the network nor this
process is in the figure. The floor is the same bytes written by the bare commands of the
engine (one XADD, HSETs in slices) in one MULTI. Exits 1 over 20 ms (median of the worst case).
"""

import asyncio
import os
import statistics
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from indelible_protocol import limits
from indelible_protocol.commands import SETS, Command, Op
from indelible_protocol.ids import ChainId
from indelible_server.embedded import EmbeddedEngine
from indelible_server.store import functions
from indelible_server.store.admission import admit_sealed
from indelible_server.store.committing import Commits
from indelible_server.store.connection import connect
from indelible_server.store.logs import Logs
from indelible_server.store.names import Scope
from redis.asyncio import Redis

from tests.support.writers import FILLER, SealedWriter, token_of, value_id_of

ROUNDS = 41
LIMIT_MS = 20.0
CHAIN = ChainId(b"c" * 16)


def commands(round_number: int, op: Op) -> list[Command]:
    """As many commands as one commit may hold, in as many bytes: keys of their own."""
    room = limits.MAX_COMMIT_BYTES // limits.MAX_COMMANDS - 11 - 32
    made = []
    for key in range(limits.MAX_COMMANDS):
        token = token_of(key)
        if op in SETS:
            filler = bytes(room - 32 - len(FILLER) - 32)
            value = value_id_of(round_number * limits.MAX_COMMANDS + key) + filler
            made.append(Command(op, token, token + FILLER, value))
        else:
            made.append(Command(op, token))
    return made


async def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        engine = await EmbeddedEngine.start(Path(folder))
        clients = connect(engine.url, connections=1, timeout_seconds=30.0)
        redis = clients.commands
        try:
            await redis.execute_command("CONFIG", "SET", "slowlog-log-slower-than", "0")
            await functions.load(redis)
            logs, commits = Logs(redis), Commits(redis)
            writer = SealedWriter(os.urandom(32), max_lag=limits.MAX_LAG)
            scope = Scope(tenant="bench")
            opened = await logs.create_sealed(scope, writer.token, writer.genesis, "")
            identity = opened.description.identity
            seq = 0

            async def send(op: Op) -> None:
                nonlocal seq
                seq += 1
                commit = writer.commit(commands(seq, op), chain=CHAIN, seq=seq, seen_size=1)
                await commits.commit(identity, admit_sealed(identity, commit, b""))

            async def bare() -> None:
                async with redis.pipeline(transaction=True) as pipe:
                    pipe.xadd("{bare}:s", {"b": os.urandom(limits.MAX_COMMIT_BYTES)})
                    for start in range(0, limits.MAX_COMMANDS, 1_000):
                        keys = range(start, min(start + 1_000, limits.MAX_COMMANDS))
                        pipe.hset("{bare}:h", mapping={token_of(k): os.urandom(76) for k in keys})
                    await pipe.execute()

            inserts = await slowest(redis, lambda: send(Op.UPSERT))
            floor = await slowest(redis, bare)
            deletes = await slowest(redis, lambda: send(Op.DELETE))
        finally:
            await clients.close()
            await engine.stop()
    print(f"{limits.MAX_COMMANDS} commands, {limits.MAX_COMMIT_BYTES} bytes, median of {ROUNDS}:")
    print(f"  floor: bare commands   {floor:6.2f} ms")
    print(f"  all keys set anew      {inserts:6.2f} ms   ratio {inserts / floor:.1f}")
    print(f"  all keys deleted       {deletes:6.2f} ms   (every second commit finds nothing)")
    return 0 if max(inserts, deletes) <= LIMIT_MS else 1


async def slowest(redis: Redis, act: Callable[[], Awaitable[None]]) -> float:
    """Median over the rounds of the longest command that the engine logged, in ms."""
    found = []
    for _ in range(ROUNDS):
        await redis.execute_command("SLOWLOG", "RESET")
        await act()
        rows = await redis.execute_command("SLOWLOG GET", 64)
        total: int = sum(row["duration"] for row in rows if b"SLOWLOG" not in row["command"])
        found.append(total / 1_000)
    return statistics.median(found)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))

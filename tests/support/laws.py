"""Laws of commits and diffs: the store must equal the reference, whatever is committed.

One history per example: 30 steps of commits, resends and stale sends on few keys and values,
so that nearly every rule is met. Afterwards every pair of versions is checked in process,
and some of them through the server.
"""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import aiohttp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from indelible_protocol import messages, paths
from indelible_protocol.commands import Command, LogKind, Op
from indelible_protocol.diff import (
    Change,
    Effect,
    Fold,
    by_key,
    decode_effects,
    encode_effects,
    inverted,
)
from indelible_protocol.ids import ChainId, LogId
from indelible_protocol.messages import Form
from indelible_protocol.records import Header
from indelible_protocol.semantics import Acknowledged, Entry, LogState, Rejected
from indelible_protocol.signing import SignedCommit, read_body
from indelible_server.store import keys
from indelible_server.store.admission import Admitted, LogIdentity, admit_opaque, admit_sealed
from indelible_server.store.committing import Commits
from indelible_server.store.connection import Clients, connect
from indelible_server.store.errors import Refusal
from indelible_server.store.logs import Logs
from indelible_server.store.names import Scope

from tests.support.service import Service
from tests.support.writers import SealedWriter, command, value_id_of

STEPS = 30
SERVED_PAIRS = 10
PAGED_PAIRS = 2
MAX_LAG = 12
CHAINS = (ChainId(b"a" * 16), ChainId(b"b" * 16))

DATA_OPS = (
    Op.UPSERT,
    Op.UPSERT,
    Op.INSERT,
    Op.UPDATE,
    Op.REMOVE,
    Op.DELETE,
    Op.EXPECT_ABSENT,
    Op.EXPECT_ENTRY,
)


class Step(NamedTuple):
    """`commands` are (op, key, value, alt); the rest bends the commit out of shape."""

    commands: list[tuple[int, int, int, int]]
    bend: int
    chain: int
    back: int


steps = st.builds(
    Step,
    st.lists(
        st.tuples(
            st.integers(0, len(DATA_OPS)),
            st.integers(0, 4),
            st.integers(0, 3),
            st.integers(0, 5),
        ),
        min_size=1,
        max_size=4,
    ),
    st.integers(0, 19),
    st.integers(0, 1),
    st.integers(0, 8),
)
histories = st.lists(steps, min_size=STEPS, max_size=STEPS)


@dataclass
class Played:
    """A history as the reference keeps it: the contents at every version, by token."""

    identity: LogIdentity
    state: LogState
    contents: list[dict[bytes, int]] = field(default_factory=lambda: [{}])
    effects: list[list[tuple[bytes, Effect]]] = field(default_factory=lambda: [[]])


@dataclass
class Bench:
    """One service, one tenant, and a way past its front door to the store."""

    logs: Logs
    commits: Commits
    clients: Clients
    scope: Scope
    http: aiohttp.ClientSession


@asynccontextmanager
async def bench_of(service: Service, store_url: str) -> AsyncIterator[Bench]:
    """`store_url` is the engine that the service works on."""
    clients = connect(store_url, connections=2, timeout_seconds=5.0)
    headers = {"Authorization": f"Bearer {service.apikey}", "Accept": Form.MSGPACK.value}
    try:
        async with aiohttp.ClientSession(service.url, headers=headers) as http:
            redis, scope = clients.commands, Scope(tenant=service.customer_id)
            yield Bench(Logs(redis), Commits(redis), clients, scope, http)
    finally:
        await clients.close()


class Player:
    """Sends a history to the store and to the reference, and compares every answer."""

    def __init__(self, bench: Bench, kind: LogKind) -> None:
        self.bench = bench
        self.kind = kind
        self.seq = 0
        self.sent: list[Admitted] = []
        self.writer = SealedWriter(os.urandom(32), max_lag=MAX_LAG)
        self.ctl_head = self.writer.ctl_head

    async def play(self, history: Sequence[Step]) -> Played:
        identity = await self._create()
        state = LogState(self.kind)
        if self.kind is LogKind.SEALED:
            state = LogState(self.kind, max_lag=MAX_LAG, ctl_seq=4, epoch=(1, 1))
        played = Played(identity, state)
        for step in history:
            admitted = self._admitted(played, step)
            await self._judge(played, admitted)
        return played

    async def _create(self) -> LogIdentity:
        logs, scope = self.bench.logs, self.bench.scope
        if self.kind is LogKind.SEALED:
            opened = await logs.create_sealed(scope, self.writer.token, self.writer.genesis, "")
        else:
            opened = await logs.create_opaque(scope, os.urandom(8), "")
        return opened.description.identity

    def _admitted(self, played: Played, step: Step) -> Admitted:
        if step.bend == 0 and self.sent:
            return self.sent[-1 - step.back % len(self.sent)]
        self.seq += 1
        commands = [self._command(played.state, *each) for each in step.commands]
        if self.kind is LogKind.OPAQUE:
            key = None if step.bend > 15 else f"{self.seq}"
            if step.bend == 1:
                key = f"{max(1, self.seq - 1 - step.back)}"
            admitted = admit_opaque(played.identity, commands, b"", key)
        else:
            commit = self._sealed(played.state, step, commands)
            admitted = admit_sealed(played.identity, commit, self.ctl_head)
        self.sent.append(admitted)
        return admitted

    def _command(self, state: LogState, op: int, key: int, value: int, alt: int) -> Command:
        if op == len(DATA_OPS):
            if self.kind is LogKind.OPAQUE:
                expected = state.version if alt else state.version + value
                return command(self.kind, Op.EXPECT_VERSION, key, expected)
            op = 0
        kind = DATA_OPS[op]
        if kind is Op.EXPECT_ENTRY:
            entry = state.live.get(command(self.kind, Op.DELETE, key, 0).token)
            value = entry.version if entry and alt else value
        made = command(self.kind, kind, key, value)
        if self.kind is LogKind.SEALED and alt == 5 and kind in (Op.UPSERT, Op.REMOVE, Op.INSERT):
            made = made._replace(alts=(value_id_of((value + 1) % 4), value_id_of(9)))
        return made

    def _sealed(self, state: LogState, step: Step, commands: list[Command]) -> SignedCommit:
        bend = step.bend
        chain = CHAINS[step.chain]
        seq = self.seq - 1 - step.back if bend == 1 and self.seq > step.back + 1 else self.seq
        seen = max(0, state.version + 1 - (step.back if bend == 2 else 0))
        seen = max(1, seen - MAX_LAG) if bend == 3 else seen
        seen += 1 if bend == 4 else 0
        epoch = state.epoch[1] - (1 if bend == 5 else 0)
        ctl_seq = state.ctl_seq + (1 if bend == 6 else 0)
        if bend == 7:
            return self.writer.next_epoch(
                head=self.ctl_head,
                ctl_seq=state.ctl_seq,
                epoch=state.epoch[1],
                chain=chain,
                seq=seq,
                seen_size=seen,
            )
        return self.writer.commit(
            commands,
            chain=chain,
            seq=seq,
            seen_size=seen,
            epoch=epoch,
            ctl_seq=ctl_seq,
            expect_version={8: state.version, 9: max(0, state.version - 1)}.get(bend),
        )

    async def _judge(self, played: Played, admitted: Admitted) -> None:
        state = played.state
        before = state.version
        expected, effects = state.apply(admitted.submission)
        found, current = await self._commit(played.identity, admitted)
        assert found == expected
        assert current in (None, state.version)
        if state.version > before:
            commands = admitted.submission.located.commands
            played.contents.append({token: entry.version for token, entry in state.live.items()})
            played.effects.append(
                [(commands[effect.command_index].token, effect) for effect in effects]
            )
            if admitted.submission.control:
                self.ctl_head = admitted.next_ctl_head

    async def _commit(
        self, identity: LogIdentity, admitted: Admitted
    ) -> tuple[Acknowledged | Rejected, int | None]:
        """The store's verdict, and the current version that a rejection tells."""
        try:
            return await self.bench.commits.commit(identity, admitted), None
        except Refusal as refusal:
            rejected = Rejected(code=refusal.code, index=refusal.details.get("index"))
            return rejected, refusal.details["current_version"]


async def assert_store_holds(bench: Bench, played: Played) -> None:
    """The stream, the head index and the counters are those of the reference."""
    log_keys = keys.of_log(played.identity.log_id)
    redis = bench.clients.commands
    index = await redis.execute_command("HGETALL", log_keys.index)
    live = {token: _index_entry(packed) for token, packed in index.items()}
    assert live == played.state.live
    rows = await redis.execute_command("XRANGE", log_keys.commits, "-", "+")
    assert [row[0] for row in rows] == [b"%d-0" % v for v in range(1, played.state.version + 1)]
    for (_, fields), changes in zip(rows, played.effects[1:], strict=True):
        effects = [effect for _, effect in changes]
        located = read_body(Header.decode(fields[b"h"]), fields[b"b"])
        assert decode_effects(fields[b"e"]) == effects
        assert encode_effects(effects, located.offsets[:-1]) == fields[b"e"]
    version, entries = await redis.execute_command("HMGET", log_keys.meta, "version", "entries")
    assert (int(version), int(entries)) == (played.state.version, len(live))


def _index_entry(packed: bytes) -> Entry:
    return Entry(
        int.from_bytes(packed[:8], "big"),
        int.from_bytes(packed[8:12], "big"),
        int.from_bytes(packed[12:16], "big"),
        packed[48:],
        packed[16:48],
    )


def applied(contents: dict[bytes, int], changes: Sequence[Change]) -> dict[bytes, int]:
    """Contents after a diff; every remove must meet the very entry that it names."""
    contents = dict(contents)
    for change in changes:
        if change.op == "remove":
            assert contents.pop(change.token) == change.version
        else:
            assert change.token not in contents
            contents[change.token] = change.version
    return contents


def assert_every_pair_leads(played: Played) -> None:
    """diff(a, b) applied to contents(a) is contents(b), in both orders; so is its inverse."""
    for low in range(len(played.contents)):
        fold = Fold()
        for high in range(low, len(played.contents)):
            if high > low:
                for token, effect in played.effects[high]:
                    fold.add(high, token, effect)
            changes = fold.changes()
            there, back = played.contents[high], played.contents[low]
            assert applied(back, changes) == there
            assert applied(back, by_key(changes)) == there
            assert applied(there, inverted(changes)) == back
            assert len(changes) == _smallest(back, there)


def _smallest(back: dict[bytes, int], there: dict[bytes, int]) -> int:
    """The size of the smallest diff: entries that are in one of the two only."""
    return len(back.items() ^ there.items())


async def assert_served_pairs_lead(bench: Bench, played: Played, choose: random.Random) -> None:
    version = played.state.version
    for number in range(SERVED_PAIRS):
        low, high = choose.randint(0, version), choose.randint(0, version)
        order = choose.choice(["command", "key"])
        limit = choose.randint(1, 4) if number < PAGED_PAIRS else 1_000
        changes = await served_diff(bench, played.identity.log_id, low, high, order, limit)
        assert applied(played.contents[low], changes) == played.contents[high]
        if order == "key":
            assert [c.token for c in changes] == sorted(c.token for c in changes)
        if number >= PAGED_PAIRS:
            continue
        middle = choose.randint(0, version)
        first = await served_diff(bench, played.identity.log_id, low, middle, order, 1_000)
        then = await served_diff(bench, played.identity.log_id, middle, high, order, 1_000)
        assert applied(applied(played.contents[low], first), then) == played.contents[high]


async def served_diff(
    bench: Bench, log_id: LogId, low: int, high: int, order: str, limit: int
) -> list[Change]:
    changes: list[Change] = []
    query = {"from": str(low), "to": str(high), "order": order, "limit": str(limit)}
    while True:
        url = paths.of_log(paths.DIFF, log_id)
        async with bench.http.get(url, params=query) as answer:
            assert answer.status == 200, await answer.text()
            page = messages.decode(await answer.read(), messages.Diff, Form.MSGPACK)
        assert len(page.changes) <= limit
        assert (page.from_version, page.to_version) == (low, high)
        for change in page.changes:
            changes.append(Change(change.op, change.key, change.version, 0, 0, 0, 0))
        if page.cursor is None:
            return changes
        query["cursor"] = page.cursor


async def assert_laws(kind: LogKind, service: Service, store_url: str, *, examples: int) -> None:
    """`examples` histories of 30 steps, each on a log of its own."""
    versions: set[int] = set()

    async with bench_of(service, store_url) as bench:

        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(history=histories, choose=st.randoms(use_true_random=False))
        async def law(history: list[Step], choose: random.Random) -> None:
            played = await Player(bench, kind).play(history)
            await assert_store_holds(bench, played)
            assert_every_pair_leads(played)
            await assert_served_pairs_lead(bench, played, choose)
            versions.add(played.state.version)

        await _run(law)
    assert len(versions) > 1, "every history had the same length: the generator is broken"


async def _run(law: object) -> None:
    """Runs an async hypothesis test inside the loop that its fixtures live in."""
    inner = law.hypothesis.inner_test  # type: ignore[attr-defined]
    loop = asyncio.get_running_loop()

    def sync(**drawn: object) -> None:
        asyncio.run_coroutine_threadsafe(inner(**drawn), loop).result()

    law.hypothesis.inner_test = sync  # type: ignore[attr-defined]
    await asyncio.to_thread(law)  # type: ignore[arg-type]

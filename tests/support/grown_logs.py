"""Logs with a history, grown through the commit function, beside what the reference makes of it.

The reference is `indelible_protocol.semantics`; it keeps every version's effects, so that the
contents at any version and the diff of any two can be told. Knows nothing of how they are read.
"""

import os
import random
from dataclasses import dataclass, field
from typing import NamedTuple

from indelible_protocol.commands import Command, LogKind, Op
from indelible_protocol.diff import Change, Effect, Fold
from indelible_protocol.semantics import Acknowledged, LogState
from indelible_server.store import functions
from indelible_server.store.admission import LogIdentity, admit_opaque
from indelible_server.store.committing import Commits
from indelible_server.store.logs import Logs
from indelible_server.store.names import Scope
from redis.asyncio import Redis

SCOPE = Scope(tenant="0" * 16)


class Known(NamedTuple):
    """An entry: where it was introduced, and what it says."""

    version: int
    command_index: int
    token: bytes
    value: bytes


@dataclass(kw_only=True)
class GrownLog:
    """`effects[v]` are those of version v, each with its command."""

    identity: LogIdentity
    state: LogState = field(default_factory=lambda: LogState(LogKind.OPAQUE))
    effects: list[list[tuple[Command, Effect]]] = field(default_factory=lambda: [[]])

    @property
    def version(self) -> int:
        return self.state.version

    def contents(self, version: int) -> list[Known]:
        """In order `command`."""
        live: dict[bytes, Known] = {}
        for at in range(1, version + 1):
            for command, effect in self.effects[at]:
                live.pop(command.token, None)
                if effect.adds:
                    live[command.token] = Known(
                        at, effect.command_index, command.token, command.value
                    )
        return list(live.values())

    def net(self, low: int, high: int) -> list[Change]:
        fold = Fold()
        for at in range(low + 1, high + 1):
            for command, effect in self.effects[at]:
                fold.add(at, command.token, effect)
        return fold.changes()


async def new_log(redis: Redis, scope: Scope = SCOPE) -> GrownLog:
    await functions.load(redis)
    opened = await Logs(redis).create_opaque(scope, os.urandom(8), "")
    return GrownLog(identity=opened.description.identity)


async def grow(
    redis: Redis,
    log: GrownLog,
    rng: random.Random,
    *,
    versions: int,
    keys: int,
    most_commands: int = 3,
    deletes: float = 0.3,
) -> None:
    """Commits until `versions` more are there, over `keys` keys at most."""
    commits = Commits(redis)
    wanted = log.version + versions
    while log.version < wanted:
        commands = []
        for _ in range(rng.randint(1, most_commands)):
            token = b"key %d" % rng.randrange(keys)
            if rng.random() < deletes:
                commands.append(Command(Op.DELETE, token))
            else:
                value = b"value %d" % rng.randrange(1 << 30)
                commands.append(Command.on_plain_value(Op.UPSERT, token, value))
        admitted = admit_opaque(log.identity, commands, b"", None)
        before = log.version
        outcome, effects = log.state.apply(admitted.submission)
        assert isinstance(outcome, Acknowledged)
        assert await commits.commit(log.identity, admitted) == outcome
        if log.version > before:
            log.effects.append([(commands[effect.command_index], effect) for effect in effects])

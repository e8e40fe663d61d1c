"""Logs: making, opening, describing, listing and deleting them.

Knows nothing of HTTP, of commits (`committing`), or of what a reader asks for (`reading`).
"""

import asyncio
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from indelible_protocol import limits
from indelible_protocol.commands import LogKind
from indelible_protocol.errors import ErrorCode, ProtocolError
from indelible_protocol.ids import NO_WRITER, LogId, PublicKey
from indelible_protocol.records import Forget, Header, OpaqueGenesis, read_control
from indelible_protocol.signing import SignedCommit, read_body
from msgspec import Struct
from redis.asyncio import Redis

from indelible_server.store import functions, keys
from indelible_server.store.admission import (
    LogIdentity,
    found_opaque,
    found_sealed,
)
from indelible_server.store.batching import BatchingRedis
from indelible_server.store.cluster import Cluster
from indelible_server.store.connection import read_refusal, store_answer, write_outcome
from indelible_server.store.covering import Covering
from indelible_server.store.errors import DamagedError, Refusal, stored
from indelible_server.store.kept import control_commit, control_field
from indelible_server.store.names import Group, NameRecord, Names, Scope
from indelible_server.store.shared_reads import SharedReads

KIND_WORDS = {LogKind.SEALED: "sealed", LogKind.OPAQUE: "opaque"}
_KINDS = {word.encode(): kind for kind, word in KIND_WORDS.items()}
_IDENTITIES = 20_000
_IDENTIFIED_AT_ONCE = 500
_BIND_ATTEMPTS = 8

_IDENTITY_FIELDS = (
    "tenant",
    "database",
    "kind",
    "name",
    "group",
    "owner",
    "max_commands",
    "max_commit_bytes",
    "incarnation",
)
_STATE_FIELDS = (
    "deleted",
    "version",
    "first_version",
    "created_ms",
    "time_ms",
    "entries",
    "stored_bytes",
    "generation",
    "epoch",
    "ctl_seq",
    "name_ct",
    "safe",
)


class LogDescription(Struct, frozen=True, kw_only=True):
    """A log as it stands. Times in milliseconds since 1970, UTC."""

    identity: LogIdentity
    version: int
    first_version: int
    created_ms: int
    updated_ms: int
    entries: int
    stored_bytes: int
    generation: int
    epoch: int
    ctl_seq: int
    name_ct: bytes


class OpenedLog(Struct, frozen=True, kw_only=True):
    description: LogDescription
    genesis: SignedCommit
    control: tuple[SignedCommit, ...]
    created: bool


class _Draft(Struct, frozen=True, kw_only=True):
    """A log about to be made."""

    log_id: LogId
    fields: dict[str, bytes | str | int]


def nonexistent() -> Refusal:
    """The one answer for logs that are absent and logs of other tenants."""
    return Refusal(ErrorCode.NONEXISTENT_LOG, "there is no such log")


def replaced(version: int) -> Refusal:
    return Refusal(
        ErrorCode.LOG_REPLACED,
        f"this log was deleted at version {version}; a log made again under its name has "
        "another log_id",
        {"last_version": version},
    )


async def _admit_all(tenant: str) -> None:
    pass


class Logs:
    """`admit` is asked about the tenant before a log is made for it, and may raise."""

    def __init__(
        self,
        redis: Redis,
        covering: Covering | None = None,
        *,
        admit: Callable[[str], Awaitable[None]] = _admit_all,
    ) -> None:
        self._redis = redis
        self._covering = covering or Covering(redis, 0)
        self._admit = admit
        self._names = Names(redis, self._covering)
        self._identities: OrderedDict[LogId, LogIdentity] = OrderedDict()
        self._reads = SharedReads(self._values, part_of=hash)

    def known(self, log_id: LogId) -> LogIdentity | None:
        """What the log is, whose ever, if it was asked for of late."""
        return self._identities.get(log_id)

    async def identify(self, tenant: str, log_id: LogId) -> LogIdentity:
        """What the log is, if it is this tenant's.

        Raises:
            Refusal: NONEXISTENT_LOG, the same for absent and for foreign.
        """
        identity = self.known(log_id)
        if identity is None:
            [values] = await self._reads.read([log_id])
            identity = self._read(log_id, values)
        if identity.tenant != tenant:
            raise nonexistent()
        return identity

    async def _values(self, log_ids: Sequence[LogId]) -> list[list[bytes]]:
        """One read for all who ask about the same log; each log is a part of its own."""
        async with store_answer():
            return [await self._redis.execute_command(*_identity_command(one)) for one in log_ids]

    def begin_identify(
        self, log_id: LogId, deliver: Callable[[LogIdentity | Refusal], None]
    ) -> None:
        """What the log is, whose ever, without a task.

        `deliver` gets that, or NONEXISTENT_LOG, or why it cannot be told; it is called once and
        must not raise.
        """
        assert isinstance(self._redis, (BatchingRedis, Cluster))

        def told(reply: Any) -> None:
            outcome: LogIdentity | Refusal
            if isinstance(reply, Exception):
                outcome = read_refusal(reply)
            else:
                try:
                    outcome = self._read(log_id, reply)
                except Refusal as refusal:
                    outcome = refusal
            deliver(outcome)

        self._redis.begin(_identity_command(log_id), told)

    def _read(self, log_id: LogId, values: list[bytes]) -> LogIdentity:
        if values[0] is None:
            raise nonexistent()
        try:
            return self._remember(log_id, values)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DamagedError("what the log is does not decode") from error

    async def identify_many(
        self, tenant: str, log_ids: Sequence[LogId]
    ) -> dict[LogId, LogIdentity]:
        """Those of them that are this tenant's logs, deleted ones too."""
        found = {
            log_id: self._identities[log_id] for log_id in log_ids if log_id in self._identities
        }
        unknown = [log_id for log_id in log_ids if log_id not in found]
        for at in range(0, len(unknown), _IDENTIFIED_AT_ONCE):
            some = unknown[at : at + _IDENTIFIED_AT_ONCE]
            async with store_answer(), self._redis.pipeline(transaction=False) as pipe:
                for log_id in some:
                    pipe.hmget(keys.of_log(log_id).meta, *_IDENTITY_FIELDS)
                rows = await pipe.execute()
            for log_id, values in zip(some, rows, strict=True):
                if values[0] is not None:
                    found[log_id] = self._remember(log_id, values)
        return {log_id: each for log_id, each in found.items() if each.tenant == tenant}

    def _remember(self, log_id: LogId, values: list[bytes]) -> LogIdentity:
        identity = self._identities[log_id] = _identity(log_id, values)
        if len(self._identities) > _IDENTITIES:
            self._identities.popitem(last=False)
        return identity

    async def create_sealed(
        self, scope: Scope, token: bytes, genesis: SignedCommit, group: str
    ) -> OpenedLog:
        """Makes the log that `genesis` founds, or opens the one that has the name already.

        Raises:
            ProtocolError: the genesis commit is not sound.
            Refusal: LOG_EXISTS with another group.
        """
        founded = found_sealed(genesis)
        record = founded.genesis
        check_group(group)

        def draft(incarnation: int) -> _Draft:
            return _Draft(
                log_id=founded.log_id,
                fields=_first_fields(scope, LogKind.SEALED, token, group, incarnation, genesis)
                | {
                    "owner": record.owner.pk_sign,
                    "max_commands": record.max_commands,
                    "max_commit_bytes": record.max_commit_bytes,
                    "max_lag": record.max_lag,
                    "generation": 1,
                    "epoch": 1,
                    "ctl_seq": founded.ctl_seq,
                    "ctl_head": founded.ctl_head,
                    "name_ct": record.name_ct,
                },
            )

        return await self._create(scope, LogKind.SEALED, token, group, draft)

    async def create_opaque(self, scope: Scope, name: bytes, group: str) -> OpenedLog:
        """Makes an opaque log, or opens the one that has the name already.

        Raises:
            Refusal: LOG_EXISTS with another group.
        """
        check_group(group)

        def draft(incarnation: int) -> _Draft:
            log_id, genesis = found_opaque(
                OpaqueGenesis(
                    tenant=scope.tenant.encode(),
                    database=scope.database.encode(),
                    name=name,
                    group=group.encode(),
                    incarnation=incarnation,
                    random=secrets.token_bytes(32),
                )
            )
            return _Draft(
                log_id=log_id,
                fields=_first_fields(scope, LogKind.OPAQUE, name, group, incarnation, genesis),
            )

        return await self._create(scope, LogKind.OPAQUE, name, group, draft)

    async def _create(
        self,
        scope: Scope,
        kind: LogKind,
        token: bytes,
        group: str,
        draft: Callable[[int], _Draft],
    ) -> OpenedLog:
        """The log's keys, then its name, then the listings; a loser opens the winner's."""
        held = await self._names.look_up(scope, kind, token)
        for _ in range(_BIND_ATTEMPTS):
            if held is not None and not held.deleted:
                opened = await self._open(scope, held.log_id, created=False)
                if opened is not None:
                    if held.group != group:
                        raise Refusal(
                            ErrorCode.LOG_EXISTS,
                            f"the log exists in group {held.group!r}, not {group!r}",
                            {"group": held.group},
                        )
                    await self._list(scope, opened.description)
                    return opened
            await self._admit(scope.tenant)
            made = draft(held.incarnation + 1 if held else 1)
            await self._write_first(scope, token, made)
            record = NameRecord(
                log_id=made.log_id, group=group, incarnation=int(made.fields["incarnation"])
            )
            held = await self._names.bind(scope, kind, token, expected=held, record=record)
            if held is None:
                opened = await self._open(scope, made.log_id, created=True)
                if opened is None:
                    raise nonexistent()  # deleted again in the meantime
                await self._list(scope, opened.description)
                return opened
            if held.log_id != made.log_id:
                await functions.call(
                    self._redis, "delete", keys.all_of_log(made.log_id), ["discard"]
                )
        raise Refusal(
            ErrorCode.TRANSACTION_CONFLICT, "the name changes hands too quickly; try again"
        )

    async def _write_first(self, scope: Scope, token: bytes, made: _Draft) -> None:
        flat = [item for pair in made.fields.items() for item in pair]
        word, rest = await functions.call(
            self._redis, "create", [keys.of_log(made.log_id).meta], flat
        )
        if word == "created":
            return
        there = await self.identify(scope.tenant, made.log_id)
        if there.database != scope.database or there.name != token:
            raise ProtocolError("this genesis has made a log under another name already")
        if word == "deleted":
            raise replaced(int(rest[0]))

    async def _list(self, scope: Scope, description: LogDescription) -> None:
        identity = description.identity
        await self._names.list_log(scope, identity.group, description.created_ms, identity.log_id)

    async def open_name(self, scope: Scope, kind: LogKind, token: bytes) -> OpenedLog:
        """
        Raises:
            Refusal: NONEXISTENT_LOG.
        """
        held = await self._names.look_up(scope, kind, token)
        opened = None
        if held is not None and not held.deleted:
            opened = await self._open(scope, held.log_id, created=False)
        if opened is None:
            raise nonexistent()
        return opened

    async def resolve_name(self, scope: Scope, kind: LogKind, token: bytes) -> LogIdentity:
        """The identity of the log that a name means now, in one look-up once it is known.

        Raises:
            Refusal: NONEXISTENT_LOG.
        """
        held = await self._names.look_up(scope, kind, token)
        if held is None or held.deleted:
            raise nonexistent()
        return await self.identify(scope.tenant, held.log_id)

    async def _open(self, scope: Scope, log_id: LogId, *, created: bool) -> OpenedLog | None:
        """None for a log that is deleted or half made."""
        log_keys = keys.of_log(log_id)
        try:
            identity = await self.identify(scope.tenant, log_id)
        except Refusal as refusal:
            if refusal.code is ErrorCode.NONEXISTENT_LOG:
                return None
            raise
        async with store_answer(), self._redis.pipeline(transaction=True) as pipe:
            pipe.hmget(log_keys.meta, *_STATE_FIELDS)
            pipe.hmget(log_keys.meta, "genesis_header", "genesis_signature", "genesis_body")
            pipe.lrange(log_keys.control, 0, -1)
            state, genesis, versions = await pipe.execute()
        await self._cover(log_id, state)
        if state[0] is not None or genesis[0] is None:
            return None
        control = []
        async with store_answer(), self._redis.pipeline(transaction=True) as pipe:
            for version in versions:
                pipe.xrange(log_keys.commits, version, version)
                pipe.hget(keys.kept(log_id), control_field(int(version)))
            found = await pipe.execute()
        for rows, kept in zip(found[::2], found[1::2], strict=True):
            if not rows:
                control.append(control_commit(kept))
                continue
            ((_, fields),) = rows
            control.append(
                SignedCommit(header=fields[b"h"], signature=fields[b"s"], body=fields[b"b"])
            )
        return OpenedLog(
            description=_description(identity, state),
            genesis=SignedCommit(header=genesis[0], signature=genesis[1], body=genesis[2]),
            control=tuple(control),
            created=created,
        )

    async def describe(self, identity: LogIdentity) -> LogDescription:
        """
        Raises:
            Refusal: LOG_REPLACED once it is deleted.
        """
        async with store_answer():
            state = await self._redis.execute_command(
                "HMGET", keys.of_log(identity.log_id).meta, *_STATE_FIELDS
            )
        await self._cover(identity.log_id, state)
        if state[0] is not None:
            raise replaced(int(state[1]))
        if state[1] is None:
            raise nonexistent()
        return _description(identity, state)

    async def _cover(self, log_id: LogId, state: list[bytes]) -> None:
        deleted, version, safe = state[0], state[1], state[-1]
        if version is not None:
            await self._covering.cover(log_id, int(version), safe, deleted=deleted is not None)

    async def list_logs(
        self, scope: Scope, group: str | None, after: bytes, limit: int
    ) -> tuple[list[LogDescription], bytes | None]:
        """Descriptions, oldest first, and the position to go on from (None at the end)."""
        listed = await self._names.listed(scope, group, after, limit)
        async with store_answer(), self._redis.pipeline(transaction=False) as pipe:
            for _, log_id in listed:
                meta = keys.of_log(log_id).meta
                pipe.hmget(meta, *_IDENTITY_FIELDS, *_STATE_FIELDS)
            rows = await pipe.execute()
        if self._covering.is_needed:
            states = [row[len(_IDENTITY_FIELDS) :] for row in rows]
            await asyncio.gather(*map(self._cover, [log_id for _, log_id in listed], states))
        descriptions = []
        for (_, log_id), row in zip(listed, rows, strict=True):
            values, state = row[: len(_IDENTITY_FIELDS)], row[len(_IDENTITY_FIELDS) :]
            if values[0] is not None and state[0] is None:
                descriptions.append(_description(_identity(log_id, values), state))
        return descriptions, listed[-1][0] if len(listed) == limit else None

    async def group_version(self, scope: Scope, group: str) -> int:
        """How often the group's listing has changed."""
        (version,) = await self._names.group_versions([Group(scope.tenant, scope.database, group)])
        return version

    async def delete(self, identity: LogIdentity) -> int:
        """Deletes contents and name; the version at which the log ended.

        The contents go first: a name that outlives them opens as absent, and is free.

        Raises:
            Refusal: LOG_REPLACED if it was deleted before.
        """
        description = await self.describe(identity)
        scope = Scope(tenant=identity.tenant, database=identity.database)
        is_noted = await self._has_objects(identity.log_id)
        if is_noted:
            await self._note_objects(identity.log_id)
        word, rest = await functions.call(
            self._redis, "delete", keys.all_of_log(identity.log_id), ["keep"]
        )
        if word == "absent":
            raise nonexistent()
        if rest[1] and not is_noted:
            await self._note_objects(identity.log_id)
        held = await self._names.look_up(scope, identity.kind, identity.name)
        if held is not None and held.log_id == identity.log_id and not held.deleted:
            tombstone = NameRecord(
                log_id=held.log_id, group=held.group, incarnation=held.incarnation, deleted=True
            )
            await self._names.bind(
                scope, identity.kind, identity.name, expected=held, record=tombstone
            )
        await self._names.unlist_log(scope, identity.group, description.created_ms, identity.log_id)
        return int(rest[0])

    async def _has_objects(self, log_id: LogId) -> bool:
        """Whether the archive has, or had, objects of the log."""
        async with store_answer():
            found = await self._redis.execute_command(
                "HMGET", keys.of_log(log_id).meta, "archived_bytes"
            )
        return found[0] is not None

    async def _note_objects(self, log_id: LogId) -> None:
        """Before the log is deleted: who moves to the archive deletes its objects after that."""
        now_ms = time.time_ns() // 1_000_000
        async with write_outcome():
            await self._redis.execute_command("ZADD", keys.ARCHIVE_DELETED, now_ms, log_id)

    async def may_forget(self, identity: LogIdentity, before: int) -> bool:
        """Whether the owner of a sealed log has signed that versions below `before` may go."""
        scope = Scope(tenant=identity.tenant, database=identity.database)
        opened = await self._open(scope, identity.log_id, created=False)
        for commit in reversed(opened.control if opened else ()):
            with stored():
                header = Header.decode(commit.header)
                commands = read_body(header, commit.body).commands
                records = read_control(commands, head=None)
            for record in records:
                if isinstance(record.body, Forget) and record.body.before >= before:
                    return True
        return False

    async def control_head(self, identity: LogIdentity) -> bytes:
        """Hash of the log's last control record."""
        async with store_answer():
            head: bytes | None = await self._redis.execute_command(
                "HGET", keys.of_log(identity.log_id).meta, "ctl_head"
            )
        return head or b""


def check_group(group: str) -> None:
    if len(group.encode()) > limits.MAX_GROUP_BYTES:
        raise ProtocolError(
            f"group of {len(group.encode())} bytes, at most {limits.MAX_GROUP_BYTES} are allowed",
            ErrorCode.TOO_LARGE,
        )


def _first_fields(
    scope: Scope, kind: LogKind, token: bytes, group: str, incarnation: int, genesis: SignedCommit
) -> dict[str, bytes | str | int]:
    """The meta of a log at version 0; the kinds differ in what they override."""
    return {
        "tenant": scope.tenant,
        "database": scope.database,
        "kind": KIND_WORDS[kind],
        "name": token,
        "group": group,
        "owner": NO_WRITER,
        "max_commands": limits.MAX_COMMANDS,
        "max_commit_bytes": limits.MAX_COMMIT_BYTES,
        "max_lag": limits.MAX_LAG,
        "incarnation": incarnation,
        "version": 0,
        "first_version": 0,
        "entries": 0,
        "stored_bytes": genesis.size_bytes,
        "generation": 0,
        "epoch": 0,
        "ctl_seq": 0,
        "ctl_head": b"",
        "name_ct": b"",
        "genesis_header": genesis.header,
        "genesis_signature": genesis.signature,
        "genesis_body": genesis.body,
    }


def _identity_command(log_id: LogId) -> tuple[str, ...]:
    return ("HMGET", keys.of_log(log_id).meta, *_IDENTITY_FIELDS)


def _identity(log_id: LogId, values: list[bytes]) -> LogIdentity:
    tenant, database, kind, name, group, owner, max_commands, max_bytes, incarnation = values
    return LogIdentity(
        log_id=log_id,
        tenant=tenant.decode(),
        database=database.decode(),
        kind=_KINDS[kind],
        name=name,
        group=group.decode(),
        owner=PublicKey(owner),
        max_commands=int(max_commands),
        max_commit_bytes=int(max_bytes),
        incarnation=int(incarnation),
    )


def _description(identity: LogIdentity, state: list[bytes]) -> LogDescription:
    *told, name_ct, _ = state
    numbers = [int(value) for value in told[1:]]
    version, first, created, updated, entries, stored, generation, epoch, ctl = numbers
    return LogDescription(
        identity=identity,
        version=version,
        first_version=first,
        created_ms=created,
        updated_ms=updated,
        entries=entries,
        stored_bytes=stored,
        generation=generation,
        epoch=epoch,
        ctl_seq=ctl,
        name_ct=name_ct,
    )

"""What is laid out for loads to stand on is what the store's functions would have left."""

from indelible_protocol.commands import Command, Op
from indelible_protocol.ids import LogId
from indelible_server.store import keys
from indelible_server.store.admission import admit_opaque
from indelible_server.store.committing import Commits
from indelible_server.store.logs import Logs
from indelible_server.store.names import Scope
from redis.asyncio import Redis

from tests.benchmarks import building
from tests.benchmarks.stage import stage

KEYS, VERSIONS, VALUE_BYTES = 3, 8, 40
OF_ONE_LOG = {b"name", b"genesis_header", b"genesis_body", b"created_ms", b"time_ms"}
READ_AS_IT_IS = "XRANGE "  # redis-py makes a dict of every row otherwise


async def test_versions_that_are_laid_out_are_those_that_commits_make() -> None:
    async with stage() as stand, Redis.from_url(stand.engine.url) as store:
        laid, committed = await stand.make_opaque_logs(2, "laid")
        assert await stand.grow(laid, KEYS, keys=KEYS, value_bytes=VALUE_BYTES) == KEYS
        more = VERSIONS - KEYS
        assert await stand.grow(laid, more, keys=2, value_bytes=VALUE_BYTES + 1) == VERSIONS
        identity = await Logs(store).identify(stand.deployment.tenant_id, committed)
        for commits, key_count, size in ((KEYS, KEYS, VALUE_BYTES), (more, 2, VALUE_BYTES + 1)):
            for number in range(commits):
                key, turn = number % key_count, number // key_count
                value = (b"%d.%d." % (turn % 2, key)).ljust(size, b"v")
                commands = [Command(Op.UPSERT, building.key_of(key), value=value)]
                admitted = admit_opaque(identity, commands, b"", None)
                await Commits(store).commit(identity, admitted)
        assert await _versions(store, laid) == await _versions(store, committed)
        indexes = [await store.hgetall(keys.of_log(log).index) for log in (laid, committed)]
        assert indexes[0] == indexes[1]
        assert len(indexes[0]) == KEYS
        assert await _meta(store, laid) == await _meta(store, committed)


async def test_logs_that_are_laid_out_are_those_that_creating_makes() -> None:
    async with stage() as stand, Redis.from_url(stand.engine.url) as store:
        count = building.MADE_BY_THE_STORE + 2
        made = await stand.make_opaque_logs(count, "laid")
        logs, scope = Logs(store), Scope(tenant=stand.deployment.tenant_id)
        identities = [await logs.identify(scope.tenant, log_id) for log_id in made]
        for identity in (identities[10], identities[-1]):
            found = await logs.open_name(scope, identity.kind, identity.name)
            assert found.description.identity == identity
            assert found.genesis.body
        assert await _meta(store, made[10]) == await _meta(store, made[-1])
        listed, _ = await logs.list_logs(scope, None, b"", count)
        assert {one.identity.log_id for one in listed} == set(made)
        assert await logs.group_version(scope, "") == count


async def _versions(store: Redis, log_id: LogId) -> list[tuple[bytes, list[bytes]]]:
    """Each but for its time, and without the log's own name in it."""
    rows = await store.execute_command(READ_AS_IT_IS, keys.of_log(log_id).commits, "-", "+")
    found = []
    for stream_id, fields in rows:
        assert fields[6] == b"t"
        fields[7] = b"its time" if int(fields[7]) > 0 else b"none"
        found.append((stream_id, [field.replace(log_id, b"its log") for field in fields]))
    return found


async def _meta(store: Redis, log_id: LogId) -> dict[bytes, bytes | int]:
    meta: dict[bytes, bytes] = await store.execute_command("HGETALL", keys.of_log(log_id).meta)
    return {name: len(value) if name in OF_ONE_LOG else value for name, value in meta.items()}

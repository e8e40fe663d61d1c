"""The same service on a cluster: logs on every node, reached by any process, woken across them."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from indelible_protocol.commands import LogKind
from indelible_protocol.ids import LogId
from indelible_server.store import keys
from indelible_server.store.slots import slot_of

from tests.support.cluster import Cluster, StartCluster
from tests.support.engines import redis_server
from tests.support.laws import assert_laws
from tests.support.native_api import Committed, NativeApi
from tests.support.operations import Acked, Command, Op
from tests.support.service import Service, StartService, make_tenant

SECRET = "s" * 40
LOGS = 12
EXAMPLES = 10


@pytest.fixture(params=["valkey", pytest.param("redis", marks=pytest.mark.torture)])
async def each_cluster(
    cluster: Cluster, request: pytest.FixtureRequest, start_cluster: StartCluster
) -> Cluster:
    """Of the embedded engine, then of Debian's redis-server."""
    if request.param == "valkey":
        return cluster
    server = redis_server()
    if server is None:
        pytest.skip("no redis-server on PATH, and INDELIBLE_TEST_REDIS_SERVER is unset")
    return await start_cluster(server=server)


@pytest.fixture
def services(each_cluster: Cluster, start_service: StartService, tmp_path: Path) -> list[Service]:
    """Two API processes on the cluster."""
    secret_file = tmp_path / "secret"
    secret_file.write_text(SECRET)
    arguments = ("api", "--redis", each_cluster.url, "--secret-file", str(secret_file))
    return [start_service(*arguments) for _ in range(2)]


@pytest.fixture
async def apis(each_cluster: Cluster, services: list[Service]) -> AsyncIterator[list[NativeApi]]:
    """A client of each process, of one tenant."""
    _, apikey = await make_tenant(each_cluster.url, SECRET.encode())
    async with aiohttp.ClientSession() as session:
        yield [
            NativeApi(session, endpoints=[s.url], apikey=apikey, rng=random.Random(1))
            for s in services
        ]


async def test_commits_waits_and_diffs_work_on_logs_of_every_node(
    apis: list[NativeApi], each_cluster: Cluster
) -> None:
    mine, other = apis
    logs = [await mine.create_log(f"log-{number}") for number in range(LOGS)]
    for number, log_id in enumerate(logs):
        waiting = asyncio.create_task(other.wait(log_id, 0, wait_seconds=20.0))
        await asyncio.sleep(0)
        outcome = await mine.commit(
            log_id, [Command(Op.UPSERT, "key", f"value-{number}")], idempotency_key="one"
        )
        assert isinstance(outcome, Committed)
        assert outcome.outcome == Acked(version=1, changed=True)
        woken = await waiting
        assert woken is not None
        assert (woken.to_version, woken.changes[0].value) == (1, f"value-{number}")
        read = await other.diff(log_id, 0)
        assert [change.value for change in read.changes] == [f"value-{number}"]
    owners = {
        (await each_cluster.primary_of(slot_of(keys.of_log(LogId(log)).meta))).port for log in logs
    }
    assert len(owners) == 3, "every node has some of the logs"


@pytest.mark.parametrize("kind", LogKind)
async def test_laws_hold_on_a_cluster(
    kind: LogKind, each_cluster: Cluster, services: list[Service]
) -> None:
    service = services[0]
    service.customer_id, service.apikey = await make_tenant(each_cluster.url, SECRET.encode())
    await assert_laws(kind, service, each_cluster.url, examples=EXAMPLES)

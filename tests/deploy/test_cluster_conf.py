"""A node's configuration, and the command that forms a cluster: the service works on it."""

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from indelible_server.store.connection import connect
from indelible_server.store.durability import DurabilityMonitor
from redis.asyncio import Redis

from tests.deploy.test_valkey_conf import CONFIGURATION as BASE
from tests.deploy.test_valkey_conf import directives
from tests.support.engines import Engine, start_engine
from tests.support.ports import free_port

CONFIGURATION = Path(__file__).parents[2] / "deploy/cluster/valkey-cluster.conf"
ROOT = Path(__file__).parents[2]


@pytest.fixture
async def addresses(tmp_path: Path) -> AsyncIterator[list[str]]:
    """Six nodes that run with our files, not formed yet; only their places are the test's."""
    nodes: list[Engine] = []

    async def start(number: int) -> str:
        folder = tmp_path / f"node-{number}"
        folder.mkdir()
        base, own = tmp_path / f"base-{number}.conf", tmp_path / f"own-{number}.conf"
        base.write_text(re.sub(r"^dir .*$", f'dir "{folder}"', BASE.read_text(), flags=re.M))
        own.write_text(
            re.sub(r"^include .*$", f'include "{base}"', CONFIGURATION.read_text(), flags=re.M)
        )
        port, bus = free_port(), free_port()
        settings = {"cluster-port": str(bus), "repl-diskless-sync-delay": "0"}
        nodes.append(await start_engine(folder, config=own, tcp_port=port, settings=settings))
        return f"127.0.0.1:{port}@{bus}"

    yield [await start(number) for number in range(6)]
    for node in nodes:
        await node.stop()


async def test_nodes_with_our_configuration_form_a_cluster_that_keeps_what_is_promised(
    addresses: list[str],
) -> None:
    formed = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "deploy.cluster", "form", *addresses],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert formed.returncode == 0, formed.stderr
    url = re.search(r"'(redis://.*)'", formed.stdout)
    assert url is not None
    clients = connect(url[1], connections=2, timeout_seconds=5.0)
    try:
        monitor = DurabilityMonitor(clients.commands, "strict", replicas=clients.replicas)
        await monitor.check()
        assert monitor.reasons == ()
        assert monitor.advice == ()
        await clients.commands.execute_command("SET", "{a}", "b")
        assert await clients.commands.execute_command("GET", "{a}") == b"b"
    finally:
        await clients.close()
    async with Redis(
        port=int(addresses[0].split(":")[1].split("@")[0]), decode_responses=True
    ) as node:
        told = await node.config_get("*")
    for name, value in directives(CONFIGURATION.read_text()):
        if name not in ("include", "bind", "repl-backlog-size"):
            assert told[name] == value, name
    again = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "deploy.cluster", "form", *addresses],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (again.returncode, again.stderr.count("\n")) == (1, 1)
    assert "in a cluster already" in again.stderr


def test_every_line_of_the_configuration_stands_once_and_has_its_reason() -> None:
    text = CONFIGURATION.read_text()
    names = [name for name, _ in directives(text)]
    assert len(names) == len(set(names)) > 7
    for paragraph in text.split("\n\n"):
        assert len(directives(paragraph)) <= 1, paragraph
        assert paragraph.startswith("# "), paragraph

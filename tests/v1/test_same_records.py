"""One history through v1 and through the native API leaves the same records in the store."""

import random
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

import aiohttp
from indelible.v1 import ApiErrorException, Log
from indelible_protocol.ids import from_base64url, parse_log_id, to_base64url
from indelible_server.embedded import running_engine_url
from indelible_server.store import keys
from redis.asyncio import Redis

from tests.support.service import Service

UPDATES = 80
TYPES = ("Insert", "Update", "Upsert", "Remove")
Command = dict[str, Any]


def random_update(rng: random.Random, version: int) -> list[Command]:
    commands: list[Command] = []
    for _ in range(rng.randrange(1, 5)):
        key, value = rng.choice(["a", "b", "c", "d", "e"]), rng.choice(["", "x", "y"])
        commands.append(
            {
                "type": rng.choice(TYPES),
                "key": b64encode(key.encode()).decode(),
                "value": b64encode(value.encode()).decode(),
            }
        )
    if rng.random() < 0.3:
        expected = version + (rng.random() < 0.3)
        commands.insert(
            rng.randrange(len(commands)), {"type": "ExpectVersion", "version": expected}
        )
    return commands


class _Sent:
    """A command as the drop-in takes it."""

    def __init__(self, command: Command) -> None:
        self.type = command["type"]
        self.key, self.value = command.get("key"), command.get("value")
        self.version = command.get("version")


def through_v1(log: Log, commands: list[Command], source: str) -> str:
    """The outcome: "done", or the code of the refusal."""
    try:
        log.update(map(_Sent, commands), source)
    except ApiErrorException as refused:
        return refused.code
    return "done"


async def records(store: Any, log_id: str) -> dict[str, Any]:
    """All that the store keeps of a log, without what belongs to this log alone."""
    names = keys.of_log(parse_log_id(log_id))
    own_id = from_base64url(log_id, "log_id")
    meta = await store.hgetall(names.meta)
    fields = {k: v for k, v in meta.items() if not (k.startswith(b"genesis") or k.endswith(b"_ms"))}
    assert fields.pop(b"name") in (b"by v1", b"by v2")
    commits = [
        (number, {k: v.replace(own_id, b"<log id>") for k, v in commit.items() if k != b"t"})
        for number, commit in await store.xrange(names.commits)
    ]
    others = set(names.all()) - {names.meta, names.commits, names.index, names.channel}
    return {
        "meta": fields,
        "commits": commits,
        "index": await store.hgetall(names.index),
        "others": await store.exists(*others),
    }


async def test_same_history_through_v1_and_native_leaves_the_same_records(
    service: Service,
) -> None:
    profile = {
        "endpoint_url": service.url,
        "customer_id": service.customer_id,
        "apikey": service.apikey,
    }
    log = Log("by v1", profile, "raw", "raw", encrypt=False)
    log.create("group")
    rng = random.Random(11)
    authorization = {"Authorization": f"Bearer {service.apikey}"}
    async with aiohttp.ClientSession(service.url, headers=authorization) as native:
        ids = {}
        for name in ("by v1", "by v2"):
            path = f"/v2/names/{to_base64url(name.encode())}?kind=opaque"
            async with native.put(path, json={"group": "group"}) as answer:
                # Bytes stand as plain base64 in JSON, as URL-safe base64 in paths.
                log_id = b64decode((await answer.json())["description"]["log_id"])
                ids[name] = to_base64url(log_id)
        outcomes = set()
        version = 0
        for number in range(UPDATES):
            commands = random_update(rng, version)
            source = f"source {number}" if number % 2 else ""
            path = f"/v2/logs/{ids['by v2']}/commits"
            async with native.post(path, json={"commands": commands, "source": source}) as answer:
                told = await answer.json()
            outcome = "done" if answer.ok else told["code"]
            version = told["version"] if answer.ok else version
            assert through_v1(log, commands, source) == outcome
            outcomes.add(outcome)

    assert outcomes == {"done", "UNEXPECTED_VALUE", "NONEXISTENT_VALUE", "UNEXPECTED_VERSION"}
    assert version > 20
    url = await running_engine_url(Path(service.arguments[-1]))
    assert url is not None
    async with Redis.from_url(url, protocol=2) as store:
        left, right = await records(store, ids["by v1"]), await records(store, ids["by v2"])
    assert len(left["commits"]) == version
    assert left == right

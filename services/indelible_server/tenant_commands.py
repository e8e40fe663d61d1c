"""`indelible-server tenant …`: works on the store of a running service, or of a folder at rest.

Prints data as JSON on stdout and everything else on stderr.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec.structs import asdict

from indelible_server.embedded import EmbeddedEngine, EngineError, running_engine_url
from indelible_server.settings import Settings, load, noted_address, read_secret, surroundings
from indelible_server.store import functions
from indelible_server.store.addresses import check_store
from indelible_server.store.connection import connect
from indelible_server.store.errors import Refusal
from indelible_server.store.tenants import QUOTAS, TenantError, Tenants
from indelible_server.telemetry import configure_logging

CONNECTIONS = 4
IN_FORCE_WITHIN_SECONDS = 10
TIMEOUT_SECONDS = 10.0

Act = Callable[[Tenants, Settings], Awaitable[None]]


def create(options: argparse.Namespace) -> int:
    async def act(tenants: Tenants, settings: Settings) -> None:
        tenant_id, apikey = await tenants.create(options.name)
        _print_credentials(options, settings, tenant_id, apikey)

    return _on_store(options, act)


def add_key(options: argparse.Namespace) -> int:
    async def act(tenants: Tenants, settings: Settings) -> None:
        apikey = await tenants.add_key(options.name)
        _print_credentials(options, settings, await tenants.id_of(options.name), apikey)

    return _on_store(options, act)


def revoke_key(options: argparse.Namespace) -> int:
    async def act(tenants: Tenants, _settings: Settings) -> None:
        await tenants.revoke_key(options.name, options.key_id)
        _say(f"revoked; it stops working within {IN_FORCE_WITHIN_SECONDS} s")

    return _on_store(options, act)


def list_all(options: argparse.Namespace) -> int:
    async def act(tenants: Tenants, _settings: Settings) -> None:
        for tenant in await tenants.list():
            _print_json(
                {
                    "name": tenant.name,
                    "customer_id": tenant.tenant_id,
                    "created_ms": tenant.created_ms,
                    "key_ids": list(tenant.key_ids),
                    "quota": asdict(tenant.quota),
                }
            )

    return _on_store(options, act)


def set_quota(options: argparse.Namespace) -> int:
    given = {name: getattr(options, name) for name in QUOTAS if getattr(options, name)}
    if not given:
        _say("error: give at least one of " + ", ".join(map(_flag, QUOTAS)))
        return 2
    most: dict[str, float | None] = {}
    for name, text in given.items():
        number = float if name == "requests_per_second" else int
        try:
            most[name] = None if text == "default" else number(text)
        except ValueError:
            _say(f"error: {_flag(name)} is {text!r}, a number or `default` expected")
            return 2

    async def act(tenants: Tenants, _settings: Settings) -> None:
        for name, value in most.items():
            await tenants.set_quota(options.name, name, value)
        _say(f"set; it is in force within {IN_FORCE_WITHIN_SECONDS} s")

    return _on_store(options, act)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def delete(options: argparse.Namespace) -> int:
    if not options.yes:
        _say(f"Delete tenant {options.name!r} and all its logs? Type its name:")
        if sys.stdin.readline().strip() != options.name:
            _say("error: that is not its name, and nothing was deleted; --yes does not ask")
            return 1

    async def act(tenants: Tenants, _settings: Settings) -> None:
        count = await tenants.delete(options.name)
        _say(f"deleted tenant {options.name!r} and {count} logs")

    return _on_store(options, act)


def _on_store(options: argparse.Namespace, act: Act) -> int:
    configure_logging("error", "console")
    settings = load(vars(options))

    async def run() -> None:
        async with _tenants(settings) as tenants:
            await act(tenants, settings)

    try:
        asyncio.run(run())
    except TenantError as error:
        _say(f"error: {error}; indelible-server tenant list prints what there is")
        return 1
    except (EngineError, Refusal) as error:
        _say(f"error: {error}")
        return 1
    return 0


@asynccontextmanager
async def _tenants(settings: Settings) -> AsyncIterator[Tenants]:
    check_store(settings)
    secret = read_secret(settings)
    engine = None
    url = settings.redis or await running_engine_url(Path(settings.data))
    if not url:
        runtime_dir = surroundings().runtime_dir
        engine = await EmbeddedEngine.start(Path(settings.data), runtime_dir=runtime_dir)
        url = engine.url
    clients = connect(
        url,
        connections=CONNECTIONS,
        timeout_seconds=TIMEOUT_SECONDS,
        wait_replicas=settings.wait_replicas,
    )
    try:
        await functions.load(clients.commands)
        yield Tenants(clients.commands, secret)
    finally:
        await clients.close()
        if engine is not None:
            await engine.stop()


def _print_credentials(
    options: argparse.Namespace, settings: Settings, tenant_id: str, apikey: str
) -> None:
    endpoint = options.endpoint or noted_address(settings) or "http://" + settings.listen
    _print_json({"endpoint_url": endpoint, "customer_id": tenant_id, "apikey": apikey})


def _print_json(value: object) -> None:
    print(json.dumps(value))  # noqa: T201 - this is the command's output


def _say(text: str) -> None:
    print(text, file=sys.stderr)  # noqa: T201 - the command line's own words

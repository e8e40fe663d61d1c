"""`indelible-server`: starts the service's processes, and manages tenants.

Owns the command line and the way from settings to running services. Argument parsing is the
standard library's: a server that restarts should not spend a fifth of a second on it.
"""

import argparse
import gc
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version
from threading import Thread
from typing import TYPE_CHECKING, cast

from indelible_server.settings import Settings, SettingsError, add_flags, load

if TYPE_CHECKING:
    from indelible_server.serving import Part

EXIT_USAGE = 2
_STORE_FLAGS = ("data", "redis", "secret_file")


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    try:
        code = options.command(options)
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - the command line's own words
        code = EXIT_USAGE
    except KeyboardInterrupt:
        code = 130
    raise SystemExit(code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="indelible-server",
        description="End-to-end encrypted, versioned logs that wake their readers with diffs.",
        epilog="examples:\n"
        "  indelible-server all --data ./data\n"
        "  indelible-server tenant create acme --data ./data > credentials.json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"indelible {version('indelible')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    everything = commands.add_parser(
        "all", help="every process of the service, with the embedded engine unless --redis is given"
    )
    everything.set_defaults(command=_run_all)
    add_flags(everything)
    api = commands.add_parser("api", help="API processes on the store that --redis names")
    api.set_defaults(command=_run_api)
    add_flags(api)
    webhooks = commands.add_parser(
        "webhooks",
        help="one webhooks process on the store that --redis names, or on the engine that `all` "
        "runs in --data",
    )
    webhooks.set_defaults(command=_run_webhooks)
    add_flags(webhooks)
    materializer = commands.add_parser(
        "materializer",
        help="one materializer process on the store that --redis names, or on the engine that "
        "`all` runs in --data",
    )
    materializer.set_defaults(command=_run_materializer)
    add_flags(materializer)
    _add_tenant_commands(commands.add_parser("tenant", help="make, list and delete tenants"))
    return parser


def _add_tenant_commands(tenant: argparse.ArgumentParser) -> None:
    commands = tenant.add_subparsers(required=True, metavar="COMMAND")
    create = commands.add_parser(
        "create", help="make a tenant and print its credentials as JSON, once"
    )
    create.add_argument("name", metavar="NAME")
    create.set_defaults(command=_tenant("create"))
    listing = commands.add_parser("list", help="print tenants as JSON lines")
    listing.set_defaults(command=_tenant("list_all"))
    delete = commands.add_parser("delete", help="revoke a tenant's keys and delete its logs")
    delete.add_argument("name", metavar="NAME")
    delete.add_argument("--yes", action="store_true", help="do not ask")
    delete.set_defaults(command=_tenant("delete"))
    quota = commands.add_parser("quota", help="what a tenant may send and keep")
    quota.add_argument("name", metavar="NAME")
    for flag, what in (
        ("--requests-per-second", "to one process, on average"),
        ("--logs", "logs in all its databases"),
        ("--stored-bytes", "bytes in its logs, their history included"),
    ):
        quota.add_argument(flag, metavar="N", help=f"{what}; `default` for the setting")
    quota.set_defaults(command=_tenant("set_quota"))
    keys = commands.add_parser("key", help="add and revoke API keys")
    key_commands = keys.add_subparsers(required=True, metavar="COMMAND")
    add = key_commands.add_parser("add", help="another API key; prints credentials as JSON, once")
    add.add_argument("name", metavar="NAME")
    add.set_defaults(command=_tenant("add_key"))
    revoke = key_commands.add_parser("revoke", help="end an API key within ten seconds")
    revoke.add_argument("name", metavar="NAME")
    revoke.add_argument(
        "key_id", metavar="KEY_ID", help="its public id (ik_ID_…), from tenant list"
    )
    revoke.set_defaults(command=_tenant("revoke_key"))
    for parser in (create, listing, delete, quota, add, revoke):
        add_flags(parser, _STORE_FLAGS)
    for parser in (create, add):
        parser.add_argument(
            "--endpoint",
            metavar="URL",
            help="where clients reach the service",
        )


def _run_all(options: argparse.Namespace) -> int:
    return _serve(load(vars(options)))


def _run_api(options: argparse.Namespace) -> int:
    settings = load(vars(options))
    if not settings.redis:
        raise SettingsError("api needs --redis URL; `all` starts the embedded engine of --data")
    return _serve(settings, only="api")


def _run_webhooks(options: argparse.Namespace) -> int:
    return _serve(load(vars(options)), only="webhooks")


def _run_materializer(options: argparse.Namespace) -> int:
    return _serve(load(vars(options)), only="materializer")


def _serve(settings: Settings, *, only: "Part | None" = None) -> int:
    with _imports_kept():
        if settings.processes == 1:
            # aiohttp reads the system's certificates when it is imported, and lets others work.
            Thread(target=import_module, args=("aiohttp.web",)).start()
        from indelible_server.serving import serve
    return serve(settings, only=only)


@contextmanager
def _imports_kept() -> Iterator[None]:
    """Nothing is collected that is imported here: it stays. structlog does not find rich, whose
    tracebacks are not for us (they show values) and which takes as long to import as structlog."""
    modules = cast("dict[str, object]", sys.modules)
    has_rich = "rich" in modules
    gc.disable()
    try:
        modules.setdefault("rich", None)
        yield
    finally:
        if not has_rich:
            del modules["rich"]
        gc.freeze()
        gc.enable()


def _tenant(name: str) -> Callable[[argparse.Namespace], int]:
    """The tenant command of that name; its imports wait until it is called."""

    def command(options: argparse.Namespace) -> int:
        from indelible_server import tenant_commands

        code: int = getattr(tenant_commands, name)(options)
        return code

    return command


if __name__ == "__main__":
    main()

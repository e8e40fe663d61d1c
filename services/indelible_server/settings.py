"""Every setting of the server: its default, where it may come from, what it may be.

Defaults, then a TOML file (`--config`), then `INDELIBLE_…` in the environment, then flags.
The only module that reads the environment. Knows nothing of what the settings are used for.
"""

import argparse
import os
import secrets
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import msgspec
from msgspec import Meta, Struct

_SECRET_BYTES = 32

Durability = Literal["strict", "relaxed"]


class SettingsError(ValueError):
    """A setting that is missing or not what it should be; says which and what was expected."""


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    data: Annotated[
        str, Meta(description="folder of the embedded engine; needed unless --redis is given")
    ] = ""
    redis: Annotated[
        str,
        Meta(
            description="URL of an external Redis or Valkey (redis://, rediss://, unix://), or "
            "of a cluster (redis://HOST:PORT,HOST:PORT/?cluster=true)"
        ),
    ] = ""
    secret_file: Annotated[
        str,
        Meta(description="file with the secret that keys API key hashes and cursors (32+ bytes)"),
    ] = ""
    listen: Annotated[str, Meta(description="HOST:PORT; port 0 takes a free one")] = (
        "127.0.0.1:8480"
    )
    processes: Annotated[
        int, Meta(ge=1, le=256, description="API processes that share the address of --listen")
    ] = 1
    operations_listen: Annotated[
        str,
        Meta(
            description="HOST:PORT for /livez, /readyz and /metrics alone; of several processes "
            "the next takes the next port"
        ),
    ] = ""
    tls_cert: Annotated[str, Meta(description="PEM file with the certificate chain")] = ""
    tls_key: Annotated[str, Meta(description="PEM file with the private key")] = ""
    durability: Annotated[
        Durability,
        Meta(description="what an acknowledgement promises: fsynced, or in memory"),
    ] = "strict"
    wait_replicas: Annotated[
        Annotated[int, Meta(ge=0, le=8)] | None,
        Meta(
            description="replicas that hold an update before it is acknowledged; by itself 1 with "
            "a cluster, else 0"
        ),
    ] = None
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="least level logged")
    ] = "info"
    log_format: Annotated[Literal["json", "console"], Meta(description="form of log lines")] = (
        "json"
    )
    max_waiters: Annotated[
        int, Meta(ge=1, description="long polls and event streams that one process holds at most")
    ] = 20_000
    max_tenant_waiters: Annotated[
        int,
        Meta(ge=1, description="long polls and event streams of one tenant in a process at most"),
    ] = 15_000
    max_tenant_watched: Annotated[
        int, Meta(ge=1, description="logs and groups that one tenant's waits on many watch at most")
    ] = 200_000
    tenant_requests_per_second: Annotated[
        float,
        Meta(gt=0, description="requests that one tenant may send a process, on average"),
    ] = 5_000.0
    max_tenant_logs: Annotated[
        int, Meta(ge=1, description="logs that one tenant keeps at most")
    ] = 1_000_000
    max_tenant_stored_bytes: Annotated[
        int, Meta(ge=1, description="bytes in one tenant's logs at most, history included")
    ] = 64 << 30
    max_commits_in_flight: Annotated[
        int, Meta(ge=1, description="commits that one process works on at once")
    ] = 1_024
    max_commit_wait_seconds: Annotated[
        float,
        Meta(gt=0, le=60, description="wait for others beyond which commits are refused"),
    ] = 0.1
    max_wait_seconds: Annotated[
        float, Meta(gt=0, le=60, description="longest wait that a request may ask for")
    ] = 60.0
    body_seconds: Annotated[
        float, Meta(gt=0, le=300, description="time that a request's body may take to arrive")
    ] = 30.0
    idle_seconds: Annotated[
        float, Meta(gt=0, le=300, description="time that an idle or header-only connection lives")
    ] = 20.0
    store_seconds: Annotated[
        float, Meta(gt=0, le=60, description="time that one store operation may take")
    ] = 2.0
    store_connections: Annotated[
        int, Meta(ge=1, le=1_024, description="connections to the store for requests")
    ] = 32
    recheck_seconds: Annotated[
        float, Meta(gt=0, le=60, description="how often waited-on logs are read without a hint")
    ] = 5.0
    cache_bytes: Annotated[
        int, Meta(ge=0, description="memory for encoded diffs in one process")
    ] = 64 << 20
    shared_caching: Annotated[
        bool, Meta(description="whether a proxy may share diffs among requests with one API key")
    ] = False
    max_tenant_webhooks: Annotated[
        int, Meta(ge=0, description="webhooks that one tenant may have")
    ] = 100
    webhook_seconds: Annotated[
        float, Meta(gt=0, le=60, description="time that an endpoint has to answer a delivery")
    ] = 15.0
    webhook_attempts_at_once: Annotated[
        int, Meta(ge=2, description="deliveries that one process attempts at once")
    ] = 512
    webhook_sweep_seconds: Annotated[
        float, Meta(gt=0, le=60, description="how often webhooks are looked at without a hint")
    ] = 5.0
    materializer_sweep_seconds: Annotated[
        float, Meta(gt=0, le=3_600, description="how often logs are looked at for what is due")
    ] = 5.0
    archive: Annotated[
        str,
        Meta(
            description="where cold versions go: a folder, or s3://BUCKET/PREFIX (or another "
            "object store's URL); by itself the folder `archive` of --data, with --redis nowhere"
        ),
    ] = ""
    archive_log_bytes: Annotated[
        int,
        Meta(ge=0, description="bytes of one log beyond which its cold versions go; 0: never"),
    ] = 256 << 20
    webhook_allow_private: Annotated[
        bool, Meta(description="webhooks may use http and lead to addresses that are not public")
    ] = False


FLAGS: Mapping[str, str] = {
    name: "--" + name.replace("_", "-") for name in Settings.__struct_fields__
}
VARIABLES: Mapping[str, str] = {name: "INDELIBLE_" + name.upper() for name in FLAGS}
_FAILPOINT = "INDELIBLE_FAILPOINT"
_LISTENER = "INDELIBLE_LISTENER_FD"
_OPERATIONS_LISTENER = "INDELIBLE_OPERATIONS_LISTENER_FD"
_LIFELINE = "INDELIBLE_LIFELINE_FD"


class Surroundings(Struct, frozen=True, kw_only=True):
    """What the process inherits and cannot be told by flags.

    `failpoint` names a point at which the process kills itself: for fault tests alone. A process
    with a supervisor is handed descriptors: the sockets that it accepts on, and `lifeline`, a
    pipe that ends with the supervisor.
    """

    notify_socket: str | None = None
    watchdog_seconds: float | None = None
    runtime_dir: Path | None = None
    failpoint: str | None = None
    listener: int | None = None
    operations_listener: int | None = None
    lifeline: int | None = None


def add_flags(parser: argparse.ArgumentParser, names: Sequence[str] = tuple(FLAGS)) -> None:
    """A flag for each of `names`; one that is not given leaves nothing behind."""
    for name in names:
        meta = next(m for m in _hint(name).__metadata__ if isinstance(m, Meta))
        default = _default(name)
        shown = f"{meta.description} [{VARIABLES[name]}]" + (
            f" (default: {default})" if default else ""
        )
        parser.add_argument(
            FLAGS[name],
            dest=name,
            default=argparse.SUPPRESS,
            help=shown.replace("%", "%%"),
            metavar=name.rpartition("_")[2].upper(),
        )
    parser.add_argument(
        "--config", metavar="FILE", help="TOML file with these settings [INDELIBLE_CONFIG]"
    )


def load(flags: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> Settings:
    """The settings in force, from every source.

    Raises:
        SettingsError: names the setting, where it came from, and what was expected.
    """
    environ = os.environ if environ is None else environ
    sources: list[tuple[str, Mapping[str, Any]]] = []
    config = flags.get("config") or environ.get("INDELIBLE_CONFIG")
    if config:
        sources.append((config, _read_toml(Path(config))))
    sources.append(
        ("the environment", {n: environ[v] for n, v in VARIABLES.items() if v in environ})
    )
    sources.append(("the command line", {name: flags[name] for name in FLAGS if name in flags}))
    merged: dict[str, Any] = {}
    for origin, values in sources:
        for name, value in values.items():
            merged[name] = _checked(name, value, origin)
    settings = Settings(**merged)
    if bool(settings.data) == bool(settings.redis):
        raise SettingsError("give either --data DIR (embedded engine) or --redis URL, one of them")
    if settings.redis and not settings.secret_file:
        raise SettingsError(
            "--redis needs --secret-file FILE: the key of API key hashes and cursors"
        )
    if bool(settings.tls_cert) != bool(settings.tls_key):
        raise SettingsError("--tls-cert and --tls-key go together")
    parse_address(settings.listen, "listen")
    if settings.operations_listen:
        parse_address(settings.operations_listen, "operations_listen")
    return settings


def surroundings(environ: Mapping[str, str] | None = None) -> Surroundings:
    environ = os.environ if environ is None else environ
    runtime = environ.get("XDG_RUNTIME_DIR")
    return Surroundings(
        notify_socket=environ.get("NOTIFY_SOCKET"),
        watchdog_seconds=_watchdog_seconds(environ),
        runtime_dir=Path(runtime) if runtime else None,
        failpoint=environ.get(_FAILPOINT),
        listener=_descriptor(environ, _LISTENER),
        operations_listener=_descriptor(environ, _OPERATIONS_LISTENER),
        lifeline=_descriptor(environ, _LIFELINE),
    )


def environment_for(
    settings: Settings,
    *,
    notify_socket: str,
    watchdog_seconds: float,
    listener: int | None,
    operations_listener: int | None,
    lifeline: int,
) -> dict[str, str]:
    """The environment in which another process finds `settings`, whole, and these surroundings.

    Not its arguments: everybody can read those, and a store's URL may hold a password.
    """
    given = {
        name: value
        for name, value in os.environ.items()
        if name == _FAILPOINT or not name.startswith(("INDELIBLE_", "WATCHDOG_"))
    }
    for name, variable in VARIABLES.items():
        value = getattr(settings, name)
        if value != _default(name):
            given[variable] = str(value)
    given["NOTIFY_SOCKET"] = notify_socket
    given["WATCHDOG_USEC"] = str(int(watchdog_seconds * 1e6))
    given[_LIFELINE] = str(lifeline)
    for name, descriptor in ((_LISTENER, listener), (_OPERATIONS_LISTENER, operations_listener)):
        if descriptor is not None:
            given[name] = str(descriptor)
    return given


def _descriptor(environ: Mapping[str, str], name: str) -> int | None:
    return int(environ[name]) if environ.get(name, "").isdecimal() else None


def _watchdog_seconds(environ: Mapping[str, str]) -> float | None:
    """None if nobody watches, or another process is the watched one: sd_watchdog_enabled(3)."""
    interval = environ.get("WATCHDOG_USEC", "")
    watched = environ.get("WATCHDOG_PID") or str(os.getpid())
    if not interval.isdecimal() or int(interval) == 0 or watched != str(os.getpid()):
        return None
    return int(interval) / 1e6


def parse_address(text: str, name: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT` or `[V6]:PORT`."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdigit() or int(port) > 65_535:
        raise SettingsError(f"{name} is {text!r}, HOST:PORT expected (as 127.0.0.1:8480)")
    return host, int(port)


def with_archive(settings: Settings) -> Settings:
    """The same with the archive that a data folder has by itself."""
    if settings.archive or not settings.data:
        return settings
    return msgspec.structs.replace(settings, archive=str(Path(settings.data) / "archive"))


def note_address(settings: Settings, url: str) -> None:
    """Keeps where the service was last reached, for the credentials of later tenants."""
    if settings.data:
        (Path(settings.data) / "address").write_text(url + "\n")


def noted_address(settings: Settings) -> str | None:
    try:
        return (Path(settings.data) / "address").read_text().strip() if settings.data else None
    except OSError:
        return None


def read_secret(settings: Settings) -> bytes:
    """The key of API key hashes and cursors; made with a data folder that has none yet.

    Raises:
        SettingsError: no such file, or fewer than 32 bytes.
    """
    path = secret_path(settings)
    if not settings.secret_file:
        _make_secret(path)
    try:
        secret = path.read_bytes().strip()
    except OSError as error:
        raise SettingsError(
            f"the secret file {path} cannot be read ({error.strerror}); make one with: "
            f"(umask 077; head -c 32 /dev/urandom | base64 > {path})"
        ) from error
    if len(secret) < _SECRET_BYTES:
        raise SettingsError(
            f"the secret file {path} holds {len(secret)} bytes, {_SECRET_BYTES} or more expected"
        )
    return secret


def secret_path(settings: Settings) -> Path:
    return Path(settings.secret_file) if settings.secret_file else Path(settings.data) / "secret"


def _make_secret(path: Path) -> None:
    """Whole or not at all, also when two processes start on a new folder at once."""
    if path.exists():
        return
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = path.with_name(f"secret.{secrets.token_hex(4)}")
        with open(draft, "x", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(secrets.token_urlsafe(_SECRET_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(draft, path)
        draft.unlink()
    except OSError as error:
        raise SettingsError(
            f"{path.parent} cannot be used as a data folder ({error.strerror}): choose another"
        ) from error


def _hint(name: str) -> Any:
    return get_type_hints(Settings, include_extras=True)[name]


def _default(name: str) -> Any:
    field = next(f for f in msgspec.structs.fields(Settings) if f.name == name)
    return field.default


def _checked(name: str, value: object, origin: str) -> Any:
    try:
        return msgspec.convert(value, _hint(name), strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{name} from {origin} is {value!r}: {error}") from None


def _read_toml(path: Path) -> Mapping[str, Any]:
    try:
        values = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path}: {error}") from None
    unknown = sorted(set(values) - set(FLAGS))
    if unknown:
        raise SettingsError(f"{path}: unknown settings {', '.join(unknown)}")
    return values

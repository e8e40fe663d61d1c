"""Whether the store keeps what it acknowledges. Owns the check of its settings, at start and
for as long as the service runs: they can be changed under a running server.

Decides nothing about requests: it says `durable` and the reasons against, and the service
is ready, or answers NOT_DURABLE, accordingly.
"""

import asyncio
from collections.abc import Awaitable, Mapping
from types import MappingProxyType
from typing import Literal, TypeVar

import structlog
from msgspec import Struct
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from indelible_server.store.cluster import members

Profile = Literal["strict", "relaxed"]

DEADLINE_SECONDS = 2.0
# While something falls short the check comes more often, so that a service whose store is
# back is ready again at once.
HURRIED_SECONDS = 0.5

_STRICT = {"appendonly": "yes", "appendfsync": "always", "no-appendfsync-on-rewrite": "no"}
_EVICTION = "maxmemory-policy"
_FEWEST = "min-replicas-to-write"
_FLOORS = {"valkey": (7, 2), "redis": (7, 0)}
_ADVISED = (7, 2)

NOTHING: Mapping[str, str] = MappingProxyType({})

log = structlog.get_logger(__name__)
T = TypeVar("T")


class StoreSettings(Struct, frozen=True, kw_only=True):
    """What a store tells of itself. `config` is empty if it refuses CONFIG GET."""

    config: Mapping[str, str]
    info: Mapping[str, object]


def shortfalls(
    config: Mapping[str, str],
    info: Mapping[str, object],
    *,
    profile: Profile,
    replicas: int = 0,
    of_cluster: bool = False,
) -> tuple[str, ...]:
    """Why the engine does not hold what `profile` promises; empty if it does.

    `relaxed` promises less about a crash, but no profile lives with eviction: it deletes
    what was acknowledged, crash or not. A setting that is not told counts against.

    `replicas` must hold an acknowledged update; that a part of a cluster lacks them is no reason
    to refuse the others' commits.
    """
    found = [*_version_shortfalls(info)]
    if not of_cluster and info.get("cluster_enabled") == 1:
        found.append("the store is a node of a cluster: say so in its URL, with ?cluster=true")
    if not of_cluster and _replicas_of(info) < replicas:
        found.append(f"the store has {_replicas_of(info)} replicas, {replicas} expected")
    expected = dict(_STRICT) if profile == "strict" else {}
    told = dict(config)
    # Stores that refuse CONFIG GET still tell this one.
    if _EVICTION not in told and "maxmemory_policy" in info:
        told[_EVICTION] = str(info["maxmemory_policy"])
    expected[_EVICTION] = "noeviction"
    untold = [name for name in expected if name not in told]
    if untold:
        found.append(
            f"the store does not tell {', '.join(untold)} (CONFIG GET is refused), "
            "so nothing is known about what it keeps"
        )
    found += [
        f"{name} is {told[name]}, expected {value}"
        for name, value in expected.items()
        if name in told and told[name] != value
    ]
    return tuple(found)


def advice(
    info: Mapping[str, object], config: Mapping[str, str] = NOTHING, *, replicas: int = 0
) -> tuple[str, ...]:
    """What an operator should know of an engine that is good enough."""
    found = []
    name, version = _engine(info)
    if _FLOORS[name] <= version < _ADVISED:
        found.append(
            f"{name} {_text(version)} has no WAITAOF: only appendfsync always protects a write; "
            f"{_text(_ADVISED)} or newer is advised"
        )
    if not replicas or info.get("role") != "master":
        return tuple(found)
    there = _replicas_of(info)
    if there < replicas:
        found.append(f"{there} replicas, {replicas} are waited for: its logs take no commits")
    if there > replicas:
        found.append(
            f"{there} replicas, {replicas} are waited for: a failover to another may lose what "
            "was acknowledged"
        )
    if int(config.get(_FEWEST, "0")) < replicas:
        found.append(
            f"{_FEWEST} is {config.get(_FEWEST, 'not told')}: without replicas commits end as "
            "unknown outcomes after a wait, and are not refused at once"
        )
    return tuple(found)


async def read_settings(client: Redis) -> StoreSettings:
    """CONFIG GET and INFO, each within 2 s.

    Raises:
        RedisError, OSError: the store cannot be reached, or not in time.
    """
    info = await _within_deadline(client.info())
    try:
        config = await _within_deadline(client.config_get(*_STRICT, _EVICTION, _FEWEST))
    except ResponseError:  # a managed service, or a user without the right
        config = {}
    return StoreSettings(
        config={_str(name): _str(value) for name, value in config.items()},
        info={_str(name): value for name, value in info.items()},
    )


class DurabilityMonitor:
    """Checks a store, every node of it, again and again. Not durable until the first check has
    said so."""

    def __init__(
        self, client: Redis, profile: Profile, every_seconds: float = 10.0, *, replicas: int = 0
    ) -> None:
        self._client = client
        self._profile = profile
        self._every_seconds = every_seconds
        self.replicas = replicas
        self.advice: tuple[str, ...] = ()
        self.reasons: tuple[str, ...] = ("the store was not checked yet",)
        self._logged: tuple[str, ...] = ()

    @property
    def durable(self) -> bool:
        return not self.reasons

    async def check(self) -> None:
        """Look once. A store that cannot be examined falls short; nothing is raised.

        A node of a cluster that cannot be examined is advice: its own logs tell for themselves.
        """
        try:
            nodes = await members(self._client)
        except (RedisError, OSError) as error:
            self._note((_unexamined(error),))
            return
        told = await asyncio.gather(*map(read_settings, nodes.values()), return_exceptions=True)
        reasons: list[str] = []
        given: list[str] = []
        examined = False
        for name, settings in zip(nodes, told, strict=True):
            place = f"node {name}: " if name else ""
            if isinstance(settings, StoreSettings):
                examined = True
                short, advised = self._judge(settings, of_cluster=bool(name))
                reasons += [place + reason for reason in short]
                given += [place + each for each in advised]
            elif isinstance(settings, (RedisError, OSError)):
                given.append(place + _unexamined(settings))
            else:
                raise settings
        self._note(tuple(reasons) if examined else tuple(given))
        self._advise(tuple(given) if examined else ())

    def _judge(
        self, settings: StoreSettings, *, of_cluster: bool
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        short = shortfalls(
            settings.config,
            settings.info,
            profile=self._profile,
            replicas=self.replicas,
            of_cluster=of_cluster,
        )
        return short, advice(settings.info, settings.config, replicas=self.replicas)

    async def run(self, stop: asyncio.Event) -> None:
        """Check at once, then every so often, until `stop`."""
        while not stop.is_set():
            await self.check()
            pause = self._every_seconds
            if not self.durable:
                pause = min(pause, HURRIED_SECONDS)
            try:
                async with asyncio.timeout(pause):
                    await stop.wait()
            except TimeoutError:
                pass

    def _note(self, reasons: tuple[str, ...]) -> None:
        self.reasons = reasons
        if reasons == self._logged:
            return
        self._logged = reasons
        if reasons:
            log.error("durability.fell_short", profile=self._profile, reasons=list(reasons))
        else:
            log.info("durability.restored", profile=self._profile)

    def _advise(self, given: tuple[str, ...]) -> None:
        if given and given != self.advice:
            log.warning("durability.advised", advice=list(given))
        self.advice = given


def _unexamined(error: BaseException) -> str:
    # The text of a foreign error may name addresses; its kind is enough here.
    return f"the store cannot be examined ({type(error).__name__})"


def _replicas_of(info: Mapping[str, object]) -> int:
    """How many replicas are connected and follow."""
    told = (value for name, value in info.items() if name.startswith("slave"))
    return sum(isinstance(each, dict) and each.get("state") == "online" for each in told)


def _version_shortfalls(info: Mapping[str, object]) -> tuple[str, ...]:
    name, version = _engine(info)
    if version < _FLOORS[name]:
        return (f"{name} is {_text(version)}, expected {_text(_FLOORS[name])} or newer",)
    return ()


def _engine(info: Mapping[str, object]) -> tuple[str, tuple[int, int]]:
    """Name and (major, minor). Valkey also tells the redis_version it is compatible with."""
    name = "valkey" if "valkey_version" in info else "redis"
    major, minor, *_ = [*str(info.get(f"{name}_version", "")).split("."), "0", "0"]
    return name, (int(major) if major.isdecimal() else 0, int(minor) if minor.isdecimal() else 0)


def _text(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def _str(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


async def _within_deadline(reply: Awaitable[T]) -> T:
    async with asyncio.timeout(DEADLINE_SECONDS):
        return await reply

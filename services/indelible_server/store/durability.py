"""Whether the store keeps what it acknowledges. Owns the check of its settings, at start and
for as long as the service runs: they can be changed under a running server.

Decides nothing about requests: it says `durable` and the reasons against, and the service
is ready, or answers NOT_DURABLE, accordingly.
"""

import asyncio
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

Profile = Literal["strict", "relaxed"]

DEADLINE_SECONDS = 2.0
# While something falls short the check comes more often, so that a service whose store is
# back is ready again at once.
HURRIED_SECONDS = 0.5

_STRICT = {"appendonly": "yes", "appendfsync": "always", "no-appendfsync-on-rewrite": "no"}
_EVICTION = "maxmemory-policy"
_FLOORS = {"valkey": (7, 2), "redis": (7, 0)}
_ADVISED = (7, 2)

log = structlog.get_logger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings:
    """What a store tells of itself. `config` is empty if it refuses CONFIG GET."""

    config: Mapping[str, str]
    info: Mapping[str, object]


def shortfalls(
    config: Mapping[str, str], info: Mapping[str, object], *, profile: Profile
) -> tuple[str, ...]:
    """Why the store does not hold what `profile` promises; empty if it does.

    `relaxed` promises less about a crash, but no profile lives with eviction: it deletes
    what was acknowledged, crash or not. A setting that is not told counts against.
    """
    found = [*_version_shortfalls(info)]
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


def advice(info: Mapping[str, object]) -> tuple[str, ...]:
    """What an operator should know of a store that is good enough."""
    name, version = _engine(info)
    if _FLOORS[name] <= version < _ADVISED:
        return (
            f"{name} {_text(version)} has no WAITAOF: only appendfsync always protects a write; "
            f"{_text(_ADVISED)} or newer is advised",
        )
    return ()


async def read_settings(client: Redis) -> StoreSettings:
    """CONFIG GET and INFO, each within 2 s.

    Raises:
        RedisError, OSError: the store cannot be reached, or not in time.
    """
    info = await _within_deadline(client.info())
    try:
        config = await _within_deadline(client.config_get(*_STRICT, _EVICTION))
    except ResponseError:  # a managed service, or a user without the right
        config = {}
    return StoreSettings(
        config={_str(name): _str(value) for name, value in config.items()},
        info={_str(name): value for name, value in info.items()},
    )


class DurabilityMonitor:
    """Checks a store again and again. Not durable until the first check has said so."""

    def __init__(self, client: Redis, profile: Profile, every_seconds: float = 10.0) -> None:
        self._client = client
        self._profile = profile
        self._every_seconds = every_seconds
        self._advice: tuple[str, ...] = ()
        self.reasons: tuple[str, ...] = ("the store was not checked yet",)
        self._logged: tuple[str, ...] = ()

    @property
    def durable(self) -> bool:
        return not self.reasons

    async def check(self) -> None:
        """Look once. A store that cannot be examined falls short; nothing is raised."""
        try:
            settings = await read_settings(self._client)
        except (RedisError, OSError) as error:
            # The text of a foreign error may name addresses; its kind is enough here.
            self._note((f"the store cannot be examined ({type(error).__name__})",))
            return
        self._note(shortfalls(settings.config, settings.info, profile=self._profile))
        self._advise(advice(settings.info))

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
        if given and given != self._advice:
            log.warning("durability.advised", advice=list(given))
        self._advice = given


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

"""The function library: its source, its version, loading it, calling it.

One function per verb, one file each in `lua/`. A file's header comment states KEYS, ARGV,
REPLIES and FLAGS; the loader refuses a file without them and a call with another number of
keys. Functions of different library versions live side by side, so that servers of two
releases can share a store while one replaces the other.
"""

import asyncio
import re
import secrets
from collections.abc import Callable, Sequence
from functools import cache
from importlib import resources
from itertools import count
from typing import Any

import structlog
from msgspec import Struct
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from indelible_server.store.batching import BatchingRedis
from indelible_server.store.cluster import Cluster, primaries
from indelible_server.store.connection import (
    distrust,
    end_tasks,
    read_refusal,
    store_answer,
    write_outcome,
    write_refusal,
)
from indelible_server.store.errors import OutcomeUnknown, Refusal, StoreUnavailable

log = structlog.get_logger(__name__)

LOAD_PAUSE_SECONDS = 0.5

LIBRARY_VERSION = 1
LIBRARY = f"indelible_{LIBRARY_VERSION}"
_SHARED = ("log", "answers", "news", "webhook", "archived")
_VERBS = (
    "commit",
    "recall",
    "create",
    "bind",
    "list",
    "delete",
    "materialize",
    "snapshot_write",
    "snapshot_list",
    "recent",
    "current",
    "cover",
    "forget",
    "forget_floor",
    "forget_trim",
    "forget_segment",
    "forget_sweep",
    "forget_end",
    "archive_note",
    "archive_segment",
    "archive_parts",
    "archive_drop",
    "archive_garbage",
    "archive_cleared",
    "webhook_register",
    "webhook_claim",
    "webhook_renew",
    "webhook_offer",
    "webhook_settle",
    "webhook_skip",
    "webhook_change",
    "webhook_add",
    "webhook_replay",
)
_HEADER = re.compile(r"^-- (KEYS|ARGV|REPLIES|FLAGS):(.*)$", re.MULTILINE)


class Function(Struct, frozen=True):
    """A verb as registered in the store: its full name and how many keys it takes."""

    name: str
    key_count: int
    writes: bool


@cache
def source() -> tuple[str, dict[str, Function]]:
    """The library's Lua, and its functions by verb.

    Raises:
        ValueError: a verb's file does not state KEYS, ARGV, REPLIES and FLAGS.
    """
    folder = resources.files("indelible_server.store") / "lua"
    pieces = [f"#!lua name={LIBRARY}"]
    functions = {}
    for verb in (*_SHARED, *_VERBS):
        text = (folder / f"{verb}.lua").read_text()
        pieces.append(text)
        if verb in _SHARED:
            continue
        header = {name: value.split() for name, value in _HEADER.findall(text)}
        missing = {"KEYS", "ARGV", "REPLIES", "FLAGS"} - set(header)
        if missing:
            raise ValueError(f"{verb}.lua does not state {', '.join(sorted(missing))}")
        name = f"indelible_{LIBRARY_VERSION}_{verb}"
        flags = ", ".join(f"'{flag}'" for flag in header["FLAGS"])
        pieces.append(
            f"redis.register_function{{function_name='{name}', callback={verb}, flags={{{flags}}}}}"
        )
        functions[verb] = Function(name, len(header["KEYS"]), "no-writes" not in header["FLAGS"])
    return "\n".join(pieces) + "\n", functions


async def load(redis: Redis) -> None:
    """Loads the library, on each primary of a cluster, unless this very source is there already.

    A primary that is away gets it when it is back: `call` finds out.

    Raises:
        StoreUnavailable: on none of them; it is absent or another text, and this user may not
            load it.
    """
    async with store_answer():
        nodes = await primaries(redis)
    loads = await asyncio.gather(*map(_load_on, nodes), return_exceptions=True)
    failures = [error for error in loads if error is not None]
    if len(failures) == len(nodes):
        raise failures[0]


async def _load_on(redis: Redis) -> None:
    lua, _ = source()
    async with store_answer():
        found = await redis.execute_command("FUNCTION LIST", "LIBRARYNAME", LIBRARY, "WITHCODE")
        if found and lua.encode() in _flat(found):
            return
    try:
        await redis.execute_command("FUNCTION LOAD", "REPLACE", lua)
    except ResponseError as error:
        raise StoreUnavailable(
            f"the function library {LIBRARY} is not loaded and may not be ({error})"
        ) from error
    except (RedisError, OSError) as error:
        raise StoreUnavailable(type(error).__name__) from error


async def loaded_unless(stop: asyncio.Event, redis: Redis) -> bool:
    """Keeps loading the library, and gives up once `stop` is set: then False."""
    loading = asyncio.create_task(keep_loading(redis))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({loading, stopping}, return_when=asyncio.FIRST_COMPLETED)
    await end_tasks(loading, stopping)
    return not stop.is_set()


async def keep_loading(redis: Redis) -> None:
    """Loads the library, however long the store takes to come up."""
    told = ""
    while True:
        try:
            await load(redis)
            break
        except Refusal as refusal:
            if refusal.message != told:
                told = refusal.message
                log.warning("functions.not_loaded", reason=told)
            await asyncio.sleep(LOAD_PAUSE_SECONDS)
    log.info("functions.loaded", library=LIBRARY)


def _flat(value: object) -> list[bytes]:
    if isinstance(value, bytes):
        return [value]
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, (list, tuple)):
        return [piece for item in value for piece in _flat(item)]
    return []


Argument = bytes | str | int
Reply = list[bytes | int]


async def call(
    redis: Redis, verb: str, keys: Sequence[str], arguments: Sequence[Argument]
) -> tuple[str, Reply]:
    """Calls a verb once; the reply's first word and the rest.

    Never again, but for a node that does not know it: it is given the library, and asked then.

    Every call carries a fresh nonce that the reply must echo, so that an answer to somebody
    else's call can never be taken for this one's.

    Raises:
        OutcomeUnknown: a write was sent and its answer is lost or another's.
        StoreUnavailable: nothing was done.
        Refusal: STORAGE_FULL where memory or disk is full; nothing was done.
    """
    function = source()[1][verb]
    nonce, command = _command(function, keys, arguments)
    async with write_outcome() if function.writes else store_answer():
        try:
            reply = await redis.execute_command(*command)
        except ResponseError as error:
            if not _is_unknown_there(error):
                raise
            await load(redis)
            reply = await redis.execute_command(*command)
    if not _is_of(nonce, reply):
        await distrust(redis)
        raise OutcomeUnknown(_ANOTHERS)
    return reply[1].decode(), reply[2:]


def ask(
    redis: BatchingRedis | Cluster,
    verb: str,
    keys: Sequence[str],
    arguments: Sequence[Argument],
    deliver: Callable[[tuple[str, Reply] | Refusal], None],
) -> None:
    """`call` without a task: `deliver` gets what it returns or raises.

    It is called once, whatever becomes of who asked, and must not raise.
    """
    function = source()[1][verb]
    nonce, command = _command(function, keys, arguments)

    def delivered(reply: Any) -> None:
        if isinstance(reply, ResponseError) and _is_unknown_there(reply):
            task = asyncio.ensure_future(_load_and_call(redis, verb, keys, arguments, deliver))
            _loading.add(task)
            task.add_done_callback(_loading.discard)
        elif isinstance(reply, Exception):
            deliver(write_refusal(reply) if function.writes else read_refusal(reply))
        elif _is_of(nonce, reply):
            deliver((reply[1].decode(), reply[2:]))
        else:
            redis.abandon()
            deliver(OutcomeUnknown(_ANOTHERS))

    redis.begin(command, delivered)


_loading: set["asyncio.Task[None]"] = set()


async def _load_and_call(
    redis: Redis,
    verb: str,
    keys: Sequence[str],
    arguments: Sequence[Argument],
    deliver: Callable[[tuple[str, Reply] | Refusal], None],
) -> None:
    outcome: tuple[str, Reply] | Refusal
    try:
        await load(redis)
        outcome = await call(redis, verb, keys, arguments)
    except Refusal as refusal:
        outcome = refusal
    deliver(outcome)


def _is_unknown_there(error: ResponseError) -> bool:
    """A node that joined the cluster after our start: nothing was done there."""
    return "Function not found" in str(error)


_ANOTHERS = "an answer to another call came back"
_process = secrets.token_bytes(4)
_numbers = count(secrets.randbelow(1 << 32))


def _command(
    function: Function, keys: Sequence[str], arguments: Sequence[Argument]
) -> tuple[bytes, tuple[Argument, ...]]:
    """A nonce, which no other call of any process has but by a chance of one in 2^32, and the
    command that brings it."""
    assert len(keys) == function.key_count, f"{function.name} takes {function.key_count} keys"
    nonce = _process + (next(_numbers) & 0xFFFF_FFFF).to_bytes(4, "big")
    word = "FCALL" if function.writes else "FCALL_RO"
    return nonce, (word, function.name, len(keys), *keys, nonce, *arguments)


def _is_of(nonce: bytes, reply: Any) -> bool:
    return isinstance(reply, list) and bool(reply) and reply[0] == nonce

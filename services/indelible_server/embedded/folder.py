"""The data folder of an embedded engine: its locks, its records, the place of its socket.

Owns every file beside the engine's own and turns the system's refusals into sentences that
say what to do. Starts no process and speaks to none.
"""

import errno
import fcntl
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from msgspec import Struct

# The smallest sun_path of the systems we run on (macOS), its final NUL included.
MAX_SOCKET_PATH_BYTES = 104
MAX_LOG_BYTES = 1 << 20
_SOCKET_DIR_PREFIX = "indelible-"
_ADVICE = {
    errno.EACCES: "give this user the right to write there, or choose another folder",
    errno.EPERM: "give this user the right to write there, or choose another folder",
    errno.EROFS: "it is mounted read-only; choose another folder",
    errno.ENOSPC: "free some space on that disk, or choose another folder",
    errno.EDQUOT: "free some of this user's quota, or choose another folder",
    errno.EEXIST: "it is a file; name a folder",
    errno.ENOTDIR: "a part of that path is a file; name a folder",
    errno.ENAMETOOLONG: "choose a shorter path",
    errno.ENOLCK: "it needs a file system with locks; choose a folder on a local disk",
    errno.EOPNOTSUPP: "it needs a file system with locks; choose a folder on a local disk",
    errno.ENOSYS: "it needs a file system with locks; choose a folder on a local disk",
}


class EngineError(Exception):
    """The embedded engine cannot be had. The text says why, and what to do about it."""


class RecordedEngine(Struct, frozen=True, kw_only=True):
    """What `ENGINE` says: the engine that wrote the folder, or a newer one that read it."""

    name: str
    version: str


@contextmanager
def usable(path: Path) -> Iterator[None]:
    """Turns an `OSError` met inside into an `EngineError` about `path`."""
    try:
        yield
    except OSError as error:
        raise EngineError(unusable(path, error)) from error


def unusable(path: Path, error: OSError) -> str:
    reason = os.strerror(error.errno).lower() if error.errno else str(error)
    advice = _ADVICE.get(error.errno or 0, "choose another folder")
    return f"{path} cannot be used as a data folder ({reason}): {advice}."


class DataFolder:
    """The files described in the package's docstring. Every method may raise `EngineError`."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.store = self.path / "store"
        self.log = self.path / "engine.log"
        self._owner_lock = self.path / "owner.lock"
        self._engine_lock = self.path / "engine.lock"
        self._engine_record = self.path / "ENGINE"
        self._socket_record = self.path / "socket"

    def make(self) -> None:
        """Make what is missing. What the engine writes is for this user's eyes alone."""
        with usable(self.path):
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.store.mkdir(mode=0o700, exist_ok=True)
            self.store.chmod(0o700)

    # Locks. A descriptor that is returned holds its lock until it is closed, here and in
    # every process that inherited it.

    def take_owner_lock(self) -> int:
        """The lock of the one process that supervises; never inherited."""
        with usable(self.path):
            held = _take(self._owner_lock)
        if held is None:
            raise EngineError(
                f"{self.path} is in use by {_holder(self._owner_lock)}: "
                "stop that one first, or choose another folder."
            )
        sign_lock(held, os.getpid())
        return held

    def take_engine_lock(self) -> int | None:
        """The lock that an engine inherits; None while one lives (or a child that it forked)."""
        with usable(self.path):
            return _take(self._engine_lock)

    def engine_is_gone(self) -> bool:
        held = self.take_engine_lock()
        if held is None:
            return False
        os.close(held)
        return True

    def engine_holder(self) -> str:
        """For a sentence: `process 123`, as far as the lock's file tells."""
        return _holder(self._engine_lock)

    # Records.

    def keeps_its_store_in(self, directory: Path) -> bool:
        with suppress(OSError):
            return self.store.samefile(directory)
        return False

    def recorded_engine(self) -> RecordedEngine | None:
        """None in a new folder."""
        with usable(self.path):
            text = _read(self._engine_record)
            if text is None and not any(self.store.iterdir()):
                return None
        words = (text or "").split()
        if len(words) != 2:
            raise EngineError(
                f"{self._engine_record} does not tell which engine wrote {self.store}, and another "
                "may load it as empty: put the engine's name and version there, "
                "for example: valkey 9.1.2"
            )
        return RecordedEngine(name=words[0], version=words[1])

    def record_engine(self, engine: RecordedEngine) -> None:
        """Call it before that engine sees the folder: an older one must not see it after."""
        with usable(self.path):
            _write_durably(self._engine_record, f"{engine.name} {engine.version}\n")

    def recorded_socket(self) -> Path | None:
        with usable(self.path):
            text = _read(self._socket_record)
        return Path(text.removesuffix("\n")) if text else None

    # The socket.

    def place_socket(self, runtime_dir: Path | None) -> Path:
        """A path short enough for a socket, in a new folder of mode 700; recorded."""
        digest = hashlib.blake2b(os.fsencode(self.path), digest_size=4).hexdigest()
        prefix = f"{_SOCKET_DIR_PREFIX}{digest}-"
        parents = [Path(tempfile.gettempdir()), Path("/tmp")]  # noqa: S108 - mkdtemp is safe there
        if runtime_dir is not None:
            parents.insert(0, runtime_dir)
        for parent in parents:
            longest = parent / f"{prefix}12345678" / "socket"
            if len(os.fsencode(longest)) >= MAX_SOCKET_PATH_BYTES:
                continue
            try:
                socket = Path(tempfile.mkdtemp(prefix=prefix, dir=parent)) / "socket"
            except OSError:
                continue
            with usable(self.path):
                _write_durably(self._socket_record, f"{socket}\n")
            return socket
        tried = ", ".join(str(parent) for parent in parents)
        raise EngineError(
            f"there is no place for the engine's socket (tried {tried}): "
            "set TMPDIR to a folder with a short path that this user may write."
        )

    def renew_socket(self, socket: Path) -> None:
        """Make the socket's folder again if something removed it (a cleaner of /tmp may)."""
        parent = socket.parent
        with usable(self.path):
            parent.mkdir(mode=0o700, exist_ok=True)
            found = parent.lstat()
            _write_durably(self._socket_record, f"{socket}\n")
        ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
        if not ours or stat.S_IMODE(found.st_mode) & 0o077:
            raise EngineError(f"{parent} belongs to someone else or is open to others: remove it.")

    def is_there(self, socket: Path) -> bool:
        return socket.is_socket()

    def discard_socket(self) -> None:
        """Remove the recorded socket, its folder and the record, unless they are not ours."""
        socket = self.recorded_socket()
        if socket is None:
            return
        with suppress(OSError):
            if socket.parent.name.startswith(_SOCKET_DIR_PREFIX):
                if socket.is_socket():
                    socket.unlink()
                socket.parent.rmdir()
        with usable(self.path):
            self._socket_record.unlink(missing_ok=True)

    # The log.

    def open_log(self) -> int:
        """A descriptor to append to; a log that has grown becomes `engine.log.1` first."""
        with usable(self.path):
            with suppress(FileNotFoundError):
                if self.log.stat().st_size > MAX_LOG_BYTES:
                    self.log.replace(self.path / "engine.log.1")
            return os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def log_tail(self, since_bytes: int, lines: int = 12) -> str:
        """The last lines that were written after the first `since_bytes` bytes."""
        try:
            with self.log.open("rb") as file:
                file.seek(since_bytes)
                text = file.read().decode(errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    def sync_store(self) -> None:
        """Makes durable what a killed engine had written and not yet synced.

        Its successor loads all of it and syncs it only with its own next write; until then
        it would serve, and repeat acknowledgements of, versions that a power cut takes back.
        """
        with usable(self.path):
            for path in (*self.store.rglob("*"), self.store):
                if path.is_file() or path.is_dir():
                    _sync(path)

    def disk_is_full(self) -> bool:
        with usable(self.path):
            found = os.statvfs(self.store)
        return found.f_bavail * found.f_frsize < 64 << 10


def sign_lock(held: int, pid: int) -> None:
    """Write who holds the lock, for the sentences of those who meet it."""
    with suppress(OSError):  # a full disk: the lock holds all the same
        os.ftruncate(held, 0)
        os.pwrite(held, f"{pid}\n".encode(), 0)


def _take(path: Path) -> int | None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _holder(path: Path) -> str:
    with suppress(OSError):
        pid = path.read_text().strip()
        if pid.isdecimal():
            return f"process {pid}"
    return "another process"


def _read(path: Path) -> str | None:
    try:
        return os.fsdecode(path.read_bytes())
    except FileNotFoundError:
        return None


def _write_durably(path: Path, text: str) -> None:
    """Replace the file as a whole: after a crash it is the old one or the new one."""
    new = path.with_name(path.name + ".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, os.fsencode(text))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    new.replace(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

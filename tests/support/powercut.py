"""Simulates a power cut: after kill -9, a folder keeps only what had reached the disk.

A killed process loses nothing that it had written, because the kernel still holds it; so a
crash test without this model has no teeth. `powercut.c` is preloaded into the engine and
journals what each fsync made durable; `PowerCut.cut` then takes the rest away: bytes beyond
the last synced size, files that were never synced, renames and unlinks whose folder was not.
Knows nothing of engines but that they append.
"""

import random
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("powercut.c")


@dataclass(frozen=True, slots=True, kw_only=True)
class CutReport:
    """What the cut took away."""

    dropped_bytes: int
    cut_files: tuple[str, ...]
    undone: int  # renames and unlinks


@dataclass(frozen=True, slots=True, kw_only=True)
class _Move:
    """A rename (`inode` from `old` to `path`) or, without `old`, an unlink of `path`."""

    path: Path
    saved: str
    offset: int
    old: Path | None = None
    inode: int = 0


@dataclass(slots=True)
class _Durable:
    """What the journal says has reached the disk."""

    sizes: dict[int, int] = field(default_factory=dict)  # by inode
    named: set[int] = field(default_factory=set)
    moves: list[_Move] = field(default_factory=list)  # in order
    settled_moves: int = 0  # so many of them, counted from the first, are durable


class PowerCut:
    """Watches `root` through the environment `env`, which the engine must be started with.

    `work` is a folder of the cut's own, outside `root` on the same file system.
    """

    def __init__(self, library: Path, root: Path, work: Path) -> None:
        self._root = root.resolve()
        self._journal = work.resolve() / "journal"
        self._saved = work.resolve() / "saved"
        self._stall = work.resolve() / "stall"
        self._library = library
        assert not self._journal.is_relative_to(self._root)
        self._root.mkdir(parents=True, exist_ok=True)
        work.mkdir(parents=True, exist_ok=True)
        self._power_on()

    @property
    def env(self) -> Mapping[str, str]:
        return {
            "LD_PRELOAD": str(self._library),
            "POWERCUT_ROOT": str(self._root),
            "POWERCUT_JOURNAL": str(self._journal),
            "POWERCUT_SAVED": str(self._saved),
            "POWERCUT_STALL": str(self._stall),
        }

    @contextmanager
    def stalled_disk(self) -> Iterator[None]:
        """Inside, no fsync returns: what is written is visible and not durable."""
        self._stall.touch()
        try:
            yield
        finally:
            self._stall.unlink()

    def cut(self, rng: random.Random) -> CutReport:
        """Takes away what was not durable. The engine must be dead (kill -9) already.

        Where a real cut leaves either of two things, `rng` decides.

        Raises:
            RuntimeError: nothing was journalled, so the library was not loaded.
        """
        durable = self._read_journal()
        undone = self._undo_moves(durable, rng)
        dropped, cut_files = 0, []
        for path in self._files():
            status = path.stat()
            size = durable.sizes.get(status.st_ino, 0)
            is_named = status.st_ino in durable.sizes or status.st_ino in durable.named
            if not is_named and rng.random() < 0.5:
                path.unlink()
            elif status.st_size > size:
                with path.open("r+b") as file:
                    file.truncate(size)
            else:
                continue
            dropped += status.st_size - size
            cut_files.append(path.name)
        self._power_on()
        return CutReport(dropped_bytes=dropped, cut_files=tuple(cut_files), undone=undone)

    def _power_on(self) -> None:
        """All that is in `root` now is durable."""
        shutil.rmtree(self._saved, ignore_errors=True)
        self._saved.mkdir()
        lines = []
        for path in self._files():
            status = path.stat()
            lines.append(f"S\t{status.st_ino}\t{status.st_size}\n")
        self._journal.write_text("".join(lines))
        self._journalled_at_start = self._journal.stat().st_size

    def _files(self) -> list[Path]:
        """Regular files that the cut may touch; the engine's own log stays for its reader."""
        return [
            path
            for path in sorted(self._root.rglob("*"))
            if stat.S_ISREG(path.lstat().st_mode) and path.suffix != ".log"
        ]

    def _lines(self) -> Iterator[tuple[int, list[str]]]:
        offset = 0
        for line in self._journal.read_bytes().splitlines(keepends=True):
            yield offset, line.decode().rstrip("\n").split("\t")
            offset += len(line)

    def _read_journal(self) -> _Durable:
        if self._journal.stat().st_size == self._journalled_at_start:
            raise RuntimeError("nothing was synced: was the engine started with `env`?")
        durable = _Durable()
        for offset, fields in self._lines():
            match fields:
                case ["S", inode, size]:
                    # The larger: two threads may journal in the other order than they synced.
                    known = durable.sizes.get(int(inode), 0)
                    durable.sizes[int(inode)] = max(known, int(size))
                case ["E", inode]:
                    durable.named.add(int(inode))
                case ["R", saved, inode, old, new]:
                    durable.moves.append(
                        _Move(
                            path=Path(new),
                            saved=saved,
                            offset=offset,
                            old=Path(old),
                            inode=int(inode),
                        )
                    )
                case ["U", saved, path]:
                    durable.moves.append(_Move(path=Path(path), saved=saved, offset=offset))
                case ["D", until, folder]:
                    _settle(durable, Path(folder), int(until))
                case _:
                    raise RuntimeError(f"the journal holds {fields}")
        return durable

    def _undo_moves(self, durable: _Durable, rng: random.Random) -> int:
        """File systems journal names in order: a cut keeps the first so many moves."""
        kept = rng.randint(durable.settled_moves, len(durable.moves))
        undone = 0
        for move in reversed(durable.moves[kept:]):
            if move.old is not None:
                if not move.path.exists() or move.path.stat().st_ino != move.inode:
                    continue  # announced, not done
                move.path.rename(move.old)
            if move.saved != "-" and not move.path.exists():
                (self._saved / move.saved).rename(move.path)
            undone += 1
        return undone


def _settle(durable: _Durable, folder: Path, until: int) -> None:
    for number, move in enumerate(durable.moves, 1):
        if move.path.parent == folder and move.offset < until:
            durable.settled_moves = max(durable.settled_moves, number)


@pytest.fixture(scope="session")
def powercut_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`powercut.c`, compiled for this run."""
    compiler = shutil.which("gcc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("simulated power cuts need Linux (LD_PRELOAD) and gcc")
    library = tmp_path_factory.mktemp("powercut") / "powercut.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", library, SOURCE, "-ldl"],
        check=True,
    )
    return library

"""Small private files that are there whole or not at all, also after a power cut."""

import os
import tempfile
from pathlib import Path


def write_private(target: Path, data: bytes, *, overwrite: bool) -> None:
    """Writes `target` with mode 0600, through a draft beside it.

    Raises:
        FileExistsError: it is there, and `overwrite` is false.
        OSError: the folder cannot be written to.
    """
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    draft = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:  # mkstemp made it 0600
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            draft.replace(target)
        else:
            os.link(draft, target)  # fails if the target is there, whoever made it meanwhile
    finally:
        draft.unlink(missing_ok=True)
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

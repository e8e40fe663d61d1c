"""Logs to files and back: `export_log`, `import_log`, and `import_from_v1`.

An export is lines of JSON, in clear: the contents of a log, or its whole history. Both ways
take bounded memory, go on where they were after they were killed, and say how far they are.
"""

from pathlib import Path

from indelible import v1
from indelible.client import AsyncClient
from indelible.names import Name
from indelible.transferring.exporting import Exported, OnProgress, Progress, export_log
from indelible.transferring.exports import Export, Heading
from indelible.transferring.importing import Imported, import_original
from indelible.transferring.marks import OfEntries, OfVersion, origin_of
from indelible.transferring.originals import ExportOriginal
from indelible.transferring.v1_logs import V1Mode, V1Original

__all__ = [
    "Export",
    "Exported",
    "Heading",
    "Imported",
    "OfEntries",
    "OfVersion",
    "OnProgress",
    "Progress",
    "V1Mode",
    "export_log",
    "import_from_v1",
    "import_log",
    "origin_of",
]


async def import_log(
    client: AsyncClient,
    source: str | Path | Export,
    name: Name | None = None,
    *,
    group: str | None = None,
    into_existing: bool = False,
    on_progress: OnProgress | None = None,
) -> Imported:
    """Brings an export into the log of this name, or of the one that it was made from.

    The file is read through first: nothing is written of one that is cut off or altered. The
    log is made, in the export's modes, if it is not there; else it must be empty, or hold
    the beginning of this import, which then goes on, or `into_existing` adds entries to what
    it holds. A history becomes commits of its own, one for each that changed something, with
    the source of the original and behind it its version and time; `origin_of` reads them.

    Raises:
        ExportError: no export, or it is cut off or altered.
        ConflictError: the log holds something else, or somebody else writes to it.
        RequestError: the log has other modes.
        VerificationError: in the end the log does not hold what the file does.
    """
    export = source if isinstance(source, Export) else Export(source)
    return await import_original(
        client,
        ExportOriginal(export),
        name,
        group=group,
        into_existing=into_existing,
        on_progress=on_progress,
    )


async def import_from_v1(
    client: AsyncClient,
    original: v1.Log,
    name: Name | None = None,
    *,
    history: bool = False,
    group: str | None = None,
    into_existing: bool = False,
    on_progress: OnProgress | None = None,
) -> Imported:
    """Copies a log of the original client, as it is now, into a sealed one; see `import_log`.

    Its contents, or its `history`: one commit for each version, or several where sealing
    makes it too large for one. Mode `raw` becomes `binary`. Times and sources are kept if the
    service of the original speaks this library's protocol too: its own does not tell them.

    Raises:
        NotFoundError, DeniedError, UnavailableError: of the original's service too.
        UnsealError: the original does not open with its profile, or has other modes.
    """
    return await import_original(
        client,
        await V1Original.of(original, history=history),
        name,
        group=group,
        into_existing=into_existing,
        on_progress=on_progress,
    )

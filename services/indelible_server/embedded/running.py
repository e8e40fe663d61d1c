"""Finding the engine that serves a data folder, without becoming its supervisor."""

from pathlib import Path
from urllib.parse import quote

from indelible_server.embedded.folder import DataFolder, EngineError
from indelible_server.embedded.probe import Condition, condition, working_directory


async def running_engine_url(data_dir: Path) -> str | None:
    """URL of the engine that serves the folder now; None if there is none, or not yet.

    Raises:
        EngineError: the recorded socket leads to an engine on another folder.
    """
    folder = DataFolder(data_dir)
    found = await folders_engine(folder)
    if found is None or found.loading:
        return None
    return socket_url(folder.recorded_socket())


async def folders_engine(folder: DataFolder) -> Condition | None:
    """The engine at the recorded socket, if one answers.

    Raises:
        EngineError: it keeps its files in another folder: its data is another service's.
    """
    socket = folder.recorded_socket()
    if socket is None:
        return None
    found = await condition(socket)
    if found is None:
        return None
    try:
        directory = await working_directory(socket)
    except OSError:
        return None
    if not folder.keeps_its_store_in(directory):
        raise EngineError(f"{socket} leads to an engine on {directory}: stop that one first.")
    return found


def socket_url(socket: Path | None) -> str:
    """As the Redis client reads it, which unquotes the path."""
    return f"unix://{quote(str(socket))}"

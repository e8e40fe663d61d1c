"""Finding the engine that serves a data folder, without becoming its supervisor."""

from pathlib import Path
from urllib.parse import quote

from indelible_server.embedded.folder import DataFolder
from indelible_server.embedded.probe import condition


async def running_engine_url(data_dir: Path) -> str | None:
    """URL of the engine that runs on the folder now; None if there is none."""
    socket = DataFolder(data_dir).recorded_socket()
    if socket is None or await condition(socket) is None:
        return None
    return f"unix://{quote(str(socket))}"

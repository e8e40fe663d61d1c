"""A private engine for one data folder: the store of a service that is given no other.

Owns finding the engine's binary, the folder and its two locks, and the engine's life. Knows
neither the Redis client nor what is kept in the store: to the rest of the server the engine
is a URL.

A data folder holds:

    owner.lock    locked by the process that supervises; holds its pid
    engine.lock   locked by the engine, for exactly as long as it lives; holds its pid
    ENGINE        name and version of the engine whose files are in store/
    socket        path of the engine's unix socket, which must be short and so lies elsewhere
    engine.log    what the engine says; engine.log.1 is the part before
    store/        the engine's own files
"""

from indelible_server.embedded.binaries import EngineBinary
from indelible_server.embedded.engine import EmbeddedEngine
from indelible_server.embedded.folder import EngineError
from indelible_server.embedded.running import running_engine_url

__all__ = ["EmbeddedEngine", "EngineBinary", "EngineError", "running_engine_url"]

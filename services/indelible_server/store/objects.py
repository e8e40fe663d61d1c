"""Where archived bytes lie: a folder, or a bucket of an object store.

An object is named by the log that it belongs to and by the SHA-256 of its bytes: what is read
is checked against its name, so nothing that was altered, cut or swapped is ever taken for it, and
two who put the same thing put it once. Put means durable. Knows nothing of what objects hold.
"""

import asyncio
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from indelible_protocol.errors import ErrorCode
from indelible_protocol.ids import LogId

from indelible_server.store.errors import Refusal, StoreUnavailable

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_RETRY_TIMEOUT = timedelta(seconds=30)
_THREADS = 4
_NAMED_BY = 2  # characters of a name that a folder's folders are called by

T = TypeVar("T")


class LostObject(Refusal):
    """An object is absent, or its bytes are not those that it is named by."""

    def __init__(self, what: str) -> None:
        super().__init__(ErrorCode.INTERNAL_ERROR, f"a piece of the log's archive is {what}")


def name_of(data: bytes) -> str:
    return sha256(data).hexdigest()


class Objects(Protocol):
    async def put(self, log_id: LogId, data: bytes) -> str:
        """Its name, once it is durably there.

        Raises:
            Refusal: OVERLOADED if it may not be: put it again.
        """
        ...

    async def get(self, log_id: LogId, name: str) -> bytes:
        """
        Raises:
            LostObject: it is absent or damaged.
            Refusal: OVERLOADED.
        """
        ...

    async def delete(self, log_id: LogId, name: str) -> None:
        """No matter whether it was there."""
        ...

    async def delete_all(self, log_id: LogId) -> None:
        """What the log has."""
        ...


def objects_at(where: str) -> Objects:
    """A folder's, or with `://` those of a bucket, which the extra `archive` reaches.

    Raises:
        ValueError: the extra is not there, or the address is none.
    """
    if "://" not in where:
        return Folder(Path(where))
    try:
        from obstore.exceptions import BaseError
        from obstore.store import from_url
    except ImportError:
        raise ValueError("an archive in a bucket needs: pip install 'indelible[archive]'") from None
    try:
        return Bucket(
            from_url(
                where,
                client_options={"allow_http": True, "timeout": "30s"},
                retry_config={"max_retries": 2, "retry_timeout": _RETRY_TIMEOUT},
            )
        )
    except (BaseError, ValueError) as error:
        raise ValueError(f"the archive cannot be {where.partition('?')[0]}: {error}") from error


class Folder:
    """Files under `root`, a folder for each log."""

    def __init__(self, root: Path) -> None:
        self._root = root
        # Of its own: a folder that hangs shall not take those in which names are looked up.
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="archive")

    @property
    def root(self) -> Path:
        return self._root

    async def put(self, log_id: LogId, data: bytes) -> str:
        name = name_of(data)
        async with _reached():
            await self._run(self._write, self._path(log_id, name), data)
        return name

    async def get(self, log_id: LogId, name: str) -> bytes:
        async with _reached():
            try:
                data = await self._run(self._path(log_id, name).read_bytes)
            except FileNotFoundError:
                raise LostObject("absent") from None
        return _checked(name, data)

    async def delete(self, log_id: LogId, name: str) -> None:
        async with _reached():
            await self._run(self._unlink, self._path(log_id, name))

    async def delete_all(self, log_id: LogId) -> None:
        def remove() -> None:
            with suppress(FileNotFoundError):
                shutil.rmtree(self._root / log_id.hex())

        async with _reached():
            await self._run(remove)

    async def _run(self, act: Callable[..., T], *arguments: object) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, act, *arguments)

    @staticmethod
    def _unlink(path: Path) -> None:
        path.unlink(missing_ok=True)

    def _path(self, log_id: LogId, name: str) -> Path:
        return self._root / log_id.hex() / name[:_NAMED_BY] / name

    def _write(self, path: Path, data: bytes) -> None:
        """Whole or not at all; one that is there already may be damaged, and is replaced."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
        try:
            with open(draft, "xb", opener=lambda file, flags: os.open(file, flags, 0o600)) as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        # The file's entry, and those of folders that may have been made for it.
        for folder in (path.parent, path.parent.parent, self._root, self._root.parent):
            _sync_folder(folder)


class Bucket:
    """Objects of an object store, which has them durably when it answers."""

    def __init__(self, store: "ObjectStore") -> None:
        self._store = store

    async def put(self, log_id: LogId, data: bytes) -> str:
        name = name_of(data)
        async with self._answered():
            await self._store.put_async(_key(log_id, name), data)
        return name

    async def get(self, log_id: LogId, name: str) -> bytes:
        async with self._answered():
            try:
                answer = await self._store.get_async(_key(log_id, name))
                data = bytes(await answer.bytes_async())
            except FileNotFoundError:  # what obstore's NotFoundError is
                raise LostObject("absent") from None
        return _checked(name, data)

    async def delete(self, log_id: LogId, name: str) -> None:
        async with self._answered():
            with suppress(FileNotFoundError):
                await self._store.delete_async(_key(log_id, name))

    async def delete_all(self, log_id: LogId) -> None:
        async with self._answered():
            async for some in self._store.list(prefix=log_id.hex()):
                for each in some:
                    with suppress(FileNotFoundError):
                        await self._store.delete_async(each["path"])

    @staticmethod
    @asynccontextmanager
    async def _answered() -> AsyncIterator[None]:
        from obstore.exceptions import BaseError

        try:
            yield
        except (BaseError, OSError) as error:
            raise StoreUnavailable(f"the archive failed ({type(error).__name__})") from error


def _key(log_id: LogId, name: str) -> str:
    return f"{log_id.hex()}/{name}"


def _checked(name: str, data: bytes) -> bytes:
    if name_of(data) != name:
        raise LostObject("damaged")
    return data


@asynccontextmanager
async def _reached() -> AsyncIterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreUnavailable(f"the archive failed ({type(error).__name__})") from error


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

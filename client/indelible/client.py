"""The way in: a profile's logs at one service; the asynchronous twin of `blocking.Client`."""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import Self

import nacl.utils
from indelible_protocol import messages
from indelible_protocol.errors import ErrorCode

from indelible.answers import Description, Diff
from indelible.codec import check_version
from indelible.config import Profile, check_transport, tls_context
from indelible.errors import ConflictError, NotFoundError, RequestError, UnsealError
from indelible.following import follow_group, follow_many
from indelible.handle import Handle
from indelible.keyring import Identity, original_name
from indelible.log import AsyncLog, AsyncView, described
from indelible.modes import Mode, ModeName
from indelible.names import Name, name_bytes, name_of
from indelible.notifying import AsyncWebhooks
from indelible.opening import found_log
from indelible.remote import Service
from indelible.transport import Transport

TIMEOUT_SECONDS = 30.0
_LISTED_PAGES = 10  # of logs, looked through to say why a name was not found


class AsyncClient:
    """A connection to the service with one profile's keys. Use as `async with`, or `close`.

    Belongs to the event loop that it is first used in.
    """

    def __init__(
        self,
        profile: Profile | str | Path | None = None,
        *,
        database: str = "default",
        timeout_seconds: float = TIMEOUT_SECONDS,
        ca_file: str | Path | None = None,
        allow_plain_http: bool = False,
    ) -> None:
        """`profile` is one, or where its file is; without it, the file that INDELIBLE_PROFILE
        names, or the user's own.

        `timeout_seconds` is how long each request is tried, retries included. `ca_file`
        holds the only certificates to trust, in place of the system's. `allow_plain_http`
        lets the API key travel in clear to another machine.

        Raises:
            ConfigError: a profile or certificates that cannot be used.
        """
        if not isinstance(profile, Profile):
            profile = Profile.load(profile)
        if not timeout_seconds > 0:
            raise RequestError(f"timeout_seconds is {timeout_seconds}, more than 0 expected")
        check_transport(profile.endpoint_url, allow_plain_http=allow_plain_http)
        encrypted = profile.endpoint_url.startswith("https:")
        self._profile = profile
        self._identity = Identity.from_master_key(profile.master_key)
        self._transport = Transport(
            profile.endpoint_url,
            profile.apikey,
            database=database,
            tls=tls_context(ca_file) if encrypted else None,
        )
        self._service = Service(self._transport, timeout_seconds)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {self._profile.endpoint_url}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends what is under way; the client cannot be used again."""
        await self._transport.close()

    async def log(
        self,
        name: Name,
        *,
        create: bool = False,
        key_mode: ModeName | None = "string",
        value_mode: ModeName | None = "json",
        group: str = "",
    ) -> AsyncLog:
        """The log of this name, a string or a list of strings; made if `create` and absent.

        The name is sealed; `group` is not: it is a label that the service can read and list
        by. The modes say what keys and values are: `string`, `json`, `msgpack` or `binary`.
        They belong to the log; None takes those that it has.

        Raises:
            NotFoundError: there is none, and `create` is false.
            ConflictError: it is in another group.
            RequestError: it has other modes.
            VerificationError: the service answered with something that is not this log.
        """
        data = name_bytes(name)
        wanted_key_mode = None if key_mode is None else Mode.named(key_mode)
        wanted_value_mode = None if value_mode is None else Mode.named(value_mode)
        token = self._identity.name_token(data)
        try:
            opened = await self._service.opened(token)
        except NotFoundError as error:
            if not create:
                absent = NotFoundError(
                    await self._absence(name, data), code=error.code, request_id=error.request_id
                )
                absent.add_note("create=True makes it")
                raise absent from None
            genesis = found_log(
                self._identity,
                data,
                wanted_key_mode or Mode.STRING,
                wanted_value_mode or Mode.JSON,
                now_ms=time.time_ns() // 1_000_000,
                random_bytes=nacl.utils.random,
            )
            opened = await self._service.create(token, genesis, group)
        handle = Handle(self._service, self._identity, data, opened)
        _check_modes(handle, wanted_key_mode, wanted_value_mode)
        if (create or group) and group != handle.group:
            raise ConflictError(
                f"the log {name!r} is in group {handle.group!r}, not {group!r}",
                code=ErrorCode.LOG_EXISTS,
            )
        return AsyncLog(handle)

    def logs(self, *, group: str | None = None) -> AsyncView[Description]:
        """Every log of the database, or of one group; oldest first."""

        async def pages() -> AsyncIterator[list[Description]]:
            async for page in self._service.logs(group):
                yield [described(description, self._name_in(description)) for description in page]

        return AsyncView(pages)

    async def follow_many(
        self,
        logs: Mapping[AsyncLog, int | None],
        *,
        max_wait_seconds: float | None = None,
    ) -> AsyncGenerator[tuple[AsyncLog, Diff | None], None]:
        """Every change of up to 10,000 logs, as it comes, over one connection.

        `logs` gives for each the version after which to begin, or None for the current one.
        Each diff comes with its log; for each log alone they are without gap or repetition, as
        `follow`'s are. None in place of a diff: the log was dropped, and is not followed any
        more. Goes on through restarts of the service and lost connections; ends when nothing
        came for `max_wait_seconds`, without it never.

        Raises:
            RequestError: too many logs.
        """
        for version in logs.values():
            if version is not None:
                check_version(version, "after")
        moves = follow_many(self._service, self._identity, logs, max_wait_seconds)
        async with aclosing(moves):
            async for move in moves:
                yield move

    async def follow_group(
        self,
        group: str,
        *,
        after: Mapping[str, int] | None = None,
        from_start: bool = False,
        max_wait_seconds: float | None = None,
    ) -> AsyncGenerator[tuple[AsyncLog, Diff | None], None]:
        """As `follow_many`, for the logs of a group; one that is made later appears by itself.

        `after` gives versions by `log_id`, of logs that were followed before. The others begin
        at their current version, or with `from_start` at their first; one that is made later
        always at its first. Logs that this profile cannot open are left out.

        Raises:
            RequestError: more than 10,000 logs in the group.
        """
        for version in (after or {}).values():
            check_version(version, "after")
        moves = follow_group(
            self._service, self._identity, group, after or {}, from_start, max_wait_seconds
        )
        async with aclosing(moves):
            async for move in moves:
                yield move

    @property
    def webhooks(self) -> AsyncWebhooks:
        """URLs that the service tells of new versions: made, listed, mended."""
        return AsyncWebhooks(self._service, self._opened)

    async def _opened(self, name: Name) -> AsyncLog:
        """In the modes that it has."""
        return await self.log(name, key_mode=None, value_mode=None)

    def _name_in(self, description: messages.Description) -> Name | None:
        """None for a name that another master key sealed."""
        try:
            if description.kind == "opaque":
                return description.name.decode()
            return name_of(self._identity.open_name(description.name, description.name_ct))
        except (UnsealError, ValueError):
            return None

    async def _absence(self, name: Name, data: bytes) -> str:
        """Why there is no such log, as far as it can be said.

        An opaque log of this name is looked for in the listing, not asked for by name: the
        service is not to learn a name that may be a sealed log's.
        """
        if isinstance(name, str):
            theirs = {data, original_name(self._profile.master_key, data)}
        else:
            theirs = {original_name(self._profile.master_key, data)}
        pages = 0
        async for page in self._service.logs(None):
            if any(each.kind == "opaque" and each.name in theirs for each in page):
                return (
                    f"{name!r} is an opaque log, made through the original API: open it with "
                    "indelible.v1.Log"
                )
            pages += 1
            if pages == _LISTED_PAGES:
                break
        return f"there is no log {name!r} for this profile"


def _check_modes(handle: Handle, key_mode: Mode | None, value_mode: Mode | None) -> None:
    has = (handle.membership.key_mode, handle.membership.value_mode)
    wanted = (key_mode or has[0], value_mode or has[1])
    if wanted != has:
        raise RequestError(
            f"the log {handle.name!r} has key_mode={has[0].word!r} and "
            f"value_mode={has[1].word!r}, not {wanted[0].word!r} and {wanted[1].word!r}"
        )

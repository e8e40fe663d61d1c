"""One attempt: one POST, one bounded answer, one deadline.

Follows no redirect, asks no proxy, keeps no cookie, opens nothing compressed. Knows nothing
of webhooks, signatures or schedules.
"""

import asyncio
import socket
import ssl
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from types import TracebackType

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from msgspec import Struct

from indelible_server.webhooks.addresses import AddressRefused, guard

MAX_ANSWER_BYTES = 64 << 10
IDLE_SECONDS = 1.5  # shorter than receivers keep theirs: a connection that dies loses an attempt
RESOLVER_THREADS = 64
USER_AGENT = f"Indelible-Webhooks/{version('indelible')}"


class Answer(Struct, frozen=True, kw_only=True):
    """`status` None: none came, `error` says why in words of ours. `body` is its beginning."""

    status: int | None
    took_ms: int
    body: bytes = b""
    error: str | None = None
    retry_after_seconds: float | None = None
    refused: bool = False  # the address was; nothing was connected


class Resolver(AbstractResolver):
    """The system's, on threads of its own: names that do not resolve hold up nobody else."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(RESOLVER_THREADS, "webhook-names")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await asyncio.get_running_loop().run_in_executor(
            self._threads,
            lambda: socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM),
        )
        return [
            ResolveResult(
                hostname=host,
                host=str(place[0]),
                port=port,
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST,
            )
            for kind, _, protocol, _, place in found
        ]

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


class Sender:
    """`allow_private`: http, and addresses that are not public; for tests and closed networks."""

    def __init__(
        self,
        *,
        seconds: float,
        allow_private: bool = False,
        resolver: AbstractResolver | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._seconds = seconds
        self._schemes = ("https", "http") if allow_private else ("https",)
        self._connector = aiohttp.TCPConnector(
            resolver=resolver or Resolver(),
            ttl_dns_cache=10,
            limit=0,  # attempts are bounded by who calls
            keepalive_timeout=IDLE_SECONDS,
            socket_factory=None if allow_private else guard,
            ssl=tls or True,
        )
        self._session = aiohttp.ClientSession(
            connector=self._connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None),
            headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
        )

    async def __aenter__(self) -> "Sender":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._session.close()

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Ends within the deadline, with an answer or the reason why there is none."""
        started = time.monotonic()

        def failed(error: str, *, refused: bool = False) -> Answer:
            took_ms = round((time.monotonic() - started) * 1_000)
            return Answer(status=None, took_ms=took_ms, error=error, refused=refused)

        if url.partition(":")[0].lower() not in self._schemes:
            return failed("https expected", refused=True)
        try:
            async with (
                asyncio.timeout(self._seconds),
                self._session.post(
                    url, data=body, headers=headers, allow_redirects=False
                ) as response,
            ):
                beginning = await _beginning(response)
                return Answer(
                    status=response.status,
                    took_ms=round((time.monotonic() - started) * 1_000),
                    body=beginning,
                    retry_after_seconds=_retry_after(response.headers.get("Retry-After")),
                )
        except TimeoutError:
            return failed(f"no answer within {self._seconds:g} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if _is_refused(error):
                return failed("webhooks may not lead to this address", refused=True)
            return failed(_reason(error))


async def _beginning(response: aiohttp.ClientResponse) -> bytes:
    """At most so much of the body; what would follow is not read, and its connection closed."""
    found = bytearray()
    async for piece in response.content.iter_any():
        found += piece
        if len(found) > MAX_ANSWER_BYTES:
            response.close()
            break
    return bytes(found[:MAX_ANSWER_BYTES])


def _retry_after(text: str | None) -> float | None:
    """Seconds or a date (RFC 9110, 10.2.3); None for neither."""
    if text is None or len(text) > 40:
        return None
    if text.isascii() and text.isdecimal():
        return float(text)
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    return max(0.0, (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _is_refused(error: BaseException) -> bool:
    """Several addresses of a name fail together: then it is told if one of them was refused."""
    seen: list[BaseException | None] = [error]
    while seen:
        each = seen.pop()
        if each is None:
            continue
        if isinstance(each, AddressRefused):
            return True
        if isinstance(each, aiohttp.ClientConnectorError):
            seen.append(each.os_error)
        if isinstance(each, BaseExceptionGroup):
            seen += each.exceptions
        seen.append(each.__cause__)
    return "webhooks may not lead" in str(error)


def _reason(error: BaseException) -> str:
    """What went wrong, without a library's words: they hold addresses that names resolved to."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "the name does not resolve"
    if isinstance(error, aiohttp.ClientSSLError):
        return "no trusted TLS connection"
    if isinstance(error, aiohttp.ClientConnectorError):
        return "no connection"
    if isinstance(error, aiohttp.InvalidURL):
        return "no URL that can be called"
    if isinstance(error, (aiohttp.ServerDisconnectedError, ConnectionError)):
        return "the connection was lost"
    if isinstance(error, aiohttp.ClientResponseError):
        return "the answer is no HTTP"
    return type(error).__name__

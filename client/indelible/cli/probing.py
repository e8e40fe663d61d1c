"""What `doctor` looks at, one finding a check. Speaks HTTP by the standard library alone, so that
what it finds does not depend on what it examines.
"""

import http.client
import json
import os
import platform
import shlex
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from urllib.parse import urlsplit

from indelible_protocol import paths

from indelible.cli.options import Common
from indelible.config import Profile, check_transport, profile_path, tls_context
from indelible.errors import ConfigError

_CLOCK_SECONDS = 5.0
_SECONDS = 5.0
_RENEW_DAYS = 14
_LIBRARIES = ("indelible", "aiohttp", "cyclopts", "msgpack", "msgspec", "pynacl", "rich")
_SERVE = "start the service (indelible-server all --data DIR), or set endpoint_url right"


@dataclass(frozen=True, slots=True)
class Finding:
    """`fix` is empty where nothing needs mending."""

    what: str
    ok: bool
    seen: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class _Answer:
    """`at` is when it came, in seconds since the epoch."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    at: float
    took_ms: float


class Probe:
    def __init__(self, common: Common) -> None:
        self._common = common
        self._profile: Profile | None = None
        self._alive: _Answer | None = None

    def libraries(self) -> Finding:
        """What runs here, and all that it needs."""
        seen, absent = [f"Python {platform.python_version()}"], []
        for name in _LIBRARIES:
            try:
                seen.append(f"{name} {version(name)}")
            except PackageNotFoundError:
                absent.append(name)
        if absent:
            fix = "install them again: python -m pip install --force-reinstall indelible"
            return Finding("libraries", False, f"absent: {', '.join(absent)}", fix)
        return Finding("libraries", True, ", ".join(seen))

    def profile(self) -> Finding:
        """There is one, only its owner can read it, and it has the four members."""
        path = profile_path(self._common.profile)
        try:
            self._profile = Profile.load(path)
        except ConfigError as error:
            return Finding("profile", False, str(error), _fix_of_profile(path))
        who = f"for {self._profile.customer_id}"
        if os.name == "posix":
            who += f", mode {path.stat().st_mode & 0o777:03o}"
        return Finding("profile", True, f"{path}, {who}")

    def transport(self) -> Finding:
        """Nobody between here and the service reads along."""
        assert self._profile is not None
        url = self._profile.endpoint_url
        try:
            check_transport(url, allow_plain_http=self._common.allow_plain_http)
            if not url.startswith("https:"):
                allowed = self._common.allow_plain_http
                why = "as --allow-plain-http says" if allowed else "and none needed on one machine"
                return Finding("TLS", True, f"none, {why}")
            tls_context(self._common.ca_file)
            with self._connected() as connection:
                assert isinstance(connection.sock, ssl.SSLSocket)
                return _finding_of_tls(connection.sock)
        except ConfigError as error:
            fix = "use https://; or give another --ca-file, or --allow-plain-http"
            return Finding("TLS", False, str(error), fix)
        except ssl.SSLError as error:
            said = getattr(error, "verify_message", "") or error.reason or str(error)
            fix = (
                "the port must speak TLS; if its certificate is of an authority of your own, "
                "name that with --ca-file"
            )
            return Finding("TLS", False, f"{url}: {said}", fix)
        except OSError as error:
            return self._unreachable(error)

    def reachable(self) -> Finding:
        """The service answers at the endpoint."""
        assert self._profile is not None
        endpoint = self._profile.endpoint_url
        try:
            self._alive = self._ask("/livez")
        except (OSError, http.client.HTTPException) as error:
            return self._unreachable(error)
        if self._alive.status != 200:
            seen = f"{endpoint} answers {self._alive.status} on /livez"
            return Finding("endpoint", False, seen, _SERVE)
        seen = f"{endpoint}, {self._alive.took_ms:.1f} ms there and back"
        return Finding("endpoint", True, seen)

    def _unreachable(self, error: Exception) -> Finding:
        assert self._profile is not None
        reason = getattr(error, "strerror", None) or type(error).__name__
        return Finding("endpoint", False, f"{self._profile.endpoint_url}: {reason}", _SERVE)

    def ready(self) -> Finding:
        """Commits would be taken, and what an acknowledgement promises."""
        answer = self._ask("/readyz")
        try:
            state = json.loads(answer.body)
            reasons, durability = "; ".join(state["reasons"]), state["durability"]
        except (ValueError, TypeError, KeyError):
            return Finding("ready", False, f"/readyz answers {answer.status}", _SERVE)
        if answer.status != 200:
            return Finding("ready", False, reasons, "the operator's RUNBOOK.md has each reason")
        return Finding("ready", True, f"durability {durability}")

    def clock(self) -> Finding:
        """This machine and the service agree on the time, as far as a Date header tells."""
        assert self._alive is not None
        date = self._alive.headers.get("Date")
        if date is None:
            return Finding("clock", True, "the service tells no time")
        # The header has whole seconds: on average half a one has passed since.
        offset = self._alive.at - parsedate_to_datetime(date).timestamp() - 0.5
        if abs(offset) <= 1.0:
            return Finding("clock", True, "less than a second from the service's")
        seen = f"{abs(offset):,.0f} s {'ahead of' if offset > 0 else 'behind'} the service's"
        if abs(offset) <= _CLOCK_SECONDS:
            return Finding("clock", True, seen)
        return Finding("clock", False, seen, "set this machine's clock or the service's (NTP)")

    def apikey(self) -> Finding:
        assert self._profile is not None
        answer = self._ask(f"{paths.LOGS}?limit=1", self._profile.apikey)
        if answer.status == 200:
            return Finding("API key", True, "known to the service")
        fix = "see what the service logs under this request"
        if answer.status in (401, 403):
            fix = "ask the operator for another (indelible-server tenant key add), edit the profile"
        return Finding("API key", False, f"the service answers {answer.status}", fix)

    def _ask(self, path: str, apikey: str = "") -> _Answer:
        assert self._profile is not None
        headers = {"Accept": "application/json"}
        if apikey:
            headers |= {"Authorization": f"Bearer {apikey}"}
            headers |= {"Indelible-Database": self._common.database}
        base = urlsplit(self._profile.endpoint_url).path.rstrip("/")
        with self._connected() as connection:
            started = time.perf_counter()
            connection.request("GET", base + path, headers=headers)
            response = connection.getresponse()
            body = response.read(1 << 20)
            took_ms = (time.perf_counter() - started) * 1_000
            return _Answer(response.status, dict(response.headers), body, time.time(), took_ms)

    @contextmanager
    def _connected(self) -> Iterator[http.client.HTTPConnection]:
        assert self._profile is not None
        url = urlsplit(self._profile.endpoint_url)
        assert url.hostname is not None
        connection: http.client.HTTPConnection
        if url.scheme == "https":
            context = tls_context(self._common.ca_file)
            connection = http.client.HTTPSConnection(
                url.hostname, url.port, timeout=_SECONDS, context=context
            )
        else:
            connection = http.client.HTTPConnection(url.hostname, url.port, timeout=_SECONDS)
        with closing(connection):
            connection.connect()
            yield connection


def _fix_of_profile(path: Path) -> str:
    if not path.exists():
        return "make one: indelible init --credentials FILE (FILE comes from the operator)"
    if path.is_file() and path.stat().st_mode & 0o077:
        return f"chmod 600 {shlex.quote(str(path))}"
    return "set that right, or take the copy that you keep: its master key opens your logs"


def _finding_of_tls(socket: ssl.SSLSocket) -> Finding:
    """Of a connection whose certificate was verified."""
    certificate = socket.getpeercert() or {}
    ends = ssl.cert_time_to_seconds(str(certificate["notAfter"]))
    days = (ends - time.time()) / 86_400
    seen = f"{socket.version()}, the certificate is good for {days:,.0f} days"
    if days < _RENEW_DAYS:
        return Finding("TLS", False, seen, "ask the operator to renew it")
    return Finding("TLS", True, seen)

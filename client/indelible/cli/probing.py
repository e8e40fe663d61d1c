"""What `doctor` looks at, one finding a check. Speaks HTTP by the standard library alone, so that
what it finds does not depend on what it examines.
"""

import http.client
import json
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from indelible_protocol import paths

from indelible.cli.options import Common
from indelible.config import Profile, check_transport, profile_path, tls_context
from indelible.errors import ConfigError, IndelibleError

_CLOCK_SECONDS = 5.0
_SECONDS = 5.0
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
    status: int
    headers: Mapping[str, str]
    body: bytes
    took_ms: float


class Probe:
    def __init__(self, common: Common) -> None:
        self._common = common
        self._profile: Profile | None = None
        self._alive: _Answer | None = None

    def profile(self) -> Finding:
        """There is one, only its owner can read it, and it has the four members."""
        try:
            self._profile = Profile.load(self._common.profile)
        except ConfigError as error:
            return Finding(
                "profile",
                False,
                str(error),
                "make one with: indelible init --credentials FILE (FILE comes from the operator)",
            )
        where = profile_path(self._common.profile)
        return Finding("profile", True, f"{where}, for {self._profile.customer_id}")

    def reachable(self) -> Finding:
        """Something answers at the endpoint, over TLS where it should."""
        assert self._profile is not None
        endpoint = self._profile.endpoint_url
        try:
            self._alive = self._ask("/livez")
        except IndelibleError as error:
            return Finding("endpoint", False, str(error), "use https://, or --allow-plain-http")
        except ssl.SSLError as error:
            return Finding(
                "endpoint",
                False,
                f"{endpoint}: {error.reason or error}",
                "give the service's certificate authority with --ca-file; check that the port "
                "speaks TLS",
            )
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            return Finding("endpoint", False, f"{endpoint}: {reason}", _SERVE)
        if self._alive.status != 200:
            seen = f"{endpoint} answers {self._alive.status} on /livez"
            return Finding("endpoint", False, seen, _SERVE)
        return Finding("endpoint", True, f"{endpoint}, {self._alive.took_ms:.1f} ms there and back")

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
        offset = time.time() - parsedate_to_datetime(date).timestamp()
        seen = f"{offset:+.0f} s against the service"
        if abs(offset) <= _CLOCK_SECONDS:
            return Finding("clock", True, seen)
        return Finding("clock", False, seen, "set this machine's clock or the service's (NTP)")

    def apikey(self) -> Finding:
        assert self._profile is not None
        answer = self._ask(f"{paths.LOGS}?limit=1", self._profile.apikey)
        if answer.status == 200:
            return Finding("API key", True, "known to the service")
        fix = "ask the operator for another (indelible-server tenant key add), edit the profile"
        if answer.status != 401:
            fix = "see what the service logs under this request"
        return Finding("API key", False, f"the service answers {answer.status}", fix)

    def _ask(self, path: str, apikey: str = "") -> _Answer:
        assert self._profile is not None
        endpoint = self._profile.endpoint_url
        check_transport(endpoint, allow_plain_http=self._common.allow_plain_http)
        url = urlsplit(endpoint)
        assert url.hostname is not None
        connection: http.client.HTTPConnection
        if url.scheme == "https":
            context = tls_context(self._common.ca_file)
            connection = http.client.HTTPSConnection(
                url.hostname, url.port, timeout=_SECONDS, context=context
            )
        else:
            connection = http.client.HTTPConnection(url.hostname, url.port, timeout=_SECONDS)
        headers = {"Accept": "application/json"}
        if apikey:
            headers |= {"Authorization": f"Bearer {apikey}"}
            headers |= {"Indelible-Database": self._common.database}
        try:
            connection.connect()
            started = time.perf_counter()
            connection.request("GET", url.path.rstrip("/") + path, headers=headers)
            response = connection.getresponse()
            body = response.read(1 << 20)
            took_ms = (time.perf_counter() - started) * 1_000
            return _Answer(response.status, dict(response.headers), body, took_ms)
        finally:
            connection.close()

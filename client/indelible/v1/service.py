"""Posts JSON to a v1 service and tells its errors. Knows nothing of logs or sealing.

One connection a call and no retry, as in the original: an update may have been applied when
its answer was lost. A call that meets silence ends with `TimeoutError`; whatever else goes
wrong on the way is an `OSError` too, as it was with the original's HTTP library. Proxies of
the environment are not used and redirects are not followed: the body holds the API key.
"""

import http.client
import json
import ssl
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from indelible.config import check_transport

CONNECT_SECONDS = 10.0
MAX_ANSWER_BYTES = 256 << 20  # 50 changes of the largest values need half of it


class ApiErrorException(Exception):
    """The service's refusal; its members are attributes, as in the original.

    Unlike the original's, an `Exception`: `except Exception` and task groups see it.
    """

    code: str
    codeNumber: int  # noqa: N815 - the wire's name
    message: str
    details: dict[str, Any]

    def __init__(self, response: dict[str, Any]) -> None:
        super().__init__(response)
        self.__dict__.update(response)

    def __str__(self) -> str:
        return f"{self.__dict__.get('code')}: {self.__dict__.get('message')}"


class HttpStatusError(OSError):
    """An answer that is neither 200 nor an error of the API: from a proxy, say."""

    def __init__(self, response: "Answer") -> None:
        super().__init__(f"HTTP status {response.status_code} without an API error")
        self.response = response


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    status_code: int
    content: bytes = field(repr=False)

    def json(self) -> Any:
        """
        Raises:
            ValueError: the content is not JSON.
        """
        return json.loads(self.content)


def handleError(response: Answer) -> None:  # noqa: N802 - the original's name
    """
    Raises:
        ApiErrorException: the service refused, and said why.
        HttpStatusError: any other answer than 200.
    """
    if response.status_code == 200:
        return
    with suppress(ValueError):
        error = response.json()
        if isinstance(error, dict):
            raise ApiErrorException(error)
    raise HttpStatusError(response)


def post(
    url: str, body: bytes, *, silence_seconds: float, allow_plain_http: bool = False
) -> Answer:
    """The answer to `body`, whatever its status.

    `silence_seconds` is how long the service may take to say anything.

    Raises:
        ConfigError: `http://` to another machine, without `allow_plain_http`.
        TimeoutError: nothing heard for too long.
        OSError: no connection, no trust in its certificate, or no HTTP answer.
    """
    check_transport(url, allow_plain_http=allow_plain_http)
    with closing(_connection(url)) as connection:
        try:
            connection.connect()
            connection.sock.settimeout(silence_seconds)
            # A service that refuses early closes its side before it has read all: what it
            # said stands in the socket, and is worth more than the broken pipe.
            with suppress(BrokenPipeError, ConnectionResetError):
                headers = {"Content-Type": "application/json"}
                connection.request("POST", urlsplit(url).path, body, headers)
            response = connection.getresponse()
            return Answer(status_code=response.status, content=_whole_content(response))
        except http.client.HTTPException as error:
            raise ConnectionError(f"no HTTP answer from {url}: {error!r}") from error


def _whole_content(response: http.client.HTTPResponse) -> bytes:
    # `read` with a bound takes the end of the connection for the end of the content.
    if response.length is None and not response.chunked:
        raise ConnectionError("answer without a length: it may have been cut off")
    content = response.read(MAX_ANSWER_BYTES + 1)
    if len(content) > MAX_ANSWER_BYTES:
        raise ConnectionError(f"answer of more than {MAX_ANSWER_BYTES} bytes")
    if response.length:
        raise ConnectionError(f"answer cut off {response.length} bytes before its end")
    return content


def _connection(url: str) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme == "https":
        return http.client.HTTPSConnection(
            host, parts.port, timeout=CONNECT_SECONDS, context=_tls_context()
        )
    if parts.scheme == "http":
        return http.client.HTTPConnection(host, parts.port, timeout=CONNECT_SECONDS)
    raise ValueError(f"endpoint_url has the scheme {parts.scheme!r}, https expected")


@cache
def _tls_context() -> ssl.SSLContext:
    """The system's roots, or those that OpenSSL's SSL_CERT_FILE names."""
    return ssl.create_default_context()

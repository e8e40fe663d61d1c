"""Log lines and metrics: their form, and what may never stand in them.

Owns structlog's set-up, the redaction of secrets, the line and the counts of each request, and
the metrics of a process. Log events are `noun.past_verb` with fields; but for `request.answered`
nothing here knows what they mean.
"""

import asyncio
import atexit
import json
import logging
import re
import sys
import time
import traceback
from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Iterator, Mapping, MutableMapping
from itertools import accumulate
from typing import Any, BinaryIO, cast

import msgspec
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

_SECRET_FIELDS = frozenset(
    {
        "apikey",
        "authorization",
        "body",
        "commands",
        "header",
        "headers",
        "key",
        "master_key",
        "password",
        "secret",
        "token",
        "value",
    }
)
_SECRET_TEXT = re.compile(r"ik_([0-9a-f]{16})_[A-Za-z0-9_-]+")
_MASK = "***"
_MAX_CHARS = 10_000
_FOREIGN_LOGGERS = ("aiohttp", "asyncio")
HELD_SECONDS = 0.005  # by which a line may be late; what a kill -9 takes with it
_REQUEST_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)

log = structlog.get_logger("indelible_server.api")


def redact(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """Masks secret fields by name and API keys wherever they stand; bytes are never shown."""
    for name, value in event.items():
        event[name] = _MASK if name in _SECRET_FIELDS else _masked(value)
    return event


def _masked(value: Any) -> Any:
    if isinstance(value, str):
        return _SECRET_TEXT.sub(rf"ik_\1_{_MASK}", value[:_MAX_CHARS])
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    if isinstance(value, (list, tuple)):
        return [_masked(item) for item in value]
    if isinstance(value, Mapping):
        return {_masked(name): _masked(item) for name, item in value.items()}
    return value


def _where(exc_info: structlog.typing.ExcInfo) -> str:
    """The traceback with every exception's type and none of its words: they may quote a request."""
    parts = []
    error: BaseException | None = exc_info[1]
    while error is not None:
        frames = "".join(traceback.format_tb(error.__traceback__))
        parts.append(f"{frames}{type(error).__module__}.{type(error).__qualname__}")
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\nafter\n".join(parts)


class Lines:
    """A file for lines. `add` holds them for up to `HELD_SECONDS`, and writes them together: so a
    request seldom pays a system call for its line. What is written beside keeps its place.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._held: list[bytes] = []
        self._flushing: asyncio.TimerHandle | None = None

    def write(self, data: bytes) -> int:
        self._held.append(data)
        return len(data)

    def flush(self) -> None:
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        held, self._held = self._held, []
        self._file.write(b"".join(held))
        self._file.flush()

    def add(self, line: bytes) -> None:
        """In the event loop only."""
        self._held.append(line)
        if self._flushing is None:
            self._flushing = asyncio.get_running_loop().call_later(HELD_SECONDS, self.flush)


def configure_logging(level: str, form: str) -> None:
    """One line per event on stderr: JSON, or for people where `form` is `console`."""
    global _request_lines
    least = logging.getLevelNamesMapping()[level.upper()]
    lines = Lines(sys.stderr.buffer)
    atexit.register(lines.flush)  # what the last loop still held
    _request_lines = lines if form == "json" and least <= logging.INFO else None
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if form == "console":
        ending: list[structlog.typing.Processor] = [
            structlog.processors.ExceptionRenderer(_where),
            redact,
            structlog.dev.ConsoleRenderer(),
        ]
        factory: Any = structlog.PrintLoggerFactory(file=sys.stderr)
    else:
        ending = [
            structlog.processors.ExceptionRenderer(_where),
            redact,
            structlog.processors.JSONRenderer(serializer=_to_json),
        ]
        factory = structlog.BytesLoggerFactory(file=cast(BinaryIO, lines))
    structlog.configure(
        processors=[*shared, *ending],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=factory,
        cache_logger_on_first_use=True,
    )
    handler = _ForeignHandler()
    for name in _FOREIGN_LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(logging.WARNING)


def _to_json(event: Any, **_options: Any) -> bytes:
    try:
        return msgspec.json.encode(event, enc_hook=str)
    except UnicodeEncodeError:  # half a surrogate pair, which has no UTF-8
        return json.dumps(event, default=str).encode()


class AnsweredRequest(msgspec.Struct):
    """The one line of a request. Nothing in it is text of the request, so nothing is masked:
    `route` is a template, `method` and `code` are words that we know, `tenant` is an id of ours.
    """

    request_id: str
    method: str
    route: str
    status: int
    code: str | None
    tenant: str | None
    took_ms: float
    waited: bool
    size_bytes: int | None
    event: str = "request.answered"
    level: str = "info"
    timestamp: str = ""


_request_lines: Lines | None = None
_request_encoder = msgspec.json.Encoder()
_second = (0, "")


def log_request(answered: AnsweredRequest) -> None:
    """As `log.info` would: the fields are known, so the line is made in one pass."""
    if _request_lines is None:
        fields = msgspec.structs.asdict(answered)
        for name in ("event", "level", "timestamp"):
            del fields[name]
        log.info("request.answered", **fields)
        return
    answered.timestamp = _now()
    _request_lines.add(_request_encoder.encode(answered) + b"\n")


def _now() -> str:
    """As TimeStamper writes it; what changes once a second is made once a second."""
    global _second
    now = time.time()
    seconds = int(now)
    if seconds != _second[0]:
        _second = seconds, time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(seconds))
    return f"{_second[1]}{int((now - seconds) * 1e6):06d}Z"


class _ForeignHandler(logging.Handler):
    """Says that a library complained, and of what kind; its text may quote a request."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        structlog.get_logger(record.name).warning(
            "library.complained",
            template=str(record.msg)[:200] if record.args else record.name,
            error=type(error).__name__ if error else None,
        )


class RequestCounts(Collector):
    """Requests by route, method and status, and how long they took. Two additions a request:
    the library's counters take a lock and a look-up each, and a histogram a walk.
    """

    def __init__(self) -> None:
        self._requests: Tally[tuple[str, str, int]] = Tally()
        self._seconds: dict[str, list[float]] = {}  # requests by bucket, then the sum of seconds

    def add(self, route: str, method: str, status: int, seconds: float | None) -> None:
        """`seconds` is None for one that waited."""
        self._requests[route, method, status] += 1
        if seconds is None:
            return
        row = self._seconds.get(route)
        if row is None:
            row = self._seconds[route] = [0] * (len(_REQUEST_SECONDS) + 2)
        row[bisect_left(_REQUEST_SECONDS, seconds)] += 1
        row[-1] += seconds

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "indelible_requests", "Requests answered.", labels=("route", "method", "status")
        )
        for (route, method, status), count in self._requests.items():
            requests.add_metric((route, method, str(status)), count)
        yield requests
        seconds = HistogramMetricFamily(
            "indelible_request_seconds",
            "Time from a request's head to its answer, long polls left out.",
            labels=("route",),
        )
        bounds = [*map(str, _REQUEST_SECONDS), "+Inf"]
        for route, row in self._seconds.items():
            buckets = list(zip(bounds, accumulate(row[:-1]), strict=True))
            seconds.add_metric((route,), buckets, row[-1])
        yield seconds


class Metrics:
    """What one process counts. Labels are route templates and words, never names."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.requests = RequestCounts()
        self.registry.register(self.requests)
        self.commits = Counter(
            "indelible_commits",
            "Commits by outcome: committed, unchanged, repeated, rejected, refused, unknown.",
            ("outcome",),
            registry=self.registry,
        )
        self.waiters = Gauge(
            "indelible_waiters", "Long polls that wait now.", registry=self.registry
        )
        self.standing = Gauge(
            "indelible_standing_commits",
            "Commits that stand in the line of a log that others compete for.",
            registry=self.registry,
        )
        self.overdue_wait_seconds = Gauge(
            "indelible_overdue_wait_seconds",
            "By how much the longest wait is beyond its deadline.",
            registry=self.registry,
        )
        self.missed_hints = Gauge(
            "indelible_missed_hints",
            "Waiters woken by a recheck because no hint had come.",
            registry=self.registry,
        )
        self.durable = Gauge(
            "indelible_durable",
            "1 while the store's settings hold what is promised.",
            registry=self.registry,
        )
        self.materialized = Counter(
            "indelible_materialized",
            "Pieces written beside logs: blocks (of 256 versions each) and snapshots.",
            ("piece",),
            registry=self.registry,
        )
        self.materializer_behind = Gauge(
            "indelible_materializer_behind_versions",
            "By how many versions the log that is furthest behind was so at the last look.",
            registry=self.registry,
        )
        self.archive_objects = Counter(
            "indelible_archive_objects",
            "Objects of the archive by what was done: put, got, deleted, failed, lost.",
            ("done",),
            registry=self.registry,
        )
        self.archive_bytes = Counter(
            "indelible_archive_bytes",
            "Bytes of objects of the archive: put, got.",
            ("done",),
            registry=self.registry,
        )
        self.webhook_attempts = Counter(
            "indelible_webhook_attempts",
            "Attempts by outcome: delivered, failed, slow (429, 502, 504), gone (410), refused.",
            ("outcome",),
            registry=self.registry,
        )
        self.webhook_attempt_seconds = Histogram(
            "indelible_webhook_attempt_seconds",
            "Time from a connection's begin to the end of an endpoint's answer.",
            buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15),
            registry=self.registry,
        )
        self.webhook_oldest_seconds = Gauge(
            "indelible_webhook_oldest_seconds",
            "By how much the delivery that is due for longest is late.",
            registry=self.registry,
        )
        self.dead_letters = Counter(
            "indelible_webhook_dead_letters",
            "Deliveries whose attempts were used up.",
            registry=self.registry,
        )
        self.webhooks_disabled = Counter(
            "indelible_webhooks_disabled",
            "Webhooks that were disabled by their endpoint's answers.",
            registry=self.registry,
        )

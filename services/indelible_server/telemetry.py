"""Log lines and metrics: their form, and what may never stand in them.

Owns structlog's set-up, the redaction of secrets, and the metrics of a process. Log
events are `noun.past_verb` with fields; nothing here knows what they mean.
"""

import json
import logging
import re
import sys
import traceback
from collections.abc import Mapping, MutableMapping
from typing import Any

import msgspec
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector
from prometheus_client.process_collector import ProcessCollector

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


def configure_logging(level: str, form: str) -> None:
    """One line per event on stderr: JSON, or for people where `form` is `console`."""
    least = logging.getLevelNamesMapping()[level.upper()]
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
        factory = structlog.BytesLoggerFactory(file=sys.stderr.buffer)
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


class _ForeignHandler(logging.Handler):
    """Says that a library complained, and of what kind; its text may quote a request."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        structlog.get_logger(record.name).warning(
            "library.complained",
            template=str(record.msg)[:200] if record.args else record.name,
            error=type(error).__name__ if error else None,
        )


class Metrics:
    """What one process counts. Labels are route templates and words, never names."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.requests = Counter(
            "indelible_requests",
            "Requests answered.",
            ("route", "method", "status"),
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "indelible_request_seconds",
            "Time from a request's head to its answer, long polls left out.",
            ("route",),
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
            registry=self.registry,
        )
        self.commits = Counter(
            "indelible_commits",
            "Commits by outcome: committed, unchanged, repeated, rejected, refused, unknown.",
            ("outcome",),
            registry=self.registry,
        )
        self.waiters = Gauge(
            "indelible_waiters", "Long polls that wait now.", registry=self.registry
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

"""Traces, metrics and logs: what an operator sees of a service, the same for all of them.

Metrics are declared here, once, and counted where things happen.
"""

import logging
import os
import random
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from functools import cache, lru_cache
from typing import Any

import orjson
import prometheus_client
import structlog
from opentelemetry import trace
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags, TraceState
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from stoa_chassis.context import correlation_id

RPC_HANDLED = Counter("stoa_rpc_handled", "Calls answered by this server", ["method", "code"])
RPC_SECONDS = Histogram(
    "stoa_rpc_seconds",
    "Seconds from a call's arrival to its answer",
    ["method", "code"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
RPC_IN_FLIGHT = Gauge("stoa_rpc_in_flight", "Calls being handled now", multiprocess_mode="livesum")
CLIENT_RPC_SECONDS = Histogram(
    "stoa_client_rpc_seconds",
    "Seconds that calls to other services took",
    ["target", "method", "code"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
BREAKER_STATE = Gauge(
    "stoa_breaker_state",
    "Circuit breaker of a target: 0 closed, 1 half open, 2 open",
    ["target"],
    multiprocess_mode="livemax",
)
CONSUMER_PROCESSED = Counter("stoa_consumer_processed", "Events handled", ["group", "topic"])
CONSUMER_FAILED = Counter("stoa_consumer_failed", "Failed tries of an event", ["group", "topic", "error"])
CONSUMER_DEAD_LETTERS = Counter("stoa_consumer_dead_letters", "Messages parked", ["group", "topic"])
CONSUMER_LAG = Gauge(
    "stoa_consumer_lag",
    "Messages behind the end of a partition, as of the last message handled",
    ["group", "topic", "partition"],
    multiprocess_mode="livemostrecent",
)
CONSUMER_SECONDS = Histogram(
    "stoa_consumer_delay_seconds",
    "Seconds from an event's timestamp until it was handled",
    ["group", "topic"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60, 600),
)
DATABASE_STATEMENTS = Counter("stoa_database_statements", "SQL statements sent, BEGIN and COMMIT apart")
DATABASE_READS = Counter(
    "stoa_database_reads", "Reads that may lag, by who answered: replica or primary", ["server"]
)
REPLICA_LAG_SECONDS = Gauge(
    "stoa_database_replica_lag_seconds",
    "The replica shows all that was committed so long ago, as of the last look",
    multiprocess_mode="livemax",
)
OUTBOX_PUBLISHED = Counter("stoa_outbox_published", "Events published from the outbox", ["topic"])
OUTBOX_BACKLOG = Gauge(
    "stoa_outbox_backlog", "Events waiting to be published", multiprocess_mode="livemostrecent"
)
OUTBOX_AGE_SECONDS = Gauge(
    "stoa_outbox_age_seconds",
    "Age of the oldest event that waits to be published",
    multiprocess_mode="livemostrecent",
)

# ---------------------------------------------------------------------------------------------- tracing

# W3C trace context: version, trace id, span id, flags, and what later versions may add.
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_tracer: trace.Tracer | None = None  # None while nobody collects spans


def configure_tracing(service: str, otlp_endpoint: str = "") -> None:
    """Set up tracing for this process; without an endpoint spans get ids but are not recorded.

    Ids are always made, so that logs of all services can be joined by trace id even when no collector runs.
    """
    if not otlp_endpoint:
        return
    # Imported here because they cost a tenth of a second of start that most local runs don't need.
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create({SERVICE_NAME: service})
    provider = TracerProvider(resource=resource, sampler=ParentBased(ALWAYS_ON))
    exporter = OTLPSpanExporter(endpoint=otlp_endpoint, insecure=not otlp_endpoint.startswith("https://"))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    global _tracer
    _tracer = provider.get_tracer("stoa_chassis")


def start_span(
    name: str,
    kind: SpanKind = SpanKind.INTERNAL,
    headers: Mapping[str, str] | None = None,
    attributes: Mapping[str, str | int] | None = None,
) -> trace.Span:
    """Start a span below the remote one that `headers` name, or without them below the current one.

    It does not become current.

    While nobody collects spans it is made of ids alone, because the SDK takes several times as long to find
    out that it need not record one.
    """
    above = trace.get_current_span() if headers is None else _remote_span(headers)
    if _tracer is not None:
        return _tracer.start_span(name, trace.set_span_in_context(above), kind, attributes)
    trace_id, _, _, flags, state, is_valid = above.get_span_context()
    if not is_valid:
        trace_id = random.getrandbits(128)
    return NonRecordingSpan(SpanContext(trace_id, random.getrandbits(64), False, flags, state))


def trace_headers(span: trace.Span | None = None) -> dict[str, str]:
    """Return the W3C trace context of a span, else of the current one, as headers or gRPC metadata.

    They are empty without a span.
    """
    context = (span or trace.get_current_span()).get_span_context()
    if not context.is_valid:
        return {}
    headers = {"traceparent": f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"}
    if context.trace_state:
        headers["tracestate"] = context.trace_state.to_header()
    return headers


def _remote_span(headers: Mapping[str, str]) -> trace.Span:
    """Return the span that W3C headers (lower-case names) name; an invalid one if they name none."""
    match = _TRACEPARENT.fullmatch(headers.get("traceparent", ""))
    if match is None:
        return trace.INVALID_SPAN
    version, trace_id, span_id, flags, more = match.groups()
    if version == "ff" or (version == "00" and more):
        return trace.INVALID_SPAN
    state = TraceState.from_header([headers["tracestate"]]) if "tracestate" in headers else None
    remote = SpanContext(int(trace_id, 16), int(span_id, 16), True, TraceFlags(int(flags, 16)), state)
    return NonRecordingSpan(remote) if remote.is_valid else trace.INVALID_SPAN


@contextmanager
def span(
    name: str,
    kind: SpanKind = SpanKind.INTERNAL,
    headers: Mapping[str, str] | None = None,
    attributes: Mapping[str, str | int] | None = None,
) -> Iterator[trace.Span]:
    """Run a block in a span: below the remote one that `headers` name, or else below the current one."""
    with trace.use_span(start_span(name, kind, headers, attributes), end_on_exit=True) as current:
        yield current


# ---------------------------------------------------------------------------------------------- metrics


@cache  # the library keeps them as well, but to look one up takes longer than to count
def labelled(metric: Any, *labels: str) -> Any:
    """Return the counter or histogram that a metric has for these labels, of which there are few."""
    return metric.labels(*labels)


def serve_metrics(host: str, port: int) -> None:
    """Serve `/metrics` at host:port; port 0 means not at all.

    With several worker processes the parent serves: it sets `PROMETHEUS_MULTIPROC_DIR` for the workers and
    itself, and the answer sums up all of them.

    Raises OSError if the port is taken.
    """
    if port == 0:
        return
    registry = prometheus_client.REGISTRY
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        from prometheus_client.multiprocess import MultiProcessCollector

        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # the library has no annotation here
    prometheus_client.start_http_server(port, addr=host, registry=registry)


# ---------------------------------------------------------------------------------------------- logging

_SECRET_KEY = re.compile(
    r"passw|token|authorization|secret|api_?key|private_?key|signing_?key|cookie|credential|card|cvv|cvc|\bpan\b",
    re.IGNORECASE,
)
_URL_PASSWORD = re.compile(r"(://[^:/@\s]*):[^@/\s]+@")
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}")
_DIGITS = re.compile(r"(?<![\w-])\d(?:[ -]?\d){12,18}(?![\w-])")
# It is tried once for each run of letters, not at each letter: a long text without an address costs no more.
_EMAIL = re.compile(r"(?<![\w.+'-])[\w.+'-]+@[\w-]+(?:\.[\w-]+)*\.[^\W\d][\w-]*")
# What PostgreSQL adds to an error: the row that it is about, such as the address that is taken.
_ROW = re.compile(r"(DETAIL:  ).*")
_SHORTEST_SECRET = 13  # characters of the shortest card number; a header with credentials has 14
MASK = "***"


def configure_logging(service: str, level: str = "INFO") -> None:
    """Log JSON lines to stdout, from structlog and from the standard library alike."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.format_exc_info,
        mask_secrets,
        # What we know to hold no secret comes after the search for them, which is what a line costs most.
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_origin(service),
    ]
    threshold = logging.getLevelNamesMapping().get(level.upper(), logging.INFO)
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer(serializer=_to_json)],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.BytesLoggerFactory(file=sys.stdout.buffer),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(serializer=lambda *a, **k: _to_json(*a, **k).decode()),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(threshold, logging.INFO))
    for chatty in ("httpx", "httpx2"):  # a line for each request
        logging.getLogger(chatty).setLevel(logging.WARNING)


def get_logger(name: str) -> structlog.typing.FilteringBoundLogger:
    """Return the logger of a module."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger(module=name)
    return logger


def mask_secrets(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Structlog processor: mask what is secret or says who somebody is, wherever it is in a log line.

    Passwords, tokens, keys, card numbers and e-mail addresses.
    """
    for key, value in event.items():
        event[key] = _masked(key, value)
    return event


def _masked(key: str, value: Any) -> Any:
    if isinstance(value, str):
        return MASK if value and _is_secret(key) else mask_text(value)
    if isinstance(value, Mapping):
        return {k: _masked(str(k), v) for k, v in value.items()}
    if isinstance(value, bytes) or (value is not None and _is_secret(key) and not _is_count(value)):
        return MASK
    if isinstance(value, list | tuple | set | frozenset):
        return [_masked(key, item) for item in value]
    return value


@lru_cache(maxsize=1024)  # keys are the same few in line after line
def _is_secret(key: str) -> bool:
    return _SECRET_KEY.search(key) is not None


def _is_count(value: Any) -> bool:
    return isinstance(value, bool | float)


def mask_text(text: str) -> str:
    """Mask what looks like a secret or a person in a text.

    That is a password in a URL, an authorization header, a card number, an e-mail address, a database's row.
    """
    if "://" in text:
        text = _URL_PASSWORD.sub(rf"\1:{MASK}@", text)
    if "@" in text:
        text = _EMAIL.sub(MASK, text)
    if "DETAIL: " in text:
        text = _ROW.sub(rf"\1{MASK}", text)
    if len(text) < _SHORTEST_SECRET:
        return text
    if _BEARER.search(text):
        text = _BEARER.sub(rf"\1 {MASK}", text)
    return _DIGITS.sub(_mask_card_number, text)


def _mask_card_number(match: re.Match[str]) -> str:
    digits = [int(c) for c in match[0] if c.isdigit()]
    return MASK if _passes_luhn(digits) else match[0]


def _passes_luhn(digits: Iterable[int]) -> bool:
    """Check the digit sum (ISO/IEC 7812) that all card numbers have and few other numbers do."""
    doubled = (d if i % 2 == 0 else sum(divmod(2 * d, 10)) for i, d in enumerate(reversed(list(digits))))
    return sum(doubled) % 10 == 0


def _add_origin(service: str) -> structlog.typing.Processor:
    def add(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["service"] = service
        if correlation := correlation_id():
            event["correlation_id"] = mask_text(correlation)  # may come from outside
        if (context := trace.get_current_span().get_span_context()).is_valid:
            event["trace_id"] = trace.format_trace_id(context.trace_id)
            event["span_id"] = trace.format_span_id(context.span_id)
        return event

    return add


def _to_json(value: Any, **_: Any) -> bytes:
    return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS)

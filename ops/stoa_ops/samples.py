"""Looks at a running shop twice and tells what it did in between, from the services' metrics and Kafka."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import httpx
from prometheus_client.parser import text_string_to_metric_families

from stoa_ops import local
from stoa_ops.groups import Progress, Standstill, progress, standing
from stoa_ops.outboxes import OutboxState, states
from stoa_ops.settings import OperatorSettings
from stoa_ops.topics import OffsetReader
from stoa_services import SERVICES

_SECONDS = 3
# What says that the shop failed; the other codes say no to somebody who asked for what can't be.
_FAULTS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
_BREAKER = {0: "closed", 1: "half open", 2: "open"}

_Counts = defaultdict[tuple[str, ...], float]


def _counts() -> _Counts:
    return defaultdict(float)


@dataclass
class Sample:
    """What the shop says of itself at one moment. What did not answer is named in `silent`."""

    at: float
    handled: _Counts = field(default_factory=_counts)  # service, method, code
    seconds: _Counts = field(default_factory=_counts)  # service, method
    processed: _Counts = field(default_factory=_counts)  # group, topic
    failed: _Counts = field(default_factory=_counts)  # group, topic
    breakers: dict[tuple[str, str], int] = field(default_factory=dict)  # service, target
    groups: Progress | None = None
    standing: Sequence[Standstill] = ()  # since the sample before
    outboxes: Sequence[OutboxState] = ()
    cpu: dict[str, float] = field(default_factory=dict)  # seconds, by part
    memory: dict[str, float] = field(default_factory=dict)  # MB, by part
    silent: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Rpc:
    """A method in a second: calls, of which failed and were refused, and how long one took on average."""

    service: str
    method: str
    per_second: float
    errors_per_second: float
    refused_per_second: float
    mean_ms: float


@dataclass(frozen=True, slots=True)
class Consumption:
    """What a group handled of a topic in a second, and how many tries failed."""

    group: str
    topic: str
    per_second: float
    failed_per_second: float


@dataclass(frozen=True, slots=True)
class PartUse:
    """What a part takes; 100 % is one core."""

    part: str
    cpu_percent: float
    memory_mb: float


@dataclass(frozen=True, slots=True)
class Activity:
    """What the shop did between two samples."""

    seconds: float
    rpcs: Sequence[Rpc]
    consumers: Sequence[Consumption]
    lag: Mapping[str, int]
    standing: Sequence[Standstill]
    outboxes: Sequence[OutboxState]
    breakers: Mapping[tuple[str, str], str]
    parts: Sequence[PartUse]
    silent: Sequence[str]


async def take(settings: OperatorSettings, reader: OffsetReader, before: Sample | None = None) -> Sample:
    """Ask everything that there is to ask, and which groups stood still since the sample before.

    `reader` is the way to Kafka. Never raises for what is down.
    """
    sample = Sample(time.monotonic())
    for part, used in local.usage().items():
        sample.cpu[part], sample.memory[part] = used.cpu_seconds, used.memory_mb
    await asyncio.gather(
        _metrics(settings, sample), _groups(reader, sample, before), _outboxes(settings, sample)
    )
    return sample


def between(before: Sample, after: Sample) -> Activity:
    """Tell what happened from one sample to the next. A service that was restarted counts from its start."""
    seconds = after.at - before.at
    handled = _growth(before.handled, after.handled)
    took = _growth(before.seconds, after.seconds)
    processed, failed = _growth(before.processed, after.processed), _growth(before.failed, after.failed)
    rpcs = []
    for service, method in sorted({(service, method) for service, method, _ in handled}):
        codes = {code: count for (s, m, code), count in handled.items() if (s, m) == (service, method)}
        calls, faults = sum(codes.values()), sum(codes.get(code, 0) for code in _FAULTS)
        refused = calls - faults - codes.get("OK", 0)
        mean = took[service, method] / calls * 1000
        rpcs.append(
            Rpc(service, method, calls / seconds, faults / seconds, refused / seconds, round(mean, 2))
        )
    return Activity(
        seconds=seconds,
        rpcs=sorted(rpcs, key=lambda rpc: -rpc.per_second),
        consumers=[
            Consumption(group, topic, processed[group, topic] / seconds, failed[group, topic] / seconds)
            for group, topic in sorted(processed.keys() | failed.keys())
        ],
        lag=after.groups.lag if after.groups else {},
        standing=after.standing,
        outboxes=after.outboxes,
        breakers={key: _BREAKER[state] for key, state in sorted(after.breakers.items())},
        parts=[
            PartUse(part, max(0.0, used - before.cpu.get(part, used)) / seconds * 100, after.memory[part])
            for part, used in after.cpu.items()
        ],
        silent=after.silent,
    )


def _growth(before: _Counts, after: _Counts) -> _Counts:
    grown = _counts()
    for key, value in after.items():
        earlier = before[key]
        if more := value - earlier if value >= earlier else value:
            grown[key] = more
    return grown


async def _metrics(settings: OperatorSettings, sample: Sample) -> None:
    async with httpx.AsyncClient(timeout=_SECONDS, trust_env=False) as client:

        async def ask(service: str) -> None:
            try:
                answer = await client.get(settings.metrics_url(service))
                _count(sample, service, answer.raise_for_status().text)
            except httpx.HTTPError:
                sample.silent.append(f"metrics of {service}")

        await asyncio.gather(*(ask(name) for name in SERVICES))


def _count(sample: Sample, service: str, text: str) -> None:
    for family in text_string_to_metric_families(text):
        for name, labels, value, *_ in family.samples:
            match name:
                case "stoa_rpc_handled_total":
                    sample.handled[service, labels["method"], labels["code"]] += value
                case "stoa_rpc_seconds_sum":
                    sample.seconds[service, labels["method"]] += value
                case "stoa_consumer_processed_total":
                    sample.processed[labels["group"], labels["topic"]] += value
                case "stoa_consumer_failed_total":
                    sample.failed[labels["group"], labels["topic"]] += value
                case "stoa_breaker_state":
                    sample.breakers[service, labels["target"]] = int(value)


async def _groups(reader: OffsetReader, sample: Sample, before: Sample | None) -> None:
    try:
        sample.groups = await asyncio.to_thread(progress, reader)
        if before is not None and before.groups is not None:
            sample.standing = await asyncio.to_thread(standing, reader, before.groups, sample.groups)
    except ConnectionError:
        sample.silent.append("Kafka")


async def _outboxes(settings: OperatorSettings, sample: Sample) -> None:
    try:
        sample.outboxes = await states(settings)
    except Exception:  # whatever client: a store that can't be read
        sample.silent.append("outboxes")

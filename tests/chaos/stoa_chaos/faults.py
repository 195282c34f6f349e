"""What is broken, as a table. A new service adds its name; a new kind of trouble adds a line.

A fault is a context manager: entering breaks, leaving heals, so that whatever ends the run heals too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, replace

import confluent_kafka
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from stoa_chaos.ground import Ground, NotThere
from stoa_services import SERVICES

Break = Callable[[Ground, str], AbstractAsyncContextManager[None]]

_SERVICES = tuple(SERVICES)
_SERVERS = ("postgres", "kafka", "valkey", "mongo", "registry", "edge", "gateway")
_CONSUMERS = ("cart", "order", "inventory")  # of events
_DOUBLED = ("cart", "order", "payment", "inventory")  # those through which an order passes
_WITH_DEADLINES = ("order", "payment", "inventory")  # which they keep in their stores
# Clocks of machines that keep time differ by milliseconds; these don't.
_SKEW = 90  # seconds
_KAFKA_SECONDS = 5
_STAYS = 6.0  # seconds at most


@dataclass(frozen=True, slots=True)
class Fault:
    """A kind of trouble: what it is called, what it may strike, how it is done, and how long it lasts."""

    name: str
    targets: tuple[str, ...]
    does: Break
    seconds: tuple[float, float] = (0, 0)


@asynccontextmanager
async def killed(ground: Ground, part: str) -> AsyncIterator[None]:
    """SIGKILL; the supervisor starts it again."""
    ground.kill(part)
    yield


@asynccontextmanager
async def killed_often(ground: Ground, part: str) -> AsyncIterator[None]:
    """SIGKILL as often as it comes up again, while this lasts."""

    async def kill() -> None:
        while True:
            with suppress(NotThere):
                ground.kill(part)
            await asyncio.sleep(1.5)

    ground.kill(part)
    killing = asyncio.create_task(kill())
    try:
        yield
    finally:
        killing.cancel()


@asynccontextmanager
async def frozen(ground: Ground, part: str) -> AsyncIterator[None]:
    """SIGSTOP, then SIGCONT: it neither answers nor refuses, and then it goes on as if nothing had been."""
    with ground.frozen(part):
        yield


@asynccontextmanager
async def without_space(ground: Ground, part: str) -> AsyncIterator[None]:
    """Every write to a file fails."""
    with ground.without_space(part):
        yield


@asynccontextmanager
async def rebalanced(ground: Ground, group: str) -> AsyncIterator[None]:
    """A member joins the group and leaves it again and again; it takes messages and handles none."""
    rebalancing = asyncio.create_task(_rebalance(ground, group))
    try:
        yield
    finally:
        rebalancing.cancel()
        await asyncio.gather(rebalancing, return_exceptions=True)


async def _rebalance(ground: Ground, group: str) -> None:
    bootstrap = ground.at.address("kafka")
    topics = await asyncio.to_thread(_topics, bootstrap, group)
    while True:
        await asyncio.to_thread(_join_and_leave, bootstrap, group, topics)
        await asyncio.sleep(1)


def _topics(bootstrap: str, group: str) -> list[str]:
    """The topics of which the group has committed what it read."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 2})
    wanted = confluent_kafka.ConsumerGroupTopicPartitions(group)
    found = admin.list_consumer_group_offsets([wanted], request_timeout=_KAFKA_SECONDS)[group].result()
    return sorted({position.topic for position in found.topic_partitions})


def _join_and_leave(bootstrap: str, group: str, topics: list[str]) -> None:
    taken: list[TopicPartition] = []

    def assigned(consumer: confluent_kafka.Consumer, partitions: list[TopicPartition]) -> None:
        taken.extend(partitions)
        consumer.incremental_assign(partitions)
        consumer.pause(partitions)

    member = confluent_kafka.Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "partition.assignment.strategy": "cooperative-sticky",
            "enable.auto.commit": False,
            "session.timeout.ms": 6000,
            "log_level": 2,
        }
    )
    try:
        member.subscribe(topics, on_assign=assigned)
        until = time.monotonic() + _STAYS
        while not taken and time.monotonic() < until:  # others give up what it takes in a second round
            member.poll(0.25)
        member.poll(1)
    finally:
        member.close()


def gateway(**faults: float) -> Break:
    """Make the payment gateway misbehave in one of its own ways."""
    return lambda ground, _: ground.gateway_with(**faults)


def second_process(*, crash: bool = False, **settings: str) -> Break:
    """Run a second process of a service: two consumers, two relays, two sagas at work on one database."""
    return lambda ground, service: ground.second_process(service, settings, crash)


FAULTS = (
    Fault("killed", (*_SERVICES, *_SERVERS), killed),
    Fault("frozen", (*_SERVICES, *_SERVERS), frozen, (5, 20)),
    Fault(
        "killed as often as it starts",
        ("order", "payment", "inventory", "postgres", "kafka", "valkey", "edge"),
        killed_often,
        (5, 10),
    ),
    Fault("rebalanced all the time", _CONSUMERS, rebalanced, (8, 16)),
    Fault("doubled by a second process", _DOUBLED, second_process(), (10, 20)),
    Fault("doubled by a process that crashes", _DOUBLED, second_process(crash=True), (6, 15)),
    Fault(
        "doubled by a process whose clock is ahead",
        _WITH_DEADLINES,
        second_process(STOA_CLOCK_OFFSET_SECONDS=str(_SKEW)),
        (10, 20),
    ),
    Fault(
        "doubled by a process whose clock is behind",
        _WITH_DEADLINES,
        second_process(STOA_CLOCK_OFFSET_SECONDS=str(-_SKEW)),
        (10, 20),
    ),
    Fault("out of disk space", ("postgres", "kafka", "mongo", "gateway"), without_space, (4, 8)),
    Fault("slow", ("gateway",), gateway(latency_ms=6000), (8, 16)),
    Fault("failing", ("gateway",), gateway(error_rate=0.7), (8, 16)),
    Fault("losing its answers", ("gateway",), gateway(lost_answer_rate=0.7), (8, 16)),
    Fault("repeating its notices", ("gateway",), gateway(duplicate_webhooks=3), (8, 16)),
    Fault("sending its notices late", ("gateway",), gateway(delay_webhooks_ms=12_000), (8, 16)),
)


def striking(parts: Sequence[str]) -> list[Fault]:
    """Return the faults that strike these parts, and of each only what strikes them; all if none is named."""
    chosen = [replace(fault, targets=tuple(t for t in fault.targets if t in parts)) for fault in FAULTS]
    return [fault for fault in chosen if fault.targets] if parts else list(FAULTS)

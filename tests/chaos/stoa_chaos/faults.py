"""What is broken, as a table: a new kind of trouble adds a line.

Whom a fault may strike follows from the declarations of the services: one that is added is struck, too.
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

from stoa_chaos.fault_injection import FaultInjector, NotRunning
from stoa_contracts.declarations import Store
from stoa_services import SERVICES
from stoa_stack import fork_server
from stoa_stack.companies import CARRIERS, COMPANIES, MAIL_SERVER, PAYMENT_GATEWAY, Company
from stoa_stack.stores import STORES, stores_of

Injection = Callable[[FaultInjector, str], AbstractAsyncContextManager[None]]

_ALL = tuple(SERVICES)
_STORES = tuple(dict.fromkeys(store.part for service in SERVICES.values() for store in stores_of(service)))
_COMPANIES = tuple(
    dict.fromkeys(COMPANIES[name].part for service in SERVICES.values() for name in service.companies)
)
_EVERY_PART = (*_ALL, *_STORES, "kafka", "registry", "edge", fork_server.NAME, *_COMPANIES)
_CONSUMERS = tuple(name for name, service in SERVICES.items() if service.consumes)
# Those between which something is under way: a second process takes part in it, at whatever point it is.
_INVOLVED = tuple(name for name, service in SERVICES.items() if service.consumes or service.companies)
_WITH_DEADLINES = tuple(name for name in _INVOLVED if SERVICES[name].store is Store.POSTGRES)
# The store in memory ends when it can't write its log, before it acknowledges anything: as if it were killed.
_WRITING_FILES = tuple(part for part in _STORES if part != STORES[Store.REDIS].part)
# Clocks of machines that keep time differ by milliseconds; these don't.
_SKEW = 90  # seconds
_STAYS = 6.0  # seconds at most


@dataclass(frozen=True, slots=True)
class Fault:
    """A kind of trouble: what it is called, what it may strike, how it is done, and how long it lasts.

    If it is to be `alone`, it comes before those that overlap, with time to be over before the next one: what
    is measured then is its own.
    """

    name: str
    targets: tuple[str, ...]
    inject: Injection
    seconds: tuple[float, float] = (0, 0)
    alone: bool = False


@asynccontextmanager
async def killed(injector: FaultInjector, part: str) -> AsyncIterator[None]:
    """SIGKILL; the supervisor starts it again."""
    injector.kill(part)
    yield


@asynccontextmanager
async def killed_often(injector: FaultInjector, part: str) -> AsyncIterator[None]:
    """SIGKILL as often as it comes up again, while this lasts."""

    async def kill() -> None:
        while True:
            with suppress(NotRunning):
                injector.kill(part)
            await asyncio.sleep(1.5)

    injector.kill(part)
    killing = asyncio.create_task(kill())
    try:
        yield
    finally:
        killing.cancel()


@asynccontextmanager
async def frozen(injector: FaultInjector, part: str) -> AsyncIterator[None]:
    """SIGSTOP, then SIGCONT: it neither answers nor refuses, and then it goes on as if nothing had been."""
    with injector.frozen(part):
        yield


@asynccontextmanager
async def without_space(injector: FaultInjector, part: str) -> AsyncIterator[None]:
    """Every write to a file fails."""
    with injector.without_space(part):
        yield


@asynccontextmanager
async def rebalanced(injector: FaultInjector, group: str) -> AsyncIterator[None]:
    """A member joins the group and leaves it again and again; it takes messages and handles none."""
    rebalancing = asyncio.create_task(_rebalance(injector, group))
    try:
        yield
    finally:
        rebalancing.cancel()
        await asyncio.gather(rebalancing, return_exceptions=True)


async def _rebalance(injector: FaultInjector, group: str) -> None:
    bootstrap = injector.at.address("kafka")
    topics = list(SERVICES[group].consumes)
    while True:
        await asyncio.to_thread(_join_and_leave, bootstrap, group, topics)
        await asyncio.sleep(1)


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


def company(company: Company, **faults: float) -> Injection:
    """Make the fake of a company outside misbehave in one of its own ways."""
    return lambda injector, _: injector.company_with(company, faults)


def carriers(*names: str, **faults: float) -> Injection:
    """Make some carriers misbehave in one of their own ways; all of them if none is named."""
    every = dict.fromkeys(names or ("fedex", "ups", "dhl"), faults)
    return lambda injector, _: injector.company_with(CARRIERS, every)


def second_process(*, crash: bool = False, **settings: str) -> Injection:
    """Run a second process of a service: two consumers, two relays, two sagas at work on one database."""
    return lambda injector, service: injector.second_process(service, settings, crash)


FAULTS = (
    Fault("killed", _EVERY_PART, killed, alone=True),
    Fault("killed", _EVERY_PART, killed),
    Fault("frozen", _EVERY_PART, frozen, (5, 20)),
    Fault(
        "killed as often as it starts",
        (*_WITH_DEADLINES, *_STORES, "kafka", "edge"),
        killed_often,
        (5, 10),
    ),
    Fault("rebalanced all the time", _CONSUMERS, rebalanced, (8, 16)),
    Fault("doubled by a second process", _INVOLVED, second_process(), (10, 20)),
    Fault("doubled by a process that crashes", _INVOLVED, second_process(crash=True), (6, 15)),
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
    Fault("out of disk space", (*_WRITING_FILES, "kafka", *_COMPANIES), without_space, (4, 8)),
    Fault("slow", (PAYMENT_GATEWAY.part,), company(PAYMENT_GATEWAY, latency_ms=6000), (8, 16)),
    Fault("failing", (PAYMENT_GATEWAY.part,), company(PAYMENT_GATEWAY, error_rate=0.7), (8, 16)),
    Fault(
        "losing its answers", (PAYMENT_GATEWAY.part,), company(PAYMENT_GATEWAY, lost_answer_rate=0.7), (8, 16)
    ),
    Fault(
        "repeating its notices",
        (PAYMENT_GATEWAY.part,),
        company(PAYMENT_GATEWAY, duplicate_webhooks=3),
        (8, 16),
    ),
    Fault(
        "sending its notices late",
        (PAYMENT_GATEWAY.part,),
        company(PAYMENT_GATEWAY, delay_webhooks_ms=12_000),
        (8, 16),
    ),
    Fault("slow to take mail", (MAIL_SERVER.part,), company(MAIL_SERVER, latency_ms=12_000), (8, 16)),
    Fault("refusing mail for now", (MAIL_SERVER.part,), company(MAIL_SERVER, error_rate=0.7), (8, 16)),
    Fault(
        "losing its answers about mail",
        (MAIL_SERVER.part,),
        company(MAIL_SERVER, lost_answer_rate=0.7),
        (8, 16),
    ),
    Fault("slow", (CARRIERS.part,), carriers(latency_ms=4000), (8, 16)),
    Fault("failing", (CARRIERS.part,), carriers(error_rate=0.7), (8, 16)),
    Fault("losing its answers", (CARRIERS.part,), carriers(lost_answer_rate=0.7), (8, 16)),
    Fault("without one of the carriers", (CARRIERS.part,), carriers("ups", lost_answer_rate=1), (16, 32)),
    Fault("repeating its notices", (CARRIERS.part,), carriers(duplicate_webhooks=3), (8, 16)),
    Fault("sending its notices late", (CARRIERS.part,), carriers(delay_webhooks_ms=12_000), (8, 16)),
)


def targets(faults: Sequence[Fault]) -> list[tuple[Fault, str]]:
    """Each fault with each of its targets."""
    return [(fault, target) for fault in faults for target in fault.targets]


def striking(parts: Sequence[str]) -> list[Fault]:
    """Return the faults that strike these parts, and of each only what strikes them; all if none is named."""
    chosen = [replace(fault, targets=tuple(t for t in fault.targets if t in parts)) for fault in FAULTS]
    return [fault for fault in chosen if fault.targets] if parts else list(FAULTS)

"""Follows events from the outbox they were written to, through their topic, to the inboxes they reach."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import NamedTuple, Self
from uuid import UUID

from confluent_kafka import Message

from stoa_chassis.kafka import ADDRESSEE_HEADER
from stoa_contracts.declarations import Service, Store
from stoa_ops.dead_letters import DeadLetters, Letter
from stoa_ops.events import EventReader, Unreadable
from stoa_ops.services import audits, consuming
from stoa_ops.settings import OperatorSettings
from stoa_ops.stores import postgres, redis
from stoa_ops.topics import OffsetReader, Position, TopicReader, headers
from stoa_services import SERVICES

# Topics and outboxes forget what is a week old: a day less, and neither has begun to.
LOOK_BACK = timedelta(days=6)
_NEWEST = 10_000  # messages of a partition that are read
_OUTBOX = "SELECT event_id, topic, created_at, published_at IS NOT NULL FROM outbox"
_INBOX = "SELECT event_id FROM inbox WHERE received_at > now() - interval '8 days'"


class Written(NamedTuple):
    """An event as its outbox has it."""

    service: str
    topic: str
    created_at: datetime
    published: bool


class Seen(NamedTuple):
    """An event where it was first met in its topic."""

    position: Position
    offset: int
    at: datetime


class Garbage(NamedTuple):
    """A message that is no event. `group` is the only one that it is meant for, "" if it is meant for all."""

    position: Position
    offset: int
    group: str


@dataclass
class EventBooks:
    """What was read of events, all of the last `LOOK_BACK`."""

    written: Mapping[UUID, Written] = field(default_factory=dict)
    seen: dict[UUID, Seen] = field(default_factory=dict)
    garbage: list[Garbage] = field(default_factory=list)
    repeated: Counter[str] = field(default_factory=Counter)  # duplicates by topic: they are allowed
    read_from: dict[str, datetime] = field(default_factory=dict)  # topics that were too long to read it all
    committed: Mapping[str, Mapping[Position, int]] = field(default_factory=dict)
    inboxes: Mapping[str, Collection[UUID]] = field(default_factory=dict)
    noted: Mapping[str, Collection[str]] = field(default_factory=dict)  # topics that a group has in its inbox
    parked: dict[str, set[UUID | tuple[Position, int]]] = field(default_factory=dict)  # by group
    began: datetime = field(default_factory=lambda: datetime.now(UTC))

    def expects(self, group: str, topic: str) -> bool:
        """Whether a group notes each event of a topic in an inbox."""
        return group in self.inboxes and topic in self.noted[group]


class EventLog(AbstractContextManager["EventLog"]):
    """Reads event books again and again; of topics only what is new."""

    def __init__(self, settings: OperatorSettings) -> None:
        self._settings = settings
        self._topics = TopicReader(settings.kafka_bootstrap)
        self._letters = TopicReader(settings.kafka_bootstrap)
        self._offsets = OffsetReader(settings.kafka_bootstrap)
        self._dead_letters = DeadLetters()
        self._events = EventReader(settings.schema_registry_url)
        self._books = EventBooks(
            noted={audit.service.name: audit.noted for audit in audits() if audit.service.consumes}
        )
        self.letters: Sequence[Letter] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._topics.close()
        self._letters.close()
        self._offsets.close()

    async def read(self) -> EventBooks:
        """Read on. Raises ConnectionError, OSError or an error of a client if a store can't be read.

        The order matters: what is in an outbox as published must be in a topic read later, and what a group
        has committed past must be in an inbox, or among the dead letters, read later.
        """
        books = self._books
        books.began = datetime.now(UTC)
        books.written = await self._written()
        books.committed = self._offsets.committed([each.name for each in consuming()])
        kept = [service for service in consuming() if service.store is Store.POSTGRES]
        inboxes = {service.name: await self._inbox(service) for service in kept}
        self._read_letters()
        self._read_topics()
        for service in consuming():
            if service.store is Store.REDIS:  # which is asked about the events that were found
                inboxes[service.name] = await self._redis_inbox(service)
        books.inboxes = inboxes
        return books

    async def _written(self) -> dict[UUID, Written]:
        found: dict[UUID, Written] = {}
        for service in SERVICES.values():
            if service.store is Store.POSTGRES:
                async with postgres(self._settings, service.name) as connection:
                    for event_id, *rest in await connection.fetch(_OUTBOX):
                        found[event_id] = Written(service.name, *rest)
        return found

    async def _inbox(self, service: Service) -> set[UUID]:
        async with postgres(self._settings, service.name) as connection:
            return {row["event_id"] for row in await connection.fetch(_INBOX)}

    async def _redis_inbox(self, service: Service) -> set[UUID]:
        noted = self._books.noted[service.name]
        asked = [event_id for event_id, seen in self._books.seen.items() if seen.position.topic in noted]
        async with redis(self._settings, service.name) as client:
            pipeline = client.pipeline(transaction=False)
            for event_id in asked:
                pipeline.exists(f"{service.name}:inbox:{event_id}")
            there = await pipeline.execute()
        return {event_id for event_id, found in zip(asked, there, strict=True) if found}

    def _read_letters(self) -> None:
        self.letters = self._dead_letters.read(self._letters)
        for letter in self.letters:
            parked = self._books.parked.setdefault(letter.group, set())
            if letter.origin is not None:
                position = Position(letter.origin.topic, letter.origin.partition)
                parked.add((position, letter.origin.offset))
            try:
                parked.add(self._events.envelope(letter.value).event_id)
            except Unreadable:
                continue

    def _read_topics(self) -> None:
        books = self._books
        topics = {written.topic for written in books.written.values()}
        topics |= {
            position.topic
            for group, positions in books.committed.items()
            for position in positions
            if position.topic in books.noted[group]
        }
        for message in self._topics.read(sorted(topics), newest=_NEWEST):
            self._take(message)

    def _take(self, message: Message) -> None:
        books = self._books
        position, offset = Position(message.topic() or "", message.partition() or 0), message.offset() or 0
        at = datetime.fromtimestamp(message.timestamp()[1] / 1000, UTC)
        if self._topics.cut.get(position) == offset:
            books.read_from[position.topic] = max(at, books.read_from.get(position.topic, at))
        try:
            envelope = self._events.envelope(_bytes(message.value()))
        except Unreadable:
            group = headers(message).get(ADDRESSEE_HEADER, "")
            books.garbage.append(Garbage(position, offset, group))
            return
        if envelope.event_id in books.seen:
            books.repeated[position.topic] += 1
        else:
            books.seen[envelope.event_id] = Seen(position, offset, envelope.at)


def _bytes(given: str | bytes | None) -> bytes | None:
    return given.encode() if isinstance(given, str) else given

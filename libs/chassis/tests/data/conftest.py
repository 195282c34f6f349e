"""Topics, databases and broken networks of their own for the tests of what the chassis does with data."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self
from uuid import UUID, uuid4

import asyncpg
import confluent_kafka
import orjson
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # re-exported silently
from confluent_kafka.schema_registry import AsyncSchemaRegistryClient, Schema

from stoa_chassis.avro import EventCodec
from stoa_chassis.clock import SystemClock
from stoa_chassis.kafka import Producer, dead_letter_topic
from stoa_chassis.outbox import Outbox
from stoa_chassis.postgres import Database
from stoa_chassis.postgres_uow import postgres_unit_of_work
from stoa_chassis.uow import UnitOfWork

PARTITIONS = 4


@dataclass(frozen=True)
class Noted:
    """A payload that no service knows."""

    TOPIC: ClassVar[str]
    VERSION: ClassVar[int] = 1
    SCHEMA: ClassVar[str]

    book: UUID
    line: int
    text: str = ""

    @property
    def key(self) -> str:
        return str(self.book)

    def to_dict(self) -> dict[str, Any]:
        return {"book": self.book, "line": self.line, "text": self.text}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Self:
        return cls(record["book"], record["line"], record["text"])


def schema(extra: tuple[dict[str, Any], ...] = ()) -> str:
    uuid = {"type": "string", "logicalType": "uuid"}
    payload = {
        "type": "record",
        "name": "Noted",
        "fields": [
            {"name": "book", "type": uuid},
            {"name": "line", "type": "int"},
            {"name": "text", "type": "string", "default": ""},
            *extra,
        ],
    }
    envelope = {
        "type": "record",
        "name": "NotedEvent",
        "namespace": "stoa.test",
        "fields": [
            {"name": "event_id", "type": uuid},
            {"name": "event_type", "type": "string"},
            {"name": "event_version", "type": "int"},
            {"name": "timestamp", "type": {"type": "long", "logicalType": "timestamp-micros"}},
            {"name": "correlation_id", "type": "string"},
            {"name": "payload", "type": payload},
        ],
    }
    return orjson.dumps(envelope).decode()


@dataclass
class Notes:
    """A topic of its own, with its payload, a consumer group and its dead letters."""

    payload: type[Noted]
    topic: str
    group: str
    bootstrap: str
    registry_url: str

    @property
    def dead_letters(self) -> str:
        return dead_letter_topic(self.group)

    async def register(self, text: str) -> int:
        async with AsyncSchemaRegistryClient({"url": self.registry_url}) as registry:
            number: int = await registry.register_schema(f"{self.topic}-value", Schema(text, "AVRO"))
            return number

    async def read(self, topic: str | None = None) -> list[confluent_kafka.Message]:
        """All messages that are in the topic now, in order per partition."""
        return await asyncio.to_thread(self._read, topic or self.topic)

    def _read(self, topic: str) -> list[confluent_kafka.Message]:
        reader = confluent_kafka.Consumer({"bootstrap.servers": self.bootstrap, "group.id": "reader"})
        try:
            partitions = reader.list_topics(topic, 10).topics[topic].partitions
            ends = {p: reader.get_watermark_offsets(TopicPartition(topic, p), 10)[1] for p in partitions}
            reader.assign([TopicPartition(topic, p, 0) for p in partitions])
            messages: list[confluent_kafka.Message] = []
            while len(messages) < sum(ends.values()):
                message = reader.poll(10)
                assert message is not None, "the topic can't be read to its end"
                assert message.error() is None, message.error()
                messages.append(message)
            return messages
        finally:
            reader.close()

    async def committed(self) -> int:
        """How many messages the group has committed, over all partitions."""
        return await asyncio.to_thread(self._committed)

    def _committed(self) -> int:
        reader = confluent_kafka.Consumer({"bootstrap.servers": self.bootstrap, "group.id": self.group})
        try:
            positions = reader.committed([TopicPartition(self.topic, p) for p in range(PARTITIONS)], 10)
            return sum(max(0, position.offset) for position in positions)
        finally:
            reader.close()


@pytest.fixture
async def notes(kafka_bootstrap: str, schema_registry_url: str) -> AsyncIterator[Notes]:
    """A topic that only this test uses, deployed."""
    name = uuid4().hex[:12]
    topic, group = f"test.noted.{name}", f"test-{name}"
    text = schema()
    payload = type("Noted", (Noted,), {"TOPIC": topic, "SCHEMA": text})
    notes = Notes(payload, topic, group, kafka_bootstrap, schema_registry_url)
    admin = AdminClient({"bootstrap.servers": kafka_bootstrap})
    wanted = [NewTopic(topic, PARTITIONS, 1), NewTopic(notes.dead_letters, 1, 1)]
    for created in admin.create_topics(wanted).values():
        created.result()
    await notes.register(text)
    yield notes
    for deleted in admin.delete_topics([topic, notes.dead_letters]).values():
        deleted.result()


@pytest.fixture
async def codec(notes: Notes) -> EventCodec:
    """A codec that knows the test's payload."""
    codec = EventCodec(notes.registry_url)
    await codec.load(notes.payload)
    return codec


@pytest.fixture
async def producer(kafka_bootstrap: str) -> AsyncIterator[Producer]:
    """A producer."""
    async with Producer(kafka_bootstrap) as producer:
        yield producer


@pytest.fixture
def no_migrations(tmp_path: Path) -> Path:
    """The migrations of a service that has none."""
    folder = tmp_path / "migrations"
    folder.mkdir()
    return folder


@pytest.fixture
async def database(empty_database: str, no_migrations: Path) -> AsyncIterator[Database]:
    """A database with an outbox and an inbox."""
    async with Database.connect(empty_database, no_migrations) as database:
        yield database


@dataclass
class Tx:
    """What a unit of work gives to a use case here."""

    connection: asyncpg.Connection
    outbox: Outbox

    async def publish(self, *payloads: Any) -> None:
        """What a repository does with the events of an entity that it saves."""
        self.outbox.collect(Entity(list(payloads)))


@dataclass
class Entity:
    """What was saved, with its events."""

    events: list[Any]


@pytest.fixture
def uow(database: Database, codec: EventCodec) -> UnitOfWork[Tx]:
    """Units of work on that database."""
    return postgres_unit_of_work(database, codec, Tx, SystemClock())


@dataclass
class Proxy:
    """A TCP proxy in front of a server, to cut the connection to it.

    A Kafka client connects to the address that the broker names: so the broker's address is replaced by the
    proxy's in what the broker answers.
    """

    host: str
    port: int
    own_port: int = 0
    _server: asyncio.Server | None = None
    _links: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.own_port}"

    async def restore(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.own_port)
        self.own_port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._links):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            server_reader, server_writer = await asyncio.open_connection(self.host, self.port)
            self._links |= {writer, server_writer}
            theirs, ours = (b"127.0.0.1" + port.to_bytes(4, "big") for port in (self.port, self.own_port))
            await asyncio.gather(
                _pump(reader, server_writer, lambda data: data),
                _pump(server_reader, writer, lambda data: data.replace(theirs, ours)),
            )
            self._links -= {writer, server_writer}


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, change: Callable[[bytes], bytes]
) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(change(data))
            await writer.drain()
    writer.close()


@pytest.fixture
async def proxy() -> AsyncIterator[Callable[[str], Awaitable[Proxy]]]:
    """Makes a proxy in front of a host:port."""
    proxies: list[Proxy] = []

    async def in_front_of(address: str) -> Proxy:
        host, port = address.rsplit(":", 1)
        proxies.append(Proxy(host, int(port)))
        await proxies[-1].restore()
        return proxies[-1]

    yield in_front_of
    for each in proxies:
        await each.cut()


@pytest.fixture
async def background(
    proxy: object,
) -> AsyncIterator[Callable[[Callable[[], Awaitable[None]]], "asyncio.Future[None]"]]:
    """Runs something beside the test, and stops it at the end, while its network is still there."""
    tasks: list[asyncio.Future[None]] = []

    def start(run: Callable[[], Awaitable[None]]) -> "asyncio.Future[None]":
        tasks.append(asyncio.ensure_future(run()))
        return tasks[-1]

    yield start
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

"""The use cases on a store in memory or on the real one."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from pymongo.asynchronous.collection import AsyncCollection

from stoa_chassis.avro import Event, EventCodec
from stoa_chassis.clock import SystemClock
from stoa_chassis.kafka import Producer
from stoa_chassis.memory import MemoryStore, memory_unit_of_work
from stoa_chassis.mongo import PENDING, Document, MongoOutbox, connect
from stoa_chassis.mongo_uow import mongo_unit_of_work
from stoa_chassis.uow import UnitOfWork
from stoa_contracts.events import Payload
from stoa_events import ReviewCreated
from stoa_review import ports, repository, testing
from stoa_review.model import Review
from stoa_review.service import Reviews


@dataclass(frozen=True)
class Store:
    """One of the stores, behind the ports."""

    uow: UnitOfWork[ports.Tx]
    reader: ports.ReviewReader
    published: Callable[[UUID], Awaitable[list[Event[Payload]]]]
    """What was published of a review, oldest first."""


def a_review(user_id: UUID | None = None) -> Review:
    """A review of which every field has a value of its own."""
    return Review.create(user_id or uuid4(), "A title", datetime(2026, 11, 26, 12, 30, 15, 123456, UTC))


@pytest.fixture
def memory() -> MemoryStore[testing.Rows]:
    """An empty store in memory."""
    return MemoryStore(testing.Rows())


@pytest.fixture
def in_memory(memory: MemoryStore[testing.Rows]) -> Store:
    """The ports on that store."""

    async def published(review_id: UUID) -> list[Event[Payload]]:
        return [event for event in memory.published if event.payload.key == str(review_id)]

    return Store(
        memory_unit_of_work(lambda: memory, testing.open_tx), testing.ReviewReader(lambda: memory), published
    )


@pytest.fixture(scope="module")
async def codec(schema_registry_url: str) -> EventCodec:
    """The codec of the events that the service publishes."""
    loaded = EventCodec(schema_registry_url)
    await loaded.load(ReviewCreated)
    return loaded


@pytest.fixture(scope="module")
async def collection(mongo_url: str) -> AsyncIterator[AsyncCollection[Document]]:
    """The service's collection, with its indexes, empty at first."""
    async with connect(mongo_url) as client:
        name = f"test_{uuid4().hex}"
        yield await repository.open_collection(client[name])
        await client.drop_database(name)


@pytest.fixture
async def in_mongo(
    collection: AsyncCollection[Document], codec: EventCodec, kafka_bootstrap: str
) -> AsyncIterator[Store]:
    """The ports on that collection. Its relay does not run, so that tests see what waits for it."""

    async def published(review_id: UUID) -> list[Event[Payload]]:
        document = await collection.find_one({"_id": review_id}) or {}
        return [await codec.decode(entry["topic"], bytes(entry["value"])) for entry in document[PENDING]]

    async with Producer(kafka_bootstrap) as producer:
        uow = mongo_unit_of_work(
            collection, MongoOutbox(collection, codec, producer, SystemClock()), repository.open_tx
        )
        yield Store(uow, repository.ReviewReader(collection), published)


@pytest.fixture(params=["in_memory", pytest.param("in_mongo", marks=pytest.mark.stack)])
def store(request: pytest.FixtureRequest) -> Store:
    """The ports, on one store and on the other."""
    chosen: Store = request.getfixturevalue(request.param)
    return chosen


@pytest.fixture
def reviews(in_memory: Store) -> Reviews:
    """The use cases in memory."""
    return Reviews(in_memory.uow, in_memory.reader, SystemClock())

"""The review service on a store in memory or on MongoDB, in a database that no other run uses."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from pymongo.asynchronous.collection import AsyncCollection

from stoa_chassis.avro import Event, EventCodec, new_event
from stoa_chassis.clock import SystemClock
from stoa_chassis.ids import new_id
from stoa_chassis.kafka import Producer
from stoa_chassis.memory import MemoryStore, memory_unit_of_work
from stoa_chassis.mongo import PENDING, Document, MongoOutbox, connect
from stoa_chassis.mongo_uow import mongo_unit_of_work
from stoa_chassis.testing import SettableClock
from stoa_chassis.uow import UnitOfWork
from stoa_contracts.events import Payload
from stoa_contracts.money import Money
from stoa_events import OrderBuyerChanged, OrderDelivered, ReviewRatingChanged, UserErased, UserGuestMerged
from stoa_events.types import OrderItem
from stoa_review import ports, repository, testing
from stoa_review.events import handlers
from stoa_review.model import Opinion, Place, Review, Sort
from stoa_review.service import Buying, Reading, Reviewing

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
GOOD = Opinion(5, "Bright", "It lights up\nthe whole room.", ("https://photos.example/lamp.jpg",))
BAD = Opinion(1, "Dim")


@dataclass(frozen=True)
class Store:
    """One of the stores, behind the ports. No relay runs: what was published can be looked at."""

    uow: UnitOfWork[ports.Tx]
    reader: ports.ReviewReader
    published: Callable[[UUID], Awaitable[list[Payload]]]
    """What was published of a product and its reviews: of each document the oldest first."""


@dataclass
class ReviewService:
    """A process of the service without its network; events reach it when a test says so."""

    store: Store
    moderated: bool = False
    clock: SettableClock = field(default_factory=SettableClock)

    def __post_init__(self) -> None:
        self.buying = Buying(self.store.uow)
        self.reviewing = Reviewing(self.store.uow, self.store.reader, self.clock, moderated=self.moderated)
        self.reading = Reading(self.store.reader)
        self._handlers = handlers(self.buying, self.reviewing)

    async def handle(self, payload: Payload) -> None:
        """Handle an event."""
        await self._handlers[type(payload)](new_event(payload, SystemClock(), str(new_id())))

    async def deliver(
        self, user_id: UUID, *product_ids: UUID, order_id: UUID | None = None
    ) -> OrderDelivered:
        """Let an order be delivered."""
        event = delivered(user_id, *product_ids, order_id=order_id)
        await self.handle(event)
        return event

    async def a_buyer_of(self, product_id: UUID) -> UUID:
        """A user who has received a product."""
        user_id = new_id()
        await self.deliver(user_id, product_id)
        return user_id

    async def a_review_of(self, product_id: UUID, opinion: Opinion = GOOD) -> Review:
        """A review by somebody who has received the product, a second after the one before."""
        self.clock.advance(seconds=1)
        return await self.reviewing.create(await self.a_buyer_of(product_id), product_id, None, opinion)

    async def settle(self, product_id: UUID) -> None:
        """Handle what was published of a product's reviews, and what follows from it, until nothing does."""
        known = -1
        while known != len(events := await self.store.published(product_id)):
            known = len(events)
            for event in events:
                if type(event) in self._handlers:
                    await self.handle(event)

    async def listed(
        self, product_id: UUID, sort: Sort = Sort.NEWEST, after: Place | None = None, limit: int = 100
    ) -> list[UUID]:
        """The ids of a product's reviews as they are listed."""
        found = await self.reading.of_product(product_id, sort, after, limit)
        return [listed.review.review_id for listed in found]

    async def rating(self, product_id: UUID) -> tuple[int, int]:
        """The rating that a follower of the events has in the end: the sum and how many."""
        events = await self.store.published(product_id)
        changes = [event for event in events if isinstance(event, ReviewRatingChanged)]
        last = max(changes, key=lambda change: change.version, default=None)
        return (last.total, last.count) if last is not None else (0, 0)


def delivered(user_id: UUID, *product_ids: UUID, order_id: UUID | None = None) -> OrderDelivered:
    """The event of an order that was delivered."""
    price = Money(Decimal("19.90"), "USD")
    return OrderDelivered(
        order_id=order_id or new_id(),
        user_id=user_id,
        items=tuple(
            OrderItem(product_id=product_id, variant_id=new_id(), quantity=1, price=price)
            for product_id in product_ids
        ),
        delivered_at=NOW,
    )


def erased(user_id: UUID) -> UserErased:
    """The event of an account that was erased."""
    return UserErased(user_id=user_id)


def guest_merged(guest_id: UUID, user_id: UUID) -> UserGuestMerged:
    """The event of a guest who has an account now."""
    return UserGuestMerged(guest_id=guest_id, user_id=user_id)


def buyer_changed(order_id: UUID, guest_id: UUID, user_id: UUID) -> OrderBuyerChanged:
    """The event of a guest's order that belongs to an account now."""
    return OrderBuyerChanged(order_id=order_id, guest_id=guest_id, user_id=user_id)


def of_type(events: Iterable[Payload], *types: type[Any]) -> list[Any]:
    """Those of these types."""
    return [event for event in events if isinstance(event, types)]


@pytest.fixture
def memory() -> MemoryStore[testing.Rows]:
    """An empty store in memory."""
    return MemoryStore(testing.Rows())


@pytest.fixture
def in_memory(memory: MemoryStore[testing.Rows]) -> Store:
    """The ports on that store."""

    async def published(product_id: UUID) -> list[Payload]:
        return [event.payload for event in memory.published if _is_of(event, product_id)]

    return Store(
        memory_unit_of_work(lambda: memory, testing.open_tx),
        testing.ReviewReader(lambda: memory),
        published,
    )


@pytest.fixture(scope="module")  # a later module of tests may kill the server, and the connection with it
async def collection(mongo_url: str) -> AsyncIterator[AsyncCollection[Document]]:
    """The collection, empty at first."""
    async with connect(mongo_url) as client:
        name = f"test_{uuid4().hex}"
        yield await repository.open_collection(client[name])
        await client.drop_database(name)


@pytest.fixture
def in_mongo(collection: AsyncCollection[Document], codec: EventCodec, producer: Producer) -> Store:
    """The ports on that collection, which all tests share."""

    async def published(product_id: UUID) -> list[Payload]:
        events: list[Event[Payload]] = []
        async for document in collection.find({f"{PENDING}.0": {"$exists": True}}, {PENDING: 1}):
            events += [await codec.decode(each["topic"], bytes(each["value"])) for each in document[PENDING]]
        return [event.payload for event in events if _is_of(event, product_id)]

    outbox = MongoOutbox(collection, codec, producer)
    return Store(
        mongo_unit_of_work(collection, outbox, repository.open_tx),
        repository.ReviewReader(collection),
        published,
    )


@pytest.fixture(params=["in_memory", pytest.param("in_mongo", marks=pytest.mark.stack)])
def store(request: pytest.FixtureRequest) -> Store:
    """The ports, on one store and on the other."""
    chosen: Store = request.getfixturevalue(request.param)
    return chosen


@pytest.fixture
def service(in_memory: Store) -> ReviewService:
    """The use cases in memory."""
    return ReviewService(in_memory)


@pytest.fixture
def moderated(in_memory: Store) -> ReviewService:
    """The use cases in memory, where reviews wait for staff."""
    return ReviewService(in_memory, moderated=True)


@pytest.fixture
def service_on_each(store: Store) -> ReviewService:
    """The use cases on one store and on the other."""
    return ReviewService(store)


def _is_of(event: Event[Payload], product_id: UUID) -> bool:
    payload: Any = event.payload
    return bool(payload.product_id == product_id)

"""The catalog service on stores in memory, or on MongoDB and PostgreSQL in databases of its own."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Generic, TypeVar
from uuid import UUID, uuid4

import pytest
from pymongo.asynchronous.collection import AsyncCollection

from stoa_catalog import ports, repository, testing
from stoa_catalog.hot_set import HotSet
from stoa_catalog.model import Details, Product, Rating, Variant, VariantDraft
from stoa_catalog.projector import Projector
from stoa_catalog.service import Assortment, Browsing
from stoa_chassis.avro import EventCodec
from stoa_chassis.ids import new_id
from stoa_chassis.kafka import Producer
from stoa_chassis.memory import MemoryStore, memory_unit_of_work
from stoa_chassis.mongo import PENDING, Document, MongoOutbox, connect
from stoa_chassis.mongo_uow import mongo_unit_of_work
from stoa_chassis.testing import SettableClock
from stoa_chassis.uow import UnitOfWork
from stoa_contracts.events import Payload
from stoa_contracts.money import Money

V = TypeVar("V")
NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
CURRENCY = "USD"


@dataclass(frozen=True)
class Store:
    """One of the stores, behind the ports. No relay runs: what was published can be looked at."""

    uow: UnitOfWork[ports.Tx]
    reader: ports.ProductReader
    published: Callable[[UUID], Awaitable[list[Payload]]]
    """What was published of a product, oldest first."""


@dataclass
class Catalog(Generic[V]):
    """A process of the catalog service without its network, which holds nothing yet."""

    store: Store
    present: Callable[[Product], V]
    read_model: testing.ReadModel[V] = field(default_factory=testing.ReadModel)
    form: str = "plain"
    views: testing.Views = field(default_factory=testing.Views)
    clock: SettableClock = field(default_factory=SettableClock)

    def __post_init__(self) -> None:
        self.hot = HotSet[V](1, lambda _: 1_000)
        self.projector = Projector(
            self.store.reader, self.read_model, self.hot, self.present, self.form, write_seconds=0.01
        )
        self.browsing = Browsing(self.hot, self.read_model, self.store.reader, self.projector, self.views)
        self.assortment = Assortment(self.store.uow, self.projector, self.clock, CURRENCY)
        self.read_model.follow(self.hot.changed)

    def another_process(self, **changes: Any) -> "Catalog[V]":
        """A process that starts now, on the same store and read model."""
        return Catalog(self.store, self.present, self.read_model, **changes)


def as_it_is(product: Product) -> Product:
    """The product as one finds it who did not change it."""
    return replace(product, events=[])


def details(name: str = "Lamp", category: str = "home", **others: Any) -> Details:
    """What staff says of a product."""
    return Details(name, category, **others)


def draft(price: str = "19.90", sku: str = "", variant_id: UUID | None = None, **others: Any) -> VariantDraft:
    """A variant with a SKU of its own."""
    return VariantDraft(variant_id, sku or uuid4().hex, Money(Decimal(price), CURRENCY), **others)


def as_drafts(product: Product) -> list[VariantDraft]:
    """The variants of a product as staff would send them to leave them as they are."""
    return [
        VariantDraft(v.variant_id, v.sku, v.price, v.attributes, v.images, v.weight_grams)
        for v in product.variants
    ]


def a_full_product() -> Product:
    """A product of which every field has a value of its own."""
    variants = tuple(
        Variant(
            new_id(),
            uuid4().hex,
            Money(Decimal(price), CURRENCY),
            {"colour": colour, "size": "L"},
            (f"{colour}.jpg", "back.jpg"),
            weight,
        )
        for price, colour, weight in (("19.90", "red", 850), ("9999999.99", "blue", 1_200))
    )
    return Product(
        product_id=new_id(),
        version=3,
        details=Details(
            name="Lamp",
            category="home",
            description="Bright.",
            subcategory="lights",
            brand="Lux",
            tags=("light", "new"),
            specifications={"socket": "E27", "weight": "1 kg"},
        ),
        variants=variants,
        created_at=NOW,
        updated_at=NOW + timedelta(days=1),
        rating=Rating(4.5, 2, 7),
        deleted_at=NOW + timedelta(days=2),
    )


@pytest.fixture
def memory() -> MemoryStore[testing.Rows]:
    """An empty store in memory."""
    return MemoryStore(testing.Rows())


@pytest.fixture
def in_memory(memory: MemoryStore[testing.Rows]) -> Store:
    """The ports on that store."""

    async def published(product_id: UUID) -> list[Payload]:
        return [event.payload for event in memory.published if event.payload.key == str(product_id)]

    return Store(
        memory_unit_of_work(lambda: memory, testing.open_tx),
        testing.ProductReader(lambda: memory),
        published,
    )


@pytest.fixture
async def collection(mongo_url: str) -> AsyncIterator[AsyncCollection[Document]]:
    """A collection of products, empty at first: a relay of its outbox publishes nothing of other tests."""
    async with connect(mongo_url) as client:
        name = f"test_{uuid4().hex}"
        yield await repository.open_products(client[name])
        await client.drop_database(name)


@pytest.fixture
def outbox(collection: AsyncCollection[Document], codec: EventCodec, producer: Producer) -> MongoOutbox:
    """The outbox of the documents."""
    return MongoOutbox(collection, codec, producer)


@pytest.fixture
def in_mongo(collection: AsyncCollection[Document], codec: EventCodec, outbox: MongoOutbox) -> Store:
    """The ports on that collection."""

    async def published(product_id: UUID) -> list[Payload]:
        document = await collection.find_one({"_id": product_id})
        entries = document[PENDING] if document else []
        return [(await codec.decode(entry["topic"], bytes(entry["value"]))).payload for entry in entries]

    return Store(
        mongo_unit_of_work(collection, outbox, repository.open_tx),
        repository.ProductReader(collection),
        published,
    )


@pytest.fixture(params=["in_memory", pytest.param("in_mongo", marks=pytest.mark.stack)])
def store(request: pytest.FixtureRequest) -> Store:
    """The ports, on one store and on the other."""
    chosen: Store = request.getfixturevalue(request.param)
    return chosen


@pytest.fixture
def catalog(in_memory: Store) -> Catalog[Product]:
    """The use cases in memory, in a process that nothing has happened in."""
    return Catalog(in_memory, as_it_is)


@pytest.fixture
def catalog_on_each(store: Store) -> Catalog[Product]:
    """The use cases on one store and on the other."""
    return Catalog(store, as_it_is)


@pytest.fixture
def catalog_on_mongo(in_mongo: Store) -> Catalog[Product]:
    """The use cases on MongoDB."""
    return Catalog(in_mongo, as_it_is)

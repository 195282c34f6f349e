"""The catalogue on a real document store, in a database that no other run uses."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from pymongo.asynchronous.collection import AsyncCollection

from stoa_catalog.model import Details, Product, VariantDraft
from stoa_catalog.projector import Projector
from stoa_catalog.repository import ProductReader, Products, open_products
from stoa_catalog.service import Assortment, Browsing
from stoa_catalog.views import Views
from stoa_chassis.avro import Event, EventCodec
from stoa_chassis.clock import SystemClock
from stoa_chassis.kafka import Producer
from stoa_chassis.mongo import PENDING, MongoOutbox, connect
from stoa_contracts.events import Payload
from stoa_contracts.money import Money
from stoa_events import ProductCreated, ProductDeleted, ProductUpdated, ProductViewed


def as_it_is(product: Product) -> Product:
    """The product as one finds it who did not change it."""
    return replace(product, events=[])


@dataclass
class Catalog:
    """A process of the catalog service without its network, which has not loaded anything yet.

    Its relay does not run, so that tests see what is pending.
    """

    collection: AsyncCollection[dict[str, Any]]
    codec: EventCodec
    producer: Producer
    present: Callable[[Product], Any] = as_it_is

    def __post_init__(self) -> None:
        clock = SystemClock()
        self.outbox = MongoOutbox(self.collection, self.codec, self.producer)
        self.views = Views(self.codec, self.producer, clock)
        self.reader = ProductReader(self.collection)
        self.projector = Projector(self.reader, self.present)
        self.browsing = Browsing(self.projector, self.views)
        self.assortment = Assortment(Products(self.collection, self.outbox), self.projector, clock, "USD")

    async def pending(self, product_id: UUID) -> Sequence[Event[Payload]]:
        """What waits in a document to be published."""
        document = await self.collection.find_one({"_id": product_id})
        assert document is not None
        return [await self.codec.decode(entry["topic"], bytes(entry["value"])) for entry in document[PENDING]]


def details(name: str = "Lamp", category: str = "home", **others: Any) -> Details:
    return Details(name, category, **others)


def draft(price: str = "19.90", sku: str = "", variant_id: UUID | None = None, **others: Any) -> VariantDraft:
    """A variant with a SKU of its own."""
    return VariantDraft(variant_id, sku or uuid4().hex, Money(Decimal(price), "USD"), **others)


@pytest.fixture(scope="session")
async def collection(mongo_url: str) -> AsyncIterator[AsyncCollection[dict[str, Any]]]:
    """The collection of products, empty at first."""
    async with connect(mongo_url) as client:
        name = f"test_{uuid4().hex}"
        yield await open_products(client[name])
        await client.drop_database(name)


@pytest.fixture(scope="session")
async def codec(schema_registry_url: str) -> EventCodec:
    """The codec of the events that the service publishes."""
    loaded = EventCodec(schema_registry_url)
    await loaded.load(ProductCreated, ProductUpdated, ProductDeleted, ProductViewed)
    return loaded


@pytest.fixture(scope="session")
async def producer(kafka_bootstrap: str) -> AsyncIterator[Producer]:
    """A producer on the real broker."""
    async with Producer(kafka_bootstrap) as opened:
        yield opened


@pytest.fixture
def catalog(collection: AsyncCollection[dict[str, Any]], codec: EventCodec, producer: Producer) -> Catalog:
    """The use cases, in a process that nothing has happened in."""
    return Catalog(collection, codec, producer)

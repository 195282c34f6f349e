"""Carts on a real Redis, in keys that no other run uses: users, products and events have fresh ids."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from redis.asyncio import Redis

from stoa_cart.events import handlers
from stoa_cart.model import Offer
from stoa_cart.repository import CartStore, PriceBook
from stoa_cart.service import Carts
from stoa_chassis.avro import Event, EventCodec
from stoa_chassis.clock import SystemClock
from stoa_chassis.ids import new_id
from stoa_chassis.kafka import Producer
from stoa_chassis.redis import connect
from stoa_chassis.redis_outbox import RedisOutbox
from stoa_contracts.events import Payload
from stoa_contracts.money import Money
from stoa_events import (
    CartItemAdded,
    OrderItem,
    OrderPlaced,
    ProductDeleted,
    ProductUpdated,
    ProductVariant,
)


def usd(amount: str) -> Money:
    return Money(Decimal(amount), "USD")


@dataclass
class Peers:
    """The catalog and inventory services, as far as a cart needs them."""

    offers: dict[UUID, Offer] = field(default_factory=dict)
    stock: dict[UUID, int] = field(default_factory=dict)
    down: Exception | None = None

    def sell(self, price: str = "19.90", stock: int = 1000, product_id: UUID | None = None) -> Offer:
        """Put a new variant on sale."""
        offer = Offer(product_id or new_id(), new_id(), usd(price))
        self.offers[offer.variant_id], self.stock[offer.variant_id] = offer, stock
        return offer

    async def offer(self, variant_id: UUID) -> Offer | None:
        if self.down:
            raise self.down
        return self.offers.get(variant_id)

    async def available(self, variant_id: UUID) -> int:
        if self.down:
            raise self.down
        return self.stock.get(variant_id, 0)


@dataclass
class World:
    """A cart service whose neighbours the test plays. Its relay does not run: tests see what is pending."""

    redis: Redis
    codec: EventCodec
    producer: Producer
    peers: Peers = field(default_factory=Peers)

    def __post_init__(self) -> None:
        self.outbox = RedisOutbox(self.redis, f"test:outbox:{uuid4()}", self.codec, self.producer)
        self.carts = self.another_instance()

    def another_instance(self) -> Carts:
        store, prices = CartStore(self.redis, self.outbox), PriceBook(self.redis)
        return Carts(store, prices, self.peers, self.peers, SystemClock())

    async def hear(self, payload: Payload, event_id: UUID | None = None) -> None:
        event = Event(event_id or new_id(), payload.TOPIC, 1, datetime.now(UTC), "c", payload)
        await handlers(self.carts)[type(payload)](event)

    async def pending(self) -> list[Any]:
        entries: Any = await self.redis.xrange(self.outbox.stream)
        return [
            (await self.codec.decode(fields[b"topic"].decode(), fields[b"value"])).payload
            for _, fields in entries
        ]


def ordered(user_id: UUID, *items: tuple[Offer, int]) -> OrderPlaced:
    lines = tuple(
        OrderItem(
            product_id=offer.product_id,
            variant_id=offer.variant_id,
            quantity=quantity,
            price=offer.price,
        )
        for offer, quantity in items
    )
    return OrderPlaced(
        order_id=new_id(), user_id=user_id, items=lines, total_amount=Money(Decimal("1.00"), "USD")
    )


def repriced(offer: Offer, price: str, version: int) -> ProductUpdated:
    at = datetime.now(UTC)
    variant = ProductVariant(
        variant_id=offer.variant_id,
        sku="L-1",
        attributes={},
        price=Money(Decimal(price), "USD"),
        images=(),
    )
    return ProductUpdated(
        product_id=offer.product_id,
        version=version,
        name="Lamp",
        description="",
        category="home",
        subcategory="",
        brand="",
        tags=(),
        variants=(variant,),
        specifications={},
        created_at=at,
        updated_at=at,
    )


def deleted(offer: Offer, version: int) -> ProductDeleted:
    return ProductDeleted(product_id=offer.product_id, version=version, variant_ids=(offer.variant_id,))


@pytest.fixture(scope="session")
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with connect(redis_url) as client:
        yield client


@pytest.fixture(scope="session")
async def codec(schema_registry_url: str) -> EventCodec:
    loaded = EventCodec(schema_registry_url)
    await loaded.load(CartItemAdded)
    return loaded


@pytest.fixture
async def world(redis: Redis, codec: EventCodec) -> AsyncIterator[World]:
    # The relay that would publish is the chassis' and tested there: no broker is needed.
    world = World(redis, codec, Producer("127.0.0.1:1"))
    yield world
    await redis.delete(world.outbox.stream)

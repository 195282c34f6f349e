"""The cart service on a store in memory or on Redis, in keys that no other run uses: ids are fresh."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from redis.asyncio import Redis

from stoa_cart import ports, repository, testing
from stoa_cart.events import handlers
from stoa_cart.model import Cart, CartBusy, Checkout, Claim, ClaimState, Handover, Item, Offer
from stoa_cart.service import Carts
from stoa_cart.testing import Shelf
from stoa_chassis.avro import Event, EventCodec
from stoa_chassis.ids import new_id
from stoa_chassis.kafka import Producer
from stoa_chassis.memory import MemoryStore, memory_unit_of_work
from stoa_chassis.redis import connect
from stoa_chassis.redis_outbox import RedisOutbox
from stoa_chassis.redis_uow import redis_unit_of_work
from stoa_chassis.testing import SettableClock
from stoa_chassis.uow import UnitOfWork
from stoa_contracts.events import Payload
from stoa_contracts.money import Money
from stoa_events import (
    Address,
    OrderCancelled,
    OrderConfirmed,
    OrderItem,
    OrderPlaced,
    ProductDeleted,
    ProductUpdated,
    ProductVariant,
)

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
CURRENCY = "USD"
CLAIM_FOR = timedelta(minutes=1)
NOWHERE = Address(recipient="", line1="", line2="", city="", region="", postal_code="", country="")


def usd(amount: str | Decimal) -> Money:
    return Money(Decimal(amount), CURRENCY)


@dataclass(frozen=True)
class Store:
    """One of the stores, behind the ports. No relay runs: what was published can be looked at."""

    uow: UnitOfWork[ports.Tx]
    reader: ports.CartReader
    prices: ports.PriceBook
    published: Callable[[], Awaitable[list[Payload]]]


@dataclass
class CartService:
    """The cart service without its network, and the services that it asks."""

    store: Store
    shelf: Shelf = field(default_factory=lambda: Shelf(CURRENCY))
    clock: SettableClock = field(default_factory=SettableClock)

    def __post_init__(self) -> None:
        self.carts = self.another_process()

    def another_process(self) -> Carts:
        """The use cases in another process on the same store."""
        store = self.store
        return Carts(store.uow, store.reader, store.prices, self.shelf, self.shelf, self.clock, CLAIM_FOR)

    async def checkout(self, user_id: UUID, request_id: str = "r") -> Checkout:
        """Read a cart as a request to place an order does."""
        return await self.carts.for_checkout(user_id, request_id)

    async def order(self, user_id: UUID, request_id: str = "r") -> OrderPlaced:
        """Claim what is in a cart, and return the event of the order of it."""
        checkout = await self.checkout(user_id, request_id)
        claim, _ = await self.carts.claim(user_id, request_id, new_id(), checkout.version)
        return placed(user_id, checkout.cart.items, claim.order_id)

    async def handle(self, payload: Payload, event_id: UUID | None = None) -> None:
        """Let an event come in."""
        event = Event(event_id or new_id(), payload.TOPIC, 1, self.clock.now(), "c", payload)
        await handlers(self.carts)[type(payload)](event)


def contents(cart: Cart) -> dict[UUID, int]:
    """How many of each variant are in a cart."""
    return {item.variant_id: item.quantity for item in cart.items}


def a_full_cart() -> Cart:
    """A cart of which every field has a value of its own."""
    items = [Item(new_id(), new_id(), new_id(), n, usd(f"{n}.90")) for n in (2, 3)]
    claimed = (Item(new_id(), new_id(), new_id(), 4, usd("4.90"), available=False),)
    claims = [
        Claim(new_id(), ClaimState.OVER, "a-request"),
        Claim(new_id(), ClaimState.OPEN, "another", "0123", claimed, NOW + timedelta(days=365_000)),
    ]
    handover = Handover(new_id(), new_id(), claimed, tuple(claims))
    return Cart(new_id(), CURRENCY, items, NOW, claims, handover, {new_id(): new_id()}, [new_id()])


def ordered(user_id: UUID, *items: tuple[Offer, int]) -> OrderPlaced:
    """The event of an order of these things that claimed nothing."""
    return placed(
        user_id,
        [
            Item(new_id(), offer.product_id, offer.variant_id, quantity, offer.price)
            for offer, quantity in items
        ],
    )


def placed(user_id: UUID, items: Iterable[Item], order_id: UUID | None = None) -> OrderPlaced:
    """The event of an order of these lines."""
    lines = tuple(
        OrderItem(
            product_id=item.product_id, variant_id=item.variant_id, quantity=item.quantity, price=item.price
        )
        for item in items
    )
    return OrderPlaced(order_id=order_id or new_id(), user_id=user_id, items=lines, total_amount=usd("1.00"))


def confirmed(order: OrderPlaced) -> OrderConfirmed:
    """The event of its confirmation."""
    return OrderConfirmed(
        order_id=order.order_id,
        user_id=order.user_id,
        items=order.items,
        total_amount=order.total_amount,
        shipping_address=NOWHERE,
        shipping_method="standard",
    )


def cancelled(order: OrderPlaced) -> OrderCancelled:
    """The event of its cancellation."""
    return OrderCancelled(
        order_id=order.order_id,
        user_id=order.user_id,
        items=order.items,
        total_amount=order.total_amount,
        reason="payment failed",
    )


def repriced(offer: Offer, price: str, version: int) -> ProductUpdated:
    """The event of a new price of the only variant of a product."""
    variant = ProductVariant(
        variant_id=offer.variant_id, sku="L-1", attributes={}, price=usd(price), images=()
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
        created_at=NOW,
        updated_at=NOW,
    )


def deleted(offer: Offer, version: int) -> ProductDeleted:
    """The event of a product that was taken off sale."""
    return ProductDeleted(product_id=offer.product_id, version=version, variant_ids=(offer.variant_id,))


@pytest.fixture
def memory() -> MemoryStore[testing.Rows]:
    """An empty store in memory."""
    return MemoryStore(testing.Rows())


@pytest.fixture
def in_memory(memory: MemoryStore[testing.Rows]) -> Store:
    """The ports on that store."""

    async def published() -> list[Payload]:
        return [event.payload for event in memory.published]

    return Store(
        memory_unit_of_work(lambda: memory, testing.open_tx(CURRENCY)),
        testing.CartReader(lambda: memory, CURRENCY),
        testing.PriceBook(lambda: memory),
        published,
    )


@pytest.fixture(scope="session")
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """A client of the key-value store."""
    async with connect(redis_url) as client:
        yield client


@pytest.fixture
async def in_redis(redis: Redis, codec: EventCodec) -> AsyncIterator[Store]:
    """The ports on Redis, with an outbox and an inbox of their own."""
    name = f"test:{uuid4()}"
    # The relay that would publish is the chassis' and tested there: no broker is needed.
    outbox = RedisOutbox(redis, f"{name}:outbox", codec, Producer("127.0.0.1:1"))

    async def published() -> list[Payload]:
        entries: Any = await redis.xrange(outbox.stream)
        return [
            (await codec.decode(fields[b"topic"].decode(), fields[b"value"])).payload for _, fields in entries
        ]

    yield Store(
        redis_unit_of_work(redis, outbox, f"{name}:inbox", repository.open_tx(CURRENCY), CartBusy),
        repository.CartReader(redis, CURRENCY),
        repository.PriceBook(redis),
        published,
    )
    await redis.delete(outbox.stream)


@pytest.fixture(params=["in_memory", pytest.param("in_redis", marks=pytest.mark.stack)])
def store(request: pytest.FixtureRequest) -> Store:
    """The ports, on one store and on the other."""
    chosen: Store = request.getfixturevalue(request.param)
    return chosen


@pytest.fixture
def service(in_memory: Store) -> CartService:
    """The use cases in memory."""
    return CartService(in_memory)


@pytest.fixture
def service_on_each(store: Store) -> CartService:
    """The use cases on one store and on the other."""
    return CartService(store)


@pytest.fixture
def service_on_redis(in_redis: Store) -> CartService:
    """The use cases on Redis."""
    return CartService(in_redis)

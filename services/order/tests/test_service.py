"""Orders on a real PostgreSQL: what is stored, what is published, and what a crash leaves."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from stoa_chassis.auth import Principal
from stoa_chassis.avro import Event, EventCodec
from stoa_chassis.errors import Unavailable
from stoa_chassis.ids import new_id
from stoa_chassis.inbox import AlreadyProcessed
from stoa_chassis.migrations import service_migrations
from stoa_chassis.postgres import Database
from stoa_contracts.money import Money
from stoa_events import (
    InventoryReserved,
    OrderCancelled,
    OrderConfirmed,
    OrderPlaced,
    PaymentRefunded,
    PaymentSuccessful,
)
from stoa_order.engine import SagaEngine
from stoa_order.events import handlers
from stoa_order.model import Address, CartEmpty, CartLine, Offer, Order, OrderNotFound, Status, Tariff
from stoa_order.replay import replay
from stoa_order.repository import OrderReader, unit_of_work
from stoa_order.saga import Patience
from stoa_order.service import Orders, PlaceOrder

pytestmark = pytest.mark.stack

ADDRESS = Address("Ada Lovelace", "1 Engine Row", "", "London", "", "N1", "GB")
TARIFF = Tariff({"standard": Money(Decimal("4.90"), "USD")}, Decimal("0.08"))
MINUTE = timedelta(minutes=1)


@dataclass
class Peers:
    """The cart, catalog, user and payment services, as far as an order needs them."""

    cart: list[CartLine] = field(default_factory=list)
    charged: list[tuple[UUID, str | None]] = field(default_factory=list)
    refunded: list[UUID] = field(default_factory=list)
    down: bool = False

    async def lines(self, user_id: UUID) -> Sequence[CartLine]:
        return self.cart

    async def offers(self, variant_ids: Sequence[UUID]) -> Sequence[Offer]:
        return [Offer(line.product_id, line.variant_id, "Lamp", line.price) for line in self.cart]

    async def address(self, user_id: UUID, address_id: UUID) -> Address:
        return ADDRESS

    async def charge(self, order: Order, payment_token: str | None) -> None:
        self.charged.append((order.order_id, payment_token))
        if self.down:
            raise Unavailable("payment is down")

    async def refund(self, order: Order, payment_token: str | None) -> None:
        self.refunded.append(order.order_id)


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.time = datetime(2026, 11, 24, 12, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time


@dataclass
class World:
    """An order service whose neighbours the test plays."""

    database: Database
    orders: Orders
    reader: OrderReader
    engine: SagaEngine
    peers: Peers
    clock: Clock
    uow: Any

    async def place(self, request_id: str = "r", user_id: UUID | None = None) -> Order:
        command = PlaceOrder(user_id or new_id(), request_id, ADDRESS, "standard", "tok_visa")
        return await self.orders.place(command)

    async def hear(self, payload: Any, event_id: UUID | None = None) -> None:
        event = Event(event_id or new_id(), payload.TOPIC, 1, self.clock.now(), "c", payload)
        await handlers(self.orders)[type(payload)](event)
        await asyncio.sleep(0)  # the engine asks in the background

    async def published(self, order: Order) -> list[str]:
        rows = await self.database.fetch(
            "SELECT topic FROM outbox WHERE key = $1 ORDER BY id", str(order.order_id)
        )
        return [row["topic"] for row in rows]

    async def status(self, order: Order) -> Status:
        found = await self.reader.get(order.order_id)
        assert found
        return found.status


@pytest.fixture(scope="module")
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database.connect(database_url, service_migrations("order")) as database:
        yield database


@pytest.fixture(scope="module")
async def codec(schema_registry_url: str) -> EventCodec:
    codec = EventCodec(schema_registry_url)
    await codec.load(OrderPlaced, OrderConfirmed, OrderCancelled)
    return codec


@pytest.fixture
async def world(database: Database, codec: EventCodec) -> World:
    peers, clock = Peers([CartLine(new_id(), new_id(), 2, Money(Decimal("19.90"), "USD"))]), Clock()
    uow = unit_of_work(database, codec, Patience(stock=MINUTE, payment=MINUTE), timedelta(seconds=5))
    engine = SagaEngine(uow, peers, clock)
    reader = OrderReader(database)
    orders = Orders(uow, reader, engine, clock, TARIFF, peers, peers, peers)
    return World(database, orders, reader, engine, peers, clock, uow)


def reserved(order: Order) -> InventoryReserved:
    return InventoryReserved(order_id=order.order_id, items=())


def paid(order: Order) -> PaymentSuccessful:
    return PaymentSuccessful(
        payment_id=new_id(),
        order_id=order.order_id,
        user_id=order.user_id,
        amount=order.amounts.total,
        brand="visa",
        last4="4242",
    )


def as_user(order: Order) -> Principal:
    return Principal(str(order.user_id), frozenset({"customer"}))


async def test_the_projections_say_the_same_as_the_event_store(world: World) -> None:
    order = await world.place()
    await world.hear(reserved(order))
    await world.hear(paid(order))
    async with world.uow.begin() as tx:
        told = await tx.orders.get(order.order_id)
    assert await world.reader.get(order.order_id) == told
    assert told.status is Status.CONFIRMED


async def test_the_same_request_gives_the_same_order_even_with_an_empty_cart(
    world: World,
) -> None:
    buyer = new_id()
    first = await world.place("again", buyer)
    world.peers.cart = []
    assert await world.place("again", buyer) == await world.reader.get(first.order_id)
    with pytest.raises(CartEmpty):
        await world.place("another", buyer)


async def test_twenty_of_the_same_request_at_once_give_one_order(world: World) -> None:
    buyer = new_id()
    orders = await asyncio.gather(*(world.place("at once", buyer) for _ in range(20)))
    assert len({order.order_id for order in orders}) == 1
    assert await world.published(orders[0]) == ["order.placed"]


async def test_a_whole_order_takes_at_most_twelve_statements(world: World) -> None:
    before = world.database.statements
    order = await world.place()
    await world.hear(reserved(order))
    await world.hear(paid(order))
    assert await world.status(order) is Status.CONFIRMED
    assert world.database.statements - before - 1 <= 12  # the last one looked


async def test_a_reserved_order_is_charged_with_its_token_which_is_then_forgotten(world: World) -> None:
    order = await world.place()
    await world.hear(reserved(order))
    assert world.peers.charged == [(order.order_id, "tok_visa")]
    await world.hear(paid(order))
    kept = await world.database.fetchval("SELECT count(*) FROM sagas WHERE order_id = $1", order.order_id)
    assert kept == 0
    assert await world.published(order) == ["order.placed", "order.confirmed"]


async def test_an_event_that_is_delivered_again_takes_effect_once(world: World) -> None:
    order = await world.place()
    event_id = new_id()
    await world.hear(reserved(order), event_id)
    with pytest.raises(AlreadyProcessed):
        await world.hear(reserved(order), event_id)
    assert len(world.peers.charged) == 1


async def test_an_event_that_changes_nothing_asks_for_nothing(world: World) -> None:
    order = await world.place()
    await world.hear(reserved(order))
    await world.hear(reserved(order))
    assert world.peers.charged == [(order.order_id, "tok_visa")]


async def test_a_charge_that_was_never_asked_for_because_of_a_crash_is_asked_for_later(world: World) -> None:
    world.peers.down = True
    order = await world.place()
    await world.hear(reserved(order))
    world.peers.charged.clear()
    world.peers.down = False
    await world.engine.look()
    assert world.peers.charged == []  # not due yet
    world.clock.time += timedelta(seconds=6)
    await world.engine.look()
    await asyncio.sleep(0)
    assert (order.order_id, "tok_visa") in world.peers.charged


async def test_stock_that_is_not_reserved_in_time_cancels(world: World) -> None:
    order = await world.place()
    world.clock.time += MINUTE
    await world.engine.look()
    assert await world.status(order) is Status.CANCELLED
    assert await world.published(order) == ["order.placed", "order.cancelled"]


async def test_a_payment_that_comes_after_its_deadline_is_refunded_until_that_is_heard(world: World) -> None:
    order = await world.place()
    await world.hear(reserved(order))
    world.clock.time += MINUTE
    await world.engine.look()
    assert await world.status(order) is Status.CANCELLED
    late = paid(order)
    await world.hear(late)
    world.clock.time += timedelta(minutes=5)
    await world.engine.look()
    await asyncio.sleep(0)
    assert world.peers.refunded == [order.order_id] * 2
    amount = order.amounts.total
    await world.hear(
        PaymentRefunded(
            payment_id=late.payment_id,
            refund_id=new_id(),
            order_id=order.order_id,
            user_id=order.user_id,
            amount=amount,
            total_refunded=amount,
            fully_refunded=True,
        )
    )
    world.clock.time += timedelta(minutes=5)
    await world.engine.look()
    assert world.peers.refunded == [order.order_id] * 2


async def test_confirming_and_cancelling_at_the_same_moment_end_in_one_story(world: World) -> None:
    for _ in range(10):
        order = await world.place(str(new_id()))
        await world.hear(reserved(order))
        await asyncio.gather(
            world.hear(paid(order)), world.orders.cancel(order.order_id, "no", as_user(order))
        )
        found = await world.reader.get(order.order_id)
        assert found
        assert found.status is Status.CANCELLED
        assert found.payment
        assert found.payment.holds_money
        step = await world.database.fetchval("SELECT step FROM sagas WHERE order_id = $1", order.order_id)
        assert step == "refund"


async def test_two_instances_never_take_up_the_same_saga_at_once(world: World) -> None:
    orders = [await world.place(str(number)) for number in range(10)]
    for order in orders:
        await world.hear(reserved(order))
    world.peers.charged.clear()
    world.clock.time += timedelta(seconds=6)
    other = SagaEngine(world.uow, world.peers, world.clock)
    await asyncio.gather(world.engine.look(), other.look())
    await asyncio.sleep(0)
    mine = {order.order_id for order in orders}
    asked = [order_id for order_id, _ in world.peers.charged if order_id in mine]
    assert len(asked) == len(set(asked)) == 10


async def test_an_order_is_shown_to_its_buyer_and_staff_and_nobody_else(world: World) -> None:
    order = await world.place()
    staff = Principal("s", frozenset({"staff"}))
    assert (await world.orders.get(order.order_id, as_user(order))).order_id == order.order_id
    assert (await world.orders.get(order.order_id, staff)).order_id == order.order_id
    for use_case in (
        world.orders.get(order.order_id, Principal("someone")),
        world.orders.cancel(order.order_id, "", Principal("someone")),
        world.orders.get(new_id(), staff),
    ):
        with pytest.raises(OrderNotFound):
            await use_case


async def test_a_replay_rebuilds_what_was_lost_and_touches_nothing_else(world: World) -> None:
    kept, broken, lost = [await world.place(str(number)) for number in range(3)]
    await world.hear(reserved(kept))
    before = [await world.reader.get(order.order_id) for order in (kept, broken, lost)]
    await world.database.execute("UPDATE orders SET status = 'shipped' WHERE order_id = $1", broken.order_id)
    for table in ("order_items", "order_status_history", "orders"):
        await world.database.execute(f"DELETE FROM {table} WHERE order_id = $1", lost.order_id)

    report = await replay(world.uow, world.reader)
    assert set(report.differed) == {broken.order_id, lost.order_id}
    assert [await world.reader.get(order.order_id) for order in (kept, broken, lost)] == before
    assert not (await replay(world.uow, world.reader)).differed


async def test_the_event_store_only_grows(world: World) -> None:
    order = await world.place()
    for change in ("UPDATE order_events SET type = 'x'", "DELETE FROM order_events"):
        with pytest.raises(Exception, match="only grows"):
            await world.database.execute(f"{change} WHERE order_id = $1", order.order_id)


async def test_a_list_goes_from_the_newest_to_the_oldest(world: World) -> None:
    buyer = new_id()
    placed = [(await world.place(str(number), buyer)).order_id for number in range(3)]
    listed = await world.orders.list(user_id=buyer, limit=2)
    rest = await world.orders.list(user_id=buyer, before=listed[-1].order_id, limit=2)
    assert [order.order_id for order in (*listed, *rest)] == placed[::-1]
    assert not await world.orders.list(user_id=buyer, status="confirmed", limit=2)

"""What only a real database shows: its row locks under concurrent orders, and what a use case costs it."""

import asyncio
import random
from collections import Counter
from decimal import Decimal
from uuid import UUID

import asyncpg
import pytest

from stoa_chassis.avro import EventCodec, new_event
from stoa_chassis.ids import new_id
from stoa_chassis.postgres import Database
from stoa_chassis.postgres_uow import postgres_unit_of_work
from stoa_chassis.testing import SettableClock
from stoa_contracts.events import Payload
from stoa_contracts.money import Money
from stoa_events import OrderCancelled, OrderItem, OrderPlaced, OrderReturned, OrderShipped
from stoa_inventory import repository
from stoa_inventory.events import handlers
from stoa_inventory.service import Inventory
from stoa_inventory.testing import FakeCatalog

pytestmark = pytest.mark.stack

PRICE = Money(Decimal("10.00"), "USD")


@pytest.fixture
def inventory(database: Database, codec: EventCodec, catalog: FakeCatalog, clock: SettableClock) -> Inventory:
    uow = postgres_unit_of_work(database, codec, repository.open_tx, clock)
    return Inventory(uow, repository.StockReader(database), catalog, clock)


async def a_variant(inventory: Inventory, catalog: FakeCatalog, count: int) -> UUID:
    variant_id = new_id()
    catalog.products[variant_id] = new_id()
    await inventory.adjust(variant_id, count, "delivery", "first")
    return variant_id


def items(*variant_ids: UUID) -> tuple[OrderItem, ...]:
    return tuple(
        OrderItem(product_id=new_id(), variant_id=variant_id, quantity=1, price=PRICE)
        for variant_id in variant_ids
    )


def placed(*variant_ids: UUID) -> OrderPlaced:
    return OrderPlaced(order_id=new_id(), user_id=new_id(), items=items(*variant_ids), total_amount=PRICE)


def cancelled(order: OrderPlaced) -> OrderCancelled:
    return OrderCancelled(
        order_id=order.order_id, user_id=order.user_id, items=(), total_amount=PRICE, reason=""
    )


async def handle(inventory: Inventory, payload: Payload) -> None:
    await handlers(inventory)[type(payload)](new_event(payload, SettableClock(), "a-request"))


async def counts(inventory: Inventory, *variant_ids: UUID) -> list[tuple[int, int]]:
    stocks = [await inventory.get(variant_id) for variant_id in variant_ids]
    return [(stock.stock_count, stock.reserved_count) for stock in stocks]


async def test_fifty_orders_at_once_for_ten_leave_ten_reserved_and_forty_refused(
    inventory: Inventory, catalog: FakeCatalog, database: Database
) -> None:
    lamp = await a_variant(inventory, catalog, 10)
    orders = [placed(lamp) for _ in range(50)]
    await asyncio.gather(*(handle(inventory, order) for order in orders))
    keys = [str(order.order_id) for order in orders]
    rows = await database.fetch("SELECT topic FROM outbox WHERE key = ANY ($1)", keys)
    assert Counter(row["topic"] for row in rows) == {"inventory.reserved": 10, "inventory.out_of_stock": 40}
    assert await counts(inventory, lamp) == [(10, 10)]


async def test_orders_with_the_same_variants_in_opposite_order_do_not_wait_for_each_other(
    inventory: Inventory, catalog: FakeCatalog
) -> None:
    variant_ids = [await a_variant(inventory, catalog, 1000) for _ in range(5)]
    orders = [placed(*random.sample(variant_ids, 5)) for _ in range(30)]
    await asyncio.gather(*(handle(inventory, order) for order in orders))
    assert await counts(inventory, *variant_ids) == [(1000, 30)] * 5


async def test_placing_and_cancelling_at_the_same_moment_leave_nothing_reserved(
    inventory: Inventory, catalog: FakeCatalog
) -> None:
    lamp = await a_variant(inventory, catalog, 100)
    orders = [placed(lamp) for _ in range(20)]
    payloads: list[Payload] = []
    for order in orders:
        both: list[Payload] = [order, cancelled(order)]
        payloads += random.sample(both, 2)
    await asyncio.gather(*(handle(inventory, payload) for payload in payloads))
    assert await counts(inventory, lamp) == [(100, 0)]


async def test_an_adjustment_asked_for_at_once_counts_once(
    inventory: Inventory, catalog: FakeCatalog
) -> None:
    lamp = await a_variant(inventory, catalog, 1)
    await asyncio.gather(*(inventory.adjust(lamp, 5, "delivery", "r1") for _ in range(10)))
    assert await counts(inventory, lamp) == [(6, 0)]


async def test_what_happens_to_an_order_takes_few_statements(
    inventory: Inventory, catalog: FakeCatalog, database: Database
) -> None:
    variant_ids = [await a_variant(inventory, catalog, 100) for _ in range(4)]
    order, other = placed(*variant_ids), placed(*variant_ids)
    costs: list[int] = []
    for payload in (
        order,
        placed(new_id()),
        OrderShipped(order_id=order.order_id, user_id=order.user_id, items=order.items),
        OrderReturned(order_id=order.order_id, user_id=order.user_id, items=order.items),
        other,
        cancelled(other),
    ):
        before = database.statements
        await handle(inventory, payload)
        costs.append(database.statements - before)
    assert costs == [5, 5, 4, 5, 5, 5]


async def test_movements_are_never_changed(
    inventory: Inventory, catalog: FakeCatalog, database: Database
) -> None:
    lamp = await a_variant(inventory, catalog, 1)
    for change in ("UPDATE stock_movements SET stock_delta = 5", "DELETE FROM stock_movements"):
        with pytest.raises(asyncpg.RaiseError, match="only grows"):
            await database.execute(f"{change} WHERE variant_id = $1", lamp)

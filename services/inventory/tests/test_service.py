"""Inventory on a real PostgreSQL: never oversold, nothing counted twice, whatever comes in whatever order."""

import asyncio
import random
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from stoa.catalog.v1.catalog_pb2 import BatchGetVariantsRequest, BatchGetVariantsResponse, Variant
from stoa.catalog.v1.catalog_pb2_grpc import (
    CatalogServiceServicer,
    CatalogServiceStub,
    add_CatalogServiceServicer_to_server,
)
from stoa_chassis.ids import new_id
from stoa_chassis.inbox import AlreadyProcessed
from stoa_chassis.testing import serve_in_process
from stoa_contracts.money import Money
from stoa_events import (
    OrderCancelled,
    OrderItem,
    OrderPlaced,
    OrderReturned,
    OrderShipped,
    ProductCreated,
    ProductUpdated,
    ProductVariant,
)
from stoa_inventory.model import NotReserved, RequestReused, StockReserved, VariantNotFound
from stoa_inventory.peers import Catalog

pytestmark = pytest.mark.stack

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
PRICE = Money(Decimal("10.00"), "USD")


def placed(*wanted: tuple[UUID, int], order_id: UUID | None = None) -> OrderPlaced:
    items = tuple(
        OrderItem(product_id=new_id(), variant_id=variant_id, quantity=quantity, price=PRICE)
        for variant_id, quantity in wanted
    )
    return OrderPlaced(order_id=order_id or new_id(), user_id=new_id(), items=items, total_amount=PRICE)


def cancelled(order_id: UUID) -> OrderCancelled:
    items: tuple[OrderItem, ...] = ()
    return OrderCancelled(order_id=order_id, user_id=new_id(), items=items, total_amount=PRICE, reason="")


def shipped(order_id: UUID) -> OrderShipped:
    return OrderShipped(order_id=order_id, user_id=new_id(), items=())


def returned(order_id: UUID, *items: tuple[UUID, int]) -> OrderReturned:
    return OrderReturned(
        order_id=order_id,
        user_id=new_id(),
        items=tuple(
            OrderItem(product_id=new_id(), variant_id=variant_id, quantity=quantity, price=PRICE)
            for variant_id, quantity in items
        ),
    )


async def test_fifty_orders_at_once_for_ten_leave_ten_reserved_and_forty_refused(world: Any) -> None:
    lamp = await world.variant(10)
    orders = [placed((lamp, 1)) for _ in range(50)]
    await asyncio.gather(*(world.hear(order) for order in orders))
    answers = Counter([topic for order in orders for topic in await world.answers(order.order_id)])
    assert answers == {"inventory.reserved": 10, "inventory.out_of_stock": 40}
    assert await world.counts(lamp) == (10, 10)


async def test_orders_with_the_same_variants_in_opposite_order_do_not_wait_for_each_other(
    world: Any,
) -> None:
    variants = [await world.variant(1000) for _ in range(5)]
    orders = []
    for _ in range(30):
        random.shuffle(variants)
        orders.append(placed(*((variant_id, 1) for variant_id in variants)))
    await asyncio.gather(*(world.hear(order) for order in orders))
    assert [await world.counts(variant_id) for variant_id in variants] == [(1000, 30)] * 5


async def test_the_same_variant_on_two_lines_is_not_oversold(world: Any) -> None:
    lamp = await world.variant(3)
    order = placed((lamp, 2), (lamp, 2))
    await world.hear(order)
    assert await world.answers(order.order_id) == ["inventory.out_of_stock"]
    await world.hear(order := placed((lamp, 2), (lamp, 1)))
    assert await world.answers(order.order_id) == ["inventory.reserved"]
    assert await world.counts(lamp) == (3, 3)


async def test_a_repeated_event_counts_once(world: Any) -> None:
    lamp = await world.variant(5)
    order, event_id = placed((lamp, 2)), new_id()
    await world.hear(order, event_id)
    with pytest.raises(AlreadyProcessed):
        await world.hear(order, event_id)
    await world.hear(order)  # the same order under another event id
    assert await world.counts(lamp) == (5, 2)
    assert await world.answers(order.order_id) == ["inventory.reserved"]


async def test_cancelling_releases_once(world: Any) -> None:
    lamp = await world.variant(5)
    order = placed((lamp, 2))
    await world.hear(order)
    await world.hear(cancelled(order.order_id))
    await world.hear(cancelled(order.order_id))
    assert await world.counts(lamp) == (5, 0)


async def test_an_order_that_was_cancelled_before_it_was_heard_of_reserves_nothing(world: Any) -> None:
    lamp = await world.variant(5)
    order = placed((lamp, 2))
    await world.hear(cancelled(order.order_id))
    await world.hear(order)
    assert await world.counts(lamp) == (5, 0)
    assert await world.answers(order.order_id) == []


async def test_placing_and_cancelling_at_the_same_moment_leave_nothing_reserved(world: Any) -> None:
    lamp = await world.variant(100)
    orders = [placed((lamp, 1)) for _ in range(20)]
    await asyncio.gather(
        *(
            world.hear(event)
            for order in orders
            for event in random.sample([order, cancelled(order.order_id)], 2)
        )
    )
    assert await world.counts(lamp) == (100, 0)


async def test_goods_that_leave_are_counted_off_and_goods_that_return_on_again(world: Any) -> None:
    lamp = await world.variant(5)
    order = placed((lamp, 2))
    await world.hear(order)
    await world.hear(shipped(order.order_id))
    assert await world.counts(lamp) == (3, 0)
    await world.hear(cancelled(order.order_id))  # too late
    assert await world.counts(lamp) == (3, 0)
    await world.hear(returned(order.order_id, (lamp, 2)))
    await world.hear(returned(order.order_id, (lamp, 2)))
    assert await world.counts(lamp) == (5, 0)


async def test_what_comes_back_in_parts_is_counted_part_by_part_and_never_more_than_left(
    world: Any,
) -> None:
    lamp, chair = await world.variant(5), await world.variant(5)
    order = placed((lamp, 3), (chair, 1))
    await world.hear(order)
    await world.hear(shipped(order.order_id))
    await world.hear(returned(order.order_id, (lamp, 1)))
    assert (await world.counts(lamp), await world.counts(chair)) == ((3, 0), (4, 0))
    await world.hear(returned(order.order_id, (lamp, 1), (lamp, 4), (new_id(), 1)))
    await world.hear(shipped(order.order_id))
    assert (await world.counts(lamp), await world.counts(chair)) == ((5, 0), (4, 0))
    await world.hear(returned(order.order_id, (chair, 1)))
    assert (await world.counts(lamp), await world.counts(chair)) == ((5, 0), (5, 0))


async def test_goods_of_an_order_that_has_none_are_for_a_person_to_look_at(world: Any) -> None:
    lamp = await world.variant(5)
    for order in (placed((lamp, 6)), placed((lamp, 1))):
        for event in (shipped(order.order_id), returned(order.order_id, (lamp, 1))):
            with pytest.raises(NotReserved):
                await world.hear(event)
        await world.hear(order)
        await world.hear(cancelled(order.order_id))
        with pytest.raises(NotReserved):
            await world.hear(shipped(order.order_id))
    assert await world.counts(lamp) == (5, 0)


async def test_a_shipment_that_was_heard_too_early_counts_when_it_is_tried_again(world: Any) -> None:
    lamp = await world.variant(5)
    order, event_id = placed((lamp, 2)), new_id()
    with pytest.raises(NotReserved):
        await world.hear(shipped(order.order_id), event_id)
    await world.hear(order)
    await world.hear(shipped(order.order_id), event_id)
    assert await world.counts(lamp) == (3, 0)


async def test_a_return_that_is_heard_before_the_shipment_balances(world: Any) -> None:
    lamp = await world.variant(5)
    order = placed((lamp, 2))
    await world.hear(order)
    await world.hear(returned(order.order_id, (lamp, 2)))
    await world.hear(shipped(order.order_id))
    assert await world.counts(lamp) == (5, 0)


async def test_an_adjustment_counts_once_for_each_request(world: Any) -> None:
    lamp = await world.variant(0)
    await asyncio.gather(*(world.inventory.adjust(lamp, 5, "delivery", "r1") for _ in range(10)))
    assert await world.counts(lamp) == (5, 0)
    with pytest.raises(RequestReused):
        await world.inventory.adjust(lamp, 6, "delivery", "r1")


async def test_what_is_promised_stays(world: Any) -> None:
    lamp = await world.variant(5)
    await world.hear(placed((lamp, 4)))
    with pytest.raises(StockReserved):
        await world.inventory.adjust(lamp, -2, "breakage", "r")
    assert await world.counts(lamp) == (5, 4)


async def test_a_variant_that_nobody_sells_is_not_counted(world: Any) -> None:
    with pytest.raises(VariantNotFound):
        await world.inventory.adjust(new_id(), 1, "delivery", "r")
    with pytest.raises(VariantNotFound):
        await world.inventory.get(new_id())


async def test_the_variants_of_a_new_product_begin_at_zero_and_are_not_reset_by_a_late_event(
    world: Any,
) -> None:
    variant_id, product_id = await world.variant(7), new_id()
    fresh = new_id()
    product = ProductCreated(
        product_id=product_id,
        version=1,
        name="Lamp",
        description="",
        category="Lighting",
        subcategory="",
        brand="",
        tags=(),
        variants=tuple(
            ProductVariant(variant_id=id_, sku=str(id_), attributes={}, price=PRICE, images=())
            for id_ in (variant_id, fresh)
        ),
        specifications={},
        created_at=NOW,
        updated_at=NOW,
    )
    await world.hear(product)
    assert (await world.inventory.get(variant_id)).stock_count == 7
    assert (await world.inventory.get(fresh)).stock_count == 0


async def test_a_variant_that_a_product_gets_later_is_counted_too(world: Any) -> None:
    variant_id = new_id()
    await world.hear(
        ProductUpdated(
            product_id=new_id(),
            version=2,
            name="Lamp",
            description="",
            category="Lighting",
            subcategory="",
            brand="",
            tags=(),
            variants=(
                ProductVariant(variant_id=variant_id, sku="L-2", attributes={}, price=PRICE, images=()),
            ),
            specifications={},
            created_at=NOW,
            updated_at=NOW,
        )
    )
    assert (await world.inventory.get(variant_id)).available == 0


async def test_low_stock_is_told_when_it_gets_low_and_not_again(world: Any) -> None:
    lamp = await world.variant(10)
    await world.inventory.set_threshold(lamp, 5)
    for quantity in (5, 1, 1):
        await world.hear(placed((lamp, quantity)))
    assert (await world.answers(lamp)).count("inventory.low_stock") == 1


async def test_the_list_goes_from_the_scarcest_on_in_pages(world: Any) -> None:
    variants = {await world.variant(count) for count in (1, 2, 3)}
    found: list[UUID] = []
    after = None
    while page := await world.inventory.list(low_only=True, after=after, limit=2):
        found += [stock.variant_id for stock in page]
        after = (page[-1].available, page[-1].variant_id)
        assert all(stock.is_low for stock in page)
    assert variants <= set(found)
    assert len(found) == len(set(found))


async def test_reserving_takes_few_statements(world: Any) -> None:
    variants = [await world.variant(100) for _ in range(4)]
    before = world.database.statements
    await world.hear(placed(*((variant_id, 1) for variant_id in variants)))
    assert world.database.statements - before <= 5


async def test_movements_are_never_changed(world: Any) -> None:
    lamp = await world.variant(1)
    for change in ("UPDATE stock_movements SET stock_delta = 5", "DELETE FROM stock_movements"):
        with pytest.raises(Exception, match="only grows"):
            await world.database.execute(f"{change} WHERE variant_id = $1", lamp)


class CatalogServicer(CatalogServiceServicer):
    """A catalogue that sells one variant."""

    def __init__(self, product_id: UUID, variant_id: UUID) -> None:
        self._sold = (product_id, variant_id)

    async def BatchGetVariants(  # named by the contract
        self, request: BatchGetVariantsRequest, context: object
    ) -> BatchGetVariantsResponse:
        product_id, variant_id = map(str, self._sold)
        entry = BatchGetVariantsResponse.Entry(product_id=product_id, variant=Variant(variant_id=variant_id))
        return BatchGetVariantsResponse(variants=[entry] if variant_id in request.variant_ids else [])


async def test_a_variant_whose_event_is_still_on_its_way_is_looked_up_in_the_catalog(world: Any) -> None:
    product_id, variant_id = new_id(), new_id()
    servicer = CatalogServicer(product_id, variant_id)
    async with serve_in_process(add_CatalogServiceServicer_to_server, servicer, name="catalog") as server:
        catalog = Catalog(server.stub(CatalogServiceStub, as_service="inventory"))
        assert await catalog.product_of(new_id()) is None
        world.catalog.products[variant_id] = await catalog.product_of(variant_id)
        stock = await world.inventory.set_threshold(variant_id, 3)
        assert (stock.product_id, stock.stock_count, stock.threshold) == (product_id, 0, 3)

"""Never oversold, nothing counted twice, whatever comes in whatever order."""

import asyncio
import random
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import permutations
from typing import Any
from uuid import UUID

import pytest

from stoa.catalog.v1.catalog_pb2 import BatchGetVariantsRequest, BatchGetVariantsResponse, Variant
from stoa.catalog.v1.catalog_pb2_grpc import (
    CatalogServiceServicer,
    CatalogServiceStub,
    add_CatalogServiceServicer_to_server,
)
from stoa_chassis.avro import Event, new_event
from stoa_chassis.context import bound
from stoa_chassis.errors import RequestIdReused
from stoa_chassis.ids import new_id
from stoa_chassis.inbox import AlreadyProcessed
from stoa_chassis.memory import MemoryStore
from stoa_chassis.testing import SettableClock, serve_in_process
from stoa_contracts.events import Payload
from stoa_contracts.money import Money
from stoa_events import (
    InventoryLowStock,
    OrderCancelled,
    OrderItem,
    OrderPlaced,
    OrderReturned,
    OrderShipped,
    ProductCreated,
    ProductDeleted,
    ProductUpdated,
    ProductVariant,
)
from stoa_inventory.events import handlers
from stoa_inventory.model import NotReserved, StockReserved, VariantNotFound, VariantWithdrawn
from stoa_inventory.peers import Catalog
from stoa_inventory.service import Inventory
from stoa_inventory.testing import FakeCatalog, Rows

PRICE = Money(Decimal("10.00"), "USD")


def items(*wanted: tuple[UUID, int]) -> tuple[OrderItem, ...]:
    return tuple(
        OrderItem(product_id=new_id(), variant_id=variant_id, quantity=quantity, price=PRICE)
        for variant_id, quantity in wanted
    )


def placed(*wanted: tuple[UUID, int]) -> OrderPlaced:
    return OrderPlaced(order_id=new_id(), user_id=new_id(), items=items(*wanted), total_amount=PRICE)


def cancelled(order_id: UUID) -> OrderCancelled:
    return OrderCancelled(order_id=order_id, user_id=new_id(), items=(), total_amount=PRICE, reason="")


def shipped(order_id: UUID) -> OrderShipped:
    return OrderShipped(order_id=order_id, user_id=new_id(), items=())


def returned(order_id: UUID, *came_back: tuple[UUID, int]) -> OrderReturned:
    return OrderReturned(order_id=order_id, user_id=new_id(), items=items(*came_back))


@dataclass
class Shop:
    """Inventory, and what the other services tell it."""

    inventory: Inventory
    store: MemoryStore[Rows]
    catalog: FakeCatalog
    clock: SettableClock

    async def variant(self, count: int) -> UUID:
        """Begin to sell a variant, of which there are so many."""
        variant_id = new_id()
        self.catalog.products[variant_id] = new_id()
        if count:
            await self.inventory.adjust(variant_id, count, "delivery", "first")
        return variant_id

    async def handle(self, *payloads: Payload) -> None:
        for payload in payloads:
            await self.handle_event(new_event(payload, self.clock, "a-request"))

    async def handle_event(self, event: Event[Payload]) -> None:
        await handlers(self.inventory)[type(event.payload)](event)

    def answers(self, key: UUID) -> list[str]:
        """Return the topics of what was published of an order or a variant, oldest first."""
        return [event.topic for event in self.store.published if event.payload.key == str(key)]

    def counts(self, variant_id: UUID) -> tuple[int, int]:
        """Return stock and reserved, after checking that the movements add up to them."""
        counts = self.store.rows.counts(variant_id)
        assert counts == dict(self.store.rows.moved)[variant_id]
        return counts


@pytest.fixture
def shop(inventory: Inventory, store: MemoryStore[Rows], catalog: FakeCatalog, clock: SettableClock) -> Shop:
    return Shop(inventory, store, catalog, clock)


async def test_the_same_variant_on_two_lines_is_not_oversold(shop: Shop) -> None:
    lamp = await shop.variant(3)
    too_many, order = placed((lamp, 2), (lamp, 2)), placed((lamp, 2), (lamp, 1))
    await shop.handle(too_many, order)
    assert shop.answers(too_many.order_id) == ["inventory.out_of_stock"]
    assert shop.answers(order.order_id) == ["inventory.reserved"]
    assert shop.counts(lamp) == (3, 3)


async def test_a_repeated_event_counts_once(shop: Shop) -> None:
    lamp = await shop.variant(5)
    order = placed((lamp, 2))
    event: Event[Payload] = new_event(order, shop.clock, "a-request")
    await shop.handle_event(event)
    with pytest.raises(AlreadyProcessed):
        await shop.handle_event(event)
    await shop.handle(order)  # the same order under another event id
    assert shop.counts(lamp) == (5, 2)
    assert shop.answers(order.order_id) == ["inventory.reserved"]


async def test_cancelling_releases_once(shop: Shop) -> None:
    lamp = await shop.variant(5)
    order = placed((lamp, 2))
    await shop.handle(order, cancelled(order.order_id), cancelled(order.order_id))
    assert shop.counts(lamp) == (5, 0)


async def test_an_order_that_was_cancelled_before_it_was_placed_reserves_nothing(shop: Shop) -> None:
    lamp = await shop.variant(5)
    order = placed((lamp, 2))
    await shop.handle(cancelled(order.order_id), order)
    assert shop.counts(lamp) == (5, 0)
    assert shop.answers(order.order_id) == []


async def test_an_order_that_was_refused_stays_so_when_more_comes_in(shop: Shop) -> None:
    lamp = await shop.variant(0)
    order = placed((lamp, 1))
    await shop.handle(order)
    await shop.inventory.adjust(lamp, 5, "delivery", "later")
    await shop.handle(order, cancelled(order.order_id))
    assert shop.counts(lamp) == (5, 0)
    assert shop.answers(order.order_id) == ["inventory.out_of_stock"]


async def test_placing_and_cancelling_in_any_order_leave_nothing_reserved(shop: Shop) -> None:
    lamp = await shop.variant(100)
    orders = [placed((lamp, 1)) for _ in range(20)]
    happenings: list[Payload] = [*orders, *(cancelled(order.order_id) for order in orders)]
    random.shuffle(happenings)
    await shop.handle(*happenings)
    assert shop.counts(lamp) == (100, 0)


async def test_goods_that_leave_are_counted_off_and_goods_that_return_on_again(shop: Shop) -> None:
    lamp = await shop.variant(5)
    order = placed((lamp, 2))
    await shop.handle(order, shipped(order.order_id))
    assert shop.counts(lamp) == (3, 0)
    await shop.handle(cancelled(order.order_id))  # too late
    assert shop.counts(lamp) == (3, 0)
    await shop.handle(returned(order.order_id, (lamp, 2)), returned(order.order_id, (lamp, 2)))
    assert shop.counts(lamp) == (5, 0)


async def test_what_comes_back_in_parts_is_counted_part_by_part_and_never_more_than_left(shop: Shop) -> None:
    lamp, chair = await shop.variant(5), await shop.variant(5)
    order = placed((lamp, 3), (chair, 1))
    await shop.handle(order, shipped(order.order_id), returned(order.order_id, (lamp, 1)))
    assert (shop.counts(lamp), shop.counts(chair)) == ((3, 0), (4, 0))
    await shop.handle(returned(order.order_id, (lamp, 1), (lamp, 4), (new_id(), 1)))
    await shop.handle(shipped(order.order_id))
    assert (shop.counts(lamp), shop.counts(chair)) == ((5, 0), (4, 0))
    await shop.handle(returned(order.order_id, (chair, 1)))
    assert (shop.counts(lamp), shop.counts(chair)) == ((5, 0), (5, 0))


async def test_goods_of_an_order_that_has_none_are_for_a_person_to_look_at(shop: Shop) -> None:
    lamp = await shop.variant(5)
    for order in (placed((lamp, 6)), placed((lamp, 1))):
        for payload in (shipped(order.order_id), returned(order.order_id, (lamp, 1))):
            with pytest.raises(NotReserved):
                await shop.handle(payload)
        await shop.handle(order, cancelled(order.order_id))
        with pytest.raises(NotReserved):
            await shop.handle(shipped(order.order_id))
    assert shop.counts(lamp) == (5, 0)


async def test_a_shipment_that_came_too_early_counts_when_it_is_tried_again(shop: Shop) -> None:
    lamp = await shop.variant(5)
    order = placed((lamp, 2))
    event: Event[Payload] = new_event(shipped(order.order_id), shop.clock, "a-request")
    with pytest.raises(NotReserved):
        await shop.handle_event(event)
    await shop.handle(order)
    await shop.handle_event(event)
    assert shop.counts(lamp) == (3, 0)


async def test_a_return_that_comes_before_the_shipment_balances(shop: Shop) -> None:
    lamp = await shop.variant(5)
    order = placed((lamp, 2))
    await shop.handle(order, returned(order.order_id, (lamp, 2)), shipped(order.order_id))
    assert shop.counts(lamp) == (5, 0)


async def test_an_adjustment_counts_once_for_each_request(shop: Shop) -> None:
    lamp = await shop.variant(0)
    await asyncio.gather(*(shop.inventory.adjust(lamp, 5, "delivery", "r1") for _ in range(10)))
    assert shop.counts(lamp) == (5, 0)
    for delta, reason in ((6, "delivery"), (5, "theft")):
        with pytest.raises(RequestIdReused):
            await shop.inventory.adjust(lamp, delta, reason, "r1")


async def test_what_is_promised_stays(shop: Shop) -> None:
    lamp = await shop.variant(5)
    await shop.handle(placed((lamp, 4)))
    with pytest.raises(StockReserved):
        await shop.inventory.adjust(lamp, -2, "breakage", "r")
    assert shop.counts(lamp) == (5, 4)


async def test_a_variant_that_nobody_sells_is_not_counted(shop: Shop) -> None:
    with pytest.raises(VariantNotFound):
        await shop.inventory.adjust(new_id(), 1, "delivery", "r")
    with pytest.raises(VariantNotFound):
        await shop.inventory.get(new_id())
    assert shop.store.rows == Rows()


def variants(*variant_ids: UUID) -> tuple[ProductVariant, ...]:
    return tuple(
        ProductVariant(variant_id=id_, sku=str(id_), attributes={}, price=PRICE, images=())
        for id_ in variant_ids
    )


def described(shop: Shop, product_id: UUID, version: int, *variant_ids: UUID) -> dict[str, Any]:
    """What is told of a product that has these variants."""
    return {
        "product_id": product_id,
        "version": version,
        "name": "Lamp",
        "description": "",
        "category": "Lighting",
        "subcategory": "",
        "brand": "",
        "tags": (),
        "variants": variants(*variant_ids),
        "specifications": {},
        "created_at": shop.clock.now(),
        "updated_at": shop.clock.now(),
    }


def created(shop: Shop, product_id: UUID, *variant_ids: UUID) -> ProductCreated:
    return ProductCreated(**described(shop, product_id, 1, *variant_ids))


def updated(shop: Shop, product_id: UUID, version: int, *variant_ids: UUID) -> ProductUpdated:
    return ProductUpdated(**described(shop, product_id, version, *variant_ids))


def deleted(product_id: UUID, version: int, *variant_ids: UUID) -> ProductDeleted:
    return ProductDeleted(product_id=product_id, version=version, variant_ids=variant_ids)


async def on_sale(shop: Shop, *variant_ids: UUID) -> list[bool]:
    return [(await shop.inventory.get(variant_id)).on_sale for variant_id in variant_ids]


async def low(shop: Shop) -> set[UUID]:
    return {stock.variant_id for stock in await shop.inventory.list(low_only=True, after=None, limit=100)}


async def test_the_variants_of_a_new_product_begin_at_zero_and_are_not_reset_by_a_late_event(
    shop: Shop,
) -> None:
    known, fresh, product_id = await shop.variant(7), new_id(), new_id()
    await shop.handle(created(shop, product_id, known, fresh))
    assert (await shop.inventory.get(known)).stock_count == 7
    stock = await shop.inventory.get(fresh)
    assert (stock.product_id, stock.stock_count) == (product_id, 0)


async def test_a_variant_that_a_product_gets_later_is_counted_too(shop: Shop) -> None:
    variant_id = new_id()
    await shop.handle(updated(shop, new_id(), 2, variant_id))
    assert (await shop.inventory.get(variant_id)).available == 0


async def test_what_is_not_sold_any_more_is_not_low_and_can_not_be_counted(shop: Shop) -> None:
    product_id, kept, removed = new_id(), new_id(), new_id()
    await shop.handle(created(shop, product_id, kept, removed))
    await shop.inventory.adjust(removed, 2, "delivery", "r1")
    assert await low(shop) == {kept, removed}
    await shop.handle(updated(shop, product_id, 2, kept))
    assert await low(shop) == {kept}
    with pytest.raises(VariantWithdrawn):
        await shop.inventory.adjust(removed, 1, "delivery", "r2")
    with pytest.raises(VariantWithdrawn):
        await shop.inventory.set_threshold(removed, 1)
    assert shop.counts(removed) == (2, 0)
    assert (await shop.inventory.adjust(removed, 2, "delivery", "r1")).stock_count == 2  # once more the same
    await shop.handle(deleted(product_id, 3, kept))
    assert await low(shop) == set()
    with pytest.raises(VariantWithdrawn):
        await shop.inventory.adjust(kept, 1, "delivery", "r")


async def test_orders_keep_what_is_not_sold_any_more(shop: Shop) -> None:
    product_id, lamp = new_id(), new_id()
    await shop.handle(created(shop, product_id, lamp))
    await shop.inventory.adjust(lamp, 10, "delivery", "r1")
    sent, released = placed((lamp, 3)), placed((lamp, 4))
    await shop.handle(sent, released, deleted(product_id, 2, lamp))
    assert shop.counts(lamp) == (10, 7)
    published = len(shop.store.published)
    await shop.handle(shipped(sent.order_id), cancelled(released.order_id))
    assert shop.counts(lamp) == (7, 0)
    await shop.handle(returned(sent.order_id, (lamp, 3)))
    assert shop.counts(lamp) == (10, 0)
    assert len(shop.store.published) == published


async def test_a_variant_that_comes_back_is_counted_again_and_low_if_it_is(shop: Shop) -> None:
    product_id, lamp, chair = new_id(), new_id(), new_id()
    await shop.handle(created(shop, product_id, lamp, chair), updated(shop, product_id, 2, chair))
    assert await on_sale(shop, lamp, chair) == [False, True]
    await shop.handle(updated(shop, product_id, 3, lamp, chair))
    assert await on_sale(shop, lamp, chair) == [True, True]
    assert [event.variant_id for event in shop.store.payloads(InventoryLowStock)] == [lamp]
    assert (await shop.inventory.adjust(lamp, 5, "delivery", "r")).stock_count == 5


async def test_an_older_version_of_a_product_changes_nothing(shop: Shop) -> None:
    product_id, kept, removed = new_id(), new_id(), new_id()
    history: list[Payload] = [
        created(shop, product_id, kept, removed),
        updated(shop, product_id, 2, kept, removed),
        updated(shop, product_id, 3, kept),
    ]
    for happening in history[0], history[2], history[1]:
        await shop.handle(happening)
    assert await on_sale(shop, kept, removed) == [True, False]
    await shop.handle(deleted(product_id, 5, kept), updated(shop, product_id, 4, kept))
    assert await on_sale(shop, kept, removed) == [False, False]


async def test_a_product_that_is_known_to_be_deleted_before_it_is_known_to_be_there_is_not_counted(
    shop: Shop,
) -> None:
    product_id, lamp = new_id(), new_id()
    await shop.handle(deleted(product_id, 2, lamp), created(shop, product_id, lamp))
    assert await on_sale(shop, lamp) == [False]
    shop.catalog.products[lamp] = product_id  # as a catalogue that is behind says
    with pytest.raises(VariantWithdrawn):
        await shop.inventory.adjust(lamp, 1, "delivery", "r")


@pytest.mark.parametrize("order", list(permutations(range(4))))
async def test_in_whatever_order_the_versions_of_a_product_come_the_last_one_counts(
    shop: Shop, order: tuple[int, ...]
) -> None:
    product_id, lamp, chair, table = new_id(), new_id(), new_id(), new_id()
    history: list[Payload] = [
        created(shop, product_id, lamp),
        updated(shop, product_id, 2, lamp, chair),
        updated(shop, product_id, 3, chair, table),
        deleted(product_id, 4, chair, table),
    ]
    last = 0
    for version in order:
        await shop.handle(history[version])
        last = max(last, version)
        sold = [{lamp}, {lamp, chair}, {chair, table}, set()][last]
        known = await shop.inventory.list(low_only=False, after=None, limit=100)
        assert {stock.variant_id for stock in known if stock.on_sale} == sold


async def test_low_stock_is_told_when_it_gets_low_and_not_again(shop: Shop) -> None:
    lamp = await shop.variant(10)
    await shop.inventory.set_threshold(lamp, 5)
    await shop.handle(*(placed((lamp, quantity)) for quantity in (5, 1, 1)))
    assert [event.available for event in shop.store.payloads(InventoryLowStock)] == [4]


async def test_low_stock_is_told_if_staff_make_it_low(shop: Shop) -> None:
    lamp = await shop.variant(10)
    await shop.inventory.set_threshold(lamp, 11)
    await shop.inventory.adjust(lamp, -1, "breakage", "r1")
    assert [event.threshold for event in shop.store.payloads(InventoryLowStock)] == [11]


async def test_an_order_is_answered_under_the_correlation_id_of_its_event(shop: Shop) -> None:
    lamp = await shop.variant(1)
    shop.store.published.clear()
    with bound("the-order-request"):
        await shop.handle(placed((lamp, 1)))
    assert {event.correlation_id for event in shop.store.published} == {"the-order-request"}


async def test_the_list_goes_from_the_scarcest_on_in_pages(shop: Shop) -> None:
    scarce = {await shop.variant(count) for count in (1, 2, 3)}
    await shop.variant(100)
    found: list[UUID] = []
    after = None
    while page := await shop.inventory.list(low_only=True, after=after, limit=2):
        found += [stock.variant_id for stock in page]
        after = (page[-1].available, page[-1].variant_id)
        assert all(stock.is_low for stock in page)
    assert set(found) == scarce
    assert len(found) == len(set(found))


class SellsOneVariant(CatalogServiceServicer):
    """A catalogue that sells one variant, and can do no more than say so."""

    def __init__(self, product_id: UUID, variant_id: UUID) -> None:
        self._sold = (product_id, variant_id)

    async def BatchGetVariants(  # named by the contract
        self, request: BatchGetVariantsRequest, context: object
    ) -> BatchGetVariantsResponse:
        product_id, variant_id = map(str, self._sold)
        entry = BatchGetVariantsResponse.Entry(product_id=product_id, variant=Variant(variant_id=variant_id))
        return BatchGetVariantsResponse(variants=[entry] if variant_id in request.variant_ids else [])


async def test_a_variant_whose_event_is_still_on_its_way_is_looked_up_in_the_catalog(shop: Shop) -> None:
    product_id, variant_id = new_id(), new_id()
    # A fake of a servicer leaves methods out.
    servicer = SellsOneVariant(product_id, variant_id)  # type: ignore[abstract]
    async with serve_in_process(add_CatalogServiceServicer_to_server, servicer, name="catalog") as server:
        catalog = Catalog(server.stub(CatalogServiceStub, as_service="inventory"))
        assert await catalog.product_of(new_id()) is None
        sold = await catalog.product_of(variant_id)
    assert sold == product_id
    shop.catalog.products[variant_id] = sold
    stock = await shop.inventory.set_threshold(variant_id, 3)
    assert (stock.product_id, stock.stock_count, stock.threshold) == (product_id, 0, 3)


async def test_what_an_older_version_has_changed_without_a_word_is_said_once(shop: Shop) -> None:
    lamp = await shop.variant(1)
    product_id, count, reserved, threshold, at, on_sale, _, version = dict(shop.store.rows.stocks)[lamp]
    unsaid = (lamp, (product_id, count, reserved, threshold, at, on_sale, False, version))
    shop.store.rows = replace(shop.store.rows, stocks=(unsaid,))
    before = len(shop.answers(lamp))
    await shop.inventory.announce()
    await shop.inventory.announce()
    assert shop.answers(lamp)[before:] == ["inventory.availability_changed"]

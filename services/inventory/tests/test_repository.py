"""What the use cases rely on, of the store in memory and of PostgreSQL alike."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest

from stoa_chassis.avro import EventCodec
from stoa_chassis.clock import SystemClock
from stoa_chassis.ids import new_id
from stoa_chassis.memory import ConstraintViolated, MemoryStore, memory_unit_of_work
from stoa_chassis.postgres import Database
from stoa_chassis.postgres_uow import postgres_unit_of_work
from stoa_chassis.uow import UnitOfWork
from stoa_inventory import ports, repository, testing
from stoa_inventory.model import Adjustment, Hold, HoldStatus, NotReserved, Stock, Wanted, sum_up

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
LATER = NOW + timedelta(minutes=1)
REFUSED = (ConstraintViolated, asyncpg.IntegrityConstraintViolationError)
Counts = Mapping[UUID, tuple[int, int]]
_COUNTED = ("inventory.availability_changed",)  # what is published of a variant of which some are there


@dataclass
class Store:
    """One of the stores, behind the ports."""

    uow: UnitOfWork[ports.Tx]
    reader: ports.StockReader
    published: Callable[[], Awaitable[list[str]]]
    moved: Callable[[], Awaitable[Counts]]
    """The sums of the movements of each variant."""
    promised: Callable[[], Awaitable[dict[tuple[UUID, UUID], tuple[int, str]]]]
    """The reservations, by order and variant."""


@pytest.fixture
def in_memory() -> Store:
    store = MemoryStore(testing.Rows())

    async def published() -> list[str]:
        return [event.topic for event in store.published]

    async def moved() -> Counts:
        return dict(store.rows.moved)

    async def promised() -> dict[tuple[UUID, UUID], tuple[int, str]]:
        return dict(store.rows.reservations)

    uow = memory_unit_of_work(lambda: store, testing.open_tx)
    return Store(uow, testing.StockReader(lambda: store), published, moved, promised)


@pytest.fixture
async def in_postgres(database: Database, codec: EventCodec) -> Store:
    await database.execute("TRUNCATE inventory, products, holds, reservations, stock_movements, outbox")

    async def published() -> list[str]:
        return [row["topic"] for row in await database.fetch("SELECT topic FROM outbox ORDER BY id")]

    async def moved() -> Counts:
        rows = await database.fetch(
            """
            SELECT variant_id, sum(stock_delta)::int, sum(reserved_delta)::int
            FROM stock_movements GROUP BY variant_id
            """
        )
        return {variant_id: (stock, reserved) for variant_id, stock, reserved in rows}

    async def promised() -> dict[tuple[UUID, UUID], tuple[int, str]]:
        rows = await database.fetch("SELECT order_id, variant_id, quantity, status FROM reservations")
        return {(order_id, variant_id): (quantity, status) for order_id, variant_id, quantity, status in rows}

    uow = postgres_unit_of_work(database, codec, repository.open_tx, SystemClock())
    return Store(uow, repository.StockReader(database), published, moved, promised)


@pytest.fixture(params=["in_memory", pytest.param("in_postgres", marks=pytest.mark.stack)])
def store(request: pytest.FixtureRequest) -> Store:
    made: Store = request.getfixturevalue(request.param)
    return made


async def count(store: Store, *counts: int) -> list[UUID]:
    """Begin to count new variants, of which there are so many."""
    variant_ids = sorted(new_id() for _ in counts)

    async def work(tx: ports.Tx) -> None:
        for variant_id, number in zip(variant_ids, counts, strict=True):
            await tx.stocks.add(new_id(), [variant_id])
            (stock,) = (await tx.stocks.lock([variant_id])).values()
            stock.adjust(Adjustment(number, "delivery"), "first", NOW)
            await tx.stocks.save(stock)

    await store.uow.run(work)
    return variant_ids


async def place(store: Store, wanted: Mapping[UUID, int]) -> UUID:
    """Store the hold of a new order that wants so many of these."""
    order_id = new_id()

    async def work(tx: ports.Tx) -> None:
        hold = Hold.begin(order_id, NOW)
        assert await tx.holds.add(hold)
        stocks = await tx.stocks.lock(wanted)
        lines = sum_up(Wanted(new_id(), variant_id, quantity) for variant_id, quantity in wanted.items())
        hold.on_order_placed(lines, stocks, NOW)
        await tx.holds.save(hold, stocks.values())

    await store.uow.run(work)
    return order_id


async def hold_of(store: Store, order_id: UUID) -> Hold:
    return await store.uow.run(lambda tx: tx.holds.lock(order_id))


async def counts(store: Store, *variant_ids: UUID) -> list[tuple[int, int]]:
    stocks = await store.reader.get(variant_ids)
    return [(stocks[key].stock_count, stocks[key].reserved_count) for key in variant_ids]


async def test_a_variant_is_counted_from_zero_and_only_once(store: Store) -> None:
    variant_id, product_id = new_id(), new_id()
    await store.uow.run(lambda tx: tx.stocks.add(product_id, [variant_id]))
    await store.uow.run(lambda tx: tx.stocks.add(new_id(), [variant_id]))
    stock = (await store.reader.get([variant_id, new_id()]))[variant_id]
    assert (stock.product_id, stock.stock_count, stock.reserved_count) == (product_id, 0, 0)
    assert stock.threshold == 5
    assert await store.reader.get([new_id()]) == {}


async def test_no_field_of_a_stock_is_lost(store: Store) -> None:
    (variant_id,) = await count(store, 7)
    await place(store, {variant_id: 3})

    async def work(tx: ports.Tx) -> Stock:
        (stock,) = (await tx.stocks.lock([variant_id])).values()
        stock.adjust(Adjustment(4, "delivery"), "second", LATER)
        stock.set_threshold(9, LATER)
        await tx.stocks.save(stock)
        return stock

    saved = await store.uow.run(work)
    read = (await store.reader.get([variant_id]))[variant_id]
    assert read == saved
    assert all(getattr(read, each.name) for each in fields(Stock) if each.compare)
    assert (await store.moved())[variant_id] == (11, 3)


async def test_a_stock_that_is_not_on_sale_is_stored_so_and_is_not_low(store: Store) -> None:
    low, gone = await count(store, 2, 1)

    async def work(tx: ports.Tx) -> None:
        (stock,) = (await tx.stocks.lock([gone])).values()
        assert stock.sell(False, LATER)
        await tx.stocks.save(stock)

    await store.uow.run(work)
    stocks = await store.reader.get([low, gone])
    assert (stocks[low].on_sale, stocks[gone].on_sale) == (True, False)
    listed = [
        [stock.variant_id for stock in await store.reader.list(low_only=low_only, after=None, limit=10)]
        for low_only in (True, False)
    ]
    assert listed == [[low], [gone, low]]


async def test_only_a_later_version_of_a_product_is_noted(store: Store) -> None:
    product_id, other = new_id(), new_id()

    async def note(tx: ports.Tx) -> list[bool]:
        return [await tx.stocks.note_version(product_id, version) for version in (2, 2, 1, 3, 2)]

    assert await store.uow.run(note) == [True, False, False, True, False]
    assert await store.uow.run(lambda tx: tx.stocks.note_version(other, 1))


async def test_the_stock_of_a_product_is_that_of_all_variants_it_ever_had(store: Store) -> None:
    product_id, first, second = new_id(), *sorted((new_id(), new_id()))
    await count(store, 1)
    await store.uow.run(lambda tx: tx.stocks.add(product_id, [second]))
    await store.uow.run(lambda tx: tx.stocks.add(product_id, [first]))
    found = await store.uow.run(lambda tx: tx.stocks.lock_product(product_id))
    assert list(found) == [first, second]
    assert found == await store.reader.get([first, second])


async def test_no_field_of_a_hold_is_lost(store: Store) -> None:
    lamp, chair = await count(store, 7, 7)
    order_id = await place(store, {lamp: 3, chair: 1})
    hold = await hold_of(store, order_id)
    assert hold == Hold(order_id, HoldStatus.HELD, NOW, {lamp: 3, chair: 1})
    assert await store.promised() == {(order_id, lamp): (3, "held"), (order_id, chair): (1, "held")}


async def test_an_order_has_one_hold(store: Store) -> None:
    order_id = await place(store, {})
    assert not await store.uow.run(lambda tx: tx.holds.add(Hold.released(order_id, LATER)))
    assert (await hold_of(store, order_id)).status is HoldStatus.HELD


async def test_an_order_that_is_not_known_has_no_hold(store: Store) -> None:
    with pytest.raises(NotReserved):
        await hold_of(store, new_id())


async def test_a_hold_is_stored_with_the_stock_that_it_changed_and_the_events_of_both(store: Store) -> None:
    lamp, chair = await count(store, 7, 7)
    order_id = await place(store, {lamp: 3, chair: 2})
    assert await counts(store, lamp, chair) == [(7, 3), (7, 2)]
    assert await store.published() == [*_COUNTED, *_COUNTED, "inventory.reserved", "inventory.low_stock"]

    async def ship(tx: ports.Tx) -> None:
        hold = await tx.holds.lock(order_id)
        stocks = await tx.stocks.lock(hold.quantities)
        hold.on_order_shipped(stocks, LATER)
        await tx.holds.save(hold, stocks.values())

    await store.uow.run(ship)
    assert await counts(store, lamp, chair) == [(4, 0), (5, 0)]
    assert await store.moved() == {lamp: (4, 0), chair: (5, 0)}
    assert await store.promised() == {(order_id, lamp): (3, "shipped"), (order_id, chair): (2, "shipped")}
    assert await hold_of(store, order_id) == Hold(order_id, HoldStatus.SHIPPED, LATER, {lamp: 3, chair: 2})
    assert await store.published() == [*_COUNTED, *_COUNTED, "inventory.reserved", "inventory.low_stock"]


async def test_a_refused_hold_is_stored_and_changes_no_stock(store: Store) -> None:
    (lamp,) = await count(store, 7)
    order_id = await place(store, {lamp: 8})
    assert (await hold_of(store, order_id)).status is HoldStatus.REFUSED
    assert await counts(store, lamp) == [(7, 0)]
    assert await store.promised() == {}
    assert await store.published() == [*_COUNTED, "inventory.out_of_stock"]


async def test_goods_may_leave_and_come_back_in_one_transaction_and_again_in_parts(store: Store) -> None:
    (lamp,) = await count(store, 7)
    order_id = await place(store, {lamp: 3})
    for quantity in (1, 2):

        async def come_back(tx: ports.Tx, quantity: int = quantity) -> None:
            hold = await tx.holds.lock(order_id)
            returned = await tx.holds.returned(order_id)
            stocks = await tx.stocks.lock(hold.quantities)
            hold.on_order_returned([Wanted(new_id(), lamp, quantity)], returned, stocks, LATER)
            await tx.holds.save(hold, stocks.values())

        await store.uow.run(come_back)
    assert await store.uow.run(lambda tx: tx.holds.returned(order_id)) == {lamp: 3}
    assert await counts(store, lamp) == [(7, 0)]
    assert (await store.moved())[lamp] == (7, 0)
    assert (await hold_of(store, order_id)).status is HoldStatus.RETURNED


async def test_whether_a_variant_can_be_bought_is_noted_with_what_was_said_of_it(store: Store) -> None:
    (lamp,) = await count(store, 3)
    await place(store, {lamp: 3})
    stock = (await store.reader.get([lamp]))[lamp]
    assert (stock.in_stock, stock.announced, stock.availability_version) == (False, False, 2)
    assert await store.reader.unannounced(10) == []


async def test_variants_of_which_nobody_said_whether_they_can_be_bought_are_found(store: Store) -> None:
    unsaid = await count(store, 3, 3, 3)

    async def forget(tx: ports.Tx) -> None:
        for stock in (await tx.stocks.lock(unsaid)).values():
            stock.announced = False
            await tx.stocks.save(stock)

    await store.uow.run(forget)
    await count(store, 3)
    assert await store.reader.unannounced(2) == unsaid[:2]
    assert await store.reader.unannounced(10) == unsaid


async def test_an_adjustment_is_found_by_its_request(store: Store) -> None:
    lamp, chair = await count(store, 7, 8)

    async def work(tx: ports.Tx) -> list[Adjustment | None]:
        keys = (lamp, "first"), (chair, "first"), (lamp, "second")
        return [await tx.stocks.adjustment(*key) for key in keys]

    assert await store.uow.run(work) == [Adjustment(7, "delivery"), Adjustment(8, "delivery"), None]


async def test_a_transaction_that_fails_changes_and_publishes_nothing(store: Store) -> None:
    (lamp,) = await count(store, 7)

    async def fail(tx: ports.Tx) -> None:
        hold = Hold.begin(new_id(), NOW)
        await tx.holds.add(hold)
        stocks = await tx.stocks.lock([lamp])
        hold.on_order_placed([Wanted(new_id(), lamp, 1)], stocks, NOW)
        await tx.holds.save(hold, stocks.values())
        raise LookupError

    with pytest.raises(LookupError):
        await store.uow.run(fail)
    assert await counts(store, lamp) == [(7, 0)]
    assert await store.promised() == {}
    assert await store.published() == [*_COUNTED]


@pytest.mark.parametrize(
    ("field", "value", "constraint"),
    [
        ("reserved_count", 8, "inventory_check"),
        ("reserved_count", -1, "inventory_check"),
        ("threshold", -1, "inventory_threshold_check"),
    ],
)
async def test_what_the_books_forbid_of_a_stock_is_not_stored(
    store: Store, field: str, value: int, constraint: str
) -> None:
    (lamp,) = await count(store, 7)

    async def work(tx: ports.Tx) -> None:
        (stock,) = (await tx.stocks.lock([lamp])).values()
        setattr(stock, field, value)
        await tx.stocks.save(stock)

    with pytest.raises(REFUSED, match=constraint):
        await store.uow.run(work)
    assert await counts(store, lamp) == [(7, 0)]


async def test_a_request_adjusts_a_variant_once(store: Store) -> None:
    (lamp,) = await count(store, 7)

    async def work(tx: ports.Tx) -> None:
        (stock,) = (await tx.stocks.lock([lamp])).values()
        stock.adjust(Adjustment(1, "delivery"), "first", LATER)
        await tx.stocks.save(stock)

    with pytest.raises(REFUSED, match="stock_movements_request"):
        await store.uow.run(work)


@pytest.mark.parametrize(
    ("status", "quantity", "constraint"),
    [
        (HoldStatus.HELD, 0, "reservations_quantity_check"),
        (HoldStatus.REFUSED, 1, "reservations_status_check"),
    ],
)
async def test_what_the_books_forbid_of_a_hold_is_not_stored(
    store: Store, status: HoldStatus, quantity: int, constraint: str
) -> None:
    (lamp,) = await count(store, 7)

    async def work(tx: ports.Tx) -> None:
        hold = Hold.begin(new_id(), NOW)
        await tx.holds.add(hold)
        hold.status, hold.quantities = status, {lamp: quantity}
        await tx.holds.save(hold, [])

    with pytest.raises(REFUSED, match=constraint):
        await store.uow.run(work)


async def test_only_what_is_known_can_be_held(store: Store) -> None:
    (lamp,) = await count(store, 7)

    async def unknown_variant(tx: ports.Tx) -> None:
        hold = Hold.begin(new_id(), NOW)
        await tx.holds.add(hold)
        hold.quantities = {new_id(): 1}
        await tx.holds.save(hold, [])

    async def unknown_order(tx: ports.Tx) -> None:
        await tx.holds.save(Hold(new_id(), HoldStatus.HELD, NOW, {lamp: 1}), [])

    with pytest.raises(REFUSED, match="reservations_variant_id_fkey"):
        await store.uow.run(unknown_variant)
    with pytest.raises(REFUSED, match="reservations_order_id_fkey"):
        await store.uow.run(unknown_order)


async def test_the_list_has_the_scarcest_first(store: Store) -> None:
    low, lower, plenty, same, enough = await count(store, 3, 2, 10, 3, 5)
    await place(store, {low: 1})
    found = await store.reader.list(low_only=False, after=None, limit=10)
    assert [stock.variant_id for stock in found] == [low, lower, same, enough, plenty]
    assert [stock.variant_id for stock in await store.reader.list(low_only=True, after=None, limit=2)] == [
        low,
        lower,
    ]
    rest = await store.reader.list(low_only=True, after=(2, lower), limit=10)
    assert [stock.variant_id for stock in rest] == [same]

"""What may happen to stock, without any store."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoa_chassis.ids import new_id
from stoa_events import (
    InventoryLowStock,
    InventoryOutOfStock,
    InventoryOutOfStockItem,
    InventoryReserved,
    InventoryReservedItem,
)
from stoa_inventory.model import (
    Adjustment,
    Hold,
    HoldStatus,
    Movement,
    MovementKind,
    NotReserved,
    Stock,
    StockReserved,
    StockTooLarge,
    Wanted,
    sum_up,
)

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
LATER = NOW + timedelta(minutes=1)


def stock(count: int = 10, reserved: int = 0, threshold: int = 0) -> Stock:
    return Stock(new_id(), new_id(), count, reserved, threshold, NOW)


def want(of: Stock, quantity: int) -> Wanted:
    return Wanted(of.product_id, of.variant_id, quantity)


def adjust(lamp: Stock, delta: int) -> None:
    lamp.adjust(Adjustment(delta, "counted"), "request", LATER)


def placed(*lines: tuple[Stock, int]) -> Hold:
    """Return the hold of an order that wants so many of these."""
    hold = Hold.begin(new_id(), NOW)
    wanted = sum_up(want(each, quantity) for each, quantity in lines)
    hold.on_order_placed(wanted, {each.variant_id: each for each, _ in lines}, LATER)
    return hold


def test_lines_of_the_same_variant_are_one_wish() -> None:
    lamp, chair = stock(), stock()
    wanted = sum_up([want(lamp, 2), want(chair, 1), want(lamp, 3)])
    assert {line.variant_id: line.quantity for line in wanted} == {lamp.variant_id: 5, chair.variant_id: 1}
    assert [line.variant_id for line in wanted] == sorted(line.variant_id for line in wanted)


def test_an_order_gets_all_that_it_wants() -> None:
    lamp, chair = stock(5), stock(5)
    hold = placed((lamp, 5), (chair, 1))
    assert hold.status is HoldStatus.HELD
    assert hold.quantities == {lamp.variant_id: 5, chair.variant_id: 1}
    assert (lamp.available, chair.available) == (0, 4)
    assert [event.TOPIC for event in hold.events] == ["inventory.reserved"]


def test_an_order_gets_nothing_if_something_lacks_and_is_told_what() -> None:
    lamp, chair, unknown = stock(5), stock(1), stock()
    hold = Hold.begin(new_id(), NOW)
    wanted = sum_up([want(lamp, 5), want(chair, 2), want(unknown, 1)])
    hold.on_order_placed(wanted, {lamp.variant_id: lamp, chair.variant_id: chair}, LATER)
    (event,) = hold.events
    assert isinstance(event, InventoryOutOfStock)
    assert {item.variant_id: (item.requested, item.available) for item in event.items} == {
        chair.variant_id: (2, 1),
        unknown.variant_id: (1, 0),
    }
    assert (hold.status, hold.updated_at, hold.quantities) == (HoldStatus.REFUSED, LATER, {})
    assert (lamp.available, chair.available) == (5, 1)
    assert lamp.movements == chair.movements == []


def test_two_lines_that_together_are_too_many_get_nothing() -> None:
    lamp = stock(3)
    assert placed((lamp, 2), (lamp, 2)).status is HoldStatus.REFUSED


def test_what_was_promised_is_released_shipped_and_returned_once() -> None:
    lamp = stock(5)
    stocks = {lamp.variant_id: lamp}
    cancelled = placed((lamp, 2))
    for _ in range(2):
        cancelled.on_order_cancelled(stocks, LATER)
    assert (lamp.stock_count, lamp.reserved_count) == (5, 0)
    kept = placed((lamp, 2))
    for _ in range(2):
        kept.on_order_shipped(stocks, LATER)
        kept.on_order_cancelled(stocks, LATER)
    assert (lamp.stock_count, lamp.reserved_count) == (3, 0)
    kept.on_order_returned([want(lamp, 2)], {}, stocks, LATER)
    kept.on_order_returned([want(lamp, 2)], {lamp.variant_id: 2}, stocks, LATER)
    assert (lamp.stock_count, lamp.reserved_count) == (5, 0)
    assert (cancelled.status, kept.status) == (HoldStatus.RELEASED, HoldStatus.RETURNED)


@pytest.mark.parametrize("status", [HoldStatus.REFUSED, HoldStatus.RELEASED])
def test_goods_of_an_order_that_has_none_neither_leave_nor_return(status: HoldStatus) -> None:
    hold = Hold(new_id(), status, NOW)
    with pytest.raises(NotReserved):
        hold.on_order_shipped({}, LATER)
    with pytest.raises(NotReserved):
        hold.on_order_returned([], {}, {}, LATER)


def test_stock_says_that_it_is_low_when_it_becomes_so() -> None:
    lamp = stock(10, threshold=5)
    placed((lamp, 5))
    assert lamp.events == []
    placed((lamp, 1))
    placed((lamp, 1))
    assert len(lamp.events) == 1
    adjust(lamp, 10)
    lamp.set_threshold(14, LATER)
    lamp.set_threshold(15, LATER)
    assert [event.threshold for event in lamp.events] == [5, 14]


def test_nothing_of_stock_or_of_an_order_is_left_out_of_their_events() -> None:
    lamp = stock(7, threshold=6)
    order, refused = placed((lamp, 3)), placed((lamp, 9))
    assert order.events == [
        InventoryReserved(
            order_id=order.order_id,
            items=(
                InventoryReservedItem(product_id=lamp.product_id, variant_id=lamp.variant_id, quantity=3),
            ),
        )
    ]
    assert refused.events == [
        InventoryOutOfStock(
            order_id=refused.order_id,
            items=(
                InventoryOutOfStockItem(
                    product_id=lamp.product_id, variant_id=lamp.variant_id, requested=9, available=4
                ),
            ),
        )
    ]
    assert lamp.events == [
        InventoryLowStock(variant_id=lamp.variant_id, product_id=lamp.product_id, available=4, threshold=6)
    ]


def test_a_movement_says_what_changed_and_why() -> None:
    lamp = stock(7, reserved=2)
    lamp.adjust(Adjustment(3, "delivery"), "request", LATER)
    order = placed((lamp, 4))
    counted, promised = lamp.movements
    assert counted == Movement(
        variant_id=lamp.variant_id,
        kind=MovementKind.ADJUSTED,
        stock_delta=3,
        reserved_delta=0,
        stock_after=10,
        reserved_after=2,
        order_id=None,
        request_id="request",
        reason="delivery",
        at=LATER,
    )
    assert promised == Movement(
        variant_id=lamp.variant_id,
        kind=MovementKind.RESERVED,
        stock_delta=0,
        reserved_delta=4,
        stock_after=10,
        reserved_after=6,
        order_id=order.order_id,
        request_id=None,
        reason="",
        at=LATER,
    )


def test_what_is_promised_cannot_be_taken_off_the_count() -> None:
    lamp = stock(10, reserved=4)
    with pytest.raises(StockReserved) as refused:
        adjust(lamp, -7)
    assert refused.value.message == (
        "7 can't be taken away: there are 10 in stock, of which 4 are promised to orders"
    )
    assert refused.value.metadata == {"stock_count": "10", "reserved_count": "4"}
    adjust(lamp, -6)
    assert lamp.available == 0


def test_more_than_there_is_cannot_be_taken_off_the_count() -> None:
    with pytest.raises(StockReserved, match=r"^5 can't be taken away: there are 0 in stock$"):
        adjust(stock(0), -5)


def test_a_count_that_does_not_fit_is_refused() -> None:
    with pytest.raises(StockTooLarge):
        adjust(stock(1_000_000_000), 1)


def test_what_comes_back_fits_on_a_full_shelf() -> None:
    full = stock(999_999_000)
    adjust(full, 1000)
    full.take_back(1_000_000_000, new_id(), NOW)
    assert full.stock_count < 2**31


@given(
    st.lists(st.tuples(st.sampled_from(["place", "cancel", "ship", "return", "adjust"]), st.integers(1, 8)))
)
def test_counts_are_the_sums_of_their_movements_and_nothing_is_ever_oversold(
    script: list[tuple[str, int]],
) -> None:
    lamp = stock(0)
    stocks = {lamp.variant_id: lamp}
    holds: list[Hold] = []
    for move, number in script:
        hold = holds[number % len(holds)] if holds else None
        match move:
            case "adjust":
                adjust(lamp, number)
            case "place":
                holds.append(placed((lamp, number)))
            case "cancel" if hold:
                hold.on_order_cancelled(stocks, LATER)
            case "ship" if hold and hold.status is HoldStatus.HELD:
                hold.on_order_shipped(stocks, LATER)
            case "return" if hold and hold.status is HoldStatus.SHIPPED:
                hold.on_order_returned([want(lamp, 8)], {}, stocks, LATER)
        held = sum(sum(each.quantities.values()) for each in holds if each.status is HoldStatus.HELD)
        assert 0 <= lamp.reserved_count == held <= lamp.stock_count
    assert lamp.stock_count == sum(movement.stock_delta for movement in lamp.movements)
    assert lamp.reserved_count == sum(movement.reserved_delta for movement in lamp.movements)

"""What may happen to stock, without any store."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoa_chassis.errors import Code, DomainError
from stoa_chassis.ids import new_id
from stoa_events import (
    InventoryAvailabilityChanged,
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
    VariantNotFound,
    VariantWithdrawn,
    Wanted,
    sum_up,
)

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
LATER = NOW + timedelta(minutes=1)


def stock(count: int = 10, reserved: int = 0, threshold: int = 0) -> Stock:
    """Return a stock of which is published what there is to say."""
    made = Stock(new_id(), new_id(), count, reserved, threshold, NOW)
    made.announce()
    made.events.clear()
    return made


def told_low(lamp: Stock) -> list[InventoryLowStock]:
    """Return what was said of a stock that is low."""
    return [event for event in lamp.events if isinstance(event, InventoryLowStock)]


def told_available(lamp: Stock) -> list[tuple[bool, int]]:
    """Return when a stock said that it can be bought or not, with the versions."""
    return [
        (event.in_stock, event.version)
        for event in lamp.events
        if isinstance(event, InventoryAvailabilityChanged)
    ]


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
    assert [event.threshold for event in told_low(lamp)] == [5, 14]


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


def test_it_is_told_only_when_the_last_one_goes_and_when_one_is_there_again() -> None:
    lamp = stock(2)
    placed((lamp, 1))
    last = placed((lamp, 1))
    assert told_available(lamp) == [(False, 2)]
    stocks = {lamp.variant_id: lamp}
    last.on_order_shipped(stocks, LATER)
    assert told_available(lamp) == [(False, 2)]
    adjust(lamp, 5)
    adjust(lamp, 5)
    assert told_available(lamp) == [(False, 2), (True, 3)]


def test_what_can_be_bought_says_all_of_it() -> None:
    lamp = Stock(new_id(), new_id(), 0, 0, 0, NOW)
    adjust(lamp, 1)
    assert lamp.events == [
        InventoryAvailabilityChanged(
            variant_id=lamp.variant_id, product_id=lamp.product_id, in_stock=True, version=1
        )
    ]


def test_what_is_not_sold_can_not_be_bought_and_what_is_sold_again_can_if_some_are_left() -> None:
    lamp, empty = stock(1), stock(0)
    for each in (lamp, empty):
        each.sell(False, LATER)
        each.sell(True, LATER)
    assert told_available(lamp) == [(False, 2), (True, 3)]
    assert told_available(empty) == []


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


def test_of_more_than_may_be_counted_nothing_or_some_can_be_taken_away() -> None:
    lamp = stock(1_000_000_010)
    adjust(lamp, 0)
    adjust(lamp, -7)
    assert lamp.stock_count == 1_000_000_003


def test_what_comes_back_fits_on_a_full_shelf() -> None:
    full = stock(999_999_000)
    adjust(full, 1000)
    full.take_back(1_000_000_000, new_id(), NOW)
    assert full.stock_count < 2**31


def test_the_largest_count_fits() -> None:
    lamp = stock(999_999_999)
    adjust(lamp, 1)
    assert lamp.stock_count == 1_000_000_000


def test_a_refused_adjustment_says_how_many_there_are_and_changes_nothing() -> None:
    lamp = stock(10, reserved=4)
    with pytest.raises(StockReserved) as refused:
        adjust(lamp, -7)
    assert refused.value.metadata == {"stock_count": "10", "reserved_count": "4"}
    with pytest.raises(StockTooLarge):
        adjust(lamp, 999_999_991)
    assert (lamp.stock_count, lamp.reserved_count, lamp.updated_at) == (10, 4, NOW)
    assert lamp.movements == []


@pytest.mark.parametrize(
    ("count", "reserved", "threshold", "low"),
    [(5, 0, 5, False), (4, 0, 5, True), (9, 4, 5, False), (9, 5, 5, True), (0, 0, 0, False), (0, 0, 1, True)],
)
def test_fewer_than_the_threshold_are_low_and_as_many_are_not(
    count: int, reserved: int, threshold: int, low: bool
) -> None:
    assert stock(count, reserved, threshold).is_low is low


@pytest.mark.parametrize(("left", "told"), [(5, []), (4, [4])])
def test_low_is_told_as_soon_as_fewer_than_the_threshold_are_left_and_not_one_early(
    left: int, told: list[int]
) -> None:
    promised, counted = stock(10, threshold=5), stock(10, threshold=5)
    placed((promised, 10 - left))
    adjust(counted, left - 10)
    for lamp in (promised, counted):
        assert [event.available for event in told_low(lamp)] == told


def test_stock_that_was_low_and_recovered_says_so_again_when_it_gets_low() -> None:
    lamp = stock(5, threshold=5)
    for delta in (-1, 1, -1):
        adjust(lamp, delta)
    assert [event.available for event in told_low(lamp)] == [4, 4]


@pytest.mark.parametrize(("threshold", "told"), [(10, []), (11, [11])])
def test_a_threshold_makes_stock_low_only_if_fewer_are_left(threshold: int, told: list[int]) -> None:
    lamp = stock(10, threshold=3)
    lamp.set_threshold(threshold, LATER)
    assert (lamp.threshold, lamp.updated_at, lamp.movements) == (threshold, LATER, [])
    assert [event.threshold for event in told_low(lamp)] == told


def test_what_is_not_sold_any_more_is_never_low_and_can_not_be_counted() -> None:
    lamp = stock(1, threshold=5)
    assert lamp.sell(False, LATER)
    assert (lamp.on_sale, lamp.is_low, lamp.updated_at) == (False, False, LATER)
    assert told_low(lamp) == []
    with pytest.raises(VariantWithdrawn, match=str(lamp.variant_id)):
        adjust(lamp, 1)
    with pytest.raises(VariantWithdrawn, match=str(lamp.variant_id)):
        lamp.set_threshold(6, LATER)
    assert (lamp.stock_count, lamp.threshold, lamp.movements) == (1, 5, [])


def test_what_is_sold_as_before_has_not_changed() -> None:
    lamp, gone = stock(1, threshold=5), stock(1, threshold=5)
    gone.sell(False, NOW)
    gone.events.clear()
    assert lamp.sell(True, LATER) is False
    assert gone.sell(False, LATER) is False
    assert (lamp.updated_at, gone.updated_at, lamp.events, gone.events) == (NOW, NOW, [], [])


@pytest.mark.parametrize(("count", "told"), [(5, []), (4, [4])])
def test_what_is_sold_again_says_that_it_is_low_if_it_is(count: int, told: list[int]) -> None:
    lamp = stock(count, threshold=5)
    lamp.sell(False, NOW)
    assert lamp.sell(True, LATER)
    assert (lamp.on_sale, lamp.updated_at) == (True, LATER)
    assert [event.available for event in told_low(lamp)] == told


def test_each_movement_of_an_order_says_what_it_was() -> None:
    lamp = stock(10)
    stocks = {lamp.variant_id: lamp}
    cancelled, kept = placed((lamp, 1)), placed((lamp, 3))
    cancelled.on_order_cancelled(stocks, LATER)
    kept.on_order_shipped(stocks, LATER)
    kept.on_order_returned([want(lamp, 2)], {}, stocks, LATER)
    assert [
        (
            each.kind,
            each.stock_delta,
            each.reserved_delta,
            each.stock_after,
            each.reserved_after,
            each.order_id,
        )
        for each in lamp.movements
    ] == [
        ("reserved", 0, 1, 10, 1, cancelled.order_id),
        ("reserved", 0, 3, 10, 4, kept.order_id),
        ("released", 0, -1, 10, 3, cancelled.order_id),
        ("shipped", -3, -3, 7, 0, kept.order_id),
        ("returned", 2, 0, 9, 0, kept.order_id),
    ]
    assert {(each.variant_id, each.request_id, each.reason, each.at) for each in lamp.movements} == {
        (lamp.variant_id, None, "", LATER)
    }
    assert lamp.updated_at == LATER


def test_a_hold_begins_on_nothing_and_one_that_is_cancelled_first_is_released() -> None:
    order_id = new_id()
    assert Hold.begin(order_id, NOW) == Hold(order_id, HoldStatus.HELD, NOW, {})
    assert Hold.released(order_id, NOW) == Hold(order_id, HoldStatus.RELEASED, NOW, {})


def test_a_hold_notes_when_it_came_to_its_end() -> None:
    lamp = stock(10)
    stocks = {lamp.variant_id: lamp}
    cancelled, shipped = placed((lamp, 1)), placed((lamp, 2))
    assert (cancelled.status, cancelled.updated_at) == (HoldStatus.HELD, NOW)
    cancelled.on_order_cancelled(stocks, LATER)
    shipped.on_order_shipped(stocks, LATER)
    assert (cancelled.status, cancelled.updated_at) == (HoldStatus.RELEASED, LATER)
    assert (shipped.status, shipped.updated_at) == (HoldStatus.SHIPPED, LATER)
    much_later = LATER + timedelta(minutes=1)
    shipped.on_order_returned([want(lamp, 1)], {}, stocks, much_later)
    assert (shipped.status, shipped.updated_at) == (HoldStatus.SHIPPED, LATER)
    shipped.on_order_returned([want(lamp, 1)], {lamp.variant_id: 1}, stocks, much_later)
    assert (shipped.status, shipped.updated_at) == (HoldStatus.RETURNED, much_later)


def test_an_order_that_was_shipped_or_released_is_not_cancelled_again() -> None:
    lamp = stock(10)
    stocks = {lamp.variant_id: lamp}
    shipped = placed((lamp, 2))
    shipped.on_order_shipped(stocks, LATER)
    shipped.on_order_cancelled(stocks, LATER)
    assert (shipped.status, lamp.stock_count, lamp.reserved_count) == (HoldStatus.SHIPPED, 8, 0)


def test_no_more_comes_back_than_left_whatever_is_said() -> None:
    lamp, chair = stock(10), stock(10)
    stocks = {lamp.variant_id: lamp, chair.variant_id: chair}
    order = placed((lamp, 2), (chair, 1))
    order.on_order_shipped(stocks, LATER)
    order.on_order_returned([want(lamp, 1), want(lamp, 4), want(stock(), 1)], {}, stocks, LATER)
    assert (lamp.stock_count, chair.stock_count, order.status) == (10, 9, HoldStatus.SHIPPED)
    order.on_order_returned([want(lamp, 1)], {lamp.variant_id: 2}, stocks, LATER)
    assert (lamp.stock_count, order.status) == (10, HoldStatus.SHIPPED)
    order.on_order_returned([want(chair, 1)], {lamp.variant_id: 2}, stocks, LATER)
    assert (chair.stock_count, order.status) == (10, HoldStatus.RETURNED)


def test_goods_that_are_not_there_are_named_with_their_order() -> None:
    hold = Hold(new_id(), HoldStatus.REFUSED, NOW)
    with pytest.raises(NotReserved, match=f"order {hold.order_id} has no stock here: refused"):
        hold.on_order_shipped({}, LATER)


def test_lines_keep_their_product() -> None:
    lamp = stock()
    assert sum_up([want(lamp, 2), want(lamp, 1)]) == [Wanted(lamp.product_id, lamp.variant_id, 3)]


def test_exactly_all_that_is_left_can_be_promised() -> None:
    lamp = stock(3, reserved=1)
    assert placed((lamp, 3)).status is HoldStatus.REFUSED
    assert placed((lamp, 2)).status is HoldStatus.HELD
    assert lamp.available == 0


def test_stock_and_holds_are_the_same_whatever_is_still_to_be_told_of_them() -> None:
    lamp = stock(5, threshold=5)
    hold = placed((lamp, 1))
    assert lamp.movements
    assert lamp.events
    assert hold.events
    assert replace(lamp, movements=[]) == replace(lamp, events=[]) == lamp
    assert replace(hold, events=[]) == hold


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (VariantNotFound, Code.NOT_FOUND, "VARIANT_NOT_FOUND"),
        (VariantWithdrawn, Code.FAILED_PRECONDITION, "VARIANT_WITHDRAWN"),
        (StockReserved, Code.FAILED_PRECONDITION, "STOCK_RESERVED"),
        (StockTooLarge, Code.FAILED_PRECONDITION, "STOCK_TOO_LARGE"),
        (NotReserved, Code.FAILED_PRECONDITION, "NOT_RESERVED"),
    ],
)
def test_each_error_has_its_code_and_reason(error: type[DomainError], code: Code, reason: str) -> None:
    assert (error.code, error.reason) == (code, reason)


@pytest.mark.parametrize(
    ("words", "known"),
    [
        (HoldStatus, {"held", "refused", "released", "shipped", "returned"}),
        (MovementKind, {"adjusted", "reserved", "released", "shipped", "returned"}),
    ],
)
def test_the_words_that_are_stored_do_not_change(words: type[StrEnum], known: set[str]) -> None:
    assert set(words) == known


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

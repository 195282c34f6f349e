"""What may happen to stock, without any store."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoa_chassis.ids import new_id
from stoa_events import InventoryOutOfStock, InventoryReserved
from stoa_inventory.model import (
    Stock,
    StockReserved,
    StockTooLarge,
    Wanted,
    release,
    reserve,
    ship,
    sum_up,
    take_back,
)


def stock(count: int = 10, reserved: int = 0) -> Stock:
    return Stock(new_id(), new_id(), count, reserved)


def want(of: Stock, quantity: int) -> Wanted:
    return Wanted(of.product_id, of.variant_id, quantity)


def by_id(*stocks: Stock) -> dict[object, Stock]:
    return {one.variant_id: one for one in stocks}


def test_lines_of_the_same_variant_are_one_wish() -> None:
    lamp, chair = stock(), stock()
    wanted = sum_up([want(lamp, 2), want(chair, 1), want(lamp, 3)])
    assert {line.variant_id: line.quantity for line in wanted} == {lamp.variant_id: 5, chair.variant_id: 1}
    assert [line.variant_id for line in wanted] == sorted(line.variant_id for line in wanted)


def test_an_order_gets_all_that_it_wants() -> None:
    lamp, chair = stock(5), stock(5)
    changes, answer = reserve(new_id(), sum_up([want(lamp, 5), want(chair, 1)]), by_id(lamp, chair))
    assert isinstance(answer, InventoryReserved)
    assert len(changes) == 2
    assert (lamp.available, chair.available) == (0, 4)


def test_an_order_gets_nothing_if_something_lacks_and_hears_what() -> None:
    lamp, chair, unknown = stock(5), stock(1), stock()
    wanted = sum_up([want(lamp, 5), want(chair, 2), want(unknown, 1)])
    changes, answer = reserve(new_id(), wanted, by_id(lamp, chair))
    assert isinstance(answer, InventoryOutOfStock)
    assert {item.variant_id: (item.requested, item.available) for item in answer.items} == {
        chair.variant_id: (2, 1),
        unknown.variant_id: (1, 0),
    }
    assert not changes
    assert (lamp.available, chair.available) == (5, 1)


def test_two_lines_that_together_are_too_many_get_nothing() -> None:
    lamp = stock(3)
    _, answer = reserve(new_id(), sum_up([want(lamp, 2), want(lamp, 2)]), by_id(lamp))
    assert isinstance(answer, InventoryOutOfStock)


def test_what_is_promised_cannot_be_taken_off_the_count() -> None:
    lamp = stock(10, reserved=4)
    with pytest.raises(StockReserved):
        lamp.adjust(-7)
    lamp.adjust(-6)
    assert lamp.available == 0


def test_a_count_that_does_not_fit_is_refused() -> None:
    with pytest.raises(StockTooLarge):
        stock(2**31 - 1).adjust(1)


@given(
    st.lists(
        st.tuples(st.sampled_from(["reserve", "release", "ship", "return", "adjust"]), st.integers(1, 8))
    )
)
def test_counts_are_the_sums_of_their_changes_and_nothing_is_ever_oversold(
    script: list[tuple[str, int]],
) -> None:
    lamp, held, out, changes = stock(0), 0, 0, []
    for move, quantity in script:
        match move:
            case "adjust":
                changes.append(lamp.adjust(quantity))
            case "reserve":
                made, answer = reserve(new_id(), [want(lamp, quantity)], by_id(lamp))
                changes += made
                held += quantity if isinstance(answer, InventoryReserved) else 0
            case "release" if held >= quantity:
                changes.append(lamp.apply(release(lamp.variant_id, quantity)))
                held -= quantity
            case "ship" if held >= quantity:
                changes.append(lamp.apply(ship(lamp.variant_id, quantity)))
                held, out = held - quantity, out + quantity
            case "return" if out >= quantity:
                changes.append(lamp.apply(take_back(lamp.variant_id, quantity)))
                out -= quantity
        assert 0 <= lamp.reserved_count == held <= lamp.stock_count
    assert lamp.stock_count == sum(change.stock for change in changes)
    assert lamp.reserved_count == sum(change.reserved for change in changes)

"""What may be in a cart, and at which prices."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoa_cart.model import (
    MAX_CLAIMS,
    MAX_LINES,
    MAX_OVER,
    MAX_QUANTITY,
    MAX_SUBTOTAL,
    Cart,
    CartBusy,
    CartChanged,
    CartEmpty,
    CartFull,
    Claim,
    ClaimState,
    Item,
    ItemNotFound,
    ItemUnavailable,
    Offer,
    OutOfStock,
)
from stoa_chassis.errors import Code, DomainError, InvalidArgument
from stoa_chassis.ids import new_id
from stoa_events import CartItemAdded, OrderPlaced

from .conftest import CURRENCY, cancelled, confirmed, contents, ordered, placed, usd

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
LATER = NOW + timedelta(minutes=1)
PLENTY = 1_000_000
VARIANTS = [new_id() for _ in range(4)]

variants = st.sampled_from(VARIANTS)
quantities = st.integers(1, 50)
amounts = st.decimals("0.01", "9999999.99", places=2)


def offer(variant_id: UUID | None = None, price: str | Decimal = "19.90") -> Offer:
    return Offer(new_id(), variant_id or new_id(), usd(price))


def cart_of(quantities: Mapping[UUID, int], price: str | Decimal = "1.00") -> Cart:
    items = [
        Item(new_id(), new_id(), variant, quantity, usd(price)) for variant, quantity in quantities.items()
    ]
    return Cart(new_id(), CURRENCY, items, NOW)


def order_of(cart: Cart, quantities: Iterable[tuple[UUID, int]]) -> OrderPlaced:
    return ordered(cart.user_id, *((offer(variant), quantity) for variant, quantity in quantities))


@given(st.lists(st.tuples(variants, quantities), max_size=12))
def test_a_cart_holds_the_sum_of_what_was_put_in_each_variant_on_one_line(
    added: list[tuple[UUID, int]],
) -> None:
    cart = Cart(new_id(), CURRENCY)
    wanted: dict[UUID, int] = {}
    for variant, quantity in added:
        cart.add(offer(variant), quantity, PLENTY, NOW)
        wanted[variant] = wanted.get(variant, 0) + quantity
    assert contents(cart) == wanted
    assert list(contents(cart)) == list(wanted), "in the order they were put in"
    assert len({item.item_id for item in cart.items}) == len(wanted)
    assert [(event.variant_id, event.quantity) for event in cart.events] == added


@given(
    st.dictionaries(variants, quantities),
    st.dictionaries(variants, quantities),
    st.lists(st.tuples(variants, quantities), max_size=6),
)
def test_an_order_takes_out_exactly_what_was_ordered(
    before: dict[UUID, int], since: dict[UUID, int], unrelated: list[tuple[UUID, int]]
) -> None:
    cart = cart_of(before)
    for variant, quantity in since.items():
        cart.add(offer(variant), quantity, PLENTY, NOW)
    cart.on_order_placed(order_of(cart, before.items()), LATER)
    assert contents(cart) == since
    cart.on_order_placed(order_of(cart, unrelated), LATER)
    taken = {variant: sum(number for of, number in unrelated if of == variant) for variant in VARIANTS}
    left = {variant: quantity - taken[variant] for variant, quantity in since.items()}
    assert contents(cart) == {variant: quantity for variant, quantity in left.items() if quantity > 0}


@given(st.dictionaries(variants, st.integers(1, MAX_QUANTITY)), st.dictionaries(variants, amounts))
def test_the_subtotal_is_the_sum_of_the_prices_seen_and_always_fits(
    quantities: dict[UUID, int], prices: dict[UUID, Decimal]
) -> None:
    cart = cart_of(quantities)
    cart.refresh(
        {item.product_id: {item.variant_id: usd(prices.get(item.variant_id, "1.00"))} for item in cart.items}
    )
    assert cart.subtotal.amount == sum(item.price.amount * item.quantity for item in cart.items)
    assert cart.subtotal <= usd(MAX_SUBTOTAL)
    assert contents(cart) == quantities
    assert cart.updated_at == NOW, "looking is no change"


def test_a_price_is_seen_as_long_as_the_cart_can_be_summed_up() -> None:
    lamp = new_id()
    cart = cart_of({lamp: 1}, "10.00")
    (item,) = cart.items
    for price, seen in (
        (MAX_SUBTOTAL, MAX_SUBTOTAL),
        (MAX_SUBTOTAL + 1, MAX_SUBTOTAL),
        (Decimal(1), Decimal(1)),
    ):
        cart.refresh({item.product_id: {lamp: usd(price)}})
        assert cart.subtotal == usd(seen)


def test_a_product_that_is_not_known_stays_as_it_was_seen() -> None:
    lamp, chair = new_id(), new_id()
    cart = cart_of({lamp: 1, chair: 2}, "10.00")
    cart.refresh({cart.items[0].product_id: {lamp: usd("12.00")}, new_id(): {chair: usd("1.00")}})
    assert [item.price for item in cart.items] == [usd("12.00"), usd("10.00")]
    assert all(item.available for item in cart.items)
    assert cart.subtotal == usd("32.00")


def test_a_variant_that_its_product_has_no_more_is_unavailable_and_does_not_count() -> None:
    lamp, chair = new_id(), new_id()
    cart = cart_of({lamp: 1, chair: 2}, "10.00")
    cart.refresh({cart.items[0].product_id: {new_id(): usd("12.00")}})
    assert [(item.price, item.available) for item in cart.items] == [
        (usd("10.00"), False),
        (usd("10.00"), True),
    ]
    assert cart.subtotal == usd("20.00")
    with pytest.raises(ItemUnavailable):
        cart.set_quantity(cart.items[0].item_id, 1, PLENTY, LATER)
    cart.add(offer(lamp, "11.00"), 1, PLENTY, LATER)
    assert cart.subtotal == usd("42.00")


def test_lines_that_are_unavailable_leave_no_room_for_more_than_could_be_summed_up() -> None:
    cart = Cart(new_id(), CURRENCY)
    cart.add(offer(price="9999999.99"), 100, PLENTY, NOW)
    cart.refresh({cart.items[0].product_id: {}})
    with pytest.raises(InvalidArgument):
        cart.add(offer(price="9999999.99"), 1, PLENTY, NOW)


def test_every_change_that_an_order_could_mean_is_another_version() -> None:
    lamp, chair = new_id(), new_id()
    cart = cart_of({lamp: 1, chair: 2})
    versions = [cart.version]
    changes: list[Callable[[], object]] = [
        lambda: cart.set_quantity(cart.items[0].item_id, 2, PLENTY, NOW),
        lambda: cart.refresh({cart.items[0].product_id: {lamp: usd("1.01")}}),
        lambda: cart.add(offer(), 1, PLENTY, NOW),
        lambda: cart.remove(cart.items[0].item_id, NOW),
        lambda: cart.clear(NOW),
        lambda: cart.add(offer(chair), 2, PLENTY, NOW),
    ]
    for change in changes:
        assert cart.version == versions[-1]
        change()
        versions.append(cart.version)
    assert len(set(versions)) == len(versions)


def test_another_variant_of_the_same_product_for_the_same_price_is_another_version() -> None:
    cart, red, blue = Cart(new_id(), CURRENCY), offer(), new_id()
    cart.add(red, 1, PLENTY, NOW)
    before = cart.version
    cart.clear(NOW)
    cart.add(replace(red, variant_id=blue), 1, PLENTY, NOW)
    assert cart.version != before


def claimed(cart: Cart, request_id: str = "r") -> Claim:
    return cart.claim(request_id, new_id(), cart.version, NOW, LATER)


def test_what_is_given_back_keeps_to_what_a_cart_may_hold() -> None:
    cart = cart_of({new_id(): 1 for _ in range(60)})
    order = placed(cart.user_id, cart.items, claimed(cart).order_id)
    for _ in range(MAX_LINES - 1):
        cart.add(offer(), 1, PLENTY, NOW)
    meanwhile = contents(cart)
    cart.on_order_cancelled(cancelled(order), LATER)
    assert len(cart.items) == MAX_LINES
    assert contents(cart).items() >= meanwhile.items()


def test_what_would_make_the_cart_too_expensive_is_not_given_back() -> None:
    cart = Cart(new_id(), CURRENCY)
    dear, cheap = offer(price="9999999.99"), offer(price="1.00")
    for thing in (dear, cheap):
        cart.add(thing, 60, PLENTY, NOW)
    order = placed(cart.user_id, cart.items, claimed(cart).order_id)
    other = offer(price="9999999.99")
    cart.add(other, 60, PLENTY, NOW)
    cart.on_order_cancelled(cancelled(order), LATER)
    assert contents(cart) == {cheap.variant_id: 60, other.variant_id: 60}


def test_what_is_given_back_stands_before_what_was_added_since() -> None:
    lamp, chair, desk = new_id(), new_id(), offer()
    cart = cart_of({lamp: 1, chair: 1})
    order = placed(cart.user_id, cart.items, claimed(cart).order_id)
    cart.add(desk, 1, PLENTY, NOW)
    cart.on_order_cancelled(cancelled(order), LATER)
    assert list(contents(cart)) == [lamp, chair, desk.variant_id]


def test_a_request_that_comes_again_while_its_order_is_under_way_gets_the_claim_that_it_has() -> None:
    cart = cart_of({new_id(): 2})
    items, first = list(cart.items), claimed(cart)
    order = placed(cart.user_id, items, first.order_id)
    cart.on_order_placed(order, LATER)
    again = claimed(cart)
    assert (again.order_id, again.state, again.items) == (first.order_id, ClaimState.PLACED, tuple(items))
    cart.on_order_confirmed(confirmed(order), LATER)
    assert claimed(cart).order_id == first.order_id
    assert not cart.items


def test_an_order_that_claimed_nothing_takes_out_once_what_it_ordered_even_if_its_end_comes_first() -> None:
    lamp = new_id()
    cart = cart_of({lamp: 3})
    order = order_of(cart, [(lamp, 2)])
    cart.on_order_confirmed(confirmed(order), NOW)
    assert contents(cart) == {lamp: 3}, "it may be an old one"
    for _ in range(2):
        cart.on_order_placed(order, LATER)
        cart.on_order_confirmed(confirmed(order), LATER)
        assert contents(cart) == {lamp: 1}


def test_an_order_that_is_confirmed_although_its_claim_lapsed_takes_out_once_what_it_ordered() -> None:
    lamp = new_id()
    cart = cart_of({lamp: 2})
    order = placed(cart.user_id, cart.items, claimed(cart).order_id)
    cart.lapse(LATER)
    cart.add(offer(lamp), 1, PLENTY, LATER)
    for _ in range(2):
        cart.on_order_confirmed(confirmed(order), LATER)
        assert contents(cart) == {lamp: 1}
    cart.on_order_placed(order, LATER)
    assert contents(cart) == {lamp: 1}


def test_a_cart_remembers_the_latest_orders_and_those_that_are_under_way_longest() -> None:
    assert (MAX_CLAIMS, MAX_OVER) == (50, 10)
    cart = cart_of({new_id(): 1})
    orders = [placed(cart.user_id, (), new_id()) for _ in range(MAX_CLAIMS + 10)]
    for order in orders[: MAX_OVER + 5]:
        cart.on_order_cancelled(cancelled(order), NOW)
    assert [claim.order_id for claim in cart.claims] == [order.order_id for order in orders[5 : MAX_OVER + 5]]
    for order in orders:
        cart.on_order_placed(order, NOW)
    assert len(cart.claims) == MAX_CLAIMS
    assert cart.claims[-1].order_id == orders[-1].order_id


@pytest.mark.parametrize("is_placed", [False, True])
def test_however_many_old_orders_are_heard_of_an_order_under_way_keeps_what_it_holds(is_placed: bool) -> None:
    lamp = new_id()
    cart = cart_of({lamp: 2})
    order = placed(cart.user_id, cart.items, claimed(cart).order_id)
    if is_placed:
        cart.on_order_placed(order, NOW)
    for _ in range(MAX_CLAIMS + 10):
        cart.on_order_confirmed(confirmed(placed(cart.user_id, (), new_id())), NOW)
    assert len(cart.claims) == MAX_CLAIMS
    cart.on_order_cancelled(cancelled(order), LATER)
    assert contents(cart) == {lamp: 2}


@given(
    st.dictionaries(variants, quantities, min_size=1),
    st.dictionaries(variants, quantities),
    st.lists(st.sampled_from(["placed", "confirmed", "cancelled", "lapse"]), max_size=8),
)
def test_whatever_becomes_of_a_claim_nothing_is_lost_and_nothing_doubles(
    before: dict[UUID, int], since: dict[UUID, int], events: list[str]
) -> None:
    cart = cart_of(before)
    items = list(cart.items)
    order = placed(cart.user_id, items, claimed(cart).order_id)
    for variant, quantity in since.items():
        cart.add(offer(variant), quantity, PLENTY, NOW)
    for event in events:
        match event:
            case "placed":
                cart.on_order_placed(order, LATER)
            case "confirmed":
                cart.on_order_confirmed(confirmed(order), LATER)
            case "cancelled":
                cart.on_order_cancelled(cancelled(order), LATER)
            case _:
                cart.lapse(LATER)
    for variant, quantity in contents(cart).items():
        assert quantity <= max(before.get(variant, 0), since.get(variant, 0))
    ends = [event for event in events if event in ("confirmed", "cancelled")]
    if ends[:1] == ["cancelled"] and "lapse" not in events:
        assert contents(cart) == {
            variant: max(before.get(variant, 0), since.get(variant, 0)) for variant in {*before, *since}
        }
    if "confirmed" in ends and "lapse" not in events and "cancelled" not in events:
        assert contents(cart) == since


def test_an_empty_cart_costs_nothing() -> None:
    assert Cart(new_id(), CURRENCY).subtotal == usd("0.00")


def test_adding_what_is_there_already_takes_over_the_price_of_now() -> None:
    lamp = new_id()
    cart = cart_of({lamp: 1}, "10.00")
    cart.add(offer(lamp, "12.00"), 1, PLENTY, LATER)
    [item] = cart.items
    assert (item.quantity, item.price, cart.updated_at) == (2, usd("12.00"), LATER)


def test_what_was_added_is_published_with_its_price_and_not_the_new_sum() -> None:
    lamp = offer(price="12.00")
    cart = cart_of({lamp.variant_id: 5})
    cart.add(lamp, 2, PLENTY, NOW)
    assert cart.events == [
        CartItemAdded(
            user_id=cart.user_id,
            product_id=lamp.product_id,
            variant_id=lamp.variant_id,
            quantity=2,
            price=lamp.price,
        )
    ]


def test_the_stock_has_to_suffice_for_all_of_a_variant_in_the_cart() -> None:
    lamp = new_id()
    cart = cart_of({lamp: 2})
    cart.add(offer(lamp), 1, 3, NOW)
    with pytest.raises(OutOfStock) as refused:
        cart.add(offer(lamp), 1, 3, NOW)
    assert refused.value.metadata == {"variant_id": str(lamp), "requested": "4", "available": "3"}
    assert (refused.value.code, refused.value.reason) == (Code.FAILED_PRECONDITION, "OUT_OF_STOCK")
    with pytest.raises(OutOfStock):
        cart.set_quantity(cart.items[0].item_id, 4, 3, NOW)
    assert contents(cart) == {lamp: 3}
    assert len(cart.events) == 1


def test_more_than_999_of_a_variant_are_refused_naming_the_quantity() -> None:
    lamp = new_id()
    cart = cart_of({lamp: 990})
    cart.add(offer(lamp), 9, PLENTY, NOW)
    with pytest.raises(InvalidArgument) as refused:
        cart.add(offer(lamp), 1, PLENTY, NOW)
    assert [violation.field for violation in refused.value.violations] == ["item.quantity"]
    assert contents(cart) == {lamp: 999}


def test_none_of_a_variant_is_refused_naming_the_quantity() -> None:
    cart = cart_of({new_id(): 2})
    puts: list[Callable[[], None]] = [
        lambda: cart.add(offer(), 0, PLENTY, NOW),
        lambda: cart.set_quantity(cart.items[0].item_id, 0, PLENTY, NOW),
    ]
    for put in puts:
        with pytest.raises(InvalidArgument) as refused:
            put()
        assert [violation.field for violation in refused.value.violations] == ["item.quantity"]
    assert [item.quantity for item in cart.items] == [2]


def test_the_101st_variant_is_refused_but_not_more_of_the_others() -> None:
    cart = cart_of({new_id(): 1 for _ in range(100)})
    with pytest.raises(CartFull) as refused:
        cart.add(offer(), 1, PLENTY, NOW)
    assert (refused.value.code, refused.value.reason) == (Code.FAILED_PRECONDITION, "CART_FULL")
    cart.add(offer(cart.items[0].variant_id), 1, PLENTY, NOW)
    assert cart.items[0].quantity == 2


def test_a_cart_that_no_store_could_sum_up_is_refused_naming_the_quantity() -> None:
    cart = Cart(new_id(), CURRENCY)
    cart.add(offer(price="9999999.99"), 100, PLENTY, NOW)
    with pytest.raises(InvalidArgument) as refused:
        cart.add(offer(price="9999999.99"), 1, PLENTY, NOW)
    assert [violation.field for violation in refused.value.violations] == ["item.quantity"]
    assert len(cart.items) == 1


def test_a_cart_may_cost_a_billion_and_not_a_cent_more() -> None:
    cart = Cart(new_id(), CURRENCY)
    cart.add(offer(price="10000000.00"), 100, PLENTY, NOW)
    assert cart.subtotal == usd("1000000000.00")
    with pytest.raises(InvalidArgument, match=r"would make the cart cost more than 1000000000\.00 USD"):
        cart.add(offer(price="0.01"), 1, PLENTY, NOW)


def test_setting_a_quantity_changes_that_line_only() -> None:
    lamp, chair = new_id(), new_id()
    cart = cart_of({lamp: 1, chair: 2})
    cart.set_quantity(cart.items[1].item_id, 7, 7, LATER)
    assert contents(cart) == {lamp: 1, chair: 7}
    assert cart.updated_at == LATER
    with pytest.raises(ItemNotFound):
        cart.set_quantity(new_id(), 1, PLENTY, LATER)


def test_removing_takes_one_line_out_and_what_is_not_there_changes_nothing() -> None:
    lamp, chair = new_id(), new_id()
    cart = cart_of({lamp: 1, chair: 2})
    gone = cart.items[0].item_id
    cart.remove(gone, LATER)
    assert contents(cart) == {chair: 2}
    cart.remove(gone, LATER + timedelta(minutes=1))
    assert (contents(cart), cart.updated_at) == ({chair: 2}, LATER)


def test_a_cart_is_the_same_whatever_is_still_to_be_told_of_it() -> None:
    cart = Cart(new_id(), CURRENCY)
    cart.add(offer(), 1, PLENTY, NOW)
    assert cart.events
    assert replace(cart, events=[]) == cart


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (ItemNotFound, Code.NOT_FOUND, "CART_ITEM_NOT_FOUND"),
        (CartFull, Code.FAILED_PRECONDITION, "CART_FULL"),
        (ItemUnavailable, Code.FAILED_PRECONDITION, "ITEM_UNAVAILABLE"),
        (OutOfStock, Code.FAILED_PRECONDITION, "OUT_OF_STOCK"),
        (CartEmpty, Code.ABORTED, "CART_EMPTY"),
        (CartChanged, Code.ABORTED, "CART_CHANGED"),
        (CartBusy, Code.ABORTED, "CART_BUSY"),
    ],
)
def test_each_error_has_its_code_and_reason(error: type[DomainError], code: Code, reason: str) -> None:
    assert (error.code, error.reason) == (code, reason)


@pytest.mark.parametrize(
    ("words", "known"), [(ClaimState, {"open", "lapsed", "placed", "confirmed", "over"})]
)
def test_the_words_that_are_stored_do_not_change(words: type[StrEnum], known: set[str]) -> None:
    assert set(words) == known

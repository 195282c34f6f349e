"""Carts on a store in memory: what is kept, what events do, and which prices were seen."""

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest

from stoa_cart import testing
from stoa_cart.model import (
    MAX_CLAIMS,
    Cart,
    CartChanged,
    CartEmpty,
    ItemNotFound,
    ItemUnavailable,
    Offer,
    OutOfStock,
)
from stoa_chassis.errors import InvalidArgument, Unavailable
from stoa_chassis.ids import new_id
from stoa_chassis.inbox import AlreadyProcessed
from stoa_chassis.memory import MemoryStore
from stoa_events import CartItemAdded

from .conftest import (
    CURRENCY,
    CartService,
    cancelled,
    confirmed,
    contents,
    deleted,
    ordered,
    repriced,
    usd,
)

Memory = MemoryStore[testing.Rows]


async def test_what_was_put_in_is_found_again_by_any_process(service: CartService) -> None:
    user, lamp, chair = new_id(), service.shelf.sell("19.90"), service.shelf.sell("5.00")
    await service.carts.add(user, lamp.product_id, lamp.variant_id, 2)
    added = await service.carts.add(user, chair.product_id, chair.variant_id, 1)
    found = await service.another_process().get(user)
    assert found == added
    assert contents(found) == {lamp.variant_id: 2, chair.variant_id: 1}
    assert found.subtotal == usd("44.80")


async def test_a_user_without_a_cart_sees_an_empty_one_and_nothing_is_stored(
    service: CartService, memory: Memory
) -> None:
    user = new_id()
    assert await service.carts.get(user) == Cart(user, CURRENCY)
    await service.carts.remove(user, new_id())
    assert not memory.rows.carts


async def test_adding_publishes_what_was_added_and_refusals_publish_nothing(
    service: CartService, memory: Memory
) -> None:
    user, lamp = new_id(), service.shelf.sell("19.90", stock=3)
    await service.carts.add(user, lamp.product_id, lamp.variant_id, 2)
    with pytest.raises(OutOfStock):
        await service.carts.add(user, lamp.product_id, lamp.variant_id, 2)
    assert memory.payloads(CartItemAdded) == [
        CartItemAdded(
            user_id=user,
            product_id=lamp.product_id,
            variant_id=lamp.variant_id,
            quantity=2,
            price=usd("19.90"),
        )
    ]


async def test_only_what_is_on_sale_under_that_product_can_be_added(
    service: CartService, memory: Memory
) -> None:
    user, lamp = new_id(), service.shelf.sell()
    for product, variant, wrong in (
        (lamp.product_id, new_id(), "item.variant_id"),
        (new_id(), lamp.variant_id, "item.product_id"),
    ):
        with pytest.raises(InvalidArgument) as refused:
            await service.carts.add(user, product, variant, 1)
        assert [violation.field for violation in refused.value.violations] == [wrong]
    assert not memory.rows.carts


async def test_a_line_grows_within_the_stock_and_shrinks_whatever_the_stock(service: CartService) -> None:
    user, lamp = new_id(), service.shelf.sell(stock=5)
    cart = await service.carts.add(user, lamp.product_id, lamp.variant_id, 4)
    item_id = cart.items[0].item_id
    assert (await service.carts.update(user, item_id, 5)).items[0].quantity == 5
    with pytest.raises(OutOfStock) as refused:
        await service.carts.update(user, item_id, 6)
    assert refused.value.metadata["available"] == "5"
    service.shelf.stock[lamp.variant_id] = 1
    assert (await service.carts.update(user, item_id, 3)).items[0].quantity == 3
    with pytest.raises(ItemNotFound):
        await service.carts.update(user, new_id(), 1)


async def test_what_is_sold_out_keeps_nobody_from_the_rest_of_the_cart(service: CartService) -> None:
    user, lamp, chair = new_id(), service.shelf.sell(stock=5), service.shelf.sell()
    cart = await service.carts.add(user, lamp.product_id, lamp.variant_id, 5)
    service.shelf.stock[lamp.variant_id] = 0
    cart = await service.carts.add(user, chair.product_id, chair.variant_id, 1)
    await service.carts.update(user, cart.items[1].item_id, 3)
    await service.carts.update(user, cart.items[0].item_id, 2)
    left = await service.carts.remove(user, cart.items[0].item_id)
    assert contents(left) == {chair.variant_id: 3}


async def test_removing_and_clearing_can_be_repeated(service: CartService) -> None:
    user, lamp, chair = new_id(), service.shelf.sell(), service.shelf.sell()
    await service.carts.add(user, lamp.product_id, lamp.variant_id, 1)
    cart = await service.carts.add(user, chair.product_id, chair.variant_id, 1)
    for _ in range(2):
        left = await service.carts.remove(user, cart.items[0].item_id)
        assert contents(left) == {chair.variant_id: 1}
    for _ in range(2):
        await service.carts.clear(user)
        assert not (await service.carts.get(user)).items


async def test_without_the_other_services_a_cart_can_be_read_and_emptied_but_not_filled(
    service: CartService,
) -> None:
    user, lamp = new_id(), service.shelf.sell()
    cart = await service.carts.add(user, lamp.product_id, lamp.variant_id, 2)
    service.shelf.down = Unavailable("down")
    with pytest.raises(Unavailable):
        await service.carts.add(user, lamp.product_id, lamp.variant_id, 1)
    with pytest.raises(Unavailable):
        await service.carts.update(user, cart.items[0].item_id, 3)
    assert await service.carts.get(user) == (await service.checkout(user)).cart == cart
    assert (await service.carts.update(user, cart.items[0].item_id, 1)).items[0].quantity == 1
    assert not (await service.carts.remove(user, cart.items[0].item_id)).items


# -------------------------------------------------------------------------------------------------- prices


async def test_a_changed_price_counts_for_checkout_once_the_owner_has_seen_it(service: CartService) -> None:
    user, lamp = new_id(), service.shelf.sell("10.00")
    before = await service.carts.add(user, lamp.product_id, lamp.variant_id, 2)
    await service.handle(repriced(lamp, "12.00", version=2))
    assert (await service.checkout(user)).cart.items[0].price == usd("10.00")
    assert (await service.checkout(user)).cart.items[0].price == usd("10.00"), "checkout is no look"
    seen = await service.carts.get(user)
    assert (seen.subtotal, seen.updated_at) == (usd("24.00"), before.updated_at)
    assert (await service.checkout(user)).cart.items[0].price == usd("12.00")


async def test_whatever_shows_the_cart_shows_the_prices_of_now(service: CartService) -> None:
    user, lamp, chair = new_id(), service.shelf.sell("10.00"), service.shelf.sell("1.00")
    cart = await service.carts.add(user, lamp.product_id, lamp.variant_id, 1)
    item_id = cart.items[0].item_id
    looks: list[Callable[[], Awaitable[Cart]]] = [
        lambda: service.carts.add(user, chair.product_id, chair.variant_id, 1),
        lambda: service.carts.update(user, item_id, 2),
        lambda: service.carts.remove(user, new_id()),
        lambda: service.carts.get(user),
    ]
    for version, look in enumerate(looks, start=2):
        await service.handle(repriced(lamp, f"{version}.50", version))
        assert (await look()).items[0].price == usd(f"{version}.50")
        assert (await service.checkout(user)).cart.items[0].price == usd(f"{version}.50")


async def test_a_price_that_comes_late_does_not_replace_a_newer_one(service: CartService) -> None:
    user, lamp = new_id(), service.shelf.sell("10.00")
    await service.carts.add(user, lamp.product_id, lamp.variant_id, 1)
    await service.handle(repriced(lamp, "14.00", version=4))
    await service.handle(repriced(lamp, "13.00", version=3))
    assert (await service.carts.get(user)).subtotal == usd("14.00")
    await service.handle(deleted(lamp, version=6))
    await service.handle(repriced(lamp, "15.00", version=5))
    [line] = (await service.carts.get(user)).items
    assert (line.price, line.available) == (usd("14.00"), False)


async def test_what_was_deleted_does_not_count_and_counts_again_once_it_is_put_in_anew(
    service: CartService,
) -> None:
    user, lamp, chair = new_id(), service.shelf.sell("10.00"), service.shelf.sell("1.00")
    cart = await service.carts.add(user, lamp.product_id, lamp.variant_id, 2)
    await service.carts.add(user, chair.product_id, chair.variant_id, 3)
    await service.handle(deleted(lamp, version=2))
    seen = await service.carts.get(user)
    assert [line.available for line in seen.items] == [False, True]
    assert seen.subtotal == usd("3.00")
    for quantity in (1, 2, 3):
        with pytest.raises(ItemUnavailable) as refused:
            await service.carts.update(user, cart.items[0].item_id, quantity)
        assert refused.value.metadata == {"variant_id": str(lamp.variant_id)}
    assert contents((await service.checkout(user)).cart) == contents(seen), "the order says what is wrong"
    await service.handle(repriced(lamp, "12.00", version=3))
    assert (await service.carts.get(user)).subtotal == usd("27.00")


# -------------------------------------------------------------------------------------------------- orders


async def filled(service: CartService, *quantities: int) -> tuple[UUID, list[Offer]]:
    """Let a new user put so many of as many things into a cart."""
    user, things = new_id(), [service.shelf.sell() for _ in quantities]
    for thing, quantity in zip(things, quantities, strict=True):
        await service.carts.add(user, thing.product_id, thing.variant_id, quantity)
    return user, things


async def test_an_order_claims_the_cart_and_what_is_added_then_stays(service: CartService) -> None:
    user, (lamp, chair) = await filled(service, 2, 1)
    order = await service.order(user)
    assert {line.variant_id: line.quantity for line in order.items} == {
        lamp.variant_id: 2,
        chair.variant_id: 1,
    }
    await service.carts.add(user, lamp.product_id, lamp.variant_id, 1)
    for event in (order, confirmed(order)):
        await service.handle(event)
        assert contents(await service.carts.get(user)) == {lamp.variant_id: 1}


async def test_a_second_order_of_the_same_cart_finds_it_empty_or_changed(service: CartService) -> None:
    user, (lamp,) = await filled(service, 2)
    seen = await service.checkout(user, "second")
    await service.order(user, "first")
    with pytest.raises(CartEmpty):
        await service.carts.claim(user, "second", new_id(), seen.version)
    await service.carts.add(user, lamp.product_id, lamp.variant_id, 1)
    with pytest.raises(CartChanged):
        await service.carts.claim(user, "second", new_id(), seen.version)
    assert contents(await service.carts.get(user)) == {lamp.variant_id: 1}


async def test_a_claim_whose_answer_got_lost_is_found_again_by_its_request(service: CartService) -> None:
    user, _ = await filled(service, 2)
    order = await service.order(user)
    service.carts = service.another_process()
    service.clock.advance(seconds=59)
    again = await service.order(user)
    assert again == order
    service.clock.advance(seconds=59)
    assert contents(await service.carts.get(user)) == {}, "asking again gives the claim time anew"
    assert (await service.checkout(user, "another")).order_id is None


async def test_the_claim_of_an_order_that_is_never_placed_lapses(service: CartService) -> None:
    user, _ = await filled(service, 2, 1)
    before = await service.carts.get(user)
    order = await service.order(user)
    service.clock.advance(seconds=59)
    assert contents(await service.carts.get(user)) == {}
    service.clock.advance(seconds=1)
    another = await service.checkout(user, "another")
    assert (another.cart.items, another.lapsed) == (before.items, (order.order_id,))
    assert (await service.carts.get(user)).items == before.items
    again = await service.order(user)
    assert again.order_id == order.order_id, "the same request is for the same order, however late"


async def test_who_has_read_the_cart_before_a_claim_lapsed_has_to_read_it_again(service: CartService) -> None:
    user, _ = await filled(service, 2)
    seen = await service.checkout(user, "second")
    await service.order(user, "first")
    service.clock.advance(minutes=1)
    with pytest.raises(CartChanged):
        await service.carts.claim(user, "second", new_id(), seen.version)


async def test_who_has_read_the_cart_beside_a_lapsed_claim_has_to_read_it_again_if_that_lapses_again(
    service: CartService,
) -> None:
    user, _ = await filled(service, 2)
    await service.order(user, "first")
    service.clock.advance(minutes=1)
    seen = await service.checkout(user, "second")
    await service.order(user, "first")
    service.clock.advance(minutes=1)
    with pytest.raises(CartChanged):
        await service.carts.claim(user, "second", new_id(), seen.version)


async def test_who_claims_what_had_lapsed_has_seen_that_it_was_not_placed(service: CartService) -> None:
    user, _ = await filled(service, 2)
    await service.order(user, "first")
    service.clock.advance(minutes=1)
    await service.order(user, "second")
    assert (await service.checkout(user, "third")).lapsed == ()


@pytest.mark.parametrize("use", ["add", "update", "remove", "clear", "claim"])
async def test_a_lapsed_claim_is_back_whatever_the_cart_is_used_for(service: CartService, use: str) -> None:
    user, (lamp, chair) = await filled(service, 2, 1)
    item_id = (await service.carts.get(user)).items[0].item_id
    await service.order(user, "first")
    service.clock.advance(minutes=1)
    left = {lamp.variant_id: 2, chair.variant_id: 1}
    match use:
        case "add":
            left[chair.variant_id] = 3
            found = await service.carts.add(user, chair.product_id, chair.variant_id, 2)
        case "update":
            left[lamp.variant_id] = 5
            found = await service.carts.update(user, item_id, 5)
        case "remove":
            del left[lamp.variant_id]
            found = await service.carts.remove(user, item_id)
        case "clear":
            left = {}
            await service.carts.clear(user)
            found = await service.carts.get(user)
        case _:
            order = await service.order(user, "second")
            assert len(order.items) == 2
            return
    assert contents(found) == left


async def test_a_cancelled_order_gives_the_cart_back_at_the_prices_of_now(service: CartService) -> None:
    user, (lamp, chair) = await filled(service, 2, 1)
    before = await service.carts.get(user)
    order = await service.order(user)
    await service.handle(order)
    service.clock.advance(hours=1)
    assert contents(await service.carts.get(user)) == {}, "a placed order's claim does not lapse"
    await service.handle(repriced(lamp, "12.00", version=2))
    await service.handle(cancelled(order))
    checkout = await service.checkout(user, "another card")
    assert (checkout.cart.items, checkout.lapsed) == (before.items, ()), "what is seen next is not seen yet"
    after = await service.carts.get(user)
    assert contents(after) == {lamp.variant_id: 2, chair.variant_id: 1}
    assert after.items[0].price == usd("12.00")
    retry = await service.order(user, "another card")
    assert retry.order_id != order.order_id


async def test_what_was_added_meanwhile_stays_and_nothing_doubles(service: CartService) -> None:
    user, (lamp, chair) = await filled(service, 2, 4)
    order = await service.order(user)
    await service.handle(order)
    desk = service.shelf.sell()
    for thing, quantity in ((chair, 1), (desk, 1), (lamp, 3)):
        await service.carts.add(user, thing.product_id, thing.variant_id, quantity)
    for _ in range(2):
        await service.handle(cancelled(order))
        assert contents(await service.carts.get(user)) == {
            lamp.variant_id: 3,
            chair.variant_id: 4,
            desk.variant_id: 1,
        }


async def test_an_order_that_is_cancelled_after_it_was_confirmed_gives_nothing_back(
    service: CartService,
) -> None:
    user, _ = await filled(service, 2)
    order = await service.order(user)
    for event in (order, confirmed(order), cancelled(order)):
        await service.handle(event)
    assert not (await service.carts.get(user)).items


async def test_a_cancellation_that_overtakes_the_confirmation_gives_back_what_was_ordered(
    service: CartService,
) -> None:
    user, (lamp,) = await filled(service, 2)
    order = await service.order(user)
    for event in (order, cancelled(order), confirmed(order)):
        await service.handle(event)
    assert contents(await service.carts.get(user)) == {lamp.variant_id: 2}


async def test_a_claimed_cart_can_be_cleared_and_still_comes_back(service: CartService) -> None:
    user, (lamp,) = await filled(service, 2)
    order = await service.order(user)
    await service.carts.clear(user)
    await service.handle(cancelled(order))
    assert contents(await service.carts.get(user)) == {lamp.variant_id: 2}


async def test_an_order_that_was_placed_although_its_claim_lapsed_takes_out_what_it_ordered(
    service: CartService,
) -> None:
    user, (lamp,) = await filled(service, 2)
    order = await service.order(user)
    service.clock.advance(minutes=1)
    await service.carts.add(user, lamp.product_id, lamp.variant_id, 1)
    await service.handle(order)
    assert contents(await service.carts.get(user)) == {lamp.variant_id: 1}
    await service.handle(cancelled(order))
    assert contents(await service.carts.get(user)) == {lamp.variant_id: 2}


async def test_a_claim_of_an_order_that_will_not_be_placed_is_given_back_at_once(
    service: CartService,
) -> None:
    user, (lamp,) = await filled(service, 2)
    order = await service.order(user)
    for order_id in (new_id(), order.order_id, order.order_id):
        await service.carts.release(user, order_id)
    assert contents(await service.carts.get(user)) == {lamp.variant_id: 2}
    assert (await service.checkout(user, "another")).lapsed == (order.order_id,)
    held = await service.order(user, "another")
    await service.handle(held)
    await service.carts.release(user, held.order_id)  # it was placed after all
    assert not (await service.carts.get(user)).items


async def test_an_order_without_a_claim_takes_out_what_it_ordered_and_gives_it_back(
    service: CartService,
) -> None:
    user, (lamp, chair) = await filled(service, 3, 1)
    order = ordered(user, (lamp, 2), (chair, 1))
    await service.handle(order)
    assert contents(await service.carts.get(user)) == {lamp.variant_id: 1}
    await service.handle(cancelled(order))
    assert contents(await service.carts.get(user)) == {lamp.variant_id: 2, chair.variant_id: 1}


async def test_old_orders_of_which_only_the_end_is_known_change_nothing(service: CartService) -> None:
    user, (lamp,) = await filled(service, 2)
    for _ in range(MAX_CLAIMS):
        await service.handle(confirmed(ordered(user, (lamp, 1))))
        await service.handle(cancelled(ordered(user, (lamp, 1))))
    assert contents(await service.carts.get(user)) == {lamp.variant_id: 2}
    assert len((await service.carts.get(user)).claims) == MAX_CLAIMS


@pytest.mark.parametrize("lapses", [False, True], ids=["held", "lapsed"])
@pytest.mark.parametrize("end", [confirmed, cancelled])
@pytest.mark.parametrize("order_of_events", ["placed first", "placed last"])
async def test_events_may_come_in_any_order_and_more_than_once(
    service: CartService, lapses: bool, end: Any, order_of_events: str
) -> None:
    user, (lamp,) = await filled(service, 2)
    order = await service.order(user)
    if lapses:
        service.clock.advance(minutes=1)
    events = [order, end(order)]
    if order_of_events == "placed last":
        events.reverse()
    for event in (events[0], *events, *events):
        await service.handle(event)
    left = {lamp.variant_id: 2} if end is cancelled else {}
    assert contents(await service.carts.get(user)) == left
    assert (await service.checkout(user, "another")).lapsed == ()
    service.clock.advance(minutes=2)
    assert contents(await service.carts.get(user)) == left
    assert (await service.checkout(user)).order_id == order.order_id


async def test_an_event_that_is_delivered_again_is_handled_once(service: CartService) -> None:
    user, (lamp,) = await filled(service, 2)
    event_id, order = new_id(), ordered(user, (lamp, 1))
    await service.handle(order, event_id)
    with pytest.raises(AlreadyProcessed):
        await service.handle(order, event_id)
    assert contents(await service.carts.get(user)) == {lamp.variant_id: 1}
    await service.handle(ordered(user, (lamp, 1)), new_id())
    assert not (await service.carts.get(user)).items, "another order is another order"

"""Carts on a store in memory: what is kept, what events do, and which prices were seen."""

from collections.abc import Awaitable, Callable
from uuid import UUID

import pytest

from stoa_cart import testing
from stoa_cart.model import Cart, ItemNotFound, OutOfStock
from stoa_chassis.errors import InvalidArgument, Unavailable
from stoa_chassis.ids import new_id
from stoa_chassis.inbox import AlreadyProcessed
from stoa_chassis.memory import MemoryStore
from stoa_events import CartItemAdded

from .conftest import CURRENCY, CartService, contents, deleted, ordered, repriced, usd

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
        assert await service.carts.get(user) == Cart(user, CURRENCY)


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
    assert await service.carts.get(user) == await service.carts.for_checkout(user) == cart
    assert (await service.carts.update(user, cart.items[0].item_id, 1)).items[0].quantity == 1
    assert not (await service.carts.remove(user, cart.items[0].item_id)).items


# -------------------------------------------------------------------------------------------------- prices


async def test_a_changed_price_counts_for_checkout_once_the_owner_has_seen_it(service: CartService) -> None:
    user, lamp = new_id(), service.shelf.sell("10.00")
    before = await service.carts.add(user, lamp.product_id, lamp.variant_id, 2)
    await service.handle(repriced(lamp, "12.00", version=2))
    assert (await service.carts.for_checkout(user)).items[0].price == usd("10.00")
    assert (await service.carts.for_checkout(user)).items[0].price == usd("10.00"), "checkout is no look"
    seen = await service.carts.get(user)
    assert (seen.subtotal, seen.updated_at) == (usd("24.00"), before.updated_at)
    assert (await service.carts.for_checkout(user)).items[0].price == usd("12.00")


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
        assert (await service.carts.for_checkout(user)).items[0].price == usd(f"{version}.50")


async def test_a_price_that_comes_late_does_not_replace_a_newer_one(service: CartService) -> None:
    user, lamp = new_id(), service.shelf.sell("10.00")
    await service.carts.add(user, lamp.product_id, lamp.variant_id, 1)
    await service.handle(repriced(lamp, "14.00", version=4))
    await service.handle(repriced(lamp, "13.00", version=3))
    assert (await service.carts.get(user)).subtotal == usd("14.00")
    await service.handle(deleted(lamp, version=6))
    await service.handle(repriced(lamp, "15.00", version=5))
    assert (await service.carts.get(user)).subtotal == usd("14.00"), "a deleted product keeps the price seen"


# -------------------------------------------------------------------------------------------------- orders


async def test_an_order_takes_out_what_was_ordered_and_leaves_what_was_added_since(
    service: CartService,
) -> None:
    user = new_id()
    lamp, chair, desk = (service.shelf.sell() for _ in range(3))
    for thing, quantity in ((lamp, 2), (chair, 1)):
        await service.carts.add(user, thing.product_id, thing.variant_id, quantity)
    order = ordered(user, (lamp, 2), (chair, 1))
    for thing in (lamp, desk):
        await service.carts.add(user, thing.product_id, thing.variant_id, 1)
    await service.handle(order)
    assert contents(await service.carts.get(user)) == {lamp.variant_id: 1, desk.variant_id: 1}


async def refused_again(service: CartService, user: UUID, *, filled: bool) -> None:
    """Let an order come in twice, with something put in meanwhile, which stays."""
    lamp, event_id = service.shelf.sell(), new_id()
    order = ordered(user, (lamp, 2))
    if filled:
        await service.carts.add(user, lamp.product_id, lamp.variant_id, 2)
    await service.handle(order, event_id)
    await service.carts.add(user, lamp.product_id, lamp.variant_id, 2)
    with pytest.raises(AlreadyProcessed):
        await service.handle(order, event_id)
    assert contents(await service.carts.get(user)) == {lamp.variant_id: 2}
    await service.handle(order, new_id())
    assert not (await service.carts.get(user)).items, "another order is another order"


async def test_an_order_that_is_delivered_again_takes_nothing_out_again(service: CartService) -> None:
    await refused_again(service, new_id(), filled=True)


async def test_an_order_is_noted_even_if_the_cart_is_gone(service: CartService) -> None:
    await refused_again(service, new_id(), filled=False)

"""Carts on a real Redis: what is kept, who may interfere, and which prices were seen."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from stoa_cart.model import Cart, ItemNotFound, OutOfStock
from stoa_cart.repository import CartStore, PriceBook
from stoa_cart.service import Carts
from stoa_chassis.clock import SystemClock
from stoa_chassis.errors import InvalidArgument, Unavailable
from stoa_chassis.ids import new_id
from stoa_chassis.inbox import AlreadyProcessed

from .conftest import World, deleted, ordered, repriced, usd

pytestmark = pytest.mark.stack

LIFETIME = int(timedelta(days=30).total_seconds())


def contents(cart: Cart) -> dict[UUID, int]:
    return {item.variant_id: item.quantity for item in cart.items}


async def test_what_was_put_in_is_found_again_by_any_instance(world: World) -> None:
    user, lamp, chair = new_id(), world.peers.sell("19.90"), world.peers.sell("5.00")
    await world.carts.add(user, lamp.product_id, lamp.variant_id, 2)
    added = await world.carts.add(user, chair.product_id, chair.variant_id, 1)
    found = await world.another_instance().get(user)
    assert found == added
    assert contents(found) == {lamp.variant_id: 2, chair.variant_id: 1}
    assert found.subtotal == usd("44.80")


async def test_a_user_without_a_cart_sees_an_empty_one_and_nothing_is_stored(world: World) -> None:
    user = new_id()
    assert await world.carts.get(user) == Cart(user)
    await world.carts.remove(user, new_id())
    assert not await world.redis.exists(f"cart:{user}")


async def test_a_cart_lives_30_days_after_its_last_use(world: World) -> None:
    user, lamp = new_id(), world.peers.sell()
    cart = await world.carts.add(user, lamp.product_id, lamp.variant_id, 1)
    key = f"cart:{user}"
    for use in (
        world.carts.get(user),
        world.carts.for_checkout(user),
        world.carts.update(user, cart.items[0].item_id, 2),
        world.carts.remove(user, new_id()),
    ):
        await world.redis.expire(key, 100)
        await use
        assert LIFETIME - 5 <= await world.redis.ttl(key) <= LIFETIME


async def test_two_tabs_at_once_lose_nothing(world: World) -> None:
    user, lamp = new_id(), world.peers.sell()
    things = [world.peers.sell() for _ in range(5)]
    tabs = [world.carts, world.another_instance()]
    await asyncio.gather(
        *(tabs[n % 2].add(user, thing.product_id, thing.variant_id, 1) for n, thing in enumerate(things)),
        *(tab.add(user, lamp.product_id, lamp.variant_id, 2) for tab in tabs),
    )
    assert contents(await world.carts.get(user)) == {
        lamp.variant_id: 4,
        **{thing.variant_id: 1 for thing in things},
    }
    assert len(await world.pending()) == 7, "one event for each that was added"


async def test_two_tabs_at_once_do_not_put_more_in_than_there_is(world: World) -> None:
    user, lamp = new_id(), world.peers.sell(stock=3)
    results = await asyncio.gather(
        *(world.carts.add(user, lamp.product_id, lamp.variant_id, 2) for _ in range(3)),
        return_exceptions=True,
    )
    assert sum(isinstance(result, OutOfStock) for result in results) == 2
    assert contents(await world.carts.get(user)) == {lamp.variant_id: 2}


async def test_adding_publishes_what_was_added_and_refusals_publish_nothing(world: World) -> None:
    user, lamp = new_id(), world.peers.sell("19.90", stock=3)
    await world.carts.add(user, lamp.product_id, lamp.variant_id, 2)
    with pytest.raises(OutOfStock):
        await world.carts.add(user, lamp.product_id, lamp.variant_id, 2)
    [added] = await world.pending()
    assert (added.user_id, added.product_id, added.variant_id) == (user, lamp.product_id, lamp.variant_id)
    assert (added.quantity, str(added.price.amount)) == (2, "19.90")


async def test_only_what_is_on_sale_under_that_product_can_be_added(world: World) -> None:
    user, lamp = new_id(), world.peers.sell()
    for product, variant, wrong in (
        (lamp.product_id, new_id(), "item.variant_id"),
        (new_id(), lamp.variant_id, "item.product_id"),
    ):
        with pytest.raises(InvalidArgument) as refused:
            await world.carts.add(user, product, variant, 1)
        assert [violation.field for violation in refused.value.violations] == [wrong]
    assert not await world.redis.exists(f"cart:{user}")


async def test_a_line_grows_within_the_stock_and_shrinks_whatever_the_stock(world: World) -> None:
    user, lamp = new_id(), world.peers.sell(stock=5)
    cart = await world.carts.add(user, lamp.product_id, lamp.variant_id, 4)
    item_id = cart.items[0].item_id
    assert (await world.carts.update(user, item_id, 5)).items[0].quantity == 5
    with pytest.raises(OutOfStock) as refused:
        await world.carts.update(user, item_id, 6)
    assert refused.value.metadata["available"] == "5"
    world.peers.stock[lamp.variant_id] = 1
    assert (await world.carts.update(user, item_id, 3)).items[0].quantity == 3
    with pytest.raises(ItemNotFound):
        await world.carts.update(user, new_id(), 1)


async def test_removing_and_clearing_can_be_repeated(world: World) -> None:
    user, lamp, chair = new_id(), world.peers.sell(), world.peers.sell()
    await world.carts.add(user, lamp.product_id, lamp.variant_id, 1)
    cart = await world.carts.add(user, chair.product_id, chair.variant_id, 1)
    for _ in range(2):
        left = await world.carts.remove(user, cart.items[0].item_id)
        assert contents(left) == {chair.variant_id: 1}
    for _ in range(2):
        await world.carts.clear(user)
        assert await world.carts.get(user) == Cart(user)


async def test_without_the_other_services_a_cart_can_be_read_and_emptied_but_not_filled(world: World) -> None:
    user, lamp = new_id(), world.peers.sell()
    cart = await world.carts.add(user, lamp.product_id, lamp.variant_id, 2)
    world.peers.down = Unavailable("down")
    with pytest.raises(Unavailable):
        await world.carts.add(user, lamp.product_id, lamp.variant_id, 1)
    with pytest.raises(Unavailable):
        await world.carts.update(user, cart.items[0].item_id, 3)
    assert await world.carts.get(user) == await world.carts.for_checkout(user) == cart
    assert (await world.carts.update(user, cart.items[0].item_id, 1)).items[0].quantity == 1
    assert not (await world.carts.remove(user, cart.items[0].item_id)).items


async def test_a_changed_price_counts_for_checkout_once_the_owner_has_seen_it(world: World) -> None:
    user, lamp = new_id(), world.peers.sell("10.00")
    before = await world.carts.add(user, lamp.product_id, lamp.variant_id, 2)
    await world.hear(repriced(lamp, "12.00", version=2))
    assert (await world.carts.for_checkout(user)).items[0].price == usd("10.00")
    assert (await world.carts.for_checkout(user)).items[0].price == usd("10.00"), "checkout is no look"
    seen = await world.carts.get(user)
    assert (seen.subtotal, seen.updated_at) == (usd("24.00"), before.updated_at)
    assert (await world.carts.for_checkout(user)).items[0].price == usd("12.00")


async def test_whatever_shows_the_cart_shows_the_prices_of_now(world: World) -> None:
    user, lamp, chair = new_id(), world.peers.sell("10.00"), world.peers.sell("1.00")
    cart = await world.carts.add(user, lamp.product_id, lamp.variant_id, 1)
    item_id = cart.items[0].item_id
    for version, look in enumerate(
        (
            lambda: world.carts.add(user, chair.product_id, chair.variant_id, 1),
            lambda: world.carts.update(user, item_id, 2),
            lambda: world.carts.remove(user, new_id()),
            lambda: world.carts.get(user),
        ),
        start=2,
    ):
        await world.hear(repriced(lamp, f"{version}.50", version))
        assert (await look()).items[0].price == usd(f"{version}.50")
        assert (await world.carts.for_checkout(user)).items[0].price == usd(f"{version}.50")


async def test_a_price_that_comes_late_does_not_replace_a_newer_one(world: World) -> None:
    user, lamp = new_id(), world.peers.sell("10.00")
    await world.carts.add(user, lamp.product_id, lamp.variant_id, 1)
    await world.hear(repriced(lamp, "14.00", version=4))
    await world.hear(repriced(lamp, "13.00", version=3))
    assert (await world.carts.get(user)).subtotal == usd("14.00")
    await world.hear(deleted(lamp, version=6))
    await world.hear(repriced(lamp, "15.00", version=5))
    assert (await world.carts.get(user)).subtotal == usd("14.00"), "a deleted product keeps the price seen"


async def test_an_order_takes_out_what_was_ordered_and_leaves_what_was_added_since(world: World) -> None:
    user, lamp, chair, desk = new_id(), world.peers.sell(), world.peers.sell(), world.peers.sell()
    for thing, quantity in ((lamp, 2), (chair, 1)):
        await world.carts.add(user, thing.product_id, thing.variant_id, quantity)
    order = ordered(user, (lamp, 2), (chair, 1))
    for thing in (lamp, desk):
        await world.carts.add(user, thing.product_id, thing.variant_id, 1)
    await world.hear(order)
    assert contents(await world.carts.get(user)) == {lamp.variant_id: 1, desk.variant_id: 1}


async def test_an_order_that_is_delivered_again_takes_nothing_out_again(world: World) -> None:
    user, lamp, event_id = new_id(), world.peers.sell(), new_id()
    await world.carts.add(user, lamp.product_id, lamp.variant_id, 2)
    order = ordered(user, (lamp, 2))
    await world.hear(order, event_id)
    await world.carts.add(user, lamp.product_id, lamp.variant_id, 2)
    with pytest.raises(AlreadyProcessed):
        await world.hear(order, event_id)
    assert contents(await world.carts.get(user)) == {lamp.variant_id: 2}
    assert LIFETIME - 60 <= await world.redis.ttl(f"cart:inbox:{event_id}") <= LIFETIME
    await world.hear(order, new_id())
    assert not (await world.carts.get(user)).items, "another order is another order"


async def test_an_order_is_noted_even_if_the_cart_is_gone(world: World) -> None:
    user, lamp, event_id = new_id(), world.peers.sell(), new_id()
    await world.hear(ordered(user, (lamp, 1)), event_id)
    await world.carts.add(user, lamp.product_id, lamp.variant_id, 1)
    with pytest.raises(AlreadyProcessed):
        await world.hear(ordered(user, (lamp, 1)), event_id)
    assert contents(await world.carts.get(user)) == {lamp.variant_id: 1}


async def test_an_order_and_a_shopper_at_once_both_take_effect(world: World) -> None:
    user, lamp, chair = new_id(), world.peers.sell(), world.peers.sell()
    await world.carts.add(user, lamp.product_id, lamp.variant_id, 3)
    await asyncio.gather(
        world.hear(ordered(user, (lamp, 3))),
        world.carts.add(user, lamp.product_id, lamp.variant_id, 1),
        world.carts.add(user, chair.product_id, chair.variant_id, 1),
    )
    assert contents(await world.carts.get(user)) == {lamp.variant_id: 1, chair.variant_id: 1}


async def test_a_write_whose_answer_got_lost_is_not_made_twice(world: World) -> None:
    user, lamp = new_id(), world.peers.sell()

    class Forgetful(CartStore):
        """A store whose connection breaks after each write, so that the client sends it again."""

        async def _compare_and_set(self, *arguments: Any) -> bytes:
            await super()._compare_and_set(*arguments)
            return await super()._compare_and_set(*arguments)

    store = Forgetful(world.redis, world.outbox)
    carts = Carts(store, PriceBook(world.redis), world.peers, world.peers, SystemClock())
    cart = await carts.add(user, lamp.product_id, lamp.variant_id, 1)
    assert contents(cart) == contents(await world.carts.get(user)) == {lamp.variant_id: 1}
    assert len(await world.pending()) == 1

"""What the use cases rely on, of the store in memory and of Redis alike."""

import json
from dataclasses import fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.crc import key_slot

from stoa_cart import audit, ports, repository
from stoa_cart.model import Cart, CartBusy, Claim, Item, Offer
from stoa_chassis.avro import Event, EventCodec
from stoa_chassis.ids import new_id
from stoa_chassis.inbox import AlreadyProcessed
from stoa_chassis.kafka import Producer
from stoa_chassis.redis_outbox import RedisOutbox
from stoa_chassis.redis_uow import redis_unit_of_work
from stoa_events import CartItemAdded, OrderPlaced

from .conftest import CURRENCY, NOW, CartService, Store, a_full_cart, ordered, usd

LIFETIME = int(timedelta(days=30).total_seconds())


async def save(store: Store, cart: Cart, consuming: Event[OrderPlaced] | None = None) -> None:
    async def work(tx: ports.Tx) -> None:
        await tx.carts.get(cart.user_id)
        await tx.carts.save(cart)

    await store.uow.run(work, consuming)


def an_offer(price: str = "19.90") -> Offer:
    return Offer(new_id(), new_id(), usd(price))


def an_event() -> Event[OrderPlaced]:
    return Event(new_id(), OrderPlaced.TOPIC, 1, NOW, "c", ordered(new_id()))


# --------------------------------------------------------------------------------------------------- carts


async def test_no_field_of_a_cart_is_lost(store: Store) -> None:
    cart = a_full_cart()
    assert all(getattr(cart, each.name) for each in fields(Cart) if each.name != "events")
    assert all(getattr(item, each.name) for item in cart.items for each in fields(Item))
    assert all(getattr(cart.claims[-1], each.name) for each in fields(Claim))
    assert not cart.claims[-1].items[0].available
    await save(store, cart)
    assert await store.reader.get(cart.user_id) == cart
    assert await store.uow.run(lambda tx: tx.carts.get(cart.user_id)) == cart


async def test_who_has_no_cart_has_an_empty_one(store: Store) -> None:
    user = new_id()
    assert await store.reader.get(user) == Cart(user, CURRENCY)
    assert await store.uow.run(lambda tx: tx.carts.get(user)) == Cart(user, CURRENCY)


async def test_a_saved_cart_publishes_its_events_once(store: Store) -> None:
    cart, offer = a_full_cart(), an_offer()
    cart.add(offer, 2, 5, NOW)
    await save(store, cart)
    await save(store, cart)
    assert await store.published() == [
        CartItemAdded(
            user_id=cart.user_id,
            product_id=offer.product_id,
            variant_id=offer.variant_id,
            quantity=2,
            price=offer.price,
        )
    ]


async def test_events_are_published_in_the_order_in_which_they_came_about(store: Store) -> None:
    cart, offers = a_full_cart(), [an_offer() for _ in range(5)]
    for offer in offers:
        cart.add(offer, 1, 1, NOW)
    await save(store, cart)
    published = [event for event in await store.published() if isinstance(event, CartItemAdded)]
    assert [event.variant_id for event in published] == [offer.variant_id for offer in offers]


async def test_a_unit_of_work_that_fails_changes_and_publishes_nothing(store: Store) -> None:
    cart = a_full_cart()
    await save(store, cart)

    async def fail(tx: ports.Tx) -> None:
        found = await tx.carts.get(cart.user_id)
        found.add(an_offer(), 1, 1, NOW)
        await tx.carts.save(found)
        raise LookupError

    with pytest.raises(LookupError):
        await store.uow.run(fail)
    assert await store.reader.get(cart.user_id) == cart
    assert await store.published() == []


async def test_a_change_of_what_was_read_is_no_change_of_what_is_stored(store: Store) -> None:
    cart = a_full_cart()
    await save(store, cart)
    for found in (await store.reader.get(cart.user_id), cart):
        found.items.pop()
        found.claims.pop()
    stored = await store.reader.get(cart.user_id)
    assert (len(stored.items), len(stored.claims)) == (2, 2)


@pytest.mark.stack
async def test_a_cart_that_was_stored_before_there_were_claims_is_read(in_redis: Store, redis: Redis) -> None:
    cart = a_full_cart()
    lines = [
        {
            "item_id": str(item.item_id),
            "product_id": str(item.product_id),
            "variant_id": str(item.variant_id),
            "quantity": item.quantity,
            "price": {"currency_code": "USD", "amount": str(item.price.amount)},
        }
        for item in cart.items
    ]
    record = {"user_id": str(cart.user_id), "items": lines, "updated_at": NOW.isoformat()}
    await redis.set(f"cart:{cart.user_id}", json.dumps(record), ex=60)
    assert await in_redis.reader.get(cart.user_id) == Cart(cart.user_id, CURRENCY, cart.items, NOW)


async def test_an_event_is_handled_once_even_if_it_changes_nothing(store: Store) -> None:
    cart, empty = a_full_cart(), Cart(new_id(), CURRENCY)
    for handled in (cart, empty):
        event = an_event()
        await save(store, handled, event)
        handled.updated_at = NOW + timedelta(hours=1)
        with pytest.raises(AlreadyProcessed):
            await save(store, handled, event)
        assert (await store.reader.get(handled.user_id)).updated_at in (NOW, None)


async def test_who_was_overtaken_begins_again_with_what_the_other_stored(store: Store) -> None:
    cart, mine, theirs = a_full_cart(), an_offer(), an_offer()
    await save(store, cart)
    cart.add(theirs, 1, 1, NOW)
    tries = 0

    async def work(tx: ports.Tx) -> None:
        nonlocal tries
        tries += 1
        found = await tx.carts.get(cart.user_id)
        if tries == 1:
            await save(store, cart)
        found.add(mine, 1, 1, NOW)
        await tx.carts.save(found)

    await store.uow.run(work)
    found = [item.variant_id for item in (await store.reader.get(cart.user_id)).items]
    assert found[-2:] == [theirs.variant_id, mine.variant_id]
    assert (tries, len(await store.published())) == (2, 2)


async def test_a_unit_of_work_changes_one_cart(store: Store) -> None:
    first, second = a_full_cart(), a_full_cart()

    async def work(tx: ports.Tx) -> None:
        for cart in (first, second):
            await tx.carts.get(cart.user_id)
            await tx.carts.save(cart)

    with pytest.raises(RuntimeError, match="changes one"):
        await store.uow.run(work)
    assert await store.reader.get(first.user_id) == Cart(first.user_id, CURRENCY)


# -------------------------------------------------------------------------------------------------- prices


async def test_the_prices_of_a_product_are_those_of_its_latest_version(store: Store) -> None:
    product, lamp, other = new_id(), new_id(), new_id()
    await store.prices.watch(product)
    for version, prices in (
        (2, {lamp: usd("10.00"), other: usd("1.10")}),
        (4, {lamp: usd("14.00")}),
        (3, {lamp: usd("13.00"), other: usd("1.30")}),
        (4, {lamp: usd("14.44")}),
    ):
        await store.prices.learn(product, version, prices)
    assert await store.prices.of([product]) == {product: {lamp: usd("14.00")}}
    await store.prices.watch(product)
    assert await store.prices.of([product]) == {product: {lamp: usd("14.00")}}, "it was watched already"
    await store.prices.learn(product, 6, {})
    await store.prices.learn(product, 5, {lamp: usd("15.00")})
    assert await store.prices.of([product]) == {product: {}}


async def test_the_prices_of_several_products_are_read_at_once(store: Store) -> None:
    prices = {new_id(): {new_id(): usd(f"{n}.00"), new_id(): usd(f"{n}.50")} for n in (1, 2)}
    for product, of_product in prices.items():
        await store.prices.watch(product)
        await store.prices.learn(product, 1, of_product)
    assert await store.prices.of([*prices, new_id()]) == prices
    assert await store.prices.of([]) == {}


async def test_what_nobody_has_in_a_cart_is_not_noted(store: Store) -> None:
    product, prices = new_id(), {new_id(): usd("1.00")}
    await store.prices.learn(product, 1, prices)
    assert await store.prices.of([product]) == {}
    await store.prices.learn(product, 2, prices)
    assert await store.prices.of([product]) == {product: prices}


@pytest.mark.stack
async def test_a_product_is_watched_longer_than_carts_live_once_it_is_in_one(redis: Redis) -> None:
    prices, wanted, in_cart = repository.PriceBook(redis), new_id(), new_id()
    hour, month = 3600, 30 * 24 * 3600
    await prices.watch(wanted)
    await prices.of([in_cart])
    await prices.learn(in_cart, 1, {new_id(): usd("1.00")})
    assert await redis.ttl(f"price:{wanted}") in range(hour - 60, hour + 1)
    assert await redis.ttl(f"price:{in_cart}") > month
    await prices.of([wanted])
    assert await redis.ttl(f"price:{wanted}") > month


@pytest.mark.stack
async def test_the_prices_that_an_older_version_noted_are_known_and_kept_current(redis: Redis) -> None:
    prices, (known, other, lamp) = repository.PriceBook(redis), (new_id(), new_id(), new_id())
    record = {"version": 3, "prices": {str(lamp): {"amount": "1.00", "currency_code": "USD"}}}
    for product in (known, other):
        await redis.hset("cart:prices", str(product), json.dumps(record))
    await prices.learn(other, 4, {lamp: usd("2.00")})
    await prices.learn(other, 3, {lamp: usd("3.00")})
    assert await prices.of([known, other]) == {known: {lamp: usd("1.00")}, other: {lamp: usd("2.00")}}
    await prices.learn(new := new_id(), 1, {lamp: usd("1.00")})
    assert not await redis.hexists("cart:prices", str(new))


# ------------------------------------------------------------------------------------------ Redis on its own


@pytest.mark.stack
async def test_a_cart_lives_30_days_after_its_last_use(service_on_redis: CartService, redis: Redis) -> None:
    service, user = service_on_redis, new_id()
    lamp = service.shelf.sell()
    cart = await service.carts.add(user, lamp.product_id, lamp.variant_id, 1)
    key = f"cart:{user}"
    for use in (
        service.carts.get(user),
        service.checkout(user),
        service.carts.update(user, cart.items[0].item_id, 2),
        service.carts.remove(user, new_id()),
    ):
        await redis.expire(key, 100)
        await use
        assert LIFETIME - 5 <= await redis.ttl(key) <= LIFETIME


@pytest.mark.stack
async def test_an_empty_cart_that_nobody_used_is_not_stored(
    service_on_redis: CartService, redis: Redis
) -> None:
    user = new_id()
    await service_on_redis.carts.get(user)
    await service_on_redis.carts.remove(user, new_id())
    await service_on_redis.carts.clear(user)
    await service_on_redis.checkout(user)
    assert not await redis.exists(f"cart:{user}")


@pytest.mark.stack
async def test_the_audit_reads_the_claims_of_all_carts(service_on_redis: CartService, redis: Redis) -> None:
    user, lamp = new_id(), service_on_redis.shelf.sell()
    await service_on_redis.carts.add(user, lamp.product_id, lamp.variant_id, 1)
    order = await service_on_redis.order(user)
    claim = audit.Claim(user, order.order_id, "open")
    assert claim in (await audit.read(redis)).claims
    await service_on_redis.handle(order)
    assert replace(claim, state="placed") in (await audit.read(redis)).claims


SCALING = Path(__file__).parents[3] / "docs/scaling.md"


async def test_the_store_is_no_redis_cluster_and_the_guide_says_so() -> None:
    """A script may only use keys of one hash slot in a cluster, and that of a cart uses three."""
    keys: list[bytes] = []

    class Recorder(Redis):
        """A client that notes the keys of what changes several, and finds nothing."""

        async def execute_command(self, *command: Any, **options: Any) -> Any:
            if command[0] != "EVALSHA" or command[2] == 1:
                return b""
            keys.extend(str(key).encode() for key in command[3 : 3 + command[2]])
            return b"committed"

    redis = Recorder()
    outbox = RedisOutbox(redis, "cart:outbox", EventCodec(""), Producer("127.0.0.1:1"))
    uow = redis_unit_of_work(redis, outbox, "cart:inbox", repository.open_tx(CURRENCY), CartBusy)
    cart = a_full_cart()

    async def work(tx: ports.Tx) -> None:
        await tx.carts.get(cart.user_id)
        await tx.carts.save(cart)

    await uow.run(work, an_event())
    assert len(keys) == 3
    assert len({key_slot(key) for key in keys}) > 1, "a cluster would do: then let docs/scaling.md say so"
    (row,) = (line for line in SCALING.read_text().splitlines() if line.startswith("| Valkey |"))
    assert "not a cluster" in row

"""Shoppers at the same moment, and answers that get lost: what Redis makes of it, and the store in memory."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.commands.core import AsyncScript

from stoa_cart.model import CartEmpty, OutOfStock
from stoa_chassis.ids import new_id
from stoa_chassis.inbox import AlreadyProcessed

from .conftest import CartService, cancelled, confirmed, contents, ordered, repriced


async def test_two_tabs_at_once_lose_nothing(service_on_each: CartService) -> None:
    service, user = service_on_each, new_id()
    lamp, things = service.shelf.sell(), [service.shelf.sell() for _ in range(5)]
    tabs = [service.carts, service.another_process()]
    await asyncio.gather(
        *(tabs[n % 2].add(user, thing.product_id, thing.variant_id, 1) for n, thing in enumerate(things)),
        *(tab.add(user, lamp.product_id, lamp.variant_id, 2) for tab in tabs),
    )
    assert contents(await service.carts.get(user)) == {
        lamp.variant_id: 4,
        **{thing.variant_id: 1 for thing in things},
    }
    assert len(await service.store.published()) == 7, "one event for each that was added"


async def test_two_tabs_at_once_do_not_put_more_in_than_there_is(service_on_each: CartService) -> None:
    service, user = service_on_each, new_id()
    lamp = service.shelf.sell(stock=3)
    results = await asyncio.gather(
        *(service.carts.add(user, lamp.product_id, lamp.variant_id, 2) for _ in range(3)),
        return_exceptions=True,
    )
    assert sum(isinstance(result, OutOfStock) for result in results) == 2
    assert contents(await service.carts.get(user)) == {lamp.variant_id: 2}


async def test_an_order_and_a_shopper_at_once_both_take_effect(service_on_each: CartService) -> None:
    service, user = service_on_each, new_id()
    lamp, chair = service.shelf.sell(), service.shelf.sell()
    await service.carts.add(user, lamp.product_id, lamp.variant_id, 3)
    await asyncio.gather(
        service.handle(ordered(user, (lamp, 3))),
        service.carts.add(user, lamp.product_id, lamp.variant_id, 1),
        service.carts.add(user, chair.product_id, chair.variant_id, 1),
    )
    assert contents(await service.carts.get(user)) == {lamp.variant_id: 1, chair.variant_id: 1}


async def test_two_requests_at_once_do_not_claim_the_same_cart(service_on_each: CartService) -> None:
    service, user = service_on_each, new_id()
    lamp = service.shelf.sell()
    await service.carts.add(user, lamp.product_id, lamp.variant_id, 2)
    version = (await service.checkout(user)).version
    tabs = [service.carts, service.another_process()]
    claims = await asyncio.gather(
        *(tabs[n % 2].claim(user, f"request {n}", new_id(), version) for n in range(6)),
        return_exceptions=True,
    )
    assert sum(isinstance(claim, CartEmpty) for claim in claims) == 5
    assert contents(await service.carts.get(user)) == {}


async def test_the_same_request_at_once_claims_for_one_order(service_on_each: CartService) -> None:
    service, user = service_on_each, new_id()
    lamp = service.shelf.sell()
    await service.carts.add(user, lamp.product_id, lamp.variant_id, 2)
    version = (await service.checkout(user)).version
    tabs = [service.carts, service.another_process()]
    claims = await asyncio.gather(*(tab.claim(user, "r", new_id(), version) for tab in tabs * 3))
    assert len({claim.order_id for claim, _ in claims}) == 1


async def test_who_looks_at_a_cart_while_it_is_emptied_does_not_bring_it_back(
    service_on_each: CartService,
) -> None:
    service, user = service_on_each, new_id()
    for version in range(2, 12):
        lamp = service.shelf.sell()
        await service.carts.add(user, lamp.product_id, lamp.variant_id, 1)
        await service.handle(repriced(lamp, "77.00", version))  # a look has something to write
        await asyncio.gather(service.carts.get(user), service.carts.clear(user), service.carts.get(user))
        assert not (await service.carts.get(user)).items


@pytest.mark.stack
async def test_a_write_whose_answer_got_lost_is_not_made_twice(
    service_on_redis: CartService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection breaks after each script, so that the client sends it again."""
    once = AsyncScript.__call__

    async def twice(script: AsyncScript, *arguments: Any, **options: Any) -> Any:
        await once(script, *arguments, **options)
        return await once(script, *arguments, **options)

    monkeypatch.setattr(AsyncScript, "__call__", twice)
    service, user = service_on_redis, new_id()
    lamp = service.shelf.sell()
    cart = await service.carts.add(user, lamp.product_id, lamp.variant_id, 1)
    assert contents(cart) == contents(await service.carts.get(user)) == {lamp.variant_id: 1}
    assert len(await service.store.published()) == 1
    order = await service.order(user)
    assert contents(await service.carts.get(user)) == {}
    with pytest.raises(AlreadyProcessed):  # which to a consumer is success
        await service.handle(cancelled(order))
    assert contents(await service.carts.get(user)) == {lamp.variant_id: 1}


@pytest.mark.stack
async def test_each_use_takes_as_few_commands_as_it_can(
    service_on_redis: CartService, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[str] = []
    execute: Callable[..., Awaitable[Any]] = type(redis).execute_command

    async def counted(client: Redis, *command: Any, **options: Any) -> Any:
        commands.append(str(command[0]))
        return await execute(client, *command, **options)

    service, user = service_on_redis, new_id()
    lamp = service.shelf.sell()
    cart = await service.carts.add(user, lamp.product_id, lamp.variant_id, 1)
    monkeypatch.setattr(type(redis), "execute_command", counted)
    for use, expected in (
        (service.carts.get(user), ["EVALSHA", "EVALSHA"]),
        (service.checkout(user), ["EVALSHA"]),
        (
            service.carts.add(user, lamp.product_id, lamp.variant_id, 1),
            ["SET", "EVALSHA", "EVALSHA", "EVALSHA"],
        ),
        (service.carts.update(user, cart.items[0].item_id, 1), ["EVALSHA", "EVALSHA", "EVALSHA"]),
        (service.order(user), ["EVALSHA", "EVALSHA", "EVALSHA"]),
        (service.handle(ordered(user, (lamp, 1))), ["EVALSHA", "EVALSHA"]),
        (service.handle(confirmed(ordered(user))), ["EVALSHA", "EVALSHA"]),
        (service.handle(cancelled(ordered(user))), ["EVALSHA", "EVALSHA"]),
        (service.carts.clear(user), ["EVALSHA"]),
    ):
        commands.clear()
        await use
        assert commands == expected

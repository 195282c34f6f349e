"""A guest who signs in takes her cart with her: nothing of it is lost, and nothing is there twice."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from itertools import permutations
from typing import Any
from uuid import UUID

import pytest

from stoa_cart.model import MAX_CLAIMS, MAX_LINES, MAX_QUANTITY, MAX_SUBTOTAL, Cart, Item, Offer
from stoa_cart.service import Carts
from stoa_chassis.ids import new_id
from stoa_contracts.events import Payload
from stoa_events import OrderPlaced, UserGuestMerged

from .conftest import CURRENCY, NOW, CartService, cancelled, confirmed, contents, usd

STEPS = ("_hand_over", "_take_over", "_handed_over")


async def put(service: CartService, user_id: UUID, offer: Offer, quantity: int) -> None:
    await service.carts.add(user_id, offer.product_id, offer.variant_id, quantity)


async def seen(service: CartService, user_id: UUID) -> dict[UUID, int]:
    return contents(await service.carts.get(user_id))


class Died(Exception):
    """A process did."""


@pytest.fixture
def dies(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, bool], None]:
    """Let a process die once, before or after a step of a merge has committed."""

    def at(name: str, committed: bool) -> None:
        step: Callable[..., Awaitable[Any]] = getattr(Carts, name)
        alive = True

        async def once(*args: Any) -> Any:
            nonlocal alive
            if alive and not committed:
                alive = False
                raise Died
            result = await step(*args)
            if alive:
                alive = False
                raise Died
            return result

        monkeypatch.setattr(Carts, name, once)

    return at


@pytest.mark.parametrize("again", [1, 3])
async def test_what_a_guest_has_put_in_is_in_the_cart_of_her_account(
    service_on_each: CartService, again: int
) -> None:
    service, guest, user = service_on_each, new_id(), new_id()
    lamp, chair, table = (service.shelf.sell() for _ in range(3))
    await put(service, guest, lamp, 2)
    await put(service, guest, chair, 1)
    await put(service, user, table, 1)
    await put(service, user, lamp, 1)
    for _ in range(again):
        await service.handle(UserGuestMerged(guest_id=guest, user_id=user))
    merged = {table.variant_id: 1, lamp.variant_id: 3, chair.variant_id: 1}
    assert await seen(service, user) == merged
    assert await seen(service, guest) == {}
    # A tab that was not told goes on as the guest, and signs in as well.
    await put(service, guest, chair, 2)
    await service.handle(UserGuestMerged(guest_id=guest, user_id=user))
    assert await seen(service, user) == {**merged, chair.variant_id: 3}


@pytest.mark.parametrize("committed", [False, True], ids=["before its commit", "after its commit"])
@pytest.mark.parametrize("step", STEPS)
async def test_whoever_dies_on_the_way_leaves_it_to_the_next(
    service: CartService, dies: Callable[[str, bool], None], step: str, committed: bool
) -> None:
    guest, user, lamp = new_id(), new_id(), service.shelf.sell()
    await put(service, guest, lamp, 2)
    await put(service, user, lamp, 1)
    merged = UserGuestMerged(guest_id=guest, user_id=user)
    dies(step, committed)
    with pytest.raises(Died):
        await service.handle(merged)
    await put(service, guest, lamp, 4)  # meanwhile
    await service.handle(merged)
    assert (await seen(service, user), await seen(service, guest)) == ({lamp.variant_id: 7}, {})


async def test_what_does_not_fit_is_what_the_guest_put_in_last() -> None:
    def line(quantity: int = 1, price: str = "1.00") -> Item:
        return Item(new_id(), new_id(), new_id(), quantity, usd(price))

    def merged(hers: list[Item], guests: list[Item]) -> list[Item]:
        cart, guest = Cart(new_id(), CURRENCY, hers, NOW), Cart(new_id(), CURRENCY, guests, NOW)
        handover = guest.hand_over(cart.user_id, NOW)
        assert handover
        cart.take_over(handover, NOW)
        return cart.items

    full, more = [line() for _ in range(MAX_LINES - 1)], [line(), line()]
    assert merged(full, more) == [*full, more[0]]
    many = line(MAX_QUANTITY - 1)
    assert merged([many], [replace(many, item_id=new_id(), quantity=5)]) == [
        replace(many, quantity=MAX_QUANTITY)
    ]
    dear, cheap = line(1, str(MAX_SUBTOTAL)), line()
    assert merged([dear], [cheap]) == [dear]


@pytest.mark.parametrize("told", ["the guest", "the account"])
@pytest.mark.parametrize("end", [confirmed, cancelled])
@pytest.mark.parametrize("lapses", [False, True], ids=["held", "lapsed"])
@pytest.mark.parametrize("order_of_events", list(permutations(range(3))))
async def test_what_a_guest_has_ordered_is_bought_once_or_in_her_accounts_cart(
    service: CartService, order_of_events: tuple[int, ...], lapses: bool, end: Any, told: str
) -> None:
    guest, user, (lamp, chair) = new_id(), new_id(), (service.shelf.sell(), service.shelf.sell())
    await put(service, user, chair, 1)
    await put(service, guest, lamp, 2)
    order = await service.order(guest)
    if lapses:
        service.clock.advance(minutes=1)
    ended = end(order) if told == "the guest" else replace(end(order), user_id=user)
    story: list[Payload] = [order, ended, UserGuestMerged(guest_id=guest, user_id=user)]
    for each in order_of_events:
        await service.handle(story[each])
    for payload in story:
        await service.handle(payload)
    service.clock.advance(minutes=2)
    left = {lamp.variant_id: 2} if end is cancelled else {}
    assert await seen(service, user) == {chair.variant_id: 1, **left}
    assert await seen(service, guest) == {}


async def test_an_order_that_a_guest_is_placing_is_followed_in_the_cart_of_her_account(
    service: CartService,
) -> None:
    guest, user, lamp = new_id(), new_id(), service.shelf.sell()
    await put(service, guest, lamp, 2)
    order = await service.order(guest, "r")
    await service.handle(UserGuestMerged(guest_id=guest, user_id=user))
    assert await seen(service, user) == {}
    await put(service, user, lamp, 1)
    own = await service.order(user, "r")  # with the request id that the guest sent
    assert own.order_id != order.order_id
    service.clock.advance(minutes=1)  # neither is placed
    assert await seen(service, user) == {lamp.variant_id: 2}
    assert set((await service.checkout(user, "another")).lapsed) == {order.order_id, own.order_id}


@pytest.mark.parametrize("step", STEPS[:2])
async def test_an_order_event_between_the_steps_of_a_merge_finds_its_claim(
    service: CartService, dies: Callable[[str, bool], None], step: str
) -> None:
    guest, user, (lamp, chair) = new_id(), new_id(), (service.shelf.sell(), service.shelf.sell())
    await put(service, guest, lamp, 2)
    order: OrderPlaced = await service.order(guest)
    await put(service, guest, chair, 1)
    await put(service, user, lamp, 1)
    dies(step, True)
    with pytest.raises(Died):
        await service.handle(UserGuestMerged(guest_id=guest, user_id=user))
    await service.handle(order)
    assert await seen(service, user) == {lamp.variant_id: 1, chair.variant_id: 1}
    await service.handle(confirmed(order))
    assert await seen(service, user) == {lamp.variant_id: 1, chair.variant_id: 1}


async def test_a_guest_cart_remembers_so_many_orders_that_went_to_accounts(service: CartService) -> None:
    guest, lamp = new_id(), service.shelf.sell()
    for _ in range(MAX_CLAIMS + 5):
        await put(service, guest, lamp, 1)
        await service.order(guest, str(new_id()))
        await service.handle(UserGuestMerged(guest_id=guest, user_id=new_id()))
    assert len((await service.store.reader.get(guest)).moved) == MAX_CLAIMS


def test_a_cart_is_not_handed_over_to_itself_nor_if_nothing_is_known_of_it() -> None:
    user_id = new_id()
    cart = Cart(user_id, CURRENCY, [Item(new_id(), new_id(), new_id(), 1, usd("1.00"))], NOW)
    assert cart.hand_over(user_id, NOW) is None
    assert Cart(new_id(), CURRENCY).hand_over(user_id, NOW) is None

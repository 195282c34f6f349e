"""Whatever is killed in the middle of checkouts, every order settles and the books balance."""

import asyncio
from collections import Counter
from functools import partial
from typing import cast

import httpx
import pytest

from stoa_chaos.fault_injection import FaultInjector
from stoa_rest import GET_CART, PLACE_ORDER, Order, PlaceOrderRequest
from stoa_stack.instance import Instance
from stoa_stack.rest import ApiError
from tests.e2e.shop import Customer, Shop, eventually, order_body
from tests.shell import stoa

pytestmark = [
    pytest.mark.slow,
    pytest.mark.local("kills and rebuilds parts by `stoa`; on a cluster pods are killed (stage `kill`)"),
]


async def answer_despite_faults(shopper: Customer, body: PlaceOrderRequest, *final: int) -> httpx.Response:
    """Order as a client that means it: the same request again until its answer has one of these statuses."""

    async def place() -> httpx.Response | None:
        response = await shopper.send("POST", PLACE_ORDER.path, json=body)
        # What a shopper may see while something is down is "try again". Anything else would be a bug.
        assert response.status_code in (*final, 429, 503, 504), response.text
        return response if response.status_code in final else None

    return await eventually(place, within=90)


async def order_despite_faults(shopper: Customer, token: str) -> str:
    """Order, whatever is down for now, and wait for the end."""
    order = cast(Order, (await answer_despite_faults(shopper, order_body(token), 200)).json())
    return (await shopper.settled(order, within=120))["status"]


async def kill_twice(part: str) -> None:
    """Kill a part soon, and once more."""
    for _ in range(2):
        await asyncio.sleep(0.4)
        code, output = await stoa("kill", part)
        assert code == 0, output


@pytest.mark.timeout(300)
@pytest.mark.parametrize("part", ["order", "inventory", "cart", "kafka"])
async def test_killed_in_the_middle_of_checkouts_every_order_settles(shop: Shop, part: str) -> None:
    items = [await shop.item(stock=stock) for stock in (100, 5)]
    shoppers = await asyncio.gather(*(shop.shopper() for _ in range(24)))
    for shopper in shoppers:
        for item in items:
            await shopper.add(item)

    async def shopping(number: int) -> str:
        await asyncio.sleep(number * 0.05)
        return await order_despite_faults(shoppers[number], "tok_declined" if number % 6 == 5 else "tok_visa")

    *outcomes, _ = await asyncio.gather(*(shopping(number) for number in range(24)), kill_twice(part))
    outcome = Counter(outcomes)
    assert set(outcome) <= {"confirmed", "cancelled"}
    assert outcome["confirmed"] == 5

    async def all_back() -> bool:
        return [await shop.stock(item) for item in items] == [(100, 5), (5, 5)]

    assert await eventually(all_back, within=60)
    code, output = await stoa("audit", "--wait", "60")
    assert code == 0, output


@pytest.mark.timeout(300)
@pytest.mark.parametrize("part", ["order", "cart"])
async def test_two_tabs_order_a_cart_once_although_it_is_killed_in_between(shop: Shop, part: str) -> None:
    item = await shop.item(stock=100)
    shoppers = await asyncio.gather(*(shop.shopper() for _ in range(12)))
    for shopper in shoppers:
        await shopper.add(item)

    async def tab(number: int) -> int:
        await asyncio.sleep(number * 0.1)
        answer = await answer_despite_faults(shoppers[number], order_body(), 200, 409)
        if answer.status_code == 409:
            assert ApiError(answer).reason in ("CART_EMPTY", "CART_CHANGED")
        return answer.status_code

    *answers, _ = await asyncio.gather(
        *(tab(number) for number in range(12) for _ in range(2)), kill_twice(part)
    )
    assert Counter(answers) == {200: 12, 409: 12}
    for shopper in shoppers:
        (order,) = (await eventually(partial(shopper.list_user_orders, shopper.user_id)))["orders"]
        assert (await shopper.settled(order, within=120))["status"] == "confirmed"
    assert await eventually(lambda: shop.has(item, 100, 12))
    code, output = await stoa("audit", "--wait", "60")
    assert code == 0, output


@pytest.mark.timeout(500)
async def test_after_the_broker_stood_still_orders_settle_and_everybody_is_told(shop: Shop) -> None:
    item = await shop.item(stock=100)
    injector = FaultInjector(Instance.current())
    # What clients do when such an outage ends is a matter of moments: once shows little.
    for _ in range(3):
        ada, *shoppers = await asyncio.gather(*(shop.shopper() for _ in range(9)))
        orders = []
        with injector.frozen("kafka"):
            for shopper in shoppers:
                await shopper.add(item)
                orders.append(await shopper.order())
                await asyncio.sleep(1)
        await ada.add(item)
        assert (await ada.settled(await ada.order(), within=120))["status"] == "confirmed"
        for shopper, order in zip(shoppers, orders, strict=True):
            assert (await shopper.settled(order))["status"] in ("confirmed", "cancelled")
    code, output = await stoa("audit", "--wait", "60")
    assert code == 0, output


async def test_a_shop_whose_payment_gateway_is_down_takes_orders_and_settles_them_later(shop: Shop) -> None:
    item = await shop.item(stock=5)
    ada = await shop.shopper()
    await ada.add(item)
    code, output = await stoa("kill", "gateway")
    assert code == 0, output
    order = await ada.settled(await ada.order(), within=90)
    assert order["status"] in ("confirmed", "cancelled")


async def test_the_projections_of_orders_are_rebuilt_identically_while_the_shop_runs(shop: Shop) -> None:
    ada = await shop.shopper()
    await ada.buy(await shop.item())
    code, output = await stoa("replay", "order")
    assert code == 0, output
    assert " 0 differed" in output


async def test_what_the_catalogue_is_read_from_is_rebuilt_identically_while_the_shop_runs(shop: Shop) -> None:
    rebuilding = asyncio.ensure_future(stoa("replay", "catalog"))
    while not rebuilding.done():
        item = await shop.item()
        assert await shop.stock(item)
    code, output = await rebuilding
    assert code == 0, output
    assert " 0 differed" in output


async def test_the_edge_answers_with_a_status_while_a_service_is_down(shop: Shop) -> None:
    ada = await shop.shopper()
    code, output = await stoa("kill", "cart")
    assert code == 0, output

    async def answered() -> bool:
        try:
            response = await ada.send("GET", GET_CART.target(ada.user_id))
        except httpx.TransportError as error:  # the edge itself must never drop a connection
            raise AssertionError("no answer") from error
        if response.status_code != 200:
            assert response.status_code == 503, response.text
            assert response.json()["code"] == 14
        return response.status_code == 200

    assert await eventually(answered, within=60)

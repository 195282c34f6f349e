"""A shopper buys, and what can go wrong on the way is put right."""

import asyncio
from collections.abc import Mapping
from decimal import Decimal
from uuid import uuid4

import pytest

from stoa_rest import Cart, Order
from stoa_stack.rest import ApiError
from stoa_stack.shopping import ADDRESS, Item, amount, money
from tests.e2e.shop import Customer, Shop, eventually, order_body


async def test_a_shopper_registers_finds_a_product_fills_a_cart_orders_and_pays(shop: Shop) -> None:
    item = await shop.item(price="19.90", stock=5)
    ada = await shop.shopper()

    listed = await ada.list_products(category="Lighting", page_size=100)
    assert item.product_id in {product["product_id"] for product in listed["products"]}
    cart = await ada.add(item, 2)
    assert amount(cart["subtotal"]) == Decimal("39.80")

    order = await ada.order()
    assert order["status"] == "pending"
    order = await ada.settled(order)

    assert order["status"] == "confirmed"
    assert [change["status"] for change in order["status_history"]] == ["pending", "confirmed"]
    assert order["payment"]["status"] == "succeeded"
    assert order["payment"]["last4"] == "4242"
    assert amount(order["total_amount"]) == sum(
        amount(order[part]) for part in ("subtotal", "shipping_amount", "tax_amount")
    )
    assert await shop.stock(item) == (5, 2)
    payment = await ada.get_payment(order["payment"]["payment_id"])
    assert payment["amount"] == order["total_amount"]


async def test_the_cart_is_empty_when_its_order_is_placed_and_stays_so(shop: Shop) -> None:
    ada = await shop.shopper()
    await ada.add(await shop.item())
    order = await ada.order()
    assert not (await ada.get_cart(ada.user_id))["items"]
    await ada.settled(order)
    assert not (await ada.get_cart(ada.user_id))["items"]


async def test_two_tabs_at_once_order_the_same_cart_once(shop: Shop) -> None:
    item = await shop.item(stock=10)
    ada = await shop.shopper()
    await ada.add(item, 2)
    answers = await asyncio.gather(*(ada.order() for _ in range(6)), return_exceptions=True)
    (order,) = (answer for answer in answers if not isinstance(answer, BaseException))
    for answer in answers:
        if isinstance(answer, BaseException):
            assert isinstance(answer, ApiError), answer
            assert (answer.status, answer.reason in ("CART_EMPTY", "CART_CHANGED")) == (409, True)
    assert (await ada.settled(order))["status"] == "confirmed"
    assert await shop.stock(item) == (10, 2)
    assert len((await ada.list_user_orders(ada.user_id))["orders"]) == 1


async def test_a_second_order_finds_the_cart_empty_and_later_what_was_added_since(shop: Shop) -> None:
    item, other = await shop.item(), await shop.item()
    ada = await shop.shopper()
    await ada.add(item)
    await ada.order()
    with pytest.raises(ApiError) as refused:
        await ada.order()
    assert (refused.value.status, refused.value.reason) == (409, "CART_EMPTY")
    await ada.add(other)
    second = await ada.order()
    assert [line["variant_id"] for line in second["items"]] == [other.variant_id]


async def test_after_a_declined_card_the_cart_is_back_and_another_card_buys_it(shop: Shop) -> None:
    lamp, added = await shop.item(price="19.90", stock=5), await shop.item()
    ada = await shop.shopper()
    before = await ada.add(lamp, 2)
    request_id = str(uuid4())
    declined = await ada.order("tok_declined", request_id)
    await ada.add(added)
    assert (await ada.settled(declined))["status"] == "cancelled"

    cart = await eventually(lambda: _cart_holds(ada, {lamp: 2, added: 1}))
    assert cart["items"][0] == before["items"][0]
    with pytest.raises(ApiError) as refused:
        await ada.order("tok_declined", request_id)
    assert (refused.value.status, refused.value.reason) == (409, "REQUEST_ID_USED")
    assert refused.value.metadata == {"order_id": declined["order_id"]}

    order = await ada.settled(await ada.order())
    assert (order["status"], len(order["items"])) == ("confirmed", 2)
    assert await _cart_holds(ada, {})
    assert await shop.stock(lamp) == (5, 2)


async def test_when_one_of_three_things_is_out_of_stock_all_are_back_in_the_cart(shop: Shop) -> None:
    things = [await shop.item(stock=3) for _ in range(3)]
    ada, bob = await shop.shopper(), await shop.shopper()
    for thing in things:
        await ada.add(thing, 2)
    await bob.buy(things[1], 2)
    order = await ada.settled(await ada.order())
    assert "out of stock" in order["status_history"][-1]["reason"]
    cart = await eventually(lambda: _cart_holds(ada, dict.fromkeys(things, 2)))
    short = next(line for line in cart["items"] if line["variant_id"] == things[1].variant_id)
    await ada.update_cart_item(ada.user_id, short["item_id"], quantity=1)
    assert (await ada.settled(await ada.order()))["status"] == "confirmed"


async def test_the_same_request_for_something_else_is_refused_naming_it(shop: Shop) -> None:
    ada = await shop.shopper()
    await ada.add(await shop.item())
    body = order_body()
    placed = await ada.place_order(**body)
    assert (await ada.place_order(**body))["order_id"] == placed["order_id"]
    body["payment_token"], body["shipping_method"] = "tok_mastercard", "express"
    with pytest.raises(ApiError) as refused:
        await ada.place_order(**body)
    assert (refused.value.status, refused.value.reason) == (409, "REQUEST_ID_REUSED")
    assert refused.value.violations.keys() == {"payment_token", "shipping_method"}
    assert "tok_" not in str(refused.value)


async def test_what_is_not_sold_any_more_is_marked_does_not_count_and_can_only_be_removed(
    shop: Shop,
) -> None:
    gone, here = await shop.item(price="10"), await shop.item(price="7")
    ada = await shop.shopper()
    await ada.add(gone, 2)
    assert [line["available"] for line in (await ada.add(here))["items"]] == [True, True]
    await shop.staff.delete_product(gone.product_id)

    async def marked() -> Cart | None:
        cart = await ada.get_cart(ada.user_id)
        return cart if [line["available"] for line in cart["items"]] == [False, True] else None

    cart = await eventually(marked)
    assert amount(cart["subtotal"]) == 7
    item_id = cart["items"][0]["item_id"]
    with pytest.raises(ApiError) as refused:
        await ada.update_cart_item(ada.user_id, item_id, quantity=3)
    assert (refused.value.status, refused.value.reason) == (400, "ITEM_UNAVAILABLE")
    with pytest.raises(ApiError) as refused:
        await ada.order()
    assert refused.value.reason == "ITEMS_UNAVAILABLE"
    await ada.remove_cart_item(ada.user_id, item_id)
    assert amount((await ada.order())["subtotal"]) == 7


async def test_an_address_of_the_address_book_can_be_ordered_to(shop: Shop) -> None:
    ada = await shop.shopper()
    address = await ada.create_address(ada.user_id, **ADDRESS)
    await ada.add(await shop.item())
    order = await ada.place_order(
        request_id=str(uuid4()), address_id=address["address_id"], payment_token="tok_visa"
    )
    assert order["shipping_address"]["line1"] == ADDRESS["line1"]


@pytest.mark.parametrize(
    ("token", "reason"),
    [("tok_declined", "card declined"), ("tok_insufficient_funds", "insufficient funds")],
)
async def test_a_refused_card_cancels_the_order_and_releases_its_stock(
    shop: Shop, token: str, reason: str
) -> None:
    item = await shop.item(stock=3)
    ada = await shop.shopper()
    order = await ada.buy(item, 2, token=token)
    assert order["status"] == "cancelled"
    assert reason in order["status_history"][-1]["reason"]
    assert order["payment"]["status"] == "failed"
    await eventually(lambda: shop.has(item, 3, 0))


async def test_want_of_stock_cancels_the_order_before_any_money_moves(shop: Shop) -> None:
    item = await shop.item(stock=2)
    ada, bob = await shop.shopper(), await shop.shopper()
    await ada.add(item, 2)
    await bob.add(item, 1)
    first = await ada.settled(await ada.order())
    second = await bob.settled(await bob.order())
    assert (first["status"], second["status"]) == ("confirmed", "cancelled")
    assert "out of stock" in second["status_history"][-1]["reason"]
    assert not second.get("payment")
    assert await shop.stock(item) == (2, 2)


async def test_more_than_there_is_cannot_be_put_into_a_cart(shop: Shop) -> None:
    item = await shop.item(stock=2)
    ada = await shop.shopper()
    await ada.add(item, 2)
    with pytest.raises(ApiError) as refused:
        await ada.add(item, 1)
    assert refused.value.reason == "OUT_OF_STOCK"


async def test_cancelling_a_confirmed_order_refunds_it_and_releases_its_stock(shop: Shop) -> None:
    item = await shop.item(stock=4)
    ada = await shop.shopper()
    order = await ada.buy(item, 3)
    cancelled = await ada.cancel_order(order["order_id"], reason="changed my mind")
    assert cancelled["status"] == "cancelled"
    assert cancelled["status_history"][-1]["reason"] == "changed my mind"
    refunded = await eventually(lambda: _payment_is(ada, order, "refunded"))
    assert refunded["payment"]["status"] == "refunded"
    payment = await ada.get_payment(order["payment"]["payment_id"])
    assert payment["refunded_amount"] == order["total_amount"]
    await eventually(lambda: shop.has(item, 4, 0))
    again = await ada.cancel_order(order["order_id"])
    assert again["status"] == "cancelled"


async def test_a_part_that_staff_gave_back_does_not_keep_the_rest_whatever_its_request_id(shop: Shop) -> None:
    ada = await shop.shopper()
    order = await ada.buy(await shop.item(), 3)
    payment_id, five = order["payment"]["payment_id"], money("5", "USD")
    request_id = f"cancel-{order['order_id']}"
    part = await shop.staff.refund_payment(payment_id, request_id=request_id, amount=five, reason="scratched")
    assert part["amount"] == five
    with pytest.raises(ApiError) as refused:
        await shop.staff.refund_payment(payment_id, request_id=request_id, reason="scratched")
    assert (refused.value.status, refused.value.reason) == (409, "REQUEST_ID_REUSED")
    await ada.cancel_order(order["order_id"])
    await eventually(lambda: _payment_is(ada, order, "refunded"))
    payment = await ada.get_payment(payment_id)
    assert payment["refunded_amount"] == order["total_amount"]


async def test_an_order_that_staff_refund_in_full_is_cancelled_and_its_stock_released(shop: Shop) -> None:
    item = await shop.item(stock=4)
    ada = await shop.shopper()
    order = await ada.buy(item, 3)
    payment_id = order["payment"]["payment_id"]
    await shop.staff.refund_payment(payment_id, request_id="part", amount=money("5", "USD"), reason="late")
    await shop.staff.refund_payment(payment_id, request_id="rest", reason="very late")
    await eventually(lambda: shop.has(item, 4, 0))
    cancelled = await ada.get_order(order["order_id"])
    assert (cancelled["status"], cancelled["payment"]["status"]) == ("cancelled", "refunded")


async def test_what_is_taken_off_sale_is_not_counted_any_more(shop: Shop) -> None:
    item = await shop.item(stock=1)
    assert (await shop.staff.get_inventory(item.variant_id))["on_sale"] is True
    await shop.staff.delete_product(item.product_id)

    async def gone() -> bool:
        return not (await shop.staff.get_inventory(item.variant_id)).get("on_sale")

    assert await eventually(gone)
    with pytest.raises(ApiError) as refused:
        await shop.staff.adjust_inventory(item.variant_id, delta=1, reason="delivery", request_id="r")
    assert refused.value.reason == "VARIANT_WITHDRAWN"


@pytest.mark.slow
async def test_a_payment_that_answers_too_late_is_given_back(shop: Shop) -> None:
    item = await shop.item(stock=1)
    ada = await shop.shopper()
    order = await ada.buy(item, token="tok_timeout")
    assert order["status"] == "cancelled"
    assert "timed out" in order["status_history"][-1]["reason"]
    refunded = await eventually(lambda: _payment_is(ada, order, "refunded"), within=60)
    assert refunded["status"] == "cancelled"
    await eventually(lambda: shop.has(item, 1, 0))


async def test_a_price_that_changed_since_the_cart_was_seen_is_an_error_that_names_the_item(
    shop: Shop,
) -> None:
    item = await shop.item(price="10")
    ada = await shop.shopper()
    await ada.add(item)
    dearer = await shop.staff.get_product(item.product_id)
    dearer["variants"][0]["price"]["units"] = "12"
    await shop.staff.update_product(item.product_id, **dearer)

    with pytest.raises(ApiError) as refused:
        await ada.order()
    assert refused.value.reason == "PRICE_CHANGED"
    assert item.variant_id in refused.value.metadata
    assert f"{dearer['name']} now costs 12.00 USD instead of 10.00 USD" in refused.value.message

    async def seen() -> bool:
        cart = await ada.get_cart(ada.user_id)
        return amount(cart["items"][0]["price"]) == 12

    assert await eventually(seen)
    order = await ada.settled(await ada.order())
    assert amount(order["subtotal"]) == 12


async def test_a_product_that_was_taken_off_sale_cannot_be_ordered(shop: Shop) -> None:
    item = await shop.item()
    ada = await shop.shopper()
    await ada.add(item)
    name = (await shop.nobody().get_product(item.product_id))["name"]
    await shop.staff.delete_product(item.product_id)
    with pytest.raises(ApiError) as refused:
        await ada.order()
    assert refused.value.reason == "ITEMS_UNAVAILABLE"
    assert refused.value.message == f"no longer on sale: {name}"


async def test_an_empty_cart_cannot_be_ordered(shop: Shop) -> None:
    with pytest.raises(ApiError) as refused:
        await (await shop.shopper()).order()
    assert (refused.value.status, refused.value.reason) == (409, "CART_EMPTY")


async def test_the_same_request_twenty_times_at_once_gives_one_order_and_one_charge(shop: Shop) -> None:
    item = await shop.item(stock=10)
    ada = await shop.shopper()
    await ada.add(item)
    request_id = str(uuid4())
    answers = await asyncio.gather(*(ada.order(request_id=request_id) for _ in range(20)))
    assert len({order["order_id"] for order in answers}) == 1
    order = await ada.settled(answers[0])
    assert order["status"] == "confirmed"
    assert await shop.stock(item) == (10, 1)
    assert len((await ada.list_user_orders(ada.user_id))["orders"]) == 1
    assert (await ada.order(request_id=request_id))["order_id"] == order["order_id"]


@pytest.mark.slow
async def test_forty_shoppers_for_ten_lamps_leave_ten_confirmed_and_all_accounted_for(shop: Shop) -> None:
    lamp = await shop.item(stock=10)
    shoppers = await asyncio.gather(*(shop.shopper() for _ in range(40)))
    await asyncio.gather(*(shopper.add(lamp) for shopper in shoppers))

    async def buy(shopper: Customer) -> str:
        order = await shopper.settled(await shopper.order())
        if order["status"] == "confirmed":
            payment = await shopper.get_payment(order["payment"]["payment_id"])
            assert payment["amount"] == order["total_amount"]
            assert payment["status"] == "succeeded"
        else:
            assert not order.get("payment")
        return order["status"]

    outcomes = await asyncio.gather(*(buy(shopper) for shopper in shoppers))
    assert outcomes.count("confirmed") == 10
    assert outcomes.count("cancelled") == 30
    assert await shop.stock(lamp) == (10, 10)


async def test_orders_are_listed_newest_first_in_pages(shop: Shop) -> None:
    ada = await shop.shopper()
    item = await shop.item()
    placed = []
    for _ in range(3):
        await ada.add(item)
        placed.append((await ada.order())["order_id"])
    first = await ada.list_user_orders(ada.user_id, page_size=2)
    rest = await ada.list_user_orders(ada.user_id, page_size=2, page_token=first["next_page_token"])
    assert [order["order_id"] for order in first["orders"] + rest["orders"]] == placed[::-1]
    assert not rest["next_page_token"]


def _as_bought(order: Order) -> dict[str, object]:
    """An order without its parcel, which goes its way meanwhile."""
    return {name: value for name, value in order.items() if name != "shipment"}


async def test_an_order_stays_what_it_was_whatever_becomes_of_its_product_and_its_address(shop: Shop) -> None:
    item = await shop.item(price="10", stock=5)
    ada = await shop.shopper()
    address = await ada.create_address(ada.user_id, **ADDRESS)
    await ada.add(item, 2)
    order = await ada.settled(
        await ada.place_order(
            request_id=str(uuid4()), address_id=address["address_id"], payment_token="tok_visa"
        )
    )
    product = await shop.staff.get_product(item.product_id)
    product["variants"][0]["price"]["units"] = "99"
    product["name"] = "Another lamp"
    await shop.staff.update_product(item.product_id, **product)
    address["city"] = "Elsewhere"
    await ada.update_address(ada.user_id, address["address_id"], **address)
    assert _as_bought(await ada.get_order(order["order_id"])) == _as_bought(order)

    await shop.staff.delete_product(item.product_id)
    await ada.delete_address(ada.user_id, address["address_id"])
    assert _as_bought(await ada.get_order(order["order_id"])) == _as_bought(order)
    await ada.cancel_order(order["order_id"])
    given_back = await eventually(lambda: _payment_is(ada, order, "refunded"))
    assert [line["name"] for line in given_back["items"]] == [line["name"] for line in order["items"]]
    assert given_back["total_amount"] == order["total_amount"]
    payment = await ada.get_payment(order["payment"]["payment_id"])
    assert payment["refunded_amount"] == order["total_amount"]


async def test_an_order_that_is_cancelled_ten_times_at_once_is_paid_back_once(shop: Shop) -> None:
    item = await shop.item(stock=5)
    ada = await shop.shopper()
    order = await ada.buy(item)
    answers = await asyncio.gather(*(ada.cancel_order(order["order_id"]) for _ in range(10)))
    assert {answer["status"] for answer in answers} == {"cancelled"}
    found = await eventually(lambda: _payment_is(ada, order, "refunded"))
    assert [change["status"] for change in found["status_history"]] == ["pending", "confirmed", "cancelled"]
    payment = await ada.get_payment(order["payment"]["payment_id"])
    assert payment["refunded_amount"] == order["total_amount"]
    assert await eventually(lambda: shop.has(item, 5, 0))


async def _payment_is(client: Customer, order: Order, status: str) -> Order | None:
    found = await client.get_order(order["order_id"])
    return found if "payment" in found and found["payment"]["status"] == status else None


async def _cart_holds(client: Customer, things: Mapping[Item, int]) -> Cart | None:
    cart = await client.get_cart(client.user_id)
    found = {line["variant_id"]: line["quantity"] for line in cart["items"]}
    return cart if found == {thing.variant_id: quantity for thing, quantity in things.items()} else None

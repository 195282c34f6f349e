"""What comes after an order: it is delivered, or stopped in time, or sent back; and guests order as well."""

from decimal import Decimal
from uuid import uuid4

import pytest

from stoa_rest import Return
from stoa_stack.carriers import Carriers
from stoa_stack.rest import ApiError
from stoa_stack.shopping import amount
from tests.e2e.shop import Customer, Shop, carried, eventually, order_body, packed, until


async def test_an_order_is_delivered_and_sent_back_in_two_parts(shop: Shop, carriers: Carriers) -> None:
    ada, item = await shop.shopper(), await shop.item(price="20", stock=10)
    order = await packed(ada, item, 3)
    order = await carried(carriers, ada, order, 9, "delivered")
    assert [change["status"] for change in order["status_history"]] == [
        "pending",
        "confirmed",
        "shipped",
        "delivered",
    ]
    assert order["shipment"]["status"] == "delivered"
    await eventually(lambda: shop.has(item, 7, 0))

    async def send_back(quantity: int) -> Return:
        body = {
            "request_id": str(uuid4()),
            "items": [{"variant_id": item.variant_id, "quantity": quantity}],
            "reason": "too dark",
        }
        made = await ada.create_return(order["order_id"], **body)  # type: ignore[arg-type]
        assert await ada.create_return(order["order_id"], **body) == made  # type: ignore[arg-type]
        await shop.staff.approve_return(made["order_id"], made["return_id"])
        await shop.staff.receive_return(made["order_id"], made["return_id"])

        async def refunded() -> Return | None:
            returns = (await ada.list_order_returns(order["order_id"]))["returns"]
            (found,) = [each for each in returns if each["return_id"] == made["return_id"]]
            return found if found["status"] == "refunded" else None

        return await eventually(refunded)

    assert amount((await send_back(1))["refund_amount"]) == Decimal("21.60")
    part = await until(ada, order, lambda found: found["payment"]["status"] == "partially_refunded")
    assert part["status"] == "delivered"
    await send_back(2)
    back = await until(ada, order, lambda found: found["payment"]["status"] == "refunded")
    assert back["status"] == "returned"
    payment = await ada.get_payment(back["payment"]["payment_id"])
    assert payment["refunded_amount"] == order["total_amount"]
    await eventually(lambda: shop.has(item, 10, 0))
    with pytest.raises(ApiError) as refused:
        await send_back(1)
    assert refused.value.status == 400


async def test_a_parcel_is_stopped_until_the_carrier_has_it(shop: Shop, carriers: Carriers) -> None:
    ada, item = await shop.shopper(), await shop.item()
    stopped = await packed(ada, item)
    cancelled = await ada.cancel_order(stopped["order_id"], reason="changed my mind")
    assert cancelled["status"] == "cancelled"
    await until(ada, stopped, lambda found: found["payment"]["status"] == "refunded")
    sent = await packed(ada, item)
    await carried(carriers, ada, sent, 1, "shipped")
    with pytest.raises(ApiError) as refused:
        await ada.cancel_order(sent["order_id"], reason="too late")
    assert (refused.value.status, refused.value.reason) == (409, "ORDER_NOT_CANCELLABLE")


async def test_returns_are_for_the_buyer_to_ask_and_for_staff_to_decide(
    shop: Shop, carriers: Carriers
) -> None:
    ada, bob, item = await shop.shopper(), await shop.shopper(), await shop.item()
    order = await packed(ada, item)

    async def ask(who: Customer, variant_id: str = item.variant_id) -> Return:
        return await who.create_return(
            order["order_id"],
            request_id=str(uuid4()),
            items=[{"variant_id": variant_id, "quantity": 1}],
            reason="",
        )

    with pytest.raises(ApiError) as early:
        await ask(ada)
    assert (early.value.status, early.value.reason) == (400, "ORDER_NOT_RETURNABLE")
    await carried(carriers, ada, order, 9, "delivered")
    with pytest.raises(ApiError) as stranger:
        await ask(bob)
    assert stranger.value.status == 404
    with pytest.raises(ApiError) as unknown:
        await ask(ada, str(uuid4()))
    assert list(unknown.value.violations) == ["items[0].variant_id"]
    made = await ask(ada)
    with pytest.raises(ApiError) as own:
        await ada.approve_return(order["order_id"], made["return_id"])
    assert own.value.status == 403
    rejected = await shop.staff.reject_return(order["order_id"], made["return_id"], reason="it is scratched")
    assert (rejected["status"], rejected["decision_reason"]) == ("rejected", "it is scratched")


async def test_a_guest_follows_her_order_by_a_link_and_takes_it_into_an_account(shop: Shop) -> None:
    guest, item = await shop.guest(), await shop.item()
    await guest.add(item, 2)
    with pytest.raises(ApiError) as refused:
        await guest.place_order(**order_body())
    assert list(refused.value.violations) == ["email"]
    email = f"guest-{uuid4().hex}@stoa.example"
    body = order_body()
    body["email"], body["locale"] = email, "de"
    order = await guest.place_order(**body)
    assert order["email"] == email
    found = await shop.nobody().get_guest_order(access_token=order["access_token"])
    assert found["order_id"] == order["order_id"]
    with pytest.raises(ApiError) as made_up:
        await shop.nobody().get_guest_order(access_token=order["access_token"][:-4] + "AAAA")
    assert made_up.value.status == 404

    await guest.settled(order)
    await guest.add(item, 1)
    ada, password = shop.nobody(), uuid4().hex
    await ada.create_user(
        email=email,
        password=password,
        first_name="Ada",
        last_name="Guest",
        guest_token=guest.refresh_token,
    )
    await ada.sign_in(email, password)

    async def hers() -> bool:
        orders = (await ada.list_user_orders(ada.user_id))["orders"]
        cart = await ada.get_cart(ada.user_id)
        return [each["order_id"] for each in orders] == [order["order_id"]] and [
            line["quantity"] for line in cart["items"]
        ] == [1]

    await eventually(hers)

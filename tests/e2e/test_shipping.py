"""What was bought is sent: quoted, followed to the doorstep, and stopped in time."""

from decimal import Decimal
from uuid import uuid4

import pytest

from stoa_rest import GET_SHIPMENT_LABEL, Order, Tracking
from stoa_stack.carriers import Carriers
from stoa_stack.rest import ApiError
from stoa_stack.shopping import ADDRESS, amount, new_product, put_on_sale
from tests.e2e.shop import Customer, Shop, eventually


async def tracked(buyer: Customer, order: Order, status: str) -> Tracking:
    async def look() -> Tracking | None:
        found = await buyer.get_tracking(order["order_id"])
        return found if found["status"] == status else None

    return await eventually(look)


async def test_a_quote_is_by_weight_method_and_destination(shop: Shop) -> None:
    product = new_product()
    product["variants"][0]["weight_grams"] = 3500
    (item,) = await put_on_sale(shop.staff, product, 10)
    ada = await shop.shopper()

    async def amounts(quantity: int, **address: str) -> list[Decimal] | None:
        found = await ada.quote_shipping(
            items=[{"variant_id": item.variant_id, "quantity": quantity}],
            address={**ADDRESS, **address},  # type: ignore[typeddict-item]
        )
        assert [quote["shipping_method"] for quote in found["quotes"]] == ["standard", "express"]
        prices = [quote["amount"] for quote in found["quotes"]]
        assert {price["currency_code"] for price in prices} == {"USD"}
        return [amount(price) for price in prices]

    async def weighed() -> list[Decimal] | None:
        """The weight travels by an event."""
        found = await amounts(1)
        return found if found and found[0] > Decimal("4.90") else None

    one = await eventually(weighed)
    ten = await amounts(10)
    abroad = await amounts(1, country="DE", postal_code="10115", city="Berlin", region="")
    assert ten
    assert abroad
    assert all(few < many for few, many in zip(one, ten, strict=True))
    assert all(near < far for near, far in zip(one, abroad, strict=True))


async def test_a_parcel_is_sent_and_followed_to_the_doorstep(shop: Shop, carriers: Carriers) -> None:
    ada = await shop.shopper()
    order = await ada.buy(await shop.item())
    created = await tracked(ada, order, "created")
    assert created["carrier"] in ("fedex", "ups", "dhl")
    assert created["tracking_id"] in created["tracking_url"]
    label = await shop.staff.get_shipment_label(order["order_id"])
    assert label.startswith(b"%PDF")
    assert created["tracking_id"].encode() in label
    await eventually(lambda: carriers.advance(created["tracking_id"], 1))
    await tracked(ada, order, "in_transit")
    await eventually(lambda: carriers.advance(created["tracking_id"], 5))

    async def all_told() -> bool:  # a carrier's notices may overtake each other
        delivered = await tracked(ada, order, "delivered")
        # Scans that are told to happen now may be dated before the note that the parcel was created.
        return {event["status"] for event in delivered["events"]} == {
            "created",
            "in_transit",
            "out_for_delivery",
            "delivered",
        }

    assert await eventually(all_told)
    listed = await shop.staff.list_shipments(status="delivered", page_size=100)
    assert order["order_id"] in {shipment["order_id"] for shipment in listed["shipments"]}


async def test_an_order_that_is_cancelled_in_time_is_not_sent(shop: Shop) -> None:
    ada = await shop.shopper()
    order = await ada.buy(await shop.item())
    await tracked(ada, order, "created")
    await ada.cancel_order(order["order_id"], reason="changed my mind")
    assert (await tracked(ada, order, "stopped"))["events"][-1]["status"] == "stopped"


async def test_nobody_else_sees_where_a_parcel_is(shop: Shop) -> None:
    ada, bob = await shop.shopper(), await shop.shopper()
    order = await ada.buy(await shop.item())
    await tracked(ada, order, "created")
    for order_id in (order["order_id"], str(uuid4())):
        with pytest.raises(ApiError) as refused:
            await bob.get_tracking(order_id)
        assert (refused.value.status, refused.value.reason) == (404, "SHIPMENT_NOT_FOUND")
    response = await bob.send("GET", GET_SHIPMENT_LABEL.target(order["order_id"]))
    assert response.status_code == 403


async def test_a_notice_that_no_carrier_signed_is_refused(shop: Shop) -> None:
    for carrier in ("fedex", "ups", "dhl"):
        response = await shop.http.post(f"/api/v1/shipping/webhooks/{carrier}", content=b"{}")
        assert response.status_code == 401, response.text
    response = await shop.http.post("/api/v1/shipping/webhooks/pigeon", content=b"{}")
    assert response.status_code == 400, response.text

"""What events say that is worth telling, and what a template is given of each."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from stoa_events import InventoryLowStock, UserEmailChangeRequested, UserPasswordChanged
from stoa_notification import occasions
from stoa_notification.model import Occasion, Recipient, Template

from . import examples
from .examples import AT, event

USER = uuid4()
THEN = datetime(2026, 11, 20, 8, tzinfo=UTC)
LATER = THEN + timedelta(hours=1)
TOLD_ITEMS = [
    {
        "name": "Desk <XL>",
        "quantity": 1,
        "price": {"amount": "249.00", "currency": "USD"},
        "amount": {"amount": "249.00", "currency": "USD"},
    },
    {
        "name": "",
        "quantity": 3,
        "price": {"amount": "12.50", "currency": "USD"},
        "amount": {"amount": "37.50", "currency": "USD"},
    },
]


def usd(amount: str) -> dict[str, str]:
    return {"amount": amount, "currency": "USD"}


def test_who_has_an_account_is_known_by_it() -> None:
    cause = event(examples.registered(USER), THEN)
    assert occasions.registered(cause) == Occasion(
        cause_id=cause.event_id, template=Template.WELCOME, at=THEN, user_id=USER
    )


@pytest.mark.parametrize("template", [Template.PASSWORD_RESET, Template.VERIFY_EMAIL])
def test_a_link_goes_where_its_event_says_until_it_expires(template: Template) -> None:
    cause = event(examples.password_reset(USER, LATER), THEN)
    assert occasions.link_requested(cause, template) == Occasion(
        cause_id=cause.event_id,
        template=template,
        at=THEN,
        user_id=USER,
        facts={"token": "one-time-token", "expires_at": LATER.isoformat()},
        recipient=Recipient("ada@mail.test", "Ada", "de"),
        expires_at=LATER,
    )


@pytest.mark.parametrize("what", [UserEmailChangeRequested, UserPasswordChanged])
def test_a_change_of_an_account_goes_where_its_event_says(what: Any) -> None:
    cause = event(what(user_id=USER, email="old@mail.test", first_name="Ada", locale="de-AT"), THEN)
    assert occasions.account_changed(cause, Template.PASSWORD_CHANGED) == Occasion(
        cause_id=cause.event_id,
        template=Template.PASSWORD_CHANGED,
        at=THEN,
        user_id=USER,
        recipient=Recipient("old@mail.test", "Ada", "de"),
    )


CONFIRMED = event(examples.confirmed(USER), THEN)
CANCELLED = event(examples.cancelled(USER), THEN)
DELIVERED = event(examples.delivered(USER), THEN)
REQUESTED = event(examples.return_requested(USER), THEN)
APPROVED = event(examples.return_decided(USER), THEN)
REJECTED = event(examples.return_decided(USER, "rejected"), THEN)
RETURNED = event(examples.returned(USER), THEN)
OWED_NOTHING = event(replace(examples.returned(USER), refund_amount=None), THEN)
UNPAID = event(examples.payment_failed(USER), THEN)
REFUNDED = event(examples.refunded(USER), THEN)
DECISION = {"items": TOLD_ITEMS, "reason": "it was worn", "amount": usd("286.50")}


@pytest.mark.parametrize(
    ("occasion", "cause", "template", "facts"),
    [
        (
            occasions.confirmed(CONFIRMED),
            CONFIRMED,
            Template.ORDER_CONFIRMED,
            {
                "items": TOLD_ITEMS,
                "subtotal": usd("286.50"),
                "shipping_and_tax": usd("14.10"),
                "total": usd("300.60"),
                "address": {
                    "recipient": "Ada Lovelace",
                    "line1": "12 Analytical St",
                    "line2": "",
                    "city": "London",
                    "region": "",
                    "postal_code": "N1 7AA",
                    "country": "GB",
                },
                "shipping_method": "standard",
            },
        ),
        (
            occasions.cancelled(CANCELLED),
            CANCELLED,
            Template.ORDER_CANCELLED,
            {"items": TOLD_ITEMS, "total": usd("300.60"), "reason": "the buyer changed her mind"},
        ),
        (
            occasions.delivered(DELIVERED),
            DELIVERED,
            Template.ORDER_DELIVERED,
            {"items": TOLD_ITEMS, "delivered_at": AT.isoformat()},
        ),
        (
            occasions.return_requested(REQUESTED),
            REQUESTED,
            Template.RETURN_REQUESTED,
            {"items": TOLD_ITEMS, "reason": "too big"},
        ),
        (
            occasions.return_decided(APPROVED),
            APPROVED,
            Template.RETURN_DECIDED,
            {**DECISION, "approved": True},
        ),
        (
            occasions.return_decided(REJECTED),
            REJECTED,
            Template.RETURN_DECIDED,
            {**DECISION, "approved": False},
        ),
        (
            occasions.returned(RETURNED),
            RETURNED,
            Template.RETURN_RECEIVED,
            {"items": TOLD_ITEMS, "amount": usd("286.50")},
        ),
        (
            occasions.returned(OWED_NOTHING),
            OWED_NOTHING,
            Template.RETURN_RECEIVED,
            {"items": TOLD_ITEMS, "amount": None},
        ),
        (
            occasions.payment_failed(UNPAID),
            UNPAID,
            Template.PAYMENT_FAILED,
            {"amount": usd("300.60"), "reason": "card_declined", "brand": "visa", "last4": "0002"},
        ),
        (
            occasions.refunded(REFUNDED),
            REFUNDED,
            Template.REFUND_MADE,
            {"amount": usd("10.00"), "in_full": False},
        ),
    ],
)
def test_what_becomes_of_an_order_is_told_to_its_buyer(
    occasion: Occasion, cause: Any, template: Template, facts: Any
) -> None:
    assert occasion == Occasion(
        cause_id=cause.event_id,
        template=template,
        at=THEN,
        user_id=USER,
        order_id=cause.payload.order_id,
        facts=facts,
    )


@pytest.mark.parametrize(
    ("status", "template"),
    [
        ("in_transit", Template.ORDER_SHIPPED),
        ("out_for_delivery", Template.OUT_FOR_DELIVERY),
        ("exception", Template.PARCEL_DELAYED),
    ],
)
def test_of_a_parcels_way_its_line_is_told_and_its_link_when_it_is_shipped(
    status: str, template: Template
) -> None:
    cause = event(examples.shipment_status(USER, status), THEN)
    shipped = template is Template.ORDER_SHIPPED
    assert occasions.on_its_way(cause) == Occasion(
        cause_id=cause.event_id,
        template=template,
        at=THEN,
        user_id=USER,
        order_id=cause.payload.order_id,
        facts={
            "carrier": "dhl",
            "tracking_id": "JD014600003SE",
            "description": "Held by snow",
            "location": "Leipzig",
            "at": AT.isoformat(),
        },
        shipment_id=cause.payload.shipment_id if shipped else None,
    )


@pytest.mark.parametrize("status", ["created", "delivered", "returned", "stopped"])
def test_the_rest_of_a_parcels_way_is_not_told(status: str) -> None:
    assert occasions.on_its_way(event(examples.shipment_status(USER, status))) is None


def test_staff_is_told_which_variant_runs_low() -> None:
    stock = InventoryLowStock(variant_id=uuid4(), product_id=uuid4(), available=2, threshold=5)
    cause, staff = event(stock, THEN), Recipient("staff@shop.test")
    assert occasions.low_stock(cause, staff) == Occasion(
        cause_id=cause.event_id,
        template=Template.LOW_STOCK,
        at=THEN,
        facts={
            "variant_id": str(stock.variant_id),
            "product_id": str(stock.product_id),
            "available": 2,
            "threshold": 5,
        },
        recipient=staff,
    )

"""What events say that is worth telling: event → occasion, with the facts that its template tells."""

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

from stoa_chassis.avro import Event
from stoa_contracts.money import Money
from stoa_events import (
    InventoryLowStock,
    OrderCancelled,
    OrderConfirmed,
    OrderDelivered,
    OrderReturnDecided,
    OrderReturned,
    OrderReturnRequested,
    PaymentFailed,
    PaymentRefunded,
    ShipmentStatusUpdated,
    UserEmailChangeRequested,
    UserEmailVerificationRequested,
    UserPasswordChanged,
    UserPasswordResetRequested,
    UserRegistered,
)
from stoa_events.types import OrderItem
from stoa_notification.model import Facts, Occasion, Recipient, Template, known_locale

# What of a parcel's way is told; that it was delivered is told by the order.
_ON_ITS_WAY = {
    "in_transit": Template.ORDER_SHIPPED,
    "out_for_delivery": Template.OUT_FOR_DELIVERY,
    "exception": Template.PARCEL_DELAYED,
}


def registered(event: Event[UserRegistered]) -> Occasion:
    """Somebody has an account."""
    return Occasion(
        cause_id=event.event_id,
        template=Template.WELCOME,
        at=event.timestamp,
        user_id=event.payload.user_id,
    )


def link_requested(
    event: Event[UserPasswordResetRequested] | Event[UserEmailVerificationRequested], template: Template
) -> Occasion:
    """Somebody needs a link that works once and expires; the event says itself where it goes."""
    asked = event.payload
    return Occasion(
        cause_id=event.event_id,
        template=template,
        at=event.timestamp,
        user_id=asked.user_id,
        facts={"token": asked.token, "expires_at": asked.expires_at.isoformat()},
        recipient=Recipient(asked.email, asked.first_name, known_locale(asked.locale)),
        expires_at=asked.expires_at,
    )


def account_changed(
    event: Event[UserEmailChangeRequested] | Event[UserPasswordChanged], template: Template
) -> Occasion:
    """Something happened to an account that its owner may not have done; the event says where that goes."""
    changed = event.payload
    return Occasion(
        cause_id=event.event_id,
        template=template,
        at=event.timestamp,
        user_id=changed.user_id,
        recipient=Recipient(changed.email, changed.first_name, known_locale(changed.locale)),
    )


def confirmed(event: Event[OrderConfirmed]) -> Occasion:
    """An order has its stock and its payment."""
    order = event.payload
    total, subtotal = order.total_amount, _sum(order.items, order.total_amount.currency)
    facts = {
        "items": _items(order.items),
        "subtotal": _money(subtotal),
        "shipping_and_tax": _money(Money(total.amount - subtotal.amount, total.currency)),
        "total": _money(total),
        "address": order.shipping_address.to_dict(),
        "shipping_method": order.shipping_method,
    }
    return _of_order(event, Template.ORDER_CONFIRMED, facts)


def cancelled(event: Event[OrderCancelled]) -> Occasion:
    """An order will not be fulfilled."""
    order = event.payload
    facts = {"items": _items(order.items), "total": _money(order.total_amount), "reason": order.reason}
    return _of_order(event, Template.ORDER_CANCELLED, facts)


def delivered(event: Event[OrderDelivered]) -> Occasion:
    """An order is with its buyer."""
    order = event.payload
    facts = {"items": _items(order.items), "delivered_at": order.delivered_at.isoformat()}
    return _of_order(event, Template.ORDER_DELIVERED, facts)


def return_requested(event: Event[OrderReturnRequested]) -> Occasion:
    """A buyer wants to send something back."""
    facts = {"items": _items(event.payload.items), "reason": event.payload.reason}
    return _of_order(event, Template.RETURN_REQUESTED, facts)


def return_decided(event: Event[OrderReturnDecided]) -> Occasion:
    """It was decided whether something may be sent back."""
    decided = event.payload
    facts = {
        "items": _items(decided.items),
        "approved": decided.status == "approved",
        "reason": decided.reason,
        "amount": _money(decided.refund_amount),
    }
    return _of_order(event, Template.RETURN_DECIDED, facts)


def returned(event: Event[OrderReturned]) -> Occasion:
    """What was sent back is there."""
    amount = event.payload.refund_amount
    facts = {"items": _items(event.payload.items), "amount": _money(amount) if amount else None}
    return _of_order(event, Template.RETURN_RECEIVED, facts)


def payment_failed(event: Event[PaymentFailed]) -> Occasion:
    """An order could not be paid."""
    payment = event.payload
    facts = {
        "amount": _money(payment.amount),
        "reason": payment.reason,
        "brand": payment.brand,
        "last4": payment.last4,
    }
    return _of_order(event, Template.PAYMENT_FAILED, facts)


def refunded(event: Event[PaymentRefunded]) -> Occasion:
    """Money was given back."""
    refund = event.payload
    facts = {"amount": _money(refund.amount), "in_full": refund.fully_refunded}
    return _of_order(event, Template.REFUND_MADE, facts)


def on_its_way(event: Event[ShipmentStatusUpdated]) -> Occasion | None:
    """Something happened to a parcel; None if it is nothing to be told."""
    parcel = event.payload
    if parcel.status not in _ON_ITS_WAY:
        return None
    template = _ON_ITS_WAY[parcel.status]
    facts = {
        "carrier": parcel.carrier,
        "tracking_id": parcel.tracking_id,
        "description": parcel.description,
        "location": parcel.location,
        "at": parcel.at.isoformat(),
    }
    occasion = _of_order(event, template, facts)
    if template is Template.ORDER_SHIPPED:  # with a link, which was said when the parcel was booked
        return replace(occasion, shipment_id=parcel.shipment_id)
    return occasion


def low_stock(event: Event[InventoryLowStock], staff: Recipient) -> Occasion:
    """Staff should order more of a variant."""
    stock = event.payload
    return Occasion(
        cause_id=event.event_id,
        template=Template.LOW_STOCK,
        at=event.timestamp,
        facts={
            "variant_id": str(stock.variant_id),
            "product_id": str(stock.product_id),
            "available": stock.available,
            "threshold": stock.threshold,
        },
        recipient=staff,
    )


def _of_order(
    event: Event[OrderConfirmed]
    | Event[OrderCancelled]
    | Event[OrderDelivered]
    | Event[OrderReturnRequested]
    | Event[OrderReturnDecided]
    | Event[OrderReturned]
    | Event[PaymentFailed]
    | Event[PaymentRefunded]
    | Event[ShipmentStatusUpdated],
    template: Template,
    facts: Facts,
) -> Occasion:
    return Occasion(
        cause_id=event.event_id,
        template=template,
        at=event.timestamp,
        user_id=event.payload.user_id,
        order_id=event.payload.order_id,
        facts=facts,
    )


def _items(items: Sequence[OrderItem]) -> list[Facts]:
    return [
        {
            "name": item.name,
            "quantity": item.quantity,
            "price": _money(item.price),
            "amount": _money(Money(item.price.amount * item.quantity, item.price.currency)),
        }
        for item in items
    ]


def _sum(items: Sequence[OrderItem], currency: str) -> Money:
    return Money(sum((item.price.amount * item.quantity for item in items), Decimal(0)), currency)


def _money(money: Money) -> Facts:
    return {"amount": str(money.amount), "currency": money.currency}

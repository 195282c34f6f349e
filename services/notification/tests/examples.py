"""Examples of what notification consumes."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TypeVar
from uuid import UUID, uuid4

from stoa_chassis.avro import Event
from stoa_contracts.events import Payload
from stoa_contracts.money import Money
from stoa_events import (
    OrderCancelled,
    OrderConfirmed,
    OrderDelivered,
    OrderPlaced,
    OrderReturnDecided,
    OrderReturned,
    OrderReturnRequested,
    PaymentFailed,
    PaymentRefunded,
    ShipmentCreated,
    ShipmentStatusUpdated,
    UserEmailVerificationRequested,
    UserPasswordResetRequested,
    UserRegistered,
)
from stoa_events.types import Address, OrderItem

P = TypeVar("P", bound=Payload)
AT = datetime(2026, 11, 28, 12, tzinfo=UTC)


def event(payload: P, at: datetime | None = None) -> Event[P]:
    return Event(uuid4(), payload.TOPIC, 1, at or datetime.now(UTC), "a-request", payload)


def again(known: Event[P]) -> Event[P]:
    """What another event says that is the same for people: a repeated publication has the same id."""
    return replace(known, event_id=uuid4())


def usd(amount: str) -> Money:
    return Money(Decimal(amount), "USD")


ITEMS = (
    OrderItem(product_id=uuid4(), variant_id=uuid4(), quantity=1, price=usd("249.00"), name="Desk <XL>"),
    OrderItem(product_id=uuid4(), variant_id=uuid4(), quantity=3, price=usd("12.50"), name=""),
)
ADDRESS = Address(
    recipient="Ada Lovelace",
    line1="12 Analytical St",
    line2="",
    city="London",
    region="",
    postal_code="N1 7AA",
    country="GB",
)


def registered(user_id: UUID, email: str = "ada@mail.test", locale: str = "en") -> UserRegistered:
    return UserRegistered(user_id=user_id, email=email, first_name="Ada", last_name="Lovelace", locale=locale)


def placed(user_id: UUID, order_id: UUID, email: str = "guest@mail.test", locale: str = "de") -> OrderPlaced:
    return OrderPlaced(
        order_id=order_id,
        user_id=user_id,
        items=ITEMS,
        total_amount=usd("300.60"),
        email=email,
        locale=locale,
        access_token="access" if email else "",
    )


def confirmed(user_id: UUID, order_id: UUID | None = None) -> OrderConfirmed:
    return OrderConfirmed(
        order_id=order_id or uuid4(),
        user_id=user_id,
        items=ITEMS,
        total_amount=usd("300.60"),
        shipping_address=ADDRESS,
        shipping_method="standard",
    )


def cancelled(user_id: UUID) -> OrderCancelled:
    return OrderCancelled(
        order_id=uuid4(),
        user_id=user_id,
        items=ITEMS,
        total_amount=usd("300.60"),
        reason="the buyer changed her mind",
    )


def delivered(user_id: UUID) -> OrderDelivered:
    return OrderDelivered(order_id=uuid4(), user_id=user_id, items=ITEMS, delivered_at=AT)


def return_requested(user_id: UUID) -> OrderReturnRequested:
    return OrderReturnRequested(
        order_id=uuid4(),
        user_id=user_id,
        return_id=uuid4(),
        status="requested",
        reason="too big",
        items=ITEMS,
        refund_amount=usd("286.50"),
    )


def return_decided(user_id: UUID, status: str = "approved") -> OrderReturnDecided:
    return OrderReturnDecided(
        order_id=uuid4(),
        user_id=user_id,
        return_id=uuid4(),
        status=status,
        reason="it was worn",
        items=ITEMS,
        refund_amount=usd("286.50"),
    )


def returned(user_id: UUID) -> OrderReturned:
    return OrderReturned(
        order_id=uuid4(), user_id=user_id, items=ITEMS, return_id=uuid4(), refund_amount=usd("286.50")
    )


def payment_failed(user_id: UUID) -> PaymentFailed:
    return PaymentFailed(
        payment_id=uuid4(),
        order_id=uuid4(),
        user_id=user_id,
        amount=usd("300.60"),
        reason="card_declined",
        brand="visa",
        last4="0002",
    )


def refunded(user_id: UUID) -> PaymentRefunded:
    return PaymentRefunded(
        payment_id=uuid4(),
        order_id=uuid4(),
        refund_id=uuid4(),
        user_id=user_id,
        amount=usd("10.00"),
        total_refunded=usd("10.00"),
        fully_refunded=False,
    )


def shipment_created(user_id: UUID, shipment_id: UUID | None = None) -> ShipmentCreated:
    return ShipmentCreated(
        shipment_id=shipment_id or uuid4(),
        order_id=uuid4(),
        user_id=user_id,
        carrier="ups",
        tracking_id="1Z999AA10123456784",
        tracking_url="https://carrier.test/track/1Z999AA10123456784",
        shipping_method="standard",
        estimated_delivery=AT,
    )


def shipment_status(user_id: UUID, status: str, shipment_id: UUID | None = None) -> ShipmentStatusUpdated:
    return ShipmentStatusUpdated(
        shipment_id=shipment_id or uuid4(),
        order_id=uuid4(),
        user_id=user_id,
        carrier="dhl",
        tracking_id="JD014600003SE",
        status=status,
        description="Held by snow",
        location="Leipzig",
        at=AT,
    )


def password_reset(user_id: UUID, expires_at: datetime) -> UserPasswordResetRequested:
    return UserPasswordResetRequested(
        user_id=user_id,
        email="ada@mail.test",
        first_name="Ada",
        locale="de",
        token="one-time-token",
        expires_at=expires_at,
    )


def verification(user_id: UUID) -> UserEmailVerificationRequested:
    return UserEmailVerificationRequested(
        user_id=user_id,
        email="new@mail.test",
        first_name="Ada",
        locale="en",
        token="another-token",
        expires_at=datetime.now(UTC) + timedelta(hours=1),
    )

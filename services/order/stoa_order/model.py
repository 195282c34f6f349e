"""Orders: what may happen to one, and what follows from it.

An order is event-sourced (Fowler, "Event Sourcing"): each decision appends facts to `changes`, and the state
is nothing but the facts applied in turn. The events for other services are recorded in `events`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from enum import StrEnum
from hashlib import sha256
from typing import Any, Self
from uuid import UUID

from stoa_chassis.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    NotFound,
    Unavailable,
    check_same_request,
)
from stoa_chassis.ids import new_id
from stoa_contracts.money import Money
from stoa_events import Address as EventAddress
from stoa_events import (
    InventoryOutOfStock,
    InventoryReserved,
    OrderCancelled,
    OrderConfirmed,
    OrderItem,
    OrderPlaced,
    PaymentFailed,
    PaymentRefunded,
    PaymentSuccessful,
)


class OrderNotFound(NotFound):
    """There is no such order, or it is another's."""

    reason = "ORDER_NOT_FOUND"


class CartEmpty(Aborted):
    """There is nothing to order, or another order has just claimed it."""

    reason = "CART_EMPTY"


class CartChanged(Aborted):
    """What is in the cart was ordered already; the metadata says with which order."""

    reason = "CART_CHANGED"


class ItemsUnavailable(FailedPrecondition):
    """Some items of the cart are not sold any more; the metadata has their ids."""

    reason = "ITEMS_UNAVAILABLE"


class PriceChanged(FailedPrecondition):
    """Some items cost something else than when the buyer last saw the cart; the metadata has their ids."""

    reason = "PRICE_CHANGED"


class ForeignCurrency(FailedPrecondition):
    """Something is priced in another currency than the shop sells in; the metadata names both."""

    reason = "FOREIGN_CURRENCY"


class NotCancellable(FailedPrecondition):
    """The order is past the point where it can be cancelled."""

    reason = "ORDER_NOT_CANCELLABLE"


class RequestInProgress(Aborted):
    """The same request is being carried out at this moment; ask again."""

    reason = "REQUEST_IN_PROGRESS"


class RequestIdUsed(AlreadyExists):
    """The request led to an order that was cancelled since; the metadata says to which."""

    reason = "REQUEST_ID_USED"


class ClaimTooOld(Unavailable):
    """What was claimed may be in the cart again before the order is stored; ask again."""

    reason = "CART_CLAIM_TOO_OLD"


class Status(StrEnum):
    """Where an order stands."""

    PENDING = "pending"
    CONFIRMED = "confirmed"
    SHIPPED = "shipped"
    DELIVERED = "delivered"
    RETURNED = "returned"
    CANCELLED = "cancelled"


_CANCELLABLE = (Status.PENDING, Status.CONFIRMED)  # nothing of it has left the warehouse


class PaymentStatus(StrEnum):
    """What became of the money."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    PARTIALLY_REFUNDED = "partially_refunded"
    REFUNDED = "refunded"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a parcel goes; `country` is ISO 3166-1 alpha-2."""

    recipient: str
    line1: str
    line2: str
    city: str
    region: str
    postal_code: str
    country: str


@dataclass(frozen=True, slots=True)
class Line:
    """One variant and how many of it, at the price of the moment of ordering."""

    item_id: UUID
    product_id: UUID
    variant_id: UUID
    name: str
    quantity: int
    price: Money

    @property
    def amount(self) -> Money:
        """What the line costs."""
        return self.price * self.quantity


@dataclass(frozen=True, slots=True)
class CartLine:
    """One line of a cart, at the price that its owner last saw."""

    product_id: UUID
    variant_id: UUID
    quantity: int
    price: Money


@dataclass(frozen=True, slots=True)
class Checkout:
    """A cart as it goes to checkout; `version` says which state of it this is.

    `order_id` is the order for which the same request has claimed the cart before: then it is what was
    claimed. `lapsed` are orders that had claimed what is in the cart, and of which the cart has not heard
    that they were placed.
    """

    lines: Sequence[CartLine]
    version: str
    order_id: UUID | None = None
    lapsed: Sequence[UUID] = ()


@dataclass(frozen=True, slots=True)
class CartClaim:
    """A cart is claimed for an order, for so long from the moment it was asked for."""

    order_id: UUID
    ttl: timedelta


@dataclass(frozen=True, slots=True)
class Offer:
    """What a variant is sold for today."""

    product_id: UUID
    variant_id: UUID
    name: str
    price: Money


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """A variant that is not sold any more, and what it was called."""

    variant_id: UUID
    name: str


@dataclass(frozen=True, slots=True)
class Amounts:
    """What an order costs; `total` is the sum of the others."""

    subtotal: Money
    shipping: Money
    tax: Money
    total: Money


@dataclass(frozen=True, slots=True)
class Tariff:
    """What is added to the items: shipping by method, and sales tax as a fraction of the items."""

    shipping: dict[str, Money]
    tax_rate: Decimal

    def amounts(self, lines: Sequence[Line], shipping_method: str) -> Amounts:
        """Add up what the lines cost when sent so. Tax is rounded half up to the cent.

        Raises ForeignCurrency if a line is not priced in the currency of the tariff.
        """
        shipping = self.shipping[shipping_method]
        for line in lines:
            if line.price.currency != shipping.currency:
                raise ForeignCurrency(
                    f"{line.name} is priced in {line.price.currency}, the shop sells in {shipping.currency}",
                    metadata={"priced_in": line.price.currency, "sold_in": shipping.currency},
                )
        subtotal = sum((line.amount for line in lines), Money.zero(shipping.currency))
        tax = Money(
            (subtotal.amount * self.tax_rate).quantize(Decimal("0.01"), ROUND_HALF_UP), subtotal.currency
        )
        return Amounts(subtotal, shipping, tax, subtotal + shipping + tax)


@dataclass(frozen=True, slots=True)
class Request:
    """What a request to place an order asks for, by the names of its fields.

    Of the payment token it has a digest, which tells whether another is the same and no more.
    """

    shipping_address: Address | None
    address_id: UUID | None
    shipping_method: str
    payment_token: str

    @classmethod
    def of(
        cls, order_id: UUID, destination: Address | UUID, shipping_method: str, payment_token: str
    ) -> Self:
        """Return what is asked for with a payment token as it is sent; the order's id salts its digest."""
        return cls(
            destination if isinstance(destination, Address) else None,
            destination if isinstance(destination, UUID) else None,
            shipping_method,
            sha256(order_id.bytes + payment_token.encode()).hexdigest(),
        )


@dataclass(frozen=True, slots=True)
class Payment:
    """What an order knows of its payment."""

    payment_id: UUID
    status: PaymentStatus
    brand: str
    last4: str

    @property
    def holds_money(self) -> bool:
        """Whether the shop still has some of the buyer's money."""
        return self.status in (PaymentStatus.SUCCEEDED, PaymentStatus.PARTIALLY_REFUNDED)


@dataclass(frozen=True, slots=True)
class StatusChange:
    """A status, why it came, and when."""

    status: Status
    reason: str
    at: datetime


# The facts of an order's life, as the event store keeps them. They are never changed, only added to.


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """The buyer ordered; `request` is what was asked for, unknown of older orders."""

    user_id: UUID
    request_id: str
    lines: tuple[Line, ...]
    amounts: Amounts
    shipping_address: Address
    shipping_method: str
    request: Request | None = None


@dataclass(frozen=True, slots=True)
class StockReserved:
    """Inventory promised all items."""


@dataclass(frozen=True, slots=True)
class PaymentSettled:
    """The payment was made, failed or was given back."""

    payment: Payment


@dataclass(frozen=True, slots=True)
class Confirmed:
    """Stock and money are there."""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The order will not be fulfilled."""

    reason: str


@dataclass(frozen=True, slots=True)
class Saga:
    """Where the process of an order stands: at which step, and what happens next (`stoa_order.saga.plan`).

    It asks, or asks again, when it is `due`, and gives up at the `deadline`; None is never. `token` is the
    payment token, kept only while it may be needed. `correlation_id` is the request that the order goes back
    to; "" for an order that is older than the column.
    """

    order_id: UUID
    step: str
    since: datetime
    due: datetime
    deadline: datetime | None
    token: str | None = field(default=None, repr=False)
    correlation_id: str = ""
    attempts: int = 0

    def is_overdue(self, now: datetime) -> bool:
        """Tell whether the step's deadline has passed."""
        return self.deadline is not None and self.deadline <= now


@dataclass(frozen=True, slots=True)
class OrderView:
    """An order as it is shown."""

    order_id: UUID
    user_id: UUID
    status: Status
    lines: tuple[Line, ...]
    amounts: Amounts
    shipping_address: Address
    shipping_method: str
    payment: Payment | None
    history: tuple[StatusChange, ...]
    created_at: datetime


Fact = Placed | StockReserved | PaymentSettled | Confirmed | Cancelled
IntegrationEvent = OrderPlaced | OrderConfirmed | OrderCancelled


@dataclass(frozen=True, slots=True)
class Recorded:
    """A fact, the position it has in its order's life, and when it came about."""

    version: int
    fact: Fact
    at: datetime


def check_offers(cart: Sequence[CartLine], offers: Sequence[Offer | Withdrawn]) -> tuple[Line, ...]:
    """Turn a cart into order lines at today's prices.

    The cart's prices are never trusted, only compared: they are what the buyer saw.

    Raises:
        CartEmpty: there is nothing in it.
        ItemsUnavailable: some variants are not on sale.
        PriceChanged: some prices are not those that the buyer saw.
    """
    if not cart:
        raise CartEmpty("the cart is empty")
    today = {(each.product_id, each.variant_id): each for each in offers if isinstance(each, Offer)}
    gone = [line.variant_id for line in cart if (line.product_id, line.variant_id) not in today]
    if gone:
        raise _unavailable(gone, {each.variant_id: each.name for each in offers})
    lines = []
    changes: list[str] = []
    changed: dict[str, str] = {}
    for line in cart:
        offer = today[line.product_id, line.variant_id]
        if offer.price != line.price:
            changes.append(f"{_title(offer.name)} now costs {offer.price} instead of {line.price}")
            changed[str(line.variant_id)] = f"{line.price} -> {offer.price}"
        lines.append(Line(new_id(), line.product_id, line.variant_id, offer.name, line.quantity, offer.price))
    if changed:
        told = _enumerated(changes, len(changes))
        raise PriceChanged(f"prices changed since you saw the cart: {told}", metadata=changed)
    return tuple(lines)


def _unavailable(gone: Sequence[UUID], names: Mapping[UUID, str]) -> ItemsUnavailable:
    known = [_title(names[variant_id]) for variant_id in gone if variant_id in names]
    what = _enumerated(known, len(gone)) if known else f"{len(gone)} of the things in the cart"
    return ItemsUnavailable(
        f"no longer on sale: {what}",
        metadata={"variant_ids": ", ".join(str(variant_id) for variant_id in gone[:_MOST_IDS])},
    )


# What is kept in an order or told in an error does not grow with the cart, nor with what things are called.
_MOST_NAMED = 3
_LONGEST_NAME = 80  # characters
_MOST_IDS = 20


def _enumerated(things: Sequence[str], total: int) -> str:
    """Name the first few of some things, and say how many more there are in total."""
    named = ", ".join(things[:_MOST_NAMED])
    more = total - min(len(things), _MOST_NAMED)
    return f"{named} and {more} more" if more else named


def _title(name: str) -> str:
    """Return what a thing is called, for a sentence with others."""
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


_NOBODY = UUID(int=0)


@dataclass(slots=True)
class Order:
    """An order. Its methods decide; `changes` is what is new for the event store, `events` for the others.

    `saga` is where its process stands, as it was read or saved.
    """

    order_id: UUID
    version: int = 0
    user_id: UUID = _NOBODY
    request_id: str = ""
    request: Request | None = None
    status: Status = Status.PENDING
    lines: tuple[Line, ...] = ()
    amounts: Amounts = Amounts(*[Money.zero("USD")] * 4)
    shipping_address: Address = Address("", "", "", "", "", "", "")
    shipping_method: str = ""
    stock_reserved: bool = False
    payment: Payment | None = None
    history: tuple[StatusChange, ...] = ()
    saga: Saga | None = field(default=None, compare=False)
    changes: list[Recorded] = field(default_factory=list, compare=False)
    events: list[IntegrationEvent] = field(default_factory=list, compare=False)

    @classmethod
    def replay(cls, order_id: UUID, facts: Iterable[Recorded]) -> Self:
        """Make an order of its recorded facts, in the order of their versions."""
        order = cls(order_id)
        for recorded in facts:
            order._apply(recorded)
        return order

    @classmethod
    def place(
        cls,
        *,
        order_id: UUID,
        user_id: UUID,
        request_id: str,
        request: Request | None,
        lines: tuple[Line, ...],
        amounts: Amounts,
        shipping_address: Address,
        shipping_method: str,
        now: datetime,
    ) -> Self:
        """Begin an order; it waits for stock, then for its payment."""
        order = cls(order_id)
        placed = Placed(
            user_id=user_id,
            request_id=request_id,
            lines=lines,
            amounts=amounts,
            shipping_address=shipping_address,
            shipping_method=shipping_method,
            request=request,
        )
        order._record(placed, now)
        order.events.append(
            OrderPlaced(
                order_id=order.order_id,
                user_id=user_id,
                items=tuple(OrderItem(**_item(line)) for line in lines),
                total_amount=amounts.total,
            )
        )
        return order

    @property
    def created_at(self) -> datetime:
        """When it was placed."""
        return self.history[0].at

    @property
    def view(self) -> OrderView:
        """What is shown of it."""
        return OrderView(
            order_id=self.order_id,
            user_id=self.user_id,
            status=self.status,
            lines=self.lines,
            amounts=self.amounts,
            shipping_address=self.shipping_address,
            shipping_method=self.shipping_method,
            payment=self.payment,
            history=self.history,
            created_at=self.created_at,
        )

    @property
    def is_new(self) -> bool:
        """Whether nothing of it was stored yet."""
        return self.version == len(self.changes)

    def check_again(self, again: Request) -> None:
        """Check that a request which comes again is the one that led to this order, and has not lost it.

        Raises:
            RequestIdUsed: the order was cancelled.
            RequestIdReused: something else is asked for.
        """
        if self.status is Status.CANCELLED:
            raise RequestIdUsed(
                f"this request_id was used by order {self.order_id}, which is cancelled. "
                "To order again, send a new one",
                metadata={"order_id": str(self.order_id)},
            )
        if self.request is not None:
            check_same_request(self.request, again)

    # What the saga's events and deadlines mean. Each may come twice, late, or when all is over: then it
    # changes nothing, except that money which arrives for a cancelled order is noted, so that it is refunded.
    # The topics of payments are not ordered among each other: a refund may come before its payment.

    def on_inventory_reserved(self, _: InventoryReserved, now: datetime) -> None:
        """Take note that all items are promised."""
        if self.status is Status.PENDING and not self.stock_reserved:
            self._record(StockReserved(), now)

    def on_inventory_out_of_stock(self, event: InventoryOutOfStock, now: datetime) -> None:
        """Cancel for want of stock."""
        if self.status is Status.PENDING:
            names = {line.variant_id: line.name for line in self.lines}
            lacking = [
                f"{_title(names.get(item.variant_id, 'an item'))} ({item.available} of {item.requested})"
                for item in event.items
            ]
            self._cancel(f"out of stock: {_enumerated(lacking, len(lacking))}", now)

    def on_payment_successful(self, event: PaymentSuccessful, now: datetime) -> None:
        """Confirm with the payment made; for a cancelled order only note the money, which goes back."""
        status = self.payment.status if self.payment else PaymentStatus.SUCCEEDED
        payment = Payment(event.payment_id, status, event.brand, event.last4)
        if payment != self.payment:
            self._settle(payment, now)
        if self.status is Status.PENDING and payment.holds_money:
            self._record(Confirmed(), now)
            self.events.append(
                OrderConfirmed(
                    order_id=self.order_id,
                    user_id=self.user_id,
                    items=tuple(OrderItem(**_item(line)) for line in self.lines),
                    total_amount=self.amounts.total,
                    shipping_address=_event_address(self.shipping_address),
                    shipping_method=self.shipping_method,
                )
            )

    def on_payment_failed(self, event: PaymentFailed, now: datetime) -> None:
        """Cancel for want of payment."""
        if self.payment is not None:
            return
        self._settle(Payment(event.payment_id, PaymentStatus.FAILED, event.brand, event.last4), now)
        if self.status is Status.PENDING:
            self._cancel(f"payment failed: {event.reason.replace('_', ' ')}", now)

    def on_payment_refunded(self, event: PaymentRefunded, now: datetime) -> None:
        """Take note that money was given back.

        Without any left an order ends: one that still waits for it will get none, and one that is confirmed
        is not sent for nothing.
        """
        status = PaymentStatus.REFUNDED if event.fully_refunded else PaymentStatus.PARTIALLY_REFUNDED
        if self.payment and self.payment.status in (status, PaymentStatus.REFUNDED):
            return
        brand, last4 = (self.payment.brand, self.payment.last4) if self.payment else ("", "")
        self._settle(Payment(event.payment_id, status, brand, last4), now)
        if event.fully_refunded and self.status in _CANCELLABLE:
            self._cancel("payment refunded", now)

    def give_up_on_stock(self, now: datetime) -> None:
        """Cancel because inventory did not answer in time."""
        if self.status is Status.PENDING and not self.stock_reserved:
            self._cancel("stock could not be reserved in time", now)

    def give_up_on_payment(self, now: datetime) -> None:
        """Cancel because the payment did not come to an end in time."""
        if self.status is Status.PENDING:
            self._cancel("payment timed out", now)

    def cancel(self, reason: str, now: datetime) -> None:
        """Cancel on request. Cancelling twice is the same as once.

        Raises:
            NotCancellable: it has left the warehouse.
        """
        if self.status is Status.CANCELLED:
            return
        if self.status not in _CANCELLABLE:
            raise NotCancellable(f"a {self.status} order can't be cancelled")
        self._cancel(reason, now)

    def _cancel(self, reason: str, now: datetime) -> None:
        self._record(Cancelled(reason), now)
        self.events.append(
            OrderCancelled(
                order_id=self.order_id,
                user_id=self.user_id,
                items=tuple(OrderItem(**_item(line)) for line in self.lines),
                total_amount=self.amounts.total,
                reason=reason,
            )
        )

    def _settle(self, payment: Payment, now: datetime) -> None:
        self._record(PaymentSettled(payment), now)

    def _record(self, fact: Fact, now: datetime) -> None:
        recorded = Recorded(self.version + 1, fact, now)
        self._apply(recorded)
        self.changes.append(recorded)

    def _apply(self, recorded: Recorded) -> None:
        self.version = recorded.version
        match recorded.fact:
            case Placed() as placed:
                self.user_id = placed.user_id
                self.request_id = placed.request_id
                self.request = placed.request
                self.lines = placed.lines
                self.amounts = placed.amounts
                self.shipping_address = placed.shipping_address
                self.shipping_method = placed.shipping_method
                self._enter(Status.PENDING, "", recorded.at)
            case StockReserved():
                self.stock_reserved = True
            case PaymentSettled(payment):
                self.payment = payment
            case Confirmed():
                self._enter(Status.CONFIRMED, "", recorded.at)
            case Cancelled(reason):
                self._enter(Status.CANCELLED, reason, recorded.at)

    def _enter(self, status: Status, reason: str, at: datetime) -> None:
        self.status = status
        self.history = (*self.history, StatusChange(status, reason, at))


def _item(line: Line) -> dict[str, Any]:
    return {
        "product_id": line.product_id,
        "variant_id": line.variant_id,
        "quantity": line.quantity,
        "price": line.price,
    }


def _event_address(address: Address) -> EventAddress:
    return EventAddress(
        recipient=address.recipient,
        line1=address.line1,
        line2=address.line2,
        city=address.city,
        region=address.region,
        postal_code=address.postal_code,
        country=address.country,
    )

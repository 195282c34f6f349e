"""Orders: what may happen to one, and what follows from it.

An order is event-sourced (Fowler, "Event Sourcing"): each decision appends facts to `changes`, and the state
is nothing but the facts applied in turn. The events for other services are recorded in `events`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from enum import StrEnum
from hashlib import sha256
from typing import Any, Self
from uuid import UUID

from stoa_chassis.emails import valid_email
from stoa_chassis.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
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
    OrderBuyerChanged,
    OrderCancelled,
    OrderConfirmed,
    OrderDelivered,
    OrderItem,
    OrderPlaced,
    OrderReturnDecided,
    OrderReturned,
    OrderReturnRequested,
    OrderShipped,
    PaymentCaptured,
    PaymentFailed,
    PaymentRefunded,
    PaymentSuccessful,
    ShipmentCreated,
    ShipmentStatusUpdated,
)
from stoa_order.returns import (
    CAME_BACK,
    NotReturnable,
    Purchase,
    Return,
    ReturnDecided,
    ReturnItem,
    ReturnNotFound,
    ReturnRequest,
    ReturnStatus,
    ReturnWindowClosed,
    TooManyReturns,
    quantities,
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


class NotCancellable(Aborted):
    """The order is past the point where it can be cancelled: the carrier has it."""

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
_MOST_RETURNS = 100  # of one order, those that were rejected included


class PaymentStatus(StrEnum):
    """What became of the money."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    PARTIALLY_REFUNDED = "partially_refunded"
    REFUNDED = "refunded"


class ShipmentStatus(StrEnum):
    """What became of the parcel, as shipping tells it."""

    CREATED = "created"
    IN_TRANSIT = "in_transit"
    OUT_FOR_DELIVERY = "out_for_delivery"
    DELIVERED = "delivered"
    EXCEPTION = "exception"
    RETURNED = "returned"
    STOPPED = "stopped"


_WITH_CARRIER = (
    ShipmentStatus.IN_TRANSIT,
    ShipmentStatus.OUT_FOR_DELIVERY,
    ShipmentStatus.DELIVERED,
    ShipmentStatus.RETURNED,
)


@dataclass(frozen=True, slots=True)
class Shipment:
    """What an order knows of its parcel; `at` is since when, None if only its creation is known."""

    carrier: str
    tracking_id: str
    status: ShipmentStatus
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ShipmentStopped:
    """Shipping answered that no parcel of the order leaves the warehouse, now or later."""


@dataclass(frozen=True, slots=True)
class ShipmentUnderWay:
    """Shipping answered that the carrier has the parcel."""


@dataclass(frozen=True, slots=True)
class ReturnRefundMade:
    """Payment answered that a return was refunded, and with how much."""

    return_id: UUID
    amount: Money


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

    @property
    def without_person(self) -> "Address":
        """What the books need of it: the country, which decides about taxes."""
        return Address("", "", "", "", "", "", self.country)


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

    def amounts(self, lines: Sequence[Line], shipping_method: str, quote: Money | None = None) -> Amounts:
        """Add up what the lines cost when sent so, for what shipping quotes or else for the tariff's price.

        Tax is rounded half up to the cent. Raises ForeignCurrency if a line is not priced in the currency of
        the tariff.
        """
        shipping = self.shipping[shipping_method]
        if quote is not None and quote.currency == shipping.currency:
            shipping = quote
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
class Contact:
    """Where, and in which language, a guest is written to about an order; "" of who has an account."""

    email: str = ""
    locale: str = ""


ACCOUNT = Contact()
"""Who has an account is written to as she chose there."""


def check_contact(email: str, locale: str, *, is_guest: bool) -> Contact:
    """Return how the buyer is written to.

    Raises InvalidArgument if a guest gives no address, or somebody with an account gives one.
    """
    if not is_guest:
        for field_, value in (("email", email), ("locale", locale)):
            if value:
                raise InvalidArgument(field_, "must be left out: your account says how to write to you")
        return ACCOUNT
    if not email:
        raise InvalidArgument("email", "is missing: a guest's order needs an address to write to")
    return Contact(valid_email(email), locale or "en")


@dataclass(frozen=True, slots=True)
class Request:
    """What a request to place an order asks for, by the names of its fields.

    Of the payment token it has a digest, which tells whether another is the same and no more.
    """

    shipping_address: Address | None
    address_id: UUID | None
    shipping_method: str
    payment_token: str
    email: str = ""
    locale: str = ""

    @classmethod
    def of(
        cls,
        order_id: UUID,
        destination: Address | UUID,
        shipping_method: str,
        payment_token: str,
        contact: Contact = ACCOUNT,
    ) -> Self:
        """Return what is asked for with a payment token as it is sent; the order's id salts its digest."""
        return cls(
            destination if isinstance(destination, Address) else None,
            destination if isinstance(destination, UUID) else None,
            shipping_method,
            sha256(order_id.bytes + payment_token.encode()).hexdigest(),
            contact.email,
            contact.locale,
        )


@dataclass(frozen=True, slots=True)
class Payment:
    """What an order knows of its payment; until it is `captured` the amount is only held."""

    payment_id: UUID
    status: PaymentStatus
    brand: str
    last4: str
    captured: bool = True

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
    contact: Contact = ACCOUNT


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
class CancellationRequested:
    """The order shall not be fulfilled, if the parcel can still be stopped."""

    reason: str


@dataclass(frozen=True, slots=True)
class CancellationDropped:
    """The parcel could not be stopped: the order goes on."""


@dataclass(frozen=True, slots=True)
class ShipmentChanged:
    """There is news of the parcel."""

    shipment: Shipment


@dataclass(frozen=True, slots=True)
class Shipped:
    """The carrier has the parcel."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """The buyer has the parcel, since the carrier's `delivered_at`."""

    delivered_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ReturnRequested:
    """The buyer wants to send something back; `refund` is what it would be worth."""

    return_id: UUID
    request_id: str
    items: tuple[ReturnItem, ...]
    reason: str
    refund: Money


@dataclass(frozen=True, slots=True)
class ReturnApproved:
    """A return may come."""

    return_id: UUID
    reason: str


@dataclass(frozen=True, slots=True)
class ReturnRejected:
    """A return is not accepted."""

    return_id: UUID
    reason: str


@dataclass(frozen=True, slots=True)
class ReturnReceived:
    """A return is here, and `refund` is owed for it."""

    return_id: UUID
    reason: str
    refund: Money


@dataclass(frozen=True, slots=True)
class ReturnRefunded:
    """A return was paid back: `amount`, which is less than was owed if others had given money back before."""

    return_id: UUID
    amount: Money


@dataclass(frozen=True, slots=True)
class BuyerChanged:
    """A guest's order belongs to an account now."""

    user_id: UUID


@dataclass(frozen=True, slots=True)
class PersonErased:
    """Nothing is kept any more that tells who bought: what the facts before told of it is gone from them."""


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
    shipment: Shipment | None
    contact: Contact
    cancellation: str | None
    history: tuple[StatusChange, ...]
    created_at: datetime


Fact = (
    Placed
    | StockReserved
    | PaymentSettled
    | Confirmed
    | Cancelled
    | CancellationRequested
    | CancellationDropped
    | ShipmentChanged
    | Shipped
    | Delivered
    | ReturnRequested
    | ReturnApproved
    | ReturnRejected
    | ReturnReceived
    | ReturnRefunded
    | BuyerChanged
    | PersonErased
)
IntegrationEvent = (
    OrderPlaced
    | OrderConfirmed
    | OrderCancelled
    | OrderShipped
    | OrderDelivered
    | OrderReturned
    | OrderReturnRequested
    | OrderReturnDecided
    | OrderBuyerChanged
)


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

    `cancellation` is why it shall be cancelled, while it is not known whether the parcel can be stopped; when
    it can't, the order is `unstoppable`. `saga` is where its process stands, as it was read or saved.
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
    shipment: Shipment | None = None
    contact: Contact = ACCOUNT
    cancellation: str | None = None
    unstoppable: bool = False
    delivered_at: datetime | None = None
    returns: tuple[Return, ...] = ()
    is_erased: bool = False
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
        contact: Contact = ACCOUNT,
        access_token: str = "",
    ) -> Self:
        """Begin an order; it waits for stock, then for its payment.

        `access_token` goes with the mail to a guest, so that she can follow it.
        """
        order = cls(order_id)
        placed = Placed(
            user_id=user_id,
            request_id=request_id,
            lines=lines,
            amounts=amounts,
            shipping_address=shipping_address,
            shipping_method=shipping_method,
            request=request,
            contact=contact,
        )
        order._record(placed, now)
        order.events.append(
            OrderPlaced(
                order_id=order.order_id,
                user_id=user_id,
                items=order._items,
                total_amount=amounts.total,
                email=contact.email,
                locale=contact.locale,
                access_token=access_token,
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
            shipment=self.shipment,
            contact=self.contact,
            cancellation=self.cancellation,
            history=self.history,
            created_at=self.created_at,
        )

    @property
    def _items(self) -> tuple[OrderItem, ...]:
        return tuple(_item(line, line.quantity) for line in self.lines)

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
        known = self.payment
        status = known.status if known else PaymentStatus.SUCCEEDED
        captured = event.captured or (known is not None and known.captured)
        payment = Payment(event.payment_id, status, event.brand, event.last4, captured)
        if payment != self.payment:
            self._settle(payment, event.user_id, now)
        if self.status is Status.PENDING and payment.holds_money:
            self._record(Confirmed(), now)
            self.events.append(
                OrderConfirmed(
                    order_id=self.order_id,
                    user_id=self.user_id,
                    items=self._items,
                    total_amount=self.amounts.total,
                    shipping_address=_event_address(self.shipping_address),
                    shipping_method=self.shipping_method,
                )
            )

    def on_payment_captured(self, event: PaymentCaptured, now: datetime) -> None:
        """Take note that what was held is taken."""
        known = self.payment or Payment(event.payment_id, PaymentStatus.SUCCEEDED, "", "", captured=False)
        if not known.captured:
            self._settle(replace(known, captured=True), event.user_id, now)

    def on_payment_failed(self, event: PaymentFailed, now: datetime) -> None:
        """Cancel for want of payment.

        What was held may lapse before it is taken: then nothing is sent, if the parcel can still be stopped.
        """
        if self.payment is not None and (self.payment.captured or not self.payment.holds_money):
            return
        failed = Payment(event.payment_id, PaymentStatus.FAILED, event.brand, event.last4)
        self._settle(failed, event.user_id, now)
        self._begin_to_cancel(f"payment failed: {event.reason.replace('_', ' ')}", now)

    def on_payment_refunded(self, event: PaymentRefunded, now: datetime) -> None:
        """Take note that money was given back.

        Without any left an order ends: one that still waits for it will get none, and one that is confirmed
        is not sent for nothing, if the parcel can still be stopped.
        """
        status = PaymentStatus.REFUNDED if event.fully_refunded else PaymentStatus.PARTIALLY_REFUNDED
        if self.payment and self.payment.status in (status, PaymentStatus.REFUNDED):
            return
        known = self.payment or Payment(event.payment_id, status, "", "")
        self._settle(replace(known, status=status), event.user_id, now)
        if event.fully_refunded:
            self._begin_to_cancel("payment refunded", now)

    def give_up_on_stock(self, now: datetime) -> None:
        """Cancel because inventory did not answer in time."""
        if self.status is Status.PENDING and not self.stock_reserved:
            self._cancel("stock could not be reserved in time", now)

    def give_up_on_payment(self, now: datetime) -> None:
        """Cancel because the payment did not come to an end in time."""
        if self.status is Status.PENDING:
            self._cancel("payment timed out", now)

    def cancel(self, reason: str, now: datetime) -> None:
        """Cancel on request; what is confirmed only if the parcel can be stopped, which shipping is asked.

        Cancelling twice is the same as once. Raises NotCancellable if the carrier has the parcel.
        """
        if self.status is Status.CANCELLED:
            return
        if self.status not in _CANCELLABLE:
            raise NotCancellable(f"a {self.status} order can't be cancelled")
        self.check_stoppable()
        self._begin_to_cancel(reason, now)

    def check_stoppable(self) -> None:
        """Raise NotCancellable if the carrier has the parcel."""
        if self.unstoppable:
            raise NotCancellable(
                "the parcel is on its way already; once it is delivered you can send it back"
            )

    def _begin_to_cancel(self, reason: str, now: datetime) -> None:
        if self.status is Status.PENDING:
            self._cancel(reason, now)
        elif self.status is Status.CONFIRMED and self.cancellation is None and not self.unstoppable:
            self._record(CancellationRequested(reason), now)

    # What shipping tells: by its answer when it is asked to stop a parcel, and by its events. Those of one
    # topic come in order; late ones change nothing.

    def on_shipment_stopped(self, _: ShipmentStopped, now: datetime) -> None:
        """Cancel, now that no parcel leaves."""
        if self.status is Status.CONFIRMED and self.cancellation is not None:
            self._cancel(self.cancellation, now)

    def on_shipment_under_way(self, _: ShipmentUnderWay, now: datetime) -> None:
        """Go on in spite of the cancellation: the carrier has the parcel."""
        if self.status is Status.CONFIRMED and self.cancellation is not None:
            self._record(CancellationDropped(), now)

    def on_shipment_created(self, event: ShipmentCreated, now: datetime) -> None:
        """Take note of the parcel, unless more is known of it already."""
        created = Shipment(event.carrier, event.tracking_id, ShipmentStatus.CREATED)
        known = self.shipment
        if known is None or (known.status is ShipmentStatus.CREATED and _differs(known, created)):
            self._record(ShipmentChanged(created), now)

    def on_shipment_status_updated(self, event: ShipmentStatusUpdated, now: datetime) -> None:
        """Take note of what became of the parcel: the first scan ships the order, the last delivers it.

        What the carrier brings back to the shop is a return of all that there is.
        """
        status = ShipmentStatus(event.status)
        shipment = Shipment(event.carrier, event.tracking_id, status, event.at)
        known = self.shipment
        if known is None or known.at is None or known.at < event.at:
            self._record(ShipmentChanged(shipment), now)
        if status is ShipmentStatus.STOPPED:
            self.on_shipment_stopped(ShipmentStopped(), now)  # its answer took long, or was lost
        elif status in _WITH_CARRIER and self.status is Status.CONFIRMED:
            self._ship(now)
        if self.status is Status.SHIPPED and status is ShipmentStatus.DELIVERED:
            self._record(Delivered(event.at), now)
            self.events.append(
                OrderDelivered(
                    order_id=self.order_id, user_id=self.user_id, items=self._items, delivered_at=event.at
                )
            )
        elif self.status is Status.SHIPPED and status is ShipmentStatus.RETURNED:
            self._take_back_all(now)

    def _ship(self, now: datetime) -> None:
        if self.cancellation is not None:
            self._record(CancellationDropped(), now)
        self._record(Shipped(), now)
        self.events.append(OrderShipped(order_id=self.order_id, user_id=self.user_id, items=self._items))

    def _take_back_all(self, now: datetime) -> None:
        reason = "the carrier could not deliver it"
        items = tuple(ReturnItem(key, quantity) for key, quantity in self.purchase.quantities.items())
        back = ReturnRequested(
            return_id=new_id(),
            request_id="",
            items=items,
            reason=reason,
            refund=self.purchase.refund({}, items),
        )
        self._record(back, now)
        self._record(ReturnApproved(back.return_id, reason), now)
        self._receive(self.return_(back.return_id), reason, now)

    # Returns: requested by the buyer, decided by staff, received by the warehouse, refunded by payment.

    @property
    def purchase(self) -> Purchase:
        """What was bought, as far as a refund has to know it."""
        bought: Counter[UUID] = Counter()
        for line in self.lines:
            bought[line.variant_id] += line.quantity
        prices = {line.variant_id: line.price for line in self.lines}
        return Purchase(bought, prices, self.amounts.shipping, self.amounts.tax)

    def return_(self, return_id: UUID) -> Return:
        """Return one of the order's returns. Raises ReturnNotFound."""
        for each in self.returns:
            if each.return_id == return_id:
                return each
        raise ReturnNotFound(f"return {return_id} of order {self.order_id} not found")

    @property
    def _came_back(self) -> Mapping[UUID, int]:
        """How many of each variant are with the shop again."""
        return quantities(item for each in self.returns if each.status in CAME_BACK for item in each.items)

    @property
    def is_to_be_captured(self) -> bool:
        """Whether what is held for it is to be taken, since the parcel has left."""
        has_left = self.status in (Status.SHIPPED, Status.DELIVERED, Status.RETURNED)
        return (
            has_left and self.payment is not None and self.payment.holds_money and not self.payment.captured
        )

    @property
    def unpaid_returns(self) -> tuple[Return, ...]:
        """What came back and is still to be refunded."""
        return tuple(each for each in self.returns if each.status is ReturnStatus.RECEIVED)

    def request_return(
        self, request_id: str, request: ReturnRequest, window: timedelta, now: datetime
    ) -> Return:
        """Ask to send items back within `window` of their delivery; the same request id asks once.

        Raises:
            NotReturnable, ReturnWindowClosed, TooManyReturns: see stoa_order.returns.
            InvalidArgument: something is not in the order, or not so many of it.
            RequestIdReused: something else is asked for.
        """
        for each in self.returns:
            if each.request_id == request_id:
                check_same_request(each.request, request)
                return each
        if self.delivered_at is None:
            raise NotReturnable(f"a {self.status} order can't be sent back, only one that was delivered")
        if now > (closed := self.delivered_at + window):
            raise ReturnWindowClosed(
                f"the order could be sent back until {closed:%Y-%m-%d}",
                metadata={"until": closed.isoformat()},
            )
        if len(self.returns) >= _MOST_RETURNS:
            raise TooManyReturns(f"an order has at most {_MOST_RETURNS} returns")
        open_ = quantities(
            item for each in self.returns if each.status is not ReturnStatus.REJECTED for item in each.items
        )
        self.purchase.check(request.items, open_)
        requested = ReturnRequested(
            return_id=new_id(),
            request_id=request_id,
            items=request.items,
            reason=request.reason,
            refund=self.purchase.refund(open_, request.items),
        )
        self._record(requested, now)
        made = self.return_(requested.return_id)
        self.events.append(OrderReturnRequested(**self._told(made), reason=made.reason))
        return made

    def approve_return(self, return_id: UUID, reason: str, now: datetime) -> Return:
        """Let a return come. Raises ReturnNotFound, and ReturnDecided if it was rejected."""
        known = self.return_(return_id)
        if known.status is ReturnStatus.REQUESTED:
            self._record(ReturnApproved(return_id, reason), now)
            self._tell_decision(return_id)
        elif known.status is ReturnStatus.REJECTED:
            raise _not_open(known, "approved")
        return self.return_(return_id)

    def reject_return(self, return_id: UUID, reason: str, now: datetime) -> Return:
        """Refuse a return. Raises ReturnNotFound, and ReturnDecided if it was received."""
        known = self.return_(return_id)
        if known.status in (ReturnStatus.REQUESTED, ReturnStatus.APPROVED):
            self._record(ReturnRejected(return_id, reason), now)
            self._tell_decision(return_id)
        elif known.status is not ReturnStatus.REJECTED:
            raise _not_open(known, "rejected")
        return self.return_(return_id)

    def receive_return(self, return_id: UUID, reason: str, now: datetime) -> Return:
        """Take note that a return is here; it is refunded then.

        Raises ReturnNotFound, and ReturnDecided unless it was approved.
        """
        known = self.return_(return_id)
        if known.status is ReturnStatus.APPROVED:
            self._receive(known, reason, now)
        elif known.status not in CAME_BACK:
            raise _not_open(known, "received")
        return self.return_(return_id)

    def on_return_refunded(self, made: ReturnRefundMade, now: datetime) -> None:
        """Take note that a return was paid back."""
        if self.return_(made.return_id).status is ReturnStatus.RECEIVED:
            self._record(ReturnRefunded(made.return_id, made.amount), now)

    def _receive(self, known: Return, reason: str, now: datetime) -> None:
        refund = self.purchase.refund(self._came_back, known.items)
        self._record(ReturnReceived(known.return_id, reason, refund), now)
        self.events.append(
            OrderReturned(
                order_id=self.order_id,
                user_id=self.user_id,
                items=self._items_of(known),
                return_id=known.return_id,
                refund_amount=refund,
            )
        )

    def _tell_decision(self, return_id: UUID) -> None:
        decided = self.return_(return_id)
        self.events.append(OrderReturnDecided(**self._told(decided), reason=decided.decision))

    def _told(self, made: Return) -> dict[str, Any]:
        return {
            "order_id": self.order_id,
            "user_id": self.user_id,
            "return_id": made.return_id,
            "status": made.status.value,
            "items": self._items_of(made),
            "refund_amount": made.refund,
        }

    def _items_of(self, made: Return) -> tuple[OrderItem, ...]:
        lines = {line.variant_id: line for line in self.lines}
        return tuple(_item(lines[item.variant_id], item.quantity) for item in made.items)

    # Whose order it is.

    def change_buyer(self, user_id: UUID, now: datetime) -> None:
        """Let an order that a guest placed belong to an account, which is written to from then on."""
        if user_id != self.user_id:
            guest_id = self.user_id
            self._record(BuyerChanged(user_id), now)
            self._tell_buyer_changed(guest_id)

    def erase_person(self, now: datetime) -> None:
        """Forget who bought, and where it went.

        One that is pending is cancelled, since nobody would know where to send it; what is confirmed is with
        shipping, which has been told.
        """
        if self.is_erased:
            return
        if self.status is Status.PENDING:
            self._cancel("the account was deleted", now)
        self._record(PersonErased(), now)

    def _cancel(self, reason: str, now: datetime) -> None:
        self._record(Cancelled(reason), now)
        self.events.append(
            OrderCancelled(
                order_id=self.order_id,
                user_id=self.user_id,
                items=self._items,
                total_amount=self.amounts.total,
                reason=reason,
            )
        )

    def _settle(self, payment: Payment, payer_id: UUID, now: datetime) -> None:
        self._record(PaymentSettled(payment), now)
        if payer_id != self.user_id:
            # It was asked for just when the order became another's: who heard of that had no payment yet.
            self._tell_buyer_changed(payer_id)

    def _tell_buyer_changed(self, guest_id: UUID) -> None:
        self.events.append(OrderBuyerChanged(order_id=self.order_id, guest_id=guest_id, user_id=self.user_id))

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
                self.contact = placed.contact
                self._enter(Status.PENDING, "", recorded.at)
            case StockReserved():
                self.stock_reserved = True
            case PaymentSettled(payment):
                self.payment = payment
            case Confirmed():
                self._enter(Status.CONFIRMED, "", recorded.at)
            case Cancelled(reason):
                self.cancellation = None
                self._enter(Status.CANCELLED, reason, recorded.at)
            case CancellationRequested(reason):
                self.cancellation = reason
            case CancellationDropped():
                self.cancellation = None
                self.unstoppable = True
            case ShipmentChanged(shipment):
                self.shipment = shipment
            case Shipped():
                self._enter(Status.SHIPPED, "", recorded.at)
            case Delivered(delivered_at):
                self.delivered_at = delivered_at
                self._enter(Status.DELIVERED, "", recorded.at)
            case BuyerChanged(user_id):
                # The account may have sent the same request id; none that is sent has a blank.
                self.request_id = f"{self.user_id} {self.request_id}"
                self.user_id = user_id
                self.contact = ACCOUNT
            case PersonErased():
                self._forget_person()
            case fact:
                self._apply_return(fact, recorded.at)

    def _apply_return(
        self,
        fact: ReturnRequested | ReturnApproved | ReturnRejected | ReturnReceived | ReturnRefunded,
        at: datetime,
    ) -> None:
        match fact:
            case ReturnRequested():
                made = Return(
                    return_id=fact.return_id,
                    request_id=fact.request_id,
                    status=ReturnStatus.REQUESTED,
                    items=fact.items,
                    reason=fact.reason,
                    refund=fact.refund,
                    created_at=at,
                )
                self.returns = (*self.returns, made)
            case ReturnApproved(return_id, reason):
                self._change_return(return_id, status=ReturnStatus.APPROVED, decision=reason)
            case ReturnRejected(return_id, reason):
                self._change_return(return_id, status=ReturnStatus.REJECTED, decision=reason)
            case ReturnReceived(return_id, reason, refund):
                decision = reason or self.return_(return_id).decision
                self._change_return(return_id, status=ReturnStatus.RECEIVED, decision=decision, refund=refund)
                if self._came_back == self.purchase.quantities:
                    self._enter(Status.RETURNED, "", at)
            case ReturnRefunded(return_id, amount):
                self._change_return(return_id, status=ReturnStatus.REFUNDED, refund=amount)

    def _change_return(self, return_id: UUID, **changes: Any) -> None:
        self.returns = tuple(
            replace(each, **changes) if each.return_id == return_id else each for each in self.returns
        )

    def _forget_person(self) -> None:
        self.is_erased = True
        self.shipping_address = self.shipping_address.without_person
        self.request = None
        self.contact = ACCOUNT
        if self.cancellation is not None:
            self.cancellation = ""
        self.history = tuple(replace(change, reason="") for change in self.history)
        self.returns = tuple(replace(each, reason="", decision="") for each in self.returns)

    def _enter(self, status: Status, reason: str, at: datetime) -> None:
        self.status = status
        self.history = (*self.history, StatusChange(status, reason, at))


def _item(line: Line, quantity: int) -> OrderItem:
    return OrderItem(
        product_id=line.product_id,
        variant_id=line.variant_id,
        quantity=quantity,
        price=line.price,
        name=line.name,
    )


def _differs(known: Shipment, other: Shipment) -> bool:
    return (known.carrier, known.tracking_id) != (other.carrier, other.tracking_id)


def _not_open(known: Return, wanted: str) -> ReturnDecided:
    return ReturnDecided(
        f"a return that is {known.status} can't be {wanted}", metadata={"status": known.status.value}
    )


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

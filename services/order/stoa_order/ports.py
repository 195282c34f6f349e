"""What the use cases of orders need from outside."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from stoa_contracts.money import Money
from stoa_order.model import (
    Address,
    CartClaim,
    CartLine,
    Checkout,
    Offer,
    Order,
    OrderView,
    ReturnRefundMade,
    Saga,
    ShipmentStopped,
    ShipmentUnderWay,
    Withdrawn,
)
from stoa_order.returns import Return, ReturnView


class RequestTaken(Exception):
    """The buyer's request id led to an order already."""


class Orders(Protocol):
    """The orders, to decide on them."""

    async def get(self, order_id: UUID) -> Order:
        """Make an order of its recorded facts, with the saga that it has. Raises OrderNotFound."""
        ...

    async def save(self, order: Order, saga: Saga | None) -> None:
        """Append what is new of an order, store its saga (or that it has none), and publish its events.

        An order of which nothing is new is left as it is. Raises LostRace if somebody else changed it since
        it was read, and RequestTaken. Of an order whose person was erased the facts before are changed, so
        that they tell nobody any more who that was.
        """
        ...

    async def of_buyer(self, user_id: UUID) -> Sequence[UUID]:
        """Return the ids of all orders that belong to a user, oldest first."""
        ...

    async def of_address(self, email: str) -> Sequence[UUID]:
        """Return the ids of the guests' orders about which this address is written to, oldest first."""
        ...


class Guests(Protocol):
    """Who has become of guests. Two transactions that touch the same guest come one after the other."""

    async def account_of(self, guest_id: UUID) -> UUID | None:
        """Return the account that a guest has become, if she has."""
        ...

    async def merge(self, guest_id: UUID, user_id: UUID) -> None:
        """Note that a guest has become an account; the first one counts."""
        ...


@dataclass(frozen=True, slots=True)
class Tx:
    """What a use case sees of a transaction."""

    orders: Orders
    guests: Guests


class OrderViews(Protocol):
    """The orders, as they are shown: as they are, unless a method says that it may lag behind by seconds."""

    async def get(self, order_id: UUID) -> OrderView | None:
        """Read one order, if it was placed."""
        ...

    async def by_request(self, user_id: UUID, request_id: str) -> Order | None:
        """Read the order that a buyer's request led to, if it did, with what was asked for."""
        ...

    async def list(
        self, *, user_id: UUID | None, status: str | None, before: UUID | None, limit: int
    ) -> Sequence[OrderView]:
        """Read orders, newest first, that come after `before` in that order.

        May lag, but for the first page of a user's: who has just ordered looks there.
        """
        ...

    async def returns_of(self, order_id: UUID, *, after: UUID | None, limit: int) -> Sequence[Return]:
        """Read the returns of an order, oldest first, that come after `after` in that order."""
        ...

    async def returns(self, *, status: str | None, before: UUID | None, limit: int) -> Sequence[ReturnView]:
        """Read the returns of all orders, newest first, that come after `before` in that order. May lag."""
        ...


class Carts(Protocol):
    """What is in a buyer's cart."""

    async def checkout(self, user_id: UUID, request_id: str) -> Checkout:
        """Return the cart at the prices that the owner last saw, as a request to place an order finds it."""
        ...

    async def claim(self, user_id: UUID, request_id: str, order_id: UUID, version: str) -> CartClaim:
        """Take out what is in the cart for an order that is about to be placed.

        The same request gets the order that it claimed for first. Raises RemoteError with the reason
        CART_EMPTY, or CART_CHANGED if the cart is of another version.
        """
        ...

    async def release(self, user_id: UUID, order_id: UUID) -> None:
        """Give back what was claimed for an order that will not be placed."""
        ...


class Catalog(Protocol):
    """What things cost today."""

    async def offers(self, variant_ids: Sequence[UUID]) -> Sequence[Offer | Withdrawn]:
        """Return today's offers, and what is known of variants that are not on sale."""
        ...


class AddressBook(Protocol):
    """The addresses that users keep."""

    async def address(self, user_id: UUID, address_id: UUID) -> Address:
        """Return one of a user's addresses. Raises InvalidArgument if there is none that can be sent to."""
        ...


class Quotes(Protocol):
    """What shipping asks for a parcel."""

    async def quote(self, lines: Sequence[CartLine], address: Address, shipping_method: str) -> Money | None:
        """Return what shipping quotes; None if it does not answer soon.

        Raises InvalidArgument if nobody brings it there so, RemoteError if nobody brings it at all.
        """
        ...


class Shipments(Protocol):
    """What the saga asks of shipping. It may ask again at any time: the outcome is the same."""

    async def stop(self, order: Order) -> ShipmentStopped | ShipmentUnderWay:
        """See to it that no parcel of the order leaves the warehouse, now or later."""
        ...


class Payments(Protocol):
    """What the saga asks of payment. It may ask again at any time: the outcome is the same."""

    async def charge(self, order: Order, payment_token: str) -> None:
        """Charge the order's total. The outcome comes as an event."""
        ...

    async def capture(self, order: Order) -> None:
        """Take what is held for the order. The outcome comes as an event."""
        ...

    async def refund(self, order: Order) -> None:
        """Give back all that is left of the order's payment. The outcome comes as an event."""
        ...

    async def refund_return(self, order: Order, return_: Return) -> ReturnRefundMade | None:
        """Give back what is owed for a return, or what is left if that is less; None while it is not made."""
        ...


@dataclass(frozen=True, slots=True)
class Peers:
    """Whom the saga asks."""

    payments: Payments
    shipments: Shipments

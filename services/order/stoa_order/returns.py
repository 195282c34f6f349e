"""What comes back of an order: who wants to send what back, what was decided, and what it is worth.

A return goes through requested → approved → received → refunded; it may be rejected until it is received.
What was received is refunded with its share of the tax, and the last of an order with what shipping cost.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from enum import StrEnum
from uuid import UUID

from stoa_chassis.errors import FailedPrecondition, InvalidArgument, NotFound, subscript
from stoa_contracts.money import Money


class ReturnNotFound(NotFound):
    """The order has no such return."""

    reason = "RETURN_NOT_FOUND"


class NotReturnable(FailedPrecondition):
    """The buyer does not have the order yet, or has none of it any more."""

    reason = "ORDER_NOT_RETURNABLE"


class ReturnWindowClosed(FailedPrecondition):
    """The order was delivered too long ago; the metadata says until when it could be sent back."""

    reason = "RETURN_WINDOW_CLOSED"


class TooManyReturns(FailedPrecondition):
    """The order has as many returns as it may have."""

    reason = "TOO_MANY_RETURNS"


class ReturnDecided(FailedPrecondition):
    """The return stands where this can't be done any more, or not yet; the metadata has its status."""

    reason = "RETURN_NOT_OPEN"


class ReturnStatus(StrEnum):
    """Where a return stands."""

    REQUESTED = "requested"
    APPROVED = "approved"
    REJECTED = "rejected"
    RECEIVED = "received"
    REFUNDED = "refunded"


CAME_BACK = (ReturnStatus.RECEIVED, ReturnStatus.REFUNDED)
"""What is returned is with the shop again."""


@dataclass(frozen=True, slots=True)
class ReturnItem:
    """How many of a variant are sent back."""

    variant_id: UUID
    quantity: int


@dataclass(frozen=True, slots=True)
class ReturnRequest:
    """What a request to send something back asks for, by the names of its fields."""

    items: tuple[ReturnItem, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Return:
    """Items of an order that are sent back.

    `refund` is what is given back for them: foreseen until they are received, settled then. `decision` is why
    they were approved or rejected, or how they arrived.
    """

    return_id: UUID
    request_id: str
    status: ReturnStatus
    items: tuple[ReturnItem, ...]
    reason: str
    refund: Money
    created_at: datetime
    decision: str = ""

    @property
    def request(self) -> ReturnRequest:
        """What was asked for."""
        return ReturnRequest(self.items, self.reason)


@dataclass(frozen=True, slots=True)
class ReturnView:
    """A return as it is shown, with the order that it is of."""

    order_id: UUID
    return_: Return


@dataclass(frozen=True, slots=True)
class Purchase:
    """What was bought, as far as a refund has to know it: of each variant how many, and the price of one."""

    quantities: Mapping[UUID, int]
    prices: Mapping[UUID, Money]
    shipping: Money
    tax: Money

    def owed(self, came_back: Mapping[UUID, int]) -> Money:
        """Return what is to be given back in all when so much of it came back.

        Tax goes by the share of the price, rounded half up to the cent. The refund of a return is what is
        owed with it less what was owed before, so that refunds add up to what was paid, to the cent.
        """
        whole = self._price(self.quantities)
        price = self._price(came_back)
        if price == whole:
            return whole + self.tax + self.shipping
        share = (self.tax.amount * price.amount / whole.amount).quantize(Decimal("0.01"), ROUND_HALF_UP)
        return price + Money(share, price.currency)

    def refund(self, before: Mapping[UUID, int], items: Iterable[ReturnItem]) -> Money:
        """Return what is given back for some items when so much came back before."""
        return self.owed(quantities(items, before)) - self.owed(before)

    def check(self, items: Sequence[ReturnItem], returned: Mapping[UUID, int]) -> None:
        """Check that items can be sent back when so many are, or are to be, sent back already.

        Raises InvalidArgument, which names the item.
        """
        seen: set[UUID] = set()
        for position, item in enumerate(items):
            path = f"items{subscript(position)}"
            if item.variant_id in seen:
                raise InvalidArgument(f"{path}.variant_id", "is there already: give each variant once")
            seen.add(item.variant_id)
            if item.variant_id not in self.quantities:
                raise InvalidArgument(f"{path}.variant_id", "is not in the order")
            left = self.quantities[item.variant_id] - returned.get(item.variant_id, 0)
            if item.quantity > left:
                told = f"only {left} of it can" if left else "nothing of it can"
                raise InvalidArgument(f"{path}.quantity", f"{told} still be sent back")

    def _price(self, of: Mapping[UUID, int]) -> Money:
        zero = Money.zero(self.tax.currency)
        return sum((self.prices[variant_id] * quantity for variant_id, quantity in of.items()), zero)


def quantities(items: Iterable[ReturnItem], more: Mapping[UUID, int] | None = None) -> Mapping[UUID, int]:
    """Add up how many of each variant there are, with `more`."""
    total: Counter[UUID] = Counter(more)
    for item in items:
        total[item.variant_id] += item.quantity
    return total

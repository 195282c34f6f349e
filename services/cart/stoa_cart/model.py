"""Carts: what may be put into one, and what it costs.

A cart shows prices, and its owner orders at the prices shown: a line's price is the one that its owner last
saw. `Cart.see` brings the lines up to date, and is called whenever the cart goes to its owner. The order
service compares the prices seen with today's, so that a price that changed since is an error at checkout, and
another look at the cart resolves it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from stoa_chassis.errors import Aborted, FailedPrecondition, InvalidArgument, NotFound
from stoa_chassis.ids import new_id
from stoa_contracts.money import Money
from stoa_events import CartItemAdded, OrderPlaced

MAX_QUANTITY = 999
MAX_LINES = 100
# In the currency of the shop. Leaves room for tax and shipping below what the stores hold.
MAX_SUBTOTAL = Decimal(1_000_000_000)


class ItemNotFound(NotFound):
    """There is no such line in the cart."""

    reason = "CART_ITEM_NOT_FOUND"


class CartFull(FailedPrecondition):
    """The cart has as many lines as it may have."""

    reason = "CART_FULL"


class OutOfStock(FailedPrecondition):
    """There are fewer in stock than the cart would hold; the metadata says how many."""

    reason = "OUT_OF_STOCK"


class CartBusy(Aborted):
    """Others kept changing the cart at the same moment; ask again."""

    reason = "CART_BUSY"


@dataclass(frozen=True, slots=True)
class Offer:
    """What a variant is sold for today."""

    product_id: UUID
    variant_id: UUID
    price: Money


@dataclass(frozen=True, slots=True)
class Item:
    """One line: a variant, how many of it, and what one costs as its owner last saw it."""

    item_id: UUID
    product_id: UUID
    variant_id: UUID
    quantity: int
    price: Money


@dataclass(slots=True)
class Cart:
    """What a user means to buy: each variant on one line, in the order they were put in.

    `currency` is the shop's, in which the catalogue prices everything.
    """

    user_id: UUID
    currency: str
    items: list[Item] = field(default_factory=list)
    updated_at: datetime | None = None
    events: list[CartItemAdded] = field(default_factory=list, compare=False)

    @property
    def subtotal(self) -> Money:
        """The sum of price times quantity."""
        return Money(_cost(self.items), self.currency)

    def item(self, item_id: UUID) -> Item:
        """Return a line. Raises ItemNotFound."""
        for item in self.items:
            if item.item_id == item_id:
                return item
        raise ItemNotFound(f"item {item_id} is not in the cart")

    def see(self, prices: Mapping[UUID, Money]) -> None:
        """Take over the prices of now, by variant; a line whose variant is not among them keeps its own.

        A price that would make the cart too expensive to be summed up is left unseen, so that it stops the
        checkout.
        """
        for position, item in enumerate(self.items):
            if (price := prices.get(item.variant_id, item.price)) != item.price:
                seen = [*self.items]
                seen[position] = replace(item, price=price)
                if _cost(seen) <= MAX_SUBTOTAL:
                    self.items = seen

    def add(self, offer: Offer, quantity: int, available: int, at: datetime) -> None:
        """Put a variant in; one that is there already gets the sum, at the price of now.

        Raises:
            InvalidArgument: that would be too many, or too expensive.
            CartFull: there is no line left for another variant.
            OutOfStock: fewer than that are `available`.
        """
        there = next((item for item in self.items if item.variant_id == offer.variant_id), None)
        if there is None:
            if len(self.items) >= MAX_LINES:
                raise CartFull(f"a cart holds at most {MAX_LINES} different items")
            line = Item(new_id(), offer.product_id, offer.variant_id, quantity, offer.price)
            items = [*self.items, line]
        else:
            line = replace(there, quantity=there.quantity + quantity, price=offer.price)
            items = [line if item is there else item for item in self.items]
        self._put(items, line, available, at)
        self.events.append(
            CartItemAdded(
                user_id=self.user_id,
                product_id=offer.product_id,
                variant_id=offer.variant_id,
                quantity=quantity,
                price=offer.price,
            )
        )

    def set_quantity(self, item_id: UUID, quantity: int, available: int, at: datetime) -> None:
        """Change how many of a line there shall be.

        Raises:
            ItemNotFound: there is no such line.
            InvalidArgument: that would be too many, or too expensive.
            OutOfStock: fewer than that are `available`.
        """
        there = self.item(item_id)
        line = replace(there, quantity=quantity)
        self._put([line if item is there else item for item in self.items], line, available, at)

    def remove(self, item_id: UUID, at: datetime) -> None:
        """Take a line out, if it is there."""
        self._keep((item for item in self.items if item.item_id != item_id), at)

    def on_order_placed(self, order: OrderPlaced, at: datetime) -> None:
        """Take out what was ordered; what was added since stays."""
        rest = list(self.items)
        for line in order.items:
            rest = [
                replace(item, quantity=item.quantity - line.quantity)
                if item.variant_id == line.variant_id
                else item
                for item in rest
            ]
        self._keep((item for item in rest if item.quantity > 0), at)

    def _put(self, items: list[Item], line: Item, available: int, at: datetime) -> None:
        if not 0 < line.quantity <= MAX_QUANTITY:
            raise InvalidArgument(
                "item.quantity", f"would make {line.quantity} of this in the cart; 1 to {MAX_QUANTITY} can be"
            )
        if line.quantity > available:
            raise OutOfStock(
                f"only {available} in stock",
                metadata={
                    "variant_id": str(line.variant_id),
                    "requested": str(line.quantity),
                    "available": str(available),
                },
            )
        if _cost(items) > MAX_SUBTOTAL:
            most = Money(MAX_SUBTOTAL, self.currency)
            raise InvalidArgument("item.quantity", f"would make the cart cost more than {most}")
        self._keep(items, at)

    def _keep(self, items: Iterable[Item], at: datetime) -> None:
        kept = list(items)
        if kept != self.items:
            self.items, self.updated_at = kept, at


def _cost(items: Iterable[Item]) -> Decimal:
    return sum((item.price.amount * item.quantity for item in items), Decimal(0))

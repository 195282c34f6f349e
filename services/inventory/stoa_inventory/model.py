"""Stock: how many of a variant there are, how many are promised, and what an order may take."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from stoa_chassis.errors import AlreadyExists, FailedPrecondition, NotFound
from stoa_events import (
    InventoryLowStock,
    InventoryOutOfStock,
    InventoryOutOfStockItem,
    InventoryReserved,
    InventoryReservedItem,
)

_MAX = 2**31 - 1  # what a column and a message hold


class VariantNotFound(NotFound):
    """Nobody has ever sold such a variant."""

    reason = "VARIANT_NOT_FOUND"


class StockReserved(FailedPrecondition):
    """The stock can't go below what is promised to orders; the metadata says how much that is."""

    reason = "STOCK_RESERVED"


class StockTooLarge(FailedPrecondition):
    """No warehouse holds that many."""

    reason = "STOCK_TOO_LARGE"


class RequestReused(AlreadyExists):
    """The request id was used for another adjustment."""

    reason = "REQUEST_ID_REUSED"


class NotReserved(FailedPrecondition):
    """Goods are said to have left, or to be back, for an order that has none here; a person has to look."""

    reason = "NOT_RESERVED"


class HoldStatus(StrEnum):
    """What became of an order's hold on stock."""

    HELD = "held"
    REFUSED = "refused"
    RELEASED = "released"
    SHIPPED = "shipped"
    RETURNED = "returned"


@dataclass(frozen=True, slots=True)
class Wanted:
    """How many of a variant an order wants."""

    product_id: UUID
    variant_id: UUID
    quantity: int


@dataclass(frozen=True, slots=True)
class Change:
    """A change of a variant's counts, and why."""

    variant_id: UUID
    kind: str
    stock: int = 0
    reserved: int = 0


@dataclass(slots=True)
class Stock:
    """The stock of a variant. What can still be promised is the stock less what is reserved."""

    variant_id: UUID
    product_id: UUID
    stock_count: int = 0
    reserved_count: int = 0
    threshold: int = 5

    @property
    def available(self) -> int:
        """How many can still be promised."""
        return self.stock_count - self.reserved_count

    @property
    def is_low(self) -> bool:
        """Whether somebody should order more."""
        return self.available < self.threshold

    def adjust(self, delta: int) -> Change:
        """Count more of them, or fewer.

        Raises:
            StockReserved: fewer would be left than are promised.
            StockTooLarge: the count does not fit.
        """
        if self.stock_count + delta < self.reserved_count:
            raise StockReserved(
                f"{self.reserved_count} of {self.stock_count} are promised to orders",
                metadata={"stock_count": str(self.stock_count), "reserved_count": str(self.reserved_count)},
            )
        if self.stock_count + delta > _MAX:
            raise StockTooLarge(f"the stock can't be more than {_MAX}")
        return self.apply(Change(self.variant_id, "adjusted", stock=delta))

    def apply(self, change: Change) -> Change:
        """Change the counts."""
        self.stock_count += change.stock
        self.reserved_count += change.reserved
        return change


def low_stock(stock: Stock) -> InventoryLowStock:
    """Say that somebody should order more."""
    return InventoryLowStock(
        variant_id=stock.variant_id,
        product_id=stock.product_id,
        available=stock.available,
        threshold=stock.threshold,
    )


def sum_up(wanted: Iterable[Wanted]) -> Sequence[Wanted]:
    """Make one of several lines with the same variant, by variant id: the order in which stock is locked."""
    sums: dict[UUID, Wanted] = {}
    for line in wanted:
        so_far = sums.get(line.variant_id)
        quantity = line.quantity + (so_far.quantity if so_far else 0)
        sums[line.variant_id] = Wanted(line.product_id, line.variant_id, quantity)
    return [sums[variant_id] for variant_id in sorted(sums)]


def reserve(
    order_id: UUID, wanted: Sequence[Wanted], stocks: Mapping[UUID, Stock]
) -> tuple[list[Change], InventoryReserved | InventoryOutOfStock]:
    """Promise an order all that it wants, or nothing.

    `wanted` is summed up, `stocks` are those of its variants that exist. Returns the changes, which are made
    to the stocks, and what the others must hear; there are no changes if something lacks.
    """
    lacking = [
        (line, available)
        for line in wanted
        if (available := stocks[line.variant_id].available if line.variant_id in stocks else 0)
        < line.quantity
    ]
    if lacking:
        return [], InventoryOutOfStock(
            order_id=order_id,
            items=tuple(
                InventoryOutOfStockItem(
                    product_id=line.product_id,
                    variant_id=line.variant_id,
                    requested=line.quantity,
                    available=available,
                )
                for line, available in lacking
            ),
        )
    changes = [
        stocks[line.variant_id].apply(Change(line.variant_id, "reserved", reserved=line.quantity))
        for line in wanted
    ]
    return changes, InventoryReserved(
        order_id=order_id,
        items=tuple(
            InventoryReservedItem(
                product_id=line.product_id, variant_id=line.variant_id, quantity=line.quantity
            )
            for line in wanted
        ),
    )


def release(variant_id: UUID, quantity: int) -> Change:
    """Take back a promise."""
    return Change(variant_id, "released", reserved=-quantity)


def ship(variant_id: UUID, quantity: int) -> Change:
    """Turn a promise into goods that left."""
    return Change(variant_id, "shipped", stock=-quantity, reserved=-quantity)


def take_back(variant_id: UUID, quantity: int) -> Change:
    """Put goods that came back on the shelf."""
    return Change(variant_id, "returned", stock=quantity)


def returnable(came_back: Iterable[Wanted], out: Mapping[UUID, int]) -> dict[UUID, int]:
    """Tell how many of each variant go back on the shelf: what came back, but no more than is out there."""
    counts = {line.variant_id: min(line.quantity, out.get(line.variant_id, 0)) for line in sum_up(came_back)}
    return {variant_id: count for variant_id, count in counts.items() if count > 0}

"""Stock: how many of a variant there are, how many are promised, and what an order may take."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Self
from uuid import UUID

from stoa_chassis.errors import FailedPrecondition, NotFound
from stoa_events import (
    InventoryAvailabilityChanged,
    InventoryLowStock,
    InventoryOutOfStock,
    InventoryOutOfStockItem,
    InventoryReserved,
    InventoryReservedItem,
)

_MAX = 1_000_000_000  # leaves room, in what a column and a message hold, for all that may come back


class VariantNotFound(NotFound):
    """Nobody has ever sold such a variant."""

    reason = "VARIANT_NOT_FOUND"


class StockReserved(FailedPrecondition):
    """The stock can't go below what is promised to orders, or zero; the metadata says how much that is."""

    reason = "STOCK_RESERVED"


class StockTooLarge(FailedPrecondition):
    """No warehouse holds that many."""

    reason = "STOCK_TOO_LARGE"


class VariantWithdrawn(FailedPrecondition):
    """The variant was sold and is not any more: nobody counts it."""

    reason = "VARIANT_WITHDRAWN"


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


class MovementKind(StrEnum):
    """Why the counts of a variant changed."""

    ADJUSTED = "adjusted"
    RESERVED = "reserved"
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
class Adjustment:
    """What somebody who counted says: how many more there are (fewer, if negative), and why."""

    delta: int
    reason: str


@dataclass(frozen=True, slots=True)
class Movement:
    """A change of a variant's counts, the counts after it, and what caused it: an order, or a request."""

    variant_id: UUID
    kind: MovementKind
    stock_delta: int
    reserved_delta: int
    stock_after: int
    reserved_after: int
    order_id: UUID | None
    request_id: str | None
    reason: str
    at: datetime


@dataclass(slots=True)
class Stock:
    """The stock of a variant. What can still be promised is the stock less what is reserved.

    What is not sold any more (`on_sale`) is not counted and never low, but orders that have it keep it.
    `announced` is whether it can be bought as it was last published, in the version `availability_version`.
    `movements` are the changes since it was read: its counts are the sums of all its movements.
    """

    variant_id: UUID
    product_id: UUID
    stock_count: int
    reserved_count: int
    threshold: int
    updated_at: datetime
    on_sale: bool = True
    announced: bool = False
    availability_version: int = 0
    movements: list[Movement] = field(default_factory=list, compare=False)
    events: list[InventoryLowStock | InventoryAvailabilityChanged] = field(
        default_factory=list, compare=False
    )

    @property
    def available(self) -> int:
        """How many can still be promised."""
        return self.stock_count - self.reserved_count

    @property
    def in_stock(self) -> bool:
        """Whether it can be bought."""
        return self.on_sale and self.available > 0

    @property
    def is_low(self) -> bool:
        """Whether somebody should order more."""
        return self.on_sale and self.available < self.threshold

    def sell(self, on_sale: bool, now: datetime) -> bool:
        """Take note of whether the variant is sold; tell whether that is a change."""
        if on_sale == self.on_sale:
            return False
        was_low, self.on_sale = self.is_low, on_sale
        self.updated_at = now
        self._note_if_low(was_low)
        self.announce()
        return True

    def announce(self) -> None:
        """Publish whether it can be bought, if that was last published otherwise."""
        if self.in_stock == self.announced:
            return
        self.announced = self.in_stock
        self.availability_version += 1
        self.events.append(
            InventoryAvailabilityChanged(
                variant_id=self.variant_id,
                product_id=self.product_id,
                in_stock=self.announced,
                version=self.availability_version,
            )
        )

    def adjust(self, adjustment: Adjustment, request_id: str, now: datetime) -> None:
        """Count more of them, or fewer.

        Raises:
            VariantWithdrawn: it is not sold any more.
            StockReserved: fewer would be left than are promised.
            StockTooLarge: the count does not fit.
        """
        self._check_on_sale()
        delta = adjustment.delta
        if self.stock_count + delta < self.reserved_count:
            promised = (
                f", of which {self.reserved_count} are promised to orders" if self.reserved_count else ""
            )
            raise StockReserved(
                f"{-delta} can't be taken away: there are {self.stock_count} in stock{promised}",
                metadata={"stock_count": str(self.stock_count), "reserved_count": str(self.reserved_count)},
            )
        if delta > 0 and self.stock_count + delta > _MAX:
            raise StockTooLarge(f"the stock can't be more than {_MAX:,}")
        self._move(MovementKind.ADJUSTED, now, stock=delta, request_id=request_id, reason=adjustment.reason)

    def set_threshold(self, threshold: int, now: datetime) -> None:
        """Set below how many available it counts as low. Raises VariantWithdrawn."""
        self._check_on_sale()
        was_low, self.threshold = self.is_low, threshold
        self.updated_at = now
        self._note_if_low(was_low)

    def reserve(self, quantity: int, order_id: UUID, now: datetime) -> None:
        """Promise some to an order; that there are as many was made sure of."""
        self._move(MovementKind.RESERVED, now, reserved=quantity, order_id=order_id)

    def release(self, quantity: int, order_id: UUID, now: datetime) -> None:
        """Take back a promise."""
        self._move(MovementKind.RELEASED, now, reserved=-quantity, order_id=order_id)

    def ship(self, quantity: int, order_id: UUID, now: datetime) -> None:
        """Turn a promise into goods that left."""
        self._move(MovementKind.SHIPPED, now, stock=-quantity, reserved=-quantity, order_id=order_id)

    def take_back(self, quantity: int, order_id: UUID, now: datetime) -> None:
        """Put goods that came back on the shelf."""
        self._move(MovementKind.RETURNED, now, stock=quantity, order_id=order_id)

    def _check_on_sale(self) -> None:
        if not self.on_sale:
            raise VariantWithdrawn(f"variant {self.variant_id} is not sold any more")

    def _move(
        self,
        kind: MovementKind,
        now: datetime,
        *,
        stock: int = 0,
        reserved: int = 0,
        order_id: UUID | None = None,
        request_id: str | None = None,
        reason: str = "",
    ) -> None:
        was_low = self.is_low
        self.stock_count += stock
        self.reserved_count += reserved
        self.updated_at = now
        self.movements.append(
            Movement(
                variant_id=self.variant_id,
                kind=kind,
                stock_delta=stock,
                reserved_delta=reserved,
                stock_after=self.stock_count,
                reserved_after=self.reserved_count,
                order_id=order_id,
                request_id=request_id,
                reason=reason,
                at=now,
            )
        )
        self._note_if_low(was_low)
        self.announce()

    def _note_if_low(self, was_low: bool) -> None:
        if self.is_low and not was_low:
            self.events.append(
                InventoryLowStock(
                    variant_id=self.variant_id,
                    product_id=self.product_id,
                    available=self.available,
                    threshold=self.threshold,
                )
            )


@dataclass(slots=True)
class Hold:
    """What an order holds of the stock; `quantities` are by variant.

    Its methods decide what an event of the order changes, and change the stocks, which are those of its
    variants. An order that was cancelled before it was known to be placed has a hold too, which is released
    from the start: it keeps a late order.placed from reserving.
    """

    order_id: UUID
    status: HoldStatus
    updated_at: datetime
    quantities: dict[UUID, int] = field(default_factory=dict)
    events: list[InventoryReserved | InventoryOutOfStock] = field(default_factory=list, compare=False)

    @classmethod
    def begin(cls, order_id: UUID, now: datetime) -> Self:
        """Begin the hold of an order, on nothing yet."""
        return cls(order_id, HoldStatus.HELD, now)

    @classmethod
    def released(cls, order_id: UUID, now: datetime) -> Self:
        """Begin the hold of an order that is cancelled already."""
        return cls(order_id, HoldStatus.RELEASED, now)

    def on_order_placed(self, wanted: Sequence[Wanted], stocks: Mapping[UUID, Stock], now: datetime) -> None:
        """Promise the order all that it wants, or nothing.

        `wanted` is summed up; `stocks` are those of its variants that exist.
        """
        lacking = [(line, there) for line in wanted if (there := _available(line, stocks)) < line.quantity]
        if lacking:
            self._refuse(lacking, now)
            return
        for line in wanted:
            stocks[line.variant_id].reserve(line.quantity, self.order_id, now)
            self.quantities[line.variant_id] = line.quantity
        self.events.append(
            InventoryReserved(
                order_id=self.order_id,
                items=tuple(
                    InventoryReservedItem(
                        product_id=line.product_id, variant_id=line.variant_id, quantity=line.quantity
                    )
                    for line in wanted
                ),
            )
        )

    def on_order_cancelled(self, stocks: Mapping[UUID, Stock], now: datetime) -> None:
        """Release what is promised to the order. What has left stays away."""
        if self.status is HoldStatus.HELD:
            for variant_id, quantity in self.quantities.items():
                stocks[variant_id].release(quantity, self.order_id, now)
            self._end(HoldStatus.RELEASED, now)

    def on_order_shipped(self, stocks: Mapping[UUID, Stock], now: datetime) -> None:
        """Turn what is promised to the order into goods that left; again, it changes nothing.

        Raises NotReserved if nothing is promised to it.
        """
        if self.status is HoldStatus.HELD:
            for variant_id, quantity in self.quantities.items():
                stocks[variant_id].ship(quantity, self.order_id, now)
            self._end(HoldStatus.SHIPPED, now)
        elif self.status not in (HoldStatus.SHIPPED, HoldStatus.RETURNED):
            raise NotReserved(f"order {self.order_id} has no stock here: {self.status}")

    def on_order_returned(
        self,
        came_back: Iterable[Wanted],
        returned: Mapping[UUID, int],
        stocks: Mapping[UUID, Stock],
        now: datetime,
    ) -> None:
        """Put goods of the order back on the shelf, but no more than left and are not back.

        `returned` is how many of each variant came back before. Raises NotReserved if it never had any.
        """
        # The topics are not ordered among each other: that it left may be told only after it is back.
        self.on_order_shipped(stocks, now)
        out = _positive({key: left - returned.get(key, 0) for key, left in self.quantities.items()})
        back = _positive(
            {line.variant_id: min(line.quantity, out.get(line.variant_id, 0)) for line in sum_up(came_back)}
        )
        for variant_id, quantity in back.items():
            stocks[variant_id].take_back(quantity, self.order_id, now)
        if back == out:
            self._end(HoldStatus.RETURNED, now)

    def _refuse(self, lacking: Iterable[tuple[Wanted, int]], now: datetime) -> None:
        self._end(HoldStatus.REFUSED, now)
        self.events.append(
            InventoryOutOfStock(
                order_id=self.order_id,
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
        )

    def _end(self, status: HoldStatus, now: datetime) -> None:
        self.status = status
        self.updated_at = now


def sum_up(wanted: Iterable[Wanted]) -> Sequence[Wanted]:
    """Make one of several lines with the same variant, by variant id: the order in which stock is locked."""
    sums: dict[UUID, Wanted] = {}
    for line in wanted:
        so_far = sums.get(line.variant_id)
        quantity = line.quantity + (so_far.quantity if so_far else 0)
        sums[line.variant_id] = Wanted(line.product_id, line.variant_id, quantity)
    return [sums[variant_id] for variant_id in sorted(sums)]


def _available(line: Wanted, stocks: Mapping[UUID, Stock]) -> int:
    stock = stocks.get(line.variant_id)
    return stock.available if stock else 0


def _positive(quantities: Mapping[UUID, int]) -> dict[UUID, int]:
    return {variant_id: quantity for variant_id, quantity in quantities.items() if quantity > 0}

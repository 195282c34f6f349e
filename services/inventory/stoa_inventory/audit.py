"""The books of the inventory service as the audit reads them, and what must hold of them."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import asyncpg

from stoa_chassis.audit import Finding

_MOVED = """
SELECT variant_id, sum(stock_delta)::int, sum(reserved_delta)::int FROM stock_movements GROUP BY variant_id
"""

_RETURNED = """
SELECT order_id, variant_id, sum(stock_delta)::int AS quantity FROM stock_movements
WHERE kind = 'returned' GROUP BY order_id, variant_id
"""


@dataclass(frozen=True, slots=True)
class Count:
    """The stock of a variant and how much of it is promised."""

    stock: int
    reserved: int


@dataclass(frozen=True, slots=True)
class Reservation:
    """A promise of stock to an order."""

    order_id: UUID
    variant_id: UUID
    quantity: int
    status: str


@dataclass(frozen=True, slots=True)
class Books:
    """All stock; `movements` are the sums of the movements of each variant.

    `returned` is how many of each variant were put back on the shelf, by order.
    """

    counts: Mapping[UUID, Count]
    movements: Mapping[UUID, Count]
    reservations: Sequence[Reservation]
    returned: Mapping[UUID, Mapping[UUID, int]] = field(default_factory=dict)
    in_stock: Collection[UUID] = ()
    """The variants that can be bought."""


async def read(connection: asyncpg.Connection) -> Books:
    """Read the books as they are at one moment. A connection that may only read is enough."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        counts = await connection.fetch(
            "SELECT variant_id, stock_count, reserved_count, on_sale FROM inventory"
        )
        movements = await connection.fetch(_MOVED)
        reservations = await connection.fetch(
            "SELECT order_id, variant_id, quantity, status FROM reservations"
        )
        restocked = await connection.fetch(_RETURNED)
    returned: dict[UUID, dict[UUID, int]] = defaultdict(dict)
    for row in restocked:
        returned[row["order_id"]][row["variant_id"]] = row["quantity"]
    return Books(
        counts={variant_id: Count(stock, reserved) for variant_id, stock, reserved, _ in counts},
        movements={variant_id: Count(*count) for variant_id, *count in movements},
        reservations=[Reservation(*row.values()) for row in reservations],
        returned=dict(returned),
        in_stock={key for key, stock, reserved, on_sale in counts if on_sale and stock > reserved},
    )


def findings(books: Books) -> Iterator[Finding]:
    """Check the books."""
    held: Counter[UUID] = Counter()
    for reservation in books.reservations:
        if reservation.status == "held":
            held[reservation.variant_id] += reservation.quantity
    for variant_id, count in books.counts.items():
        subject, look = f"variant {variant_id}", "the tables inventory, stock_movements and reservations"
        moved = books.movements.get(variant_id, Count(0, 0))
        if count != moved:
            yield Finding("stock is the sum of its movements", subject, f"{count}, but moved {moved}", look)
        if not 0 <= count.reserved <= count.stock:
            yield Finding("nothing is oversold", subject, str(count), look)
        if count.reserved != held[variant_id]:
            detail = f"{count.reserved} reserved, {held[variant_id]} promised to orders"
            yield Finding("what is reserved is promised to orders", subject, detail, look)

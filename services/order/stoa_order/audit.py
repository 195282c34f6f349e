"""The books of the order service as the audit reads them, and what must hold of them."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID

import asyncpg

from stoa_chassis.audit import Finding, Waiting

_ORDERS = """
SELECT order_id, coalesce(status, '') AS status, coalesce(total_amount, 0) AS total,
    coalesce(o.version, 0) AS version, coalesce(facts, 0) AS facts, coalesce(step, '') AS step
FROM orders o FULL JOIN (
    SELECT order_id, max(version) AS facts FROM order_events GROUP BY order_id
) e USING (order_id) LEFT JOIN sagas USING (order_id)
"""
_ITEMS = "SELECT order_id, variant_id, quantity FROM order_items"
_SAGAS = """
SELECT order_id, step AS waits_for, started_at AS since, attempts, due_at AS next_ask, deadline_at AS deadline
FROM sagas
"""


@dataclass(frozen=True, slots=True)
class Order:
    """An order.

    `version` is that of its projection, `facts` that of its event store; `step` is where its saga stands, ""
    if it has none. `quantities` is what was ordered of each variant.
    """

    order_id: UUID
    status: str
    total: Decimal
    version: int
    facts: int
    step: str
    quantities: Mapping[UUID, int]


@dataclass(frozen=True, slots=True)
class Books:
    """All orders."""

    orders: Mapping[UUID, Order]


async def read(connection: asyncpg.Connection) -> Books:
    """Read the books as they are at one moment. A connection that may only read is enough."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        orders, items = await connection.fetch(_ORDERS), await connection.fetch(_ITEMS)
    quantities: dict[UUID, Counter[UUID]] = defaultdict(Counter)
    for row in items:
        quantities[row["order_id"]][row["variant_id"]] += row["quantity"]
    return Books(
        {row["order_id"]: Order(**row, quantities=quantities.get(row["order_id"], {})) for row in orders}
    )


def findings(books: Books) -> Iterator[Finding]:
    """Check the books. While orders are under way something may be unsettled; it must not stay so."""
    for order in books.orders.values():
        subject = f"order {order.order_id}"
        if order.status == "pending" or order.step:
            detail = f"{order.status}, waiting for: {order.step or 'nothing, its saga is lost'}"
            yield Finding(
                "every order is settled", subject, detail, f"stoa logs order | grep {order.order_id}"
            )
        if order.version != order.facts:
            detail = f"projected up to version {order.version}, its events go to {order.facts}"
            yield Finding("projections match their events", subject, detail, "stoa replay order")


async def waiting(connection: asyncpg.Connection) -> Sequence[Waiting]:
    """The orders whose saga has not ended, and the step at which each stands."""
    return [Waiting(**row) for row in await connection.fetch(_SAGAS)]

"""The books of the order service as the audit reads them, and what must hold of them."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID

import asyncpg
import orjson

from stoa_chassis.audit import Finding, Waiting

_ORDERS = """
SELECT order_id, coalesce(status, '') AS status, coalesce(total_amount, 0) AS total,
    coalesce(o.version, 0) AS version, coalesce(facts, 0) AS facts, coalesce(step, '') AS step
FROM orders o FULL JOIN (
    SELECT order_id, max(version) AS facts FROM order_events GROUP BY order_id
) e USING (order_id) LEFT JOIN sagas USING (order_id)
"""
_ITEMS = "SELECT order_id, variant_id, quantity FROM order_items"
# As text: a connection of operators' tools gives nothing else.
_RETURNS = "SELECT order_id, return_id, status, items::text, refund_amount FROM order_returns"
_SAGAS = """
SELECT order_id, step AS waits_for, started_at AS since, attempts, due_at AS next_ask, deadline_at AS deadline
FROM sagas
"""


@dataclass(frozen=True, slots=True)
class Return:
    """What of an order comes back: how many of each variant, and what is given back for it."""

    return_id: UUID
    status: str
    quantities: Mapping[UUID, int]
    refund: Decimal

    @property
    def came_back(self) -> bool:
        """Whether it is with the shop again."""
        return self.status in ("received", "refunded")


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
    returns: Sequence[Return] = ()

    @property
    def came_back(self) -> Mapping[UUID, int]:
        """How many of each variant are with the shop again."""
        total: Counter[UUID] = Counter()
        for each in self.returns:
            if each.came_back:
                total.update(each.quantities)
        return total


@dataclass(frozen=True, slots=True)
class Books:
    """All orders."""

    orders: Mapping[UUID, Order]


async def read(connection: asyncpg.Connection) -> Books:
    """Read the books as they are at one moment. A connection that may only read is enough."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        orders, items = await connection.fetch(_ORDERS), await connection.fetch(_ITEMS)
        returned = await connection.fetch(_RETURNS)
    quantities: dict[UUID, Counter[UUID]] = defaultdict(Counter)
    for row in items:
        quantities[row["order_id"]][row["variant_id"]] += row["quantity"]
    returns: dict[UUID, list[Return]] = defaultdict(list)
    for row in returned:
        back = {UUID(item["variant_id"]): item["quantity"] for item in orjson.loads(row["items"])["items"]}
        made = Return(row["return_id"], row["status"], back, row["refund_amount"])
        returns[row["order_id"]].append(made)
    return Books(
        {
            key: Order(**row, quantities=quantities.get(key, {}), returns=returns.get(key, ()))
            for key, row in ((row["order_id"], row) for row in orders)
        }
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
        look = f"GET /api/v1/orders/{order.order_id}/returns as staff"
        if any(quantity > order.quantities.get(key, 0) for key, quantity in order.came_back.items()):
            detail = f"{dict(order.came_back)} came back of {dict(order.quantities)}"
            yield Finding("no more comes back than was bought", subject, detail, look)
        for each in order.returns:
            if each.status == "received":
                detail = f"{each.refund} is owed for return {each.return_id}"
                yield Finding("every return is refunded", subject, detail, look)
        refunds = sum((each.refund for each in order.returns if each.came_back), Decimal(0))
        if refunds > order.total:
            detail = f"{refunds} is given back for what came back of an order of {order.total}"
            yield Finding("no more is given back than was paid", subject, detail, look)


async def waiting(connection: asyncpg.Connection) -> Sequence[Waiting]:
    """The orders whose saga has not ended, and the step at which each stands."""
    return [Waiting(**row) for row in await connection.fetch(_SAGAS)]

"""Orders in PostgreSQL: the event store, its projections, and where each saga stands."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import asyncpg
from pydantic import TypeAdapter

from stoa_chassis.avro import EventCodec
from stoa_chassis.outbox import Outbox
from stoa_chassis.postgres import Database
from stoa_chassis.uow import UnitOfWork
from stoa_contracts.money import Money
from stoa_order.model import (
    Address,
    Amounts,
    Cancelled,
    Confirmed,
    Fact,
    Line,
    Order,
    OrderNotFound,
    Payment,
    PaymentSettled,
    Placed,
    Recorded,
    Status,
    StatusChange,
    StockReserved,
)
from stoa_order.saga import Patience, step_of

# The names under which facts are stored. A name is never given a new meaning: old orders are read by it.
_FACTS: dict[str, type[Fact]] = {
    "placed": Placed,
    "stock_reserved": StockReserved,
    "payment_settled": PaymentSettled,
    "confirmed": Confirmed,
    "cancelled": Cancelled,
}
_NAMES = {fact: name for name, fact in _FACTS.items()}
_ADAPTERS: dict[str, TypeAdapter[Fact]] = {name: TypeAdapter(fact) for name, fact in _FACTS.items()}
_ADDRESS = TypeAdapter(Address)
_PAYMENT = TypeAdapter(Payment)

# One statement for all that an order writes, since a round trip costs more than a row.
_SAVE = """
WITH facts AS (
    INSERT INTO order_events (order_id, version, type, data, at)
    SELECT $1, * FROM unnest($2::int[], $3::text[], $4::jsonb[], $5::timestamptz[])
), items AS (
    INSERT INTO order_items (order_item_id, order_id, line, product_id, variant_id, name, quantity, price)
    SELECT item_id, $1, line, product_id, variant_id, name, quantity, price
    FROM unnest($20::uuid[], $21::int[], $22::uuid[], $23::uuid[], $24::text[], $25::int[], $26::numeric[])
        AS item (item_id, line, product_id, variant_id, name, quantity, price)
    ON CONFLICT (order_item_id) DO NOTHING
), history AS (
    INSERT INTO order_status_history (order_id, position, status, reason, at)
    SELECT $1, * FROM unnest($27::int[], $28::text[], $29::text[], $30::timestamptz[])
    ON CONFLICT (order_id, position) DO NOTHING
), saga_ended AS (
    DELETE FROM sagas WHERE order_id = $1 AND $31::text IS NULL
), saga AS (
    INSERT INTO sagas (order_id, step, started_at, due_at, deadline_at, payment_token)
    SELECT $1::uuid, $31::text, $32::timestamptz, $33::timestamptz, $34::timestamptz, $35::text
    WHERE $31::text IS NOT NULL
    ON CONFLICT (order_id) DO UPDATE
    SET step = excluded.step, started_at = excluded.started_at, due_at = excluded.due_at,
        deadline_at = excluded.deadline_at, attempts = 0
    WHERE sagas.step <> excluded.step
)
INSERT INTO orders (order_id, version, user_id, request_id, status, stock_reserved, currency, subtotal,
    shipping_amount, tax_amount, total_amount, shipping_address, shipping_method, payment, created_at)
VALUES ($1, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)
ON CONFLICT (order_id) DO UPDATE
SET version = excluded.version, status = excluded.status, stock_reserved = excluded.stock_reserved,
    payment = excluded.payment
RETURNING (SELECT payment_token FROM sagas WHERE order_id = $1)
"""

_READ = """
SELECT o.*,
    (SELECT jsonb_agg(to_jsonb(i) || jsonb_build_object('price', i.price::text) ORDER BY i.line)
        FROM order_items i WHERE i.order_id = o.order_id) AS items,
    (SELECT jsonb_agg(to_jsonb(h) ORDER BY h.position)
        FROM order_status_history h WHERE h.order_id = o.order_id) AS history
FROM orders o
"""


@dataclass(frozen=True, slots=True)
class DueSaga:
    """A saga that is to be looked at now. `overdue` means that its step's deadline has passed."""

    order_id: UUID
    step: str
    overdue: bool
    payment_token: str | None


class Orders:
    """The orders, inside one transaction."""

    def __init__(self, connection: asyncpg.Connection, patience: Patience, retry_after: timedelta) -> None:
        self._connection = connection
        self._patience = patience
        self._retry_after = retry_after

    async def get(self, order_id: UUID) -> Order:
        """Read an order from the event store, to decide on it.

        Raises:
            OrderNotFound: it was never placed.
        """
        rows = await self._connection.fetch(
            "SELECT version, type, data, at FROM order_events WHERE order_id = $1 ORDER BY version", order_id
        )
        if not rows:
            raise OrderNotFound(f"order {order_id} not found")
        return Order.replay(order_id, map(_recorded, rows))

    async def save(self, order: Order, payment_token: str | None = None) -> str | None:
        """Append what is new of an order, bring its projections and its saga up to date.

        Returns the payment token that the saga keeps for the order, which only `place` has to hand in.

        Raises:
            asyncpg.SerializationError: somebody else changed the order since it was read; start over.
            asyncpg.UniqueViolationError: the buyer's request id was used already.
        """
        if not order.changes:
            return None
        now = order.changes[-1].at
        step = step_of(order)
        deadline = now + step.patience(self._patience) if step and step.patience else None
        # A step that asks is asked at once by whoever saved it; the saga table is for when that fails. One
        # that only waits is looked at when its deadline comes.
        due = now + self._retry_after if step and step.asks else deadline
        try:
            kept: str | None = await self._connection.fetchval(
                _SAVE,
                order.order_id,
                [recorded.version for recorded in order.changes],
                [_NAMES[type(recorded.fact)] for recorded in order.changes],
                [_dump(recorded.fact) for recorded in order.changes],
                [recorded.at for recorded in order.changes],
                *_row(order),
                *_item_columns(order),
                *_history_columns(order),
                step.name if step else None,
                now,
                due,
                deadline,
                payment_token,
            )
        except asyncpg.UniqueViolationError as error:
            if error.constraint_name == "order_events_pkey":
                raise asyncpg.SerializationError("the order was changed by another transaction") from error
            raise
        order.changes.clear()
        return kept

    async def project(self, order: Order) -> None:
        """Write the projections of an order anew, over whatever is there."""
        await self._connection.execute("DELETE FROM order_items WHERE order_id = $1", order.order_id)
        await self._connection.execute("DELETE FROM order_status_history WHERE order_id = $1", order.order_id)
        await self._connection.execute(
            """
            INSERT INTO orders (order_id, version, user_id, request_id, status, stock_reserved, currency,
                subtotal, shipping_amount, tax_amount, total_amount, shipping_address, shipping_method,
                payment, created_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
            ON CONFLICT (order_id) DO UPDATE SET
                version = excluded.version, user_id = excluded.user_id, request_id = excluded.request_id,
                status = excluded.status, stock_reserved = excluded.stock_reserved,
                currency = excluded.currency,
                subtotal = excluded.subtotal, shipping_amount = excluded.shipping_amount,
                tax_amount = excluded.tax_amount, total_amount = excluded.total_amount,
                shipping_address = excluded.shipping_address, shipping_method = excluded.shipping_method,
                payment = excluded.payment, created_at = excluded.created_at
            """,
            order.order_id,
            *_row(order),
        )
        await self._connection.execute(
            """
            INSERT INTO order_items (
                order_item_id, line, product_id, variant_id, name, quantity, price, order_id)
            SELECT item.*, $8 FROM unnest(
                $1::uuid[], $2::int[], $3::uuid[], $4::uuid[], $5::text[], $6::int[], $7::numeric[]) AS item
            """,
            *_item_columns(order),
            order.order_id,
        )
        await self._connection.execute(
            """
            INSERT INTO order_status_history (position, status, reason, at, order_id)
            SELECT change.*, $5 FROM unnest($1::int[], $2::text[], $3::text[], $4::timestamptz[]) AS change
            """,
            *_history_columns(order),
            order.order_id,
        )

    async def projected(self, order_id: UUID) -> Order | None:
        """Read an order's projections, and keep others from changing them until the transaction ends."""
        # Two statements: what waits for a lock sees the other tables as they were before.
        await self._connection.execute("SELECT 1 FROM orders WHERE order_id = $1 FOR UPDATE", order_id)
        row = await self._connection.fetchrow(f"{_READ} WHERE o.order_id = $1", order_id)
        return _order(row) if row else None

    async def claim_due(self, now: datetime, limit: int) -> Sequence[DueSaga]:
        """Take sagas that are due, so that nobody else takes them before they would be due again.

        The wait doubles with each attempt, from the retry time up to a minute, but ends at the deadline.
        """
        rows = await self._connection.fetch(
            """
            UPDATE sagas SET attempts = attempts + 1,
                due_at = least(
                    $1 + least($3::interval * power(2, least(attempts, 10)), interval '1 minute'),
                    CASE WHEN deadline_at > $1 THEN deadline_at END)
            WHERE order_id IN (
                SELECT order_id FROM sagas WHERE due_at <= $1 ORDER BY due_at LIMIT $2 FOR UPDATE SKIP LOCKED)
            RETURNING order_id, step, coalesce(deadline_at <= $1, false) AS overdue, payment_token
            """,
            now,
            limit,
            self._retry_after,
        )
        return [DueSaga(**row) for row in rows]


@dataclass(frozen=True, slots=True)
class Tx:
    """What a use case sees of a transaction."""

    orders: Orders
    outbox: Outbox

    def publish(self, order: Order) -> None:
        """Hand the order's events to the outbox of this transaction."""
        for event in order.events:
            self.outbox.add(event)
        order.events.clear()


class OrderReader:
    """Reads the projections; what it returns is for showing, not for deciding."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, order_id: UUID) -> Order | None:
        """Read one order."""
        row = await self._database.fetchrow(f"{_READ} WHERE o.order_id = $1", order_id)
        return _order(row) if row else None

    async def by_request(self, user_id: UUID, request_id: str) -> Order | None:
        """Read the order that a buyer's request led to."""
        row = await self._database.fetchrow(
            f"{_READ} WHERE o.user_id = $1 AND o.request_id = $2", user_id, request_id
        )
        return _order(row) if row else None

    async def list(
        self, *, user_id: UUID | None, status: str | None, before: UUID | None, limit: int
    ) -> Sequence[Order]:
        """Read orders, newest first, that come after `before` in that order."""
        rows = await self._database.fetch(
            f"""{_READ}
            WHERE ($1::uuid IS NULL OR o.user_id = $1) AND ($2::text IS NULL OR o.status = $2)
                AND ($3::uuid IS NULL OR o.order_id < $3)
            ORDER BY o.order_id DESC LIMIT $4
            """,
            user_id,
            status,
            before,
            limit,
        )
        return [_order(row) for row in rows]

    async def ids_after(self, order_id: UUID, limit: int) -> Sequence[UUID]:
        """Return ids in the event store, ascending, greater than `order_id`."""
        rows = await self._database.fetch(
            "SELECT DISTINCT order_id FROM order_events WHERE order_id > $1 ORDER BY order_id LIMIT $2",
            order_id,
            limit,
        )
        return [row["order_id"] for row in rows]


def _dump(fact: Fact) -> Any:
    return _ADAPTERS[_NAMES[type(fact)]].dump_python(fact, mode="json")


def _recorded(row: asyncpg.Record) -> Recorded:
    return Recorded(row["version"], _ADAPTERS[row["type"]].validate_python(row["data"]), row["at"])


def _row(order: Order) -> tuple[Any, ...]:
    amounts = order.amounts
    return (
        order.version,
        order.user_id,
        order.request_id,
        order.status.value,
        order.stock_reserved,
        amounts.total.currency,
        amounts.subtotal.amount,
        amounts.shipping.amount,
        amounts.tax.amount,
        amounts.total.amount,
        _ADDRESS.dump_python(order.shipping_address, mode="json"),
        order.shipping_method,
        _PAYMENT.dump_python(order.payment, mode="json") if order.payment else None,
        order.created_at,
    )


def _item_columns(order: Order) -> tuple[list[Any], ...]:
    lines = order.lines
    return (
        [line.item_id for line in lines],
        list(range(1, len(lines) + 1)),
        [line.product_id for line in lines],
        [line.variant_id for line in lines],
        [line.name for line in lines],
        [line.quantity for line in lines],
        [line.price.amount for line in lines],
    )


def _history_columns(order: Order) -> tuple[list[Any], ...]:
    history = order.history
    return (
        list(range(1, len(history) + 1)),
        [change.status.value for change in history],
        [change.reason for change in history],
        [change.at for change in history],
    )


def _order(row: asyncpg.Record) -> Order:
    currency = row["currency"]
    return Order(
        order_id=row["order_id"],
        version=row["version"],
        user_id=row["user_id"],
        request_id=row["request_id"],
        status=Status(row["status"]),
        lines=tuple(
            Line(
                UUID(item["order_item_id"]),
                UUID(item["product_id"]),
                UUID(item["variant_id"]),
                item["name"],
                item["quantity"],
                Money(Decimal(item["price"]), currency),
            )
            for item in row["items"] or ()
        ),
        amounts=Amounts(
            *(
                Money(row[column], currency)
                for column in ("subtotal", "shipping_amount", "tax_amount", "total_amount")
            )
        ),
        shipping_address=_ADDRESS.validate_python(row["shipping_address"]),
        shipping_method=row["shipping_method"],
        stock_reserved=row["stock_reserved"],
        payment=_PAYMENT.validate_python(row["payment"]) if row["payment"] else None,
        history=tuple(
            StatusChange(Status(h["status"]), h["reason"], datetime.fromisoformat(h["at"]))
            for h in row["history"] or ()
        ),
    )


def unit_of_work(
    database: Database, codec: EventCodec, patience: Patience, retry_after: timedelta
) -> UnitOfWork[Tx]:
    """Return what opens the transactions of the use cases."""
    return UnitOfWork(
        database, codec, lambda connection, outbox: Tx(Orders(connection, patience, retry_after), outbox)
    )

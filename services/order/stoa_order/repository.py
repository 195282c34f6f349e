"""Orders in PostgreSQL: the event store, its projections, and where each saga stands."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg
from pydantic import TypeAdapter

from stoa_chassis.due import Backoff
from stoa_chassis.outbox import Outbox
from stoa_chassis.postgres import Database, Queries
from stoa_chassis.postgres_due import DueTable
from stoa_chassis.uow import LostRace
from stoa_contracts.money import Money
from stoa_order import facts, ports
from stoa_order.model import (
    Address,
    Amounts,
    Line,
    Order,
    OrderNotFound,
    OrderView,
    Payment,
    Recorded,
    Saga,
    Status,
    StatusChange,
)

Row: TypeAlias = dict[str, Any]

_DUE_SAGAS = DueTable("sagas", key="order_id", deadline="deadline_at")
_ADDRESS = TypeAdapter(Address)
_PAYMENT = TypeAdapter(Payment)

# What a transaction reads names its columns: `*` would fail once when a migration adds one.
_GET = """
SELECT e.version, e.type, e.data, e.at, s.order_id, s.step, s.started_at, s.due_at, s.deadline_at,
    s.payment_token, s.correlation_id, s.attempts
FROM order_events e LEFT JOIN sagas s ON s.order_id = e.order_id
WHERE e.order_id = $1 ORDER BY e.version
"""
_VIEW = """
SELECT o.*,
    (SELECT jsonb_agg(to_jsonb(i) || jsonb_build_object('price', i.price::text) ORDER BY i.line)
        FROM order_items i WHERE i.order_id = o.order_id) AS items,
    (SELECT jsonb_agg(to_jsonb(h) ORDER BY h.position)
        FROM order_status_history h WHERE h.order_id = o.order_id) AS history
FROM orders o
"""


class Orders:
    """The orders, to decide on them."""

    def __init__(self, connection: asyncpg.Connection, outbox: Outbox) -> None:
        self._connection = connection
        self._outbox = outbox

    async def get(self, order_id: UUID) -> Order:
        """Make an order of its recorded facts, with the saga that it has. Raises OrderNotFound."""
        return await _read(self._connection, order_id)

    async def save(self, order: Order, saga: Saga | None) -> None:
        """Append what is new of an order, store its saga (or that it has none), and publish its events.

        An order of which nothing is new is left as it is. Raises LostRace if somebody else changed it since
        it was read, and RequestTaken.
        """
        if not order.changes:
            return
        rows = _Projection.of(order)
        recorded = [_fact_row(order.order_id, recorded) for recorded in order.changes]
        saga_row = _saga_row(saga) if saga else {}
        statement = _save(rows.columns, tuple(recorded[0]), tuple(saga_row))
        try:
            await self._connection.execute(statement, *rows.values, recorded, saga_row or order.order_id)
        except asyncpg.UniqueViolationError as error:
            if error.constraint_name == "order_events_pkey":
                raise LostRace(f"order {order.order_id}") from error
            if error.constraint_name == "orders_user_id_request_id_key":
                raise ports.RequestTaken(order.request_id) from error
            raise
        order.changes.clear()
        order.saga = saga
        self._outbox.collect(order)


def open_tx(connection: asyncpg.Connection, outbox: Outbox) -> ports.Tx:
    """Put the repositories on the connection of a transaction."""
    return ports.Tx(Orders(connection, outbox))


@dataclass(frozen=True, slots=True)
class OrderViews:
    """The orders, as they are shown: read from the projections."""

    queries: Queries

    async def get(self, order_id: UUID) -> OrderView | None:
        """Read one order, if it was placed."""
        row = await self.queries.fetchrow(f"{_VIEW} WHERE o.order_id = $1", order_id)
        return _view(row) if row else None

    async def by_request(self, user_id: UUID, request_id: str) -> OrderView | None:
        """Read the order that a buyer's request led to, if it did."""
        row = await self.queries.fetchrow(
            f"{_VIEW} WHERE o.user_id = $1 AND o.request_id = $2", user_id, request_id
        )
        return _view(row) if row else None

    async def list(
        self, *, user_id: UUID | None, status: str | None, before: UUID | None, limit: int
    ) -> Sequence[OrderView]:
        """Read orders, newest first, that come after `before` in that order."""
        rows = await self.queries.fetch(
            f"""{_VIEW}
            WHERE ($1::uuid IS NULL OR o.user_id = $1) AND ($2::text IS NULL OR o.status = $2)
                AND ($3::uuid IS NULL OR o.order_id < $3)
            ORDER BY o.order_id DESC LIMIT $4
            """,
            user_id,
            status,
            before,
            limit,
        )
        return [_view(row) for row in rows]


@dataclass(frozen=True, slots=True)
class DueSagas:
    """The sagas, which fall due until their orders are settled, and at the latest at their deadlines."""

    database: Database
    backoff: Backoff

    async def claim_due(self, now: datetime, limit: int) -> Sequence[Saga]:
        """Take at most `limit` that are due: nobody else takes them before they are due again."""
        return [_saga(row) for row in await _DUE_SAGAS.claim(self.database, now, limit, self.backoff)]

    async def next_due(self) -> datetime | None:
        """Return when the next falls due; None if all orders are settled."""
        return await _DUE_SAGAS.next_due(self.database)

    async def put_off(self, saga: Saga, until: datetime) -> None:
        """Let one fall due at another time, unless its order was settled meanwhile."""
        await _DUE_SAGAS.put_off(self.database, saga.order_id, until)


class EventStore:
    """The event store as a replay reads it, and the projections that are made of it anew."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def ids_after(self, order_id: UUID, limit: int) -> Sequence[UUID]:
        """Return the ids of orders, ascending, greater than `order_id`."""
        rows = await self._connection.fetch(
            "SELECT DISTINCT order_id FROM order_events WHERE order_id > $1 ORDER BY order_id LIMIT $2",
            order_id,
            limit,
        )
        return [row["order_id"] for row in rows]

    async def rebuild(self, order_id: UUID) -> bool:
        """Project an order anew unless its projections say what its facts say; tell whether they differed."""
        async with self._connection.transaction():
            # The lock comes before the facts are read, so that none is added between the two.
            await self._connection.execute("SELECT 1 FROM orders WHERE order_id = $1 FOR UPDATE", order_id)
            rows = _Projection.of(await _read(self._connection, order_id))
            if not await self._connection.fetchval(_differ(rows.columns), *rows.values, order_id):
                return False
            for table in ("order_items", "order_status_history"):
                await self._connection.execute(f"DELETE FROM {table} WHERE order_id = $1", order_id)
            await self._connection.execute(_project(rows.columns), *rows.values)
            return True


@dataclass(frozen=True, slots=True)
class _Projection:
    """The rows of an order's projections."""

    order: Row
    items: Sequence[Row]
    history: Sequence[Row]

    @classmethod
    def of(cls, order: Order) -> "_Projection":
        return cls(
            _order_row(order),
            [_item_row(order.order_id, position, line) for position, line in enumerate(order.lines, 1)],
            [
                _history_row(order.order_id, position, change)
                for position, change in enumerate(order.history, 1)
            ],
        )

    @property
    def values(self) -> tuple[Row, Sequence[Row], Sequence[Row]]:
        return self.order, self.items, self.history

    @property
    def columns(self) -> "_Columns":
        return tuple(self.order), tuple(self.items[0]), tuple(self.history[0])


# The statements take rows as JSON, so that a column stands in the function that makes the row, and nowhere
# else. All that an order writes is one statement, since a round trip costs more than a row.

_Columns: TypeAlias = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]
_ORDER = "jsonb_populate_record(NULL::orders, $1)"
_ITEMS = "jsonb_populate_recordset(NULL::order_items, $2)"
_HISTORY = "jsonb_populate_recordset(NULL::order_status_history, $3)"


@lru_cache
def _save(projection: _Columns, fact: tuple[str, ...], saga: tuple[str, ...]) -> str:
    """The last argument is the row of the saga, or the order's id if it has none."""
    if saga:
        stored = f"""{_insert("sagas", saga, "jsonb_populate_record(NULL::sagas, $5)")}
        ON CONFLICT (order_id) DO UPDATE SET {_excluded(saga)} WHERE sagas.step <> excluded.step"""
    else:
        stored = "DELETE FROM sagas WHERE order_id = $5"
    return f"""
    WITH facts AS (
        {_insert("order_events", fact, "jsonb_populate_recordset(NULL::order_events, $4)")}
    ), saga AS (
        {stored}
    ), {_projected(projection)}
    """


@lru_cache
def _project(projection: _Columns) -> str:
    return f"WITH {_projected(projection)}"


def _projected(projection: _Columns) -> str:
    order, item, history = projection
    return f"""items AS (
        {_insert("order_items", item, _ITEMS)} ON CONFLICT (order_item_id) DO NOTHING
    ), history AS (
        {_insert("order_status_history", history, _HISTORY)} ON CONFLICT (order_id, position) DO NOTHING
    )
    {_insert("orders", order, _ORDER)} ON CONFLICT (order_id) DO UPDATE SET {_excluded(order)}
    """


@lru_cache
def _differ(projection: _Columns) -> str:
    """The last argument is the order's id."""

    def rows(columns: str, source: str) -> str:
        return f"(SELECT jsonb_agg(to_jsonb(r) ORDER BY r) FROM (SELECT {columns} FROM {source}) r)"

    tables = (("orders", _ORDER), ("order_items", _ITEMS), ("order_status_history", _HISTORY))
    differences = [
        f"{rows(names, f'{table} WHERE order_id = $4')} IS DISTINCT FROM {rows(names, made)}"
        for (table, made), names in zip(tables, map(", ".join, projection), strict=True)
    ]
    return f"SELECT {' OR '.join(differences)}"


def _insert(table: str, columns: Sequence[str], rows: str) -> str:
    names = ", ".join(columns)
    return f"INSERT INTO {table} ({names}) SELECT {names} FROM {rows}"


def _excluded(columns: Sequence[str]) -> str:
    return ", ".join(f"{column} = excluded.{column}" for column in columns if column != "order_id")


async def _read(connection: asyncpg.Connection, order_id: UUID) -> Order:
    rows = await connection.fetch(_GET, order_id)
    if not rows:
        raise OrderNotFound(f"order {order_id} not found")
    order = Order.replay(order_id, map(_recorded, rows))
    order.saga = _saga(rows[0]) if rows[0]["step"] is not None else None
    return order


def _fact_row(order_id: UUID, recorded: Recorded) -> Row:
    return {
        "order_id": order_id,
        "version": recorded.version,
        "type": facts.name_of(recorded.fact),
        "data": facts.dump(recorded.fact),
        "at": recorded.at,
    }


def _recorded(row: asyncpg.Record) -> Recorded:
    return Recorded(row["version"], facts.load(row["type"], row["data"]), row["at"])


def _order_row(order: Order) -> Row:
    return {
        "order_id": order.order_id,
        "version": order.version,
        "user_id": order.user_id,
        "request_id": order.request_id,
        "status": order.status,
        "stock_reserved": order.stock_reserved,
        "currency": order.amounts.total.currency,
        "subtotal": order.amounts.subtotal.amount,
        "shipping_amount": order.amounts.shipping.amount,
        "tax_amount": order.amounts.tax.amount,
        "total_amount": order.amounts.total.amount,
        "shipping_address": _ADDRESS.dump_python(order.shipping_address, mode="json"),
        "shipping_method": order.shipping_method,
        "payment": _PAYMENT.dump_python(order.payment, mode="json") if order.payment else None,
        "created_at": order.created_at,
    }


def _item_row(order_id: UUID, position: int, line: Line) -> Row:
    return {
        "order_item_id": line.item_id,
        "order_id": order_id,
        "line": position,
        "product_id": line.product_id,
        "variant_id": line.variant_id,
        "name": line.name,
        "quantity": line.quantity,
        "price": line.price.amount,
    }


def _history_row(order_id: UUID, position: int, change: StatusChange) -> Row:
    return {
        "order_id": order_id,
        "position": position,
        "status": change.status,
        "reason": change.reason,
        "at": change.at,
    }


def _view(row: asyncpg.Record) -> OrderView:
    currency = row["currency"]
    return OrderView(
        order_id=row["order_id"],
        user_id=row["user_id"],
        status=Status(row["status"]),
        lines=tuple(
            Line(
                item_id=UUID(item["order_item_id"]),
                product_id=UUID(item["product_id"]),
                variant_id=UUID(item["variant_id"]),
                name=item["name"],
                quantity=item["quantity"],
                price=Money(Decimal(item["price"]), currency),
            )
            for item in row["items"] or ()
        ),
        amounts=Amounts(
            subtotal=Money(row["subtotal"], currency),
            shipping=Money(row["shipping_amount"], currency),
            tax=Money(row["tax_amount"], currency),
            total=Money(row["total_amount"], currency),
        ),
        shipping_address=_ADDRESS.validate_python(row["shipping_address"]),
        shipping_method=row["shipping_method"],
        payment=_PAYMENT.validate_python(row["payment"]) if row["payment"] else None,
        history=tuple(
            StatusChange(Status(change["status"]), change["reason"], datetime.fromisoformat(change["at"]))
            for change in row["history"] or ()
        ),
        created_at=row["created_at"],
    )


def _saga_row(saga: Saga) -> Row:
    return {
        "order_id": saga.order_id,
        "step": saga.step,
        "started_at": saga.since,
        "due_at": saga.due,
        "deadline_at": saga.deadline,
        "attempts": saga.attempts,
        "payment_token": saga.token,
        "correlation_id": saga.correlation_id,
    }


def _saga(row: asyncpg.Record) -> Saga:
    return Saga(
        order_id=row["order_id"],
        step=row["step"],
        since=row["started_at"],
        due=row["due_at"],
        deadline=row["deadline_at"],
        token=row["payment_token"],
        correlation_id=row["correlation_id"],
        attempts=row["attempts"],
    )

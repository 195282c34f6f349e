"""Orders in PostgreSQL: the event store, its projections, and where each saga stands."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Generic, TypeVar
from uuid import UUID

import asyncpg
from pydantic import TypeAdapter

from stoa_chassis.due import Backoff
from stoa_chassis.emails import email_key
from stoa_chassis.outbox import Outbox
from stoa_chassis.postgres import Database, Queries
from stoa_chassis.postgres_due import DueTable
from stoa_chassis.postgres_replica import Reads
from stoa_chassis.uow import LostRace
from stoa_contracts.money import Money
from stoa_order import facts, ports
from stoa_order.model import (
    ACCOUNT,
    Address,
    Amounts,
    Contact,
    Line,
    Order,
    OrderNotFound,
    OrderView,
    Payment,
    PersonErased,
    Recorded,
    Saga,
    Shipment,
    Status,
    StatusChange,
)
from stoa_order.returns import Return, ReturnItem, ReturnStatus, ReturnView

E = TypeVar("E")

_DUE_SAGAS = DueTable("sagas", key="order_id", deadline="deadline_at")
_ADDRESS = TypeAdapter(Address)
_PAYMENT = TypeAdapter(Payment)
_SHIPMENT = TypeAdapter(Shipment)
_CONTACT = TypeAdapter(Contact)
_RETURN_ITEMS = TypeAdapter(tuple[ReturnItem, ...])


class _Columns(Generic[E]):
    """The columns of a table that are written, said once: each with its type, and how an entity gives it.

    In a statement they are the parameters from `$first` on; `$1` is the id of the order.
    """

    def __init__(self, first: int, **columns: tuple[str, Callable[[E], Any]]) -> None:
        self.names = ", ".join(columns)
        self.next = first + len(columns)
        self._values = [value for _, value in columns.values()]
        places = [f"${place}::{type_}" for place, (type_, _) in enumerate(columns.values(), first)]
        self.row = f"SELECT {', '.join(places)}"
        arrays = ", ".join(f"{place}[]" for place in places)
        self.rows = f"SELECT $1::uuid, * FROM unnest({arrays})"
        self.excluded = ", ".join(f"{name} = excluded.{name}" for name in columns if name != "order_id")

    def of(self, entity: E) -> list[Any]:
        """Return the arguments of `row`."""
        return [value(entity) for value in self._values]

    def of_all(self, entities: Iterable[E]) -> list[list[Any]]:
        """Return the arguments of `rows`."""
        known = list(entities)
        return [[value(entity) for entity in known] for value in self._values]


_ORDER = _Columns[Order](
    1,
    order_id=("uuid", lambda order: order.order_id),
    version=("integer", lambda order: order.version),
    user_id=("uuid", lambda order: order.user_id),
    request_id=("text", lambda order: order.request_id),
    status=("text", lambda order: order.status.value),
    stock_reserved=("boolean", lambda order: order.stock_reserved),
    currency=("text", lambda order: order.amounts.total.currency),
    subtotal=("numeric", lambda order: order.amounts.subtotal.amount),
    shipping_amount=("numeric", lambda order: order.amounts.shipping.amount),
    tax_amount=("numeric", lambda order: order.amounts.tax.amount),
    total_amount=("numeric", lambda order: order.amounts.total.amount),
    shipping_address=("jsonb", lambda order: _ADDRESS.dump_python(order.shipping_address, mode="json")),
    shipping_method=("text", lambda order: order.shipping_method),
    payment=("jsonb", lambda order: order.payment and _payment(order.payment)),
    created_at=("timestamptz", lambda order: order.created_at),
    shipment=("jsonb", lambda order: order.shipment and _SHIPMENT.dump_python(order.shipment, mode="json")),
    cancellation=("text", lambda order: order.cancellation),
    contact=("jsonb", lambda order: _contact(order.contact)),
    email_key=("text", lambda order: email_key(order.contact.email) or None),
)
_ITEMS = _Columns[tuple[int, Line]](
    _ORDER.next,
    order_item_id=("uuid", lambda item: item[1].item_id),
    line=("integer", lambda item: item[0]),
    product_id=("uuid", lambda item: item[1].product_id),
    variant_id=("uuid", lambda item: item[1].variant_id),
    name=("text", lambda item: item[1].name),
    quantity=("integer", lambda item: item[1].quantity),
    price=("numeric", lambda item: item[1].price.amount),
)
_HISTORY = _Columns[tuple[int, StatusChange]](
    _ITEMS.next,
    position=("integer", lambda change: change[0]),
    status=("text", lambda change: change[1].status.value),
    reason=("text", lambda change: change[1].reason),
    at=("timestamptz", lambda change: change[1].at),
)
_FACTS = _Columns[Recorded](
    _HISTORY.next,
    version=("integer", lambda recorded: recorded.version),
    type=("text", lambda recorded: facts.name_of(recorded.fact)),
    data=("jsonb", lambda recorded: facts.dump(recorded.fact)),
    at=("timestamptz", lambda recorded: recorded.at),
)
_SAGA = _Columns[Saga](
    _FACTS.next,
    order_id=("uuid", lambda saga: saga.order_id),
    step=("text", lambda saga: saga.step),
    started_at=("timestamptz", lambda saga: saga.since),
    due_at=("timestamptz", lambda saga: saga.due),
    deadline_at=("timestamptz", lambda saga: saga.deadline),
    attempts=("integer", lambda saga: saga.attempts),
    payment_token=("text", lambda saga: saga.token),
    correlation_id=("text", lambda saga: saga.correlation_id),
)
_RETURNS = _Columns[Return](
    2,
    return_id=("uuid", lambda return_: return_.return_id),
    request_id=("text", lambda return_: return_.request_id),
    status=("text", lambda return_: return_.status.value),
    # An object, since an array of arrays would be taken for one of more dimensions.
    items=("jsonb", lambda return_: {"items": _RETURN_ITEMS.dump_python(return_.items, mode="json")}),
    reason=("text", lambda return_: return_.reason),
    decision=("text", lambda return_: return_.decision),
    refund_amount=("numeric", lambda return_: return_.refund.amount),
    currency=("text", lambda return_: return_.refund.currency),
    created_at=("timestamptz", lambda return_: return_.created_at),
)

# All that an order writes is one statement, since a round trip costs more than a row. Few have returns, and
# fewer are erased: that takes a statement more.
_PROJECTIONS = f"""items AS (
    INSERT INTO order_items (order_id, {_ITEMS.names}) {_ITEMS.rows}
    ON CONFLICT (order_item_id) DO NOTHING
), history AS (
    INSERT INTO order_status_history (order_id, {_HISTORY.names}) {_HISTORY.rows}
    ON CONFLICT (order_id, position) DO NOTHING
)
INSERT INTO orders ({_ORDER.names}) {_ORDER.row}
ON CONFLICT (order_id) DO UPDATE SET {_ORDER.excluded}
"""
_NEW_FACTS = f"INSERT INTO order_events (order_id, {_FACTS.names}) {_FACTS.rows}"
_SAVE = f"""
WITH facts AS ({_NEW_FACTS}), saga AS (
    INSERT INTO sagas ({_SAGA.names}) {_SAGA.row}
    ON CONFLICT (order_id) DO UPDATE SET {_SAGA.excluded} WHERE sagas.step <> excluded.step
), {_PROJECTIONS}
"""
_SAVE_SETTLED = f"""
WITH facts AS ({_NEW_FACTS}), saga AS (DELETE FROM sagas WHERE order_id = $1), {_PROJECTIONS}
"""
_PROJECT = f"WITH {_PROJECTIONS}"
_PROJECT_RETURNS = f"""
INSERT INTO order_returns (order_id, {_RETURNS.names}) {_RETURNS.rows}
ON CONFLICT (return_id) DO UPDATE SET {_RETURNS.excluded}
"""
_ERASE = (
    """UPDATE order_events SET data = without_person(data)
    WHERE order_id = $1 AND data <> without_person(data)""",
    "UPDATE order_status_history SET reason = '' WHERE order_id = $1",
)


def _differs(table: str, names: str, rows: str) -> str:
    stored = f"SELECT {names} FROM {table} WHERE order_id = $1"
    return f"EXISTS (SELECT FROM (({stored} EXCEPT {rows}) UNION ALL ({rows} EXCEPT {stored})) AS difference)"


_DIFFER = f"""SELECT {_differs("orders", _ORDER.names, _ORDER.row)}
    OR {_differs("order_items", f"order_id, {_ITEMS.names}", _ITEMS.rows)}
    OR {_differs("order_status_history", f"order_id, {_HISTORY.names}", _HISTORY.rows)}
"""
_RETURNS_DIFFER = f"SELECT {_differs('order_returns', f'order_id, {_RETURNS.names}', _RETURNS.rows)}"

# A request that comes twice at once makes the same order, since it has claimed the cart for it. It is refused
# by whichever of these PostgreSQL comes to first.
_TAKEN = ("order_events_pkey", "orders_user_id_request_id_key", "order_items_order_id_line_key")

# What a transaction reads names its columns: `*` would fail once when a migration adds one.
_GET = """
SELECT e.order_id, e.version, e.type, e.data, e.at, s.step, s.started_at, s.due_at, s.deadline_at,
    s.payment_token, s.correlation_id, s.attempts
FROM order_events e LEFT JOIN sagas s ON s.order_id = e.order_id
"""
_GET_ONE = f"{_GET} WHERE e.order_id = $1 ORDER BY e.version"
_GET_BY_REQUEST = f"""{_GET} WHERE e.order_id = (
    SELECT order_id FROM orders WHERE user_id = $1 AND request_id = $2
) ORDER BY e.version
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
        it was read, and RequestTaken. Of an order whose person was erased the facts before are changed, so
        that they tell nobody any more who that was.
        """
        if not order.changes:
            return
        arguments = [*_projected(order), *_FACTS.of_all(order.changes)]
        try:
            if saga is None:
                await self._connection.execute(_SAVE_SETTLED, *arguments)
            else:
                await self._connection.execute(_SAVE, *arguments, *_SAGA.of(saga))
        except asyncpg.UniqueViolationError as error:
            if order.is_new and error.constraint_name in _TAKEN:
                raise ports.RequestTaken(order.request_id) from error
            if error.constraint_name == "order_events_pkey":
                raise LostRace(f"order {order.order_id}") from error
            raise
        if order.returns:
            await self._connection.execute(_PROJECT_RETURNS, order.order_id, *_RETURNS.of_all(order.returns))
        if any(isinstance(recorded.fact, PersonErased) for recorded in order.changes):
            for statement in _ERASE:
                await self._connection.execute(statement, order.order_id)
        order.changes.clear()
        order.saga = saga
        self._outbox.collect(order)

    async def of_buyer(self, user_id: UUID) -> Sequence[UUID]:
        """Return the ids of all orders that belong to a user, oldest first."""
        rows = await self._connection.fetch(
            "SELECT order_id FROM orders WHERE user_id = $1 ORDER BY order_id", user_id
        )
        return [row["order_id"] for row in rows]

    async def of_address(self, email: str) -> Sequence[UUID]:
        """Return the ids of the guests' orders about which this address is written to, oldest first."""
        rows = await self._connection.fetch(
            "SELECT order_id FROM orders WHERE email_key = $1 ORDER BY order_id", email_key(email)
        )
        return [row["order_id"] for row in rows]


class Guests:
    """Who has become of guests. Two transactions that touch the same guest come one after the other."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def account_of(self, guest_id: UUID) -> UUID | None:
        """Return the account that a guest has become, if she has."""
        return await self._touch(guest_id, None)

    async def merge(self, guest_id: UUID, user_id: UUID) -> None:
        """Note that a guest has become an account; the first one counts."""
        await self._touch(guest_id, user_id)

    async def _touch(self, guest_id: UUID, user_id: UUID | None) -> UUID | None:
        account: UUID | None = await self._connection.fetchval(
            """INSERT INTO guests (guest_id, user_id) VALUES ($1, $2)
            ON CONFLICT (guest_id) DO UPDATE SET user_id = coalesce(guests.user_id, excluded.user_id)
            RETURNING user_id""",
            guest_id,
            user_id,
        )
        return account


def open_tx(connection: asyncpg.Connection, outbox: Outbox) -> ports.Tx:
    """Put the repositories on the connection of a transaction."""
    return ports.Tx(Orders(connection, outbox), Guests(connection))


@dataclass(frozen=True, slots=True)
class OrderViews:
    """The orders, as they are shown: read from the projections, of a replica where they may lag."""

    queries: Queries
    lagging: Reads

    async def get(self, order_id: UUID) -> OrderView | None:
        """Read one order, if it was placed."""
        row = await self.queries.fetchrow(f"{_VIEW} WHERE o.order_id = $1", order_id)
        return _view(row) if row else None

    async def by_request(self, user_id: UUID, request_id: str) -> Order | None:
        """Read the order that a buyer's request led to, if it did, with what was asked for."""
        rows = await self.queries.fetch(_GET_BY_REQUEST, user_id, request_id)
        return _order(rows[0]["order_id"], rows) if rows else None

    async def list(
        self, *, user_id: UUID | None, status: str | None, before: UUID | None, limit: int
    ) -> Sequence[OrderView]:
        """Read orders, newest first, that come after `before` in that order.

        May lag, but for the first page of a user's: who has just ordered looks there.
        """
        reads = self.queries if user_id is not None and before is None else self.lagging
        rows = await reads.fetch(
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

    async def returns_of(self, order_id: UUID, *, after: UUID | None, limit: int) -> Sequence[Return]:
        """Read the returns of an order, oldest first, that come after `after` in that order."""
        rows = await self.queries.fetch(
            """SELECT * FROM order_returns WHERE order_id = $1 AND ($2::uuid IS NULL OR return_id > $2)
            ORDER BY return_id LIMIT $3""",
            order_id,
            after,
            limit,
        )
        return [_return(row) for row in rows]

    async def returns(self, *, status: str | None, before: UUID | None, limit: int) -> Sequence[ReturnView]:
        """Read the returns of all orders, newest first, that come after `before` in that order. May lag."""
        rows = await self.lagging.fetch(
            """SELECT * FROM order_returns
            WHERE ($1::text IS NULL OR status = $1) AND ($2::uuid IS NULL OR return_id < $2)
            ORDER BY return_id DESC LIMIT $3""",
            status,
            before,
            limit,
        )
        return [ReturnView(row["order_id"], _return(row)) for row in rows]


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
            order = await _read(self._connection, order_id)
            rows, returns = _projected(order), [order_id, *_RETURNS.of_all(order.returns)]
            if not (
                await self._connection.fetchval(_DIFFER, *rows)
                or await self._connection.fetchval(_RETURNS_DIFFER, *returns)
            ):
                return False
            for table in ("order_items", "order_status_history", "order_returns"):
                await self._connection.execute(f"DELETE FROM {table} WHERE order_id = $1", order_id)
            await self._connection.execute(_PROJECT, *rows)
            await self._connection.execute(_PROJECT_RETURNS, *returns)
            return True


def _projected(order: Order) -> list[Any]:
    """Return the arguments of the statements on projections."""
    items, history = enumerate(order.lines, 1), enumerate(order.history, 1)
    return [*_ORDER.of(order), *_ITEMS.of_all(items), *_HISTORY.of_all(history)]


def _payment(payment: Payment) -> Any:
    # As older versions have written it: an order of theirs that is replayed does not differ.
    return _PAYMENT.dump_python(payment, mode="json", exclude_defaults=True)


def _contact(contact: Contact) -> Any:
    return None if contact == ACCOUNT else _CONTACT.dump_python(contact, mode="json")


def _return(row: asyncpg.Record) -> Return:
    return Return(
        return_id=row["return_id"],
        request_id=row["request_id"],
        status=ReturnStatus(row["status"]),
        items=_RETURN_ITEMS.validate_python(row["items"]["items"]),
        reason=row["reason"],
        refund=Money(row["refund_amount"], row["currency"]),
        created_at=row["created_at"],
        decision=row["decision"],
    )


async def _read(connection: asyncpg.Connection, order_id: UUID) -> Order:
    rows = await connection.fetch(_GET_ONE, order_id)
    if not rows:
        raise OrderNotFound(f"order {order_id} not found")
    return _order(order_id, rows)


def _order(order_id: UUID, rows: Sequence[asyncpg.Record]) -> Order:
    order = Order.replay(order_id, map(_recorded, rows))
    order.saga = _saga(rows[0]) if rows[0]["step"] is not None else None
    return order


def _recorded(row: asyncpg.Record) -> Recorded:
    return Recorded(row["version"], facts.load(row["type"], row["data"]), row["at"])


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
        shipment=_SHIPMENT.validate_python(row["shipment"]) if row["shipment"] else None,
        contact=_CONTACT.validate_python(row["contact"]) if row["contact"] else ACCOUNT,
        cancellation=row["cancellation"],
        history=tuple(
            StatusChange(Status(change["status"]), change["reason"], datetime.fromisoformat(change["at"]))
            for change in row["history"] or ()
        ),
        created_at=row["created_at"],
    )


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

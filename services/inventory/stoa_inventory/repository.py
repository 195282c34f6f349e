"""Stock in PostgreSQL."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

import asyncpg

from stoa_chassis.outbox import Outbox
from stoa_chassis.postgres import Database, any_of
from stoa_inventory import ports
from stoa_inventory.model import Adjustment, Hold, HoldStatus, Movement, NotReserved, Stock

# The columns, named like the fields, of what is written many rows at a time.
_STOCK = {
    "variant_id": "uuid",
    "product_id": "uuid",
    "stock_count": "int",
    "reserved_count": "int",
    "threshold": "int",
    "updated_at": "timestamptz",
    "on_sale": "boolean",
    "announced": "boolean",
    "availability_version": "bigint",
}
_MOVEMENT = {
    "variant_id": "uuid",
    "kind": "text",
    "stock_delta": "int",
    "reserved_delta": "int",
    "stock_after": "int",
    "reserved_after": "int",
    "order_id": "uuid",
    "request_id": "text",
    "reason": "text",
    "at": "timestamptz",
}


def _unnest(columns: Mapping[str, str], first: int) -> str:
    """Return rows of parameters, an array for each column, from the number `first` on."""
    arrays = ", ".join(f"${number}::{type_}[]" for number, type_ in enumerate(columns.values(), first))
    return f"unnest({arrays}) AS given ({', '.join(columns)})"


# Counts and the movements that explain them, written together. The rows are locked, so the counts are set.
_MOVE = f"""
moved AS (
    INSERT INTO stock_movements ({", ".join(_MOVEMENT)}) SELECT * FROM {_unnest(_MOVEMENT, 1)}
), counted AS (
    UPDATE inventory SET {", ".join(f"{column} = given.{column}" for column in list(_STOCK)[2:])}
    FROM {_unnest(_STOCK, 1 + len(_MOVEMENT))} WHERE inventory.variant_id = given.variant_id
)"""
_SAVE_STOCK = f"WITH {_MOVE} SELECT"
_ORDER_ID, _STATUS, _UPDATED_AT, _VARIANT_IDS, _QUANTITIES = (
    f"${1 + len(_MOVEMENT) + len(_STOCK) + place}" for place in range(5)
)
# With the hold, what it promises: that never changes, but what became of it does.
_SAVE_HOLD = f"""
WITH {_MOVE}, promised AS (
    INSERT INTO reservations (order_id, variant_id, quantity, status, updated_at)
    SELECT {_ORDER_ID}::uuid, variant_id, quantity, {_STATUS}, {_UPDATED_AT}::timestamptz
    FROM unnest({_VARIANT_IDS}::uuid[], {_QUANTITIES}::int[]) AS promise (variant_id, quantity)
    ON CONFLICT (order_id, variant_id) DO UPDATE
    SET status = excluded.status, updated_at = excluded.updated_at
    WHERE reservations.status <> excluded.status
)
UPDATE holds SET status = {_STATUS}, updated_at = {_UPDATED_AT}
WHERE order_id = {_ORDER_ID} AND status <> {_STATUS}
"""
_ADD_HOLD = """
INSERT INTO holds (order_id, status, updated_at) VALUES ($1, $2, $3) ON CONFLICT (order_id) DO NOTHING
"""
_NOTE_VERSION = """
INSERT INTO products AS known (product_id, version) VALUES ($1, $2)
ON CONFLICT (product_id) DO UPDATE SET version = excluded.version WHERE known.version < excluded.version
"""
_READ_STOCK = f"SELECT {', '.join(_STOCK)} FROM inventory"
_AMONG = f"variant_id = {any_of('$1')}"


class Stocks:
    """The stock of each variant that was ever sold."""

    def __init__(self, connection: asyncpg.Connection, outbox: Outbox) -> None:
        self._connection = connection
        self._outbox = outbox

    async def add(self, product_id: UUID, variant_ids: Iterable[UUID]) -> None:
        """Begin to count variants, from zero; those that are counted already stay as they are."""
        await self._connection.execute(
            """
            INSERT INTO inventory (variant_id, product_id)
            SELECT variant_id, $1 FROM unnest($2::uuid[]) AS variant_id ORDER BY variant_id
            ON CONFLICT (variant_id) DO NOTHING
            """,
            product_id,
            list(variant_ids),
        )

    async def note_version(self, product_id: UUID, version: int) -> bool:
        """Note the version of a product; tell whether it is a later one than was noted.

        Nobody else notes one of the product until the transaction ends.
        """
        return await self._connection.execute(_NOTE_VERSION, product_id, version) == "INSERT 0 1"

    async def lock_product(self, product_id: UUID) -> dict[UUID, Stock]:
        """Read the stock of the variants that a product has or had, locked as by `lock`."""
        return await self._lock("product_id = $1", product_id)

    async def lock(self, variant_ids: Iterable[UUID]) -> dict[UUID, Stock]:
        """Read the stock of variants, which nobody else changes until the transaction ends.

        They are locked in the order of their ids, so that two orders never wait for each other. Those that
        are not counted are left out.
        """
        return await self._lock(_AMONG, list(variant_ids))

    async def adjustment(self, variant_id: UUID, request_id: str) -> Adjustment | None:
        """Read the adjustment that a request led to, if it did."""
        row = await self._connection.fetchrow(
            "SELECT stock_delta, reason FROM stock_movements WHERE variant_id = $1 AND request_id = $2",
            variant_id,
            request_id,
        )
        return Adjustment(row["stock_delta"], row["reason"]) if row else None

    async def save(self, stock: Stock) -> None:
        """Store a locked stock with its movements, and publish its events."""
        await self._connection.execute(_SAVE_STOCK, *_taken([stock]))
        self._outbox.collect(stock)

    async def _lock(self, condition: str, key: object) -> dict[UUID, Stock]:
        rows = await self._connection.fetch(
            f"{_READ_STOCK} WHERE {condition} ORDER BY variant_id FOR UPDATE", key
        )
        return {row["variant_id"]: Stock(**row) for row in rows}


class Holds:
    """What orders hold of the stock; one for an order."""

    def __init__(self, connection: asyncpg.Connection, outbox: Outbox) -> None:
        self._connection = connection
        self._outbox = outbox

    async def add(self, hold: Hold) -> bool:
        """Store the hold of an order, still on nothing, unless the order has one; tell whether it was stored.

        One that is being stored by another transaction is waited for.
        """
        added = await self._connection.execute(_ADD_HOLD, hold.order_id, hold.status, hold.updated_at)
        return added == "INSERT 0 1"

    async def lock(self, order_id: UUID) -> Hold:
        """Read the hold of an order, which nobody else changes until the transaction ends.

        Raises NotReserved if the order has none.
        """
        rows = await self._connection.fetch(
            """
            SELECT holds.status, holds.updated_at, variant_id, quantity
            FROM holds LEFT JOIN reservations USING (order_id)
            WHERE order_id = $1 ORDER BY variant_id FOR UPDATE OF holds
            """,
            order_id,
        )
        if not rows:
            raise NotReserved(f"order {order_id} has no stock here: it is not known")
        quantities = {row["variant_id"]: row["quantity"] for row in rows if row["variant_id"]}
        return Hold(order_id, HoldStatus(rows[0]["status"]), rows[0]["updated_at"], quantities)

    async def returned(self, order_id: UUID) -> Mapping[UUID, int]:
        """Read how many of each variant came back from an order whose hold is locked."""
        rows = await self._connection.fetch(
            """
            SELECT variant_id, sum(stock_delta)::int AS quantity FROM stock_movements
            WHERE order_id = $1 AND kind = 'returned' GROUP BY variant_id
            """,
            order_id,
        )
        return {row["variant_id"]: row["quantity"] for row in rows}

    async def save(self, hold: Hold, stocks: Iterable[Stock]) -> None:
        """Store a changed hold with the locked stocks that it changed, and publish the events of all."""
        moved = [stock for stock in stocks if stock.movements]
        await self._connection.execute(
            _SAVE_HOLD,
            *_taken(moved),
            hold.order_id,
            hold.status,
            hold.updated_at,
            list(hold.quantities),
            list(hold.quantities.values()),
        )
        self._outbox.collect(hold, *moved)


def open_tx(connection: asyncpg.Connection, outbox: Outbox) -> ports.Tx:
    """Put the repositories on the connection of a transaction."""
    return ports.Tx(Stocks(connection, outbox), Holds(connection, outbox))


class StockReader:
    """Reads stock outside of a transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, variant_ids: Iterable[UUID]) -> dict[UUID, Stock]:
        """Read the stock of variants; those that are not counted are left out."""
        rows = await self._database.fetch(f"{_READ_STOCK} WHERE {_AMONG}", list(variant_ids))
        return {row["variant_id"]: Stock(**row) for row in rows}

    async def unannounced(self, limit: int) -> Sequence[UUID]:
        """Return variants that can or can't be bought otherwise than was last published."""
        rows = await self._database.fetch(
            """
            SELECT variant_id FROM inventory
            WHERE announced <> (on_sale AND stock_count > reserved_count) ORDER BY variant_id LIMIT $1
            """,
            limit,
        )
        return [row["variant_id"] for row in rows]

    async def list(self, *, low_only: bool, after: tuple[int, UUID] | None, limit: int) -> Sequence[Stock]:
        """Read stock, the scarcest first, that comes after (available, variant id) in that order."""
        rows = await self._database.fetch(
            f"""
            {_READ_STOCK}
            WHERE (NOT $1 OR (on_sale AND stock_count - reserved_count < threshold))
                AND ($2::int IS NULL OR (stock_count - reserved_count, variant_id) > ($2, $3::uuid))
            ORDER BY stock_count - reserved_count, variant_id LIMIT $4
            """,
            low_only,
            *(after or (None, None)),
            limit,
        )
        return [Stock(**row) for row in rows]


def _taken(stocks: Sequence[Stock]) -> list[list[Any]]:
    """Return stocks and their movements as the parameters of a statement; each movement is taken once."""
    movements: list[Movement] = [movement for stock in stocks for movement in stock.movements]
    for stock in stocks:
        stock.movements.clear()
    return [
        *([getattr(movement, column) for movement in movements] for column in _MOVEMENT),
        *([getattr(stock, column) for stock in stocks] for column in _STOCK),
    ]

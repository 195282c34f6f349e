"""Stock in PostgreSQL."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self
from uuid import UUID

import asyncpg

from stoa_chassis.avro import EventCodec
from stoa_chassis.clock import Clock
from stoa_chassis.outbox import Outbox
from stoa_chassis.postgres import Database
from stoa_chassis.uow import UnitOfWork
from stoa_inventory.model import Change, HoldStatus, Stock

_STOCK = "variant_id, product_id, stock_count, reserved_count, threshold"

# Counts and the movements that explain them, written together. The rows are locked, so the counts are set.
_APPLY = """
WITH change AS (
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::int[], $4::int[], $5::int[], $6::int[])
        AS change (variant_id, kind, stock_delta, reserved_delta, stock_after, reserved_after)
), moved AS (
    INSERT INTO stock_movements (variant_id, kind, stock_delta, reserved_delta, stock_after, reserved_after,
        order_id, request_id, reason, at)
    SELECT variant_id, kind, stock_delta, reserved_delta, stock_after, reserved_after,
        $7::uuid, $8::text, $9::text, $10::timestamptz FROM change
), promised AS (
    INSERT INTO reservations (order_id, variant_id, quantity, status, updated_at)
    SELECT $7::uuid, variant_id, reserved_delta, 'held', $10::timestamptz FROM change WHERE kind = 'reserved'
)
UPDATE inventory
SET stock_count = change.stock_after, reserved_count = change.reserved_after, updated_at = $10
FROM change WHERE inventory.variant_id = change.variant_id
"""


@dataclass(frozen=True, slots=True)
class Adjustment:
    """What a request changed."""

    delta: int
    reason: str


class Stocks:
    """The stock, inside one transaction."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

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

    async def lock(self, variant_ids: Iterable[UUID]) -> dict[UUID, Stock]:
        """Read the stock of variants, which nobody else changes until the transaction ends.

        They are locked in the order of their ids, so that two orders never wait for each other.
        """
        rows = await self._connection.fetch(
            f"SELECT {_STOCK} FROM inventory WHERE variant_id = ANY ($1) ORDER BY variant_id FOR UPDATE",
            list(variant_ids),
        )
        return {row["variant_id"]: Stock(**row) for row in rows}

    async def apply(
        self,
        changes: Sequence[Change],
        stocks: Mapping[UUID, Stock],
        now: datetime,
        *,
        order_id: UUID | None = None,
        request_id: str | None = None,
        reason: str = "",
    ) -> None:
        """Write changes that were made to locked stocks, at most one for each, and keep the promises."""
        await self._connection.execute(
            _APPLY,
            [change.variant_id for change in changes],
            [change.kind for change in changes],
            [change.stock for change in changes],
            [change.reserved for change in changes],
            [stocks[change.variant_id].stock_count for change in changes],
            [stocks[change.variant_id].reserved_count for change in changes],
            order_id,
            request_id,
            reason,
            now,
        )

    async def adjustment(self, variant_id: UUID, request_id: str) -> Adjustment | None:
        """Read what a request changed, if it was carried out."""
        row = await self._connection.fetchrow(
            "SELECT stock_delta, reason FROM stock_movements WHERE variant_id = $1 AND request_id = $2",
            variant_id,
            request_id,
        )
        return Adjustment(row["stock_delta"], row["reason"]) if row else None

    async def set_threshold(self, variant_id: UUID, threshold: int) -> None:
        """Store below how many available a variant counts as low."""
        await self._connection.execute(
            "UPDATE inventory SET threshold = $2 WHERE variant_id = $1", variant_id, threshold
        )

    async def open_hold(self, order_id: UUID, status: HoldStatus, now: datetime) -> HoldStatus | None:
        """Take note of an order that was not heard of before; otherwise return its status, locked."""
        opened = await self._connection.fetchval(
            """
            INSERT INTO holds (order_id, status, updated_at) VALUES ($1, $2, $3)
            ON CONFLICT (order_id) DO NOTHING RETURNING true
            """,
            order_id,
            status.value,
            now,
        )
        return None if opened else await self.lock_hold(order_id)

    async def lock_hold(self, order_id: UUID) -> HoldStatus | None:
        """Read the status of an order's hold, which nobody else changes until the transaction ends."""
        status = await self._connection.fetchval(
            "SELECT status FROM holds WHERE order_id = $1 FOR UPDATE", order_id
        )
        return HoldStatus(status) if status else None

    async def close_hold(self, order_id: UUID, status: HoldStatus, now: datetime) -> None:
        """Store what became of an order's hold, and of its reservations."""
        await self._connection.execute(
            """
            WITH reservation AS (
                UPDATE reservations SET status = $2, updated_at = $3 WHERE order_id = $1
            )
            UPDATE holds SET status = $2, updated_at = $3 WHERE order_id = $1
            """,
            order_id,
            status.value,
            now,
        )

    async def reserved_for(self, order_id: UUID) -> dict[UUID, int]:
        """Read how many of each variant were promised to an order."""
        rows = await self._connection.fetch(
            "SELECT variant_id, quantity FROM reservations WHERE order_id = $1", order_id
        )
        return {row["variant_id"]: row["quantity"] for row in rows}

    async def out_for(self, order_id: UUID) -> dict[UUID, int]:
        """Read how many of each variant left for an order and are not back."""
        rows = await self._connection.fetch(
            """
            SELECT variant_id, -sum(stock_delta)::int AS quantity FROM stock_movements
            WHERE order_id = $1 AND kind IN ('shipped', 'returned')
            GROUP BY variant_id HAVING sum(stock_delta) < 0
            """,
            order_id,
        )
        return {row["variant_id"]: row["quantity"] for row in rows}


@dataclass(frozen=True, slots=True)
class Tx:
    """What a use case sees of a transaction."""

    stocks: Stocks
    outbox: Outbox

    @classmethod
    def open(cls, connection: asyncpg.Connection, outbox: Outbox) -> Self:
        """Work on a connection."""
        return cls(Stocks(connection), outbox)


class StockReader:
    """Reads stock outside of a transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, variant_ids: Iterable[UUID]) -> dict[UUID, Stock]:
        """Read the stock of variants; those that are not counted are left out."""
        rows = await self._database.fetch(
            f"SELECT {_STOCK} FROM inventory WHERE variant_id = ANY ($1)", list(variant_ids)
        )
        return {row["variant_id"]: Stock(**row) for row in rows}

    async def list(self, *, low_only: bool, after: tuple[int, UUID] | None, limit: int) -> Sequence[Stock]:
        """Read stock, the scarcest first, that comes after (available, variant id) in that order."""
        rows = await self._database.fetch(
            f"""
            SELECT {_STOCK} FROM inventory
            WHERE (NOT $1 OR stock_count - reserved_count < threshold)
                AND ($2::int IS NULL OR (stock_count - reserved_count, variant_id) > ($2, $3::uuid))
            ORDER BY stock_count - reserved_count, variant_id LIMIT $4
            """,
            low_only,
            *(after or (None, None)),
            limit,
        )
        return [Stock(**row) for row in rows]


def unit_of_work(database: Database, codec: EventCodec, clock: Clock) -> UnitOfWork[Tx]:
    """Return what opens the transactions of the use cases."""
    return UnitOfWork(database, codec, Tx.open, clock)

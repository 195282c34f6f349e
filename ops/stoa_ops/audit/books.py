"""Reads the books: each service's store, the payment gateway's ledger, and what lies in Kafka."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import asyncpg
import httpx

from stoa_ops import outboxes
from stoa_ops.audit.event_log import EventBooks, EventLog
from stoa_ops.dead_letters import Fate
from stoa_stack.companies import PAYMENT_GATEWAY
from stoa_stack.instance import Instance
from stoa_stack.servers.postgres import superuser_url

_PAGE = 1000


@dataclass(frozen=True)
class Order:
    """An order as the order service has it; `facts` is the version of its event store."""

    order_id: UUID
    status: str
    total: Decimal
    quantities: Counter[UUID]
    version: int
    facts: int


@dataclass(frozen=True)
class Payment:
    """A payment as the payment service has it."""

    payment_id: UUID
    order_id: UUID
    amount: Decimal
    refunded: Decimal
    status: str
    charge_id: str | None


@dataclass(frozen=True)
class Charge:
    """A charge as the gateway has it, and what was given back of it."""

    charge_id: str
    order_id: str
    amount: Decimal
    refunded: Decimal
    status: str


@dataclass(frozen=True)
class Count:
    """The stock of a variant and how much of it is promised."""

    stock: int
    reserved: int


@dataclass(frozen=True)
class Reservation:
    """A promise of stock to an order."""

    order_id: UUID
    variant_id: UUID
    quantity: int
    status: str


@dataclass(frozen=True)
class Backlog:
    """Events that a service has recorded and not published."""

    events: int
    oldest: timedelta


@dataclass
class Books:
    """Everything that was read. The stores were read one after the other, not at one moment."""

    orders: dict[UUID, Order] = field(default_factory=dict)
    sagas: dict[UUID, str] = field(default_factory=dict)
    payments: list[Payment] = field(default_factory=list)
    charges: list[Charge] = field(default_factory=list)
    counts: dict[UUID, Count] = field(default_factory=dict)
    movements: dict[UUID, Count] = field(default_factory=dict)
    reservations: list[Reservation] = field(default_factory=list)
    backlogs: dict[str, Backlog] = field(default_factory=dict)
    dead_letters: dict[str, int] = field(default_factory=dict)
    events: EventBooks = field(default_factory=EventBooks)


async def read(at: Instance, log: EventLog) -> Books:
    """Read the books of a running instance; raises OSError or an error of a client if a store is down."""
    books = Books()
    await asyncio.gather(
        _orders(at, books),
        _payments(at, books),
        _ledger(at, books),
        _inventory(at, books),
        _backlogs(at, books),
    )
    books.events = await log.read()
    books.dead_letters = Counter(letter.topic for letter in log.letters if letter.fate is Fate.OPEN)
    return books


async def _rows(at: Instance, database: str, *queries: str) -> Sequence[list[asyncpg.Record]]:
    """Run queries that see the database as it was at one moment."""
    connection = await asyncpg.connect(superuser_url(at, database), timeout=5)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            return [await connection.fetch(query) for query in queries]
    finally:
        await connection.close()


async def _orders(at: Instance, books: Books) -> None:
    orders, items, sagas = await _rows(
        at,
        "order",
        """
        SELECT order_id, status, total_amount, o.version, facts
        FROM orders o FULL JOIN (
            SELECT order_id, max(version) AS facts FROM order_events GROUP BY order_id
        ) e USING (order_id)
        """,
        "SELECT order_id, variant_id, quantity FROM order_items",
        "SELECT order_id, step FROM sagas",
    )
    quantities: dict[UUID, Counter[UUID]] = defaultdict(Counter)
    for row in items:
        quantities[row["order_id"]][row["variant_id"]] += row["quantity"]
    for row in orders:
        books.orders[row["order_id"]] = Order(
            row["order_id"],
            row["status"] or "",
            row["total_amount"] or Decimal(0),
            quantities[row["order_id"]],
            row["version"] or 0,
            row["facts"] or 0,
        )
    books.sagas = {row["order_id"]: row["step"] for row in sagas}


async def _payments(at: Instance, books: Books) -> None:
    (payments,) = await _rows(
        at,
        "payment",
        "SELECT payment_id, order_id, amount, refunded_amount, status, gateway_charge_id FROM payments",
    )
    books.payments = [Payment(*row.values()) for row in payments]


async def _inventory(at: Instance, books: Books) -> None:
    counts, movements, reservations = await _rows(
        at,
        "inventory",
        "SELECT variant_id, stock_count, reserved_count FROM inventory",
        """
        SELECT variant_id, sum(stock_delta)::int AS stock, sum(reserved_delta)::int AS reserved
        FROM stock_movements GROUP BY variant_id
        """,
        "SELECT order_id, variant_id, quantity, status FROM reservations",
    )
    books.counts = {row["variant_id"]: Count(row["stock_count"], row["reserved_count"]) for row in counts}
    books.movements = {row["variant_id"]: Count(row["stock"], row["reserved"]) for row in movements}
    books.reservations = [Reservation(*row.values()) for row in reservations]


async def _ledger(at: Instance, books: Books) -> None:
    charges: dict[str, Any] = {}
    refunded: Counter[str] = Counter()
    async for entry in _entries(at):
        if entry["kind"] == "charge":
            charges[entry["id"]] = entry
        elif entry["status"] == "succeeded":
            refunded[entry["charge"]] += entry["amount"]
    books.charges = [
        Charge(
            charge_id,
            entry["metadata"].get("order_id", ""),
            Decimal(entry["amount"]) / 100,
            Decimal(refunded[charge_id]) / 100,
            entry["status"],
        )
        for charge_id, entry in charges.items()
    ]


async def _entries(at: Instance) -> AsyncIterator[dict[str, Any]]:
    api_key = PAYMENT_GATEWAY.secret(at, PAYMENT_GATEWAY.api_key)
    async with httpx.AsyncClient(
        base_url=f"http://{at.address('gateway')}",
        headers={"authorization": f"Bearer {api_key}"},
        timeout=30,
        trust_env=False,
    ) as gateway:
        after, more = "", True
        while more:
            answer = await gateway.get("/v1/ledger", params={"after": after, "limit": _PAGE})
            page = answer.raise_for_status().json()
            for entry in page["data"]:
                after = entry["id"]
                yield entry
            more = page["has_more"]


async def _backlogs(at: Instance, books: Books) -> None:
    books.backlogs = {
        outbox.service: Backlog(outbox.events, outbox.oldest) for outbox in await outboxes.states(at)
    }

"""Shipments and weights in PostgreSQL."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any
from uuid import UUID

import asyncpg
from pydantic import TypeAdapter

from stoa_chassis.due import Backoff
from stoa_chassis.outbox import Outbox
from stoa_chassis.postgres import Database, Queries, any_of
from stoa_chassis.postgres_due import DueTable
from stoa_chassis.postgres_table import Table
from stoa_contracts.money import Money
from stoa_shipping import ports
from stoa_shipping.model import (
    Address,
    Booking,
    Label,
    Method,
    Parcel,
    Shipment,
    ShipmentNotFound,
    Status,
    TrackingEvent,
)

_ERASED_USERS = Table("erased_users", key="user_id")
_DUE = DueTable("shipments", key="shipment_id")
_ADDRESS = TypeAdapter(Address)
_BOOKINGS = TypeAdapter(tuple[Booking, ...])
_HISTORY = TypeAdapter(tuple[TrackingEvent, ...])

_LIST = """
SELECT * FROM shipments
WHERE status <> 'waiting' AND shipping_method IS NOT NULL
    AND ($1::text IS NULL OR status = $1) AND ($2::uuid IS NULL OR shipment_id < $2)
ORDER BY shipment_id DESC LIMIT $3
"""
# The transaction that wrote a row last tells whether it is still as it was.
_READ = "SELECT *, xmin AS revision FROM shipments WHERE"
# One statement, since a round trip costs more than a row. It finds none that was stored while it ran.
_BEGIN = """
WITH known AS ({read} order_id = {order_id} FOR UPDATE), begun AS (
    INSERT INTO shipments ({columns}) SELECT {values} WHERE NOT EXISTS (SELECT FROM known)
    ON CONFLICT (order_id) DO NOTHING RETURNING *, xmin AS revision
)
SELECT shipment.*, {erased} AS is_erased FROM (TABLE known UNION ALL TABLE begun) AS shipment
"""
# In the order of their ids, so that two who learn of the same variants wait for each other and don't
# deadlock.
_LEARN = """
INSERT INTO variant_weights (variant_id, weight_grams, version)
SELECT variant_id, weight_grams, $3 FROM unnest($1::uuid[], $2::integer[]) AS told (variant_id, weight_grams)
ORDER BY variant_id
ON CONFLICT (variant_id) DO UPDATE SET weight_grams = excluded.weight_grams, version = excluded.version
    WHERE variant_weights.version < excluded.version
"""


class Shipments:
    """The shipments, in a transaction; one for an order."""

    def __init__(self, queries: Queries, outbox: Outbox) -> None:
        self._queries = queries
        self._outbox = outbox

    async def begin(self, shipment: Shipment) -> Shipment:
        """Store a new shipment unless its order has one, and return the one that it has.

        Nobody else may change that until the transaction ends. It is erased if the account of the user of the
        new one was.
        """
        row = _row(shipment)
        statement, arguments = _begin(tuple(row)), row.values()
        found = await self._queries.fetchrow(statement, *arguments)
        if found is None:  # somebody was faster
            found = await self._queries.fetchrow(statement, *arguments)
        assert found is not None
        known = _shipment(found)
        known.erased |= found["is_erased"]
        return known

    async def of_user(self, user_id: UUID) -> Sequence[Shipment]:
        """Read a user's shipments, which nobody else may change until the transaction ends."""
        # In the order of their ids, so that two who read them wait for each other and don't deadlock.
        rows = await self._queries.fetch(f"{_READ} user_id = $1 ORDER BY shipment_id FOR UPDATE", user_id)
        return [_shipment(row) for row in rows]

    async def lock(self, shipment_id: UUID) -> Shipment:
        """Read a shipment that nobody else may change until the transaction ends. Raises ShipmentNotFound."""
        shipment = await _read(self._queries, "shipment_id = $1 FOR UPDATE", shipment_id)
        if shipment is None:
            raise ShipmentNotFound("there is no such shipment")
        return shipment

    async def save(self, shipment: Shipment) -> None:
        """Store a changed shipment, and publish its events."""
        row = _row(shipment)
        shipment.revision = await self._queries.fetchval(_save(tuple(row)), *row.values())
        self._outbox.collect(shipment)

    async def save_unless_changed(self, shipment: Shipment) -> bool:
        """Do what `save` does, unless somebody else has changed it since it was read or stored.

        Tell whether it was stored: it may have been read by another transaction, or without a lock.
        """
        if shipment.revision is None:
            return False
        row = _row(shipment)
        statement = _save(tuple(row), f"AND xmin = ${len(row) + 1}")
        revision = await self._queries.fetchval(statement, *row.values(), shipment.revision)
        if revision is None:
            return False
        shipment.revision = revision
        self._outbox.collect(shipment)
        return True


class Weights:
    """What variants weigh, as far as the catalogue has told."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    async def of(self, variant_ids: Iterable[UUID]) -> Mapping[UUID, int]:
        """Return the grams of those that were weighed."""
        rows = await self._queries.fetch(
            f"""SELECT variant_id, weight_grams FROM variant_weights
            WHERE variant_id = {any_of("$1")} AND weight_grams > 0""",
            list(variant_ids),
        )
        return {row["variant_id"]: row["weight_grams"] for row in rows}

    async def learn(self, grams: Mapping[UUID, int], version: int) -> None:
        """Keep what a product's variants weigh, unless a later version of the product was heard of."""
        await self._queries.execute(_LEARN, list(grams), list(grams.values()), version)


class ErasedUsers:
    """Whose accounts were erased."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    async def add(self, user_id: UUID, now: datetime) -> None:
        """Keep that an account was erased; again is fine."""
        await _ERASED_USERS.insert_new(self._queries, {"user_id": user_id, "erased_at": now})


def open_tx(connection: asyncpg.Connection, outbox: Outbox) -> ports.Tx:
    """Put the repositories on the connection of a transaction."""
    return ports.Tx(Shipments(connection, outbox), Weights(connection), ErasedUsers(connection))


class ShipmentReader:
    """The shipments, outside of a transaction."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    async def get(self, shipment_id: UUID) -> Shipment | None:
        """Read a shipment, if there is one of that id."""
        return await _read(self._queries, "shipment_id = $1", shipment_id)

    async def of_order(self, order_id: UUID) -> Shipment | None:
        """Read an order's shipment, if it has one."""
        return await _read(self._queries, "order_id = $1", order_id)

    async def list(self, status: Status | None, before: UUID | None, limit: int) -> Sequence[Shipment]:
        """Read shipments, the newest first; `before`: only older than this one.

        Those that still wait for their order to be confirmed and paid are left out, and so is what was
        stopped before it was.
        """
        return [_shipment(row) for row in await self._queries.fetch(_LIST, status, before, limit)]


@dataclass(frozen=True, slots=True)
class Unfinished:
    """Shipments for which something is to be done.

    One that is taken up is left alone for `lease`, which is longer than an attempt may take.
    """

    database: Database
    backoff: Backoff
    lease: timedelta

    async def claim_due(self, now: datetime, limit: int) -> Sequence[Shipment]:
        """Take at most `limit` that are due, so that nobody else takes them meanwhile."""
        return [
            _shipment(row) for row in await _DUE.claim(self.database, now, limit, self.backoff, self.lease)
        ]

    async def next_due(self) -> datetime | None:
        """Return when the next falls due; None if nothing is to be done."""
        return await _DUE.next_due(self.database)

    async def put_off(self, work: Shipment, until: datetime) -> None:
        """Let one fall due at another time, unless it was finished meanwhile."""
        await _DUE.put_off(self.database, work.shipment_id, until)


async def _read(queries: Queries, condition: str, key: UUID) -> Shipment | None:
    row = await queries.fetchrow(f"{_READ} {condition}", key)
    return _shipment(row) if row else None


@lru_cache
def _begin(columns: tuple[str, ...]) -> str:
    places = _places(columns)
    erased = f"EXISTS (SELECT FROM erased_users WHERE user_id = {places['user_id']})"
    return _BEGIN.format(
        read=_READ,
        order_id=places["order_id"],
        columns=", ".join(columns),
        values=", ".join({**places, "erased": f"{places['erased']} OR {erased}"}.values()),
        erased=erased,
    )


@lru_cache
def _save(columns: tuple[str, ...], condition: str = "") -> str:
    places = _places(columns)
    changes = ", ".join(f"{column} = {place}" for column, place in places.items() if column != "shipment_id")
    key = f"shipment_id = {places['shipment_id']}"
    return f"UPDATE shipments SET {changes} WHERE {key} {condition} RETURNING xmin"


def _places(columns: tuple[str, ...]) -> dict[str, str]:
    return {column: f"${number}" for number, column in enumerate(columns, 1)}


def _row(shipment: Shipment) -> dict[str, Any]:
    parcel, label = shipment.parcel, shipment.label
    return {
        "shipment_id": shipment.shipment_id,
        "order_id": shipment.order_id,
        "user_id": shipment.user_id,
        "status": shipment.status,
        "paid": shipment.paid,
        "shipping_method": parcel and parcel.method,
        "destination": parcel and _ADDRESS.dump_python(parcel.destination, mode="json"),
        "weight_grams": parcel and parcel.weight_grams,
        "currency": parcel and parcel.value.currency,
        "value": parcel and parcel.value.amount,
        "carrier": shipment.carrier or None,
        "tracking_id": label and label.tracking_id,
        "tracking_url": label and label.tracking_url,
        "estimated_delivery": label and label.estimated_delivery,
        "stopping": shipment.stopping,
        "problem": shipment.problem,
        "erased": shipment.erased,
        "bookings": _BOOKINGS.dump_python(shipment.bookings, mode="json"),
        "history": _HISTORY.dump_python(shipment.history, mode="json"),
        "correlation_id": shipment.correlation_id,
        "attempts": shipment.attempts,
        "due_at": shipment.due_at,
        "created_at": shipment.created_at,
        "updated_at": shipment.updated_at,
    }


def _shipment(row: asyncpg.Record) -> Shipment:
    return Shipment(
        shipment_id=row["shipment_id"],
        order_id=row["order_id"],
        user_id=row["user_id"],
        status=Status(row["status"]),
        paid=row["paid"],
        parcel=_parcel(row) if row["shipping_method"] else None,
        carrier=row["carrier"] or "",
        label=(
            Label(row["tracking_id"], row["tracking_url"], row["estimated_delivery"])
            if row["carrier"]
            else None
        ),
        stopping=row["stopping"],
        problem=row["problem"],
        erased=row["erased"],
        bookings=_BOOKINGS.validate_python(row["bookings"]),
        history=_HISTORY.validate_python(row["history"]),
        correlation_id=row["correlation_id"],
        attempts=row["attempts"],
        due_at=row["due_at"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        revision=row.get("revision"),  # what is claimed comes without
    )


def _parcel(row: asyncpg.Record) -> Parcel:
    return Parcel(
        method=Method(row["shipping_method"]),
        destination=_ADDRESS.validate_python(row["destination"]),
        weight_grams=row["weight_grams"],
        value=Money(row["value"], row["currency"]),
    )

"""The books of the shipping service as the audit reads them, and what must hold of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import asyncpg

from stoa_chassis.audit import Finding, Waiting

_SHIPMENTS = """
SELECT shipment_id, order_id, status, coalesce(carrier, '') AS carrier,
    coalesce(tracking_id, '') AS tracking_id, stopping, problem,
    ARRAY(SELECT booking ->> 'carrier' FROM jsonb_array_elements(bookings) booking) AS asked,
    ARRAY(SELECT booking ->> 'status' FROM jsonb_array_elements(bookings) booking) AS answers
FROM shipments
"""
_UNFINISHED = """
SELECT order_id, updated_at AS since, attempts, due_at AS next_ask,
    CASE WHEN stopping THEN carrier || ': void' WHEN status = 'pending' THEN 'a carrier: booking'
        WHEN bookings @> '[{"status": "booked"}]' THEN carrier || ': confirmation'
        ELSE 'a carrier: bookings of which nothing came' END AS waits_for
FROM shipments
WHERE due_at IS NOT NULL AND (
    stopping OR status = 'pending'
    OR bookings @> '[{"status": "booked"}]' OR bookings @> '[{"status": "unwanted"}]'
)
"""
_WON = ("booked", "confirmed")


@dataclass(frozen=True, slots=True)
class Shipment:
    """A shipment; `bookings` maps each carrier that was asked to what became of it."""

    shipment_id: UUID
    order_id: UUID
    status: str
    carrier: str = ""
    tracking_id: str = ""
    stopping: bool = False
    problem: str = ""
    bookings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Books:
    """All shipments."""

    shipments: Sequence[Shipment]


async def read(connection: asyncpg.Connection) -> Books:
    """Read the books as they are at one moment. A connection that may only read is enough."""
    return Books([_shipment(row) for row in await connection.fetch(_SHIPMENTS)])


def findings(books: Books) -> Iterator[Finding]:
    """Check the books. While orders are under way something may be unfinished; it must not stay so."""
    for shipment in books.shipments:
        subject = f"shipment {shipment.shipment_id} of order {shipment.order_id}"
        look = f"stoa logs shipping | grep {shipment.order_id}"
        if shipment.status == "pending":
            # Not what the carrier said: findings are logged, and it may quote the address.
            detail = "refused" if shipment.problem else "pending"
            why = "GET /api/v1/shipments?status=pending as staff: problem"
            yield Finding("every parcel finds its carrier", subject, detail, why)
        if shipment.stopping:
            detail = f"{shipment.carrier} has not said whether it still can be stopped"
            yield Finding("what is to be stopped is stopped", subject, detail, look)
        for carrier, status in shipment.bookings.items():
            if (status in _WON) != (carrier == shipment.carrier and shipment.status != "stopped"):
                detail = f"{shipment.status} with {shipment.carrier or 'nobody'}, but {carrier}: {status}"
                yield Finding("a parcel has one booking", subject, detail, "the table shipments")
            elif status == "booked" and not shipment.stopping:
                detail = f"{carrier} has not said yet that it collects it"
                yield Finding("what is booked is collected", subject, detail, look)
            elif status in ("asked", "unwanted") and shipment.status != "pending":
                yield Finding("other bookings are voided", subject, f"{carrier}: {status}", look)


async def waiting(connection: asyncpg.Connection) -> Sequence[Waiting]:
    """The shipments that wait for a carrier's answer."""
    return [Waiting(**row) for row in await connection.fetch(_UNFINISHED)]


def _shipment(row: asyncpg.Record) -> Shipment:
    columns = dict(row)
    bookings = zip(columns.pop("asked"), columns.pop("answers"), strict=True)
    return Shipment(**columns, bookings=dict(bookings))

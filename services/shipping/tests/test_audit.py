"""The rules that shipments must keep, and that the audit reads what they are about."""

from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import asyncpg
import pytest

from stoa_chassis.avro import EventCodec
from stoa_chassis.clock import SystemClock
from stoa_chassis.postgres import Database
from stoa_chassis.postgres_uow import postgres_unit_of_work
from stoa_shipping import audit, repository
from stoa_shipping.audit import Books, Shipment, findings
from stoa_shipping.model import Label
from stoa_shipping.model import Shipment as Entity

from .conftest import CARRIERS, FIRST, NOW, RETRY, SECOND, a_parcel


def sent(status: str = "created", **changes: object) -> Shipment:
    shipment = Shipment(uuid4(), uuid4(), status, FIRST, "1Z1", bookings={FIRST: "confirmed"})
    return replace(shipment, **changes)  # type: ignore[arg-type]


def broken(*shipments: Shipment) -> list[str]:
    return [each.rule for each in findings(Books(shipments))]


def test_what_is_well_is_not_told() -> None:
    assert not broken(
        sent(),
        sent("delivered", bookings={FIRST: "confirmed", SECOND: "voided"}),
        sent("stopped", bookings={FIRST: "voided"}),
        sent("stopped", carrier="", tracking_id="", bookings={}),
        sent("waiting", carrier="", tracking_id="", bookings={}),
    )


def test_what_waits_for_a_carrier_is_told() -> None:
    waiting = sent("pending", carrier="", tracking_id="", bookings={FIRST: "asked"}, problem="ups: too far")
    assert broken(waiting) == ["every parcel finds its carrier"]
    (found,) = findings(Books([waiting]))
    assert (found.detail, "too far" in str(found)) == ("refused", False)
    assert broken(sent(stopping=True)) == ["what is to be stopped is stopped"]
    assert broken(sent(bookings={FIRST: "booked"})) == ["what is booked is collected"]
    stopping = sent(stopping=True, bookings={FIRST: "booked"})
    assert broken(stopping) == ["what is to be stopped is stopped"]


def test_what_is_booked_twice_or_not_at_all_is_told() -> None:
    assert broken(sent(bookings={FIRST: "confirmed", SECOND: "booked"})) == ["a parcel has one booking"]
    assert broken(sent(bookings={FIRST: "voided"})) == ["a parcel has one booking"]
    assert broken(sent("stopped", bookings={FIRST: "confirmed"})) == ["a parcel has one booking"]


def test_a_booking_that_is_left_over_is_told() -> None:
    assert broken(sent(bookings={FIRST: "confirmed", SECOND: "unwanted"})) == ["other bookings are voided"]
    assert broken(sent("stopped", bookings={FIRST: "unwanted"})) == ["other bookings are voided"]


@pytest.mark.stack
async def test_the_books_have_what_is_stored(
    database: Database, codec: EventCodec, database_url: str
) -> None:
    shipment = Entity.begin(uuid4(), "the request", NOW)
    shipment.on_payment_successful(CARRIERS, NOW)
    shipment.on_order_confirmed(uuid4(), a_parcel(), CARRIERS, NOW)
    shipment.ask_next(CARRIERS, NOW)
    number = uuid4().hex
    shipment.on_booked(FIRST, Label(number, "https://ups.example", NOW), RETRY, NOW + timedelta(seconds=1))
    shipment.events.clear()
    uow = postgres_unit_of_work(database, codec, repository.open_tx, SystemClock())
    await uow.run(lambda tx: tx.shipments.begin(shipment))
    connection = await asyncpg.connect(database_url)
    try:
        books = await audit.read(connection)
        waiting = await audit.waiting(connection)
    finally:
        await connection.close()
    (found,) = [each for each in books.shipments if each.shipment_id == shipment.shipment_id]
    assert found == Shipment(
        shipment.shipment_id,
        shipment.order_id,
        "created",
        FIRST,
        number,
        bookings={FIRST: "booked", SECOND: "unwanted"},
    )
    (waits,) = [each for each in waiting if each.order_id == shipment.order_id]
    assert waits.waits_for == f"{FIRST}: confirmation"

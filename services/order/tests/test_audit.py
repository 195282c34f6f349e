"""What the audit finds in the books of the order service."""

from dataclasses import replace
from decimal import Decimal

import asyncpg
import pytest

from stoa_chassis.avro import EventCodec
from stoa_chassis.clock import SystemClock
from stoa_chassis.ids import new_id
from stoa_chassis.postgres import Database
from stoa_chassis.postgres_uow import postgres_unit_of_work
from stoa_order import audit, repository
from stoa_order.ports import Tx
from stoa_order.returns import ReturnItem, ReturnRequest
from stoa_order.testing import NOW, WINDOW, a_confirmed_order, a_delivered_order

SETTLED = audit.Order(new_id(), "confirmed", Decimal("9.90"), 4, 4, "", {new_id(): 2})


def rules(order: audit.Order) -> list[tuple[str, str]]:
    return [(each.rule, each.detail) for each in audit.findings(audit.Books({order.order_id: order}))]


def test_a_settled_order_is_in_order() -> None:
    assert rules(SETTLED) == []
    assert rules(replace(SETTLED, status="cancelled")) == []


@pytest.mark.parametrize(
    ("status", "step", "detail"),
    [
        ("pending", "charge", "pending, waiting for: charge"),
        ("pending", "", "pending, waiting for: nothing, its saga is lost"),
        ("cancelled", "refund", "cancelled, waiting for: refund"),
    ],
)
def test_an_order_that_waits_is_found_with_what_it_waits_for(status: str, step: str, detail: str) -> None:
    assert rules(replace(SETTLED, status=status, step=step)) == [("every order is settled", detail)]


def test_a_projection_that_lags_behind_is_found() -> None:
    assert rules(replace(SETTLED, version=3)) == [
        ("projections match their events", "projected up to version 3, its events go to 4")
    ]


BACK = audit.Return(new_id(), "refunded", SETTLED.quantities, SETTLED.total)


def test_what_came_back_of_an_order_is_in_order() -> None:
    assert rules(replace(SETTLED, status="returned", returns=[BACK])) == []
    for status in ("requested", "approved", "rejected"):
        open_ = replace(BACK, return_id=new_id(), status=status)
        assert rules(replace(SETTLED, status="delivered", returns=[BACK, open_])) == []


def test_a_return_that_is_owed_or_more_than_was_bought_is_found() -> None:
    assert rules(replace(SETTLED, returns=[replace(BACK, status="received")])) == [
        ("every return is refunded", f"9.90 is owed for return {BACK.return_id}")
    ]
    twice = [BACK, replace(BACK, return_id=new_id())]
    assert [rule for rule, _ in rules(replace(SETTLED, returns=twice))] == [
        "no more comes back than was bought",
        "no more is given back than was paid",
    ]


@pytest.mark.stack
async def test_the_books_are_read_as_the_service_wrote_them(
    database: Database, database_url: str, codec: EventCodec
) -> None:
    order, lost = a_confirmed_order(), a_confirmed_order()
    back = a_delivered_order()
    item = ReturnItem(back.lines[0].variant_id, 1)
    made = back.request_return("r", ReturnRequest((item,), ""), WINDOW, NOW)

    async def save(tx: Tx) -> None:
        await tx.orders.save(order, None)
        await tx.orders.save(lost, None)
        await tx.orders.save(back, None)

    await postgres_unit_of_work(database, codec, repository.open_tx, SystemClock()).run(save)
    for table in ("order_items", "order_status_history", "orders"):
        await database.execute(f"DELETE FROM {table} WHERE order_id = $1", lost.order_id)
    connection = await asyncpg.connect(database_url)
    try:
        books = await audit.read(connection)
    finally:
        await connection.close()
    quantities = {line.variant_id: line.quantity for line in order.lines}
    orders = dict(books.orders)
    assert orders.pop(back.order_id).returns == [
        audit.Return(made.return_id, "requested", {item.variant_id: 1}, made.refund.amount)
    ]
    assert orders == {
        order.order_id: audit.Order(
            order.order_id, "confirmed", order.amounts.total.amount, 4, 4, "", quantities
        ),
        lost.order_id: audit.Order(lost.order_id, "", Decimal(0), 0, 4, "", {}),
    }

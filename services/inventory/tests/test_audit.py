"""The rules that stock must keep, and that the audit reads what they are about."""

from dataclasses import replace

import asyncpg
import pytest

from stoa_chassis.avro import EventCodec
from stoa_chassis.ids import new_id
from stoa_chassis.postgres import Database
from stoa_chassis.postgres_uow import postgres_unit_of_work
from stoa_chassis.testing import SettableClock
from stoa_inventory import repository
from stoa_inventory.audit import Books, Count, Reservation, findings, read
from stoa_inventory.model import Hold, Wanted
from stoa_inventory.ports import Tx
from stoa_inventory.service import Inventory
from stoa_inventory.testing import FakeCatalog

LAMP = new_id()
BALANCED = Books(
    counts={LAMP: Count(10, 3)},
    movements={LAMP: Count(10, 3)},
    reservations=[Reservation(new_id(), LAMP, 3, "held"), Reservation(new_id(), LAMP, 2, "shipped")],
)


def rules(books: Books) -> list[str]:
    return [finding.rule for finding in findings(books)]


def test_stock_that_nothing_is_wrong_with_balances() -> None:
    assert rules(BALANCED) == []
    assert rules(Books({LAMP: Count(0, 0)}, {}, [])) == []


@pytest.mark.parametrize(
    ("books", "rule"),
    [
        (replace(BALANCED, movements={LAMP: Count(9, 3)}), "stock is the sum of its movements"),
        (replace(BALANCED, reservations=[]), "what is reserved is promised to orders"),
        (
            replace(BALANCED, counts={LAMP: Count(2, 3)}, movements={LAMP: Count(2, 3)}),
            "nothing is oversold",
        ),
    ],
)
def test_what_does_not_balance_is_found(books: Books, rule: str) -> None:
    assert rules(books) == [rule]


@pytest.mark.stack
async def test_the_books_have_what_is_stored(
    database: Database, codec: EventCodec, database_url: str
) -> None:
    uow = postgres_unit_of_work(database, codec, repository.open_tx, clock := SettableClock())
    variant_id, order_id = new_id(), new_id()
    catalog = FakeCatalog({variant_id: new_id()})
    await Inventory(uow, repository.StockReader(database), catalog, clock).adjust(variant_id, 9, "", "r")

    async def place(tx: Tx) -> None:
        hold = Hold.begin(order_id, clock.now())
        await tx.holds.add(hold)
        stocks = await tx.stocks.lock([variant_id])
        hold.on_order_placed([Wanted(new_id(), variant_id, 4)], stocks, clock.now())
        await tx.holds.save(hold, stocks.values())

    await uow.run(place)
    connection = await asyncpg.connect(database_url)
    try:
        books = await read(connection)
    finally:
        await connection.close()
    assert books == Books(
        counts={variant_id: Count(9, 4)},
        movements={variant_id: Count(9, 4)},
        reservations=[Reservation(order_id, variant_id, 4, "held")],
        in_stock={variant_id},
    )

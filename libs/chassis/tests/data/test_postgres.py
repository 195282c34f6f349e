import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from stoa_chassis.avro import EventCodec
from stoa_chassis.clock import SystemClock
from stoa_chassis.errors import Unavailable
from stoa_chassis.postgres import Database
from stoa_chassis.postgres_uow import postgres_unit_of_work

pytestmark = pytest.mark.stack


async def start(url: str, folder: Path) -> None:
    async with Database.connect(url, folder):
        pass


async def test_a_running_process_outlives_a_migration_that_adds_a_column(database: Database) -> None:
    await database.execute("CREATE TABLE grown AS SELECT 1 AS one")
    nothing_published = EventCodec("")
    uow = postgres_unit_of_work(database, nothing_published, lambda connection, _: connection, SystemClock())

    async def read(connection: asyncpg.Connection) -> object:
        return await connection.fetchrow("SELECT * FROM grown")

    await uow.run(read)
    await database.execute("ALTER TABLE grown ADD COLUMN two integer NOT NULL DEFAULT 2")
    assert await uow.run(read)


async def test_a_transaction_that_raises_changes_nothing(database: Database) -> None:
    await database.execute("CREATE TABLE shelf (id int)")
    with pytest.raises(LookupError):  # noqa: PT012
        async with database.transaction() as connection:
            await connection.execute("INSERT INTO shelf VALUES (1)")
            raise LookupError
    assert await database.fetchval("SELECT count(*) FROM shelf") == 0


async def test_documents_numbers_and_ids_are_python_values(database: Database) -> None:
    document, amount, ident = {"lines": [1, None, "ü"]}, Decimal("12.30"), uuid4()
    row = await database.fetchrow("SELECT $1::jsonb, $2::numeric(12,2), $3::uuid", document, amount, ident)
    assert row is not None
    assert tuple(row) == (document, amount, ident)


async def test_statements_are_counted_apart_from_transactions(database: Database) -> None:
    statements, transactions = database.statements, database.transactions
    await database.fetchval("SELECT 1")
    async with database.transaction() as connection:
        await connection.fetch("SELECT 1")
        await connection.execute("SELECT $1::int", 1)
        await connection.executemany("SELECT $1::int", [(1,), (2,)])
    assert (database.statements - statements, database.transactions - transactions) == (4, 1)


async def test_a_lost_server_is_unavailable_and_the_pool_recovers(
    empty_database: str, no_migrations: Path, proxy: Callable[[str], Awaitable[Any]]
) -> None:
    address = empty_database.split("@")[-1].split("/")[0]
    network = await proxy(address)
    async with Database.connect(empty_database.replace(address, network.address), no_migrations) as database:
        async with asyncio.timeout(20):
            with pytest.raises(Unavailable):  # noqa: PT012
                async with database.transaction() as connection:
                    await connection.execute("SELECT 1")
                    await network.cut()
                    await connection.execute("SELECT 1")
            with pytest.raises(Unavailable):
                await database.fetchval("SELECT 1")
            await network.restore()
            assert await database.fetchval("SELECT 1") == 1


async def test_a_start_waits_for_a_server_that_is_not_up_yet(
    empty_database: str, no_migrations: Path, proxy: Callable[[str], Awaitable[Any]]
) -> None:
    address = empty_database.split("@")[-1].split("/")[0]
    network = await proxy(address)
    await network.cut()
    starting = asyncio.ensure_future(start(empty_database.replace(address, network.address), no_migrations))
    await asyncio.sleep(0.5)
    assert not starting.done()
    await network.restore()
    await asyncio.wait_for(starting, 20)


async def test_a_start_gives_up_after_its_timeout(empty_database: str, no_migrations: Path) -> None:
    unreachable = "postgresql://nobody@127.0.0.1:1/nothing"
    with pytest.raises(Unavailable):
        async with Database.connect(unreachable, no_migrations, connect_timeout=0.3):
            pass


async def test_a_bug_in_a_transaction_is_not_taken_for_an_outage(database: Database) -> None:
    with pytest.raises(FileNotFoundError):
        async with database.transaction():
            Path("/does/not/exist").read_bytes()  # noqa: ASYNC240

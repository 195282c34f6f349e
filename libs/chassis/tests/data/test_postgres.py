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
from stoa_chassis.postgres import Database, any_of
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


async def test_a_transaction_begins_with_a_statement_in_one_round_trip(database: Database) -> None:
    await database.execute("CREATE TABLE shelf (id int)")
    statements, transactions = database.statements, database.transactions
    async with database.transaction_with("INSERT INTO shelf VALUES (1), (2)") as (connection, told):
        assert told == "INSERT 0 2"
        assert connection.is_in_transaction()
    assert (database.statements - statements, database.transactions - transactions) == (1, 1)
    with pytest.raises(LookupError):
        async with database.transaction_with("DELETE FROM shelf"):
            raise LookupError
    assert await database.fetchval("SELECT count(*) FROM shelf") == 2


@pytest.mark.parametrize("first", ["SELECT 1 / 0", "SELECT pg_sleep(20)"])
async def test_a_connection_whose_first_statement_failed_is_of_use_again(
    empty_database: str, no_migrations: Path, first: str
) -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: complaints.append(told))
    async with Database.connect(empty_database, no_migrations, pool_size=1) as database:
        process = await database.fetchval("SELECT pg_backend_pid()")
        with pytest.raises((asyncpg.DivisionByZeroError, TimeoutError)):
            async with asyncio.timeout(0.3), database.transaction_with(first):
                pytest.fail("it did not fail")
        async with database.transaction() as connection:
            assert await connection.fetchval("SELECT pg_backend_pid()") == process
    assert complaints == []


async def test_types_are_asked_for_once_and_not_with_each_connection(
    empty_database: str, no_migrations: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    ask = asyncpg.Connection._introspect_types  # type: ignore[attr-defined]  # it is private

    async def noting(connection: asyncpg.Connection, *args: Any) -> Any:
        asked.append(args)
        return await ask(connection, *args)

    monkeypatch.setattr(asyncpg.Connection, "_introspect_types", noting)
    ids = [uuid4()]
    async with Database.connect(empty_database, no_migrations, pool_size=2) as database:
        for _ in range(2):
            async with database.transaction() as one, database.transaction() as other:
                for connection in (one, other):
                    assert await connection.fetchval("SELECT $1::uuid[]", ids) == ids
    assert len(asked) == 1


async def test_a_plan_is_made_once_for_any_number_of_ids(database: Database) -> None:
    await database.execute(
        "CREATE TABLE shelf AS SELECT gen_random_uuid() AS id FROM generate_series(1, 1000)"
    )
    await database.execute("CREATE UNIQUE INDEX ON shelf (id)")
    await database.execute("ANALYZE shelf")
    query = f"SELECT id FROM shelf WHERE id = {any_of('$1')}"
    async with database.transaction() as connection:
        ids = [row["id"] for row in await connection.fetch("SELECT id FROM shelf LIMIT 20")]
        for count in range(20):
            assert len(await connection.fetch(query, ids[:count])) == count
        (made,) = await connection.fetch(
            "SELECT custom_plans, generic_plans FROM pg_prepared_statements WHERE statement = $1", query
        )
    assert tuple(made) == (5, 15)  # those of the first five executions are of no other use


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

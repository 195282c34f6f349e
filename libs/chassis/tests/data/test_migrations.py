"""Migrations on a real database: each applied once, by one of many, and by nobody who would stop the shop."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest

from stoa_chassis import migrations
from stoa_chassis.migrations import Migration, MigrationError
from stoa_chassis.postgres import Database, bring_up_to_date

pytestmark = pytest.mark.stack
VALID = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass($1)"


def migration(folder: Path, name: str, sql: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(sql)
    return folder


async def start(url: str, folder: Path, *, migrating: bool = True) -> None:
    """Do what a process does as it starts."""
    async with Database.connect(url, folder, connect_timeout=2, migrating=migrating):
        pass


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def test_two_instances_that_start_at_once_apply_each_migration_once(
    empty_database: str, tmp_path: Path
) -> None:
    folder = migration(tmp_path / "m", "0001_shelf.sql", "CREATE TABLE shelf (id int); SELECT pg_sleep(0.3);")
    migration(folder, "0002_fill.sql", "INSERT INTO shelf VALUES (1);")
    await asyncio.gather(*(start(empty_database, folder) for _ in range(4)))
    async with Database.connect(empty_database) as database:
        assert await database.fetchval("SELECT count(*) FROM shelf") == 1
        applied = await database.fetch(
            "SELECT component, name FROM schema_migrations ORDER BY component, name"
        )
    assert [tuple(row) for row in applied] == [
        ("chassis", "0001_outbox_inbox.sql"),
        ("chassis", "0002_shop.sql"),
        ("service", "0001_shelf.sql"),
        ("service", "0002_fill.sql"),
    ]


async def test_a_migration_that_was_changed_after_it_was_applied_is_refused(
    empty_database: str, tmp_path: Path
) -> None:
    folder = migration(tmp_path / "m", "0001_shelf.sql", "CREATE TABLE shelf (id int);")
    await start(empty_database, folder)
    migration(folder, "0001_shelf.sql", "CREATE TABLE shelf (id bigint);")
    with pytest.raises(MigrationError, match=r"0001_shelf\.sql was changed"):
        await start(empty_database, folder)


async def test_a_new_migration_before_an_applied_one_is_refused(empty_database: str, tmp_path: Path) -> None:
    await start(empty_database, migration(tmp_path / "m", "0002_shelf.sql", "CREATE TABLE shelf (id int);"))
    with pytest.raises(MigrationError, match=r"0001_late\.sql is new but before"):
        await start(empty_database, migration(tmp_path / "m", "0001_late.sql", "SELECT 1;"))


async def test_an_applied_migration_that_is_gone_from_the_middle_is_refused(
    empty_database: str, tmp_path: Path
) -> None:
    folder = migration(tmp_path / "m", "0001_shelf.sql", "CREATE TABLE shelf (id int);")
    await start(empty_database, migration(folder, "0002_fill.sql", "SELECT 1;"))
    (folder / "0001_shelf.sql").unlink()
    with pytest.raises(MigrationError, match=r"0001_shelf\.sql was applied and is gone"):
        await start(empty_database, folder)


async def test_an_older_version_starts_on_the_schema_of_a_newer_one(
    empty_database: str, tmp_path: Path
) -> None:
    folder = migration(tmp_path / "m", "0001_shelf.sql", "CREATE TABLE shelf (id int);")
    await start(empty_database, migration(folder, "0002_newer.sql", "SELECT 1;"))
    (folder / "0002_newer.sql").unlink()
    await start(empty_database, folder)


async def test_a_migration_that_fails_leaves_nothing_behind(empty_database: str, tmp_path: Path) -> None:
    folder = migration(tmp_path / "m", "0001_shelf.sql", "CREATE TABLE shelf (id int); SELECT 1/0;")
    with pytest.raises(Exception, match="division by zero"):
        await start(empty_database, folder)
    await start(empty_database, migration(folder, "0001_shelf.sql", "CREATE TABLE shelf (id int);"))


async def test_what_a_version_took_away_keeps_those_from_starting_that_use_it(
    empty_database: str, tmp_path: Path
) -> None:
    oldest = migration(tmp_path / "1", "0001_shelf.sql", "CREATE TABLE shelf (id int, note text);")
    before = migration(tmp_path / "2", "0001_shelf.sql", "CREATE TABLE shelf (id int, note text);")
    migration(before, "0002_note_unused.sql", "-- Nothing reads or writes shelf.note from here on.")
    newest = migration(tmp_path / "3", "0001_shelf.sql", "CREATE TABLE shelf (id int, note text);")
    migration(newest, "0002_note_unused.sql", "-- Nothing reads or writes shelf.note from here on.")
    contract = "-- contract: unused since 0002_note_unused.sql\nALTER TABLE shelf DROP COLUMN note;"
    migration(newest, "0003_no_note.sql", contract)

    await start(empty_database, oldest)
    await start(empty_database, before)
    await start(empty_database, oldest)  # rolled back
    await start(empty_database, newest)
    await start(empty_database, before)
    for migrating in (True, False):
        with pytest.raises(MigrationError, match=r"0003_no_note\.sql took away what this version uses"):
            await start(empty_database, oldest, migrating=migrating)


async def test_books_that_an_older_version_has_kept_are_kept_on(empty_database: str, tmp_path: Path) -> None:
    async with connected(empty_database) as connection:
        await connection.execute(
            "CREATE TABLE schema_migrations (component text NOT NULL, name text NOT NULL,"
            " checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now(),"
            " PRIMARY KEY (component, name))"
        )
    folder = migration(tmp_path / "m", "0001_shelf.sql", "CREATE TABLE shelf (id int);")
    with pytest.raises(MigrationError, match="older than this version"):
        await start(empty_database, folder, migrating=False)
    await start(empty_database, folder)
    await start(empty_database, folder)


async def test_a_process_that_does_not_migrate_waits_for_who_does(
    empty_database: str, tmp_path: Path
) -> None:
    folder = migration(tmp_path / "m", "0001_shelf.sql", "CREATE TABLE shelf (id int);")
    with pytest.raises(MigrationError, match=r"it lacks .*0001_shelf\.sql\. `stoa migrate` brings"):
        await start(empty_database, folder, migrating=False)
    waiting = asyncio.ensure_future(start(empty_database, folder, migrating=False))
    await asyncio.sleep(0.3)
    assert not waiting.done()
    assert await bring_up_to_date(empty_database, folder) == [
        "0001_outbox_inbox.sql",
        "0002_shop.sql",
        "0001_shelf.sql",
    ]
    await waiting
    assert await bring_up_to_date(empty_database, folder) == []


async def test_a_migration_that_gets_no_lock_lets_others_pass_and_tries_again(
    empty_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "_LOCK_WAIT_SECONDS", 0.2)
    monkeypatch.setattr(migrations, "_PAUSES", (0.2, 0.2))
    folder = migration(tmp_path / "m", "0001_shelf.sql", "CREATE TABLE shelf (id int);")
    await start(empty_database, folder)
    migration(folder, "0002_note.sql", "ALTER TABLE shelf ADD COLUMN note text;")
    async with connected(empty_database) as reader, connected(empty_database) as others:
        async with reader.transaction():
            await reader.execute("SELECT FROM shelf")  # and goes on for long
            migrating = asyncio.ensure_future(start(empty_database, folder))
            longest = 0.0
            for _ in range(100):
                began = time.monotonic()
                await others.execute("INSERT INTO shelf VALUES (1)")
                longest = max(longest, time.monotonic() - began)
                await asyncio.sleep(0.01)
            assert not migrating.done()
        await migrating
        assert await others.fetchval("SELECT count(*) FROM shelf WHERE note IS NULL") == 100
    assert 0.1 < longest < 1  # they did wait behind it, and no longer than it did


async def test_a_migration_that_never_gets_a_lock_gives_up(
    empty_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("_LOCK_WAIT_SECONDS", 0.1), ("_PAUSES", (0.1, 0.1)), ("_GIVE_UP_SECONDS", 0.3)):
        monkeypatch.setattr(migrations, name, value)
    folder = migration(tmp_path / "m", "0001_shelf.sql", "CREATE TABLE shelf (id int);")
    await start(empty_database, folder)
    migration(folder, "0002_note.sql", "ALTER TABLE shelf ADD COLUMN note text;")
    async with connected(empty_database) as reader, reader.transaction():
        await reader.execute("SELECT FROM shelf")
        with pytest.raises(MigrationError, match="gets no lock"):
            await start(empty_database, folder)


async def test_an_index_is_built_beside_writers_while_others_wait_to_start(
    empty_database: str, tmp_path: Path
) -> None:
    folder = migration(tmp_path / "m", "0001_shelf.sql", "CREATE TABLE shelf (id int);")
    await start(empty_database, folder)
    migration(folder, "0002_by_id.sql", "-- For lists.\nCREATE INDEX CONCURRENTLY shelf_by_id ON shelf (id);")
    async with connected(empty_database) as writer, connected(empty_database) as other:
        async with writer.transaction():
            await writer.execute("INSERT INTO shelf VALUES (1)")
            starting = [asyncio.ensure_future(start(empty_database, folder)) for _ in range(3)]
            await asyncio.sleep(0.5)
            await other.execute("INSERT INTO shelf VALUES (2)")  # nobody holds it up
            assert not any(each.done() for each in starting)
        async with asyncio.timeout(20):
            await asyncio.gather(*starting)
        assert await other.fetchval(VALID, "shelf_by_id") is True


async def test_an_index_of_which_an_interrupted_try_has_left_something_is_built_anew(
    empty_database: str, tmp_path: Path
) -> None:
    folder = migration(tmp_path / "m", "0001_shelf.sql", "CREATE TABLE shelf (id int);")
    await start(empty_database, folder)
    migration(folder, "0002_one_each.sql", "CREATE UNIQUE INDEX CONCURRENTLY one_each ON shelf (id);")
    async with connected(empty_database) as connection:
        await connection.execute("INSERT INTO shelf VALUES (1), (1)")
        with pytest.raises(asyncpg.UniqueViolationError):
            await start(empty_database, folder)
        assert await connection.fetchval(VALID, "one_each") is False
        await connection.execute("TRUNCATE shelf")
        await start(empty_database, folder)
        assert await connection.fetchval(VALID, "one_each") is True

        # Built, and the process ended before it could note that.
        await connection.execute("DELETE FROM schema_migrations WHERE name = '0002_one_each.sql'")
        await start(empty_database, folder)
        migration(folder, "0003_not_one_each.sql", "DROP INDEX CONCURRENTLY one_each;")
        await start(empty_database, folder)
        assert await connection.fetchval(VALID, "one_each") is None


def test_what_cannot_run_in_a_transaction_stands_alone_in_its_file(tmp_path: Path) -> None:
    sql = "CREATE TABLE shelf (id int); CREATE INDEX CONCURRENTLY shelf_by_id ON shelf (id);"
    folder = migration(tmp_path / "m", "0001_shelf.sql", sql)
    with pytest.raises(MigrationError, match="needs a file of its own"):
        Migration.read(folder / "0001_shelf.sql")


def test_the_command_migrates_with_the_settings_of_the_service_and_says_plainly_if_it_cannot(
    database_url: str,
) -> None:
    def run(url: str) -> tuple[int, list[dict[str, Any]]]:
        done = subprocess.run(
            [sys.executable, "-m", "stoa_chassis.migrations", "order"],
            env={**os.environ, "STOA_DATABASE_URL": url, "STOA_CONNECT_TIMEOUT_SECONDS": "0.5"},
            stdout=subprocess.PIPE,
            check=False,
        )
        return done.returncode, [orjson.loads(line) for line in done.stdout.splitlines()]

    code, log = run(database_url)
    assert (code, log[-1]["event"]) == (0, "the schema is up to date")
    assert "0001_orders.sql" in log[-1]["applied"]
    assert run(database_url)[1][-1]["applied"] == []
    for url, reason in (("", "is not set"), ("postgresql://nobody@127.0.0.1:1/nothing", "can't be reached")):
        code, log = run(url)
        assert (code, log[-1]["event"]) == (1, "migration failed")
        assert reason in log[-1]["reason"]
